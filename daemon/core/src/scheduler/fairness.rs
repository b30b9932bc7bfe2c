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
//! most [`DEFICIT_SECONDS`](super::service::DEFICIT_SECONDS) of service where workers differ in what they can serve.
//! Not here: which batch of the job (`job.rs`).

use std::collections::BTreeMap;

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::jobs::Policy;

use super::Scheduler;
use super::job::{Candidate, Job};
use super::worker::Worker;
use crate::time::Instant;

/// Raises the virtual time of a job that starts or resumes to the least of the active jobs.
pub(super) fn start_level(jobs: &mut BTreeMap<JobId, Job>, starting: JobId) {
    let others = jobs.iter().filter(|(id, job)| **id != starting && job.is_active());
    let Some(least) = others.map(|(_, job)| job.service.virtual_time).min() else { return };
    if let Some(job) = jobs.get_mut(&starting) {
        job.service.catch_up(least);
    }
}

/// Caps how far each job lags behind `served`, which is about to get a batch.
pub(super) fn cap_deficits(jobs: &mut BTreeMap<JobId, Job>, served: JobId, now: Instant) {
    let Some(front) = jobs.get(&served) else { return };
    let front_time = front.service.virtual_time;
    let front_batch = front.service.cost(2 * u64::from(front.current_batch_size));
    for job in jobs.values_mut().filter(|job| job.service.virtual_time < front_time) {
        let own_batch = job.service.cost(2 * u64::from(job.current_batch_size));
        let deficit = job.service.recent_cost(now).max(own_batch).max(front_batch);
        job.service.catch_up(front_time.saturating_sub(deficit));
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

    /// Whether the worker is usable, has loaded the job's model version and reads its dataset.
    pub(super) fn has_model(&self, worker: &Worker, job: &Job) -> bool {
        let can_read = job.needs.is_none_or(|needed| worker.features.contains(&needed));
        can_read && worker.is_usable(self.now, &self.config) && worker.has_loaded(&job.model, job.version)
    }
}
