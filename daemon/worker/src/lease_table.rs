//! The leases that this worker holds, and the phase of each.
//!
//! Decides what runs next, how many batches to pull, and which orders are stale. Source: the design, section 8 (pull,
//! prefetch exactly one, renew by heartbeat, first commit wins) and `idunno_shared::wire::jobs`.
//!
//! Invariants ([`LeaseTable::check`]): at most one batch runs; at most [`LEASES_PER_WORKER_MAX`] are fetched, wait or run; a
//! lease is held once, from its grant until its commit is answered, it is given back, or it is cancelled.
//! Bounds: at most [`LEASES_HELD_MAX`](HELD_MAX) leases. A phase change searches the few active leases, then the finished
//! ones from the newest.
//! It holds no inputs and no rows, and has no clock.

use std::collections::BTreeSet;

use idunno_shared::ids::Term;
use idunno_shared::wire::jobs::{LEASES_HELD_MAX as HELD_MAX, LEASES_PER_WORKER_MAX, Lease};
use thiserror::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeasePhase {
    /// Its inputs are being read.
    Fetching,
    /// Its inputs are ready.
    Waiting,
    Running,
    /// Its failures are being reported to the coordinator.
    Reporting,
    /// Its rows are in a segment that is not committed yet.
    Uncommitted,
}

impl LeasePhase {
    const fn is_finished(self) -> bool {
        matches!(self, Self::Reporting | Self::Uncommitted)
    }
}

/// A violated invariant of [`LeaseTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LeaseTableError {
    #[error("two batches run at once")]
    TwoRunning,
    #[error("too many batches are active")]
    TooManyActive,
    #[error("too many leases are held")]
    TooMany,
    #[error("a lease is held twice")]
    Duplicate,
    #[error("a lease is in the wrong list for its phase")]
    Misplaced,
}

#[derive(Clone, Debug, Default)]
pub struct LeaseTable {
    term: Term,
    /// Leases not finished, in order of their grants.
    active: Vec<(Lease, LeasePhase)>,
    /// Finished batches, in the order in which they finished.
    finished: Vec<(Lease, LeasePhase)>,
}

impl LeaseTable {
    /// Records the term of orders. False if a higher term was seen: the orders are stale.
    #[must_use]
    pub fn observe(&mut self, term: Term) -> bool {
        self.term = self.term.max(term);
        term == self.term
    }

    /// Accepts a granted batch. False if it is held already or there is no room.
    #[must_use]
    pub fn accept(&mut self, lease: Lease) -> bool {
        let accepted = self.room() > 0 && self.phase(&lease).is_none();
        if accepted {
            self.active.push((lease, LeasePhase::Fetching));
        }
        accepted
    }

    /// Changes the phase of a lease. False if it is no longer held: its results must be discarded.
    #[must_use]
    pub fn set(&mut self, lease: &Lease, phase: LeasePhase) -> bool {
        let Some(position) = self.active.iter().position(|(held, _)| held == lease) else {
            let newest = self.finished.iter_mut().rev().find(|(held, _)| held == lease);
            return newest.map(|(_, old)| *old = phase).is_some();
        };
        if phase.is_finished() {
            self.active.remove(position);
            self.finished.push((*lease, phase));
        } else {
            self.active[position].1 = phase;
        }
        true
    }

    /// Starts the waiting batch that was granted first, unless one runs.
    pub fn start_next(&mut self) -> Option<Lease> {
        if self.count(LeasePhase::Running) > 0 {
            return None;
        }
        let (lease, phase) = self.active.iter_mut().find(|(_, phase)| *phase == LeasePhase::Waiting)?;
        *phase = LeasePhase::Running;
        Some(*lease)
    }

    /// Removes leases that were committed, given back or cancelled, and returns those that were held.
    pub fn end(&mut self, leases: impl IntoIterator<Item = Lease>) -> BTreeSet<Lease> {
        let leases: BTreeSet<Lease> = leases.into_iter().collect();
        let mut ended = BTreeSet::new();
        for held in [&mut self.active, &mut self.finished] {
            held.retain(|(lease, _)| {
                let is_kept = !leases.contains(lease);
                if !is_kept {
                    ended.insert(*lease);
                }
                is_kept
            });
        }
        ended
    }

    /// Whether any of these leases is held.
    pub fn has_any(&self, leases: &[Lease]) -> bool {
        let leases: BTreeSet<&Lease> = leases.iter().collect();
        self.held().any(|(lease, _)| leases.contains(lease))
    }

    /// Removes and returns the leases whose batches have not started to run.
    pub fn return_unstarted(&mut self) -> Vec<Lease> {
        let returned = self.unstarted();
        self.active.retain(|(_, phase)| *phase == LeasePhase::Running);
        returned
    }

    /// Leases whose batches have not started to run.
    pub fn unstarted(&self) -> Vec<Lease> {
        let unstarted = self.active.iter().filter(|(_, phase)| *phase != LeasePhase::Running);
        unstarted.map(|(lease, _)| *lease).collect()
    }

    /// How many more batches may be accepted.
    pub fn room(&self) -> usize {
        LEASES_PER_WORKER_MAX.saturating_sub(self.active()).min(HELD_MAX.saturating_sub(self.len()))
    }

    pub fn phase(&self, lease: &Lease) -> Option<LeasePhase> {
        self.held().find(|(held, _)| held == lease).map(|(_, phase)| *phase)
    }

    /// All leases, for the report: finished, running, then the others in order of their grants.
    pub fn leases(&self) -> Vec<Lease> {
        let running = self.active.iter().filter(|(_, phase)| *phase == LeasePhase::Running);
        let started = self.finished.iter().chain(running).map(|(lease, _)| *lease);
        started.chain(self.unstarted()).collect()
    }

    pub fn len(&self) -> usize {
        self.active.len() + self.finished.len()
    }

    pub fn count(&self, phase: LeasePhase) -> usize {
        let held = if phase.is_finished() { &self.finished } else { &self.active };
        held.iter().filter(|(_, held)| *held == phase).count()
    }

    fn held(&self) -> impl Iterator<Item = &(Lease, LeasePhase)> {
        self.active.iter().chain(&self.finished)
    }

    /// Number of leases that are fetched, wait or run.
    pub fn active(&self) -> usize {
        self.active.len()
    }

    /// Number of leases that await their commit or the report of their failures.
    pub fn finished(&self) -> usize {
        self.finished.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks the invariants.
    pub fn check(&self) -> Result<(), LeaseTableError> {
        let distinct: BTreeSet<&Lease> = self.held().map(|(lease, _)| lease).collect();
        let misplaced = self.active.iter().any(|(_, phase)| phase.is_finished())
            || self.finished.iter().any(|(_, phase)| !phase.is_finished());
        match () {
            () if self.count(LeasePhase::Running) > 1 => Err(LeaseTableError::TwoRunning),
            () if self.active() > LEASES_PER_WORKER_MAX => Err(LeaseTableError::TooManyActive),
            () if self.len() > HELD_MAX => Err(LeaseTableError::TooMany),
            () if distinct.len() < self.len() => Err(LeaseTableError::Duplicate),
            () if misplaced => Err(LeaseTableError::Misplaced),
            () => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use idunno_shared::ids::JobId;
    use idunno_shared::wire::jobs::QueryRange;

    use super::*;

    fn lease(first: u64) -> Lease {
        Lease { job: JobId(1), range: QueryRange { first, count: 1 }, attempt: 1, term: Term(1) }
    }

    #[test]
    fn one_runs_one_waits_and_finished_ones_take_no_room() {
        let mut leases = LeaseTable::default();
        assert!(leases.accept(lease(0)) && leases.accept(lease(1)));
        assert!(!leases.accept(lease(2)), "no room");
        assert_eq!(leases.start_next(), None, "no inputs yet");
        assert!(leases.set(&lease(1), LeasePhase::Waiting) && leases.set(&lease(0), LeasePhase::Waiting));
        assert_eq!(leases.start_next(), Some(lease(0)), "granted first");
        assert_eq!(leases.start_next(), None, "one runs");
        assert!(leases.set(&lease(0), LeasePhase::Uncommitted));
        assert_eq!(leases.room(), 1);
        assert!(leases.accept(lease(2)));
        assert_eq!(leases.leases(), [lease(0), lease(1), lease(2)], "held until the commit is answered");
        assert!(leases.set(&lease(2), LeasePhase::Waiting) && leases.set(&lease(1), LeasePhase::Fetching));
        assert_eq!(leases.start_next(), Some(lease(2)));
        assert_eq!(leases.leases(), [lease(0), lease(2), lease(1)], "ordered by phase");
        assert!(leases.set(&lease(1), LeasePhase::Waiting));
        assert!(leases.has_any(&[lease(0), lease(9)]));
        assert_eq!(leases.end([lease(0), lease(9)]), BTreeSet::from([lease(0)]), "only what was held");
        assert!(!leases.has_any(&[lease(0), lease(9)]));
        assert!(!leases.set(&lease(0), LeasePhase::Waiting), "no longer held");
        leases.check().unwrap();
    }

    #[test]
    fn orders_of_an_older_term_are_stale() {
        let mut leases = LeaseTable::default();
        assert!(leases.observe(Term(3)));
        assert!(!leases.observe(Term(2)));
        assert!(leases.observe(Term(3)));
    }

    #[test]
    fn a_drain_returns_unstarted_leases() {
        let mut leases = LeaseTable::default();
        assert!(leases.accept(lease(0)) && leases.accept(lease(1)));
        assert!(leases.set(&lease(0), LeasePhase::Waiting));
        assert_eq!(leases.start_next(), Some(lease(0)));
        assert_eq!(leases.return_unstarted(), [lease(1)]);
        assert_eq!(leases.leases(), [lease(0)]);
    }

    #[test]
    fn held_leases_are_bounded() {
        let mut leases = LeaseTable::default();
        for first in 0..HELD_MAX as u64 {
            assert!(leases.accept(lease(first)));
            assert!(leases.set(&lease(first), LeasePhase::Uncommitted));
        }
        assert_eq!(leases.room(), 0);
        assert!(!leases.accept(lease(9999)));
        leases.check().unwrap();
    }
}
