//! A virtual network: latency, loss, duplication, one-way cuts and partitions, and a queue ordered by virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use idunno_core::time::Instant;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How bad the network is. Reordering follows from latency that differs from message to message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quality {
    pub(crate) latency_min: Duration,
    pub(crate) latency_max: Duration,
    /// Messages lost, in a thousand.
    pub(crate) loss_per_mille: u32,
    /// Messages delivered twice, in a thousand.
    pub(crate) duplicate_per_mille: u32,
}

impl Quality {
    /// A quiet local network.
    pub(crate) const LAN: Self = Self {
        latency_min: Duration::from_micros(100),
        latency_max: Duration::from_millis(2),
        loss_per_mille: 0,
        duplicate_per_mille: 0,
    };
}

/// Which hosts reach which, how well, and what is under way. `T` is whatever happens at a point in virtual time.
pub(crate) struct Network<T> {
    pub(crate) quality: Quality,
    pub(crate) rng: ChaCha8Rng,
    cuts: BTreeSet<(usize, usize)>,
    queue: BTreeMap<(Instant, u64), T>,
    queued: u64,
}

impl<T> Network<T> {
    pub(crate) fn new(seed: u64, quality: Quality) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self { quality, rng, cuts: BTreeSet::new(), queue: BTreeMap::new(), queued: 0 }
    }

    /// Whether messages of `from` reach `to`.
    pub(crate) fn reaches(&self, from: usize, to: usize) -> bool {
        !self.cuts.contains(&(from, to))
    }

    pub(crate) fn reaches_both_ways(&self, one: usize, other: usize) -> bool {
        self.reaches(one, other) && self.reaches(other, one)
    }

    pub(crate) fn cut_one_way(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    /// Cuts every link between hosts for which `side` differs.
    pub(crate) fn partition(&mut self, hosts: usize, side: impl Fn(usize) -> bool) {
        for from in 0..hosts {
            self.cuts.extend((0..hosts).filter(|&to| side(from) != side(to)).map(|to| (from, to)));
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
    }

    pub(crate) fn latency(&mut self) -> Duration {
        self.rng.random_range(self.quality.latency_min..=self.quality.latency_max)
    }

    pub(crate) fn chance(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.rng.random_range(0..1000) < per_mille
    }

    /// `what` happens at `at`; what was queued first happens first at the same instant.
    pub(crate) fn schedule(&mut self, at: Instant, what: T) {
        self.queued += 1;
        self.queue.insert((at, self.queued), what);
    }

    /// Sends an unreliable message: cut links and loss swallow it, duplication repeats it.
    pub(crate) fn send(&mut self, from: usize, to: usize, now: Instant, what: T)
    where
        T: Clone,
    {
        if !self.reaches(from, to) || self.chance(self.quality.loss_per_mille) {
            return;
        }
        if self.chance(self.quality.duplicate_per_mille) {
            let at = now + self.latency();
            self.schedule(at, what.clone());
        }
        let at = now + self.latency();
        self.schedule(at, what);
    }

    /// The instant of the next thing to happen.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.queue.keys().next().map(|&(at, _)| at)
    }

    /// Takes the next thing to happen.
    pub(crate) fn next(&mut self) -> Option<(Instant, T)> {
        self.queue.pop_first().map(|((at, _), what)| (at, what))
    }
}

/// A running FNV-1a hash of everything a simulation did: equal traces, equal runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trace(u64);

impl Trace {
    pub(crate) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
