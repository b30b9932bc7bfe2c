//! Pings on behalf of others: the indirect probes of SWIM (section 4.3), with Lifeguard's nack.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::DatagramBody;

use super::{MAX_RELAYS, Swim};
use crate::machine::InvariantViolation;
use crate::time::Instant;

/// What others asked for, by the number of this member's own ping, which rises with time.
#[derive(Debug, Default)]
pub(super) struct Relays(BTreeMap<u64, Relay>);

/// A ping on behalf of `requester`, which knows it as `seq`.
#[derive(Clone, Copy, Debug)]
struct Relay {
    target: NodeId,
    requester: NodeId,
    to: SocketAddr,
    seq: u64,
    /// When the requester is told that the target has not answered; none once it has been.
    nack_at: Option<Instant>,
    /// When an answer comes too late to be of use.
    over_at: Instant,
}

impl Relays {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.values().find_map(|relay| relay.nack_at)
    }

    pub(super) fn check(&self) -> Result<(), InvariantViolation> {
        if self.0.len() > MAX_RELAYS {
            Err(InvariantViolation::new(format!("{} relayed pings", self.0.len())))
        } else {
            Ok(())
        }
    }
}

impl Swim {
    /// Pings on behalf of another, only at the address known here: a request cannot aim at a third party.
    pub(super) fn on_ping_request(
        &mut self,
        from: NodeId,
        address: SocketAddr,
        seq: u64,
        target: NodeId,
        now: Instant,
    ) {
        let Some(to) = self.table.get(target).map(|member| member.record.address) else { return };
        let own = self.prober.next_seq();
        // At four fifths of the time within which the requester waits for an answer, as in Lifeguard.
        let nack_at = Some(now + self.config.ping_timeout * 4 / 5);
        let over_at = now + self.config.ping_timeout * 2;
        let relay = Relay { target, requester: from, to: address, seq, nack_at, over_at };
        self.relays.0.insert(own, relay);
        if self.relays.0.len() > MAX_RELAYS {
            // The oldest has waited longest, and its requester has given up.
            self.relays.0.pop_first();
        }
        self.send(to, target, DatagramBody::Ping { seq: own, target });
    }

    /// Passes the answer on, if `seq` is a ping on behalf of another.
    pub(super) fn on_relayed_ack(&mut self, from: NodeId, seq: u64) {
        if self.relays.0.get(&seq).is_some_and(|relay| relay.target == from)
            && let Some(relay) = self.relays.0.remove(&seq)
        {
            self.send(relay.to, relay.requester, DatagramBody::IndirectAck { seq: relay.seq });
        }
    }

    pub(super) fn run_relays(&mut self, now: Instant) {
        if self.relays.deadline().is_none_or(|due| now < due) {
            return;
        }
        self.relays.0.retain(|_, relay| now < relay.over_at);
        let silent: Vec<_> = self
            .relays
            .0
            .values_mut()
            .filter(|relay| relay.nack_at.is_some_and(|due| due <= now))
            .map(|relay| {
                relay.nack_at = None;
                *relay
            })
            .collect();
        for relay in silent {
            self.send(relay.to, relay.requester, DatagramBody::Nack { seq: relay.seq });
        }
    }
}
