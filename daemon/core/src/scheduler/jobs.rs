//! The open queries of each job, by state, and the events that change a job.
//!
//! An open query is fresh (never leased), waits in a chunk for another lease, is leased, or awaits its dead letter.
//!
//! Invariants: `fresh`, the chunks, `leased` and `uncommitted_dead` are disjoint and together equal `open`; `copied` is
//! a subset of `leased`.
//! Bounds: a job with [`CHUNKS_MAX`] waiting chunks leases no fresh queries. Batches already leased may add theirs, at
//! most one chunk per query.

use std::ops::Range;

use idunno_shared::ids::{Digest, JobId, NodeId};
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{BATCH_QUERIES_MAX, BatchSize, QueryRange};

use super::chunks::Chunks;
use super::failures::{CircuitBreaker, FaultHistory};
use super::fairness::Service;
use super::{JobSpec, RebalanceReason, Scheduler, fairness};
use crate::ranges::RangeSet;
use crate::time::Instant;

/// Waiting chunks of a job beyond which it leases no fresh queries.
const CHUNKS_MAX: usize = 1024;

/// Consecutive queries with a shared lease history. They are leased again as one batch, or in parts if the batch size
/// has shrunk.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) range: Range<u64>,
    /// How often it has been leased.
    pub(super) lease_count: u32,
    pub(super) history: FaultHistory,
    /// When it may be leased again.
    pub(super) due: Instant,
}

impl Chunk {
    fn fresh(range: Range<u64>) -> Self {
        Self { range, lease_count: 0, history: FaultHistory::default(), due: Instant::START }
    }

    /// How many queries it has.
    pub(super) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// The source of a job's next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Candidate {
    /// The waiting chunk that starts at this query.
    Chunk(u64),
    /// The first fresh queries.
    Fresh,
}

#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) model: ModelName,
    pub(super) version: Digest,
    pub(super) batch_size: BatchSize,
    /// The size that applied to its latest batch, in queries.
    pub(super) current_batch_size: u32,
    running: bool,
    /// Whether its pause was requested and is not in the log yet.
    pub(super) pausing: bool,
    /// Queries that, by the log, are neither answered nor dead.
    pub(super) open: RangeSet,
    pub(super) fresh: RangeSet,
    pub(super) chunks: Chunks,
    pub(super) leased: RangeSet,
    /// Leased queries that are in two leases.
    pub(super) copied: RangeSet,
    /// Dead letters that are not in the log yet.
    pub(super) uncommitted_dead: RangeSet,
    pub(super) service: Service,
    pub(super) breaker: CircuitBreaker,
}

impl Job {
    pub(super) fn new(spec: JobSpec) -> Self {
        Self {
            model: spec.model,
            version: spec.version,
            batch_size: spec.batch_size,
            current_batch_size: initial_size(spec.batch_size),
            running: spec.running,
            pausing: false,
            open: spec.pending.clone(),
            fresh: spec.pending,
            chunks: Chunks::default(),
            leased: RangeSet::new(),
            copied: RangeSet::new(),
            uncommitted_dead: RangeSet::new(),
            service: Service::new(spec.weight),
            breaker: CircuitBreaker::default(),
        }
    }

    /// Adopts the log's spec. Returns the queries that are no longer open; those of them that are leased stay in
    /// `leased`.
    fn update(&mut self, spec: JobSpec) -> RangeSet {
        if !self.may_lease() {
            self.breaker = CircuitBreaker::default();
        }
        self.model = spec.model;
        self.version = spec.version;
        if self.batch_size != spec.batch_size {
            self.batch_size = spec.batch_size;
            self.current_batch_size = initial_size(spec.batch_size);
        }
        self.running = spec.running;
        self.pausing = false;
        self.service.weight = spec.weight.max(1);
        let mut closed = self.open.clone();
        closed.subtract(&spec.pending);
        for range in closed.iter() {
            self.uncommitted_dead.remove(range.clone());
            self.take_waiting(range);
        }
        let mut new = spec.pending.clone();
        new.subtract(&self.open);
        self.fresh.merge(&new);
        self.open = spec.pending;
        closed
    }

    /// Whether its batches may be leased.
    pub(super) fn may_lease(&self) -> bool {
        self.running && !self.pausing
    }

    /// Whether it gets a share of the workers: it is running and has queries to run.
    pub(super) fn is_active(&self) -> bool {
        self.may_lease() && (self.has_work() || !self.leased.is_empty())
    }

    /// Whether it has queries that wait for a lease.
    pub(super) fn has_work(&self) -> bool {
        !self.fresh.is_empty() || !self.chunks.is_empty()
    }

    /// What the worker would lease next. Chunks precede fresh queries, so that failures are decided early and the end
    /// of the job is not delayed. A worker that failed a chunk gets it again only if `is_nobody_better` finds no capable
    /// worker that has not.
    pub(super) fn next_candidate(
        &self,
        node: NodeId,
        now: Instant,
        is_nobody_better: impl Fn(&dyn Fn(NodeId) -> bool) -> bool,
    ) -> Option<Candidate> {
        let mut due = self.chunks.iter().filter(|(_, chunk)| chunk.due <= now);
        let chunk = due.find(|(_, chunk)| {
            !chunk.history.avoids(node) || is_nobody_better(&|other| chunk.history.avoids(other))
        });
        if let Some((first, _)) = chunk {
            return Some(Candidate::Chunk(*first));
        }
        (!self.fresh.is_empty() && self.chunks.len() < CHUNKS_MAX).then_some(Candidate::Fresh)
    }

    /// Cuts a batch of at most `queries` from the candidate and marks it leased.
    pub(super) fn cut(&mut self, candidate: Candidate, queries: u32) -> Option<Chunk> {
        let batch = u64::from(queries);
        let chunk = match candidate {
            Candidate::Fresh => {
                let range = self.fresh.first_range(batch)?;
                self.fresh.remove(range.clone());
                Chunk::fresh(range)
            }
            Candidate::Chunk(first) => {
                let mut chunk = self.chunks.remove(&first)?;
                let end = chunk.range.end.min(first.saturating_add(batch));
                if end < chunk.range.end {
                    self.requeue(Chunk { range: end..chunk.range.end, ..chunk.clone() });
                    chunk.range.end = end;
                }
                chunk
            }
        };
        self.leased.insert(chunk.range.clone());
        Some(chunk)
    }

    /// Marks the range leased for a lease of an earlier term, if it is a whole waiting chunk or entirely fresh.
    pub(super) fn claim(&mut self, range: Range<u64>) -> Option<Chunk> {
        let chunk = if self.fresh.contains_all(range.clone()) {
            self.fresh.remove(range.clone());
            Chunk::fresh(range)
        } else {
            let first = range.start;
            self.chunks.get(&first).filter(|chunk| chunk.range == range)?;
            self.chunks.remove(&first)?
        };
        self.leased.insert(chunk.range.clone());
        Some(chunk)
    }

    /// Queues a chunk for another lease.
    pub(super) fn requeue(&mut self, chunk: Chunk) {
        self.chunks.insert(chunk);
    }

    /// Removes and returns the queries of `range` that wait for a lease, fresh or not.
    pub(super) fn take_waiting(&mut self, range: Range<u64>) -> Vec<Chunk> {
        let mut taken: Vec<Chunk> = self.fresh.within(range.clone()).iter().map(Chunk::fresh).collect();
        self.fresh.remove(range.clone());
        let overlapping: Vec<u64> = self
            .chunks
            .range(..range.end)
            .rev()
            .take_while(|(_, chunk)| chunk.range.end > range.start)
            .map(|(first, _)| *first)
            .collect();
        for first in overlapping {
            let Some(mut chunk) = self.chunks.remove(&first) else { continue };
            if chunk.range.end > range.end {
                self.requeue(Chunk { range: range.end..chunk.range.end, ..chunk.clone() });
                chunk.range.end = range.end;
            }
            if chunk.range.start < range.start {
                self.requeue(Chunk { range: chunk.range.start..range.start, ..chunk.clone() });
                chunk.range.start = range.start;
            }
            taken.push(chunk);
        }
        taken
    }
}

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
            fairness::start_level(&mut self.jobs, id);
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
        let dead: RangeSet = queries.iter().map(|range| span(*range)).collect();
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
        let queries: RangeSet = queries.iter().map(|range| span(*range)).collect();
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

/// The query numbers of a range that came over the network, which may overflow.
pub(super) fn span(range: QueryRange) -> Range<u64> {
    range.first..range.first.saturating_add(u64::from(range.count))
}

fn initial_size(size: BatchSize) -> u32 {
    u32::from(size).clamp(1, BATCH_QUERIES_MAX)
}
