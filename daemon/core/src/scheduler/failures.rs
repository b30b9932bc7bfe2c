//! What happens to queries that fail, and to the workers and jobs that fail them.
//!
//! A failed range is retried, halved or dead, by its history:
//!
//! | fault | decision |
//! | --- | --- |
//! | bad input | one retry on another worker if there is one, then dead |
//! | inference | tried on 3 different workers (on all if there are fewer, and at least 3 times); then a range is halved, a single query is dead |
//! | fetch | retried with growing delays, 5 times and for [`fetch_patience`](super::SchedulerConfig::fetch_patience) at least, because holders may be away after a power cut; then a range is halved and each half has one try left, a single query is dead |
//! | worker | the range returns without a fault |
//!
//! A worker with a fault of its own cools down for a growing time. A worker that fails three batches in a row of a job
//! that others can serve cools down from that job. A job is paused if it has never had an answer, committed or not, and
//! fails [`pause_failures`](super::SchedulerConfig::pause_failures) batches on 2 workers or more (or on all there are):
//! then the model is broken, not the data.
//!
//! Source: bisection over distinct workers, so that neighbours of a bad query are not blamed (compare Dask and Ray
//! Data).
//! Bounds: a query that fails every batch of b costs at most [`TRIES_MAX`] (3, with 3 workers) times log2(b) + 1
//! leases; a history names at most [`WORKERS_TO_TRY`] workers per kind.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::jobs::{Fault, FaultKind, Lease};

use super::jobs::{Chunk, span};
use super::worker::Stage;
use super::{DeadQuery, Scheduler, SchedulerConfig, SchedulerEffect};
use crate::time::Instant;

/// Different workers that try a range before it is halved or dead.
const WORKERS_TO_TRY: usize = 3;
/// Most tries of one kind, over all workers.
const TRIES_MAX: u32 = 6;
/// Different workers that must call an input bad before it is dead.
const BAD_INPUT_WORKERS: usize = 2;
/// Fewest attempts to read an input before it is given up.
const FETCHES_MIN: u32 = 5;
/// Fewest different workers that must fail a job before it is paused.
const PAUSE_WORKERS: usize = 2;

/// The failures of a range that are of one kind.
#[derive(Clone, Debug, Default)]
struct Failures {
    count: u32,
    workers: BTreeSet<NodeId>,
}

impl Failures {
    fn add(&mut self, worker: NodeId) {
        self.count += 1;
        self.workers.insert(worker);
    }
}

/// The faults of a range so far.
#[derive(Clone, Debug, Default)]
pub(super) struct FaultHistory {
    /// Failed leases of the range and of those it was cut from.
    attempts: u32,
    bad_input: Failures,
    inference: Failures,
    /// The range of which `inference` counts the failures.
    inference_range: Range<u64>,
    fetches: u32,
    /// When its inputs could not be read for the first time.
    unreadable_since: Option<Instant>,
    /// Whether it has hung before.
    has_hung: bool,
}

/// What to do with a failed range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    RetryAfter(Duration),
    Halve,
    Dead,
}

impl FaultHistory {
    /// Whether the worker failed the range, so that another should try it.
    pub(super) fn avoids(&self, node: NodeId) -> bool {
        self.bad_input.workers.contains(&node) || self.inference.workers.contains(&node)
    }

    /// Records that the range hangs. True if it has hung before.
    pub(super) fn record_hang(&mut self) -> bool {
        std::mem::replace(&mut self.has_hung, true)
    }

    /// Records a failure of `range` and decides. `able` are the live workers with the model.
    fn judge(
        &mut self,
        kind: FaultKind,
        worker: NodeId,
        range: &Range<u64>,
        able: &BTreeSet<NodeId>,
        config: &SchedulerConfig,
        now: Instant,
    ) -> Verdict {
        let give_up = if range.end - range.start == 1 { Verdict::Dead } else { Verdict::Halve };
        self.attempts += 1;
        match kind {
            FaultKind::BadInput => {
                self.bad_input.add(worker);
                let workers = &self.bad_input.workers;
                let is_agreed = workers.len() >= BAD_INPUT_WORKERS || able.is_subset(workers);
                if is_agreed || self.bad_input.count >= TRIES_MAX {
                    return Verdict::Dead;
                }
                Verdict::RetryAfter(Duration::ZERO)
            }
            FaultKind::Inference => {
                // Failures of a larger range, whose other queries have been answered since, do not count.
                if self.inference_range != *range {
                    self.inference = Failures::default();
                    self.inference_range = range.clone();
                }
                self.inference.add(worker);
                let tried = &self.inference;
                let is_tried_by_all =
                    able.is_subset(&tried.workers) && tried.count as usize >= WORKERS_TO_TRY;
                if tried.workers.len() >= WORKERS_TO_TRY || is_tried_by_all || tried.count >= TRIES_MAX {
                    return give_up;
                }
                Verdict::RetryAfter(back_off(config.retry_base, tried.count - 1, config.retry_max))
            }
            FaultKind::Fetch => {
                self.fetches += 1;
                let unreadable = now.since(*self.unreadable_since.get_or_insert(now));
                if self.fetches >= FETCHES_MIN && unreadable >= config.fetch_patience {
                    return give_up;
                }
                Verdict::RetryAfter(back_off(config.fetch_base, self.fetches - 1, config.retry_max))
            }
            FaultKind::Worker => Verdict::RetryAfter(Duration::ZERO),
        }
    }

    /// The history of each half of the range.
    fn halved(&self) -> Self {
        Self {
            attempts: self.attempts,
            bad_input: self.bad_input.clone(),
            inference: Failures::default(),
            inference_range: 0..0,
            fetches: self.fetches.min(FETCHES_MIN - 1),
            unreadable_since: self.unreadable_since,
            has_hung: self.has_hung,
        }
    }
}

/// Detects a job that has not had a single answer since it was started.
#[derive(Clone, Debug, Default)]
pub(super) struct CircuitBreaker {
    has_succeeded: bool,
    failures: u32,
    workers: BTreeSet<NodeId>,
}

impl CircuitBreaker {
    pub(super) fn record_success(&mut self) {
        *self = Self { has_succeeded: true, ..Self::default() };
    }

    /// Records a failed batch. True if the job is to be paused.
    fn record_failure(&mut self, worker: NodeId, able: &BTreeSet<NodeId>, config: &SchedulerConfig) -> bool {
        if self.has_succeeded {
            return false;
        }
        self.failures += 1;
        self.workers.insert(worker);
        let is_everywhere = self.workers.len() >= PAUSE_WORKERS || able.is_subset(&self.workers);
        self.failures >= config.pause_failures && is_everywhere
    }
}

/// `base` doubled `doublings` times, at most `limit`.
pub(super) fn back_off(base: Duration, doublings: u32, limit: Duration) -> Duration {
    base.saturating_mul(1 << doublings.min(16)).min(limit)
}

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
                let (named, leased) = (span(*range), span(lease.range));
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
        match chunk.history.judge(fault.kind, node, &chunk.range, able, &self.config, self.now) {
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
        let Some(fault) = faults.iter().find(|fault| fault.kind == FaultKind::Inference) else { return };
        for range in &fault.ranges {
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
