//! The open queries of a job, by state.
//!
//! An open query is fresh (never leased), waits in a chunk for another lease, is leased, or awaits its dead letter.
//!
//! Invariants: `fresh`, the chunks, `leased` and `uncommitted_dead` are disjoint and together equal `open`; `copied` is
//! a subset of `leased`.
//! Bounds: a job with [`CHUNKS_MAX`] waiting chunks leases no fresh queries. Batches already leased may add theirs, at
//! most one chunk per query.

use std::ops::Range;

use idunno_shared::ids::{Digest, NodeId};
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{BATCH_QUERIES_MAX, BatchSize};
use idunno_shared::wire::resources::ReadFeature;

use super::JobSpec;
use super::chunks::{Chunk, Chunks};
use super::circuit_breaker::CircuitBreaker;
use super::service::Service;
use crate::ranges::RangeSet;
use crate::time::Instant;

/// Waiting chunks of a job beyond which it leases no fresh queries.
const CHUNKS_MAX: usize = 1024;

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
    pub(super) needs: Option<ReadFeature>,
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
            needs: spec.needs,
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
    pub(super) fn update(&mut self, spec: JobSpec) -> RangeSet {
        if !self.may_lease() {
            self.breaker = CircuitBreaker::default();
        }
        self.model = spec.model;
        self.version = spec.version;
        if self.batch_size != spec.batch_size {
            self.batch_size = spec.batch_size;
            self.current_batch_size = initial_size(spec.batch_size);
        }
        self.needs = spec.needs;
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
    /// of the job is not delayed; chunks in quarantine come last, so that the others are answered before more crashes. A
    /// worker that failed a chunk gets it again only if `is_nobody_better` finds no capable worker that has not.
    pub(super) fn next_candidate(
        &self,
        node: NodeId,
        now: Instant,
        is_nobody_better: impl Fn(&dyn Fn(NodeId) -> bool) -> bool,
    ) -> Option<Candidate> {
        let is_for_node = |chunk: &Chunk| {
            !chunk.history.avoids(node) || is_nobody_better(&|other| chunk.history.avoids(other))
        };
        let waiting = |is_quarantined: bool| {
            let mut due = self.chunks.iter().filter(|(_, chunk)| chunk.due <= now);
            let next =
                due.find(|(_, chunk)| chunk.history.is_quarantined() == is_quarantined && is_for_node(chunk));
            next.map(|(first, _)| Candidate::Chunk(*first))
        };
        let may_lease_fresh = !self.fresh.is_empty() && self.chunks.len() < CHUNKS_MAX;
        let others = waiting(false).or_else(|| may_lease_fresh.then_some(Candidate::Fresh));
        others.or_else(|| waiting(true))
    }

    /// Cuts a batch of at most `queries` from the candidate, or one query in quarantine, and marks it leased.
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
                let batch = if chunk.history.is_quarantined() { 1 } else { batch };
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
            // Queries that are in quarantine by now are not run together, whoever runs them.
            let may_run = |chunk: &&Chunk| chunk.len() == 1 || !chunk.history.is_quarantined();
            self.chunks.get(&first).filter(|chunk| chunk.range == range).filter(may_run)?;
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

fn initial_size(size: BatchSize) -> u32 {
    u32::from(size).clamp(1, BATCH_QUERIES_MAX)
}
