//! Logs each refused peer once, so that none can flood the log.
//!
//! Bound: [`ENTRIES_MAX`] pairs of an address and a reason are remembered for [`SILENCE`]; beyond it nothing is logged.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

/// Pairs of an address and a reason that are remembered.
pub const ENTRIES_MAX: usize = 1_024;
/// How long a pair is not logged again.
pub const SILENCE: Duration = Duration::from_secs(3_600);

/// The refusals logged lately. Ports are left out: each connection has another.
#[derive(Default)]
pub struct RefusalLog {
    logged: Mutex<BTreeMap<(IpAddr, String), Instant>>,
}

impl RefusalLog {
    /// Notes that an address was refused; `why` is a clause about it ("it has ...").
    pub fn note(&self, from: SocketAddr, why: impl Display) {
        let why = why.to_string();
        if self.is_news((from.ip(), why.clone()), Instant::now()) {
            warn!(%from, "refused: {why}");
        }
    }

    fn is_news(&self, entry: (IpAddr, String), now: Instant) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() >= ENTRIES_MAX {
            logged.retain(|_, since| now.duration_since(*since) < SILENCE);
        }
        let is_logged = logged.get(&entry).is_some_and(|since| now.duration_since(*since) < SILENCE);
        if is_logged || logged.len() >= ENTRIES_MAX {
            return false;
        }
        logged.insert(entry, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u32) -> (IpAddr, String) {
        (IpAddr::from(number.to_be_bytes()), String::from("connection"))
    }

    #[test]
    fn each_refusal_is_logged_once_an_hour_and_a_flood_is_bounded() {
        let (refusal_log, now) = (RefusalLog::default(), Instant::now());
        let logged = (0..100_000).filter(|number| refusal_log.is_news(entry(number % 5_000), now)).count();
        assert_eq!(logged, ENTRIES_MAX);
        assert!(!refusal_log.is_news(entry(1), now + SILENCE / 2));
        assert!(refusal_log.is_news(entry(1), now + SILENCE));
        assert!(refusal_log.is_news(entry(4_999), now + SILENCE), "expired entries made room");
    }
}
