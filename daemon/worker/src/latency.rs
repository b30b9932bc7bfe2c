//! How fast a model has been here, and how long an infer call may therefore take.
//!
//! Decides the deadline of a call: ten times what the 95th percentile of recent calls would need for as many queries,
//! at least [`DEADLINE_MIN`] so that a busy machine is not taken for a hung server. Source: handbook, jobs-and-inference
//! section 5. Bounds: the last [`CALLS_KEPT`] batches.

use std::collections::VecDeque;
use std::time::Duration;

/// No call is given up earlier.
pub const DEADLINE_MIN: Duration = Duration::from_secs(30);
/// No call may take longer.
pub const DEADLINE_MAX: Duration = Duration::from_secs(3600);
/// Batches that count.
pub const CALLS_KEPT: usize = 64;
/// Time allowed for a query while nothing was measured.
const UNKNOWN: Duration = Duration::from_secs(1);
const SLACK: u32 = 10;

/// Recent times per query of one model.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    per_query: VecDeque<Duration>,
}

impl Pace {
    /// A batch of `queries` took `inference`.
    pub fn record(&mut self, inference: Duration, queries: u64) {
        let Ok(queries) = u32::try_from(queries) else { return };
        if queries == 0 {
            return;
        }
        if self.per_query.len() == CALLS_KEPT {
            self.per_query.pop_front();
        }
        self.per_query.push_back(inference / queries);
    }

    /// How long a call with so many queries may take.
    pub fn deadline(&self, queries: usize) -> Duration {
        let queries = u32::try_from(queries).unwrap_or(u32::MAX);
        let mut sorted: Vec<_> = self.per_query.iter().copied().collect();
        sorted.sort_unstable();
        let percentile = sorted.get(sorted.len() * 95 / 100).or_else(|| sorted.last());
        match percentile {
            Some(per_query) => per_query.saturating_mul(queries).saturating_mul(SLACK),
            None => DEADLINE_MIN + UNKNOWN.saturating_mul(queries),
        }
        .clamp(DEADLINE_MIN, DEADLINE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_follow_the_slowest_recent_batches() {
        let mut pace = Pace::default();
        assert_eq!(pace.deadline(32), Duration::from_secs(62), "nothing is known yet");
        (0..100).for_each(|_| pace.record(Duration::from_millis(320), 32));
        assert_eq!(pace.deadline(32), DEADLINE_MIN);
        assert_eq!(pace.deadline(4096), Duration::from_millis(4096 * 100));
        (0..10).for_each(|_| pace.record(Duration::from_secs(32), 32));
        assert_eq!(pace.deadline(32), Duration::from_secs(320), "10 of 64 were slow");
        assert_eq!(pace.deadline(usize::MAX), DEADLINE_MAX);
        pace.record(Duration::from_secs(1), 0);
    }
}
