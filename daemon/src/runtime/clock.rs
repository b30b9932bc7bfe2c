//! The daemon's clocks: monotonic time drives the state machines, wall time is what people read.

use std::time::{Duration, UNIX_EPOCH};

use idunno_core::time::Instant;
use idunno_shared::injected_faults::wall_clock;

/// Monotonic time since the process started, in the form that the state machines take.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: tokio::time::Instant,
    start_wall_ms: u64,
}

impl Clock {
    pub fn start() -> Self {
        Self { start: tokio::time::Instant::now(), start_wall_ms: wall_ms() }
    }

    pub fn now(self) -> Instant {
        Instant::START + self.start.elapsed()
    }

    /// Wall time at `at`, in milliseconds since the epoch. Wrong if the system clock was set since the process started.
    pub const fn wall_ms_at(self, at: Instant) -> u64 {
        self.start_wall_ms.saturating_add(at.as_micros() / 1000)
    }

    /// `at` as a deadline for tokio's timers.
    pub fn deadline(self, at: Instant) -> tokio::time::Instant {
        self.start + Duration::from_micros(at.as_micros())
    }

    /// Sleeps until `at`, or forever if there is none.
    pub async fn sleep_until(self, at: Option<Instant>) {
        match at {
            Some(at) => tokio::time::sleep_until(self.deadline(at)).await,
            None => std::future::pending().await,
        }
    }
}

/// The system clock, in milliseconds since the epoch.
pub fn wall_ms() -> u64 {
    let since = wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
