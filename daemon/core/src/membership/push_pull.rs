//! Whole lists over TCP: joining through seeds, push-pull with live members, reconnecting to lost ones; and leaving.
//!
//! Lost are dead and left members, seeds, and the members that the introducer named, as long as no live member is known at
//! their address. Lists are exchanged with each of them at once and then with back-off, for as long as it is remembered, so
//! that the halves of a healed partition find each other however long it lasted. After that the introducer, which the driver
//! goes on asking, names it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::{Bounded, Listed, MemberState, PushPull};
use rand::RngExt;

use super::merge::Source;
use super::{MAX_SEEDS, Member, Phase, Swim, SwimConfig, SwimEffect};
use crate::time::Instant;

/// Lost members with which lists are exchanged at once.
const RECONNECTS_AT_ONCE: usize = 2;
/// Seeds that are tried at once.
const SEEDS_AT_ONCE: usize = 3;
/// In a larger cluster only about so many members exchange lists each period.
const PUSH_PULL_MEMBERS: usize = 10;

/// Where the cluster may be found, and when the next seed is tried.
#[derive(Debug)]
pub(super) struct Seeds {
    addresses: Vec<SocketAddr>,
    /// The index of the next one.
    next: usize,
    retry_at: Instant,
    wait: Duration,
    joined: bool,
}

impl Seeds {
    pub(super) const fn new(config: &SwimConfig, now: Instant) -> Self {
        Self { addresses: Vec::new(), next: 0, retry_at: now, wait: config.join_retry_min, joined: false }
    }

    pub(super) const fn has_joined(&self) -> bool {
        self.joined
    }

    pub(super) const fn len(&self) -> usize {
        self.addresses.len()
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.addresses.iter().copied()
    }

    /// Seeds are tried until one answers, and again whenever this member is alone.
    pub(super) fn deadline(&self, has_peers: bool) -> Option<Instant> {
        let searching = !self.joined || !has_peers;
        (searching && !self.addresses.is_empty()).then_some(self.retry_at)
    }
}

impl Swim {
    pub(super) fn on_join(&mut self, seeds: &[SocketAddr], now: Instant) {
        let others = seeds.iter().copied().filter(|&seed| seed != self.me.address);
        self.seeds = Seeds { addresses: others.take(MAX_SEEDS).collect(), ..Seeds::new(&self.config, now) };
        if self.phase != Phase::Active {
            self.phase = Phase::Active;
            self.me.state = MemberState::Alive;
            self.me.incarnation = self.me.incarnation.next();
            self.rumours.add(self.me.id);
            // What was due while away is not overdue.
            self.next_push_pull = now + self.config.push_pull_period;
            self.has_missed_news = false;
            self.reconnects.restart(now + self.config.reconnect_period);
            self.reset_list();
        }
    }

    /// Members that were live when this one left may be gone and forgotten by all others: forgets them, and reconnects to
    /// where they were.
    fn reset_list(&mut self) {
        let known: Vec<_> = self.table.live().collect();
        let addresses: Vec<_> =
            known.iter().filter_map(|&id| Some(self.table.get(id)?.record.address)).collect();
        self.on_introduced(&addresses);
        for id in known {
            self.suspicions.remove(&id);
            self.prober.forget(id);
            self.forget(id);
        }
    }

    pub(super) fn on_leave(&mut self, now: Instant) {
        match self.phase {
            Phase::Active => {
                self.phase = Phase::Leaving(self.config.leave_gossips);
                self.me.state = MemberState::Left;
                self.rumours.add(self.me.id);
                self.prober.abandon();
                self.next_gossip = now;
            }
            // Asked again, answered again.
            Phase::Left => self.effects.push_back(SwimEffect::LeaveDone),
            Phase::Leaving(_) => {}
        }
    }

    pub(super) fn on_push_pull_request(&mut self, exchange: u64, message: &PushPull, now: Instant) {
        if self.is_admitted(&message.from) || self.phase == Phase::Left {
            self.merge_list(message, now);
            self.reply(exchange, now);
        } else {
            self.dial_back_list(message, Some(exchange));
        }
    }

    pub(super) fn reply(&mut self, exchange: u64, now: Instant) {
        let message = self.list(now);
        self.effects.push_back(SwimEffect::ReplyPushPull { exchange, message });
    }

    pub(super) fn on_push_pull_reply(&mut self, from: SocketAddr, message: &PushPull, now: Instant) {
        if message.from.id != self.me.id && message.from.state.is_live() {
            self.seeds.joined = true;
            self.seeds.wait = self.config.join_retry_min;
        }
        // A peer that answers at the address it advertises has been dialled.
        if message.from.address == from || self.is_admitted(&message.from) {
            self.merge_list(message, now);
        } else {
            self.dial_back_list(message, None);
        }
    }

    pub(super) fn run_exchanges(&mut self, now: Instant) {
        let has_peers = self.table.live_len() > 0;
        if self.seeds.deadline(has_peers).is_some_and(|due| due <= now) {
            self.try_seeds(now);
        }
        if now >= self.next_push_pull && has_peers {
            self.next_push_pull = now + self.jittered(self.config.push_pull_period);
            self.push_pull(now);
        }
        if self.has_missed_news && has_peers && now >= self.unknown_exchange_from {
            self.has_missed_news = false;
            self.unknown_exchange_from = now + self.config.reconnect_period;
            self.exchange_with_any(now);
        }
        self.run_reconnects(now);
    }

    fn push_pull(&mut self, now: Instant) {
        // A member that receives no UDP relies on push-pull alone.
        let is_udp_blocked = 2 * self.table.udp_blocked_len() > self.table.live_len();
        let is_turn = self.rng.random_range(0..self.size().max(PUSH_PULL_MEMBERS)) < PUSH_PULL_MEMBERS;
        if is_udp_blocked || is_turn {
            self.exchange_with_any(now);
        }
    }

    pub(super) fn exchange_with_any(&mut self, now: Instant) {
        for (id, to) in self.random_live(1, None) {
            self.counters.push_pulls += 1;
            self.start_push_pull(to, Some(id), now);
        }
    }

    fn try_seeds(&mut self, now: Instant) {
        self.seeds.retry_at = now + self.jittered(self.seeds.wait);
        self.seeds.wait = (self.seeds.wait * 2).min(self.config.join_retry_max);
        let known = self.seeds.addresses.len();
        for _ in 0..known.min(SEEDS_AT_ONCE) {
            let to = self.seeds.addresses[self.seeds.next % known];
            self.seeds.next = (self.seeds.next + 1) % known;
            self.start_push_pull(to, self.table.live_at(to), now);
        }
    }

    pub(super) fn start_push_pull(&mut self, to: SocketAddr, member: Option<NodeId>, now: Instant) {
        let message = self.list(now);
        self.effects.push_back(SwimEffect::StartPushPull { to, member, message });
    }

    /// Takes in an admitted peer's list, its own record first.
    pub(super) fn merge_list(&mut self, message: &PushPull, now: Instant) {
        if self.phase == Phase::Left {
            return;
        }
        let is_news = self.table.live_len() > 0;
        self.merge(&message.from, Source::Itself, now);
        for listed in message.members.as_slice() {
            let forget_in = Duration::from_secs(listed.forget_in_s.into());
            self.merge(&listed.record, Source::List { forget_in, is_news }, now);
        }
    }

    /// All that this member knows; nothing once it has left, because then it learns no more.
    fn list(&self, now: Instant) -> PushPull {
        let listed = |member: &Member| Listed {
            record: member.record.clone(),
            forget_in_s: member
                .forget_at
                .map_or(0, |at| u32::try_from(at.since(now).as_secs()).unwrap_or(u32::MAX)),
        };
        let known = self.table.iter().filter(|_| self.phase != Phase::Left);
        // The driver fills in the founder and the time.
        PushPull {
            from: self.me.clone(),
            members: Bounded::first_of(known.map(listed)),
            founder: None,
            sent_ms: None,
        }
    }

    /// `period`, shortened or lengthened by up to a quarter, so that members do not act in step.
    pub(super) fn jittered(&mut self, period: Duration) -> Duration {
        period.mul_f64(self.rng.random_range(0.75..1.25))
    }
}

/// When to reconnect to which lost address.
#[derive(Debug)]
pub(super) struct Reconnects {
    by_address: BTreeMap<SocketAddr, Reconnect>,
    /// The addresses that the introducer named last.
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

    /// The [`RECONNECTS_AT_ONCE`] that have been due longest.
    fn due(&self, now: Instant) -> Vec<SocketAddr> {
        let mut due: Vec<_> = self
            .by_address
            .iter()
            .filter(|(_, reconnect)| reconnect.at <= now)
            .map(|(&to, reconnect)| (reconnect.at, to))
            .collect();
        due.sort_unstable();
        due.into_iter().map(|(_, to)| to).take(RECONNECTS_AT_ONCE).collect()
    }
}

impl Swim {
    pub(super) fn on_introduced(&mut self, addresses: &[SocketAddr]) {
        self.reconnects.introduced = addresses.iter().copied().take(MAX_SEEDS).collect();
    }

    fn run_reconnects(&mut self, now: Instant) {
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

    /// Addresses of members that are gone, or may be up, where no live member is known.
    fn lost(&self) -> BTreeSet<SocketAddr> {
        self.table
            .gone()
            .chain(self.seeds.addresses())
            .chain(self.reconnects.introduced.iter().copied())
            .filter(|&address| address != self.me.address && self.table.live_at(address).is_none())
            .collect()
    }
}
