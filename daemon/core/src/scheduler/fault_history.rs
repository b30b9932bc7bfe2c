//! The faults of a range of queries so far, and what follows from them for the range.
//!
//! A failed range is retried, halved or dead, by its history:
//!
//! | fault | decision |
//! | --- | --- |
//! | bad input | one retry on another worker if there is one, then dead |
//! | inference | tried on 3 different workers (on all if there are fewer, and at least 3 times); then a range is halved, a single query is dead |
//! | crash | a range is halved the first time and quarantined the second; a single query is tried like one with inference faults |
//! | fetch | retried with growing delays, 5 times and for [`fetch_patience`](SchedulerConfig::fetch_patience) at least, because holders may be away after a power cut; then a range is halved and each half has one try left, a single query is dead |
//! | worker | the range returns without a fault |
//!
//! **Quarantine.** A crash costs every job with that model a worker until the model runs again, so it is not spent on the
//! bisection of a batch. Queries that were in [`CRASHES_SHARED_MAX`] crashes beside others are leased alone from then on,
//! after the other queries of their job (`job.rs`). A coordinator that takes over knows of no crash and starts again.
//!
//! Source: bisection over distinct workers, so that neighbours of a bad query are not blamed (compare Dask and Ray
//! Data).
//! Bounds: a query that fails every batch of b costs at most [`TRIES_MAX`] (3, with 3 workers) times log2(b) + 1
//! leases; one that crashes every batch costs [`CRASHES_SHARED_MAX`] crashes more than its tries alone, whatever b is, and
//! has at most b / 2 queries leased alone beside it. A history names at most [`TRIES_MAX`] workers per kind.
//! Not here: what follows for leases, workers and the log (`failures.rs`).

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::jobs::{Fault, FaultKind};

use super::SchedulerConfig;
use crate::time::Instant;

/// Different workers that try a range before it is halved or dead.
const WORKERS_TO_TRY: usize = 3;
/// Most tries of one kind, over all workers.
const TRIES_MAX: u32 = 6;
/// Different workers that must call an input bad before it is dead.
const BAD_INPUT_WORKERS: usize = 2;
/// Crashes of batches that a query shares with others before it is leased alone.
const CRASHES_SHARED_MAX: u32 = 2;
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

    /// Tries again after a growing delay; `None` once enough workers have tried. `able` are the live workers with the model.
    fn retry(&self, able: &BTreeSet<NodeId>, config: &SchedulerConfig) -> Option<Verdict> {
        let is_tried_by_all = able.is_subset(&self.workers) && self.count as usize >= WORKERS_TO_TRY;
        if self.workers.len() >= WORKERS_TO_TRY || is_tried_by_all || self.count >= TRIES_MAX {
            return None;
        }
        Some(Verdict::RetryAfter(back_off(config.retry_base, self.count - 1, config.retry_max)))
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
    /// Crashes of the batches of several queries that these queries were in.
    shared_crashes: Failures,
    /// Crashes of the query alone.
    crashes: Failures,
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
        // What a query in quarantine shared with others says little of the query, and would keep all of them from the worker.
        let crashes = if self.is_quarantined() { &self.crashes } else { &self.shared_crashes };
        [&self.bad_input, &self.inference, crashes].iter().any(|failures| failures.workers.contains(&node))
    }

    /// Whether each of the queries is leased alone.
    pub(super) fn is_quarantined(&self) -> bool {
        self.shared_crashes.count >= CRASHES_SHARED_MAX || self.crashes.count > 0
    }

    /// Records that the range hangs. True if it has hung before.
    pub(super) fn record_hang(&mut self) -> bool {
        std::mem::replace(&mut self.has_hung, true)
    }

    /// Records that `range` failed by `fault`, and decides. `able` are the live workers with the model.
    pub(super) fn judge(
        &mut self,
        fault: &Fault,
        worker: NodeId,
        range: &Range<u64>,
        able: &BTreeSet<NodeId>,
        config: &SchedulerConfig,
        now: Instant,
    ) -> Verdict {
        let is_single = range.end - range.start == 1;
        let give_up = if is_single { Verdict::Dead } else { Verdict::Halve };
        self.attempts += 1;
        match fault.kind {
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
                self.inference.retry(able, config).unwrap_or(give_up)
            }
            // The others of a batch may have been answered elsewhere: what is left was not alone.
            FaultKind::Crash if is_alone(fault) => {
                self.crashes.add(worker);
                self.crashes.retry(able, config).unwrap_or(give_up)
            }
            FaultKind::Crash => {
                self.shared_crashes.add(worker);
                let is_whole = is_single || self.is_quarantined();
                if is_whole { Verdict::RetryAfter(Duration::ZERO) } else { Verdict::Halve }
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
            shared_crashes: self.shared_crashes.clone(),
            crashes: Failures::default(),
            fetches: self.fetches.min(FETCHES_MIN - 1),
            unreadable_since: self.unreadable_since,
            has_hung: self.has_hung,
        }
    }
}

/// Whether the fault is that of one query.
fn is_alone(fault: &Fault) -> bool {
    fault.ranges.iter().map(|range| u64::from(range.count)).sum::<u64>() == 1
}

/// `base` doubled `doublings` times, at most `limit`.
pub(super) fn back_off(base: Duration, doublings: u32, limit: Duration) -> Duration {
    base.saturating_mul(1 << doublings.min(16)).min(limit)
}
