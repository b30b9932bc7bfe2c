//! Datagrams out and in, each with what rumours fit.

use std::net::SocketAddr;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::{
    Bounded, DATAGRAM_HEAD_BYTES_MAX, Datagram, DatagramBody, ENVELOPE_RESERVE_BYTES, MAX_DATAGRAM_BYTES,
    MAX_RUMOURS, MemberRecord, MemberState, Rumour,
};

use super::merge::Source;
use super::suspicion::Suspicion;
use super::{Phase, Swim, SwimEffect};
use crate::time::Instant;

/// What a datagram's rumours may take, in bytes.
const RUMOUR_BYTES: usize = MAX_DATAGRAM_BYTES - ENVELOPE_RESERVE_BYTES - DATAGRAM_HEAD_BYTES_MAX;

impl Swim {
    pub(super) fn on_datagram(&mut self, address: SocketAddr, message: &Datagram, now: Instant) {
        if self.phase == Phase::Left || message.from == self.me.id {
            return;
        }
        self.receive_rumours(address, message, now);
        self.exchange_with_unknown(address, message.from, now);
        match message.body {
            DatagramBody::Ping { seq, target } => self.on_ping(message.from, address, seq, target),
            DatagramBody::Ack { seq } => self.on_ack(message.from, seq),
            DatagramBody::PingRequest { seq, target } => {
                self.on_ping_request(message.from, address, seq, target, now);
            }
            DatagramBody::IndirectAck { seq } => self.on_indirect_ack(seq),
            DatagramBody::Nack { seq } => self.on_nack(seq),
            DatagramBody::Gossip | DatagramBody::Remark => {}
        }
    }

    /// What a member on the list passes on counts. Of a stranger only what it says of this member, and of itself once
    /// it is dialled back.
    fn receive_rumours(&mut self, address: SocketAddr, message: &Datagram, now: Instant) {
        let is_member = self.table.get(message.from).is_some_and(|member| member.record.state.is_live());
        let mut remark = None;
        for rumour in message.rumours.as_slice() {
            let record = &rumour.record;
            if record.id == message.from && !self.is_admitted(record) {
                self.dial_back(record, now);
            } else if is_member || record.id == message.from || record.id == self.me.id {
                remark = self.correction_for(record).or(remark);
                self.merge(record, Source::Rumour(rumour.witnesses.as_slice()), now);
            } else {
                self.counters.unvouched += 1;
            }
        }
        if let Some(rumour) = remark.filter(|_| message.body != DatagramBody::Remark) {
            self.send_with(address, message.from, DatagramBody::Remark, Some(rumour));
        }
    }

    /// Whoever is not heard of, but speaks to this member, knows more: lists are exchanged with it, which dials it too;
    /// or, when that was done just now, with anybody in a while, since what the stranger passed on did not count.
    fn exchange_with_unknown(&mut self, address: SocketAddr, from: NodeId, now: Instant) {
        if self.table.get(from).is_some() || self.phase != Phase::Active {
        } else if self.unknown_exchange_from <= now {
            self.unknown_exchange_from = now + self.config.reconnect_period;
            self.counters.unknown_senders += 1;
            self.start_push_pull(address, None, now);
        } else {
            self.is_behind = true;
        }
    }

    /// What to tell a member that missed how a suspicion ended.
    ///
    /// If it is of this member: that it has been contradicted. If the suspect is dead: others, who know that, probe it no
    /// more, so they confirm the suspicion by what they know. The death itself they do not tell: it may have been a
    /// partition's, now healed, and the suspect about to contradict.
    fn correction_for(&self, record: &MemberRecord) -> Option<Rumour> {
        let known = self.record_of(record.id).filter(|known| known.precedence() > record.precedence())?;
        if record.state == MemberState::Alive {
            None
        } else if record.id == self.me.id {
            Some(Rumour { record: self.me.clone(), witnesses: Bounded::default() })
        } else if record.state == MemberState::Suspect && !known.state.is_live() {
            Some(Rumour { record: record.clone(), witnesses: Bounded::first_of([self.me.id]) })
        } else {
            None
        }
    }

    /// Sends `body` to `member` at `to`, with the rumours that fit. What others believe of `member` itself comes
    /// first, so that a suspect, or a member wrongly held dead, hears of it and contradicts (Lifeguard's buddy system).
    pub(super) fn send(&mut self, to: SocketAddr, member: NodeId, body: DatagramBody) {
        self.send_with(to, member, body, None);
    }

    /// Sends `body` with one more rumour.
    fn send_with(&mut self, to: SocketAddr, member: NodeId, body: DatagramBody, rumour: Option<Rumour>) {
        let own = self.table.get(member).map(|member| &member.record);
        let first = own.filter(|record| record.state != MemberState::Alive).map(|record| record.id);
        let others = self.rumours.ids().filter(|&id| Some(id) != first);
        let mut bytes = rumour.as_ref().map_or(0, Rumour::encoded_bytes_max);
        let mut rumours = Vec::from_iter(rumour);
        for id in first.into_iter().chain(others) {
            let Some(rumour) = self.rumour_of(id) else { continue };
            bytes += rumour.encoded_bytes_max();
            if bytes > RUMOUR_BYTES || rumours.len() == MAX_RUMOURS {
                break;
            }
            rumours.push(rumour);
        }
        let limit = self.config.rumour_sends(self.size());
        for rumour in &rumours {
            self.rumours.mark_sent(rumour.record.id, limit);
        }
        let message = Datagram { from: self.me.id, body, rumours: Bounded::first_of(rumours) };
        self.effects.push_back(SwimEffect::SendDatagram { to, message });
    }

    fn rumour_of(&self, id: NodeId) -> Option<Rumour> {
        let record = self.record_of(id)?.clone();
        let suspicion = self.suspicions.get(&id);
        let witnesses = Bounded::first_of(suspicion.into_iter().flat_map(Suspicion::witnesses));
        Some(Rumour { record, witnesses })
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
                self.effects.push_back(SwimEffect::LeaveDone);
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
