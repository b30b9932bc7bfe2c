//! Any failure detector on the simulated network, with silent deaths and a starved member.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use idunno_core::time::Instant;
use idunno_tests::network::{Network, Quality};
use rand::RngExt;

/// How many messages a socket holds while its process does not run.
const SOCKET_BACKLOG: usize = 256;
/// A starved process sleeps for so long, then runs for so long, over and over.
const STARVED_MS: std::ops::Range<u64> = 500..3_000;
const RUNNING_MS: std::ops::Range<u64> = 10..100;

/// What a failure detector wants done, or tells.
pub(crate) enum Output<M> {
    /// Send a message of so many bytes, as a datagram or on an open TCP connection.
    Send { to: usize, message: M, bytes: usize, reliable: bool },
    /// A member is dead.
    Dead { host: usize },
}

/// A failure detector with its timers.
pub(crate) trait Detector: Sized {
    type Message: Clone;

    /// One of `hosts` members, all of whom it knows already.
    fn new(host: usize, hosts: usize, seed: u64) -> Self;
    fn receive(&mut self, from: usize, message: Self::Message, now: Instant);
    fn wake(&mut self, now: Instant);
    fn next_wake(&self) -> Option<Instant>;
    fn outputs(&mut self) -> Vec<Output<Self::Message>>;
}

struct Host<D: Detector> {
    detector: D,
    died: Option<Instant>,
    is_frozen: bool,
    backlog: VecDeque<(usize, D::Message)>,
    wakes_at: Option<Instant>,
}

#[derive(Clone)]
enum What<M> {
    Message { from: usize, host: usize, message: M },
    Wake { host: usize },
    Freeze { host: usize },
    Thaw { host: usize },
}

/// What was sent.
#[derive(Clone, Copy, Default)]
pub(crate) struct Traffic {
    pub(crate) datagrams: u64,
    /// Of datagrams and on connections, without headers below UDP and TCP.
    pub(crate) bytes: u64,
}

/// A cluster and what was seen of it.
pub(crate) struct Cluster<D: Detector> {
    network: Network<What<D::Message>>,
    hosts: Vec<Host<D>>,
    starved: Option<usize>,
    pub(crate) now: Instant,
    pub(crate) traffic: Traffic,
    /// By the dead: when each of the others came to know.
    known: BTreeMap<usize, BTreeMap<usize, Instant>>,
    /// Times that a member held another dead that was up: a healthy one, and the starved one.
    pub(crate) false_deaths: [u64; 2],
}

impl<D: Detector> Cluster<D> {
    pub(crate) fn new(seed: u64, hosts: usize, loss_per_mille: u32, starve: bool) -> Self {
        let quality = Quality { loss_per_mille, ..Quality::LAN };
        let mut network = Network::new(seed, quality);
        let host = |host| Host {
            detector: D::new(host, hosts, seed.wrapping_mul(10_007).wrapping_add(host as u64)),
            died: None,
            is_frozen: false,
            backlog: VecDeque::new(),
            wakes_at: None,
        };
        let starved = starve.then(|| network.rng.random_range(0..hosts));
        let hosts = (0..hosts).map(host).collect();
        let mut cluster = Self {
            network,
            hosts,
            starved,
            now: Instant::START,
            traffic: Traffic::default(),
            known: BTreeMap::new(),
            false_deaths: [0; 2],
        };
        for host in 0..cluster.hosts.len() {
            cluster.settle(host);
        }
        if let Some(host) = starved {
            cluster.network.schedule(Instant::START, What::Freeze { host });
        }
        cluster
    }

    /// A silent death of a random member that is not the starved one.
    pub(crate) fn kill_one(&mut self) {
        loop {
            let host = self.network.rng.random_range(0..self.hosts.len());
            if self.hosts[host].died.is_none() && self.starved != Some(host) {
                self.hosts[host].died = Some(self.now);
                self.known.insert(host, BTreeMap::new());
                return;
            }
        }
    }

    /// For each death how long it took until the last healthy member knew; none if one never did.
    pub(crate) fn detections(&self) -> Vec<Option<Duration>> {
        let is_observer = |host: usize| self.hosts[host].died.is_none() && self.starved != Some(host);
        let observers: Vec<_> = (0..self.hosts.len()).filter(|&host| is_observer(host)).collect();
        let detection = |(dead, known): (&usize, &BTreeMap<usize, Instant>)| {
            let died = self.hosts[*dead].died?;
            let times: Option<Vec<_>> = observers.iter().map(|host| known.get(host).copied()).collect();
            times?.into_iter().max().map(|last| last.since(died))
        };
        self.known.iter().map(detection).collect()
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

    fn step(&mut self, what: What<D::Message>) {
        let now = self.now;
        match what {
            What::Message { from, host, message } => {
                let state = &mut self.hosts[host];
                if state.died.is_some() {
                } else if !state.is_frozen {
                    state.detector.receive(from, message, now);
                    self.settle(host);
                } else if state.backlog.len() < SOCKET_BACKLOG {
                    state.backlog.push_back((from, message));
                }
            }
            What::Wake { host } => {
                let state = &mut self.hosts[host];
                if state.died.is_none() && !state.is_frozen && state.wakes_at == Some(now) {
                    state.wakes_at = None;
                    state.detector.wake(now);
                    self.settle(host);
                }
            }
            What::Freeze { host } => {
                self.hosts[host].is_frozen = true;
                let pause = Duration::from_millis(self.network.rng.random_range(STARVED_MS));
                self.network.schedule(now + pause, What::Thaw { host });
            }
            What::Thaw { host } => {
                self.thaw(host);
                let pause = Duration::from_millis(self.network.rng.random_range(RUNNING_MS));
                self.network.schedule(now + pause, What::Freeze { host });
            }
        }
    }

    /// Timers and sockets are ready at once; either may come first.
    fn thaw(&mut self, host: usize) {
        let timers_first = self.network.chance(500);
        let state = &mut self.hosts[host];
        state.is_frozen = false;
        state.wakes_at = None;
        if timers_first {
            state.detector.wake(self.now);
        }
        while let Some((from, message)) = state.backlog.pop_front() {
            state.detector.receive(from, message, self.now);
        }
        if !timers_first {
            state.detector.wake(self.now);
        }
        self.settle(host);
    }

    /// Carries out what the detector wants, and sees to its next wake-up.
    fn settle(&mut self, host: usize) {
        for output in self.hosts[host].detector.outputs() {
            match output {
                Output::Send { to, message, bytes, reliable } => {
                    self.send(host, to, message, bytes, reliable);
                }
                Output::Dead { host: dead } => self.note_death(host, dead),
            }
        }
        let state = &mut self.hosts[host];
        if let Some(due) = state.detector.next_wake().map(|due| due.max(self.now))
            && state.wakes_at != Some(due)
        {
            state.wakes_at = Some(due);
            self.network.schedule(due, What::Wake { host });
        }
    }

    fn send(&mut self, from: usize, to: usize, message: D::Message, bytes: usize, reliable: bool) {
        self.traffic.bytes += bytes as u64;
        let what = What::Message { from, host: to, message };
        if reliable {
            let at = self.now + self.network.tcp_latency();
            self.network.schedule(at, what);
        } else {
            self.traffic.datagrams += 1;
            self.network.send(from, to, self.now, what);
        }
    }

    fn note_death(&mut self, observer: usize, dead: usize) {
        if let Some(known) = self.known.get_mut(&dead) {
            known.entry(observer).or_insert(self.now);
        } else {
            self.false_deaths[usize::from(self.starved == Some(dead))] += 1;
        }
    }
}
