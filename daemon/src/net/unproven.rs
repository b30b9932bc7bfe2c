//! Which connections may wait for their handshake and hello, and which may be open for metrics. Every connection is accepted at once; when there is no place
//! left, the one that has waited longest is closed, because an honest peer proves itself within moments.
//!
//! Invariants: a connection of a known member's address never gives way to one of another address, nor the reverse; the
//! newest connection always has a place.
//!
//! Bounds: those of [`UnprovenLimits`] on connections of known members' addresses, of all other addresses, and of one other
//! address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Of the places for unknown addresses, one address has at most one in so many.
const SOURCE_SHARE: usize = 8;

/// Where connections or datagrams come from, for limits: an address, or the network of an IPv6 address, of which one machine
/// usually has all addresses.
fn source_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)))
        }
        ip => ip,
    }
}

/// How many connections may be unproven at once; each at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnprovenLimits {
    /// Of known members' addresses.
    known: usize,
    /// Of all other addresses.
    unknown: usize,
    /// Of one other address.
    per_source: usize,
}

impl UnprovenLimits {
    /// Half of the places are for addresses of known members.
    pub(crate) fn with_members(places: usize) -> Self {
        let known = (places / 2).max(1);
        Self { known, ..Self::of_strangers((places - places / 2).max(1)) }
    }

    /// No address is a known member's.
    pub(crate) fn of_strangers(places: usize) -> Self {
        Self { known: 0, unknown: places, per_source: (places / SOURCE_SHARE).max(1) }
    }
}

/// Decides which connections keep their places.
#[derive(Debug)]
struct UnprovenTable {
    limits: UnprovenLimits,
    next: u64,
    /// By number, and therefore oldest first.
    places: BTreeMap<u64, Place>,
    known: usize,
    /// The numbers of unknown sources.
    sources: BTreeMap<IpAddr, BTreeSet<u64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    source: IpAddr,
    is_known: bool,
}

/// What the table decided about a new connection.
#[derive(Debug, PartialEq, Eq)]
struct Admission {
    number: u64,
    /// The connection that gives way.
    evicted: Option<u64>,
}

impl UnprovenTable {
    fn new(limits: UnprovenLimits) -> Self {
        Self { limits, next: 0, places: BTreeMap::new(), known: 0, sources: BTreeMap::new() }
    }

    fn admit(&mut self, place: Place) -> Admission {
        let evicted = self.gives_way(place);
        if let Some(number) = evicted {
            self.remove(number);
        }
        let number = self.next;
        self.next += 1;
        self.places.insert(number, place);
        if place.is_known {
            self.known += 1;
        } else {
            self.sources.entry(place.source).or_default().insert(number);
        }
        Admission { number, evicted }
    }

    fn gives_way(&self, newcomer: Place) -> Option<u64> {
        let (taken, limit) = if newcomer.is_known {
            (self.known, self.limits.known)
        } else {
            (self.places.len() - self.known, self.limits.unknown)
        };
        let own = self.sources.get(&newcomer.source).filter(|_| !newcomer.is_known);
        match own {
            Some(own) if own.len() >= self.limits.per_source => own.first().copied(),
            _ if taken >= limit => {
                let mut of_class =
                    self.places.iter().filter(|(_, place)| place.is_known == newcomer.is_known);
                of_class.next().map(|(number, _)| *number)
            }
            _ => None,
        }
    }

    fn remove(&mut self, number: u64) {
        let Some(place) = self.places.remove(&number) else { return };
        if place.is_known {
            self.known -= 1;
        } else if let Some(own) = self.sources.get_mut(&place.source) {
            own.remove(&number);
            if own.is_empty() {
                self.sources.remove(&place.source);
            }
        }
    }
}

/// The connections of a server that have not proven themselves.
pub(crate) struct Unproven {
    state: Mutex<State>,
}

struct State {
    table: UnprovenTable,
    evictions: BTreeMap<u64, CancellationToken>,
}

/// A connection's place, until it is dropped.
pub(crate) struct UnprovenPlace {
    unproven: Arc<Unproven>,
    number: u64,
    evicted: CancellationToken,
}

impl Unproven {
    pub(crate) fn new(limits: UnprovenLimits) -> Arc<Self> {
        let state = State { table: UnprovenTable::new(limits), evictions: BTreeMap::new() };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Takes a place for a new connection, from the oldest one if there is none left.
    pub(crate) fn enter(self: &Arc<Self>, from: IpAddr, is_known: bool) -> UnprovenPlace {
        let evicted = CancellationToken::new();
        let mut state = self.lock();
        let admission = state.table.admit(Place { source: source_of(from), is_known });
        if let Some(oldest) = admission.evicted.and_then(|number| state.evictions.remove(&number)) {
            oldest.cancel();
        }
        state.evictions.insert(admission.number, evicted.clone());
        UnprovenPlace { unproven: Arc::clone(self), number: admission.number, evicted }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnprovenPlace {
    /// Returns when the connection must close to make room.
    pub(crate) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for UnprovenPlace {
    fn drop(&mut self) {
        let mut state = self.unproven.lock();
        state.table.remove(self.number);
        state.evictions.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(source: u32, is_known: bool) -> Place {
        Place { source: IpAddr::from(source.to_be_bytes()), is_known }
    }

    fn table(places: usize) -> UnprovenTable {
        UnprovenTable::new(UnprovenLimits { known: places, unknown: places, per_source: 2 })
    }

    #[test]
    fn the_oldest_gives_way_within_its_class_and_each_source_first_to_itself() {
        let mut table = table(4);
        let of = |table: &mut UnprovenTable, source, is_known| table.admit(place(source, is_known)).evicted;
        assert_eq!([1, 1, 1, 1].map(|source| of(&mut table, source, false)), [None, None, Some(0), Some(1)]);
        assert_eq!([2, 3].map(|source| of(&mut table, source, false)), [None, None]);
        // All places of strangers are taken: the oldest one goes, whoever asks.
        assert_eq!(of(&mut table, 4, false), Some(2));
        // Known members have places of their own, and no limit for each address.
        assert_eq!([9, 9, 9, 9].map(|source| of(&mut table, source, true)), [None; 4]);
        assert_eq!(of(&mut table, 9, true), Some(7));
        assert_eq!(of(&mut table, 5, false), Some(3));
        for number in 0..table.next {
            table.remove(number);
        }
        assert!(table.places.is_empty() && table.sources.is_empty() && table.known == 0);
    }

    #[test]
    fn a_flood_from_many_addresses_is_bounded_and_leaves_known_members_alone() {
        let mut table = table(64);
        let member = table.admit(place(1, true)).number;
        for stranger in 0..100_000 {
            let admitted = table.admit(place(stranger % 9_000, false)).number;
            assert!(table.places.contains_key(&admitted), "the newest one has a place");
            assert!(table.places.len() <= 65 && table.sources.len() <= 64);
        }
        assert!(table.places.contains_key(&member));
    }

    #[test]
    fn one_network_of_ipv6_is_one_source() {
        let source = |text: &str| source_of(text.parse().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
    }
}
