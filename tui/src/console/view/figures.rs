//! The cluster in one line of figures, and its health.

use idunno_shared::wire::control::{ClusterView, JobState, JobView, Liveness, LogRole};
use idunno_shared::wire::jobs::ServerState;
use ratatui::text::Span;

use crate::answer::{text, warnings};
use crate::console::theme::{Theme, Tone};
use crate::execute::status::census;

/// A count that is dimmed at zero.
fn counted(theme: Theme, count: usize, word: &str, tone: Tone) -> Span<'static> {
    let tone = if count > 0 { tone } else { Tone::Dim };
    Span::styled(format!("{count} {word} "), theme.style(tone))
}

/// Members by state.
pub(super) fn members(view: &ClusterView, theme: Theme) -> Vec<Span<'static>> {
    let [up, suspect, dead, left] = census(view);
    let mut spans = vec![
        counted(theme, up, "up", Tone::Good),
        counted(theme, suspect, "suspect", Tone::Warn),
        counted(theme, dead, "dead", Tone::Bad),
    ];
    if left > 0 {
        spans.push(counted(theme, left, "left", Tone::Plain));
    }
    spans
}

pub(super) fn line(view: &ClusterView, theme: Theme) -> Vec<Span<'static>> {
    let running: Vec<_> = running(view).collect();
    let rate: f64 = running.iter().map(|job| job.rate_10s_qps).fold(0.0, |sum, rate| sum + rate);
    let store = &view.store;
    let mut spans = vec![Span::raw("members ")];
    spans.extend(members(view, theme));
    for (count, word, tone) in [
        (store.under_replicated, "under-replicated", Tone::Warn),
        (store.unavailable, "unavailable", Tone::Bad),
    ] {
        if count > 0 {
            spans.push(Span::styled(format!(" {} {count} {word} ", theme.glyph(tone)), theme.style(tone)));
        }
    }
    // Problems come first, because a narrow screen cuts off the rest.
    spans.push(Span::raw(format!(" jobs {} running {rate:.1} q/s  files {}", running.len(), store.files)));
    spans
}

fn running(view: &ClusterView) -> impl Iterator<Item = &JobView> {
    view.jobs.iter().filter(|job| job.state == JobState::Running)
}

pub(super) struct Voters {
    pub(super) up: usize,
    pub(super) all: usize,
}

pub(super) fn voters(view: &ClusterView) -> Voters {
    let voters: Vec<_> = view
        .members
        .iter()
        .filter(|member| matches!(member.role, LogRole::Voter | LogRole::Coordinator))
        .collect();
    let up = voters.iter().filter(|member| member.liveness == Liveness::Alive).count();
    Voters { up, all: voters.len() }
}

pub(super) struct Health {
    pub(super) tone: Tone,
    /// The worst first; empty if the cluster is healthy.
    pub(super) problems: Vec<String>,
}

pub(super) fn health(view: &ClusterView) -> Health {
    let [_, suspect, dead, _] = census(view);
    let Voters { up, all } = voters(view);
    let store = &view.store;
    let paused = view.jobs.iter().filter(|job| matches!(job.state, JobState::Paused(_))).count();
    let down = view.workers.iter().filter(|worker| matches!(worker.server, ServerState::Down(_))).count();
    let failed = view.models.iter().filter(|model| model.failure.is_some()).count();
    let hung = view.members.iter().filter(|member| member.disk_hung()).count();
    let [alive, ..] = census(view);
    let all_full = store.full_disks > 0 && store.full_disks >= alive as u64;
    let counted = |count: u64, noun: &str, state: &str| {
        (count > 0).then(|| format!("{} {state}", text::count(count, noun)))
    };
    let critical = [
        counted(store.unavailable, "blob", "unavailable"),
        (up * 2 <= all).then(|| format!("no majority: {up} of {all} voters up")),
        all_full.then(|| String::from("all disks full")),
        counted(paused as u64, "job", "paused"),
    ];
    let degraded = [
        (up * 2 == all + 1 && all > 2)
            .then(|| format!("{up} of {all} voters up: one more failure loses the majority")),
        counted(dead as u64, "member", "dead"),
        counted(suspect as u64, "member", "suspect"),
        counted(store.under_replicated, "blob", "under-replicated"),
        counted(hung as u64, "disk", "without an answer"),
        counted(if all_full { 0 } else { store.full_disks }, "disk", "full"),
        counted(down as u64, "model server", "down"),
        counted(failed as u64, "training", "failed"),
    ];
    let mut problems: Vec<String> = critical.into_iter().flatten().collect();
    let is_critical = !problems.is_empty();
    problems.extend(degraded.into_iter().flatten());
    problems.extend(warnings::of(&view.members));
    let tone = match problems.is_empty() {
        true => Tone::Good,
        false if is_critical => Tone::Bad,
        false => Tone::Warn,
    };
    Health { tone, problems }
}
