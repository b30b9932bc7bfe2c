//! The ring election of one voter: nominates the member that may ask for the log's votes.
//!
//! Source: Chang and Roberts, "An improved algorithm for decentralized extrema-finding" (CACM 1979), with the log's
//! position before the identity, acknowledged hops, and rounds that are numbered like Lamport's clocks.
//!
//! What it decides: when to start a round, what goes to which successor, and whether this member may stand. A
//! nomination goes round the live voters in order of identity and collects the fittest; back at its initiator it
//! names the winner, and `Elected` goes round. The result is a nomination, never authority: the log's vote decides,
//! so disagreeing views cost time, not safety. A round that brings no leader is repeated; after three, all may stand.
//!
//! Of concurrent rounds the greater identity swallows the lesser wherever they meet. A later round has a higher
//! number than all its initiator has seen, so a failed round does not block it.
//!
//! # Invariants
//! - A voter passes on each round's nomination at most once, and each round's result at most once.
//! - Only its initiator completes a round, once: a round has at most one winner, and it is among those visited.
//! - The winner of a round saw a majority of the voters agree; without one there is no winner.
//! - Outside the fallback this member may stand only as the winner of the last result it heard.
//! - A member that is no voter, or sees no live majority, starts nothing; one that hears the leader takes no part.
//!
//! # Bounds
//! One round and one hop under way at a time. A round sends at most 2 voters² · `hop_attempts` messages, and as many
//! acknowledgements. It ends within twice `round_timeout`.
//!
//! # What it does not do
//! It does not count votes or change the set of voters; the driver tells it which member leads.

mod config;
mod event;
mod hop;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};

use idunno_shared::ids::{NodeId, Term};
use idunno_shared::wire::consensus::{Candidate, ElectionId, RingBody, RingMessage, VOTERS_MAX, Visited};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use self::config::RingConfig;
pub use self::event::{RingCounters, RingEffect, RingEvent, RingView};
use self::hop::Hop;
use crate::invariant::InvariantViolation;
use crate::machine::Machine;
use crate::time::Instant;

/// The ring election of one member.
///
/// [`RingEvent::Tick`] is due at its deadline.
#[derive(Debug)]
pub struct Ring {
    config: RingConfig,
    id: NodeId,
    rng: ChaCha8Rng,
    nonce: u32,
    view: RingView,
    /// The highest term known.
    term: Term,
    /// The highest term in which a leader was observed.
    led: Option<Term>,
    /// The highest round number seen.
    number: u64,
    round: Option<Round>,
    /// When to start a round, if none comes by before.
    start_at: Option<Instant>,
    failed_rounds: u32,
    /// All voters may stand, until there is a leader.
    fallback: bool,
    may_stand: bool,
    hops: u64,
    effects: VecDeque<RingEffect>,
    counters: RingCounters,
}

/// The greatest round this voter takes part in.
#[derive(Debug)]
struct Round {
    id: ElectionId,
    /// When it counts as failed.
    deadline: Instant,
    /// Its winner is known here, and passed on.
    decided: bool,
    hop: Option<Hop>,
    unreachable: BTreeSet<NodeId>,
}

impl Machine for Ring {
    type Event = RingEvent;
    type Effect = RingEffect;

    fn handle(&mut self, event: RingEvent, now: Instant) {
        match event {
            RingEvent::RingView(view) => self.on_view(view, now),
            RingEvent::Message { from, message } => self.on_message(from, message, now),
            RingEvent::HopFailed { to, hop } => self.on_hop_failed(to, hop, now),
            RingEvent::LeaderObserved { term, id } => self.on_leader(term, id),
            RingEvent::Tick => {}
        }
        self.run_timers(now);
    }

    /// When the next [`RingEvent::Tick`] is due, if ever.
    fn next_deadline(&self) -> Option<Instant> {
        let round = self.round.as_ref();
        let hop = round.and_then(|round| round.hop.as_ref()).map(Hop::deadline);
        [self.start_at, round.map(|round| round.deadline), hop].into_iter().flatten().min()
    }

    fn poll_effect(&mut self) -> Option<RingEffect> {
        self.effects.pop_front()
    }

    fn check(&self) -> Result<(), InvariantViolation> {
        if self.view.live_voters.len() > VOTERS_MAX {
            return Err(InvariantViolation::new(format!("{} live voters", self.view.live_voters.len())));
        }
        if self.fallback && (self.start_at.is_some() || !self.may_stand) {
            return Err(InvariantViolation::new("in the fallback, yet starting rounds or not standing"));
        }
        if let Some(round) = &self.round {
            if round.id.number > self.number {
                return Err(InvariantViolation::new(format!(
                    "{:?} is beyond the highest number seen, {}",
                    round.id, self.number
                )));
            }
            if self.start_at.is_some() {
                return Err(InvariantViolation::new("a round is to start while one is under way"));
            }
        }
        Ok(())
    }
}

impl Ring {
    /// A voter that knows nobody yet. `seed` should differ from member to member and from boot to boot.
    pub fn new(config: RingConfig, id: NodeId, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Self {
            config,
            id,
            nonce: rng.random(),
            rng,
            view: RingView::default(),
            term: Term(0),
            led: None,
            number: 0,
            round: None,
            start_at: None,
            failed_rounds: 0,
            fallback: false,
            may_stand: false,
            hops: 0,
            effects: VecDeque::new(),
            counters: RingCounters::default(),
        }
    }

    /// Whether this member's log may ask for votes.
    pub const fn may_stand(&self) -> bool {
        self.may_stand
    }

    /// Whether all voters may stand, because rounds failed.
    pub const fn is_fallback(&self) -> bool {
        self.fallback
    }

    /// The round under way.
    pub fn round(&self) -> Option<ElectionId> {
        self.round.as_ref().map(|round| round.id)
    }

    /// How often each mechanism was used.
    pub const fn counters(&self) -> &RingCounters {
        &self.counters
    }

    /// Whether an election is needed and has a chance.
    fn is_wanted(&self) -> bool {
        self.view.coordinator.is_none() && self.is_electorate()
    }

    /// Whether this is a voter that sees a live majority.
    fn is_electorate(&self) -> bool {
        self.view.live_voters.contains(&self.id) && self.view.is_majority(self.view.live_voters.len())
    }

    fn on_view(&mut self, mut view: RingView, now: Instant) {
        while view.live_voters.len() > VOTERS_MAX {
            view.live_voters.pop_last();
        }
        let appeared = view.coordinator.is_some() && view.coordinator != self.view.coordinator;
        self.term = self.term.max(view.log.term);
        self.view = view;
        if appeared || !self.is_electorate() {
            self.finish();
        }
        self.skip_the_dead(now);
    }

    fn on_leader(&mut self, term: Term, id: NodeId) {
        if self.led.is_some_and(|led| term <= led) {
            return;
        }
        self.led = Some(term);
        self.term = self.term.max(term);
        // Membership may know better than a lagging log that this leader is gone.
        if self.view.live_voters.contains(&id) {
            self.view.coordinator = Some(id);
            self.finish();
        }
    }

    /// There is a leader, or no chance of one: nobody stands.
    fn finish(&mut self) {
        self.round = None;
        self.start_at = None;
        self.failed_rounds = 0;
        self.fallback = false;
        self.set_may_stand(false);
    }

    fn run_timers(&mut self, now: Instant) {
        self.run_hop(now);
        if self.round.as_ref().is_some_and(|round| round.deadline <= now) {
            self.expire();
        }
        if !self.is_wanted() {
            self.start_at = None;
        } else if self.start_at.is_some_and(|at| at <= now) {
            self.start(now);
        } else if self.round.is_none() && self.start_at.is_none() && !self.fallback {
            self.start_at = Some(now + self.config.start_delay_max.mul_f64(self.rng.random_range(0.0..1.0)));
        }
    }

    /// The round has brought no leader in time.
    fn expire(&mut self) {
        self.round = None;
        if !self.is_wanted() {
            // The coordinator that others missed is still there.
            self.finish();
            return;
        }
        self.counters.failed += 1;
        self.failed_rounds += 1;
        if self.failed_rounds >= self.config.failed_rounds_max && !self.fallback && !self.view.is_silent {
            self.counters.fallbacks += 1;
            self.fallback = true;
            self.start_at = None;
            self.change_may_stand(true);
        }
    }

    fn start(&mut self, now: Instant) {
        self.number = self.number.saturating_add(1);
        self.counters.started += 1;
        let round = ElectionId { number: self.number, initiator: self.id, nonce: self.nonce };
        self.join_round(round, now);
        let mut visited = Visited::default();
        visited.add(self.id);
        self.pass_on(RingBody::Nominate { round, best: self.candidate(), visited }, now);
    }

    const fn candidate(&self) -> Candidate {
        Candidate { log: self.view.log, id: self.id }
    }

    fn join_round(&mut self, id: ElectionId, now: Instant) {
        self.number = self.number.max(id.number);
        self.start_at = None;
        let deadline = now + self.config.round_timeout;
        self.round = Some(Round { id, deadline, decided: false, hop: None, unreachable: BTreeSet::new() });
    }

    fn on_message(&mut self, from: NodeId, message: RingMessage, now: Instant) {
        let RingMessage { hop, term, body } = message;
        if matches!(body, RingBody::Ack) {
            self.on_ack(from, hop);
            return;
        }
        if !self.view.live_voters.contains(&self.id) {
            // Unacknowledged, so that the sender skips this member.
            return;
        }
        let is_led = self.view.coordinator.is_some();
        let is_stale = is_led && self.led.is_some_and(|led| term < led);
        if is_led && self.view.hears_leader && !is_stale {
            // Unacknowledged too. If the leader has just died, it is missing here as well by the sender's next try.
            self.counters.declined += 1;
            return;
        }
        let ack = RingMessage { hop, term: self.term, body: RingBody::Ack };
        self.effects.push_back(RingEffect::Send { to: from, message: ack });
        if is_stale {
            self.counters.stale += 1;
            return;
        }
        self.term = self.term.max(term);
        match body {
            RingBody::Nominate { round, best, visited } => self.on_nominate(round, best, visited, now),
            RingBody::Elected { round, winner } => self.on_elected(round, winner, now),
            RingBody::Ack => {}
        }
    }

    fn on_nominate(&mut self, round: ElectionId, best: Candidate, mut visited: Visited, now: Instant) {
        let current = self.round.as_ref().map(|round| round.id);
        if round.initiator == self.id {
            if current == Some(round) {
                self.complete(round, best, &visited, now);
            }
            return;
        }
        if current.is_some_and(|current| round <= current) {
            self.counters.swallowed += u64::from(current != Some(round));
            return;
        }
        if visited.add(self.id) {
            self.join_round(round, now);
            let best = best.max(self.candidate());
            self.pass_on(RingBody::Nominate { round, best, visited }, now);
        }
    }

    /// The nomination is back: names the winner, unless too few voters saw it or it was back before.
    fn complete(&mut self, round: ElectionId, winner: Candidate, visited: &Visited, now: Instant) {
        if self.view.is_majority(visited.as_slice().len()) && self.decide(winner, now) {
            self.counters.completed += 1;
            self.pass_on(RingBody::Elected { round, winner }, now);
        }
    }

    fn on_elected(&mut self, round: ElectionId, winner: Candidate, now: Instant) {
        let current = self.round.as_ref().map(|round| round.id);
        if round.initiator == self.id || current.is_some_and(|current| round < current) {
            return;
        }
        if current != Some(round) {
            self.join_round(round, now);
        }
        if self.decide(winner, now) {
            self.pass_on(RingBody::Elected { round, winner }, now);
        }
    }

    /// Takes `winner` for the round's; returns whether that is new.
    fn decide(&mut self, winner: Candidate, now: Instant) -> bool {
        let Some(round) = self.round.as_mut().filter(|round| !round.decided) else { return false };
        round.decided = true;
        round.deadline = now + self.config.round_timeout;
        self.set_may_stand(winner.id == self.id);
        true
    }

    fn set_may_stand(&mut self, may_stand: bool) {
        if !self.fallback {
            self.change_may_stand(may_stand);
        }
    }

    fn change_may_stand(&mut self, may_stand: bool) {
        if self.may_stand != may_stand {
            self.may_stand = may_stand;
            self.effects.push_back(RingEffect::MayStand(may_stand));
        }
    }
}
