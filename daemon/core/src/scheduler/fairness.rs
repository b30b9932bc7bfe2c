//! Which job a worker serves next.
//!
//! Equal answer rates for all jobs, whatever their queries cost: a job's virtual time is the queries it has been
//! given (answered, failed or in leases) over its weight, and each pull goes to the job with the least that this
//! worker can serve. A job that begins or comes back starts level with the least active one, not at its past.
//!
//! With the policy `time` the virtual time is inference time over weight: estimated when a batch is leased, set right
//! when it is committed. With `fifo` the oldest job is served that has work for the worker.
//!
//! Sources: stride scheduling (Waldspurger and Weihl 1995); start-time fair queueing (Goyal, Vin and Cheng 1996) for
//! newcomers.
//!
//! A worker stays with the jobs that it is assigned to (`line.rs`) while no other lags by more than a batch of its own.
//!
//! Invariant: among the jobs a worker can serve, the gap of virtual times stays within two batches of each, and within
//! [`DEFICIT_SECONDS`] of service where workers differ in what they can serve.
//! Not here: which batch of the job (`job.rs`).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::jobs::Policy;

use super::Scheduler;
use super::job::{Job, Pick};
use super::pace::Rate;
use super::worker::Worker;
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
    virtual_time: u64,
    pub(super) weight: u32,
    policy: Policy,
    /// Of the job's queries, wherever they ran.
    pub(super) rate: Rate,
    answered: Window<DEFICIT_SECONDS>,
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

/// Puts a job that begins, or comes back, level with the active one that has had least.
pub(super) fn join(jobs: &mut BTreeMap<JobId, Job>, joining: JobId) {
    let others = jobs.iter().filter(|(id, job)| **id != joining && job.is_active());
    let Some(least) = others.map(|(_, job)| job.service.virtual_time).min() else { return };
    if let Some(job) = jobs.get_mut(&joining) {
        job.service.virtual_time = job.service.virtual_time.max(least);
    }
}

/// `served` is about to be given a batch: no job's claim on the past may exceed its limit.
pub(super) fn cap_deficits(jobs: &mut BTreeMap<JobId, Job>, served: JobId, now: Instant) {
    let Some(front) = jobs.get(&served) else { return };
    let (front_time, front_batch) =
        (front.service.virtual_time, front.service.cost(2 * u64::from(front.batch_now)));
    for job in jobs.values_mut().filter(|job| job.service.virtual_time < front_time) {
        let own_batch = job.service.cost(2 * u64::from(job.batch_now));
        let owed = job.service.cost(job.service.answered.sum(now)).max(own_batch).max(front_batch);
        job.service.virtual_time = job.service.virtual_time.max(front_time.saturating_sub(owed));
    }
}

impl Scheduler {
    /// The job that the worker serves next, and which of its queries: the least virtual time among the jobs with
    /// work that this worker can do now, where the jobs of other workers must lag by a batch. Ties go to the older job.
    pub(super) fn choose_job(&self, node: NodeId, worker: &Worker) -> Option<(JobId, Pick)> {
        let mut least: Option<(u64, JobId, Pick)> = None;
        for (id, job) in &self.jobs {
            let had = match self.policy {
                Policy::Fifo => 0,
                _ if self.line.assigns(node, *id) => job.service.virtual_time,
                _ => job.service.virtual_time.saturating_add(job.service.cost(job.batch_now.into())),
            };
            let behind = least.as_ref().is_some_and(|(time, ..)| *time <= had);
            if behind || !job.may_lease() || !self.is_capable(worker, *id, job) {
                continue;
            }
            let is_nobody_better =
                |avoid: &dyn Fn(NodeId) -> bool| !self.takers(*id, job).any(|other| !avoid(other));
            if let Some(pick) = job.pick(node, self.now, is_nobody_better) {
                least = Some((had, *id, pick));
            }
        }
        least.map(|(_, id, pick)| (id, pick))
    }

    /// Live workers that can run the job now, or soon: not those whose batch hangs, as it seems.
    fn takers<'a>(&'a self, id: JobId, job: &'a Job) -> impl Iterator<Item = NodeId> + 'a {
        let is_taker = move |worker: &Worker| self.is_capable(worker, id, job) && !self.is_stuck(worker);
        self.workers.iter().filter(move |(_, worker)| is_taker(worker)).map(|(node, _)| *node)
    }

    pub(super) fn is_capable(&self, worker: &Worker, id: JobId, job: &Job) -> bool {
        self.has_model(worker, job) && !worker.is_cooling(id, self.now)
    }

    /// Whether the worker is live, ready, stays, and has the job's model in the job's version loaded.
    pub(super) fn has_model(&self, worker: &Worker, job: &Job) -> bool {
        worker.is_usable(self.now, &self.config) && worker.is_loaded(&job.model, job.version)
    }

    /// Parked workers that want a batch and may hold one more: fewest leases first.
    pub(super) fn hungry(&self) -> Vec<NodeId> {
        let mut hungry: Vec<_> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.wants_batch(&self.config))
            .map(|(node, worker)| (worker.leases.len(), Reverse(worker.wanted), *node))
            .collect();
        hungry.sort_unstable();
        hungry.into_iter().map(|(_, _, node)| node).collect()
    }
}
