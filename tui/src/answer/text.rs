//! Figures and states as people read them.

use idunno_shared::client::files::get::utc;
use idunno_shared::ids::Digest;
use idunno_shared::wire::control::{JobState, JobView, Liveness, LogRole, MemberView};
use idunno_shared::wire::jobs::{BatchSize, ModelState, Policy, ServerState, TrainingProgress};
use idunno_shared::wire::resources::{Device, Runner};

/// Bytes with a unit: `999 B`, `1.2 MB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A span of time: `7 s`, `1 min 12 s`, `2 h 5 min`.
pub fn seconds(span: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates: a negative span is shown as 0"
    )]
    let whole = span.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole / 60 % 60),
    }
}

/// A moment in UTC: `2026-11-22 14:03:07`.
pub fn moment(at_ms: u64) -> String {
    utc(at_ms).replace('T', " ").trim_end_matches('Z').to_owned()
}

/// A digest's first 12 digits.
pub fn short(digest: &Digest) -> String {
    digest.to_string().chars().take(12).collect()
}

/// A count with its noun: `1 file`, `2 files`.
pub fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// A count of queries: `1 query`, `2 queries`.
pub fn queries(number: u64) -> String {
    if number == 1 { String::from("1 query") } else { format!("{number} queries") }
}

/// The time of day in UTC: `14:03:07`.
pub fn clock(at_ms: u64) -> String {
    moment(at_ms).split(' ').next_back().unwrap_or_default().chars().take(8).collect()
}

/// A large number: `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A member's GPUs with the memory that is used of each: `NVIDIA H200 512/143771 MiB`.
pub fn devices(devices: &[Device]) -> String {
    let device = |device: &Device| {
        let unusable = if device.reason.is_empty() { String::new() } else { format!(" ({})", device.reason) };
        format!("{} {}/{} MiB{unusable}", device.name, device.memory_used_mib, device.memory_mib)
    };
    devices.iter().map(device).collect::<Vec<_>>().join(", ")
}

/// The memory of a model's processes at one member, by device: `812 MiB on cuda:0`. Empty if it has none.
pub fn runners<'a>(runners: impl Iterator<Item = &'a Runner>) -> String {
    let runner = |runner: &Runner| {
        let state = if runner.state == "running" { String::new() } else { format!(", {}", runner.state) };
        format!("{} MiB on {}{state}", runner.memory_mib, runner.device)
    };
    runners.map(runner).collect::<Vec<_>>().join("; ")
}

/// A member's liveness in a word.
pub const fn liveness(state: Liveness) -> &'static str {
    match state {
        Liveness::Alive => "up",
        Liveness::Suspect => "suspect",
        Liveness::Dead => "dead",
        Liveness::Left => "left",
    }
}

/// A member's role in the metadata log in a word.
pub const fn role(role: LogRole) -> &'static str {
    match role {
        LogRole::Coordinator => "coordinator",
        LogRole::Voter => "voter",
        LogRole::Learner => "learner",
        LogRole::Spare => "spare",
    }
}

/// A job's name, or a dash.
pub fn job_name(job: &JobView) -> String {
    job.details.name.as_ref().map_or_else(|| String::from("-"), ToString::to_string)
}

/// A job's batch size; `auto` with the size last used.
pub fn batch_size(job: &JobView) -> String {
    match job.batch_size {
        BatchSize::Auto if job.batch_now > 0 => format!("auto {}", job.batch_now),
        size => size.to_string(),
    }
}

/// A job's state in a word, and why the cluster paused it.
pub fn job_state(state: &JobState) -> (&'static str, Option<&str>) {
    match state {
        JobState::Added => ("added", None),
        JobState::Running => ("running", None),
        JobState::Stopped => ("stopped", None),
        JobState::Paused(reason) => ("paused", Some(reason)),
        JobState::Done => ("done", None),
        JobState::Cancelled => ("cancelled", None),
        JobState::Waiting(_) => ("waiting", None),
    }
}

/// A policy in a word, and its meaning.
pub const fn policy(policy: Policy) -> (&'static str, &'static str) {
    match policy {
        Policy::Rate => ("rate", "every job answers equally many queries per second"),
        Policy::Time => ("time", "every job gets an equal share of the workers' time"),
        Policy::Fifo => ("fifo", "the oldest job gets all workers that can serve it"),
    }
}

/// A training's progress: `training 40 %, 2 of 5, loss 0.31`.
pub fn training(progress: &TrainingProgress) -> String {
    let TrainingProgress { permille, step, steps, metrics } = progress;
    let mut parts = vec![format!("training {} %", permille / 10)];
    if *steps > 0 {
        parts.push(format!("{step} of {steps}"));
    }
    parts.extend(metrics.iter().map(|(name, value)| format!("{name} {value}")));
    parts.join(", ")
}

/// A model server's state in a word, and why it is down.
pub fn server_state(state: &ServerState) -> (&'static str, Option<&str>) {
    match state {
        ServerState::Starting => ("starting", None),
        ServerState::Ready => ("ready", None),
        ServerState::Down(reason) => ("down", Some(reason)),
    }
}

/// A model's state at a member in a word, and why it could not be loaded.
pub fn model_state(state: &ModelState) -> (&'static str, Option<&str>) {
    match state {
        ModelState::Training => ("training", None),
        ModelState::Loading => ("loading", None),
        ModelState::Ready(_) => ("ready", None),
        ModelState::Failed(reason) => ("failed", Some(reason)),
    }
}

/// The name of a member, or its id if the list does not have it.
pub fn member_name(members: &[MemberView], id: idunno_shared::ids::NodeId) -> String {
    members
        .iter()
        .find(|member| member.id == id)
        .map_or_else(|| id.to_string(), |member| member.name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_exact() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(999_999), "1.0 MB");
        assert_eq!(bytes(1_234_567), "1.2 MB");
        assert_eq!(bytes(u64::MAX), "18446.7 PB");
        assert_eq!(seconds(59.6), "1 min 0 s");
        assert_eq!(seconds(-1.0), "0 s");
        assert_eq!(seconds(7500.0), "2 h 5 min");
        assert_eq!(moment(0), "1970-01-01 00:00:00");
        assert_eq!(moment(1_709_210_096_000), "2024-02-29 12:34:56");
        assert_eq!(moment(1_795_398_600_000), "2026-11-23 01:50:00");
    }
}
