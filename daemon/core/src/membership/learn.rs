//! Taking in records: which news counts, what follows from it, and when this member contradicts.

use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::{MemberRecord, MemberState};

use super::{Effect, MAX_LIVE, MemberChange, Phase, Swim};
use crate::time::Instant;

/// How a record got here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// By gossip: fresh news.
    Rumour,
    /// From a peer's list: perhaps old.
    List,
}

impl Swim {
    /// Takes in what another member believes.
    pub(super) fn learn(&mut self, record: &MemberRecord, source: Source, now: Instant) {
        if record.id == self.me.id {
            self.hear_of_self(record);
            return;
        }
        let mut record = record.clone();
        let known = self.table.get(record.id).map(|member| &member.record);
        let known_live = known.is_some_and(|known| known.state.is_live());
        if source == Source::List && record.state == MemberState::Dead && known_live {
            // A list may be old, or come from the other half of a healed partition: let the member contradict.
            record.state = MemberState::Suspect;
        }
        if known.is_some_and(|known| record.precedence() <= known.precedence()) {
            return;
        }
        if record.state.is_live() && !known_live && self.table.live_len() >= MAX_LIVE {
            self.counters.records_dropped += 1;
            return;
        }
        // Of a member never heard of, death is worth remembering, not telling.
        let is_news = known.is_some() || record.state.is_live();
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
        self.store(record, is_news, now);
    }

    /// A member's death, by this member's own judgement.
    pub(super) fn declare_dead(&mut self, id: NodeId, now: Instant) {
        self.judge(id, MemberState::Dead, now);
    }

    /// A probe of `id` failed.
    pub(super) fn suspect(&mut self, id: NodeId, now: Instant) {
        if self.table.get(id).is_some_and(|member| member.record.state == MemberState::Alive) {
            self.counters.suspicions += 1;
            self.judge(id, MemberState::Suspect, now);
        }
    }

    /// Stores a verdict at the member's current incarnation.
    fn judge(&mut self, id: NodeId, state: MemberState, now: Instant) {
        if let Some(member) = self.table.get(id) {
            let record = MemberRecord { state, ..member.record.clone() };
            self.store(record, true, now);
        }
    }

    /// Stores a record that outranks the one before, and does what follows.
    fn store(&mut self, record: MemberRecord, is_news: bool, now: Instant) {
        let (id, state) = (record.id, record.state);
        if state == MemberState::Suspect {
            self.suspicions.insert(id, now + self.config.suspicion_timeout(self.size()));
        } else {
            self.suspicions.remove(&id);
        }
        if is_news {
            self.rumours.add(id);
        }
        let previous = self.table.put(record.clone(), now);
        if state.is_live() {
            if !previous.as_ref().is_some_and(|previous| previous.state.is_live()) {
                self.prober.add(id, &mut self.rng);
            }
        } else {
            self.prober.forget(id);
        }
        let unchanged = previous.as_ref().is_some_and(|previous| {
            previous.state == state
                && previous.generation == record.generation
                && previous.address == record.address
                && previous.name == record.name
        });
        if !unchanged {
            self.effects.push_back(Effect::Changed(MemberChange { record, previous }));
        }
    }

    /// Contradicts, by an incarnation above, what others say of this member unless it is the truth.
    fn hear_of_self(&mut self, said: &MemberRecord) {
        let own = (self.me.generation, self.me.incarnation);
        if self.phase != Phase::Active || (said.generation, said.incarnation) < own {
            return;
        }
        if said.state == MemberState::Alive {
            if said.address != self.me.address {
                if !self.effects.iter().any(|effect| matches!(effect, Effect::Conflict(_))) {
                    self.effects.push_back(Effect::Conflict(said.clone()));
                }
                return;
            }
            if (said.generation, said.incarnation) == own {
                return;
            }
        }
        let previous = self.me.clone();
        self.counters.refutations += 1;
        self.me.generation = said.generation;
        self.me.incarnation = said.incarnation.next();
        self.rumours.add(self.me.id);
        if self.me.generation != previous.generation {
            // The persisted boot count was lost or restored from an old copy.
            let change = MemberChange { record: self.me.clone(), previous: Some(previous) };
            self.effects.push_back(Effect::Changed(change));
        }
    }
}
