//! The recent latency of a model on this worker: how many queries a call has, and its deadline.
//!
//! Decides both. The first call has one query, and [`UNMEASURED`]. Later ones have as many as the model usually answers in
//! [`CALL_TARGET`], so that a slow model is seen to make progress; their deadline is ten times the 95th percentile of the
//! recent time per query, times the number of queries, and at least [`DEADLINE_MIN`], so that a busy machine is not
//! mistaken for a hung server. A model that declares how long a row may take gets as much more. Bounds: the last
//! [`CALLS_KEPT`] calls.

use std::collections::VecDeque;
use std::time::Duration;

pub const DEADLINE_MIN: Duration = Duration::from_secs(30);
pub const DEADLINE_MAX: Duration = Duration::from_secs(3600);
pub const CALLS_KEPT: usize = 64;
/// Time allowed per query before anything is measured, unless the model declares more.
pub const UNMEASURED: Duration = Duration::from_secs(120);
/// How long a call should take at most.
const CALL_TARGET: Duration = Duration::from_secs(10);
const SLACK_FACTOR: u32 = 10;

/// Recent inference times per query of one model, by call.
#[derive(Clone, Debug, Default)]
pub struct InferLatency {
    per_query: VecDeque<Duration>,
    row_timeout: Duration,
}

impl InferLatency {
    /// Sets how long one row may take, as the model declares it; zero if it does not.
    pub fn declare(&mut self, row_timeout: Duration) {
        self.row_timeout = row_timeout.min(DEADLINE_MAX);
    }

    /// How long one row may take, as the model declares it.
    pub fn row_timeout(&self) -> Duration {
        self.row_timeout
    }

    /// Records a call: `queries` took `inference`.
    pub fn record(&mut self, inference: Duration, queries: usize) {
        let Ok(queries) = u32::try_from(queries) else { return };
        if queries == 0 {
            return;
        }
        if self.per_query.len() == CALLS_KEPT {
            self.per_query.pop_front();
        }
        self.per_query.push_back(inference / queries);
    }

    /// The most queries of the next call, at least one.
    pub fn queries_max(&self) -> usize {
        let Some(usual) = self.percentile(50) else { return 1 };
        let queries = CALL_TARGET.as_nanos() / usual.as_nanos().max(1);
        usize::try_from(queries).unwrap_or(usize::MAX).max(1)
    }

    /// The deadline of a call with this many queries.
    pub fn deadline(&self, queries: usize) -> Duration {
        let queries = u32::try_from(queries).unwrap_or(u32::MAX);
        let expected = match self.percentile(95) {
            Some(slow) => slow.saturating_mul(queries).saturating_mul(SLACK_FACTOR),
            None => UNMEASURED.saturating_mul(queries),
        };
        expected.max(DEADLINE_MIN).saturating_add(self.row_timeout).min(DEADLINE_MAX)
    }

    fn percentile(&self, percent: usize) -> Option<Duration> {
        let mut sorted: Vec<_> = self.per_query.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() * percent / 100).or_else(|| sorted.last()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_follow_the_slowest_recent_calls() {
        let mut latency = InferLatency::default();
        assert_eq!(latency.deadline(1), UNMEASURED, "nothing is measured yet");
        (0..100).for_each(|_| latency.record(Duration::from_millis(320), 32));
        assert_eq!(latency.deadline(32), DEADLINE_MIN);
        assert_eq!(latency.deadline(4096), Duration::from_millis(4096 * 100));
        (0..10).for_each(|_| latency.record(Duration::from_secs(32), 32));
        assert_eq!(latency.deadline(32), Duration::from_secs(320), "10 of 64 were slow");
        assert_eq!(latency.deadline(usize::MAX), DEADLINE_MAX);
        latency.record(Duration::from_secs(1), 0);
    }

    #[test]
    fn calls_have_as_many_queries_as_the_model_usually_answers_in_ten_seconds() {
        let mut latency = InferLatency::default();
        assert_eq!(latency.queries_max(), 1, "nothing is measured yet");
        latency.record(Duration::from_secs(2), 1);
        assert_eq!(latency.queries_max(), 5);
        (0..3).for_each(|_| latency.record(Duration::from_millis(20), 20));
        assert_eq!(latency.queries_max(), 10_000, "one slow call does not count");
        (0..64).for_each(|_| latency.record(Duration::from_secs(300), 1));
        assert_eq!((latency.queries_max(), latency.deadline(1)), (1, Duration::from_secs(3000)));
        (0..64).for_each(|_| latency.record(Duration::ZERO, 1));
        assert!(latency.queries_max() > 1 << 20);
    }

    #[test]
    fn a_model_gets_the_time_that_it_declares_for_a_row() {
        let mut latency = InferLatency::default();
        latency.declare(Duration::from_secs(600));
        assert_eq!(latency.deadline(1), UNMEASURED + Duration::from_secs(600));
        latency.record(Duration::from_millis(1), 1);
        assert_eq!(latency.deadline(1), DEADLINE_MIN + Duration::from_secs(600));
        latency.declare(Duration::MAX);
        assert_eq!(latency.deadline(1), DEADLINE_MAX);
    }
}
