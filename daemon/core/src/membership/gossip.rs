//! Gossip: which news is passed on and how often, and the datagrams that carry it.
//!
//! The news itself is the table's record. Each datagram takes as many rumours along as fit.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::{
    Bounded, DATAGRAM_HEAD_BYTES_MAX, Datagram, DatagramBody, ENVELOPE_RESERVE_BYTES, MAX_DATAGRAM_BYTES,
    MAX_RUMOURS, MemberRecord, MemberState, Rumour,
};

use super::merge::Source;
use super::suspicion::Suspicion;
use super::{Phase, Swim, SwimEffect};
use crate::invariant::InvariantViolation;
use crate::time::Instant;

/// What a datagram's rumours may take, in bytes.
const RUMOUR_BYTES: usize = MAX_DATAGRAM_BYTES - ENVELOPE_RESERVE_BYTES - DATAGRAM_HEAD_BYTES_MAX;

/// The members with news to pass on, sent least often first. At most one rumour a member.
#[derive(Debug, Default)]
pub(super) struct Rumours {
    sent: BTreeMap<NodeId, u32>,
    order: BTreeSet<(u32, NodeId)>,
}

impl Rumours {
    /// There is news of `id`; earlier news of it is superseded.
    pub(super) fn add(&mut self, id: NodeId) {
        self.remove(id);
        self.sent.insert(id, 0);
        self.order.insert((0, id));
    }

    /// The news of `id` has gained witnesses: it is sent as often as is left, or from the start if it was old.
    pub(super) fn add_more(&mut self, id: NodeId) {
        if !self.sent.contains_key(&id) {
            self.add(id);
        }
    }

    pub(super) fn remove(&mut self, id: NodeId) {
        if let Some(sent) = self.sent.remove(&id) {
            self.order.remove(&(sent, id));
        }
    }

    /// The news of `id` was sent once more; after `limit` times it is old.
    pub(super) fn mark_sent(&mut self, id: NodeId, limit: u32) {
        let Some(sent) = self.sent.get_mut(&id) else { return };
        self.order.remove(&(*sent, id));
        *sent += 1;
        if *sent < limit {
            self.order.insert((*sent, id));
        } else {
            self.sent.remove(&id);
        }
    }

    /// In sending order.
    pub(super) fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.order.iter().map(|&(_, id)| id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.sent.clear();
        self.order.clear();
    }

    pub(super) fn check(&self) -> Result<(), InvariantViolation> {
        let consistent = self.order.iter().all(|(sent, id)| self.sent.get(id) == Some(sent));
        if consistent && self.order.len() == self.sent.len() {
            Ok(())
        } else {
            Err(InvariantViolation::new("the order of rumours disagrees with their counts"))
        }
    }
}

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

    /// A listed member's rumours count. Of an unknown sender's, only those about this member, and about itself once it is
    /// dialled back.
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
                self.counters.ignored_rumours += 1;
            }
        }
        if let Some(rumour) = remark.filter(|_| message.body != DatagramBody::Remark) {
            self.send_with(address, message.from, DatagramBody::Remark, Some(rumour));
        }
    }

    /// An unknown sender knows the cluster better than this member: exchanges lists with it, which dials it too. If that was
    /// done just now, exchanges lists with any member a little later, because the sender's rumours were ignored.
    fn exchange_with_unknown(&mut self, address: SocketAddr, from: NodeId, now: Instant) {
        if self.table.get(from).is_some() || self.phase != Phase::Active {
        } else if self.unknown_exchange_from <= now {
            self.unknown_exchange_from = now + self.config.reconnect_period;
            self.counters.unknown_senders += 1;
            self.start_push_pull(address, None, now);
        } else {
            self.has_missed_news = true;
        }
    }

    /// The correction for a member that missed how a suspicion ended.
    ///
    /// A suspicion of this member has been refuted: send the refutation. A dead suspect is no longer probed by the members
    /// that know of its death, so they confirm the suspicion instead. They do not send the death itself: it may be a healed
    /// partition's, and the suspect about to refute it.
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

    /// Sends `body` to `member` at `to`, with the rumours that fit. What is believed of `member` itself comes first, so that
    /// a suspect, or a member wrongly held dead, learns of it and refutes it (Lifeguard's buddy system).
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
            // The next member gets the whole list.
            self.rumours.clear();
        }
        for (id, to) in peers {
            self.send(to, id, DatagramBody::Gossip);
        }
    }
}
