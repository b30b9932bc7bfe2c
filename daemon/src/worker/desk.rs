//! Which batches this worker holds, and how far each is.
//!
//! Decides what runs next, how many batches are wanted, and whose orders count. Source: the design, section 8 (pull,
//! prefetch exactly one, renew by heartbeat, first commit wins) and `idunno_shared::wire::jobs`.
//!
//! Invariants ([`Desk::check`]): at most one batch runs; at most [`LEASES_PER_WORKER_MAX`] are fetched, wait or run; a
//! lease is here once, from its grant until its commit is answered, it is given back, or it is cancelled.
//! Bounds: at most [`LEASES_HELD_MAX`](HELD_MAX) leases.
//! What it does not do: it holds no inputs and no rows, and knows no clock.

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

/// The batches held, in order of their grant.
#[derive(Clone, Debug, Default)]
pub struct Desk {
    term: Term,
    held: Vec<(Lease, Phase)>,
}

impl Desk {
    /// Takes note of the term of some orders. False: a higher one was seen, the orders are void.
    #[must_use]
    pub fn observe(&mut self, term: Term) -> bool {
        self.term = self.term.max(term);
        term == self.term
    }

    /// Takes a granted batch. False: it is held already, or there is no room for it.
    #[must_use]
    pub fn accept(&mut self, lease: Lease) -> bool {
        let room = self.active() < LEASES_PER_WORKER_MAX && self.held.len() < HELD_MAX;
        let accepted = room && self.phase(&lease).is_none();
        if accepted {
            self.held.push((lease, Phase::Fetching));
        }
        accepted
    }

    /// Moves a lease on. False: it is not here any more, and whatever was done for it is void.
    #[must_use]
    pub fn set(&mut self, lease: &Lease, phase: Phase) -> bool {
        let place = self.held.iter_mut().find(|(held, _)| held == lease);
        place.map(|(_, old)| *old = phase).is_some()
    }

    /// The batch to run now, if the model server is free: the one granted first among those that wait.
    pub fn start_next(&mut self) -> Option<Lease> {
        if self.count(Phase::Running) > 0 {
            return None;
        }
        let (lease, phase) = self.held.iter_mut().find(|(_, phase)| *phase == Phase::Waiting)?;
        *phase = Phase::Running;
        Some(*lease)
    }

    /// Gives a lease up: committed, given back or cancelled. Says how far it was.
    pub fn end(&mut self, lease: &Lease) -> Option<Phase> {
        let place = self.held.iter().position(|(held, _)| held == lease)?;
        Some(self.held.remove(place).1)
    }

    /// Gives up what has not started to run.
    pub fn return_unstarted(&mut self) -> Vec<Lease> {
        let unstarted = |phase| matches!(phase, Phase::Fetching | Phase::Waiting);
        let returned = self.held.iter().filter(|(_, p)| unstarted(*p)).map(|(lease, _)| *lease).collect();
        self.held.retain(|(_, phase)| !unstarted(*phase));
        returned
    }

    /// How many further batches there is room for.
    pub fn room(&self) -> usize {
        LEASES_PER_WORKER_MAX.saturating_sub(self.active()).min(HELD_MAX - self.held.len())
    }

    /// How far a lease is, if it is held.
    pub fn phase(&self, lease: &Lease) -> Option<Phase> {
        self.held.iter().find(|(held, _)| held == lease).map(|(_, phase)| *phase)
    }

    /// Everything held, for the report: what has run, what runs, what is still to run; each in order of its grant.
    pub fn leases(&self) -> Vec<Lease> {
        let mut held: Vec<_> = self.held.iter().collect();
        held.sort_by_key(|(_, phase)| match phase {
            Phase::Reporting | Phase::Uncommitted => 0,
            Phase::Running => 1,
            Phase::Waiting | Phase::Fetching => 2,
        });
        held.into_iter().map(|(lease, _)| *lease).collect()
    }

    /// How many leases are in a phase.
    pub fn count(&self, phase: Phase) -> usize {
        self.held.iter().filter(|(_, held)| *held == phase).count()
    }

    /// Leases that are fetched, wait or run.
    pub fn active(&self) -> usize {
        self.count(Phase::Fetching) + self.count(Phase::Waiting) + self.count(Phase::Running)
    }

    /// Leases that have run, and await their commit or the report of their failures.
    pub fn ran(&self) -> usize {
        self.held.len() - self.active()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The invariants.
    pub fn check(&self) -> Result<(), String> {
        let twice =
            self.held.iter().enumerate().any(|(n, (l, _))| self.held[..n].iter().any(|(o, _)| o == l));
        match () {
            () if self.count(Phase::Running) > 1 => Err(format!("two batches run at once: {self:?}")),
            () if self.active() > LEASES_PER_WORKER_MAX => Err(format!("too many batches at work: {self:?}")),
            () if self.held.len() > HELD_MAX => Err(format!("too many leases held: {self:?}")),
            () if twice => Err(format!("a lease is held twice: {self:?}")),
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
        let mut desk = Desk::default();
        assert!(desk.accept(lease(0)) && desk.accept(lease(1)));
        assert!(!desk.accept(lease(2)), "no room");
        assert_eq!(desk.start_next(), None, "nothing fetched yet");
        assert!(desk.set(&lease(1), Phase::Waiting) && desk.set(&lease(0), Phase::Waiting));
        assert_eq!(desk.start_next(), Some(lease(0)), "granted first");
        assert_eq!(desk.start_next(), None, "one runs");
        assert!(desk.set(&lease(0), Phase::Uncommitted));
        assert_eq!(desk.room(), 1);
        assert!(desk.accept(lease(2)));
        assert_eq!(desk.leases(), [lease(0), lease(1), lease(2)], "held until the commit is answered");
        assert!(desk.set(&lease(2), Phase::Waiting) && desk.set(&lease(1), Phase::Fetching));
        assert_eq!(desk.start_next(), Some(lease(2)));
        assert_eq!(desk.leases(), [lease(0), lease(2), lease(1)], "in the order of their stages");
        assert!(desk.set(&lease(1), Phase::Waiting));
        assert_eq!(desk.end(&lease(0)), Some(Phase::Uncommitted));
        assert!(!desk.set(&lease(0), Phase::Waiting), "gone");
        desk.check().unwrap();
    }

    #[test]
    fn orders_of_an_older_term_are_void() {
        let mut desk = Desk::default();
        assert!(desk.observe(Term(3)));
        assert!(!desk.observe(Term(2)));
        assert!(desk.observe(Term(3)));
    }

    #[test]
    fn a_drain_returns_what_has_not_started() {
        let mut desk = Desk::default();
        assert!(desk.accept(lease(0)) && desk.accept(lease(1)));
        assert!(desk.set(&lease(0), Phase::Waiting));
        assert_eq!(desk.start_next(), Some(lease(0)));
        assert_eq!(desk.return_unstarted(), [lease(1)]);
        assert_eq!(desk.leases(), [lease(0)]);
    }

    #[test]
    fn held_leases_are_bounded() {
        let mut desk = Desk::default();
        for first in 0..HELD_MAX as u64 {
            assert!(desk.accept(lease(first)));
            assert!(desk.set(&lease(first), Phase::Uncommitted));
        }
        assert_eq!(desk.room(), 0);
        assert!(!desk.accept(lease(9999)));
        desk.check().unwrap();
    }
}
