//! Whole lists over TCP: joining through seeds, push-pull with the living, offers to the dead; and leaving.

use std::net::SocketAddr;
use std::time::Duration;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::{MemberState, PushPull, Records};
use rand::RngExt;

use super::learn::Source;
use super::{Config, Effect, MAX_SEEDS, Phase, Swim};
use crate::time::Instant;

/// How many seeds are tried at once.
const SEEDS_AT_ONCE: usize = 3;
/// How many of the lost are offered the list at once.
const OFFERS_AT_ONCE: usize = 2;

/// Where to look for the cluster, and when to look next.
#[derive(Debug)]
pub(super) struct Seeds {
    addresses: Vec<SocketAddr>,
    /// The turn of the next one.
    turn: usize,
    retry_at: Instant,
    wait: Duration,
    joined: bool,
}

impl Seeds {
    pub(super) const fn new(config: &Config, now: Instant) -> Self {
        Self { addresses: Vec::new(), turn: 0, retry_at: now, wait: config.join_retry_min, joined: false }
    }

    pub(super) const fn has_joined(&self) -> bool {
        self.joined
    }

    pub(super) const fn len(&self) -> usize {
        self.addresses.len()
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
            // What was due while away is not overdue, and suspects start afresh.
            self.next_push_pull = now + self.config.push_pull_period;
            self.next_reconnect = now + self.config.reconnect_period;
            for deadline in self.suspicions.values_mut() {
                *deadline = now + self.config.suspicion_min;
            }
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
            // The shell asked again: it gets its answer again.
            Phase::Left => self.effects.push_back(Effect::LeaveDone),
            Phase::Leaving(_) => {}
        }
    }

    pub(super) fn on_push_pull_request(&mut self, exchange: u64, message: &PushPull, now: Instant) {
        self.merge(message, now);
        let message = self.list();
        self.effects.push_back(Effect::ReplyPushPull { exchange, message });
    }

    pub(super) fn on_push_pull_reply(&mut self, message: &PushPull, now: Instant) {
        if message.from.id != self.me.id && message.from.state.is_live() {
            self.seeds.joined = true;
            self.seeds.wait = self.config.join_retry_min;
        }
        self.merge(message, now);
    }

    pub(super) fn run_exchanges(&mut self, now: Instant) {
        let has_peers = self.table.live_len() > 0;
        if self.seeds.deadline(has_peers).is_some_and(|due| due <= now) {
            self.try_seeds(now);
        }
        if now >= self.next_push_pull && has_peers {
            self.next_push_pull = now + self.jittered(self.config.push_pull_period);
            for (id, to) in self.random_live(1, None) {
                self.counters.push_pulls += 1;
                self.start_push_pull(to, Some(id));
            }
        }
        if now >= self.next_reconnect {
            self.next_reconnect = now + self.jittered(self.config.reconnect_period);
            self.offer_to_the_lost();
        }
    }

    fn try_seeds(&mut self, now: Instant) {
        self.seeds.retry_at = now + self.jittered(self.seeds.wait);
        self.seeds.wait = (self.seeds.wait * 2).min(self.config.join_retry_max);
        let known = self.seeds.addresses.len();
        for _ in 0..known.min(SEEDS_AT_ONCE) {
            let to = self.seeds.addresses[self.seeds.turn % known];
            self.seeds.turn = (self.seeds.turn + 1) % known;
            self.start_push_pull(to, self.table.live_at(to));
        }
    }

    /// Offers the list to dead and left members and to seeds, at whose address no live member is known.
    fn offer_to_the_lost(&mut self) {
        let lost: Vec<_> = self
            .table
            .gone()
            .chain(self.seeds.addresses.iter().copied())
            .filter(|&address| address != self.me.address && self.table.live_at(address).is_none())
            .collect();
        // In turn, so that each of them has its offer within a known time.
        for _ in 0..lost.len().min(OFFERS_AT_ONCE) {
            self.counters.reconnects += 1;
            self.offers = self.offers.wrapping_add(1);
            self.start_push_pull(lost[self.offers % lost.len()], None);
        }
    }

    fn start_push_pull(&mut self, to: SocketAddr, member: Option<NodeId>) {
        let message = self.list();
        self.effects.push_back(Effect::StartPushPull { to, member, message });
    }

    /// Takes in a peer's list, its own record first.
    fn merge(&mut self, message: &PushPull, now: Instant) {
        if self.phase == Phase::Left {
            return;
        }
        self.learn(&message.from, Source::List, now);
        for record in message.members.as_slice() {
            self.learn(record, Source::List, now);
        }
    }

    fn list(&self) -> PushPull {
        let members = Records::bounded(self.table.iter().map(|member| member.record.clone()));
        PushPull { from: self.me.clone(), members }
    }

    /// `period`, shortened or lengthened by up to a quarter, so that members do not act in step.
    fn jittered(&mut self, period: Duration) -> Duration {
        period.mul_f64(self.rng.random_range(0.75..1.25))
    }
}
