//! The recent latency of a model on this worker, and the deadline of an infer call.
//!
//! Decides the deadline: ten times the 95th percentile of the recent time per query, times the number of queries, and at
//! least [`DEADLINE_MIN`], so that a busy machine is not mistaken for a hung server. Bounds: the last [`BATCHES_KEPT`]
//! batches.

use std::collections::VecDeque;
use std::time::Duration;

pub const DEADLINE_MIN: Duration = Duration::from_secs(30);
pub const DEADLINE_MAX: Duration = Duration::from_secs(3600);
pub const BATCHES_KEPT: usize = 64;
/// Time allowed per query before anything is measured.
const UNMEASURED: Duration = Duration::from_secs(1);
const SLACK_FACTOR: u32 = 10;

/// Recent inference times per query of one model.
#[derive(Clone, Debug, Default)]
pub struct InferLatency {
    per_query: VecDeque<Duration>,
}

impl InferLatency {
    /// Records a batch: `queries` took `inference`.
    pub fn record(&mut self, inference: Duration, queries: u64) {
        let Ok(queries) = u32::try_from(queries) else { return };
        if queries == 0 {
            return;
        }
        if self.per_query.len() == BATCHES_KEPT {
            self.per_query.pop_front();
        }
        self.per_query.push_back(inference / queries);
    }

    /// The deadline of a call with this many queries.
    pub fn deadline(&self, queries: usize) -> Duration {
        let queries = u32::try_from(queries).unwrap_or(u32::MAX);
        let mut sorted: Vec<_> = self.per_query.iter().copied().collect();
        sorted.sort_unstable();
        let percentile = sorted.get(sorted.len() * 95 / 100).or_else(|| sorted.last());
        match percentile {
            Some(per_query) => per_query.saturating_mul(queries).saturating_mul(SLACK_FACTOR),
            None => DEADLINE_MIN + UNMEASURED.saturating_mul(queries),
        }
        .clamp(DEADLINE_MIN, DEADLINE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_follow_the_slowest_recent_batches() {
        let mut latency = InferLatency::default();
        assert_eq!(latency.deadline(32), Duration::from_secs(62), "nothing is measured yet");
        (0..100).for_each(|_| latency.record(Duration::from_millis(320), 32));
        assert_eq!(latency.deadline(32), DEADLINE_MIN);
        assert_eq!(latency.deadline(4096), Duration::from_millis(4096 * 100));
        (0..10).for_each(|_| latency.record(Duration::from_secs(32), 32));
        assert_eq!(latency.deadline(32), Duration::from_secs(320), "10 of 64 were slow");
        assert_eq!(latency.deadline(usize::MAX), DEADLINE_MAX);
        latency.record(Duration::from_secs(1), 0);
    }
}
