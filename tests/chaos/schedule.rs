//! The order of faults: a pure function of the seed.
//!
//! Kinds of faults are drawn from a bag that holds each kind once and is refilled when empty, so that a short run has most
//! of them. The schedule stays within the cluster's promises: at most [`Schedule::budget`] members are affected at once, and
//! a wipe, which destroys copies permanently, occurs alone, in a cluster that has all its copies.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::fault::{Fault, Planned, Round, Settle};
use crate::sandbox::links::Direction;

/// Most faults in one round.
const FAULTS_MAX: usize = 3;

/// Whether daemons show the faults of [`idunno_shared::injected_faults`]: the driver is built as they are.
pub(crate) const INJECTION: bool = cfg!(debug_assertions);

/// Which faults are possible in this environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// Links can be cut and made lossy, and disks filled.
    pub(crate) namespaces: bool,
    /// Links can be made slow.
    pub(crate) delay: bool,
    /// Clocks can be set off, and renames made to hang: the daemons are a debug build.
    pub(crate) injection: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    KillOne,
    KillAll,
    Freeze,
    Wipe,
    FillDisk,
    CutOff,
    CutOffCoordinator,
    CutOneWay,
    CutLink,
    Loss,
    BlockUdp,
    Delay,
    KillModelServers,
    KillIntroducer,
    HangRenames,
    StepClocks,
}

const EVERYWHERE: [Kind; 6] =
    [Kind::KillOne, Kind::KillAll, Kind::Freeze, Kind::Wipe, Kind::KillModelServers, Kind::KillIntroducer];
const IN_NAMESPACES: [Kind; 7] = [
    Kind::FillDisk,
    Kind::CutOff,
    Kind::CutOffCoordinator,
    Kind::CutOneWay,
    Kind::CutLink,
    Kind::Loss,
    Kind::BlockUdp,
];

const INJECTED: [Kind; 2] = [Kind::HangRenames, Kind::StepClocks];
/// By how much clocks are set off: less than certificates tolerate, and more.
const CLOCK_STEPS_S: [i64; 5] = [90, 1_200, 10_800, 3 * 86_400, 400 * 86_400];

/// The rounds of a run, an endless iterator.
pub(crate) struct Schedule {
    rng: ChaCha8Rng,
    members: usize,
    kinds: Vec<Kind>,
    bag: Vec<Kind>,
}

impl Schedule {
    pub(crate) fn new(seed: u64, members: usize, abilities: Abilities) -> Self {
        let mut kinds = EVERYWHERE.to_vec();
        if abilities.namespaces {
            kinds.extend(IN_NAMESPACES);
        }
        if abilities.delay {
            kinds.push(Kind::Delay);
        }
        if abilities.injection {
            kinds.extend(INJECTED);
        }
        Self { rng: ChaCha8Rng::seed_from_u64(seed), members, kinds, bag: Vec::new() }
    }

    /// Most members affected at the same time: a majority remains, and one of four copies.
    pub(crate) fn budget(&self) -> usize {
        (self.members.saturating_sub(1) / 2).min(3)
    }

    fn draw(&mut self) -> Kind {
        if self.bag.is_empty() {
            self.bag.clone_from(&self.kinds);
        }
        let place = self.rng.random_range(0..self.bag.len());
        self.bag.swap_remove(place)
    }

    fn round(&mut self) -> Round {
        let first = self.draw();
        if first == Kind::Wipe {
            return self.wipe();
        }
        let (mut free, mut budget) = ((0..self.members).collect(), self.budget());
        let mut faults: Vec<Planned> = self.fault(first, &mut free, &mut budget).into_iter().collect();
        while faults.len() < FAULTS_MAX && self.rng.random_bool(0.35) {
            let kind = self.draw();
            let Some(fault) = self.fault(kind, &mut free, &mut budget) else {
                // It exceeds the budget of this round: keep it for another one.
                self.bag.push(kind);
                break;
            };
            faults.push(fault);
        }
        let after = if self.rng.random_bool(0.25) { Settle::Not } else { Settle::Ready };
        Round { faults, hold: self.hold(), before: Settle::Not, after }
    }

    fn wipe(&mut self) -> Round {
        let mut free = (0..self.members).collect();
        let count = self.rng.random_range(1..=self.budget());
        let fault = Fault::Wipe(self.take(count, &mut free));
        let planned = Planned { fault, at_coordinator: self.rng.random_bool(0.5) };
        let hold = Duration::from_millis(self.rng.random_range(0..3_000));
        Round { faults: vec![planned], hold, before: Settle::Healed, after: Settle::Healed }
    }

    /// A fault of this kind among the `free` members; `None` if it would exceed the budget.
    fn fault(&mut self, kind: Kind, free: &mut Vec<usize>, budget: &mut usize) -> Option<Planned> {
        let least = if kind == Kind::CutLink { 2 } else { 1 };
        let strikes = !matches!(
            kind,
            Kind::Loss | Kind::BlockUdp | Kind::Delay | Kind::KillModelServers | Kind::KillIntroducer
        );
        if strikes && *budget < least {
            return None;
        }
        let mut aim = 0.3;
        let fault = match kind {
            Kind::KillOne => Fault::Kill(self.take(1, free)),
            Kind::KillAll => {
                aim = 0.6;
                Fault::Kill(self.take(*budget, free))
            }
            Kind::Freeze => Fault::Freeze(self.some(*budget, free)),
            Kind::FillDisk => Fault::FillDisk(self.some(*budget, free)),
            Kind::HangRenames => Fault::HangRenames(self.some(*budget, free)),
            Kind::StepClocks => {
                aim = 0.6;
                let step_s = CLOCK_STEPS_S[self.rng.random_range(0..CLOCK_STEPS_S.len())];
                let ahead_s = if self.rng.random_bool(0.5) { step_s } else { -step_s };
                Fault::StepClocks { side: self.some(*budget, free), ahead_s }
            }
            Kind::CutOff => {
                let side = self.some(*budget, free);
                Fault::CutOff { side, direction: Direction::Both, from_clients: self.rng.random_bool(0.5) }
            }
            Kind::CutOffCoordinator => {
                aim = 1.0;
                let (side, direction) = (self.take(1, free), self.direction());
                Fault::CutOff { side, direction, from_clients: self.rng.random_bool(0.3) }
            }
            Kind::CutOneWay => {
                let direction = if self.rng.random_bool(0.5) { Direction::Out } else { Direction::In };
                let side = self.some(*budget, free);
                Fault::CutOff { side, direction, from_clients: self.rng.random_bool(0.3) }
            }
            Kind::CutLink => {
                let ends = self.take(2, free);
                Fault::CutLink { ends: [ends[0], ends[1]], direction: self.direction() }
            }
            Kind::Loss => Fault::Loss { side: self.many(), percent: self.rng.random_range(2..=30) },
            Kind::BlockUdp => Fault::BlockUdp(self.many()),
            Kind::Delay => Fault::Delay { side: self.many(), ms: self.rng.random_range(5..=300) },
            Kind::KillModelServers => Fault::KillModelServers(self.many()),
            Kind::KillIntroducer => Fault::KillIntroducer,
            Kind::Wipe => return None,
        };
        *budget -= fault.victims().len();
        Some(Planned { fault, at_coordinator: strikes && self.rng.random_bool(aim) })
    }

    /// Takes `count` of the free members.
    fn take(&mut self, count: usize, free: &mut Vec<usize>) -> Vec<usize> {
        let mut taken: Vec<usize> =
            (0..count).map(|_| free.swap_remove(self.rng.random_range(0..free.len()))).collect();
        taken.sort_unstable();
        taken
    }

    fn some(&mut self, most: usize, free: &mut Vec<usize>) -> Vec<usize> {
        let count = self.rng.random_range(1..=most);
        self.take(count, free)
    }

    /// Any number of members, for faults that have no victims.
    fn many(&mut self) -> Vec<usize> {
        let mut all = (0..self.members).collect();
        self.some(self.members, &mut all)
    }

    fn direction(&mut self) -> Direction {
        match self.rng.random_range(0..4) {
            0 => Direction::Out,
            1 => Direction::In,
            _ => Direction::Both,
        }
    }

    /// A duration shorter than failure detection, about as long, or longer than any time limit of the cluster.
    fn hold(&mut self) -> Duration {
        let ms = match self.rng.random_range(0..20) {
            0..4 => self.rng.random_range(100..1_000),
            4..15 => self.rng.random_range(1_000..7_000),
            15..19 => self.rng.random_range(7_000..15_000),
            _ => self.rng.random_range(15_000..40_000),
        };
        Duration::from_millis(ms)
    }
}

impl Iterator for Schedule {
    type Item = Round;

    fn next(&mut self) -> Option<Round> {
        loop {
            let round = self.round();
            if !round.faults.is_empty() {
                return Some(round);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ALL: Abilities = Abilities { namespaces: true, delay: true, injection: true };

    fn rounds(seed: u64, members: usize) -> Vec<Round> {
        Schedule::new(seed, members, ALL).take(300).collect()
    }

    #[test]
    fn a_seed_reproduces_its_rounds() {
        assert_eq!(rounds(7, 7), rounds(7, 7));
        assert_ne!(rounds(7, 7), rounds(8, 7));
    }

    #[test]
    fn the_fault_budget_is_respected() {
        for (seed, members) in (0..20).flat_map(|seed| (3..=10).map(move |members| (seed, members))) {
            let budget = Schedule::new(seed, members, ALL).budget();
            for round in rounds(seed, members) {
                let struck = || round.faults.iter().flat_map(|planned| planned.fault.victims());
                let different: BTreeSet<_> = struck().collect();
                assert!(struck().count() <= budget, "{round}");
                assert_eq!(different.len(), struck().count(), "struck twice: {round}");
                let wipes = round.faults.iter().any(|planned| matches!(planned.fault, Fault::Wipe(_)));
                if wipes {
                    assert_eq!(round.faults.len(), 1, "{round}");
                    assert_eq!((round.before, round.after), (Settle::Healed, Settle::Healed));
                }
            }
        }
    }

    #[test]
    fn every_kind_occurs_once_per_bag() {
        let seen: BTreeSet<String> = rounds(3, 7)[..16]
            .iter()
            .flat_map(|round| &round.faults)
            .map(|planned| planned.fault.to_string().split(' ').take(2).collect::<Vec<_>>().join(" "))
            .map(|text| text.split(" m").next().map(String::from).unwrap_or_default())
            .collect();
        for kind in [
            "kill",
            "freeze",
            "wipe",
            "fill the",
            "cut",
            "cut the",
            "block UDP",
            "delay",
            "hang the",
            "set the",
        ] {
            assert!(seen.contains(kind), "{kind} is not among {seen:?}");
        }
    }

    #[test]
    fn without_namespaces_no_link_is_touched() {
        let abilities = Abilities { namespaces: false, delay: false, injection: true };
        let rounds = Schedule::new(1, 7, abilities).take(200);
        let touches = |planned: &Planned| {
            matches!(planned.fault, Fault::CutOff { .. } | Fault::CutLink { .. } | Fault::FillDisk(_))
                || matches!(planned.fault, Fault::Loss { .. } | Fault::BlockUdp(_) | Fault::Delay { .. })
        };
        assert!(rounds.flat_map(|round| round.faults).all(|planned| !touches(&planned)));
    }
}
