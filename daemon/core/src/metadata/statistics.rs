//! A job's statistics, part of the replicated state so that they survive a failover.
//!
//! Processing times are counted in buckets at most 1/32 of their value wide (as in `HdrHistogram`), so a percentile is
//! off by at most 1.6 %. Bounds: 1,920 buckets, of which a job fills some dozens, and 60 seconds of rates.

use std::collections::VecDeque;

use idunno_shared::wire::control::Distribution;
use idunno_shared::wire::jobs::TokenCount;
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::invariant::InvariantViolation;

/// Seconds for which answers are counted per second.
pub const RATE_WINDOW_S: u64 = 60;
/// Buckets per power of two; from one to the next their width doubles.
const BUCKETS_PER_OCTAVE: u64 = 32;
const NS_PER_MS: f64 = 1e6;

/// The statistics of one job's answered queries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JobStatistics {
    /// Answered queries that have a label.
    pub labelled: u64,
    /// Labelled queries that were answered correctly.
    pub correct: u64,
    /// Rows dropped because their query had been decided before.
    pub duplicates: u64,
    count: u64,
    sum_ms: f64,
    sum_squares: f64,
    buckets: OrdMap<u16, u64>,
    /// Seconds since the epoch and the queries answered in each, oldest first.
    window: VecDeque<(u64, u64)>,
    /// Answered queries whose input was on the worker's own disk.
    #[serde(default)]
    pub local: u64,
    /// Tokens that the answers say they took, and the answers that were taken over from an earlier job.
    #[serde(default, skip_serializing_if = "TokenCount::is_zero")]
    pub tokens: TokenCount,
}

/// The bucket of a time in nanoseconds: exact below 32, then 32 buckets per power of two.
fn bucket(ns: u64) -> u16 {
    let octave = u64::from(ns.max(1).ilog2()).saturating_sub(5);
    u16::try_from(octave * BUCKETS_PER_OCTAVE + (ns >> octave)).unwrap_or(u16::MAX)
}

/// The middle of a bucket, in milliseconds.
fn middle_ms(bucket: u16) -> f64 {
    let bucket = u64::from(bucket);
    let octave = (bucket / BUCKETS_PER_OCTAVE).saturating_sub(1);
    let low = (bucket - octave * BUCKETS_PER_OCTAVE) << octave;
    (low as f64 + ((1u64 << octave) - 1) as f64 / 2.0) / NS_PER_MS
}

impl JobStatistics {
    /// Adds `answered` queries that took the model `ns_per_query` each.
    pub(super) fn add(&mut self, answered: u64, ns_per_query: u64) {
        if answered == 0 {
            return;
        }
        let ms = ns_per_query as f64 / NS_PER_MS;
        self.count += answered;
        self.sum_ms += ms * answered as f64;
        self.sum_squares += ms * ms * answered as f64;
        *self.buckets.entry(bucket(ns_per_query)).or_insert(0) += answered;
    }

    /// Adds `answered` queries, committed at `at_ms`, to the rate.
    pub(super) fn add_to_rate(&mut self, answered: u64, at_ms: u64) {
        if answered == 0 {
            return;
        }
        let second = at_ms / 1000;
        match self.window.back_mut() {
            Some((last, queries)) if *last == second => *queries += answered,
            _ => self.window.push_back((second, answered)),
        }
        while self.window.front().is_some_and(|(oldest, _)| oldest + RATE_WINDOW_S <= second) {
            self.window.pop_front();
        }
    }

    /// Queries per second over the last `seconds` whole seconds before `now_ms`, at most [`RATE_WINDOW_S`] - 1; or since
    /// the first commit, if that is more recent.
    pub fn rate_qps(&self, seconds: u64, now_ms: u64) -> f64 {
        let now_s = now_ms / 1000;
        let from_s =
            now_s.saturating_sub(seconds.min(RATE_WINDOW_S - 1)).max(self.window.front().map_or(0, |w| w.0));
        let queries: u64 =
            self.window.iter().filter(|(second, _)| (from_s..now_s).contains(second)).map(|(_, n)| n).sum();
        if now_s > from_s { queries as f64 / (now_s - from_s) as f64 } else { 0.0 }
    }

    /// The distribution of the processing time per query, in milliseconds.
    pub fn processing_ms(&self) -> Distribution {
        if self.count == 0 {
            return Distribution::default();
        }
        let mean = self.sum_ms / self.count as f64;
        Distribution {
            mean,
            std_dev: (self.sum_squares / self.count as f64 - mean * mean).max(0.0).sqrt(),
            median: self.percentile(50),
            p90: self.percentile(90),
            p95: self.percentile(95),
            p99: self.percentile(99),
        }
    }

    /// The fraction (0 to 1) of the answered queries whose input was on the worker's own disk.
    pub fn local_share(&self) -> f64 {
        if self.count == 0 { 0.0 } else { (self.local as f64 / self.count as f64).min(1.0) }
    }

    /// How many answered queries it counts.
    pub fn count(&self) -> u64 {
        self.count + self.tokens.reused
    }

    fn percentile(&self, percent: u64) -> f64 {
        let rank = (self.count * percent).div_ceil(100).max(1);
        let mut below = 0;
        for (bucket, queries) in &self.buckets {
            below += queries;
            if below >= rank {
                return middle_ms(*bucket);
            }
        }
        0.0
    }

    /// Fails unless the sums agree and the rate window is in order.
    pub(super) fn check(&self) -> Result<(), InvariantViolation> {
        let bucketed: u64 = self.buckets.values().sum();
        let is_consistent =
            bucketed == self.count && self.correct <= self.labelled && self.labelled <= self.count();
        InvariantViolation::unless(is_consistent, || {
            format!("the statistics disagree: {bucketed} in buckets, {self:?}")
        })?;
        let seconds: Vec<u64> = self.window.iter().map(|(second, _)| *second).collect();
        let is_ordered = seconds.len() as u64 <= RATE_WINDOW_S && seconds.is_sorted_by(|a, b| a < b);
        InvariantViolation::unless(is_ordered, || {
            format!("the rate window is out of order or too long: {seconds:?}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_off_by_less_than_three_percent() {
        let mut statistics = JobStatistics::default();
        for ns in 1..=20_000u64 {
            statistics.add(1, ns * ns);
        }
        let shown = statistics.processing_ms();
        for (percent, value) in
            [(0.50, shown.median), (0.90, shown.p90), (0.95, shown.p95), (0.99, shown.p99)]
        {
            let exact = (20_000.0 * percent * 20_000.0 * percent) / NS_PER_MS;
            assert!((value - exact).abs() / exact < 0.03, "{percent}: {value} for {exact}");
        }
        statistics.check().unwrap();
    }

    #[test]
    fn buckets_increase_without_gaps_and_stay_close_to_their_values() {
        let mut last = 0;
        for ns in 0..100_000u64 {
            let this = bucket(ns);
            assert!(this == last || this == last + 1, "{ns}: {last} then {this}");
            let error = (middle_ms(this) * NS_PER_MS - ns as f64).abs();
            assert!(error <= ns as f64 / 32.0, "{ns} is off by {error}");
            last = this;
        }
        assert!(bucket(u64::MAX) < 1920);
    }

    #[test]
    fn mean_and_deviation_count_every_query() {
        let mut statistics = JobStatistics::default();
        statistics.add(3, 2_000_000);
        statistics.add(1, 6_000_000);
        let shown = statistics.processing_ms();
        assert!((shown.mean - 3.0).abs() < 1e-9 && (shown.std_dev - 3f64.sqrt()).abs() < 1e-9, "{shown:?}");
        assert_eq!(JobStatistics::default().processing_ms(), Distribution::default());
    }

    #[test]
    fn the_rate_covers_recent_seconds_since_the_first_commit() {
        let mut statistics = JobStatistics::default();
        for second in 100..104 {
            statistics.add_to_rate(50, second * 1000);
        }
        assert!((statistics.rate_qps(10, 104_000) - 50.0).abs() < 1e-9);
        assert!((statistics.rate_qps(10, 108_000) - 25.0).abs() < 1e-9);
        assert!(statistics.rate_qps(10, 130_000).abs() < 1e-9);
        statistics.add_to_rate(1, 1_000_000);
        assert_eq!(statistics.window.len(), 1);
    }
}
