//! Hops: the message to the next voter, its acknowledgement, and skipping voters that are down.

use std::ops::Bound::{Excluded, Unbounded};

use idunno_shared::ids::NodeId;
use idunno_shared::wire::consensus::{RingBody, RingMessage};

use super::{Ring, RingEffect};
use crate::time::Instant;

/// A message under way to a successor.
#[derive(Debug)]
pub(super) struct Hop {
    number: u64,
    to: NodeId,
    body: RingBody,
    attempts: u32,
    deadline: Instant,
}

impl Hop {
    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl Ring {
    /// Sends `body`, of the round under way, to the next reachable voter. After the last one, a nomination of this voter's
    /// own is back, and anything else ends.
    pub(super) fn pass_on(&mut self, body: RingBody, now: Instant) {
        let successor = self.successor(&body);
        let Some(round) = &mut self.round else { return };
        let Some(to) = successor else {
            round.hop = None;
            if let RingBody::Nominate { round, best, visited } = body
                && round.initiator == self.id
            {
                self.complete(round, best, &visited, now);
            }
            return;
        };
        self.hops += 1;
        let deadline = now + self.config.hop_timeout;
        round.hop = Some(Hop { number: self.hops, to, body: body.clone(), attempts: 1, deadline });
        self.send(to, self.hops, body);
    }

    fn send(&mut self, to: NodeId, hop: u64, body: RingBody) {
        self.effects.push_back(RingEffect::Send { to, message: RingMessage { hop, term: self.term, body } });
    }

    /// The next reachable voter in order of identity, up to the initiator: a nomination goes back to it, a result
    /// ends before it.
    fn successor(&self, body: &RingBody) -> Option<NodeId> {
        let round = self.round.as_ref()?;
        let initiator = round.id.initiator;
        let mut voters = self.view.live_voters.clone();
        voters.insert(initiator);
        let after = voters.range((Excluded(self.id), Unbounded));
        let mut ring = after.chain(voters.range(..self.id)).copied();
        let is_back = matches!(body, RingBody::Nominate { .. }) && initiator != self.id;
        let between: Vec<_> = ring.by_ref().take_while(|&voter| voter != initiator).collect();
        between
            .into_iter()
            .chain(is_back.then_some(initiator))
            .find(|voter| !round.unreachable.contains(voter))
    }

    pub(super) fn on_ack(&mut self, from: NodeId, number: u64) {
        if let Some(round) = &mut self.round
            && round.hop.as_ref().is_some_and(|hop| hop.number == number && hop.to == from)
        {
            round.hop = None;
        }
    }

    pub(super) fn on_hop_failed(&mut self, to: NodeId, number: u64, now: Instant) {
        let hop = self.round.as_ref().and_then(|round| round.hop.as_ref());
        if hop.is_some_and(|hop| hop.number == number && hop.to == to) {
            self.skip(now);
        }
    }

    /// A voter that membership holds dead is not waited for.
    pub(super) fn skip_the_dead(&mut self, now: Instant) {
        let hop = self.round.as_ref().and_then(|round| round.hop.as_ref());
        if hop.is_some_and(|hop| !self.view.live_voters.contains(&hop.to)) {
            self.skip(now);
        }
    }

    /// Tries again a hop that was not acknowledged in time, or skips its receiver.
    pub(super) fn run_hop(&mut self, now: Instant) {
        let Some(hop) = self.round.as_mut().and_then(|round| round.hop.as_mut()) else { return };
        if now < hop.deadline {
            return;
        }
        if hop.attempts >= self.config.hop_attempts {
            self.skip(now);
            return;
        }
        hop.attempts += 1;
        hop.deadline = now + self.config.hop_timeout;
        let (to, number, body) = (hop.to, hop.number, hop.body.clone());
        self.send(to, number, body);
    }

    /// The hop's receiver does not answer: goes on to the next.
    fn skip(&mut self, now: Instant) {
        let Some(round) = &mut self.round else { return };
        let Some(hop) = round.hop.take() else { return };
        round.unreachable.insert(hop.to);
        self.counters.skipped += 1;
        self.pass_on(hop.body, now);
    }
}
