//! What went wrong with a range of queries, and what that calls for; and a job of which nothing works.
//!
//! | kind | decision |
//! | --- | --- |
//! | bad input | once more on another worker if there is one, then dead |
//! | inference | up to 3 different workers (all, if there are fewer, and at least 3 tries); then a range is halved, a single query is dead |
//! | fetch | again after a growing delay; after 5 tries and [`fetch_patience`](super::SchedulerConfig::fetch_patience) a range is halved and each half has one try left, a single query is dead. Its holders may be away, as after a power cut: that is no fault of the data |
//! | worker | the range returns unblamed |
//!
//! Source: bisection and distinct workers against the blame of neighbours, as seen in Dask and Ray Data.
//! Bounds: a poisoned query in a batch of b costs at most [`TRIES_MAX`] (3, with 3 workers) times log2(b) + 1 leases;
//! a history names at most [`WORKERS_TO_TRY`] workers per kind.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::jobs::FaultKind;

use super::SchedulerConfig;
use crate::time::Instant;

/// Different workers that try a range before it is halved or dead.
const WORKERS_TO_TRY: usize = 3;
/// Most tries of one kind, whoever makes them.
const TRIES_MAX: u32 = 6;
/// Different workers that call an input bad before it is dead.
const BAD_WORKERS: usize = 2;
/// Least tries to read an input.
const FETCHES_MAX: u32 = 5;

/// Failures of one kind.
#[derive(Clone, Debug, Default)]
struct Tries {
    count: u32,
    workers: BTreeSet<NodeId>,
}

impl Tries {
    fn add(&mut self, worker: NodeId) {
        self.count += 1;
        self.workers.insert(worker);
    }
}

/// What went wrong with a range so far.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// Failed leases of the range and of those it was cut from.
    pub(super) attempts: u32,
    bad: Tries,
    inference: Tries,
    /// The range that these tries ran.
    inferred: Range<u64>,
    fetches: u32,
    /// When its inputs could not be read for the first time.
    unread_since: Option<Instant>,
    /// Whether it hung once, which was blamed on nobody.
    has_hung: bool,
}

/// What to do with a range that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Retry(Duration),
    Halve,
    Dead,
}

impl History {
    /// Whether the worker failed the range, so that another should try.
    pub(super) fn avoids(&self, node: NodeId) -> bool {
        self.bad.workers.contains(&node) || self.inference.workers.contains(&node)
    }

    /// Notes that the range hangs; says whether it has done so before.
    pub(super) fn hangs_again(&mut self) -> bool {
        std::mem::replace(&mut self.has_hung, true)
    }

    /// Notes a failure of `range` and decides. `able` are the live workers with the model.
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
                self.bad.add(worker);
                let is_agreed = self.bad.workers.len() >= BAD_WORKERS || able.is_subset(&self.bad.workers);
                if is_agreed || self.bad.count >= TRIES_MAX {
                    return Verdict::Dead;
                }
                Verdict::Retry(Duration::ZERO)
            }
            FaultKind::Inference => {
                // What failed as part of a larger range, the rest of which was answered since, was not tried itself.
                if self.inferred != *range {
                    (self.inference, self.inferred) = (Tries::default(), range.clone());
                }
                self.inference.add(worker);
                let tried = &self.inference;
                let is_tried_by_all =
                    able.is_subset(&tried.workers) && tried.count as usize >= WORKERS_TO_TRY;
                if tried.workers.len() >= WORKERS_TO_TRY || is_tried_by_all || tried.count >= TRIES_MAX {
                    return give_up;
                }
                Verdict::Retry(back_off(config.retry_base, tried.count - 1, config.retry_max))
            }
            FaultKind::Fetch => {
                self.fetches += 1;
                let unread = now.since(*self.unread_since.get_or_insert(now));
                if self.fetches >= FETCHES_MAX && unread >= config.fetch_patience {
                    return give_up;
                }
                Verdict::Retry(back_off(config.fetch_base, self.fetches - 1, config.retry_max))
            }
            FaultKind::Worker => Verdict::Retry(Duration::ZERO),
        }
    }

    /// The history of each half.
    pub(super) fn halved(&self) -> Self {
        Self {
            attempts: self.attempts,
            bad: self.bad.clone(),
            inference: Tries::default(),
            inferred: 0..0,
            fetches: self.fetches.min(FETCHES_MAX - 1),
            unread_since: self.unread_since,
            has_hung: self.has_hung,
        }
    }
}

/// Notices a job of which nothing has ever worked since it was started.
#[derive(Clone, Debug, Default)]
pub(super) struct Breaker {
    pub(super) has_succeeded: bool,
    pub(super) failures: u32,
    pub(super) workers: BTreeSet<NodeId>,
}

impl Breaker {
    pub(super) fn succeeded(&mut self) {
        *self = Self { has_succeeded: true, ..Self::default() };
    }

    /// A batch failed; says whether the job is to be paused.
    pub(super) fn failed(
        &mut self,
        worker: NodeId,
        able: &BTreeSet<NodeId>,
        config: &SchedulerConfig,
    ) -> bool {
        if self.has_succeeded {
            return false;
        }
        self.failures += 1;
        self.workers.insert(worker);
        let is_everywhere = self.workers.len() >= 2 || able.is_subset(&self.workers);
        self.failures >= config.pause_failures && is_everywhere
    }
}

/// `base` doubled so often, at most `limit`.
pub(super) fn back_off(base: Duration, doublings: u32, limit: Duration) -> Duration {
    base.saturating_mul(1 << doublings.min(16)).min(limit)
}
