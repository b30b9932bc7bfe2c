//! A virtual network: latency, loss, duplication, one-way cuts and partitions, and a queue ordered by virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use idunno_core::time::Instant;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Quality of the network. Latency differs between messages, so they are reordered.
#[derive(Clone, Copy, Debug)]
pub struct Quality {
    /// The least one-way latency.
    pub latency_min: Duration,
    /// The greatest.
    pub latency_max: Duration,
    /// Messages lost, in a thousand.
    pub loss_per_mille: u32,
    /// Messages delivered twice, in a thousand.
    pub duplicate_per_mille: u32,
}

impl Quality {
    /// A healthy local network.
    pub const LAN: Self = Self {
        latency_min: Duration::from_micros(100),
        latency_max: Duration::from_millis(2),
        loss_per_mille: 0,
        duplicate_per_mille: 0,
    };
}

/// The first wait of TCP before it sends a lost segment again; it doubles (RFC 6298, with Linux's least).
const TCP_RETRANSMIT: Duration = Duration::from_millis(200);
/// Most retransmissions; a connection that needs more would have been closed.
const TCP_RETRANSMITS_MAX: u32 = 8;

/// Which hosts reach which, how well, and what is in flight. `T` is an event at a point in virtual time.
pub struct Network<T> {
    /// Present quality.
    pub quality: Quality,
    /// All randomness of a simulation.
    pub rng: ChaCha8Rng,
    cuts: BTreeSet<(usize, usize)>,
    queue: BTreeMap<(Instant, u64), T>,
    queued: u64,
}

impl<T> Network<T> {
    /// Makes a network in which all hosts reach each other.
    pub fn new(seed: u64, quality: Quality) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self { quality, rng, cuts: BTreeSet::new(), queue: BTreeMap::new(), queued: 0 }
    }

    /// Whether messages of `from` reach `to`.
    pub fn reaches(&self, from: usize, to: usize) -> bool {
        !self.cuts.contains(&(from, to))
    }

    /// Whether TCP works between them.
    pub fn reaches_both_ways(&self, one: usize, other: usize) -> bool {
        self.reaches(one, other) && self.reaches(other, one)
    }

    /// Messages of `from` no longer reach `to`.
    pub fn cut_one_way(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    /// Cuts every link between hosts for which `side` differs.
    pub fn partition(&mut self, hosts: usize, side: impl Fn(usize) -> bool) {
        for from in 0..hosts {
            self.cuts.extend((0..hosts).filter(|&to| side(from) != side(to)).map(|to| (from, to)));
        }
    }

    /// Ends all cuts.
    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    /// How long one message takes.
    pub fn latency(&mut self) -> Duration {
        self.rng.random_range(self.quality.latency_min..=self.quality.latency_max)
    }

    /// How long a message takes on an open connection, lost segments being sent again.
    pub fn tcp_latency(&mut self) -> Duration {
        let mut waited = Duration::ZERO;
        for retransmit in 0..TCP_RETRANSMITS_MAX {
            if !self.chance(self.quality.loss_per_mille) {
                break;
            }
            waited += TCP_RETRANSMIT * 2_u32.pow(retransmit);
        }
        waited + self.latency()
    }

    /// Returns true with this probability, in thousandths.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.rng.random_range(0..1000) < per_mille
    }

    /// Schedules `what` at `at`. Events at the same instant happen in the order in which they were scheduled.
    pub fn schedule(&mut self, at: Instant, what: T) {
        self.queued += 1;
        self.queue.insert((at, self.queued), what);
    }

    /// Sends an unreliable message: cut links and loss swallow it, duplication repeats it.
    pub fn send(&mut self, from: usize, to: usize, now: Instant, what: T)
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

    /// The instant of the next event.
    pub fn next_at(&self) -> Option<Instant> {
        self.queue.keys().next().map(|&(at, _)| at)
    }

    /// Takes the next event.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<(Instant, T)> {
        self.queue.pop_first().map(|((at, _), what)| (at, what))
    }
}

/// A running FNV-1a hash of everything a simulation did: equal traces, equal runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace(u64);

impl Trace {
    /// The empty trace.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds an event to the trace.
    pub fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
