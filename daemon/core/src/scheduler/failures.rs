//! What happens to queries that fail, and to the workers and jobs that fail them.
//!
//! A failed range is retried, halved or dead, as its history says (`fault_history.rs`). A worker with a fault of its own cools
//! down for a growing time. A worker that fails three batches in a row of a job that others can serve cools down from
//! that job. A job that fails from its start is paused (`circuit_breaker.rs`). A job whose batch ends the process of its
//! model is charged for the time until the worker has the model again (`worker.rs`), so that its crashes come out of its own
//! share and not of those of other jobs.

use std::collections::BTreeSet;
use std::ops::Range;

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::jobs::{Fault, FaultKind, Lease};

use super::chunks::Chunk;
use super::fault_history::Verdict;
use super::worker::Stage;
use super::{DeadQuery, Scheduler, SchedulerEffect};

impl Scheduler {
    /// Queries of a lease failed at a worker. If the lease has ended, its waiting queries are judged, and those that
    /// another worker runs are left alone. Workers repeat failure reports that were not acknowledged; each counts once.
    pub(super) fn on_failed(&mut self, node: NodeId, lease: Lease, faults: &[Fault]) {
        let Some(job) = self.jobs.get(&lease.job) else { return };
        if self.workers.get_mut(&node).is_some_and(|worker| !worker.record_failed(lease)) {
            return;
        }
        let able: BTreeSet<NodeId> =
            self.workers.iter().filter(|(_, w)| self.has_model(w, job)).map(|(node, _)| *node).collect();
        let mut dead_letters = Vec::new();
        for fault in faults {
            for range in &fault.ranges {
                let (named, leased) = (range.queries(), lease.range.queries());
                let range = named.start.max(leased.start)..named.end.min(leased.end);
                if fault.kind == FaultKind::Worker && range == leased {
                    // The worker gives the whole lease up, so a copy takes over.
                    self.return_leases(node, None, |held| held.lease == lease);
                }
                for chunk in self.take_failed(node, lease, range.clone()) {
                    // The failure of a whole batch says nothing about the part of it that is still open.
                    let is_part = fault.kind == FaultKind::Inference && chunk.range != range;
                    if !is_part && fault.kind != FaultKind::Worker {
                        self.judge(node, lease.job, chunk, fault, &able, &mut dead_letters);
                    } else if let Some(job) = self.jobs.get_mut(&lease.job) {
                        job.requeue(chunk);
                    }
                }
            }
        }
        self.drop_empty_leases(node);
        self.statistics.dead_letters += dead_letters.len() as u64;
        if !dead_letters.is_empty() {
            dead_letters.sort_by_key(|dead_letter| dead_letter.index);
            self.effects.push_back(SchedulerEffect::DeadLetter { job: lease.job, dead_letters });
        }
        self.blame(node, lease.job, faults, &able);
        self.has_new_work = true;
    }

    /// Removes and returns the failed part of a lease, or, if the lease has ended, of the waiting queries.
    fn take_failed(&mut self, node: NodeId, lease: Lease, range: Range<u64>) -> Vec<Chunk> {
        let Some(job) = self.jobs.get_mut(&lease.job) else { return Vec::new() };
        if range.is_empty() {
            return Vec::new();
        }
        let held = self
            .workers
            .get_mut(&node)
            .and_then(|worker| worker.leases.iter_mut().find(|held| held.lease == lease));
        let Some(held) = held else { return job.take_waiting(range) };
        let failed = held.open.within(range);
        held.open.subtract(&failed);
        if held.is_copy {
            // The holder of the first lease still runs the batch, and its outcome decides.
            job.copied.subtract(&failed);
            return Vec::new();
        }
        job.leased.subtract(&failed);
        job.service.refund(failed.len());
        let (lease_count, history, due) = (held.lease_count, held.history.clone(), self.now);
        let chunk = |range| Chunk { range, lease_count, history: history.clone(), due };
        let chunks = failed.iter().map(chunk).collect();
        self.drop_copies(lease.job, &failed);
        chunks
    }

    /// Retries, halves or gives up a chunk that failed by a fault of its own.
    fn judge(
        &mut self,
        node: NodeId,
        id: JobId,
        mut chunk: Chunk,
        fault: &Fault,
        able: &BTreeSet<NodeId>,
        dead_letters: &mut Vec<DeadQuery>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.service.charge(chunk.len());
        match chunk.history.judge(fault, node, &chunk.range, able, &self.config, self.now) {
            Verdict::RetryAfter(delay) => job.requeue(Chunk { due: self.now + delay, ..chunk }),
            Verdict::Halve => {
                let middle = chunk.range.start + chunk.len() / 2;
                let history = chunk.history.halved();
                for range in [chunk.range.start..middle, middle..chunk.range.end] {
                    let lease_count = chunk.lease_count;
                    job.requeue(Chunk { range, lease_count, history: history.clone(), due: self.now });
                }
            }
            Verdict::Dead => {
                job.uncommitted_dead.insert(chunk.range.clone());
                dead_letters.extend(chunk.range.map(|index| DeadQuery {
                    index,
                    reason: fault.reason.clone(),
                    worker: node,
                    attempts: chunk.history.attempts,
                    identity: fault.identity(index),
                }));
            }
        }
    }

    /// Cools the worker down, or pauses the job, by the faults of one batch.
    fn blame(&mut self, node: NodeId, id: JobId, faults: &[Fault], able: &BTreeSet<NodeId>) {
        // Answers are committed about a second later; until then completed batches count as success.
        let mut held = self.workers.values().flat_map(|worker| &worker.leases);
        let is_answered = held.any(|held| held.lease.job == id && held.stage == Stage::Completed);
        let (Some(job), Some(worker)) = (self.jobs.get_mut(&id), self.workers.get_mut(&node)) else { return };
        self.statistics.failures += 1;
        if faults.iter().any(|fault| fault.kind == FaultKind::Worker) {
            worker.strike(self.now, &self.config);
        }
        if faults.iter().any(|fault| fault.kind == FaultKind::Crash) {
            self.statistics.crashes += 1;
            worker.record_crash(id, job, self.now);
        }
        let is_models = |fault: &&Fault| matches!(fault.kind, FaultKind::Inference | FaultKind::Crash);
        let Some(fault) = faults.iter().find(is_models) else { return };
        // A batch that crashed may be too large, but is more often unlucky: its model's batches stay as they are.
        for range in fault.ranges.iter().filter(|_| fault.kind == FaultKind::Inference) {
            worker.record_failed_batch(&job.model, range.count, self.now);
        }
        if job.breaker.has_succeeded && able.len() > 1 {
            worker.strike_job(id, self.now, &self.config);
        }
        if job.may_lease() && job.breaker.record_failure(node, able, &self.config) && !is_answered {
            job.pausing = true;
            let (failures, workers) = (job.breaker.failures, job.breaker.workers.len());
            let reason = format!(
                "the first {failures} batches failed on {workers} workers; the last error: {}",
                fault.reason
            );
            self.effects.push_back(SchedulerEffect::PauseJob { job: id, reason });
        }
    }
}
