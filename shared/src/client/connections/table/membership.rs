//! Applies changes of the members to the connections.

use std::net::SocketAddr;
use std::time::Duration;

use super::super::slot::{Lane, Slot, Target};
use super::event::{LiveMember, Members};
use super::{ConnectionTable, State};
use crate::ids::NodeId;

impl ConnectionTable {
    pub(super) fn take_members(&mut self, members: Members, now: Duration) {
        let before = std::mem::replace(&mut self.members, members);
        for (&node, was) in &before.live {
            if self.members.live.get(&node).is_none_or(|is| is.address != was.address) {
                self.close_all(node);
            }
        }
        let changed =
            |(node, is): (&NodeId, &LiveMember)| (before.live.get(node) != Some(is)).then_some((*node, *is));
        let changed: Vec<_> = self.members.live.iter().filter_map(changed).collect();
        let left = before.live.iter().filter(|(node, _)| !self.members.live.contains_key(node));
        let left: Vec<_> = left.map(|(&node, &was)| (node, was)).collect();
        for (node, member) in changed.into_iter().chain(left) {
            self.forget_failures(node, member.address);
        }
        for (node, lane) in before.kept.difference(&self.members.kept).copied().collect::<Vec<_>>() {
            let slot = Slot::of_member(node, lane);
            if matches!(self.states.get(&slot), Some(State::Due(_))) {
                self.clear(&slot);
            }
        }
        for (node, lane) in self.members.kept.iter().copied().collect::<Vec<_>>() {
            let slot = Slot::of_member(node, lane);
            let jitter = self.redial_jitter(lane);
            let not_before = self.failures.get(&slot.target).map_or(now, |failure| failure.ends(lane));
            if self.members.live.contains_key(&node) && !self.states.contains_key(&slot) {
                self.set(slot, State::Due(not_before.max(now) + jitter));
            }
        }
    }

    /// Forgets failed dials to a member, so that the next one is not delayed.
    fn forget_failures(&mut self, node: NodeId, address: SocketAddr) {
        self.failures.remove(&Target::Member(node));
        self.failures.remove(&Target::Address(address));
        self.probes.remove(&node);
        for slot in self.slots_of(node) {
            if matches!(self.states.get(&slot), Some(State::Due(_))) {
                self.clear(&slot);
            }
        }
    }

    fn close_all(&mut self, node: NodeId) {
        for slot in self.slots_of(node) {
            if matches!(self.states.get(&slot), Some(State::Open { .. })) {
                self.close(slot);
            }
        }
    }

    fn slots_of(&self, node: NodeId) -> Vec<Slot> {
        let slots = Slot::of_member(node, Lane::Consensus)
            ..Slot::of_member(NodeId(node.0.saturating_add(1)), Lane::Consensus);
        self.states.range(slots).map(|(&slot, _)| slot).collect()
    }
}
