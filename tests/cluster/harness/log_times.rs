//! When members logged something, and how long it took.

use std::time::{Duration, SystemTime};

use super::LocalCluster;

impl LocalCluster {
    /// How long after `since` a member first logged this.
    pub(crate) fn first_logged(&self, line: &str, since: SystemTime) -> Option<Duration> {
        let since = since_epoch(since);
        let logs = self.up().into_iter().map(|index| self.members[index].log());
        let lines = logs.flat_map(|log| {
            log.lines().filter(|logged| logged.contains(line)).filter_map(time_of_day).collect::<Vec<_>>()
        });
        const DAY: u64 = 86_400;
        let begun = Duration::new(since.as_secs() % DAY, since.subsec_nanos());
        // The time of day wraps at midnight.
        let day = Duration::from_secs(DAY);
        let waits = lines.map(|at| if at < begun { at + day } else { at }.saturating_sub(begun));
        waits.filter(|wait| *wait < day / 2).min()
    }
}

pub(crate) fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap()
}

/// The time of a log line such as `2026-11-25T10:31:00.123456Z  INFO ...`, since midnight.
fn time_of_day(line: &str) -> Option<Duration> {
    let (_, time) = line.split_once('T')?;
    let (time, _) = time.split_once('Z')?;
    let mut parts = time.split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    let minutes = hours.parse::<u64>().ok()? * 60 + minutes.parse::<u64>().ok()?;
    Some(Duration::from_secs(minutes * 60) + Duration::from_secs_f64(seconds.parse().ok()?))
}

/// The figures of some waits, as a line of text.
pub(crate) fn summary(what: &str, waits: &mut [Duration]) -> String {
    waits.sort_unstable();
    let at = |percent: usize| waits[(waits.len() * percent).div_ceil(100).max(1) - 1].as_millis();
    let (median, p99) = (at(50), at(99));
    format!(
        "{what}: median {median} ms, p99 {p99} ms, min {} ms, max {} ms, {} runs",
        at(0),
        at(100),
        waits.len()
    )
}
