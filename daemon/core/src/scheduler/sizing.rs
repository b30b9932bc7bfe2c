//! How long batches take, and how many queries a batch has where the job leaves its size to the scheduler.
//!
//! **Times.** A [`Rate`] is queries over inference time, both decaying with a half-life of [`HALF_LIFE`]: it follows a
//! worker that slows down, and idle time does not change it. [`BatchTimes`] keeps the last [`BATCHES_KEPT`] batches of
//! each model and size class, over all workers.
//!
//! **Sizes.** A [`BatchSizer`] finds the batch size of one worker and model, because workers differ in speed and
//! memory. The size starts small and doubles while that increases the query rate and batches take at most
//! [`TARGET_US`]; a doubling that did not pay is undone. Slower batches are cut to the target. A size that the model
//! server refused or failed is halved. After each reduction the size stays for [`HOLD`] before it may grow again,
//! because speed and memory change.
//!
//! Source: additive increase and multiplicative decrease of batches (Crankshaw et al., Clipper, 2017), with doubling in
//! place of addition because large batches save a fixed cost per call.
//! Bounds: [`MODELS_MAX`] models, one size class per power of two.
//! Not here: fixed sizes, and the probe of a model without measurements (`leases.rs`).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::BATCH_QUERIES_MAX;

use super::config::MODELS_MAX;
use crate::time::Instant;

/// Age at which a measurement counts half.
const HALF_LIFE: Duration = Duration::from_secs(20);
/// Batches kept per model and size class.
const BATCHES_KEPT: usize = 64;
const PERCENTILE: usize = 95;

/// Longest batch to aim for: short compared with the ten seconds over which the rates of jobs are equal.
const TARGET_US: u64 = 500_000;
/// A batch that is too slow is cut to this percentage of the target, so that noise does not cut it again.
const AIM_PERCENT: u64 = 80;
const SIZE_FIRST: u32 = 8;
/// Batches of a size that are measured before it changes.
const MEASURED: u32 = 8;
/// Factor on the query rate from which a doubling pays.
const GAIN: f64 = 1.05;
const HOLD: Duration = Duration::from_secs(60);

/// How fast a worker runs a model, or all workers run a job.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    queries: f64,
    micros: f64,
    updated_at: Instant,
}

impl Rate {
    pub(super) fn add(&mut self, queries: u32, inference_us: u64, now: Instant) {
        let kept = (-now.since(self.updated_at).as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2();
        self.queries = self.queries * kept + f64::from(queries);
        self.micros = self.micros * kept + inference_us as f64;
        self.updated_at = now;
    }

    /// Whether anything was measured.
    pub(super) fn is_known(&self) -> bool {
        self.queries > 0.0
    }

    /// How long a batch takes at this rate, which must be known.
    pub(super) fn time(&self, queries: u32) -> Duration {
        let secs = self.micros * f64::from(queries) / self.queries / 1e6;
        Duration::try_from_secs_f64(secs).unwrap_or(Duration::MAX)
    }
}

/// Times per query of recent batches, newest first, by model and size class.
#[derive(Clone, Debug, Default)]
pub(super) struct BatchTimes {
    recent: BTreeMap<ModelName, BTreeMap<u32, VecDeque<Duration>>>,
}

impl BatchTimes {
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
    pub(super) fn is_measured(&self, model: &ModelName) -> bool {
        self.recent.contains_key(model)
    }

    /// The 95th percentile of the time of a batch; `None` until a batch of the model was measured. A size class without
    /// measurements borrows those of the next larger class, or else of the next smaller one.
    pub(super) fn p95(&self, model: &ModelName, queries: u32) -> Option<Duration> {
        let classes = self.recent.get(model)?;
        let class = queries.max(1).ilog2();
        let nearest = classes.range(class..).next().or_else(|| classes.range(..class).next_back());
        let mut times: Vec<Duration> = nearest?.1.iter().copied().collect();
        times.sort_unstable();
        let slow = times.get(times.len() * PERCENTILE / 100).or_else(|| times.last())?;
        Some(slow.saturating_mul(queries))
    }
}

/// Finds the size of one worker's batches of one model.
#[derive(Clone, Debug)]
pub(super) struct BatchSizer {
    size: u32,
    /// Measured batches of this size.
    batches: u32,
    /// Their inference time.
    micros: u64,
    /// Queries per second at half the size, until it is known whether the doubling paid.
    smaller_qps: Option<f64>,
    hold_until: Instant,
}

impl Default for BatchSizer {
    fn default() -> Self {
        Self { size: SIZE_FIRST, batches: 0, micros: 0, smaller_qps: None, hold_until: Instant::START }
    }
}

impl BatchSizer {
    /// The current size in queries.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// Records an answered batch.
    pub(super) fn record_batch(&mut self, queries: u32, inference_us: u64, now: Instant) {
        if queries != self.size {
            // The end of a job, a part of a failed batch, or a lease from before the last change.
            return;
        }
        self.batches += 1;
        self.micros = self.micros.saturating_add(inference_us).max(1);
        let is_far_too_slow = inference_us > 2 * TARGET_US;
        if is_far_too_slow || self.batches == MEASURED {
            self.decide(now);
        }
    }

    /// Records that the model server refused a call with so many queries, or failed it.
    pub(super) fn record_refusal(&mut self, queries: u32, now: Instant) {
        if queries <= self.size {
            self.reduce_to(queries / 2, now);
        }
    }

    fn decide(&mut self, now: Instant) {
        let mean_us = (self.micros / u64::from(self.batches)).max(1);
        let qps = f64::from(self.size) * 1e6 / mean_us as f64;
        if mean_us > TARGET_US {
            let fitting = u64::from(self.size) * TARGET_US * AIM_PERCENT / 100 / mean_us;
            self.reduce_to(u32::try_from(fitting).unwrap_or(self.size), now);
        } else if self.smaller_qps.is_some_and(|smaller| qps < smaller * GAIN) {
            self.reduce_to(self.size / 2, now);
        } else if self.size < BATCH_QUERIES_MAX && now >= self.hold_until && 2 * mean_us <= TARGET_US {
            self.measure(self.size.saturating_mul(2));
            self.smaller_qps = Some(qps);
        } else {
            self.measure(self.size);
        }
    }

    fn reduce_to(&mut self, size: u32, now: Instant) {
        self.measure(size);
        self.hold_until = now + HOLD;
    }

    /// Starts measuring a size.
    fn measure(&mut self, size: u32) {
        self.size = size.clamp(1, BATCH_QUERIES_MAX);
        self.batches = 0;
        self.micros = 0;
        self.smaller_qps = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs batches for so many seconds; each takes `call_us`, and `query_us` per query.
    fn run(sizer: &mut BatchSizer, now: &mut Instant, seconds: u64, call_us: u64, query_us: u64) {
        let end = *now + Duration::from_secs(seconds);
        while *now < end {
            let inference_us = call_us + query_us * u64::from(sizer.size());
            *now = *now + Duration::from_micros(inference_us);
            sizer.record_batch(sizer.size(), inference_us, *now);
        }
    }

    fn settled_size(call_us: u64, query_us: u64) -> u32 {
        let (mut sizer, mut now) = (BatchSizer::default(), Instant::START);
        run(&mut sizer, &mut now, 300, call_us, query_us);
        sizer.size()
    }

    #[test]
    fn the_size_grows_while_it_pays_and_batches_are_short() {
        assert_eq!(settled_size(0, 10_000), SIZE_FIRST, "a doubling gains nothing");
        assert_eq!(settled_size(10_000, 1_000), 128, "from there, a doubling brings less than 5 %");
        assert_eq!(settled_size(100_000, 1_000), 256, "512 queries would take longer than half a second");
        assert_eq!(settled_size(1_000_000, 1), 1, "even one query takes too long");
        assert_eq!(settled_size(1_000, 300_000), 1);
        assert_eq!(settled_size(10_000, 1), BATCH_QUERIES_MAX);
    }

    #[test]
    fn a_worker_that_slows_down_gets_smaller_batches_and_larger_ones_when_it_recovers() {
        let (mut sizer, mut now) = (BatchSizer::default(), Instant::START);
        run(&mut sizer, &mut now, 60, 50_000, 1_000);
        assert_eq!(sizer.size(), 256);
        run(&mut sizer, &mut now, 10, 50_000, 10_000);
        assert!((20..=45).contains(&sizer.size()), "{}", sizer.size());
        run(&mut sizer, &mut now, 300, 50_000, 1_000);
        assert!(sizer.size() >= 128, "{}", sizer.size());
    }

    #[test]
    fn a_refused_size_is_halved_and_tried_again_later() {
        let (mut sizer, mut now) = (BatchSizer::default(), Instant::START);
        run(&mut sizer, &mut now, 60, 50_000, 1_000);
        sizer.record_refusal(256, now);
        assert_eq!(sizer.size(), 128);
        sizer.record_refusal(256, now);
        assert_eq!(sizer.size(), 128, "a batch leased before the reduction");
        run(&mut sizer, &mut now, 50, 50_000, 1_000);
        assert_eq!(sizer.size(), 128);
        run(&mut sizer, &mut now, 20, 50_000, 1_000);
        assert_eq!(sizer.size(), 256);
        (0..20).for_each(|_| sizer.record_refusal(sizer.size(), now));
        assert_eq!(sizer.size(), 1);
    }

    #[test]
    fn a_rate_follows_a_worker_that_slows_down() {
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
    fn the_95th_percentile_is_taken_over_batches_of_similar_size() {
        let (mut times, model) = (BatchTimes::default(), "model".parse().unwrap());
        assert_eq!(times.p95(&model, 32), None);
        times.add(&model, 0, Duration::from_secs(1));
        for ms in 1..=100 {
            times.add(&model, 32, Duration::from_millis(ms * 32));
            times.add(&model, 1, Duration::from_millis(500));
        }
        assert_eq!(
            times.p95(&model, 40),
            Some(Duration::from_millis(97 * 40)),
            "of the last 64, which took 37 to 100 ms a query"
        );
        assert_eq!(times.p95(&model, 2), Some(Duration::from_millis(97 * 2)), "the next larger size");
        assert_eq!(times.p95(&model, 1), Some(Duration::from_millis(500)));
        assert_eq!(times.p95(&model, 1000), Some(Duration::from_secs(97)), "the next smaller size");
    }
}
