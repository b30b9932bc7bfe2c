//! Offers of the list to the lost, so that the halves of a healed partition find each other, however long it lasted.
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

/// Whose turn is when. One offer a lost address.
#[derive(Debug)]
pub(super) struct Offers {
    by_address: BTreeMap<SocketAddr, Offer>,
    /// Whom the introducer named last.
    introduced: Vec<SocketAddr>,
    next: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Offer {
    at: Instant,
    wait: Duration,
}

impl Offers {
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
            .filter(|(_, offer)| offer.at <= now)
            .map(|(&to, offer)| (offer.at, to))
            .collect();
        due.sort_unstable();
        due.into_iter().map(|(_, to)| to).take(OFFERS_AT_ONCE).collect()
    }
}

impl Swim {
    pub(super) fn on_introduced(&mut self, addresses: &[SocketAddr]) {
        self.offers.introduced = addresses.iter().copied().take(MAX_SEEDS).collect();
    }

    pub(super) fn run_offers(&mut self, now: Instant) {
        if now < self.offers.next {
            return;
        }
        self.offers.next = now + self.jittered(self.config.reconnect_period);
        self.forget_expired(now);
        let lost = self.lost();
        self.offers.by_address.retain(|address, _| lost.contains(address));
        let first = Offer { at: now, wait: self.config.reconnect_wait_min };
        for address in lost {
            self.offers.by_address.entry(address).or_insert(first);
        }
        let wait_max = self.config.reconnect_wait_max(self.size());
        for to in self.offers.due(now) {
            self.counters.reconnects += 1;
            self.start_push_pull(to, None, now);
            let Some(wait) = self.offers.by_address.get(&to).map(|offer| offer.wait) else { continue };
            let next = Offer { at: now + self.jittered(wait), wait: (wait * 2).min(wait_max) };
            self.offers.by_address.insert(to, next);
        }
    }

    /// Where somebody was, or may be, but no live member is known to be.
    fn lost(&self) -> BTreeSet<SocketAddr> {
        self.table
            .gone()
            .chain(self.seeds.addresses())
            .chain(self.offers.introduced.iter().copied())
            .filter(|&address| address != self.me.address && self.table.live_at(address).is_none())
            .collect()
    }
}
