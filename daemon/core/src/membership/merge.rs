//! Merging records: which news counts, what follows from it, and when this member refutes.

use std::time::Duration;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::{MemberRecord, MemberState};

use super::{MAX_LIVE, MemberChange, Phase, Swim, SwimEffect};
use crate::time::Instant;

/// How a record got here.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    /// By gossip, with the witnesses of a suspicion: fresh news.
    Rumour(&'a [NodeId]),
    /// From the member itself.
    Itself,
    /// From a peer's list: perhaps old.
    List {
        /// When a dead or left member is to be forgotten.
        forget_in: Duration,
        /// What is new here may be new to others. It is not to a newcomer's first list.
        is_news: bool,
    },
}

impl Swim {
    /// Merges what a member believes of another, or says of itself once it is admitted.
    pub(super) fn merge(&mut self, record: &MemberRecord, source: Source<'_>, now: Instant) {
        if record.id == self.me.id {
            self.refute(record);
            return;
        }
        let mut record = record.clone();
        let known = self.table.get(record.id).map(|member| &member.record);
        let known_live = known.is_some_and(|known| known.state.is_live());
        let (mut witnesses, mut remember) = (&[][..], self.config.forget_after);
        match source {
            Source::Rumour(theirs) => witnesses = theirs,
            Source::Itself => {}
            // A list may be old, or come from the other half of a healed partition: let the member refute it.
            Source::List { .. } if record.state == MemberState::Dead && known_live => {
                record.state = MemberState::Suspect;
            }
            Source::List { forget_in, .. } => remember = remember.min(forget_in),
        }
        if let Some(known) = known.filter(|known| record.precedence() <= known.precedence()) {
            if record.precedence() == known.precedence() {
                self.confirm(record.id, witnesses, now);
            }
            return;
        }
        if known.is_none() && !record.state.is_live() && remember.is_zero() {
            return;
        }
        if record.state.is_live() && !known_live && self.table.live_len() >= MAX_LIVE {
            self.counters.records_dropped += 1;
            return;
        }
        // The death of an unknown member is worth remembering, but not passing on.
        let is_news = known.is_some()
            || record.state.is_live() && !matches!(source, Source::List { is_news: false, .. });
        if record.state.is_live() {
            if record.address == self.me.address {
                // This process listens there, so that one is gone.
                self.counters.refused += 1;
                record.state = MemberState::Dead;
            } else if let Some(old) = self.table.live_at(record.address).filter(|&old| old != record.id) {
                self.counters.refused += 1;
                self.declare_dead(old, now);
            }
        }
        let (id, is_suspect) = (record.id, record.state == MemberState::Suspect);
        self.store(record, witnesses, is_news, now + remember, now);
        if is_suspect {
            self.probe_soon(id);
        }
    }

    /// This member itself finds another dead.
    pub(super) fn declare_dead(&mut self, id: NodeId, now: Instant) {
        self.store_verdict(id, MemberState::Dead, now);
    }

    /// Stores a state that this member is the witness of, at the other's current incarnation.
    pub(super) fn store_verdict(&mut self, id: NodeId, state: MemberState, now: Instant) {
        if let Some(member) = self.table.get(id) {
            let record = MemberRecord { state, ..member.record.clone() };
            self.store(record, &[self.me.id], true, now + self.config.forget_after, now);
        }
    }

    /// Stores a record that outranks the one before, and does what follows.
    fn store(
        &mut self,
        record: MemberRecord,
        witnesses: &[NodeId],
        is_news: bool,
        forget_at: Instant,
        now: Instant,
    ) {
        let (id, state) = (record.id, record.state);
        if is_news {
            self.rumours.add(id);
        }
        let previous = self.table.put(record.clone(), forget_at, now);
        let was_suspect = previous.as_ref().is_some_and(|previous| previous.state == MemberState::Suspect);
        if state == MemberState::Alive && was_suspect {
            self.note_refutation(id);
        }
        if state == MemberState::Suspect {
            self.start_suspicion(id, witnesses, now);
        } else {
            self.suspicions.remove(&id);
        }
        if state.is_live() {
            if !previous.as_ref().is_some_and(|previous| previous.state.is_live()) {
                self.prober.add(id, &mut self.rng);
            }
        } else {
            self.prober.forget(id);
            while let Some(excess) = self.table.excess(&record.name) {
                self.forget(excess);
            }
        }
        let unchanged = previous.as_ref().is_some_and(|previous| {
            previous.state == state
                && previous.generation == record.generation
                && previous.address == record.address
                && previous.name == record.name
        });
        if !unchanged {
            self.effects.push_back(SwimEffect::Changed(MemberChange { record, previous }));
        }
    }

    /// Forgets the dead and the left whose time is up.
    pub(super) fn forget_expired(&mut self, now: Instant) {
        while let Some(id) = self.table.expired(now) {
            self.forget(id);
        }
    }

    pub(super) fn forget(&mut self, id: NodeId) {
        self.counters.forgotten += 1;
        self.table.forget(id);
        self.rumours.remove(id);
    }

    /// Refutes what others say of this member, by a higher incarnation, unless it is true.
    pub(super) fn refute(&mut self, said: &MemberRecord) {
        let own = (self.me.generation, self.me.incarnation);
        if self.phase != Phase::Active || (said.generation, said.incarnation) < own {
            return;
        }
        if said.state == MemberState::Alive {
            if said.address != self.me.address {
                if !self.effects.iter().any(|effect| matches!(effect, SwimEffect::Conflict(_))) {
                    self.effects.push_back(SwimEffect::Conflict(said.clone()));
                }
                return;
            }
            if (said.generation, said.incarnation) == own {
                return;
            }
        }
        let previous = self.me.clone();
        self.counters.refutations += 1;
        if said.state != MemberState::Alive {
            self.local_health.worsen();
        }
        self.me.generation = said.generation;
        self.me.incarnation = said.incarnation.next();
        self.rumours.add(self.me.id);
        if self.me.generation != previous.generation {
            // The persisted boot count was lost, or restored from an old copy.
            let change = MemberChange { record: self.me.clone(), previous: Some(previous) };
            self.effects.push_back(SwimEffect::Changed(change));
        }
    }
}
