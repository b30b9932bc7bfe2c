//! Room for connections: the limits of lanes, and which connection closes, because it is idle or makes room.

use std::time::Duration;

use super::super::slot::{Lane, Slot};
use super::event::{Limits, Usage};
use super::{BLOB_BACK_OFF, ConnectionTable, IDLE_MAX, SWEEP_PERIOD, State};

impl ConnectionTable {
    pub(super) fn swept(&mut self, usage: &[Usage], now: Duration) {
        for used in usage {
            if let Some(State::Open { used_at, in_use, .. }) = self.states.get_mut(&used.slot) {
                *used_at = used.used_at;
                *in_use = used.in_use;
            }
        }
        for slot in self.open().collect::<Vec<_>>() {
            let idle = matches!(self.states.get(&slot), Some(State::Open { used_at, in_use: false, .. }) if *used_at + IDLE_MAX <= now);
            if idle && !self.is_kept(slot) {
                self.close(slot);
            }
        }
        self.failures.retain(|_, failure| now < failure.at + 2 * BLOB_BACK_OFF);
        // A member that is no longer dialled has used up its dials.
        self.probes.retain(|&node, _| self.states.contains_key(&Slot::of_member(node, Lane::Calls)));
        self.sweep_at = now + SWEEP_PERIOD;
    }

    pub(super) fn has_room(&self, lane: Lane) -> bool {
        let class = Class::of(lane);
        let taken = self
            .states
            .iter()
            .filter(|(slot, state)| Class::of(slot.lane) == class && !matches!(state, State::Due(_)));
        taken.count() < class.limit(&self.limits)
    }

    /// Makes room for one more connection by closing the least recently used one that is neither kept nor in use.
    pub(super) fn make_room(&mut self, lane: Lane) -> bool {
        if self.has_room(lane) {
            return true;
        }
        let idle = self.states.iter().filter_map(|(&slot, state)| match state {
            State::Open { used_at, in_use: false, .. }
                if Class::of(slot.lane) == Class::of(lane) && !self.is_kept(slot) =>
            {
                Some((*used_at, slot))
            }
            _ => None,
        });
        let Some((_, slot)) = idle.min() else { return false };
        self.close(slot);
        true
    }
}

/// Lanes that share a limit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Consensus,
    Calls,
    Blobs,
}

impl Class {
    const fn of(lane: Lane) -> Self {
        match lane {
            Lane::Consensus => Self::Consensus,
            Lane::Calls => Self::Calls,
            Lane::Blobs(_) => Self::Blobs,
        }
    }

    const fn limit(self, limits: &Limits) -> usize {
        match self {
            Self::Consensus => limits.consensus,
            Self::Calls => limits.calls,
            Self::Blobs => limits.blobs,
        }
    }
}
