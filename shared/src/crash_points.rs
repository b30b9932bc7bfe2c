//! Points at which a test may have this process end as a power cut would end it. Compiled out of releases.
//!
//! `IDUNNO_CRASH_AT=POINT:N` kills the process, without any cleaning up, when it passes the point for the N-th time.
//! The points stand in the code, between the steps whose order is what durability rests on.

#[cfg(debug_assertions)]
pub use armed::point;

/// Nothing: this is a release.
#[cfg(not(debug_assertions))]
pub fn point(_name: &str) {}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    const VARIABLE: &str = "IDUNNO_CRASH_AT";

    /// The point at which to crash, and how often it is passed until then.
    static CRASH_AT: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();

    /// Ends the process here, if a test asked for it.
    pub fn point(name: &str) {
        let Some((at, left)) = CRASH_AT.get_or_init(read) else { return };
        if at == name && left.fetch_sub(1, Ordering::Relaxed) == 1 {
            // It cannot fail to reach this very process.
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }

    fn read() -> Option<(String, AtomicU64)> {
        let text = std::env::var(VARIABLE).ok()?;
        let (name, count) = text.split_once(':')?;
        Some((name.to_owned(), AtomicU64::new(count.parse().ok()?)))
    }
}
