//! How long batches take: each worker's rate of each model, and the usual time of batches of one size.
//!
//! A worker's rate is queries over inference time, both fading with a half-life of [`HALF_LIFE`], so that it follows a
//! worker that becomes slow, and an idle time changes nothing. The usual time is the 95th percentile of the
//! last [`BATCHES_KEPT`] batches of the model that were about as large, whoever ran them.
//!
//! Bounds: [`MODELS_MAX`] models, a class of sizes for each power of two.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use idunno_shared::names::ModelName;

use super::config::MODELS_MAX;
use crate::time::Instant;

/// What is twice as old counts half as much.
const HALF_LIFE: Duration = Duration::from_secs(20);
/// Batches of one size class that count.
const BATCHES_KEPT: usize = 64;
const PERCENTILE: usize = 95;

/// How fast one worker runs one model.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    queries: f64,
    micros: f64,
    at: Instant,
}

impl Rate {
    pub(super) fn add(&mut self, queries: u32, inference_us: u64, now: Instant) {
        let kept = (-now.since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2();
        self.queries = self.queries * kept + f64::from(queries);
        self.micros = self.micros * kept + inference_us as f64;
        self.at = now;
    }

    /// Whether anything was measured.
    pub(super) fn is_known(&self) -> bool {
        self.queries > 0.0
    }

    /// How long a batch takes at this rate.
    pub(super) fn time(&self, queries: u32) -> Duration {
        let secs = self.micros * f64::from(queries) / self.queries / 1e6;
        Duration::try_from_secs_f64(secs).unwrap_or(Duration::MAX)
    }
}

/// Times of recent batches, per query, by model and size class.
#[derive(Clone, Debug, Default)]
pub(super) struct Usual {
    recent: BTreeMap<ModelName, BTreeMap<u32, VecDeque<Duration>>>,
}

impl Usual {
    pub(super) fn add(&mut self, model: &ModelName, queries: u32, inference: Duration) {
        if queries == 0 || (self.recent.len() >= MODELS_MAX && !self.recent.contains_key(model)) {
            return;
        }
        let classes = self.recent.entry(model.clone()).or_default();
        let times = classes.entry(queries.ilog2()).or_default();
        times.truncate(BATCHES_KEPT - 1);
        times.push_front(inference / queries);
    }

    /// Whether a batch of the model was measured.
    pub(super) fn knows(&self, model: &ModelName) -> bool {
        self.recent.contains_key(model)
    }

    /// What a batch takes at most, in 95 of 100 cases; `None` while no batch of the model was measured. A size that
    /// was not seen is judged by the next larger one, or else by the next smaller.
    pub(super) fn time(&self, model: &ModelName, queries: u32) -> Option<Duration> {
        let classes = self.recent.get(model)?;
        let class = queries.max(1).ilog2();
        let nearest = classes.range(class..).next().or_else(|| classes.range(..class).next_back());
        let mut times: Vec<Duration> = nearest?.1.iter().copied().collect();
        times.sort_unstable();
        let slow = times.get(times.len() * PERCENTILE / 100).or_else(|| times.last())?;
        Some(slow.saturating_mul(queries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_follows_a_worker_that_becomes_slow() {
        let mut rate = Rate::default();
        for second in 0..100 {
            rate.add(10, 1_000_000, Instant::from_micros(second * 1_000_000));
        }
        assert_eq!(rate.time(20), Duration::from_secs(2));
        for second in 100..120 {
            rate.add(1, 1_000_000, Instant::from_micros(second * 1_000_000));
        }
        let after_a_half_life = rate.time(10).as_secs_f64();
        assert!((1.7..2.0).contains(&after_a_half_life), "{after_a_half_life}");
    }

    #[test]
    fn the_usual_time_is_that_of_the_slow_of_about_the_same_size() {
        let (mut usual, model) = (Usual::default(), "model".parse().unwrap());
        assert_eq!(usual.time(&model, 32), None);
        usual.add(&model, 0, Duration::from_secs(1));
        for ms in 1..=100 {
            usual.add(&model, 32, Duration::from_millis(ms * 32));
            usual.add(&model, 1, Duration::from_millis(500));
        }
        assert_eq!(usual.time(&model, 40), Some(Duration::from_millis(97 * 40)), "of 37 to 100");
        assert_eq!(usual.time(&model, 2), Some(Duration::from_millis(97 * 2)), "the next larger size");
        assert_eq!(usual.time(&model, 1), Some(Duration::from_millis(500)));
        assert_eq!(usual.time(&model, 1000), Some(Duration::from_secs(97)), "the next smaller one");
    }
}
