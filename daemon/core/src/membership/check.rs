//! The invariants, as code: run after each event in debug builds, and by the simulator.

use idunno_shared::wire::membership::MemberState;

use crate::machine::InvariantViolation;

use super::suspicion::Suspicion;
use super::{MAX_SEEDS, Phase, Swim};

impl Swim {
    /// Whether the invariants and bounds of the module's documentation hold; else which does not.
    pub(super) fn check_invariants(&self) -> Result<(), InvariantViolation> {
        self.table.check()?;
        self.rumours.check()?;
        self.relays.check()?;
        self.admissions.check()?;
        let expected = if self.phase == Phase::Active { MemberState::Alive } else { MemberState::Left };
        if self.me.state != expected {
            return Err(InvariantViolation::new(format!(
                "this member is {:?} in phase {:?}",
                self.me.state, self.phase
            )));
        }
        if self.table.get(self.me.id).is_some() || self.table.live_at(self.me.address).is_some() {
            return Err(InvariantViolation::new(
                "this member, or another at its address, is in its own list",
            ));
        }
        let suspects = self.table.iter().filter(|member| member.record.state == MemberState::Suspect);
        if !suspects.map(|member| member.record.id).eq(self.suspicions.keys().copied()) {
            return Err(InvariantViolation::new("the suspects are not those with a deadline"));
        }
        self.suspicions.values().try_for_each(Suspicion::check)?;
        if self.local_health.score() > self.config.local_health_max {
            return Err(InvariantViolation::new(format!(
                "a local_health score of {}",
                self.local_health.score()
            )));
        }
        if self.seeds.len() > MAX_SEEDS {
            return Err(InvariantViolation::new(format!("{} seeds", self.seeds.len())));
        }
        Ok(())
    }
}
