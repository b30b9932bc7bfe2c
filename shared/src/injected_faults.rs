//! Faults that a test puts into a running process: a wall clock that is off, and renames that hang. Compiled out of releases.
//!
//! With `IDUNNO_FAULTS_DIR=DIR` the process looks into DIR each time: the file `clock-ahead-s` has the seconds by which its
//! wall clock is ahead (negative: behind), and a rename waits while the file `hang-rename` exists.

use std::time::SystemTime;

#[cfg(debug_assertions)]
pub use armed::{before_rename, wall_clock};

/// The system's wall clock.
#[cfg(not(debug_assertions))]
pub fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// Does nothing in a release.
#[cfg(not(debug_assertions))]
pub fn before_rename() {}

#[cfg(debug_assertions)]
mod armed {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::time::Duration;

    use super::SystemTime;

    const VARIABLE: &str = "IDUNNO_FAULTS_DIR";
    const POLL: Duration = Duration::from_millis(10);

    static DIR: OnceLock<Option<PathBuf>> = OnceLock::new();

    fn file(name: &str) -> Option<PathBuf> {
        DIR.get_or_init(|| std::env::var_os(VARIABLE).map(PathBuf::from)).as_ref().map(|dir| dir.join(name))
    }

    /// The system's wall clock, unless a test set it off.
    pub fn wall_clock() -> SystemTime {
        let now = SystemTime::now();
        let Some(text) = file("clock-ahead-s").and_then(|path| fs::read_to_string(path).ok()) else {
            return now;
        };
        let ahead_s: i64 = text.trim().parse().unwrap_or_default();
        let offset = Duration::from_secs(ahead_s.unsigned_abs());
        if ahead_s < 0 { now - offset } else { now + offset }
    }

    /// Waits while a test has renames hang. Blocks the thread, as a disk would.
    pub fn before_rename() {
        let Some(path) = file("hang-rename") else { return };
        while path.exists() {
            std::thread::sleep(POLL);
        }
    }
}
