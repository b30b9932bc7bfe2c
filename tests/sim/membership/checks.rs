//! Invariants of every step, and the agreement of all members once the faults are over.

use std::collections::{BTreeMap, BTreeSet};

use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::{
    Datagram, ENVELOPE_RESERVE_BYTES, Generation, Incarnation, MAX_DATAGRAM_BYTES,
};

use super::world::World;

/// The newest record that each member has published of itself.
#[derive(Default)]
pub(crate) struct Truth {
    own: BTreeMap<NodeId, (Generation, Incarnation)>,
}

impl World {
    /// The datagram's encoded size, within its bound.
    pub(crate) fn check_size(&self, message: &Datagram) -> u64 {
        let Ok(encoded) = rmp_serde::to_vec(message) else { panic!("a datagram that cannot be encoded") };
        let bound = MAX_DATAGRAM_BYTES - ENVELOPE_RESERVE_BYTES;
        assert!(encoded.len() <= bound, "a datagram of {} bytes at {}", encoded.len(), self.now);
        encoded.len() as u64
    }

    /// Checks the record that `host` publishes of itself: its generation and incarnation only rise.
    pub(crate) fn check_self(&mut self, host: usize) {
        let Some(swim) = &self.hosts[host].swim else { return };
        let me = swim.self_record();
        let own = self.truth.own.entry(me.id).or_default();
        assert!(
            *own <= (me.generation, me.incarnation),
            "{host} published an older record than {own:?} at {}",
            self.now
        );
        *own = (me.generation, me.incarnation);
    }

    /// Checks what `host` believes of others.
    pub(crate) fn check_others(&mut self, host: usize) {
        let now = self.now;
        let state = &mut self.hosts[host];
        let Some(swim) = &state.swim else { return };
        // A forgotten member may be added again.
        state.seen.retain(|&id, _| swim.member(id).is_some());
        for member in swim.members() {
            let (id, precedence) = (member.record.id, member.record.precedence());
            let before = state.seen.insert(id, precedence).unwrap_or(precedence);
            // Therefore a dead member comes back only with a newer record of its own.
            assert!(
                before <= precedence,
                "{host} went back from {before:?} to {precedence:?} of {id} at {now}"
            );
            let published = self.truth.own.get(&id).copied().unwrap_or_default();
            assert!(
                (precedence.0, precedence.1) <= published,
                "{host} believes {precedence:?} of {id}, which published {published:?} at {now}"
            );
        }
    }

    /// Whether every member lists exactly the members that are up; otherwise an error that names one that does not.
    pub(crate) fn converged(&self) -> Result<(), String> {
        let up: BTreeSet<_> = self.up().into_iter().map(|host| self.hosts[host].id).collect();
        for host in self.up() {
            let Some(swim) = &self.hosts[host].swim else { continue };
            let me = self.hosts[host].id;
            let listed: BTreeSet<_> = swim
                .members()
                .filter(|member| member.record.state.is_live())
                .map(|member| member.record.id)
                .chain([me])
                .collect();
            if listed != up {
                let missing: Vec<_> = up.difference(&listed).collect();
                let ghosts: Vec<_> = listed.difference(&up).collect();
                return Err(format!("host {host} ({me}) misses {missing:?} and lists {ghosts:?}"));
            }
        }
        Ok(())
    }
}
