//! Probing: one member a period, over a shuffled round robin; first directly, then through others and over TCP. And the
//! pings on behalf of others that this takes (SWIM, section 4.3), with Lifeguard's nack.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::{DatagramBody, TcpPing, TcpPong};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{MAX_RELAYS, Swim, SwimConfig, SwimEffect, TcpPingOutcome};
use crate::invariant::InvariantViolation;
use crate::time::Instant;

/// The probe under way, and the order of those to come.
#[derive(Debug)]
pub(super) struct Prober {
    current: Option<Probe>,
    /// When the current period ends and the next probe starts.
    next: Instant,
    /// The members to be probed next, from the back.
    order: Vec<NodeId>,
    seq: u64,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    target: NodeId,
    seq: u64,
    /// When others are asked, if the direct ping is unanswered; none once they are.
    ask_at: Option<Instant>,
    /// A member that was asked sent a nack, so packets do reach this member.
    got_nack: bool,
    answered_over_tcp: bool,
}

impl Prober {
    pub(super) fn new(config: &SwimConfig, rng: &mut ChaCha8Rng, now: Instant) -> Self {
        let next = now + config.probe_period.mul_f64(rng.random_range(0.0..1.0));
        // Numbers of an earlier boot must not match; small ones are short on the wire.
        let seq = u64::from(rng.random::<u32>() >> 1);
        Self { current: None, next, order: Vec::new(), seq }
    }

    pub(super) fn deadline(&self) -> Instant {
        let ask_at = self.current.and_then(|probe| probe.ask_at);
        ask_at.map_or(self.next, |at| at.min(self.next))
    }

    pub(super) fn abandon(&mut self) {
        self.current = None;
    }

    /// `id` is live: it is probed at a random point of this round.
    pub(super) fn add(&mut self, id: NodeId, rng: &mut ChaCha8Rng) {
        if !self.order.contains(&id) {
            self.order.insert(rng.random_range(0..=self.order.len()), id);
        }
    }

    pub(super) fn probe_next(&mut self, id: NodeId) {
        self.order.retain(|&other| other != id);
        self.order.push(id);
    }

    pub(super) fn forget(&mut self, id: NodeId) {
        self.order.retain(|&other| other != id);
        self.current = self.current.filter(|probe| probe.target != id);
    }

    pub(super) const fn next_seq(&mut self) -> u64 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }
}

impl Swim {
    pub(super) fn run_probe(&mut self, now: Instant) {
        if now >= self.prober.next {
            self.end_probe(now);
            self.start_probe(now);
        } else if let Some(probe) = self.prober.current
            && probe.ask_at.is_some_and(|at| at <= now)
        {
            self.probe_indirectly(probe, now);
        }
    }

    fn start_probe(&mut self, now: Instant) {
        self.prober.next = now + self.local_health.stretch(self.config.probe_period);
        if self.prober.order.is_empty() {
            self.prober.order = self.table.live().collect();
            self.prober.order.shuffle(&mut self.rng);
        }
        let Some(target) = self.prober.order.pop() else { return };
        let Some(to) = self.table.get(target).map(|member| member.record.address) else { return };
        let seq = self.prober.next_seq();
        self.counters.probes += 1;
        let ask_at = Some(now + self.local_health.stretch(self.config.ping_timeout));
        self.prober.current = Some(Probe { target, seq, ask_at, got_nack: false, answered_over_tcp: false });
        self.send(to, target, DatagramBody::Ping { seq, target });
    }

    /// The direct ping is unanswered: ask others, and try TCP, which also tells a suspect that it is one.
    fn probe_indirectly(&mut self, probe: Probe, now: Instant) {
        let Probe { target, seq, .. } = probe;
        self.prober.current = Some(Probe { ask_at: None, ..probe });
        for (id, to) in self.random_live(self.config.ping_request_peers, Some(target)) {
            self.counters.ping_requests += 1;
            self.send(to, id, DatagramBody::PingRequest { seq, target });
        }
        if let Some(record) = self.table.get(target).map(|member| member.record.clone()) {
            let (to, timeout) = (record.address, self.prober.next.since(now));
            let message = TcpPing { target, believed: Some(record) };
            self.effects.push_back(SwimEffect::TcpPing { seq, to, message, timeout });
        }
    }

    /// The period is over: a target that has not answered by now is suspect.
    fn end_probe(&mut self, now: Instant) {
        let Some(probe) = self.prober.current.take() else { return };
        if probe.answered_over_tcp {
            self.counters.tcp_acks += 1;
            self.local_health.improve();
            self.table.note_answer(probe.target, false);
            return;
        }
        if !probe.got_nack {
            self.local_health.worsen();
        }
        self.suspect(probe.target, now);
    }

    pub(super) fn on_ping(&mut self, from: NodeId, address: SocketAddr, seq: u64, target: NodeId) {
        if target == self.me.id {
            self.send(address, from, DatagramBody::Ack { seq });
        } else {
            // This member listens at the target's address now: send its own record.
            self.rumours.add(self.me.id);
            self.send(address, from, DatagramBody::Gossip);
        }
    }

    pub(super) fn on_ack(&mut self, from: NodeId, seq: u64) {
        if self.prober.current.is_some_and(|probe| probe.seq == seq && probe.target == from) {
            self.end_answered(from);
        } else {
            self.on_relayed_ack(from, seq);
        }
    }

    pub(super) fn on_indirect_ack(&mut self, seq: u64) {
        if let Some(probe) = self.prober.current.filter(|probe| probe.seq == seq) {
            self.counters.indirect_acks += 1;
            self.end_answered(probe.target);
        }
    }

    /// The probe under way was answered over UDP.
    fn end_answered(&mut self, target: NodeId) {
        self.prober.current = None;
        self.local_health.improve();
        self.table.note_answer(target, true);
    }

    pub(super) fn on_nack(&mut self, seq: u64) {
        if let Some(probe) = self.prober.current.as_mut().filter(|probe| probe.seq == seq) {
            self.counters.nacks += 1;
            probe.got_nack = true;
        }
    }

    pub(super) fn on_tcp_ping_request(&mut self, exchange: u64, message: &TcpPing) {
        if let Some(believed) = message.believed.as_ref().filter(|believed| believed.id == self.me.id) {
            self.refute(believed);
        }
        // The driver fills in the founder.
        let message = TcpPong { record: self.me.clone(), founder: None };
        self.effects.push_back(SwimEffect::AnswerTcpPing { exchange, message });
    }

    pub(super) fn on_tcp_ping_result(
        &mut self,
        seq: u64,
        target: NodeId,
        outcome: &TcpPingOutcome,
        now: Instant,
    ) {
        if self.on_dialled_back(seq, outcome, now) {
            return;
        }
        match outcome {
            TcpPingOutcome::Answered { record } if record.id == target => {
                if let Some(probe) = self.prober.current.as_mut().filter(|probe| probe.seq == seq) {
                    probe.answered_over_tcp = true;
                }
                // A suspect refutes in its answer.
                self.receive_self_record(record, now);
            }
            TcpPingOutcome::Answered { .. } | TcpPingOutcome::Refused => self.on_refused(target, now),
            TcpPingOutcome::TimedOut => {}
        }
    }
}

/// Pings on behalf of others, by the number of this member's own ping, which rises with time.
#[derive(Debug, Default)]
pub(super) struct Relays(BTreeMap<u64, Relay>);

/// A ping on behalf of `requester`, which knows it as `seq`.
#[derive(Clone, Copy, Debug)]
struct Relay {
    target: NodeId,
    requester: NodeId,
    to: SocketAddr,
    seq: u64,
    /// When the requester gets a nack; none once it has.
    nack_at: Option<Instant>,
    /// When an answer is too late for the requester.
    over_at: Instant,
}

impl Relays {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.values().find_map(|relay| relay.nack_at)
    }

    pub(super) fn check(&self) -> Result<(), InvariantViolation> {
        if self.0.len() > MAX_RELAYS {
            Err(InvariantViolation::new(format!("{} relayed pings", self.0.len())))
        } else {
            Ok(())
        }
    }
}

impl Swim {
    /// Pings on behalf of another, only at the address known here: a request cannot aim at a third party.
    pub(super) fn on_ping_request(
        &mut self,
        from: NodeId,
        address: SocketAddr,
        seq: u64,
        target: NodeId,
        now: Instant,
    ) {
        let Some(to) = self.table.get(target).map(|member| member.record.address) else { return };
        let own = self.prober.next_seq();
        // At four fifths of the time within which the requester waits for an answer, as in Lifeguard.
        let nack_at = Some(now + self.config.ping_timeout * 4 / 5);
        let over_at = now + self.config.ping_timeout * 2;
        let relay = Relay { target, requester: from, to: address, seq, nack_at, over_at };
        self.relays.0.insert(own, relay);
        if self.relays.0.len() > MAX_RELAYS {
            // The oldest one's requester has given up.
            self.relays.0.pop_first();
        }
        self.send(to, target, DatagramBody::Ping { seq: own, target });
    }

    /// Passes an answer on, if `seq` is a ping on behalf of another.
    pub(super) fn on_relayed_ack(&mut self, from: NodeId, seq: u64) {
        if self.relays.0.get(&seq).is_some_and(|relay| relay.target == from)
            && let Some(relay) = self.relays.0.remove(&seq)
        {
            self.send(relay.to, relay.requester, DatagramBody::IndirectAck { seq: relay.seq });
        }
    }

    pub(super) fn run_relays(&mut self, now: Instant) {
        if self.relays.deadline().is_none_or(|due| now < due) {
            return;
        }
        self.relays.0.retain(|_, relay| now < relay.over_at);
        let silent: Vec<_> = self
            .relays
            .0
            .values_mut()
            .filter(|relay| relay.nack_at.is_some_and(|due| due <= now))
            .map(|relay| {
                relay.nack_at = None;
                *relay
            })
            .collect();
        for relay in silent {
            self.send(relay.to, relay.requester, DatagramBody::Nack { seq: relay.seq });
        }
    }
}
