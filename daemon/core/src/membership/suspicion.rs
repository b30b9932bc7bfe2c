//! Suspicions: how they start, who confirms them, and when they end in death; and how far this member trusts itself.
//!
//! A suspicion leaves the suspect much time to refute it, and less as others confirm that their own probes failed too
//! (Lifeguard, section IV-B). So one starved member, which suspects all others but is confirmed by none, declares none dead.
//!
//! Local health (section IV-A): a member that is starved of CPU handles answers too late and would blame others. It gives
//! them more time while there is evidence against itself: a probe without any answer, a late tick, a suspicion of itself to
//! refute. An answered probe is evidence for it. Unlike in Lifeguard, a failed probe counts once, and only if none of the
//! members asked said anything, not once for each that stayed silent: on a lossy network single answers get lost all the
//! time, and a member that slowed down for that would find deaths later without being any healthier.
//!
//! Flapping: a member that sends but is not reached (its address changed, or a firewall drops what is sent to it) refutes
//! each suspicion, and would be suspect and up for ever. After a few refutations without an answered probe it is believed
//! like a newcomer: once it has been dialled back.

use std::collections::BTreeSet;
use std::time::Duration;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::{MAX_WITNESSES, MemberState, TcpPing};
use rand::RngExt;

use super::{Swim, SwimConfig, SwimEffect};
use crate::invariant::InvariantViolation;
use crate::time::Instant;

/// Lifeguard's local health score: from 0, healthy, to a bound.
#[derive(Debug)]
pub(super) struct LocalHealth {
    score: u32,
    max: u32,
}

impl LocalHealth {
    pub(super) const fn new(max: u32) -> Self {
        Self { score: 0, max }
    }

    pub(super) fn worsen(&mut self) {
        self.score = (self.score + 1).min(self.max);
    }

    pub(super) const fn improve(&mut self) {
        self.score = self.score.saturating_sub(1);
    }

    pub(super) const fn score(&self) -> u32 {
        self.score
    }

    /// A healthy member's `time`, as long as this member needs it to be.
    pub(super) fn stretch(&self, time: Duration) -> Duration {
        time * (self.score + 1)
    }
}

/// One suspect's suspicion.
#[derive(Debug)]
pub(super) struct Suspicion {
    since: Instant,
    /// Members whose own probes failed; at most [`MAX_WITNESSES`].
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

    /// Adds the witnesses that still count in a cluster of so many; returns whether any is new.
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
                self.store_verdict(id, MemberState::Suspect, now);
                self.notify_suspect(id);
            }
            Some(MemberState::Suspect) => self.confirm(id, &[self.me.id], now),
            _ => {}
        }
    }

    /// `id` has refuted a suspicion. Says once if it does so again and again without being reached.
    pub(super) fn note_refutation(&mut self, id: NodeId) {
        if self.table.note_refutation(id) == self.config.flaps_max
            && let Some(member) = self.table.get(id)
        {
            self.effects.push_back(SwimEffect::Flapping(member.record.clone()));
        }
    }

    /// Tells a suspect over TCP that it is one, should no datagram reach it.
    fn notify_suspect(&mut self, id: NodeId) {
        let Some(record) = self.table.get(id).map(|member| member.record.clone()) else { return };
        let (seq, to) = (self.prober.next_seq(), record.address);
        let message = TcpPing { target: id, believed: Some(record) };
        self.effects.push_back(SwimEffect::TcpPing { seq, to, message, timeout: self.config.suspicion_min });
    }

    /// `id` became a suspect, or is one of a later incarnation.
    pub(super) fn start_suspicion(&mut self, id: NodeId, witnesses: &[NodeId], now: Instant) {
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

    /// A suspicion arrived: some of the members that receive it probe the suspect next, out of turn, so that it is confirmed
    /// or refuted within a period or two. On average these are twice as many as are wanted, whatever the cluster's size.
    pub(super) fn probe_soon(&mut self, id: NodeId) {
        let members = self.size();
        if self.rng.random_range(0..members) < 2 * SwimConfig::confirmations_wanted(members) {
            self.prober.probe_next(id);
        }
    }

    /// Declares the suspects dead that did not refute in time.
    pub(super) fn expire_suspicions(&mut self, now: Instant) {
        let expired = self.suspicions.iter().filter(|(_, suspicion)| suspicion.deadline <= now);
        for id in expired.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.counters.suspicions_expired += 1;
            self.declare_dead(id, now);
        }
    }
}
