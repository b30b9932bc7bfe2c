//! The faults of a range of queries so far, and what follows from them for the range.
//!
//! A failed range is retried, halved or dead, by its history:
//!
//! | fault | decision |
//! | --- | --- |
//! | bad input | one retry on another worker if there is one, then dead |
//! | inference | tried on 3 different workers (on all if there are fewer, and at least 3 times); then a range is halved, a single query is dead |
//! | fetch | retried with growing delays, 5 times and for [`fetch_patience`](SchedulerConfig::fetch_patience) at least, because holders may be away after a power cut; then a range is halved and each half has one try left, a single query is dead |
//! | worker | the range returns without a fault |
//!
//! Source: bisection over distinct workers, so that neighbours of a bad query are not blamed (compare Dask and Ray
//! Data).
//! Bounds: a query that fails every batch of b costs at most [`TRIES_MAX`] (3, with 3 workers) times log2(b) + 1
//! leases; a history names at most [`WORKERS_TO_TRY`] workers per kind.
//! Not here: what follows for leases, workers and the log (`failures.rs`).

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::jobs::FaultKind;

use super::SchedulerConfig;
use crate::time::Instant;

/// Different workers that try a range before it is halved or dead.
const WORKERS_TO_TRY: usize = 3;
/// Most tries of one kind, over all workers.
const TRIES_MAX: u32 = 6;
/// Different workers that must call an input bad before it is dead.
const BAD_INPUT_WORKERS: usize = 2;
/// Fewest attempts to read an input before it is given up.
const FETCHES_MIN: u32 = 5;

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
    pub(super) attempts: u32,
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
pub(super) enum Verdict {
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
    pub(super) fn judge(
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
    pub(super) fn halved(&self) -> Self {
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

/// `base` doubled `doublings` times, at most `limit`.
pub(super) fn back_off(base: Duration, doublings: u32, limit: Duration) -> Duration {
    base.saturating_mul(1 << doublings.min(16)).min(limit)
}
