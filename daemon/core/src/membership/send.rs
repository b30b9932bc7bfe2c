//! Datagrams out and in, each with what rumours fit.

use std::net::SocketAddr;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::{
    DATAGRAM_HEAD_BYTES_MAX, Datagram, DatagramBody, ENVELOPE_RESERVE_BYTES, MAX_DATAGRAM_BYTES, MAX_RUMOURS,
    MemberRecord, MemberState, Records,
};

use super::learn::Source;
use super::{Effect, Phase, Swim};
use crate::time::Instant;

/// What a datagram's rumours may take, in bytes.
const RUMOUR_BYTES: usize = MAX_DATAGRAM_BYTES - ENVELOPE_RESERVE_BYTES - DATAGRAM_HEAD_BYTES_MAX;

impl Swim {
    pub(super) fn on_datagram(&mut self, address: SocketAddr, message: &Datagram, now: Instant) {
        if self.phase == Phase::Left || message.from == self.me.id {
            return;
        }
        for record in message.rumours.as_slice() {
            self.learn(record, Source::Rumour, now);
        }
        match message.body {
            DatagramBody::Ping { seq, target } => self.on_ping(message.from, address, seq, target),
            DatagramBody::Ack { seq } => self.on_ack(message.from, seq),
            DatagramBody::PingRequest { seq, target } => {
                self.on_ping_request(message.from, address, seq, target);
            }
            DatagramBody::IndirectAck { seq } => self.on_indirect_ack(seq),
            DatagramBody::Gossip => {}
        }
    }

    /// Sends `body` to `member` at `to`, with the rumours that fit. What others believe of `member` itself comes
    /// first, so that a suspect, or a member wrongly held dead, hears of it and contradicts.
    pub(super) fn send(&mut self, to: SocketAddr, member: NodeId, body: DatagramBody) {
        let own = self.table.get(member).map(|member| &member.record);
        let first = own.filter(|record| record.state != MemberState::Alive).map(|record| record.id);
        let mut records: Vec<MemberRecord> = Vec::new();
        let mut bytes = 0;
        for id in first.into_iter().chain(self.rumours.ids().filter(|&id| Some(id) != first)) {
            let Some(record) = self.record_of(id) else { continue };
            bytes += record.encoded_bytes_max();
            if bytes > RUMOUR_BYTES || records.len() == MAX_RUMOURS {
                break;
            }
            records.push(record.clone());
        }
        let limit = self.config.rumour_sends(self.size());
        for record in &records {
            self.rumours.mark_sent(record.id, limit);
        }
        let message = Datagram { from: self.me.id, body, rumours: Records::bounded(records) };
        self.effects.push_back(Effect::SendDatagram { to, message });
    }

    pub(super) fn wants_gossip(&self) -> bool {
        !self.rumours.is_empty() || matches!(self.phase, Phase::Leaving(_))
    }

    pub(super) fn run_gossip(&mut self, now: Instant) {
        if now < self.next_gossip || self.phase == Phase::Left || !self.wants_gossip() {
            return;
        }
        self.next_gossip = now + self.config.gossip_period;
        let peers = self.random_live(self.config.gossip_peers, None);
        if let Phase::Leaving(rounds) = self.phase {
            if rounds == 0 || peers.is_empty() {
                self.phase = Phase::Left;
                self.effects.push_back(Effect::LeaveDone);
                return;
            }
            self.phase = Phase::Leaving(rounds - 1);
            self.rumours.add(self.me.id);
        }
        if peers.is_empty() {
            // Whoever comes next gets the whole list.
            self.rumours.clear();
        }
        for (id, to) in peers {
            self.send(to, id, DatagramBody::Gossip);
        }
    }
}
