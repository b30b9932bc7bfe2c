//! Which connections a process opens, keeps, closes and opens again: a pure machine, to which time and randomness are values.
//!
//! Callers ask for connections as they need them. In a member, membership says which members are live and which
//! connections are kept open even while they are unused.
//!
//! Invariants:
//! - a connection that is kept or in use is never closed to make room;
//! - a slot has at most one connection or dial;
//! - nothing is dialled again unless a caller asks, the connection is kept, or its end may prove a death that this process
//!   is to detect ([`Members::proves_deaths`]).
//!
//! Bounds: [`Limits`]; [`IDLE_MAX`]; pauses between dials grow from [`BACK_OFF_MIN`] to [`BACK_OFF_MAX`] by decorrelated jitter
//! (each drawn from the least pause to three times the last one), per peer; [`spread`] bounds how long a redial of a kept
//! connection is delayed, so that many members that lost one peer do not dial it all at once.
//!
//! It opens nothing itself, and it does not judge which members are alive.
//!
//! `event.rs` has its events and effects, `membership.rs` the changes of members, `room.rs` limits and idle connections.

mod event;
mod membership;
mod room;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub(super) use self::event::{Effect, Event, Limits, Reason, Usage};
pub use self::event::{LiveMember, Members};
use super::super::link::DialError;
use super::slot::{Lane, Slot, Target};
use crate::ids::NodeId;

/// The shortest pause after a failed dial.
pub(super) const BACK_OFF_MIN: Duration = Duration::from_millis(50);
/// The longest pause after a failed dial, except for blobs: while a coordinator or a voter starts again, callers wait for it.
pub(super) const BACK_OFF_MAX: Duration = Duration::from_millis(250);
/// The least pause in the lanes of blobs: there are other holders, and a put that waits for a dead one is slow.
pub(super) const BLOB_BACK_OFF: Duration = Duration::from_secs(2);
/// The least time from opening a kept connection to opening it again.
pub(super) const REOPEN_MIN: Duration = Duration::from_millis(100);
/// After a refusal, which proves that the process is gone, a kept connection waits this long, unless the members change.
pub(super) const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// A connection that is not kept closes after this long without use.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(30);
/// Between two sweeps for idle connections.
pub(super) const SWEEP_PERIOD: Duration = Duration::from_secs(10);
/// Most dials to a member whose connection ended, to find out whether its process is gone.
pub(super) const PROBES_MAX: u8 = 3;
const PROBE_SPREAD: Duration = Duration::from_millis(20);
const SPREAD_PER_MEMBER: Duration = Duration::from_millis(2);
const SPREAD_MAX: Duration = Duration::from_secs(2);

/// The longest delay of a kept connection's redial in a cluster of `members` members.
pub(super) fn spread(members: usize) -> Duration {
    SPREAD_PER_MEMBER.saturating_mul(u32::try_from(members).unwrap_or(u32::MAX)).min(SPREAD_MAX)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be dialled at that time, even if no caller asks.
    Due(Duration),
    /// Waits until fewer dials are in progress.
    Queued(SocketAddr),
    Dialling(SocketAddr),
    Open {
        address: SocketAddr,
        since: Duration,
        used_at: Duration,
        in_use: bool,
    },
}

#[derive(Clone, Debug)]
struct Failure {
    at: Duration,
    pause: Duration,
    /// `None` if another process than the member answered.
    error: Option<Arc<DialError>>,
}

impl Failure {
    /// Until when a lane is not dialled.
    fn ends(&self, lane: Lane) -> Duration {
        self.at
            + match lane {
                Lane::Consensus | Lane::Calls => self.pause,
                Lane::Blobs(_) => self.pause.max(BLOB_BACK_OFF),
            }
    }
}

/// The machine.
pub(super) struct ConnectionTable {
    limits: Limits,
    rng: ChaCha8Rng,
    states: BTreeMap<Slot, State>,
    due: BTreeSet<(Duration, Slot)>,
    /// Consensus first, then in order.
    queued: BTreeSet<(Lane, u64, Slot)>,
    next_in_queue: u64,
    dialling: usize,
    /// Not per lane: one process answers them all, so a dial that fails in one would fail in the others.
    failures: BTreeMap<Target, Failure>,
    /// Members whose death is to be proven, and the dials left for it.
    probes: BTreeMap<NodeId, u8>,
    members: Members,
    sweep_at: Duration,
    effects: VecDeque<Effect>,
}

impl ConnectionTable {
    /// A table without connections.
    pub(super) fn new(limits: Limits, seed: u64, now: Duration) -> Self {
        Self {
            limits,
            rng: ChaCha8Rng::seed_from_u64(seed),
            states: BTreeMap::new(),
            due: BTreeSet::new(),
            queued: BTreeSet::new(),
            next_in_queue: 0,
            dialling: 0,
            failures: BTreeMap::new(),
            probes: BTreeMap::new(),
            members: Members::default(),
            sweep_at: now + SWEEP_PERIOD,
            effects: VecDeque::new(),
        }
    }

    /// Handles an event.
    pub(super) fn handle(&mut self, event: Event, now: Duration) {
        match event {
            Event::Asked { slot, address } => self.asked(slot, address, now),
            Event::Dialled { slot, node } => self.dialled(slot, node, now),
            Event::DialFailed { slot, error } => self.failed(slot, error, now),
            Event::Ended { slot } => self.ended(slot, now),
            Event::HungUp { node } => self.probe(node, now),
            Event::Usage(usage) => self.swept(&usage, now),
            Event::Members(members) => self.take_members(members, now),
            Event::Tick => {}
        }
        self.dial_what_is_due(now);
        self.start_queued();
        debug_assert_eq!(self.check(), Ok(()));
    }

    /// When [`Event::Tick`] is due at the latest.
    pub(super) fn next_deadline(&self) -> Duration {
        self.due.first().map_or(self.sweep_at, |&(at, _)| at.min(self.sweep_at))
    }

    /// The next thing to do.
    pub(super) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether to report the usage of connections now: they may be idle, or one must make room for `slot`.
    pub(super) fn needs_usage(&self, slot: Option<Slot>, now: Duration) -> bool {
        self.sweep_at <= now || slot.is_some_and(|slot| !self.has_room(slot.lane))
    }

    /// Whether a slot is taken by a connection or a dial.
    pub(super) fn is_taken(&self, slot: &Slot) -> bool {
        self.states.get(slot).is_some_and(|state| !matches!(state, State::Due(_)))
    }

    /// Whether a slot has a connection.
    pub(super) fn is_open(&self, slot: &Slot) -> bool {
        matches!(self.states.get(slot), Some(State::Open { .. }))
    }

    /// The slots that have a connection.
    pub(super) fn open(&self) -> impl Iterator<Item = Slot> + '_ {
        self.states.iter().filter(|(_, state)| matches!(state, State::Open { .. })).map(|(&slot, _)| slot)
    }

    /// Why the last dial to the target failed, if it did so lately.
    pub(super) fn error(&self, target: &Target) -> Option<&Arc<DialError>> {
        self.failures.get(target)?.error.as_ref()
    }

    /// What is wrong with the table, if anything is.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let count = |wanted: fn(&State) -> bool| self.states.values().filter(|state| wanted(state)).count();
        if count(|state| matches!(state, State::Dialling(_))) != self.dialling {
            return Err("the dials in progress are miscounted");
        }
        if self.dialling > self.limits.dials {
            return Err("too many dials are in progress");
        }
        if count(|state| matches!(state, State::Queued(_))) != self.queued.len() {
            return Err("the queue of dials is miscounted");
        }
        if count(|state| matches!(state, State::Due(_))) != self.due.len() {
            return Err("the dials that are due are miscounted");
        }
        Ok(())
    }

    fn asked(&mut self, slot: Slot, address: SocketAddr, now: Duration) {
        match self.states.get(&slot) {
            Some(State::Queued(_) | State::Dialling(_)) => return,
            Some(State::Open { .. }) => {
                self.effects.push_back(Effect::Reuse { slot, open: slot });
                return;
            }
            Some(State::Due(_)) | None => {}
        }
        if self.failures.get(&slot.target).is_some_and(|failure| now < failure.ends(slot.lane)) {
            self.refuse(slot, Reason::BackOff);
        } else if self.make_room(slot.lane) {
            self.dial(slot, self.listed_address(slot).unwrap_or(address));
        } else {
            self.refuse(slot, Reason::Full);
        }
    }

    fn refuse(&mut self, slot: Slot, reason: Reason) {
        self.effects.push_back(Effect::Refuse { slot, reason });
    }

    /// Where membership says that the slot's member listens.
    fn listed_address(&self, slot: Slot) -> Option<SocketAddr> {
        match slot.target {
            Target::Member(node) => self.members.live.get(&node).map(|member| member.address),
            Target::Address(_) => None,
        }
    }

    fn set(&mut self, slot: Slot, state: State) {
        self.clear(&slot);
        match state {
            State::Due(at) => {
                self.due.insert((at, slot));
            }
            State::Queued(_) => {
                self.next_in_queue += 1;
                self.queued.insert((slot.lane, self.next_in_queue, slot));
            }
            State::Dialling(_) => self.dialling += 1,
            State::Open { .. } => {}
        }
        self.states.insert(slot, state);
    }

    fn clear(&mut self, slot: &Slot) -> Option<State> {
        let state = self.states.remove(slot)?;
        match state {
            State::Due(at) => {
                self.due.remove(&(at, *slot));
            }
            State::Queued(_) => self.queued.retain(|(_, _, queued)| queued != slot),
            State::Dialling(_) => self.dialling -= 1,
            State::Open { .. } => {}
        }
        Some(state)
    }

    fn dial(&mut self, slot: Slot, address: SocketAddr) {
        if self.dialling < self.limits.dials {
            self.set(slot, State::Dialling(address));
            self.effects.push_back(Effect::Dial { slot, address });
        } else {
            self.set(slot, State::Queued(address));
        }
    }

    fn start_queued(&mut self) {
        while self.dialling < self.limits.dials {
            let Some(&(_, _, slot)) = self.queued.first() else { return };
            if let Some(State::Queued(address)) = self.states.get(&slot).copied() {
                self.dial(slot, address);
            }
        }
    }

    fn dialled(&mut self, slot: Slot, node: Option<NodeId>, now: Duration) {
        let Some(State::Dialling(address)) = self.clear(&slot) else { return };
        let under = match (slot.target, node) {
            (Target::Member(wanted), node) if node != Some(wanted) => {
                self.note_failure(slot.target, None, now);
                self.refuse(slot, Reason::Stranger);
                return self.redial_after_failure(slot, false, now);
            }
            (Target::Address(_), Some(node)) => Slot::of_member(node, slot.lane),
            _ => slot,
        };
        self.failures.remove(&slot.target);
        self.failures.remove(&under.target);
        if under.lane == Lane::Calls
            && let Target::Member(node) = under.target
        {
            self.probes.remove(&node);
        }
        let under = match self.states.get(&under) {
            Some(State::Open { address: open, .. }) if *open == address => {
                self.effects.push_back(Effect::Reuse { slot, open: under });
                return;
            }
            // It listens at two addresses, or two dials overlap: this connection stays under its address.
            Some(State::Open { .. } | State::Dialling(_) | State::Queued(_)) => slot,
            Some(State::Due(_)) | None => under,
        };
        self.set(under, State::Open { address, since: now, used_at: now, in_use: true });
        self.effects.push_back(Effect::Adopt { slot, under, address });
    }

    fn failed(&mut self, slot: Slot, error: Arc<DialError>, now: Duration) {
        if !matches!(self.states.get(&slot), Some(State::Dialling(_))) {
            return;
        }
        self.clear(&slot);
        let refused = matches!(*error, DialError::Refused { .. });
        self.note_failure(slot.target, Some(error), now);
        self.refuse(slot, Reason::Failed);
        self.redial_after_failure(slot, refused, now);
    }

    fn note_failure(&mut self, target: Target, error: Option<Arc<DialError>>, now: Duration) {
        let last = self.failures.get(&target).map_or(BACK_OFF_MIN, |failure| failure.pause);
        let pause = (BACK_OFF_MIN + self.jitter((last * 3).saturating_sub(BACK_OFF_MIN))).min(BACK_OFF_MAX);
        self.failures.insert(target, Failure { at: now, pause, error });
    }

    fn redial_after_failure(&mut self, slot: Slot, refused: bool, now: Duration) {
        let back_off = self.failures.get(&slot.target).map_or(now, |failure| failure.ends(slot.lane));
        let has_probe = !refused && self.take_probe(slot);
        if refused && let Target::Member(node) = slot.target {
            self.probes.remove(&node);
        }
        if self.is_kept(slot) {
            let delay = if refused { REFUSED_PAUSE } else { Duration::ZERO };
            let jitter = self.redial_jitter(slot.lane);
            self.set(slot, State::Due(back_off + delay + jitter));
        } else if has_probe {
            self.set(slot, State::Due(back_off));
        }
    }

    fn ended(&mut self, slot: Slot, now: Duration) {
        let Some(&State::Open { since, .. }) = self.states.get(&slot) else { return };
        self.clear(&slot);
        let not_before = since + REOPEN_MIN;
        if self.is_kept(slot) {
            let jitter = self.redial_jitter(slot.lane);
            self.set(slot, State::Due(not_before.max(now + jitter)));
        } else if let Target::Member(node) = slot.target
            && slot.lane == Lane::Calls
        {
            self.probe(node, now);
        }
    }

    /// Dials a live member whose connection ended, to find out whether its process is gone.
    fn probe(&mut self, node: NodeId, now: Duration) {
        let slot = Slot::of_member(node, Lane::Calls);
        let is_concerned = self.members.proves_deaths && self.members.live.contains_key(&node);
        // An open connection ends too, if the process is gone; a dial will find out.
        if !is_concerned || self.states.contains_key(&slot) {
            return;
        }
        self.probes.entry(node).or_insert(PROBES_MAX);
        if self.take_probe(slot) {
            let jitter = self.jitter(PROBE_SPREAD);
            self.set(slot, State::Due(now + jitter));
        }
    }

    /// Spends one of the dials that may prove a member's death.
    fn take_probe(&mut self, slot: Slot) -> bool {
        let Target::Member(node) = slot.target else { return false };
        let Some(left) = self.probes.get_mut(&node) else { return false };
        let has_probe = *left > 0;
        *left = left.saturating_sub(1);
        has_probe
    }

    fn is_kept(&self, slot: Slot) -> bool {
        matches!(slot.target, Target::Member(node) if self.members.kept.contains(&(node, slot.lane)))
    }

    fn redial_jitter(&mut self, lane: Lane) -> Duration {
        // Voters are few, and the first to detect each other's deaths.
        let is_urgent = lane == Lane::Consensus || self.members.proves_deaths;
        let max = spread(self.members.live.len());
        self.jitter(if is_urgent { max.min(PROBE_SPREAD) } else { max })
    }

    fn jitter(&mut self, max: Duration) -> Duration {
        let micros = u64::try_from(max.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.rng.random_range(0..=micros))
    }

    fn close(&mut self, slot: Slot) {
        self.clear(&slot);
        self.effects.push_back(Effect::Close { slot });
    }

    fn dial_what_is_due(&mut self, now: Duration) {
        while let Some(&(at, slot)) = self.due.first() {
            if now < at {
                return;
            }
            self.clear(&slot);
            // The dials of a member that left were dropped then.
            let Some(address) = self.listed_address(slot) else { continue };
            if self.make_room(slot.lane) {
                self.dial(slot, address);
            } else if self.is_kept(slot) {
                self.set(slot, State::Due(now + BACK_OFF_MAX));
            }
        }
    }
}
