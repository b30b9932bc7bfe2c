//! The cluster's members and which of them are up: the failure detector of one member.
//!
//! Source: SWIM (Das, Gupta, Motivala, DSN 2002): round-robin probing with indirect pings (section 4.3),
//! piggybacked dissemination (4.1), suspicion and incarnations (4.2). Lifeguard (Dadgar, Phillips, Currey, DSN-W 2018):
//! local health and nacks (IV-A), confirmations (IV-B), the buddy system (IV-C). From hashicorp/memberlist: push-pull
//! over TCP, the TCP fallback ping, dead verdicts in a push-pull that count as suspicion, gossip apart from probes.
//! From foca: reconnecting to dead members.
//!
//! What it decides: which member to probe and when, which are suspect or dead, what to pass on, when to refute.
//! Records of one member are ordered by (generation, incarnation, state) and the greatest wins, everywhere and in any
//! order of arrival, so all members converge. Only the member itself raises its generation and incarnation; by
//! raising its incarnation it comes back even after it was declared dead. A refused connection needs no suspicion:
//! the host answered that the process is gone. One process listens at one address: a new identity at a live member's
//! address proves that the old one is dead. A newcomer is listed once it has been dialled back.
//!
//! # Invariants
//! - A record never goes back in precedence, as long as it is remembered.
//! - This member is `Alive` in its own eyes until it leaves, then `Left`.
//! - Exactly the suspects have a suspicion: a deadline, and at most `MAX_WITNESSES` witnesses.
//! - No two live members have one address, and none has this member's.
//!
//! # Bounds
//! At most [`MAX_LIVE`] live and [`MAX_GONE`] dead or left members, [`MAX_GONE_PER_NAME`] of these of one name (beyond
//! that, and after [`SwimConfig::forget_after`], the longest gone is forgotten), one rumour a member, [`MAX_RELAYS`] pings on
//! behalf of others, [`MAX_DIAL_BACKS`] newcomers being dialled back, [`MAX_SEEDS`] seeds and as many named by the
//! introducer, one probe under way. A datagram carries what fits in 1,400 bytes. Effects of one event: at most a fixed
//! number plus one a record received.
//!
//! # What it does not do
//! No authentication: the driver only passes on what bears the cluster's secret.

mod config;
mod dial_back;
mod event;
mod gossip;
mod merge;
mod probe;
mod push_pull;
mod suspicion;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::{MemberRecord, MemberState};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use self::config::SwimConfig;
use self::dial_back::DialBacks;
pub use self::event::{AdmissionError, MemberChange, SwimCounters, SwimEffect, SwimEvent, TcpPingOutcome};
use self::gossip::Rumours;
use self::probe::{Prober, Relays};
use self::push_pull::{Reconnects, Seeds};
use self::suspicion::{LocalHealth, Suspicion};
pub use self::table::Member;
use self::table::Table;
use crate::invariant::InvariantViolation;
use crate::machine::Machine;
use crate::time::Instant;

/// The most live members besides this one.
pub const MAX_LIVE: usize = 1_024;
/// The most dead and left members remembered.
pub const MAX_GONE: usize = 1_024;
/// The most dead and left members of one name remembered: a member whose data directory is emptied again and again
/// comes back under new identities.
pub const MAX_GONE_PER_NAME: usize = 2;
/// The most newcomers being dialled back at one time.
pub const MAX_DIAL_BACKS: usize = 64;
/// The most seeds kept from a [`SwimEvent::Join`], and the most addresses from an [`SwimEvent::Introduced`].
pub const MAX_SEEDS: usize = 64;
/// The most pings under way on behalf of others.
pub const MAX_RELAYS: usize = 128;

/// The membership machine of one member.
///
/// [`SwimEvent::Tick`] is due at its deadline.
#[derive(Debug)]
pub struct Swim {
    config: SwimConfig,
    me: MemberRecord,
    phase: Phase,
    rng: ChaCha8Rng,
    table: Table,
    rumours: Rumours,
    prober: Prober,
    relays: Relays,
    local_health: LocalHealth,
    suspicions: BTreeMap<NodeId, Suspicion>,
    dial_backs: DialBacks,
    seeds: Seeds,
    reconnects: Reconnects,
    next_gossip: Instant,
    next_push_pull: Instant,
    /// When lists are next exchanged with an unknown sender.
    unknown_exchange_from: Instant,
    /// Since the last such exchange, rumours of an unknown sender were ignored.
    has_missed_news: bool,
    effects: VecDeque<SwimEffect>,
    counters: SwimCounters,
}

/// Whether this member takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Active,
    /// Announcing that it leaves, this many times more.
    Leaving(u32),
    Left,
}

impl Machine for Swim {
    type Event = SwimEvent;
    type Effect = SwimEffect;

    fn handle(&mut self, event: SwimEvent, now: Instant) {
        self.notice_stall(now);
        match event {
            SwimEvent::Datagram { from, message } => self.on_datagram(from, &message, now),
            SwimEvent::PushPullRequest { exchange, message } => {
                self.on_push_pull_request(exchange, &message, now);
            }
            SwimEvent::PushPullReply { from, message } => self.on_push_pull_reply(from, &message, now),
            SwimEvent::TcpPingRequest { exchange, message } => self.on_tcp_ping_request(exchange, &message),
            SwimEvent::TcpPingResult { seq, target, outcome } => {
                self.on_tcp_ping_result(seq, target, &outcome, now);
            }
            SwimEvent::ConnectionRefused { id } => self.on_refused(id, now),
            SwimEvent::Join { seeds } => self.on_join(&seeds, now),
            SwimEvent::Introduced { addresses } => self.on_introduced(&addresses),
            SwimEvent::Moved { address } => self.on_moved(address, now),
            SwimEvent::Leave => self.on_leave(now),
            SwimEvent::Tick => {}
        }
        self.run_timers(now);
    }

    /// When the next [`SwimEvent::Tick`] is due; none once this member has left.
    fn next_deadline(&self) -> Option<Instant> {
        if self.phase == Phase::Left {
            return None;
        }
        let has_peers = self.table.live_len() > 0;
        let gossip = (self.wants_gossip() && has_peers).then_some(self.next_gossip);
        if self.phase != Phase::Active {
            return gossip.or(Some(self.next_gossip));
        }
        let probe = has_peers.then_some(self.prober.deadline());
        let relay = self.relays.deadline();
        let suspicion = self.suspicions.values().map(Suspicion::deadline).min();
        let push_pull = has_peers.then_some(self.next_push_pull);
        let join = self.seeds.deadline(has_peers);
        let reconnect = Some(self.reconnects.deadline());
        let catch_up = (self.has_missed_news && has_peers).then_some(self.unknown_exchange_from);
        [gossip, probe, relay, suspicion, push_pull, join, reconnect, catch_up].into_iter().flatten().min()
    }

    fn poll_effect(&mut self) -> Option<SwimEffect> {
        self.effects.pop_front()
    }

    fn check(&self) -> Result<(), InvariantViolation> {
        self.table.check()?;
        self.rumours.check()?;
        self.relays.check()?;
        self.dial_backs.check()?;
        let expected = if self.phase == Phase::Active { MemberState::Alive } else { MemberState::Left };
        if self.me.state != expected {
            return Err(InvariantViolation::new(format!(
                "this member is {:?} in phase {:?}",
                self.me.state, self.phase
            )));
        }
        if self.table.get(self.me.id).is_some() || self.table.live_at(self.me.address).is_some() {
            return Err(InvariantViolation::new(
                "this member, or another at its address, is in its own list",
            ));
        }
        let suspects = self.table.iter().filter(|member| member.record.state == MemberState::Suspect);
        if !suspects.map(|member| member.record.id).eq(self.suspicions.keys().copied()) {
            return Err(InvariantViolation::new("the suspects are not those with a deadline"));
        }
        self.suspicions.values().try_for_each(Suspicion::check)?;
        if self.local_health.score() > self.config.local_health_max {
            return Err(InvariantViolation::new(format!(
                "a local_health score of {}",
                self.local_health.score()
            )));
        }
        if self.seeds.len() > MAX_SEEDS {
            return Err(InvariantViolation::new(format!("{} seeds", self.seeds.len())));
        }
        Ok(())
    }
}

impl Swim {
    /// A member that knows nobody, up from the start. `me` carries the persisted generation of this boot; its state
    /// is taken as alive. `seed` should differ from member to member.
    pub fn new(config: SwimConfig, me: MemberRecord, seed: u64, now: Instant) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let me = MemberRecord { state: MemberState::Alive, ..me };
        let prober = Prober::new(&config, &mut rng, now);
        let mut spread = |period: Duration| now + period.mul_f64(rng.random_range(0.5..1.0));
        Self {
            next_push_pull: spread(config.push_pull_period),
            reconnects: Reconnects::new(spread(config.reconnect_period)),
            next_gossip: now,
            unknown_exchange_from: now,
            has_missed_news: false,
            me,
            phase: Phase::Active,
            table: Table::default(),
            rumours: Rumours::default(),
            prober,
            relays: Relays::default(),
            local_health: LocalHealth::new(config.local_health_max),
            suspicions: BTreeMap::new(),
            dial_backs: DialBacks::default(),
            seeds: Seeds::new(&config, now),
            effects: VecDeque::new(),
            counters: SwimCounters::default(),
            rng,
            config,
        }
    }

    /// This member itself.
    pub const fn self_record(&self) -> &MemberRecord {
        &self.me
    }

    /// Every other member known, in order of identity, those dead and left included.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.table.iter()
    }

    /// Another member.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.table.get(id)
    }

    /// Whether `id` is this member, taking part, or another that is not known to be gone.
    pub fn is_live(&self, id: NodeId) -> bool {
        let record =
            if id == self.me.id { Some(&self.me) } else { self.table.get(id).map(|member| &member.record) };
        record.is_some_and(|record| record.state.is_live())
    }

    /// The live members besides this one.
    pub fn live_len(&self) -> usize {
        self.table.live_len()
    }

    /// Whether a member answered since the last [`SwimEvent::Join`].
    pub const fn has_joined(&self) -> bool {
        self.seeds.has_joined()
    }

    /// Whether this member has left, and the others have been told.
    pub fn has_left(&self) -> bool {
        self.phase == Phase::Left
    }

    /// Lifeguard's local health score: 0 if healthy, at most [`SwimConfig::local_health_max`].
    pub const fn local_health(&self) -> u32 {
        self.local_health.score()
    }

    /// How often each mechanism was used.
    pub const fn counters(&self) -> &SwimCounters {
        &self.counters
    }

    /// A late tick means that the process was suspended: time passed but no packets were handled, so missing answers prove
    /// nothing. The probe under way is dropped and suspects get the time back.
    fn notice_stall(&mut self, now: Instant) {
        let late = self.next_deadline().map_or(Duration::ZERO, |due| now.since(due));
        if late < self.config.stall {
            return;
        }
        self.counters.stalls += 1;
        self.prober.abandon();
        self.local_health.worsen();
        for suspicion in self.suspicions.values_mut() {
            suspicion.postpone(late);
        }
    }

    fn run_timers(&mut self, now: Instant) {
        if self.phase == Phase::Active {
            self.run_probe(now);
            self.run_relays(now);
            self.expire_suspicions(now);
            self.run_exchanges(now);
        }
        self.run_gossip(now);
    }

    /// This member's host has another address. The others dial it there before they believe it, as they do a newcomer.
    fn on_moved(&mut self, address: SocketAddr, now: Instant) {
        if address == self.me.address {
            return;
        }
        self.counters.moves += 1;
        if let Some(gone) = self.table.live_at(address) {
            // One process listens at one address.
            self.counters.refused += 1;
            self.declare_dead(gone, now);
        }
        let previous = self.me.clone();
        self.me.address = address;
        self.me.incarnation = self.me.incarnation.next();
        self.rumours.add(self.me.id);
        let change = MemberChange { record: self.me.clone(), previous: Some(previous) };
        self.effects.push_back(SwimEffect::Changed(change));
        if self.phase == Phase::Active {
            self.exchange_with_any(now);
        }
    }

    fn on_refused(&mut self, id: NodeId, now: Instant) {
        if self.phase == Phase::Active
            && self.table.get(id).is_some_and(|member| member.record.state.is_live())
        {
            self.counters.refused += 1;
            self.declare_dead(id, now);
        }
    }

    /// How many live members there are, this one included.
    fn size(&self) -> usize {
        self.table.live_len() + 1
    }

    fn record_of(&self, id: NodeId) -> Option<&MemberRecord> {
        if id == self.me.id { Some(&self.me) } else { self.table.get(id).map(|member| &member.record) }
    }

    /// Up to `count` random live members other than `except`.
    fn random_live(&mut self, count: usize, except: Option<NodeId>) -> Vec<(NodeId, SocketAddr)> {
        let mut ids: Vec<_> = self.table.live().filter(|&id| Some(id) != except).collect();
        let count = count.min(ids.len());
        for index in 0..count {
            let other = self.rng.random_range(index..ids.len());
            ids.swap(index, other);
        }
        ids.truncate(count);
        ids.into_iter().filter_map(|id| Some((id, self.table.get(id)?.record.address))).collect()
    }
}
