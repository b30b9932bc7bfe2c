//! Suspicions: how they start, who confirms them, and when they end in death.
//!
//! A suspicion starts with much time to contradict and loses it as others confirm that their own probes failed too
//! (Lifeguard, section IV-B). So one starved member, which suspects everybody but is confirmed by nobody, kills nobody.

use std::collections::BTreeSet;
use std::time::Duration;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::{MAX_WITNESSES, MemberState, TcpPing};
use rand::RngExt;

use super::{Swim, SwimConfig, SwimEffect};
use crate::machine::InvariantViolation;
use crate::time::Instant;

/// One suspect's suspicion.
#[derive(Debug)]
pub(super) struct Suspicion {
    since: Instant,
    /// Whose own probes failed; at most [`MAX_WITNESSES`].
    witnesses: BTreeSet<NodeId>,
    /// When the suspect is dead.
    deadline: Instant,
}

impl Suspicion {
    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn witnesses(&self) -> impl Iterator<Item = NodeId> {
        self.witnesses.iter().copied()
    }

    /// Adds those that still count in a cluster of so many; says whether any is new.
    fn add(&mut self, witnesses: &[NodeId], members: usize) -> bool {
        let (before, wanted) = (self.witnesses.len(), SwimConfig::confirmations_wanted(members) + 1);
        for &witness in witnesses {
            if self.witnesses.len() < wanted {
                self.witnesses.insert(witness);
            }
        }
        self.witnesses.len() > before
    }

    fn set_deadline(&mut self, config: &SwimConfig, members: usize) {
        // The first witness raised the suspicion, the others confirm it.
        let confirmations = self.witnesses.len().saturating_sub(1);
        self.deadline = self.since + config.suspicion_timeout(members, confirmations);
    }

    /// The suspect gets lost time back.
    pub(super) fn postpone(&mut self, lost: Duration) {
        self.since = self.since + lost;
        self.deadline = self.deadline + lost;
    }

    pub(super) fn check(&self) -> Result<(), InvariantViolation> {
        if self.witnesses.len() > MAX_WITNESSES || self.deadline < self.since {
            return Err(InvariantViolation::new(format!("a suspicion is out of bounds: {self:?}")));
        }
        Ok(())
    }
}

impl Swim {
    /// This member's own probe of `id` failed.
    pub(super) fn suspect(&mut self, id: NodeId, now: Instant) {
        match self.table.get(id).map(|member| member.record.state) {
            Some(MemberState::Alive) => {
                self.counters.suspicions += 1;
                self.judge(id, MemberState::Suspect, now);
                self.refute(id);
            }
            Some(MemberState::Suspect) => self.confirm(id, &[self.me.id], now),
            _ => {}
        }
    }

    /// Tells a suspect over TCP what it is suspected of, should no datagram reach it.
    fn refute(&mut self, id: NodeId) {
        let Some(record) = self.table.get(id).map(|member| member.record.clone()) else { return };
        let (seq, to) = (self.prober.next_seq(), record.address);
        let message = TcpPing { target: id, believed: Some(record) };
        self.effects.push_back(SwimEffect::TcpPing { seq, to, message, timeout: self.config.suspicion_min });
    }

    /// `id` became a suspect, or is one of a later incarnation.
    pub(super) fn open_case(&mut self, id: NodeId, witnesses: &[NodeId], now: Instant) {
        let mut suspicion = Suspicion { since: now, witnesses: BTreeSet::new(), deadline: now };
        suspicion.add(witnesses, self.size());
        suspicion.set_deadline(&self.config, self.size());
        self.suspicions.insert(id, suspicion);
    }

    /// Others, or this member, confirm the suspicion of `id`. What is new is passed on.
    pub(super) fn confirm(&mut self, id: NodeId, witnesses: &[NodeId], now: Instant) {
        let members = self.size();
        let Some(suspicion) = self.suspicions.get_mut(&id) else { return };
        if !suspicion.add(witnesses, members) {
            return;
        }
        self.counters.confirmations += 1;
        suspicion.set_deadline(&self.config, members);
        // Not before now, so that a tick finds it.
        suspicion.deadline = suspicion.deadline.max(now);
        self.rumours.add_more(id);
    }

    /// A suspicion was heard of: some of those who hear it probe the suspect next, out of turn, so that it is confirmed,
    /// or contradicted, within a period or two. Twice as many as are wanted, on average, whatever the cluster's size.
    pub(super) fn probe_soon(&mut self, id: NodeId) {
        let members = self.size();
        if self.rng.random_range(0..members) < 2 * SwimConfig::confirmations_wanted(members) {
            self.prober.hasten(id);
        }
    }

    /// Deaths by the clock: they did not contradict in time.
    pub(super) fn expire_suspicions(&mut self, now: Instant) {
        let expired = self.suspicions.iter().filter(|(_, suspicion)| suspicion.deadline <= now);
        for id in expired.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.counters.suspicions_expired += 1;
            self.declare_dead(id, now);
        }
    }
}
