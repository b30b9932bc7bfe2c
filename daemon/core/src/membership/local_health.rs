//! Whether this member trusts its own ears: Lifeguard's local local_health multiplier (section IV-A).
//!
//! A member that is starved of CPU hears answers too late and would blame others. It gives them more time as long as
//! there is evidence against itself: a probe that brought no answer from anybody asked, being driven late, and having
//! to contradict a suspicion of itself. A probe that was answered speaks for it.
//!
//! Unlike Lifeguard, a failed probe counts once and only if none of those asked said anything, not once for each that
//! kept silent: on a lossy network single answers get lost all the time, and a member that slowed down for that would
//! find deaths later without being any healthier.

use std::time::Duration;

/// From 0, healthy, to a bound.
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

    /// A time of the healthy, as long as this member needs it.
    pub(super) fn stretch(&self, time: Duration) -> Duration {
        time * (self.score + 1)
    }
}
