//! Which batches this worker holds, and how far each is.
//!
//! Decides what runs next, how many batches are wanted, and whose orders count. Source: the design, section 8 (pull,
//! prefetch exactly one, renew by heartbeat, first commit wins) and `idunno_shared::wire::jobs`.
//!
//! Invariants ([`LeaseTable::check`]): at most one batch runs; at most [`LEASES_PER_WORKER_MAX`] are fetched, wait or run; a
//! lease is here once, from its grant until its commit is answered, it is given back, or it is cancelled.
//! Bounds: at most [`LEASES_HELD_MAX`](HELD_MAX) leases. A step of a batch costs no search among those that have run,
//! but for the newest of them.
//! What it does not do: it holds no inputs and no rows, and knows no clock.

use std::collections::BTreeSet;

use idunno_shared::ids::Term;
use idunno_shared::wire::jobs::{LEASES_HELD_MAX as HELD_MAX, LEASES_PER_WORKER_MAX, Lease};

/// How far a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its inputs are being fetched.
    Fetching,
    /// Its inputs are here.
    Waiting,
    /// The model server works on it.
    Running,
    /// Its failures are being told to the coordinator.
    Reporting,
    /// Its rows are in a segment that has no commit yet.
    Uncommitted,
}

impl Phase {
    const fn has_run(self) -> bool {
        matches!(self, Self::Reporting | Self::Uncommitted)
    }
}

/// The batches held.
#[derive(Clone, Debug, Default)]
pub struct LeaseTable {
    term: Term,
    /// Those at work, in order of their grant.
    active: Vec<(Lease, Phase)>,
    /// Those that have run, in the order in which they did.
    ran: Vec<(Lease, Phase)>,
}

impl LeaseTable {
    /// Takes note of the term of some orders. False: a higher one was seen, the orders are void.
    #[must_use]
    pub fn observe(&mut self, term: Term) -> bool {
        self.term = self.term.max(term);
        term == self.term
    }

    /// Takes a granted batch. False: it is held already, or there is no room for it.
    #[must_use]
    pub fn accept(&mut self, lease: Lease) -> bool {
        let accepted = self.room() > 0 && self.phase(&lease).is_none();
        if accepted {
            self.active.push((lease, Phase::Fetching));
        }
        accepted
    }

    /// Moves a lease on. False: it is not here any more, and whatever was done for it is void.
    #[must_use]
    pub fn set(&mut self, lease: &Lease, phase: Phase) -> bool {
        let Some(place) = self.active.iter().position(|(held, _)| held == lease) else {
            let newest = self.ran.iter_mut().rev().find(|(held, _)| held == lease);
            return newest.map(|(_, old)| *old = phase).is_some();
        };
        if phase.has_run() {
            self.active.remove(place);
            self.ran.push((*lease, phase));
        } else {
            self.active[place].1 = phase;
        }
        true
    }

    /// The batch to run now, if the model server is free: the one granted first among those that wait.
    pub fn start_next(&mut self) -> Option<Lease> {
        if self.count(Phase::Running) > 0 {
            return None;
        }
        let (lease, phase) = self.active.iter_mut().find(|(_, phase)| *phase == Phase::Waiting)?;
        *phase = Phase::Running;
        Some(*lease)
    }

    /// Gives leases up: committed, given back or cancelled. Says which of them were held.
    pub fn end(&mut self, leases: impl IntoIterator<Item = Lease>) -> BTreeSet<Lease> {
        let leases: BTreeSet<Lease> = leases.into_iter().collect();
        let mut ended = BTreeSet::new();
        for held in [&mut self.active, &mut self.ran] {
            held.retain(|(lease, _)| {
                let stays = !leases.contains(lease);
                if !stays {
                    ended.insert(*lease);
                }
                stays
            });
        }
        ended
    }

    /// Whether any of these is held.
    pub fn has_any(&self, leases: &[Lease]) -> bool {
        let leases: BTreeSet<&Lease> = leases.iter().collect();
        self.held().any(|(lease, _)| leases.contains(lease))
    }

    /// Gives up what has not started to run.
    pub fn return_unstarted(&mut self) -> Vec<Lease> {
        let returned = self.unstarted();
        self.active.retain(|(_, phase)| *phase == Phase::Running);
        returned
    }

    /// What has not started to run.
    pub fn unstarted(&self) -> Vec<Lease> {
        let unstarted = self.active.iter().filter(|(_, phase)| *phase != Phase::Running);
        unstarted.map(|(lease, _)| *lease).collect()
    }

    /// How many further batches there is room for.
    pub fn room(&self) -> usize {
        LEASES_PER_WORKER_MAX.saturating_sub(self.active()).min(HELD_MAX.saturating_sub(self.len()))
    }

    /// How far a lease is, if it is held.
    pub fn phase(&self, lease: &Lease) -> Option<Phase> {
        self.held().find(|(held, _)| held == lease).map(|(_, phase)| *phase)
    }

    /// Everything held, for the report: what has run, what runs, what is still to run in order of its grant.
    pub fn leases(&self) -> Vec<Lease> {
        let running = self.active.iter().filter(|(_, phase)| *phase == Phase::Running);
        let started = self.ran.iter().chain(running).map(|(lease, _)| *lease);
        started.chain(self.unstarted()).collect()
    }

    /// How many leases are held.
    pub fn len(&self) -> usize {
        self.active.len() + self.ran.len()
    }

    /// How many leases are in a phase.
    pub fn count(&self, phase: Phase) -> usize {
        let held = if phase.has_run() { &self.ran } else { &self.active };
        held.iter().filter(|(_, held)| *held == phase).count()
    }

    fn held(&self) -> impl Iterator<Item = &(Lease, Phase)> {
        self.active.iter().chain(&self.ran)
    }

    /// Leases that are fetched, wait or run.
    pub fn active(&self) -> usize {
        self.active.len()
    }

    /// Leases that have run, and await their commit or the report of their failures.
    pub fn ran(&self) -> usize {
        self.ran.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The invariants.
    pub fn check(&self) -> Result<(), String> {
        let once: BTreeSet<&Lease> = self.held().map(|(lease, _)| lease).collect();
        let misplaced = self.active.iter().any(|(_, phase)| phase.has_run())
            || self.ran.iter().any(|(_, phase)| !phase.has_run());
        match () {
            () if self.count(Phase::Running) > 1 => Err(format!("two batches run at once: {self:?}")),
            () if self.active() > LEASES_PER_WORKER_MAX => Err(format!("too many batches at work: {self:?}")),
            () if self.len() > HELD_MAX => Err(format!("too many leases held: {self:?}")),
            () if once.len() < self.len() => Err(format!("a lease is held twice: {self:?}")),
            () if misplaced => Err(format!("a lease is where its phase does not belong: {self:?}")),
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
    fn one_runs_one_waits_and_ran_ones_take_no_room() {
        let mut leases = LeaseTable::default();
        assert!(leases.accept(lease(0)) && leases.accept(lease(1)));
        assert!(!leases.accept(lease(2)), "no room");
        assert_eq!(leases.start_next(), None, "nothing fetched yet");
        assert!(leases.set(&lease(1), Phase::Waiting) && leases.set(&lease(0), Phase::Waiting));
        assert_eq!(leases.start_next(), Some(lease(0)), "granted first");
        assert_eq!(leases.start_next(), None, "one runs");
        assert!(leases.set(&lease(0), Phase::Uncommitted));
        assert_eq!(leases.room(), 1);
        assert!(leases.accept(lease(2)));
        assert_eq!(leases.leases(), [lease(0), lease(1), lease(2)], "held until the commit is answered");
        assert!(leases.set(&lease(2), Phase::Waiting) && leases.set(&lease(1), Phase::Fetching));
        assert_eq!(leases.start_next(), Some(lease(2)));
        assert_eq!(leases.leases(), [lease(0), lease(2), lease(1)], "in the order of their stages");
        assert!(leases.set(&lease(1), Phase::Waiting));
        assert!(leases.has_any(&[lease(0), lease(9)]));
        assert_eq!(leases.end([lease(0), lease(9)]), BTreeSet::from([lease(0)]), "only what was held");
        assert!(!leases.has_any(&[lease(0), lease(9)]));
        assert!(!leases.set(&lease(0), Phase::Waiting), "gone");
        leases.check().unwrap();
    }

    #[test]
    fn orders_of_an_older_term_are_void() {
        let mut leases = LeaseTable::default();
        assert!(leases.observe(Term(3)));
        assert!(!leases.observe(Term(2)));
        assert!(leases.observe(Term(3)));
    }

    #[test]
    fn a_drain_returns_what_has_not_started() {
        let mut leases = LeaseTable::default();
        assert!(leases.accept(lease(0)) && leases.accept(lease(1)));
        assert!(leases.set(&lease(0), Phase::Waiting));
        assert_eq!(leases.start_next(), Some(lease(0)));
        assert_eq!(leases.return_unstarted(), [lease(1)]);
        assert_eq!(leases.leases(), [lease(0)]);
    }

    #[test]
    fn held_leases_are_bounded() {
        let mut leases = LeaseTable::default();
        for first in 0..HELD_MAX as u64 {
            assert!(leases.accept(lease(first)));
            assert!(leases.set(&lease(first), Phase::Uncommitted));
        }
        assert_eq!(leases.room(), 0);
        assert!(!leases.accept(lease(9999)));
        leases.check().unwrap();
    }
}
