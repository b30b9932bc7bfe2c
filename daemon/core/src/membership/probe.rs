//! Probing: one member a period, over a shuffled round robin; first directly, then through others and over TCP.

use std::net::SocketAddr;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::{DatagramBody, TcpPing, TcpPong};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Swim, SwimConfig, SwimEffect, TcpPingOutcome};
use crate::time::Instant;

/// The probe under way, and the order of those to come.
#[derive(Debug)]
pub(super) struct Prober {
    current: Option<Probe>,
    /// When the current period ends and the next probe starts.
    next: Instant,
    /// Whom to probe next, from the back.
    order: Vec<NodeId>,
    seq: u64,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    target: NodeId,
    seq: u64,
    /// When the direct ping has taken too long; none once others are asked.
    ask_at: Option<Instant>,
    /// One of those asked said that it is at it: this member's ears work.
    heard_anybody: bool,
    answered_over_tcp: bool,
}

impl Prober {
    pub(super) fn new(config: &SwimConfig, rng: &mut ChaCha8Rng, now: Instant) -> Self {
        let next = now + config.probe_period.mul_f64(rng.random_range(0.0..1.0));
        // Numbers of an earlier life must not match; small ones are short on the wire.
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

    /// `id` is live: its turn comes somewhere in this round.
    pub(super) fn add(&mut self, id: NodeId, rng: &mut ChaCha8Rng) {
        if !self.order.contains(&id) {
            self.order.insert(rng.random_range(0..=self.order.len()), id);
        }
    }

    /// `id` is to be probed next.
    pub(super) fn hasten(&mut self, id: NodeId) {
        self.order.retain(|&other| other != id);
        self.order.push(id);
    }

    /// `id` is gone.
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
        self.prober.current =
            Some(Probe { target, seq, ask_at, heard_anybody: false, answered_over_tcp: false });
        self.send(to, target, DatagramBody::Ping { seq, target });
    }

    /// The direct ping took too long: ask others, and try TCP, which also tells a suspect that it is one.
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

    /// The period is over: whoever has not answered by now is suspect.
    fn end_probe(&mut self, now: Instant) {
        let Some(probe) = self.prober.current.take() else { return };
        if probe.answered_over_tcp {
            self.counters.tcp_acks += 1;
            self.local_health.improve();
            self.table.note_answer(probe.target, false);
            return;
        }
        if !probe.heard_anybody {
            self.local_health.worsen();
        }
        self.suspect(probe.target, now);
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
            self.end_well(from);
        } else {
            self.on_relayed_ack(from, seq);
        }
    }

    pub(super) fn on_indirect_ack(&mut self, seq: u64) {
        if let Some(probe) = self.prober.current.filter(|probe| probe.seq == seq) {
            self.counters.indirect_acks += 1;
            self.end_well(probe.target);
        }
    }

    /// The probe under way was answered over UDP.
    fn end_well(&mut self, target: NodeId) {
        self.prober.current = None;
        self.local_health.improve();
        self.table.note_answer(target, true);
    }

    pub(super) fn on_nack(&mut self, seq: u64) {
        if let Some(probe) = self.prober.current.as_mut().filter(|probe| probe.seq == seq) {
            self.counters.nacks += 1;
            probe.heard_anybody = true;
        }
    }

    pub(super) fn on_tcp_ping_request(&mut self, exchange: u64, message: &TcpPing) {
        if let Some(believed) = message.believed.as_ref().filter(|believed| believed.id == self.me.id) {
            self.hear_of_self(believed);
        }
        // The shell knows the founder.
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
                // A suspect contradicts in its answer.
                self.receive_self_record(record, now);
            }
            TcpPingOutcome::Answered { .. } | TcpPingOutcome::Refused => self.on_refused(target, now),
            TcpPingOutcome::TimedOut => {}
        }
    }
}
