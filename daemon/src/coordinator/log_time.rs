//! The time that a term stamps on the log, and by which it computes ages and rates: one clock for both, so that neither is
//! ever ahead of the other. `core::clocks` decides how it runs.

use std::sync::{Mutex, PoisonError};

use idunno_core::clocks::LogClock;

use super::Deps;
use crate::membership::MembershipHandle;
use crate::runtime::clock::{Clock, wall_ms};

/// The log's time in one term.
pub(super) struct LogTime {
    clock: Clock,
    membership: MembershipHandle,
    /// Locked for a reading only.
    log_clock: Mutex<LogClock>,
}

impl LogTime {
    pub(super) fn start(deps: &Deps) -> Self {
        let (clock, membership) = (deps.clock, deps.membership.clone());
        let log_ms = deps.consensus.state().borrow().now_ms();
        let log_clock = LogClock::new(log_ms, corrected_ms(&membership), clock.now());
        Self { clock, membership, log_clock: Mutex::new(log_clock) }
    }

    /// Now, in milliseconds since the epoch.
    pub(super) fn now_ms(&self) -> u64 {
        let wall_ms = corrected_ms(&self.membership);
        let mut log_clock = self.log_clock.lock().unwrap_or_else(PoisonError::into_inner);
        log_clock.now_ms(wall_ms, self.clock.now())
    }
}

fn corrected_ms(membership: &MembershipHandle) -> u64 {
    membership.current().corrected_ms(wall_ms())
}
