//! Which job a worker serves next.
//!
//! Equal answer rates for all jobs, whatever their queries cost: a job's virtual time is the queries it has been
//! given (answered, failed or in leases) over its weight, and each pull goes to the job with the least that this
//! worker can serve. A job that begins or comes back starts level with the least active one, not at its past.
//!
//! With the policy `time` the virtual time is inference time over weight. With `fifo` the oldest job is served that has
//! work for the worker.
//!
//! Sources: stride scheduling (Waldspurger and Weihl 1995); start-time fair queueing (Goyal, Vin and Cheng 1996) for
//! newcomers.
//!
//! A worker stays with the jobs that it is assigned to (`line.rs`) while no other lags by more than a batch of its own.
//!
//! Invariant: among the jobs a worker can serve, the gap of virtual times stays within two batches of each, and within
//! [`DEFICIT_SECONDS`](super::service::DEFICIT_SECONDS) of service where workers differ in what they can serve.
//! Not here: what a job has been given (`service.rs`), which batch of the job (`job.rs`).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::jobs::Policy;

use super::Scheduler;
use super::job::{Job, Pick};
use super::worker::Worker;
use crate::time::Instant;

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
