//! The daemon's clocks: monotonic time for the machines, wall time for what people read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use idunno_core::time::Instant;

/// Monotonic time since this process' start, as the machines want it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: tokio::time::Instant,
    start_wall_ms: u64,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { start: tokio::time::Instant::now(), start_wall_ms: wall_ms() }
    }

    /// Now.
    pub fn now(self) -> Instant {
        Instant::START + self.start.elapsed()
    }

    /// What the system's clock shows at `at`, in milliseconds since the epoch, unless it was set meanwhile.
    pub const fn wall_ms_at(self, at: Instant) -> u64 {
        self.start_wall_ms.saturating_add(at.as_micros() / 1000)
    }

    /// When it will be `at`, for the runtime's timers.
    pub fn deadline(self, at: Instant) -> tokio::time::Instant {
        self.start + Duration::from_micros(at.as_micros())
    }

    /// Sleeps until `at`; for ever without one.
    pub async fn sleep_until(self, at: Option<Instant>) {
        match at {
            Some(at) => tokio::time::sleep_until(self.deadline(at)).await,
            None => std::future::pending().await,
        }
    }
}

/// Milliseconds since the epoch, by the system's clock.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
