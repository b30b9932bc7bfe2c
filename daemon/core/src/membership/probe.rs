//! Probing: one member a period, over a shuffled round robin; first directly, then through others and over TCP.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::DatagramBody;
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Config, Effect, MAX_RELAYS, Swim, TcpPingOutcome};
use crate::time::Instant;

/// The probe under way, the order of those to come, and pings on behalf of others.
#[derive(Debug)]
pub(super) struct Prober {
    current: Option<Probe>,
    /// When the current period ends and the next probe starts.
    next: Instant,
    /// Whom to probe next, from the back.
    order: Vec<NodeId>,
    seq: u64,
    relays: BTreeMap<u64, Relay>,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    target: NodeId,
    seq: u64,
    started: Instant,
    asked_others: bool,
    answered_over_tcp: bool,
}

/// A ping on behalf of `requester`, which knows it as `seq`.
#[derive(Clone, Copy, Debug)]
struct Relay {
    target: NodeId,
    requester: NodeId,
    to: SocketAddr,
    seq: u64,
}

impl Prober {
    pub(super) fn new(config: &Config, rng: &mut ChaCha8Rng, now: Instant) -> Self {
        let next = now + config.probe_period.mul_f64(rng.random_range(0.0..1.0));
        // Numbers of an earlier life must not match.
        let seq = rng.random::<u64>() >> 16;
        Self { current: None, next, order: Vec::new(), seq, relays: BTreeMap::new() }
    }

    pub(super) fn deadline(&self, config: &Config) -> Option<Instant> {
        let indirect = self.current.filter(|probe| !probe.asked_others);
        let indirect = indirect.map(|probe| probe.started + config.ping_timeout);
        indirect.into_iter().chain([self.next]).min()
    }

    pub(super) fn abandon(&mut self) {
        self.current = None;
    }

    /// `id` is live: its turn comes somewhere in this round.
    pub(super) fn add(&mut self, id: NodeId, rng: &mut ChaCha8Rng) {
        if !self.order.contains(&id) {
            self.order.insert(rng.random_range(0..=self.order.len()), id);
        }
    }

    /// `id` is gone.
    pub(super) fn forget(&mut self, id: NodeId) {
        self.order.retain(|&other| other != id);
        self.current = self.current.filter(|probe| probe.target != id);
    }

    fn next_seq(&mut self) -> u64 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if self.relays.len() > MAX_RELAYS {
            return Err(format!("{} relayed pings", self.relays.len()));
        }
        Ok(())
    }
}

impl Swim {
    pub(super) fn run_probe(&mut self, now: Instant) {
        if now >= self.prober.next {
            self.end_probe(now);
            self.start_probe(now);
        } else if let Some(probe) = self.prober.current
            && !probe.asked_others
            && now >= probe.started + self.config.ping_timeout
        {
            self.probe_indirectly(probe);
        }
    }

    fn start_probe(&mut self, now: Instant) {
        self.prober.next = now + self.config.probe_period;
        if self.prober.order.is_empty() {
            self.prober.order = self.table.live().collect();
            self.prober.order.shuffle(&mut self.rng);
        }
        let Some(target) = self.prober.order.pop() else { return };
        let Some(to) = self.table.get(target).map(|member| member.record.address) else { return };
        let seq = self.prober.next_seq();
        self.counters.probes += 1;
        self.prober.current =
            Some(Probe { target, seq, started: now, asked_others: false, answered_over_tcp: false });
        self.send(to, target, DatagramBody::Ping { seq, target });
    }

    /// The direct ping took too long: ask others, and try TCP.
    fn probe_indirectly(&mut self, probe: Probe) {
        let Probe { target, seq, .. } = probe;
        self.prober.current = Some(Probe { asked_others: true, ..probe });
        for (id, to) in self.random_live(self.config.ping_request_peers, Some(target)) {
            self.counters.ping_requests += 1;
            self.send(to, id, DatagramBody::PingRequest { seq, target });
        }
        if let Some(to) = self.table.get(target).map(|member| member.record.address) {
            self.effects.push_back(Effect::TcpPing { seq, target, to });
        }
    }

    /// The period is over: whoever has not answered by now is suspect.
    fn end_probe(&mut self, now: Instant) {
        let Some(probe) = self.prober.current.take() else { return };
        if probe.answered_over_tcp {
            self.counters.tcp_acks += 1;
            self.table.set_udp_blocked(probe.target, true);
        } else {
            self.suspect(probe.target, now);
        }
    }

    pub(super) fn on_ping(&mut self, from: NodeId, address: SocketAddr, seq: u64, target: NodeId) {
        if target == self.me.id {
            self.send(address, from, DatagramBody::Ack { seq });
        } else {
            // The target's address is this member's now: say who is here.
            self.rumours.add(self.me.id);
            self.send(address, from, DatagramBody::Gossip);
        }
    }

    pub(super) fn on_ack(&mut self, from: NodeId, seq: u64) {
        if self.prober.current.is_some_and(|probe| probe.seq == seq && probe.target == from) {
            self.prober.current = None;
            self.table.set_udp_blocked(from, false);
        } else if self.prober.relays.get(&seq).is_some_and(|relay| relay.target == from)
            && let Some(relay) = self.prober.relays.remove(&seq)
        {
            self.send(relay.to, relay.requester, DatagramBody::IndirectAck { seq: relay.seq });
        }
    }

    /// Pings on behalf of another, only at the address known here: a request cannot aim at a third party.
    pub(super) fn on_ping_request(&mut self, from: NodeId, address: SocketAddr, seq: u64, target: NodeId) {
        let Some(to) = self.table.get(target).map(|member| member.record.address) else { return };
        let own = self.prober.next_seq();
        self.prober.relays.insert(own, Relay { target, requester: from, to: address, seq });
        if self.prober.relays.len() > MAX_RELAYS {
            // The oldest has waited longest, and its requester has given up.
            self.prober.relays.pop_first();
        }
        self.send(to, target, DatagramBody::Ping { seq: own, target });
    }

    pub(super) fn on_indirect_ack(&mut self, seq: u64) {
        if self.prober.current.is_some_and(|probe| probe.seq == seq) {
            self.counters.indirect_acks += 1;
            self.prober.current = None;
        }
    }

    pub(super) fn on_tcp_ping_result(
        &mut self,
        seq: u64,
        target: NodeId,
        outcome: TcpPingOutcome,
        now: Instant,
    ) {
        match (outcome, &mut self.prober.current) {
            (TcpPingOutcome::Refused, _) => self.on_refused(target, now),
            (TcpPingOutcome::Answered, Some(probe)) if probe.seq == seq => probe.answered_over_tcp = true,
            (TcpPingOutcome::Answered | TcpPingOutcome::TimedOut, _) => {}
        }
    }
}
