//! What a job has been given, as virtual time: queries, or with the policy `time` inference time, over its weight.
//!
//! Inference time is estimated when a batch is leased, and set right when it is committed.

use idunno_shared::wire::jobs::Policy;

use super::pace::Rate;
use crate::time::Instant;

/// A job is owed at most what it had answered in this many seconds, so that catching up after an outage is bounded.
pub(super) const DEFICIT_SECONDS: usize = 10;
/// Virtual time of one query, or of [`UNIT_US`] of inference, at weight 1. A job of 2^43 queries fits.
const UNIT: u64 = 1 << 20;
const UNIT_US: u64 = 1_000;

/// Amounts of the last `N` seconds, in buckets of one second.
#[derive(Clone, Debug)]
pub(super) struct Window<const N: usize> {
    amounts: [u64; N],
    second: u64,
}

impl<const N: usize> Window<N> {
    pub(super) fn new() -> Self {
        Self { amounts: [0; N], second: 0 }
    }

    pub(super) fn add(&mut self, amount: u64, now: Instant) {
        self.advance(now);
        let bucket = self.bucket(self.second);
        *bucket = bucket.saturating_add(amount);
    }

    /// The sum over the window that ends now.
    pub(super) fn sum(&self, now: Instant) -> u64 {
        let mut copy = self.clone();
        copy.advance(now);
        // What workers say of their times is not to be trusted.
        copy.amounts.iter().fold(0, |sum, amount| sum.saturating_add(*amount))
    }

    fn advance(&mut self, now: Instant) {
        let second = now.as_micros() / 1_000_000;
        let first_stale = (self.second + 1).max(second.saturating_sub(N as u64 - 1));
        for stale in first_stale..=second {
            *self.bucket(stale) = 0;
        }
        self.second = self.second.max(second);
    }

    fn bucket(&mut self, second: u64) -> &mut u64 {
        let index = usize::try_from(second % N as u64).unwrap_or(0);
        &mut self.amounts[index]
    }
}

/// What a job has been given.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) virtual_time: u64,
    pub(super) weight: u32,
    policy: Policy,
    /// Of the job's queries, wherever they ran.
    pub(super) rate: Rate,
    pub(super) answered: Window<DEFICIT_SECONDS>,
}

impl Service {
    pub(super) fn new(weight: u32) -> Self {
        let (policy, rate) = (Policy::default(), Rate::default());
        Self { virtual_time: 0, weight: weight.max(1), policy, rate, answered: Window::new() }
    }

    /// Queries were leased, or answered without a lease.
    pub(super) fn charge(&mut self, queries: u64) {
        self.virtual_time = self.virtual_time.saturating_add(self.cost(queries));
    }

    /// Leased queries came back untried.
    pub(super) fn refund(&mut self, queries: u64) {
        self.virtual_time = self.virtual_time.saturating_sub(self.cost(queries));
    }

    pub(super) fn answered(&mut self, queries: u64, now: Instant) {
        self.answered.add(queries, now);
    }

    /// A batch was committed after so much inference.
    pub(super) fn ran(&mut self, queries: u32, inference_us: u64, now: Instant) {
        if self.policy == Policy::Time {
            let charged = self.cost(u64::from(queries));
            self.virtual_time =
                self.virtual_time.saturating_sub(charged).saturating_add(self.time_cost(inference_us));
        }
        self.rate.add(queries, inference_us, now);
    }

    /// Begins anew under a policy.
    pub(super) fn set_policy(&mut self, policy: Policy) {
        (self.policy, self.virtual_time) = (policy, 0);
    }

    pub(super) fn cost(&self, queries: u64) -> u64 {
        if self.policy == Policy::Time && self.rate.is_known() {
            let each_us = u64::try_from(self.rate.time(1).as_micros()).unwrap_or(u64::MAX);
            return self.time_cost(each_us.saturating_mul(queries));
        }
        queries.saturating_mul(UNIT) / u64::from(self.weight)
    }

    fn time_cost(&self, inference_us: u64) -> u64 {
        inference_us.saturating_mul(UNIT / UNIT_US) / u64::from(self.weight)
    }
}
