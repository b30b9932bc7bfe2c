//! A cluster of membership machines on a virtual network, with crashes, restarts, freezes and leaves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use idunno_core::machine::Machine;
use idunno_core::membership::{
    AdmissionError, MAX_SEEDS, Swim, SwimConfig, SwimCounters, SwimEffect, SwimEvent, TcpPingOutcome,
};
use idunno_core::time::Instant;
use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::{
    Generation, Incarnation, MemberRecord, MemberState, PushPull, TcpPing,
};
use rand::RngExt;

use super::checks::Truth;
use crate::network::{Network, Quality, Trace};

/// How many datagrams a frozen host's socket holds.
const SOCKET_BACKLOG: usize = 256;
/// A connection over TCP takes this many one-way latencies to bring its first message.
const TCP_LATENCIES: u32 = 3;
/// How often a member asks the introducer: one that knows others, and one that is alone.
const INTRODUCE_PERIOD: Duration = Duration::from_secs(30);
const INTRODUCE_ALONE_PERIOD: Duration = Duration::from_secs(5);

/// A machine on the network, with or without a process.
pub(crate) struct Host {
    pub(crate) id: NodeId,
    pub(crate) generation: u64,
    pub(crate) swim: Option<Swim>,
    /// The host itself is gone: connections are not refused, they time out.
    pub(crate) powered_off: bool,
    /// UDP to it is dropped, TCP is not.
    pub(crate) udp_in_blocked: bool,
    /// UDP from it is dropped, TCP is not.
    pub(crate) udp_out_blocked: bool,
    /// The address that it advertises, if it listens at another.
    pub(crate) advertises: Option<SocketAddr>,
    /// How often it got another address.
    moves: u8,
    /// Counts its processes.
    boot: u64,
    frozen: bool,
    backlog: VecDeque<SwimEvent>,
    tick_at: Option<Instant>,
    /// Its last record of each member, for the checks.
    pub(crate) seen: BTreeMap<NodeId, (Generation, Incarnation, MemberState)>,
}

/// What happens at a point in virtual time.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Datagram {
        from: usize,
        host: usize,
        event: SwimEvent,
    },
    PushPull {
        call: u64,
        host: usize,
        member: Option<NodeId>,
        message: PushPull,
    },
    TcpPing {
        call: u64,
        host: usize,
        message: TcpPing,
    },
    /// The call is over; the first outcome counts.
    CallOver {
        call: u64,
        event: SwimEvent,
    },
    Introduce {
        host: usize,
        boot: u64,
    },
    /// A host that got another address notices it.
    MoveNoticed {
        host: usize,
    },
    Tick {
        host: usize,
        boot: u64,
    },
    Thaw {
        host: usize,
    },
}

/// A connection over TCP that waits for its answer.
struct Call {
    from: usize,
    boot: u64,
    /// The number and target of a ping.
    ping: Option<(u64, NodeId)>,
}

pub(crate) struct World {
    pub(crate) config: SwimConfig,
    pub(crate) network: Network<What>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) now: Instant,
    pub(crate) trace: Trace,
    pub(crate) counters: SwimCounters,
    pub(crate) truth: Truth,
    /// When each observer first declared each subject dead: (observer, subject) by host, since the last reset.
    pub(crate) deaths: BTreeMap<(usize, NodeId), Instant>,
    /// Refusals with their reasons: (newcomer, member) by host.
    pub(crate) refusals: Vec<(usize, usize, AdmissionError)>,
    /// Who said that whom flaps: (observer, subject).
    pub(crate) flapping: BTreeSet<(usize, NodeId)>,
    /// Changes that members saw, all together.
    pub(crate) changes: u64,
    /// The members that the introducer knows.
    introduced: BTreeSet<usize>,
    calls: BTreeMap<u64, Call>,
    next_call: u64,
    /// Bytes of all datagrams sent.
    pub(crate) datagram_bytes: u64,
    steps: u64,
    next_id: u64,
}

pub(crate) fn address(host: usize) -> SocketAddr {
    let host = u16::try_from(host).unwrap_or(u16::MAX);
    SocketAddr::from(([10, 0, 0, 1], 7_000 + host))
}

/// Where nothing listens.
const NOWHERE: usize = usize::MAX;

impl World {
    pub(crate) fn new(seed: u64, hosts: usize, config: SwimConfig, quality: Quality) -> Self {
        let mut world = Self {
            config,
            network: Network::new(seed, quality),
            hosts: Vec::new(),
            now: Instant::START,
            trace: Trace::new(),
            counters: SwimCounters::default(),
            truth: Truth::default(),
            deaths: BTreeMap::new(),
            refusals: Vec::new(),
            flapping: BTreeSet::new(),
            changes: 0,
            introduced: BTreeSet::new(),
            calls: BTreeMap::new(),
            next_call: 0,
            datagram_bytes: 0,
            steps: 0,
            next_id: 0,
        };
        for _ in 0..hosts {
            let id = world.mint_id();
            world.hosts.push(Host {
                id,
                generation: 0,
                swim: None,
                powered_off: false,
                udp_in_blocked: false,
                udp_out_blocked: false,
                advertises: None,
                moves: 0,
                boot: 0,
                frozen: false,
                backlog: VecDeque::new(),
                tick_at: None,
                seen: BTreeMap::new(),
            });
        }
        world
    }

    /// Starts all hosts within half a second, joining through the first, and lets them find each other.
    pub(crate) fn started(seed: u64, hosts: usize, quality: Quality) -> Self {
        Self::started_with(seed, hosts, SwimConfig::default(), quality)
    }

    /// Like [`Self::started`], with another configuration.
    pub(crate) fn started_with(seed: u64, hosts: usize, config: SwimConfig, quality: Quality) -> Self {
        let mut world = Self::new(seed, hosts, config, quality);
        for host in 0..hosts {
            world.start(host, &[0]);
            let pause = world.network.rng.random_range(0..500_000 / hosts as u64);
            world.run_for(Duration::from_micros(pause));
        }
        world.run_until_converged(Duration::from_secs(20));
        world.deaths.clear();
        world
    }

    /// Where `host` listens now.
    pub(crate) fn address_of(&self, host: usize) -> SocketAddr {
        let mut address = address(host);
        address.set_ip([10, 0, self.hosts[host].moves, 1].into());
        address
    }

    /// The host that listens there.
    fn host_at(&self, address: SocketAddr) -> usize {
        let host = usize::from(address.port() - 7_000);
        if host < self.hosts.len() && self.address_of(host) == address { host } else { NOWHERE }
    }

    /// `host` gets another address. Its process is told with [`Self::tell_move`], or never.
    pub(crate) fn move_host(&mut self, host: usize) {
        self.hosts[host].moves += 1;
    }

    /// The process of `host`, if there is one, notices that it has another address; also one that has left, and may join again.
    pub(crate) fn tell_move(&mut self, host: usize) {
        let address = self.address_of(host);
        self.deliver(host, SwimEvent::Moved { address });
    }

    fn mint_id(&mut self) -> NodeId {
        self.next_id += 1;
        NodeId(self.next_id * 1_000 + self.network.rng.random_range(0..1_000))
    }

    pub(crate) fn is_up(&self, host: usize) -> bool {
        self.hosts[host].swim.as_ref().is_some_and(|swim| !swim.has_left())
    }

    pub(crate) fn up(&self) -> BTreeSet<usize> {
        (0..self.hosts.len()).filter(|&host| self.is_up(host)).collect()
    }

    /// Starts a process on `host`, a generation above the last one.
    pub(crate) fn start(&mut self, host: usize, seeds: &[usize]) {
        let seed = self.network.rng.random();
        let (now, config, own) = (self.now, self.config.clone(), self.address_of(host));
        let state = &mut self.hosts[host];
        state.generation += 1;
        state.boot += 1;
        state.powered_off = false;
        state.frozen = false;
        state.seen.clear();
        let Ok(name) = format!("vm{host}").parse() else { panic!("a host's name is a valid member name") };
        let me = MemberRecord {
            id: state.id,
            name,
            address: state.advertises.unwrap_or(own),
            generation: Generation(state.generation),
            incarnation: Incarnation(0),
            state: MemberState::Alive,
        };
        state.swim = Some(Swim::new(config, me, seed, now));
        let boot = state.boot;
        self.introduced.insert(host);
        self.network.schedule(now + INTRODUCE_ALONE_PERIOD, What::Introduce { host, boot });
        let seeds = seeds.iter().map(|&seed| self.address_of(seed)).collect();
        self.handle(host, SwimEvent::Join { seeds });
    }

    /// SIGKILL, or a power cut that takes the whole host.
    pub(crate) fn crash(&mut self, host: usize, powered_off: bool) {
        let state = &mut self.hosts[host];
        state.powered_off = powered_off;
        state.backlog.clear();
        state.tick_at = None;
        if let Some(swim) = state.swim.take() {
            add(&mut self.counters, swim.counters());
        }
    }

    /// Crashes a host and empties its data directory: it comes back with a new identity.
    pub(crate) fn wipe(&mut self, host: usize) {
        self.crash(host, false);
        self.hosts[host].id = self.mint_id();
        self.hosts[host].generation = 0;
    }

    pub(crate) fn freeze(&mut self, host: usize, pause: Duration) {
        if self.is_up(host) && !self.hosts[host].frozen {
            self.hosts[host].frozen = true;
            self.network.schedule(self.now + pause, What::Thaw { host });
        }
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

    /// Runs until all agree with the truth, and returns how long that took.
    pub(crate) fn run_until_converged(&mut self, bound: Duration) -> Duration {
        let started = self.now;
        while let Err(why) = self.converged() {
            assert!(self.now.since(started) < bound, "no agreement after {bound:?}: {why}");
            self.run_for(Duration::from_millis(100));
        }
        self.now.since(started)
    }

    fn step(&mut self, what: What) {
        match what {
            What::Datagram { from, host, event } => {
                if !self.hosts[from].udp_out_blocked && !self.hosts[host].udp_in_blocked {
                    self.deliver(host, event);
                }
            }
            What::Tick { host, boot } => {
                let state = &mut self.hosts[host];
                if state.boot == boot && state.tick_at == Some(self.now) && !state.frozen {
                    state.tick_at = None;
                    self.handle(host, SwimEvent::Tick);
                }
            }
            What::Thaw { host } => self.thaw(host),
            What::PushPull { call, host, member, message } => {
                if self.is_listening(host) {
                    self.deliver(host, SwimEvent::PushPullRequest { exchange: call, message });
                } else if self.refuses(host)
                    && let Some(id) = member
                {
                    self.answer(call, SwimEvent::ConnectionRefused { id });
                }
            }
            What::TcpPing { call, host, message } => {
                if self.is_listening(host) {
                    self.deliver(host, SwimEvent::TcpPingRequest { exchange: call, message });
                } else if self.refuses(host) {
                    self.answer_ping(call, TcpPingOutcome::Refused);
                }
            }
            What::CallOver { call, event } => {
                if let Some(Call { from, boot, .. }) = self.calls.remove(&call)
                    && self.hosts[from].boot == boot
                {
                    self.deliver(from, event);
                }
            }
            What::Introduce { host, boot } => self.introduce(host, boot),
            What::MoveNoticed { host } => self.tell_move(host),
        }
    }

    /// Asks the introducer, which is the host after the last one and may be cut off too.
    fn introduce(&mut self, host: usize, boot: u64) {
        let introducer = self.hosts.len();
        let state = &self.hosts[host];
        let Some(swim) = state.swim.as_ref().filter(|_| state.boot == boot) else { return };
        let (is_alone, has_left) = (swim.live_len() == 0, swim.has_left());
        let pause = if is_alone { INTRODUCE_ALONE_PERIOD } else { INTRODUCE_PERIOD };
        self.network.schedule(self.now + pause, What::Introduce { host, boot });
        if has_left || !self.network.reaches_both_ways(host, introducer) {
            return;
        }
        let known: Vec<_> =
            self.introduced.iter().rev().take(MAX_SEEDS).map(|&host| self.address_of(host)).collect();
        let event = if is_alone {
            SwimEvent::Join { seeds: known }
        } else {
            SwimEvent::Introduced { addresses: known }
        };
        self.deliver(host, event);
    }

    /// Opens a connection; its outcome is [`What::CallOver`].
    fn call(&mut self, from: usize, ping: Option<(u64, NodeId)>) -> u64 {
        self.next_call += 1;
        let boot = self.hosts[from].boot;
        self.calls.insert(self.next_call, Call { from, boot, ping });
        self.next_call
    }

    /// When a first message over TCP arrives. `None` if the hosts do not reach each other.
    fn arrival(&mut self, from: usize, to: usize) -> Option<Instant> {
        let reachable = to < self.hosts.len() && self.network.reaches_both_ways(from, to);
        let first = self.network.latency() * (TCP_LATENCIES - 1);
        let then = self.network.tcp_latency();
        reachable.then(|| self.now + first + then)
    }

    fn answer(&mut self, call: u64, event: SwimEvent) {
        let at = self.now + self.network.tcp_latency();
        self.network.schedule(at, What::CallOver { call, event });
    }

    fn answer_ping(&mut self, call: u64, outcome: TcpPingOutcome) {
        let Some((seq, target)) = self.calls.get(&call).and_then(|call| call.ping) else { return };
        self.answer(call, SwimEvent::TcpPingResult { seq, target, outcome });
    }

    /// Whether `host` can answer its caller.
    fn answers(&self, host: usize, call: u64) -> bool {
        self.calls.get(&call).is_some_and(|call| self.network.reaches_both_ways(host, call.from))
    }

    /// Whether no process listens, so that the host refuses connections.
    fn refuses(&self, host: usize) -> bool {
        !self.is_listening(host) && !self.hosts[host].powered_off
    }

    fn is_listening(&self, host: usize) -> bool {
        self.hosts[host].swim.is_some()
    }

    fn deliver(&mut self, host: usize, event: SwimEvent) {
        let state = &mut self.hosts[host];
        if state.swim.is_none() {
        } else if !state.frozen {
            self.handle(host, event);
        } else if state.backlog.len() < SOCKET_BACKLOG {
            state.backlog.push_back(event);
        }
    }

    /// A frozen process wakes: its timer and its sockets are ready at once, in any order.
    fn thaw(&mut self, host: usize) {
        self.hosts[host].frozen = false;
        if !self.is_listening(host) {
            return;
        }
        let timer_first = self.network.chance(500);
        if timer_first {
            self.handle(host, SwimEvent::Tick);
        }
        while let Some(event) = self.hosts[host].backlog.pop_front() {
            self.handle(host, event);
        }
        if !timer_first {
            self.handle(host, SwimEvent::Tick);
        }
    }

    /// Hands `event` to the machine, carries out its effects, checks it, and schedules its next tick.
    pub(crate) fn handle(&mut self, host: usize, event: SwimEvent) {
        self.steps += 1;
        self.trace.add(format!("{} {host} {event:?}", self.now).as_bytes());
        let Some(swim) = &mut self.hosts[host].swim else { return };
        swim.handle(event, self.now);
        assert_eq!(swim.check(), Ok(()), "{host} at {}", self.now);
        let effects: Vec<_> = std::iter::from_fn(|| swim.poll_effect()).collect();
        for effect in effects {
            self.carry_out(host, effect);
        }
        self.check_self(host);
        // A member that is forgotten and added again between two checks would seem to have an older record.
        let forgets = self.config.forget_after < SwimConfig::default().forget_after;
        if self.hosts.len() <= 15 || forgets || self.steps.is_multiple_of(16) {
            self.check_others(host);
        }
        let state = &mut self.hosts[host];
        let due = state.swim.as_ref().and_then(Swim::next_deadline).map(|due| due.max(self.now));
        if let Some(due) = due.filter(|&due| state.tick_at.is_none_or(|at| due != at)) {
            state.tick_at = Some(due);
            let boot = state.boot;
            self.network.schedule(due, What::Tick { host, boot });
        }
    }

    fn carry_out(&mut self, host: usize, effect: SwimEffect) {
        match effect {
            SwimEffect::SendDatagram { to, message } => {
                self.datagram_bytes += self.check_size(&message);
                let (from, to) = (self.address_of(host), self.host_at(to));
                if to < self.hosts.len() {
                    let event = SwimEvent::Datagram { from, message };
                    self.network.send(host, to, self.now, What::Datagram { from: host, host: to, event });
                }
            }
            SwimEffect::StartPushPull { to, member, message } => {
                let to = self.host_at(to);
                if let Some(at) = self.arrival(host, to) {
                    let call = self.call(host, None);
                    self.network.schedule(at, What::PushPull { call, host: to, member, message });
                }
            }
            SwimEffect::ReplyPushPull { exchange, message } => {
                if self.answers(host, exchange) {
                    let from = self.address_of(host);
                    self.answer(exchange, SwimEvent::PushPullReply { from, message });
                }
            }
            SwimEffect::RefusePushPull { exchange, error } => {
                if let Some(call) = self.calls.remove(&exchange) {
                    self.refusals.push((call.from, host, error));
                }
            }
            SwimEffect::TcpPing { seq, to, message, timeout } => {
                let (to, target) = (self.host_at(to), message.target);
                let call = self.call(host, Some((seq, target)));
                let event = SwimEvent::TcpPingResult { seq, target, outcome: TcpPingOutcome::TimedOut };
                self.network.schedule(self.now + timeout, What::CallOver { call, event });
                if let Some(at) = self.arrival(host, to) {
                    self.network.schedule(at, What::TcpPing { call, host: to, message });
                }
            }
            SwimEffect::AnswerTcpPing { exchange, message } => {
                if self.answers(host, exchange) {
                    self.answer_ping(exchange, TcpPingOutcome::Answered { record: message.record });
                }
            }
            SwimEffect::Changed(change) => {
                self.changes += 1;
                if change.record.state == MemberState::Dead {
                    self.deaths.entry((host, change.record.id)).or_insert(self.now);
                }
            }
            SwimEffect::Flapping(record) => {
                self.flapping.insert((host, record.id));
            }
            SwimEffect::Conflict(record) => panic!("no data directory was copied, yet {record:?}"),
            SwimEffect::LeaveDone => {}
        }
    }

    /// The counters of all processes, past and present.
    pub(crate) fn all_counters(&self) -> SwimCounters {
        let mut all = self.counters;
        self.hosts
            .iter()
            .filter_map(|host| host.swim.as_ref())
            .for_each(|swim| add(&mut all, swim.counters()));
        all
    }
}

pub(crate) fn add(sum: &mut SwimCounters, more: &SwimCounters) {
    sum.probes += more.probes;
    sum.ping_requests += more.ping_requests;
    sum.indirect_acks += more.indirect_acks;
    sum.tcp_acks += more.tcp_acks;
    sum.nacks += more.nacks;
    sum.confirmations += more.confirmations;
    sum.dial_backs += more.dial_backs;
    sum.admissions += more.admissions;
    sum.refusals += more.refusals;
    sum.ignored_rumours += more.ignored_rumours;
    sum.unknown_senders += more.unknown_senders;
    sum.forgotten += more.forgotten;
    sum.suspicions += more.suspicions;
    sum.suspicions_expired += more.suspicions_expired;
    sum.refused += more.refused;
    sum.refutations += more.refutations;
    sum.reconnects += more.reconnects;
    sum.push_pulls += more.push_pulls;
    sum.stalls += more.stalls;
    sum.moves += more.moves;
    sum.records_dropped += more.records_dropped;
}
