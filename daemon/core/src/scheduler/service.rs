//! The service that a job has received, as virtual time.
//!
//! It is what was answered, failed or leased, over the job's weight: in queries, or in inference time under the policy
//! `time`. There it is estimated when a batch is leased, and corrected when it is committed.
//!
//! Not here: which job is served next (`fairness.rs`).

use std::time::Duration;

use idunno_shared::wire::jobs::Policy;

use super::event::CompletedBatch;
use super::sizing::Rate;
use super::window::Window;
use crate::time::Instant;

/// A job may lag by what it had answered in this many seconds, which bounds how long it catches up after an outage.
pub(super) const DEFICIT_SECONDS: usize = 10;
/// Virtual time of one query, or of [`UNIT_US`] of inference, at weight 1. Leaves room for a job of 2^43 queries.
const UNIT: u64 = 1 << 20;
const UNIT_US: u64 = 1_000;

/// The service that a job has received.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) virtual_time: u64,
    pub(super) weight: u32,
    policy: Policy,
    /// The rate of the job's queries over all workers.
    pub(super) rate: Rate,
    answered: Window<DEFICIT_SECONDS>,
}

impl Service {
    pub(super) fn new(weight: u32) -> Self {
        Self {
            virtual_time: 0,
            weight: weight.max(1),
            policy: Policy::default(),
            rate: Rate::default(),
            answered: Window::new(),
        }
    }

    /// Charges queries that were leased, or answered without a lease.
    pub(super) fn charge(&mut self, queries: u64) {
        self.virtual_time = self.virtual_time.saturating_add(self.cost(queries));
    }

    /// Charges the time that the job took from a worker without running on it, as the queries that fit into it.
    pub(super) fn charge_time(&mut self, lost: Duration) {
        let lost_us = u64::try_from(lost.as_micros()).unwrap_or(u64::MAX);
        let cost = match self.policy {
            Policy::Time => self.time_cost(lost_us),
            _ if !self.rate.is_known() => 0,
            _ => {
                let each_us = u64::try_from(self.rate.time(1).as_micros()).unwrap_or(u64::MAX);
                self.cost(lost_us / each_us.max(1))
            }
        };
        self.virtual_time = self.virtual_time.saturating_add(cost);
    }

    /// Refunds leased queries that came back without an attempt.
    pub(super) fn refund(&mut self, queries: u64) {
        self.virtual_time = self.virtual_time.saturating_sub(self.cost(queries));
    }

    pub(super) fn record_answers(&mut self, queries: u64, now: Instant) {
        self.answered.add(queries, now);
    }

    /// Records the inference time of a committed batch; under the policy `time` it replaces the estimate.
    pub(super) fn record_batch(&mut self, batch: &CompletedBatch, now: Instant) {
        if self.policy == Policy::Time {
            let charged = self.cost(u64::from(batch.lease.range.count));
            let cost = self.time_cost(batch.inference_us);
            self.virtual_time = self.virtual_time.saturating_sub(charged).saturating_add(cost);
        }
        self.rate.add(batch.inferred, batch.inference_us, now);
    }

    /// Adopts a policy and resets the virtual time, whose unit the policy decides.
    pub(super) fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
        self.virtual_time = 0;
    }

    /// Raises the virtual time to this one if it is less.
    pub(super) fn catch_up(&mut self, virtual_time: u64) {
        self.virtual_time = self.virtual_time.max(virtual_time);
    }

    /// The virtual time of what was answered lately.
    pub(super) fn recent_cost(&self, now: Instant) -> u64 {
        self.cost(self.answered.sum(now))
    }

    /// The virtual time of so many queries.
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
