//! The events that change a job.

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::jobs::QueryRange;

use super::fairness::start_level;
use super::job::Job;
use super::{JobSpec, RebalanceReason, Scheduler};
use crate::ranges::RangeSet;

impl Scheduler {
    pub(super) fn on_job(&mut self, spec: JobSpec) {
        let id = spec.id;
        let activity = |job: &Job| (job.is_active(), job.service.weight);
        let before = self.jobs.get(&id).map(activity);
        if let Some(job) = self.jobs.get_mut(&id) {
            let closed = job.update(spec);
            self.release_closed(id, &closed);
        } else {
            let mut job = Job::new(spec);
            job.service.set_policy(self.policy);
            self.jobs.insert(id, job);
        }
        let was_active = before.is_some_and(|(is_active, _)| is_active);
        if !was_active {
            start_level(&mut self.jobs, id);
        }
        let after = self.jobs.get(&id).map(activity);
        if before != after {
            let is_active = after.is_some_and(|(is_active, _)| is_active);
            self.rebalance(if is_active {
                RebalanceReason::JobStarted(id)
            } else {
                RebalanceReason::JobStopped(id)
            });
        }
        self.has_new_work = true;
    }

    pub(super) fn on_job_ended(&mut self, id: JobId) {
        let is_known = self.jobs.remove(&id).is_some();
        for worker in self.workers.values_mut() {
            worker.forget_job(id);
        }
        if is_known {
            self.rebalance(RebalanceReason::JobEnded(id));
        }
        self.has_new_work = true;
    }

    pub(super) fn on_dead_letters_committed(&mut self, id: JobId, queries: &[QueryRange]) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let dead: RangeSet = queries.iter().map(|range| range.queries()).collect();
        for range in dead.iter() {
            job.uncommitted_dead.remove(range.clone());
            job.open.remove(range.clone());
            job.take_waiting(range);
        }
        self.release_closed(id, &dead);
    }

    /// The refused dead letters become fresh queries.
    pub(super) fn on_dead_letters_refused(&mut self, id: JobId, queries: &[QueryRange]) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let queries: RangeSet = queries.iter().map(|range| range.queries()).collect();
        let refused = job.uncommitted_dead.intersection(&queries);
        job.uncommitted_dead.subtract(&refused);
        job.fresh.merge(&refused);
        self.has_new_work = true;
    }

    /// Takes queries that are no longer open out of all leases.
    fn release_closed(&mut self, id: JobId, closed: &RangeSet) {
        let leased = self.jobs.get(&id).map(|job| job.leased.intersection(closed));
        if let Some(leased) = leased.filter(|leased| !leased.is_empty()) {
            self.release(id, NodeId::default(), leased);
            self.has_new_work = true;
        }
    }
}
