//! What becomes of queries that a worker could not answer, and of who failed them.
//!
//! A range that failed is tried again, halved, or dead, as its history says (`history.rs`). A worker that could not run
//! anything rests for a growing time.
//!
//! A job that never had an answer, committed or not, and fails [`pause_failures`](super::SchedulerConfig::pause_failures) batches in a row at 2
//! workers or more (or at all there are) is paused, for then the model is broken, not the data. A worker that fails
//! three batches in a row of a job that others can serve rests from that job.

use std::collections::BTreeSet;
use std::ops::Range;

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::jobs::{Fault, FaultKind, Lease, QueryRange};

use super::history::Verdict;
use super::job::{Piece, span};
use super::worker::Stage;
use super::{DeadQuery, Scheduler, SchedulerEffect};
use crate::ranges::RangeSet;

impl Scheduler {
    /// Queries of a lease failed at a worker. The lease may have ended: then what waits for another lease is judged,
    /// and what somebody else runs by now is left alone. A worker that had no answer tells it again: that counts once.
    pub(super) fn on_failed(&mut self, node: NodeId, lease: Lease, faults: &[Fault]) {
        let Some(job) = self.jobs.get(&lease.job) else { return };
        if self.workers.get_mut(&node).is_some_and(|worker| !worker.fails_first(lease)) {
            return;
        }
        let able: BTreeSet<NodeId> =
            self.workers.iter().filter(|(_, w)| self.has_model(w, job)).map(|(node, _)| *node).collect();
        let mut dead_letters = Vec::new();
        for fault in faults {
            for range in &fault.ranges {
                let (named, leased) = (span(*range), span(lease.range));
                let range = named.start.max(leased.start)..named.end.min(leased.end);
                if fault.kind == FaultKind::Worker && range == leased {
                    // As if its worker had lost it: a copy takes its place.
                    self.return_where(node, |held| held.lease == lease);
                }
                for piece in self.take_failed(node, lease, range.clone()) {
                    // A batch that failed as a whole says nothing about the part of it that is still open.
                    let is_part = fault.kind == FaultKind::Inference && piece.range != range;
                    if !is_part && fault.kind != FaultKind::Worker {
                        self.judge(node, lease.job, piece, fault, &able, &mut dead_letters);
                    } else if let Some(job) = self.jobs.get_mut(&lease.job) {
                        job.wait(piece);
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
        self.work_appeared = true;
    }

    /// The log does not take these dead letters: their queries are tried anew.
    pub(super) fn on_not_buried(&mut self, id: JobId, queries: &[QueryRange]) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let refused = job.dying.intersection(&queries.iter().map(|range| span(*range)).collect::<RangeSet>());
        job.dying.subtract(&refused);
        job.fresh.merge(&refused);
        self.work_appeared = true;
    }

    /// The failed part of a lease, or of what waits if the lease has ended.
    fn take_failed(&mut self, node: NodeId, lease: Lease, range: Range<u64>) -> Vec<Piece> {
        let Some(job) = self.jobs.get_mut(&lease.job) else { return Vec::new() };
        if range.is_empty() {
            return Vec::new();
        }
        let held = self
            .workers
            .get_mut(&node)
            .and_then(|worker| worker.leases.iter_mut().find(|held| held.lease == lease));
        let Some(held) = held else { return job.take_out(range) };
        let failed = held.open.within(range);
        held.open.subtract(&failed);
        if held.is_copy {
            // Whoever had the batch first still runs it, and decides.
            job.copied.subtract(&failed);
            return Vec::new();
        }
        job.leased.subtract(&failed);
        job.service.refund(failed.len());
        let piece =
            |range| Piece { range, leased: held.leased, history: held.history.clone(), due: self.now };
        let pieces = failed.iter().map(piece).collect();
        self.drop_copies(lease.job, &failed);
        pieces
    }

    /// Decides on a range that failed by its own fault.
    fn judge(
        &mut self,
        node: NodeId,
        id: JobId,
        mut piece: Piece,
        fault: &Fault,
        able: &BTreeSet<NodeId>,
        dead_letters: &mut Vec<DeadQuery>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let count = piece.range.end - piece.range.start;
        job.service.charge(count);
        match piece.history.judge(fault.kind, node, &piece.range, able, &self.config, self.now) {
            Verdict::Retry(delay) => job.wait(Piece { due: self.now + delay, ..piece }),
            Verdict::Halve => {
                let middle = piece.range.start + count / 2;
                let history = piece.history.halved();
                for range in [piece.range.start..middle, middle..piece.range.end] {
                    job.wait(Piece { range, leased: piece.leased, history: history.clone(), due: self.now });
                }
            }
            Verdict::Dead => {
                job.dying.insert(piece.range.clone());
                dead_letters.extend(piece.range.map(|index| DeadQuery {
                    index,
                    reason: fault.reason.clone(),
                    worker: node,
                    attempts: piece.history.attempts,
                }));
            }
        }
    }

    /// Rests the worker, or pauses the job, as the faults of one batch say.
    fn blame(&mut self, node: NodeId, id: JobId, faults: &[Fault], able: &BTreeSet<NodeId>) {
        // Answers are committed a second later or so: until then they count as success too.
        let mut held = self.workers.values().flat_map(|worker| &worker.leases);
        let is_answered = held.any(|held| held.lease.job == id && held.stage == Stage::Ran);
        let (Some(job), Some(worker)) = (self.jobs.get_mut(&id), self.workers.get_mut(&node)) else { return };
        self.statistics.failures += 1;
        if faults.iter().any(|fault| fault.kind == FaultKind::Worker) {
            worker.strike(self.now, &self.config);
        }
        let Some(fault) = faults.iter().find(|fault| fault.kind == FaultKind::Inference) else { return };
        fault.ranges.iter().for_each(|range| worker.choked(&job.model, range.count, self.now));
        if job.breaker.has_succeeded && able.len() > 1 {
            worker.strike_job(id, self.now, &self.config);
        }
        if job.may_lease() && job.breaker.failed(node, able, &self.config) && !is_answered {
            job.pausing = true;
            let (failures, workers) = (job.breaker.failures, job.breaker.workers.len());
            let reason = format!(
                "the first {failures} batches failed, on {workers} workers; the last reason: {}",
                fault.reason
            );
            self.effects.push_back(SchedulerEffect::PauseJob { job: id, reason });
        }
    }
}
