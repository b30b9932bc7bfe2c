//! Points at which a test can make this process die as in a power cut. Compiled out of releases.
//!
//! With `IDUNNO_CRASH_AT=POINT:N` the process kills itself, without cleanup, when it passes the point for the N-th time.
//! The points lie between steps whose order durability depends on.

#[cfg(debug_assertions)]
pub use armed::point;

/// Does nothing in a release.
#[cfg(not(debug_assertions))]
pub fn point(_name: &str) {}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    const VARIABLE: &str = "IDUNNO_CRASH_AT";

    /// The point at which to crash, and how many passes are left until then.
    static CRASH_AT: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();

    /// Kills the process if a test armed this point.
    pub fn point(name: &str) {
        let Some((at, left)) = CRASH_AT.get_or_init(read) else { return };
        if at == name && left.fetch_sub(1, Ordering::Relaxed) == 1 {
            // A process may always signal itself.
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }

    fn read() -> Option<(String, AtomicU64)> {
        let text = std::env::var(VARIABLE).ok()?;
        let (name, count) = text.split_once(':')?;
        Some((name.to_owned(), AtomicU64::new(count.parse().ok()?)))
    }
}
