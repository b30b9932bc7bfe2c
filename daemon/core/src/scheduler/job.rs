//! One job's open queries: which are fresh, which wait for another try, which are leased, which are dying.
//!
//! Invariants: `fresh`, the pieces, `leased` and `dying` are disjoint and together are `open`; `copied` is within
//! `leased`.
//! Bounds: nothing fresh is cut while [`PIECES_MAX`] pieces wait; leases in flight may add theirs to that, at most
//! one piece a query.

use std::collections::BTreeMap;
use std::ops::Range;

use idunno_shared::ids::{Digest, NodeId};
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{BATCH_QUERIES_MAX, BatchSize, QueryRange};

use super::JobSpec;
use super::history::{Breaker, History};
use super::service::Service;
use crate::ranges::RangeSet;
use crate::time::Instant;

/// While a job has this many pieces, it is cut no further.
pub(super) const PIECES_MAX: usize = 1024;

/// Queries that were leased before, and are leased again as they are (or in parts, if the batch size shrank).
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) range: Range<u64>,
    /// How often it has been leased.
    pub(super) leased: u32,
    pub(super) history: History,
    /// Not before then.
    pub(super) due: Instant,
}

/// What to lease next: the piece that begins there, or fresh queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pick {
    Piece(u64),
    Fresh,
}

#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) model: ModelName,
    pub(super) version: Digest,
    pub(super) batch_size: BatchSize,
    /// Queries that its last batch was to have.
    pub(super) batch_now: u32,
    running: bool,
    /// Its pause has been asked for and is not in the log yet.
    pub(super) pausing: bool,
    /// Neither answered nor dead, as far as the log is known.
    pub(super) open: RangeSet,
    pub(super) fresh: RangeSet,
    /// By first query.
    pub(super) pieces: BTreeMap<u64, Piece>,
    pub(super) leased: RangeSet,
    /// Those of them that are in two leases.
    pub(super) copied: RangeSet,
    /// Dead letters that are not in the log yet.
    pub(super) dying: RangeSet,
    pub(super) service: Service,
    pub(super) breaker: Breaker,
}

impl Job {
    pub(super) fn new(spec: JobSpec) -> Self {
        Self {
            model: spec.model,
            version: spec.version,
            batch_size: spec.batch_size,
            batch_now: clamp(spec.batch_size),
            running: spec.running,
            pausing: false,
            open: spec.pending.clone(),
            fresh: spec.pending,
            pieces: BTreeMap::new(),
            leased: RangeSet::new(),
            copied: RangeSet::new(),
            dying: RangeSet::new(),
            service: Service::new(spec.weight),
            breaker: Breaker::default(),
        }
    }

    /// Takes the log's word; returns the queries that are no longer open. Those that are leased remain in `leased`.
    pub(super) fn update(&mut self, spec: JobSpec) -> RangeSet {
        if !self.may_lease() {
            self.breaker = Breaker::default();
        }
        self.model = spec.model;
        self.version = spec.version;
        if self.batch_size != spec.batch_size {
            (self.batch_size, self.batch_now) = (spec.batch_size, clamp(spec.batch_size));
        }
        self.running = spec.running;
        self.pausing = false;
        self.service.weight = spec.weight.max(1);
        let mut gone = self.open.clone();
        gone.subtract(&spec.pending);
        for range in gone.iter() {
            self.dying.remove(range.clone());
            self.take_out(range);
        }
        let mut new = spec.pending.clone();
        new.subtract(&self.open);
        self.fresh.merge(&new);
        self.open = spec.pending;
        gone
    }

    /// Whether its batches may be leased.
    pub(super) fn may_lease(&self) -> bool {
        self.running && !self.pausing
    }

    /// Whether it takes part in the sharing: it runs and has something to run.
    pub(super) fn is_active(&self) -> bool {
        self.may_lease() && (self.has_work() || !self.leased.is_empty())
    }

    pub(super) fn has_work(&self) -> bool {
        !self.fresh.is_empty() || !self.pieces.is_empty()
    }

    /// What the worker would lease now. Pieces come first, so that failures are decided early and the tail is short;
    /// a worker that failed a piece gets it again only if `is_nobody_better` says so of all who did.
    pub(super) fn pick(
        &self,
        node: NodeId,
        now: Instant,
        is_nobody_better: impl Fn(&dyn Fn(NodeId) -> bool) -> bool,
    ) -> Option<Pick> {
        let mut due = self.pieces.iter().filter(|(_, piece)| piece.due <= now);
        let piece = due.find(|(_, piece)| {
            !piece.history.avoids(node) || is_nobody_better(&|other| piece.history.avoids(other))
        });
        if let Some((first, _)) = piece {
            return Some(Pick::Piece(*first));
        }
        (!self.fresh.is_empty() && self.pieces.len() < PIECES_MAX).then_some(Pick::Fresh)
    }

    /// Cuts a batch of at most `queries` out of what was picked and marks it leased.
    pub(super) fn cut(&mut self, pick: Pick, queries: u32) -> Option<Piece> {
        let batch = u64::from(queries);
        let piece = match pick {
            Pick::Fresh => {
                let range = self.fresh.first_range(batch)?;
                self.fresh.remove(range.clone());
                Piece { range, leased: 0, history: History::default(), due: Instant::START }
            }
            Pick::Piece(first) => {
                let mut piece = self.pieces.remove(&first)?;
                let cut = piece.range.end.min(first.saturating_add(batch));
                if cut < piece.range.end {
                    self.wait(Piece { range: cut..piece.range.end, ..piece.clone() });
                    piece.range.end = cut;
                }
                piece
            }
        };
        self.leased.insert(piece.range.clone());
        Some(piece)
    }

    /// The range, exactly as it was leased before, or never leased: for a lease of an older term.
    pub(super) fn claim(&mut self, range: Range<u64>) -> Option<Piece> {
        let piece = if self.fresh.contains_all(range.clone()) {
            self.fresh.remove(range.clone());
            Piece { range, leased: 0, history: History::default(), due: Instant::START }
        } else {
            let first = range.start;
            self.pieces.get(&first).filter(|piece| piece.range == range)?;
            self.pieces.remove(&first)?
        };
        self.leased.insert(piece.range.clone());
        Some(piece)
    }

    /// Queues a piece for another lease.
    pub(super) fn wait(&mut self, piece: Piece) {
        self.pieces.insert(piece.range.start, piece);
    }

    /// Takes out what of `range` waits for a lease, fresh or not.
    pub(super) fn take_out(&mut self, range: Range<u64>) -> Vec<Piece> {
        let mut taken: Vec<Piece> = self
            .fresh
            .within(range.clone())
            .iter()
            .map(|range| Piece { range, leased: 0, history: History::default(), due: Instant::START })
            .collect();
        self.fresh.remove(range.clone());
        let overlapping: Vec<u64> = self
            .pieces
            .range(..range.end)
            .rev()
            .take_while(|(_, piece)| piece.range.end > range.start)
            .map(|(first, _)| *first)
            .collect();
        for first in overlapping {
            let Some(mut piece) = self.pieces.remove(&first) else { continue };
            if piece.range.end > range.end {
                self.wait(Piece { range: range.end..piece.range.end, ..piece.clone() });
                piece.range.end = range.end;
            }
            if piece.range.start < range.start {
                self.wait(Piece { range: piece.range.start..range.start, ..piece.clone() });
                piece.range.start = range.start;
            }
            taken.push(piece);
        }
        taken
    }
}

/// The numbers of a range that came over the network, whatever it holds.
pub(super) fn span(range: QueryRange) -> Range<u64> {
    range.first..range.first.saturating_add(u64::from(range.count))
}

fn clamp(size: BatchSize) -> u32 {
    u32::from(size).clamp(1, BATCH_QUERIES_MAX)
}
