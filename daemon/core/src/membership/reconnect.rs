//! Reconnects of the list to the lost, so that the halves of a healed partition find each other, however long it lasted.
//!
//! Lost are dead and left members, seeds, and whom the introducer named, as long as no live member is known at their
//! address. Each is offered the list at once and then with back-off, for as long as it is remembered; after that the
//! introducer, which the shell goes on asking, names it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::{MAX_SEEDS, Swim};
use crate::time::Instant;

/// How many of the lost are offered the list at once.
const OFFERS_AT_ONCE: usize = 2;

/// Whose turn is when. One reconnect a lost address.
#[derive(Debug)]
pub(super) struct Reconnects {
    by_address: BTreeMap<SocketAddr, Reconnect>,
    /// Whom the introducer named last.
    introduced: Vec<SocketAddr>,
    next: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Reconnect {
    at: Instant,
    wait: Duration,
}

impl Reconnects {
    pub(super) const fn new(next: Instant) -> Self {
        Self { by_address: BTreeMap::new(), introduced: Vec::new(), next }
    }

    pub(super) const fn deadline(&self) -> Instant {
        self.next
    }

    pub(super) const fn restart(&mut self, next: Instant) {
        self.next = next;
    }

    /// The `OFFERS_AT_ONCE` that are due longest.
    fn due(&self, now: Instant) -> Vec<SocketAddr> {
        let mut due: Vec<_> = self
            .by_address
            .iter()
            .filter(|(_, reconnect)| reconnect.at <= now)
            .map(|(&to, reconnect)| (reconnect.at, to))
            .collect();
        due.sort_unstable();
        due.into_iter().map(|(_, to)| to).take(OFFERS_AT_ONCE).collect()
    }
}

impl Swim {
    pub(super) fn on_introduced(&mut self, addresses: &[SocketAddr]) {
        self.reconnects.introduced = addresses.iter().copied().take(MAX_SEEDS).collect();
    }

    pub(super) fn run_offers(&mut self, now: Instant) {
        if now < self.reconnects.next {
            return;
        }
        self.reconnects.next = now + self.jittered(self.config.reconnect_period);
        self.forget_expired(now);
        let lost = self.lost();
        self.reconnects.by_address.retain(|address, _| lost.contains(address));
        let first = Reconnect { at: now, wait: self.config.reconnect_wait_min };
        for address in lost {
            self.reconnects.by_address.entry(address).or_insert(first);
        }
        let wait_max = self.config.reconnect_wait_max(self.size());
        for to in self.reconnects.due(now) {
            self.counters.reconnects += 1;
            self.start_push_pull(to, None, now);
            let Some(wait) = self.reconnects.by_address.get(&to).map(|reconnect| reconnect.wait) else {
                continue;
            };
            let next = Reconnect { at: now + self.jittered(wait), wait: (wait * 2).min(wait_max) };
            self.reconnects.by_address.insert(to, next);
        }
    }

    /// Where somebody was, or may be, but no live member is known to be.
    fn lost(&self) -> BTreeSet<SocketAddr> {
        self.table
            .gone()
            .chain(self.seeds.addresses())
            .chain(self.reconnects.introduced.iter().copied())
            .filter(|&address| address != self.me.address && self.table.live_at(address).is_none())
            .collect()
    }
}
