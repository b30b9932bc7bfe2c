//! Voters with a ring each, over a lossy network, a lagging membership and a simple model of the log's votes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use idunno_core::election::{Ring, RingConfig, RingCounters, RingEffect, RingEvent, RingView};
use idunno_core::machine::Machine;
use idunno_core::time::Instant;
use idunno_shared::ids::{NodeId, Term};
use idunno_shared::wire::consensus::{Candidate, ElectionId, LogPosition, RingBody, RingMessage};
use rand::RngExt;

use crate::network::{Network, Quality, Trace};

/// How long membership takes to notice a change, at most, in milliseconds.
const NOTICE_MAX_MS: u64 = 800;

pub(crate) struct Voter {
    pub(crate) id: NodeId,
    pub(crate) ring: Option<Ring>,
    /// The host itself is gone: connections are not refused, they time out.
    powered_off: bool,
    life: u64,
    tick_at: Option<Instant>,
    pub(crate) log: LogPosition,
    term: Term,
    /// The leader that its log follows.
    pub(crate) leader: Option<usize>,
    /// The voters that its membership lists as live.
    live: BTreeSet<usize>,
    view: RingView,
    standing: bool,
}

/// What happens at a point in virtual time.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Message {
        from: usize,
        to: usize,
        message: RingMessage,
    },
    Tick {
        voter: usize,
        life: u64,
    },
    /// Membership at this voter notices who is reachable.
    Notice {
        voter: usize,
    },
    /// The log of this voter asks for votes, if it still may.
    Stand {
        voter: usize,
        life: u64,
    },
}

/// The outcome of one round.
#[derive(Default)]
struct Heard {
    visited: BTreeSet<NodeId>,
    winner: Option<Candidate>,
    stood: BTreeSet<usize>,
    messages: usize,
}

pub(crate) struct World {
    pub(crate) network: Network<What>,
    pub(crate) voters: Vec<Voter>,
    pub(crate) now: Instant,
    pub(crate) trace: Trace,
    pub(crate) counters: RingCounters,
    /// The voters that were allowed to stand, since the last reset.
    pub(crate) stood: BTreeSet<usize>,
    rounds: BTreeMap<ElectionId, Heard>,
    /// Voters that membership lists as live, even if they are not.
    pub(crate) unnoticed: BTreeSet<usize>,
    /// Voters whose log does not hear its leader, though membership sees it.
    pub(crate) deaf: BTreeSet<usize>,
    /// The leader of each term.
    led: BTreeMap<Term, usize>,
}

impl World {
    pub(crate) fn new(seed: u64, count: usize, quality: Quality) -> Self {
        let mut network = Network::new(seed, quality);
        let voters = (0..count).map(|voter| Voter {
            id: NodeId(1_000 * voter as u64 + network.rng.random_range(1..1_000)),
            ring: None,
            powered_off: false,
            life: 0,
            tick_at: None,
            log: LogPosition::default(),
            term: Term(0),
            leader: None,
            live: BTreeSet::new(),
            view: RingView::default(),
            standing: false,
        });
        let voters = voters.collect();
        let mut world = Self {
            network,
            voters,
            now: Instant::START,
            trace: Trace::new(),
            counters: RingCounters::default(),
            stood: BTreeSet::new(),
            rounds: BTreeMap::new(),
            unnoticed: BTreeSet::new(),
            deaf: BTreeSet::new(),
            led: BTreeMap::new(),
        };
        (0..count).for_each(|voter| world.start(voter));
        world
    }

    pub(crate) fn is_up(&self, voter: usize) -> bool {
        self.voters[voter].ring.is_some()
    }

    pub(crate) fn up(&self) -> BTreeSet<usize> {
        (0..self.voters.len()).filter(|&voter| self.is_up(voter)).collect()
    }

    pub(crate) fn is_majority(&self, voters: usize) -> bool {
        voters * 2 > self.voters.len()
    }

    pub(crate) fn start(&mut self, voter: usize) {
        let seed = self.network.rng.random();
        let state = &mut self.voters[voter];
        state.life += 1;
        state.powered_off = false;
        state.view = RingView::default();
        state.ring = Some(Ring::new(RingConfig::default(), state.id, seed));
        self.noticed_soon();
    }

    pub(crate) fn crash(&mut self, voter: usize, powered_off: bool) {
        let state = &mut self.voters[voter];
        if let Some(ring) = state.ring.take() {
            add(&mut self.counters, ring.counters());
        }
        let state = &mut self.voters[voter];
        state.powered_off = powered_off;
        (state.tick_at, state.leader, state.standing) = (None, None, false);
        self.noticed_soon();
    }

    /// Every voter's membership notices the present state, each at its own time, and once more after all of them.
    pub(crate) fn noticed_soon(&mut self) {
        for voter in 0..self.voters.len() {
            for delay_ms in [self.network.rng.random_range(1..NOTICE_MAX_MS), NOTICE_MAX_MS] {
                self.network.schedule(self.now + Duration::from_millis(delay_ms), What::Notice { voter });
            }
        }
    }

    /// The leader appends, and the voters that it reaches follow.
    pub(crate) fn append(&mut self, leader: usize, entries: u64) {
        let (log, term) = (self.voters[leader].log, self.voters[leader].term);
        let log = LogPosition { term, index: log.index + entries };
        for voter in self.reachable(leader) {
            // A log that has diverged is truncated to the leader's.
            if self.voters[voter].leader == Some(leader) && self.network.chance(900) || voter == leader {
                self.voters[voter].log = log;
                self.update_view(voter);
            }
        }
    }

    pub(crate) fn reachable(&self, from: usize) -> BTreeSet<usize> {
        let up = self.up().into_iter();
        up.filter(|&to| from == to || self.network.reaches_both_ways(from, to)).collect()
    }

    pub(crate) fn run_for(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some(at) = self.network.next_at().filter(|&at| at <= until) {
            let Some((_, what)) = self.network.next() else { break };
            self.now = at;
            self.step(what);
        }
        self.now = until;
    }

    /// The leader that all running voters follow, if there is one.
    pub(crate) fn leader(&self) -> Option<usize> {
        let mut leaders = self.up().into_iter().map(|voter| self.voters[voter].leader);
        let first = leaders.next()??;
        (self.is_up(first) && leaders.all(|leader| leader == Some(first))).then_some(first)
    }

    pub(crate) fn run_until_led(&mut self, bound: Duration) -> usize {
        let started = self.now;
        loop {
            if let Some(leader) = self.leader() {
                return leader;
            }
            assert!(self.now.since(started) < bound, "no leader after {bound:?}");
            self.run_for(Duration::from_millis(10));
        }
    }

    /// The highest term known to any voter.
    pub(crate) fn term(&self) -> Term {
        self.voters.iter().map(|voter| voter.term).max().unwrap_or_default()
    }

    /// Runs until a voter has won a later term.
    pub(crate) fn run_until_term_above(&mut self, term: Term, bound: Duration) {
        let started = self.now;
        while self.term() <= term {
            assert!(self.now.since(started) < bound, "no new term after {bound:?}");
            self.run_for(Duration::from_millis(10));
        }
        self.deaf.clear();
    }

    fn step(&mut self, what: What) {
        match what {
            What::Message { from, to, message } => {
                let from_id = self.voters[from].id;
                if self.is_up(to) {
                    self.update_view(to);
                    self.handle(to, RingEvent::Message { from: from_id, message });
                } else if !self.voters[to].powered_off && self.network.reaches_both_ways(from, to) {
                    self.handle(from, RingEvent::HopFailed { to: self.voters[to].id, hop: message.hop });
                }
            }
            What::Tick { voter, life } => {
                if self.voters[voter].life == life && self.voters[voter].tick_at == Some(self.now) {
                    self.voters[voter].tick_at = None;
                    self.handle(voter, RingEvent::Tick);
                }
            }
            What::Notice { voter } => self.notice(voter),
            What::Stand { voter, life } => {
                if self.voters[voter].life == life {
                    self.stand(voter);
                }
            }
        }
    }

    fn notice(&mut self, voter: usize) {
        if !self.is_up(voter) {
            return;
        }
        self.voters[voter].live = self.reachable(voter).union(&self.unnoticed).copied().collect();
        let majority = self.is_majority(self.voters[voter].live.len());
        if self.voters[voter].leader.is_some_and(|leader| !self.voters[voter].live.contains(&leader))
            || self.voters[voter].leader == Some(voter) && !majority
        {
            self.voters[voter].leader = None;
        }
        // A leader that is reachable again sends heartbeats.
        let newest = self.voters[voter]
            .live
            .iter()
            .filter(|&&peer| self.voters[peer].leader == Some(peer))
            .max_by_key(|&&peer| self.voters[peer].term);
        if let Some(&leader) = newest {
            self.follow(voter, leader);
        }
        self.update_view(voter);
    }

    fn follow(&mut self, voter: usize, leader: usize) {
        let (term, id) = (self.voters[leader].term, self.voters[leader].id);
        if !self.is_up(voter) || self.voters[voter].term > term {
            return;
        }
        let state = &mut self.voters[voter];
        (state.term, state.leader) = (term, Some(leader));
        self.voters[voter].log = self.voters[leader].log;
        self.handle(voter, RingEvent::LeaderObserved { term, id });
        self.update_view(voter);
    }

    /// Whether the leader that this voter follows reaches it.
    fn hears(&self, voter: usize) -> bool {
        let is_leading = |leader: usize| self.voters[leader].leader == Some(leader);
        let leader = self.voters[voter].leader.filter(|_| !self.deaf.contains(&voter));
        leader.is_some_and(|leader| is_leading(leader) && self.reachable(voter).contains(&leader))
    }

    /// Hands each ring its view, if it changed.
    pub(crate) fn update_views(&mut self) {
        self.up().into_iter().for_each(|voter| self.update_view(voter));
    }

    /// The same for one voter.
    fn update_view(&mut self, voter: usize) {
        let state = &self.voters[voter];
        let is_deaf = self.deaf.contains(&voter);
        let view = RingView {
            live_voters: state.live.iter().map(|&peer| self.voters[peer].id).collect(),
            voter_count: self.voters.len(),
            coordinator: state
                .leader
                .filter(|leader| state.live.contains(leader) && !is_deaf)
                .map(|leader| self.voters[leader].id),
            hears_leader: self.hears(voter),
            is_silent: is_deaf,
            log: if is_deaf && state.leader == Some(voter) { LogPosition::default() } else { state.log },
        };
        if view != state.view {
            self.voters[voter].view = view.clone();
            self.handle(voter, RingEvent::RingView(view));
        }
    }

    /// The vote: won by a majority that is reachable, has no longer log, and follows no reachable leader.
    fn stand(&mut self, voter: usize) {
        self.voters[voter].standing = false;
        if !self.voters[voter].ring.as_ref().is_some_and(Ring::may_stand) {
            return;
        }
        let mine = self.voters[voter].log;
        let reachable = self.reachable(voter);
        let grants = |&&peer: &&usize| self.voters[peer].log <= mine && !self.hears(peer);
        if !self.is_majority(reachable.iter().filter(grants).count()) {
            self.stand_later(voter);
            return;
        }
        let newest = reachable.iter().map(|&peer| self.voters[peer].term).max().unwrap_or_default();
        let term = Term(newest.0 + 1);
        assert!(self.led.insert(term, voter).is_none(), "two leaders of term {term}");
        let state = &mut self.voters[voter];
        (state.term, state.leader) = (term, Some(voter));
        state.log = LogPosition { term, index: state.log.index + 1 };
        for peer in reachable {
            self.follow(peer, voter);
        }
    }

    fn stand_later(&mut self, voter: usize) {
        if !self.voters[voter].standing {
            self.voters[voter].standing = true;
            let delay = Duration::from_millis(self.network.rng.random_range(100..300));
            let life = self.voters[voter].life;
            self.network.schedule(self.now + delay, What::Stand { voter, life });
        }
    }

    fn handle(&mut self, voter: usize, event: RingEvent) {
        self.trace.add(format!("{} {voter} {event:?}", self.now).as_bytes());
        let Some(ring) = &mut self.voters[voter].ring else { return };
        ring.handle(event, self.now);
        assert_eq!(ring.check(), Ok(()), "{voter} at {}", self.now);
        let effects: Vec<_> = std::iter::from_fn(|| ring.poll_effect()).collect();
        for effect in effects {
            match effect {
                RingEffect::Send { to, message } => self.send(voter, to, message),
                RingEffect::MayStand(true) => {
                    self.check_stands(voter);
                    self.stand_later(voter);
                }
                RingEffect::MayStand(false) => {}
            }
        }
        let state = &mut self.voters[voter];
        let due = state.ring.as_ref().and_then(Ring::next_deadline).map(|due| due.max(self.now));
        if let Some(due) = due.filter(|&due| state.tick_at != Some(due)) {
            state.tick_at = Some(due);
            self.network.schedule(due, What::Tick { voter, life: state.life });
        }
    }

    /// At most one voter stands for each round, and it is the one that the round named.
    fn check_stands(&mut self, voter: usize) {
        self.stood.insert(voter);
        let Some(ring) = &self.voters[voter].ring else { return };
        if ring.is_fallback() {
            return;
        }
        let Some(round) = ring.round() else { panic!("{voter} may stand outside of any round") };
        let record = self.rounds.entry(round).or_default();
        record.stood.insert(voter);
        assert_eq!(record.stood.len(), 1, "{:?} stand for {round:?}", record.stood);
    }

    fn send(&mut self, from: usize, to: NodeId, message: RingMessage) {
        self.check_message(from, &message);
        let Some(to) = self.voters.iter().position(|voter| voter.id == to) else {
            panic!("{to} is not a voter")
        };
        self.network.send(from, to, self.now, What::Message { from, to, message });
    }

    fn check_message(&mut self, from: usize, message: &RingMessage) {
        let from_id = self.voters[from].id;
        let round = match message.body {
            RingBody::Nominate { round, .. } | RingBody::Elected { round, .. } => round,
            RingBody::Ack => return,
        };
        let record = self.rounds.entry(round).or_default();
        record.messages += 1;
        let bound = 2 * self.voters.len().pow(2) * 2;
        assert!(record.messages <= bound, "{} messages of {round:?}", record.messages);
        match &message.body {
            RingBody::Nominate { best, visited, .. } => {
                record.visited.extend(visited.as_slice());
                assert!(visited.as_slice().contains(&from_id) && visited.as_slice().contains(&best.id));
            }
            RingBody::Elected { winner, .. } => {
                assert_eq!(*record.winner.get_or_insert(*winner), *winner, "two winners of {round:?}");
                assert!(record.visited.contains(&winner.id), "{round:?} names a voter that it did not visit");
            }
            RingBody::Ack => {}
        }
    }

    /// The counters of all processes, past and present.
    pub(crate) fn all_counters(&self) -> RingCounters {
        let mut all = self.counters;
        self.voters
            .iter()
            .filter_map(|voter| voter.ring.as_ref())
            .for_each(|ring| add(&mut all, ring.counters()));
        all
    }
}

pub(crate) fn add(sum: &mut RingCounters, more: &RingCounters) {
    sum.started += more.started;
    sum.completed += more.completed;
    sum.skipped += more.skipped;
    sum.swallowed += more.swallowed;
    sum.stale += more.stale;
    sum.declined += more.declined;
    sum.failed += more.failed;
    sum.fallbacks += more.fallbacks;
}
