//! The list of all other members: which are live, which are gone, and where they listen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use idunno_shared::ids::NodeId;
use idunno_shared::names::MemberName;
use idunno_shared::wire::membership::MemberRecord;

use super::{MAX_GONE, MAX_GONE_PER_NAME, MAX_LIVE};
use crate::invariant::InvariantViolation;
use crate::time::Instant;

/// So many probes in a row answered over TCP alone mean that UDP is blocked, not that datagrams were lost.
const UDP_BLOCKED_AFTER: u32 = 3;

/// Another member, as this one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What is believed of it.
    pub record: MemberRecord,
    /// It answers over TCP, but its datagrams do not come through ("UDP blocked").
    pub udp_blocked: bool,
    /// Since when it is in its state.
    pub since: Instant,
    /// When it is forgotten, if it is dead or has left.
    pub forget_at: Option<Instant>,
    /// Probes in a row that were answered over TCP alone.
    tcp_only: u32,
    /// Suspicions that it refuted since it last answered a probe of this member.
    pub(super) flaps: u32,
}

/// All other members, with indexes.
#[derive(Debug, Default)]
pub(super) struct Table {
    members: BTreeMap<NodeId, Member>,
    /// Live members by address: one process listens at one address.
    addresses: BTreeMap<SocketAddr, NodeId>,
    /// Dead and left members by when they are forgotten.
    gone: BTreeSet<(Instant, NodeId)>,
}

impl Table {
    pub(super) fn get(&self, id: NodeId) -> Option<&Member> {
        self.members.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    pub(super) fn live(&self) -> impl Iterator<Item = NodeId> {
        self.addresses.values().copied()
    }

    pub(super) fn live_len(&self) -> usize {
        self.addresses.len()
    }

    pub(super) fn udp_blocked_len(&self) -> usize {
        self.live().filter(|id| self.members.get(id).is_some_and(|member| member.udp_blocked)).count()
    }

    pub(super) fn live_at(&self, address: SocketAddr) -> Option<NodeId> {
        self.addresses.get(&address).copied()
    }

    /// Where dead and left members listened.
    pub(super) fn gone(&self) -> impl Iterator<Item = SocketAddr> {
        self.gone.iter().filter_map(|(_, id)| self.members.get(id)).map(|member| member.record.address)
    }

    /// A probe of `id` was answered, over UDP or over TCP alone. Datagrams get lost; only several probes in a row tell
    /// that they are blocked.
    pub(super) fn note_answer(&mut self, id: NodeId, over_udp: bool) {
        if let Some(member) = self.members.get_mut(&id) {
            member.tcp_only = if over_udp { 0 } else { member.tcp_only.saturating_add(1) };
            member.udp_blocked = member.tcp_only >= UDP_BLOCKED_AFTER;
            member.flaps = 0;
        }
    }

    /// `id` has refuted a suspicion. Returns how many it has in a row without being reached.
    pub(super) fn note_refutation(&mut self, id: NodeId) -> u32 {
        let Some(member) = self.members.get_mut(&id) else { return 0 };
        member.flaps = member.flaps.saturating_add(1);
        member.flaps
    }

    /// `id` was reached at its address.
    pub(super) fn note_reached(&mut self, id: NodeId) {
        if let Some(member) = self.members.get_mut(&id) {
            member.flaps = 0;
        }
    }

    /// Stores a record, to be forgotten at `forget_at` if it is not live, and returns the one before. The caller ensures
    /// that no other live member has the address, and forgets the [`Self::excess`].
    pub(super) fn put(
        &mut self,
        record: MemberRecord,
        forget_at: Instant,
        now: Instant,
    ) -> Option<MemberRecord> {
        let id = record.id;
        let before = self.members.remove(&id);
        let forget_at = (!record.state.is_live()).then_some(forget_at);
        let mut member = Member { record, udp_blocked: false, since: now, forget_at, tcp_only: 0, flaps: 0 };
        if let Some(before) = &before {
            self.unlink(before);
            if before.record.state == member.record.state {
                member.since = before.since;
            }
            if member.forget_at.is_none() {
                member.udp_blocked = before.udp_blocked;
                member.tcp_only = before.tcp_only;
                // At another address it may well be reached.
                if before.record.address == member.record.address {
                    member.flaps = before.flaps;
                }
            }
        }
        if let Some(forget_at) = member.forget_at {
            self.gone.insert((forget_at, id));
        } else {
            self.addresses.insert(member.record.address, id);
        }
        self.members.insert(id, member);
        before.map(|before| before.record)
    }

    /// A dead or left member, now one of `name`, that must be forgotten for the list to keep its bounds: of that name,
    /// or of all, the one whose time is up first.
    pub(super) fn excess(&self, name: &MemberName) -> Option<NodeId> {
        let is_named = |id: &NodeId| self.members.get(id).is_some_and(|member| member.record.name == *name);
        let mut named = self.gone.iter().map(|&(_, id)| id).filter(is_named);
        let first = named.next();
        if named.count() >= MAX_GONE_PER_NAME {
            return first;
        }
        let over = self.gone.len() > MAX_GONE;
        self.gone.first().filter(|_| over).map(|&(_, id)| id)
    }

    /// A dead or left member whose time is up.
    pub(super) fn expired(&self, now: Instant) -> Option<NodeId> {
        self.gone.first().filter(|&&(forget_at, _)| forget_at <= now).map(|&(_, id)| id)
    }

    pub(super) fn forget(&mut self, id: NodeId) {
        if let Some(member) = self.members.remove(&id) {
            self.unlink(&member);
        }
    }

    fn unlink(&mut self, member: &Member) {
        if let Some(forget_at) = member.forget_at {
            self.gone.remove(&(forget_at, member.record.id));
        } else {
            self.addresses.remove(&member.record.address);
        }
    }

    pub(super) fn check(&self) -> Result<(), InvariantViolation> {
        let live = self.members.values().filter(|member| member.record.state.is_live());
        let indexed =
            live.clone().all(|member| self.live_at(member.record.address) == Some(member.record.id));
        if !indexed || live.count() != self.addresses.len() {
            return Err(InvariantViolation::new("two live members share an address"));
        }
        if self.addresses.len() + self.gone.len() != self.members.len() {
            return Err(InvariantViolation::new("a member is neither live nor gone"));
        }
        if self.addresses.len() > MAX_LIVE || self.gone.len() > MAX_GONE {
            return Err(InvariantViolation::new(format!(
                "{} live and {} gone members",
                self.addresses.len(),
                self.gone.len()
            )));
        }
        Ok(())
    }
}
