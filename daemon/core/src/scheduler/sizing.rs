//! How many queries a batch has where a job leaves it to us: for each worker and model, because workers differ in speed
//! and in memory.
//!
//! The size begins small, and doubles as long as that brings more queries per second and batches take no longer than
//! [`TARGET_US`]; a doubling that did not pay is taken back. Batches that take longer are cut down to that. What the model
//! server refused as too much at once, or failed on, is halved. After each step back the size stays for [`HOLD`], then
//! more is tried again: speed and memory change.
//!
//! Source: additive increase and multiplicative decrease of batches (Crankshaw et al., Clipper, 2017), with doubling in
//! place of addition, for what large batches save is a fixed cost a call.
//! Not here: fixed sizes, and the probe of a model that nobody has measured (`lease.rs`).

use std::time::Duration;

use idunno_shared::wire::jobs::BATCH_QUERIES_MAX;

use crate::time::Instant;

/// A batch takes about so long at most: little beside the ten seconds over which jobs' rates are equal.
const TARGET_US: u64 = 500_000;
/// Where the size is cut down, it is to so many percent of the target, so that noise does not cut it down again.
const AIM_PERCENT: u64 = 80;
const SIZE_FIRST: u32 = 8;
/// Batches of a size that are measured before it changes.
const MEASURED: u32 = 8;
/// A doubling pays if it brings so many times the rate.
const GAIN: f64 = 1.05;
const HOLD: Duration = Duration::from_secs(60);

/// The size of one worker's batches of one model, and what it is found by.
#[derive(Clone, Debug)]
pub(super) struct Sizing {
    size: u32,
    /// Batches of this size, and their time.
    batches: u32,
    micros: u64,
    /// Queries per second of half the size, while it is seen whether the doubling paid.
    smaller_qps: Option<f64>,
    hold_until: Instant,
}

impl Default for Sizing {
    fn default() -> Self {
        let (batches, micros, smaller_qps) = (0, 0, None);
        Self { size: SIZE_FIRST, batches, micros, smaller_qps, hold_until: Instant::START }
    }
}

impl Sizing {
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// A batch was answered.
    pub(super) fn ran(&mut self, queries: u32, inference_us: u64, now: Instant) {
        if queries != self.size {
            // The end of a job, a part of a batch that failed, or leased before the size changed.
            return;
        }
        self.batches += 1;
        self.micros = self.micros.saturating_add(inference_us).max(1);
        let is_far_too_slow = inference_us > 2 * TARGET_US;
        if is_far_too_slow || self.batches == MEASURED {
            self.decide(now);
        }
    }

    /// The model server refused a call with so many queries, or failed on it.
    pub(super) fn refused(&mut self, queries: u32, now: Instant) {
        if queries <= self.size {
            self.step_back(queries / 2, now);
        }
    }

    fn decide(&mut self, now: Instant) {
        let mean_us = (self.micros / u64::from(self.batches)).max(1);
        let qps = f64::from(self.size) * 1e6 / mean_us as f64;
        if mean_us > TARGET_US {
            let fitting = u64::from(self.size) * TARGET_US * AIM_PERCENT / 100 / mean_us;
            self.step_back(u32::try_from(fitting).unwrap_or(self.size), now);
        } else if self.smaller_qps.is_some_and(|smaller| qps < smaller * GAIN) {
            self.step_back(self.size / 2, now);
        } else if self.size < BATCH_QUERIES_MAX && now >= self.hold_until && 2 * mean_us <= TARGET_US {
            self.go_to(self.size.saturating_mul(2));
            self.smaller_qps = Some(qps);
        } else {
            self.go_to(self.size);
        }
    }

    fn step_back(&mut self, size: u32, now: Instant) {
        self.go_to(size);
        self.hold_until = now + HOLD;
    }

    /// Measures this size from now on.
    fn go_to(&mut self, size: u32) {
        self.size = size.clamp(1, BATCH_QUERIES_MAX);
        (self.batches, self.micros, self.smaller_qps) = (0, 0, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs batches for so many seconds, each taking `call_us` and `query_us` a query.
    fn run(sizing: &mut Sizing, now: &mut Instant, seconds: u64, call_us: u64, query_us: u64) {
        let end = *now + Duration::from_secs(seconds);
        while *now < end {
            let inference_us = call_us + query_us * u64::from(sizing.size());
            *now = *now + Duration::from_micros(inference_us);
            sizing.ran(sizing.size(), inference_us, *now);
        }
    }

    fn found(call_us: u64, query_us: u64) -> u32 {
        let (mut sizing, mut now) = (Sizing::default(), Instant::START);
        run(&mut sizing, &mut now, 300, call_us, query_us);
        sizing.size()
    }

    #[test]
    fn the_size_grows_while_it_pays_and_batches_are_short() {
        assert_eq!(found(0, 10_000), SIZE_FIRST, "a doubling brings nothing");
        assert_eq!(found(10_000, 1_000), 128, "behind it, doubling brings less than a twentieth");
        assert_eq!(found(100_000, 1_000), 256, "512 queries would take longer than half a second");
        assert_eq!(found(1_000_000, 1), 1, "nothing is short enough");
        assert_eq!(found(1_000, 300_000), 1);
        assert_eq!(found(10_000, 1), BATCH_QUERIES_MAX);
    }

    #[test]
    fn a_worker_that_becomes_slow_gets_less_and_later_more_again() {
        let (mut sizing, mut now) = (Sizing::default(), Instant::START);
        run(&mut sizing, &mut now, 60, 50_000, 1_000);
        assert_eq!(sizing.size(), 256);
        run(&mut sizing, &mut now, 10, 50_000, 10_000);
        assert!((20..=45).contains(&sizing.size()), "{}", sizing.size());
        run(&mut sizing, &mut now, 300, 50_000, 1_000);
        assert!(sizing.size() >= 128, "{}", sizing.size());
    }

    #[test]
    fn what_is_refused_is_halved_and_tried_again_after_a_while() {
        let (mut sizing, mut now) = (Sizing::default(), Instant::START);
        run(&mut sizing, &mut now, 60, 50_000, 1_000);
        sizing.refused(256, now);
        assert_eq!(sizing.size(), 128);
        sizing.refused(256, now);
        assert_eq!(sizing.size(), 128, "that was leased before");
        run(&mut sizing, &mut now, 50, 50_000, 1_000);
        assert_eq!(sizing.size(), 128);
        run(&mut sizing, &mut now, 20, 50_000, 1_000);
        assert_eq!(sizing.size(), 256);
        (0..20).for_each(|_| sizing.refused(sizing.size(), now));
        assert_eq!(sizing.size(), 1);
    }
}
