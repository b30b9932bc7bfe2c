//! The list of all other members: who is live, who is gone, who listens where.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::MemberRecord;

use super::{MAX_GONE, MAX_LIVE};
use crate::time::Instant;

/// Another member, as this one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What is believed of it.
    pub record: MemberRecord,
    /// It answers over TCP, but its datagrams do not come through ("UDP blocked").
    pub udp_blocked: bool,
    /// Since when it is in its state.
    pub since: Instant,
}

/// All other members, indexed by what is asked of them.
#[derive(Debug, Default)]
pub(super) struct Table {
    members: BTreeMap<NodeId, Member>,
    /// Live members by address: one process listens at one address.
    addresses: BTreeMap<SocketAddr, NodeId>,
    /// Dead and left members, oldest first.
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

    pub(super) fn live_at(&self, address: SocketAddr) -> Option<NodeId> {
        self.addresses.get(&address).copied()
    }

    /// Where dead and left members listened; longest gone first.
    pub(super) fn gone(&self) -> impl Iterator<Item = SocketAddr> {
        self.gone.iter().filter_map(|(_, id)| self.members.get(id)).map(|member| member.record.address)
    }

    pub(super) fn set_udp_blocked(&mut self, id: NodeId, blocked: bool) {
        if let Some(member) = self.members.get_mut(&id) {
            member.udp_blocked = blocked;
        }
    }

    /// Stores a record and returns the one before; the member that is gone longest is forgotten beyond
    /// [`MAX_GONE`]. The caller sees to it that no other live member has the address.
    pub(super) fn put(&mut self, record: MemberRecord, now: Instant) -> Option<MemberRecord> {
        let id = record.id;
        let before = self.members.remove(&id);
        let mut member = Member { record, udp_blocked: false, since: now };
        if let Some(before) = &before {
            if before.record.state.is_live() {
                self.addresses.remove(&before.record.address);
            } else {
                self.gone.remove(&(before.since, id));
            }
            if before.record.state == member.record.state {
                member.since = before.since;
            }
            member.udp_blocked = before.udp_blocked && member.record.state.is_live();
        }
        if member.record.state.is_live() {
            self.addresses.insert(member.record.address, id);
        } else {
            self.gone.insert((member.since, id));
        }
        self.members.insert(id, member);
        if self.gone.len() > MAX_GONE
            && let Some((_, oldest)) = self.gone.pop_first()
        {
            self.members.remove(&oldest);
        }
        before.map(|before| before.record)
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let live = self.members.values().filter(|member| member.record.state.is_live());
        let indexed =
            live.clone().all(|member| self.live_at(member.record.address) == Some(member.record.id));
        if !indexed || live.count() != self.addresses.len() {
            return Err("two live members share an address".to_owned());
        }
        if self.addresses.len() + self.gone.len() != self.members.len() {
            return Err("a member is neither live nor gone".to_owned());
        }
        if self.addresses.len() > MAX_LIVE || self.gone.len() > MAX_GONE {
            return Err(format!("{} live and {} gone members", self.addresses.len(), self.gone.len()));
        }
        Ok(())
    }
}
