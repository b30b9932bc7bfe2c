//! Which job a worker serves next: equal query rates for all jobs, whatever their queries cost.
//!
//! A job's virtual time is the service it has received (queries answered, failed or leased) divided by its weight. Each
//! pull goes to the job with the least virtual time among those that the worker can serve. A worker prefers the jobs to
//! which it is assigned (`assignment.rs`): another job comes first only if it lags by more than a batch of its own. A
//! job that starts or resumes gets the least virtual time of the active jobs, not its old one.
//!
//! Under the policy `time`, virtual time is inference time over weight: estimated when a batch is leased, corrected
//! when it is committed. Under `fifo`, the oldest job with work for the worker comes first.
//!
//! Sources: stride scheduling (Waldspurger and Weihl 1995); start-time fair queueing (Goyal, Vin and Cheng 1996) for
//! newcomers.
//! Invariant: among the jobs that a worker can serve, virtual times differ by at most two batches of each, and by at
//! most [`DEFICIT_SECONDS`] of service where workers differ in what they can serve.
//! Not here: which batch of the job (`jobs.rs`).

use std::collections::BTreeMap;

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::jobs::Policy;

use super::Scheduler;
use super::jobs::{Candidate, Job};
use super::sizing::Rate;
use super::worker::Worker;
use crate::time::Instant;

/// A job may lag by what it had answered in this many seconds, which bounds how long it catches up after an outage.
const DEFICIT_SECONDS: usize = 10;
/// Virtual time of one query, or of [`UNIT_US`] of inference, at weight 1. Leaves room for a job of 2^43 queries.
const UNIT: u64 = 1 << 20;
const UNIT_US: u64 = 1_000;

/// Sums amounts over the last `N` seconds, in buckets of one second.
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

    /// The sum over the window that ends at `now`.
    pub(super) fn sum(&self, now: Instant) -> u64 {
        let mut copy = self.clone();
        copy.advance(now);
        // Times come from workers and may be arbitrarily large.
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

/// The service that a job has received.
#[derive(Clone, Debug)]
pub(super) struct Service {
    virtual_time: u64,
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

    /// Refunds leased queries that came back without an attempt.
    pub(super) fn refund(&mut self, queries: u64) {
        self.virtual_time = self.virtual_time.saturating_sub(self.cost(queries));
    }

    pub(super) fn record_answers(&mut self, queries: u64, now: Instant) {
        self.answered.add(queries, now);
    }

    /// Records the inference time of a committed batch; under the policy `time` it replaces the estimate.
    pub(super) fn record_batch(&mut self, queries: u32, inference_us: u64, now: Instant) {
        if self.policy == Policy::Time {
            let charged = self.cost(u64::from(queries));
            self.virtual_time =
                self.virtual_time.saturating_sub(charged).saturating_add(self.time_cost(inference_us));
        }
        self.rate.add(queries, inference_us, now);
    }

    /// Adopts a policy and resets the virtual time, whose unit the policy decides.
    pub(super) fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
        self.virtual_time = 0;
    }

    /// The virtual time of so many queries.
    fn cost(&self, queries: u64) -> u64 {
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

/// Raises the virtual time of a job that starts or resumes to the least of the active jobs.
pub(super) fn start_level(jobs: &mut BTreeMap<JobId, Job>, starting: JobId) {
    let others = jobs.iter().filter(|(id, job)| **id != starting && job.is_active());
    let Some(least) = others.map(|(_, job)| job.service.virtual_time).min() else { return };
    if let Some(job) = jobs.get_mut(&starting) {
        job.service.virtual_time = job.service.virtual_time.max(least);
    }
}

/// Caps how far each job lags behind `served`, which is about to get a batch.
pub(super) fn cap_deficits(jobs: &mut BTreeMap<JobId, Job>, served: JobId, now: Instant) {
    let Some(front) = jobs.get(&served) else { return };
    let front_time = front.service.virtual_time;
    let front_batch = front.service.cost(2 * u64::from(front.current_batch_size));
    for job in jobs.values_mut().filter(|job| job.service.virtual_time < front_time) {
        let own_batch = job.service.cost(2 * u64::from(job.current_batch_size));
        let deficit = job.service.cost(job.service.answered.sum(now)).max(own_batch).max(front_batch);
        job.service.virtual_time = job.service.virtual_time.max(front_time.saturating_sub(deficit));
    }
}

impl Scheduler {
    /// The job that the worker serves next, and the source of the batch: the least virtual time among the jobs with
    /// work for this worker, where jobs of other workers count a batch more. Ties go to the older job.
    pub(super) fn choose_job(&self, node: NodeId, worker: &Worker) -> Option<(JobId, Candidate)> {
        let mut least: Option<(u64, JobId, Candidate)> = None;
        for (id, job) in &self.jobs {
            let virtual_time = match self.policy {
                Policy::Fifo => 0,
                _ if self.line.assigns(node, *id) => job.service.virtual_time,
                _ => job.service.virtual_time.saturating_add(job.service.cost(job.current_batch_size.into())),
            };
            let is_behind = least.as_ref().is_some_and(|(time, ..)| *time <= virtual_time);
            if is_behind || !job.may_lease() || !job.has_work() || !self.is_capable(worker, *id, job) {
                continue;
            }
            if self.is_backend_full(worker, job) {
                continue;
            }
            let is_nobody_better =
                |avoids: &dyn Fn(NodeId) -> bool| self.capable_workers(*id, job).all(avoids);
            if let Some(candidate) = job.next_candidate(node, self.now, is_nobody_better) {
                least = Some((virtual_time, *id, candidate));
            }
        }
        least.map(|(_, id, candidate)| (id, candidate))
    }

    /// Workers that can run the job now or soon, without those whose current batch is late.
    fn capable_workers<'a>(&'a self, id: JobId, job: &'a Job) -> impl Iterator<Item = NodeId> + 'a {
        let is_candidate = move |worker: &Worker| self.is_capable(worker, id, job) && !self.is_late(worker);
        self.workers.iter().filter(move |(_, worker)| is_candidate(worker)).map(|(node, _)| *node)
    }

    /// Whether the worker can run the job and is not cooling down from it.
    pub(super) fn is_capable(&self, worker: &Worker, id: JobId, job: &Job) -> bool {
        self.has_model(worker, job) && !worker.is_cooling_down(id, self.now)
    }

    /// Whether the worker is usable and has loaded the job's model version.
    pub(super) fn has_model(&self, worker: &Worker, job: &Job) -> bool {
        worker.is_usable(self.now, &self.config) && worker.has_loaded(&job.model, job.version)
    }
}
