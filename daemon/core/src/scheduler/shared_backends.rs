//! Model servers that several workers call: each is leased as one, whatever the number of its workers.
//!
//! A worker names the backends that it shares, the models that they answer for there, and how many batches a backend takes
//! at the same time. Batches count from their grant until they have run, at all workers that name the backend; where
//! workers differ, the smallest number holds. Jobs whose backend is full wait, and the worker takes other work. Batches
//! that are adopted from an earlier term run already, and are never refused.
//!
//! Cost: O(workers) for each job that is compared for a worker that shares its backend; nothing for other workers.
//! Invariant ([`Scheduler::check`]): the first leases and copies that this term granted are not more than any worker says.

use idunno_shared::ids::JobId;
use idunno_shared::names::ModelName;
use idunno_shared::wire::resources::SharedBackend;

use super::Scheduler;
use super::job::Job;
use super::worker::{HeldLease, Worker};
use crate::invariant::InvariantViolation;

impl Worker {
    /// The shared backend that answers for a model here.
    fn shared_backend(&self, model: &ModelName) -> Option<&SharedBackend> {
        self.shared.iter().find(|backend| backend.models.contains(model))
    }
}

impl Scheduler {
    /// Whether the worker calls a shared backend for the job, and the backend has as many batches as it takes.
    pub(super) fn is_backend_full(&self, worker: &Worker, job: &Job) -> bool {
        let Some(backend) = worker.shared_backend(&job.model) else { return false };
        let limits = self.sharers(&backend.id).map(|(_, shared)| shared.in_flight);
        let limit = limits.min().unwrap_or(u16::MAX);
        self.held_by_backend(&backend.id, |_| true) >= usize::from(limit)
    }

    /// The workers that name a backend, with what they say of it.
    fn sharers<'a>(&'a self, id: &'a str) -> impl Iterator<Item = (&'a Worker, &'a SharedBackend)> {
        let named = move |worker: &'a Worker| worker.shared.iter().find(|backend| backend.id == id);
        self.workers.values().filter_map(move |worker| Some((worker, named(worker)?)))
    }

    /// How many leases that have not run to completion a backend has.
    fn held_by_backend(&self, id: &str, counts: impl Fn(&HeldLease) -> bool) -> usize {
        let is_served = |backend: &SharedBackend, job: &JobId| {
            self.jobs.get(job).is_some_and(|job| backend.models.contains(&job.model))
        };
        self.sharers(id)
            .flat_map(|(worker, backend)| worker.uncompleted().map(move |held| (held, backend)))
            .filter(|(held, backend)| counts(held) && is_served(backend, &held.lease.job))
            .count()
    }

    pub(super) fn check_backends(&self, worker: &Worker) -> Result<(), InvariantViolation> {
        worker.shared.iter().try_for_each(|backend| {
            let most = self.sharers(&backend.id).map(|(_, shared)| shared.in_flight).max().unwrap_or(0);
            let held = self.held_by_backend(&backend.id, |held| held.lease.term == self.term);
            InvariantViolation::unless(held <= usize::from(most), || {
                format!("backend {} has {held} batches, and takes {most}", backend.id)
            })
        })
    }
}
