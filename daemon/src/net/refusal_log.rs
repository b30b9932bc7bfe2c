//! Who was refused: told in the log once, so that nobody can fill it.
//!
//! Bound: [`PLACES_MAX`] pairs of an address and a reason are remembered for [`SILENCE`], and only such as have a
//! place are told.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

/// Pairs that are remembered.
pub const PLACES_MAX: usize = 1_024;
/// For how long nothing more is said of an address.
pub const SILENCE: Duration = Duration::from_secs(3_600);

/// Addresses and why they were refused. A port is one connection's only, so it does not count.
#[derive(Default)]
pub struct RefusalLog {
    told: Mutex<BTreeMap<(IpAddr, String), Instant>>,
}

impl RefusalLog {
    /// This address was refused something: why, as a sentence about it.
    pub fn note(&self, from: SocketAddr, why: impl Display) {
        let why = why.to_string();
        if self.is_news((from.ip(), why.clone()), Instant::now()) {
            warn!(%from, "refused: {why}");
        }
    }

    fn is_news(&self, place: (IpAddr, String), now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= PLACES_MAX {
            told.retain(|_, since| now.duration_since(*since) < SILENCE);
        }
        let is_told = told.get(&place).is_some_and(|since| now.duration_since(*since) < SILENCE);
        if is_told || told.len() >= PLACES_MAX {
            return false;
        }
        told.insert(place, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u32) -> (IpAddr, String) {
        (IpAddr::from(number.to_be_bytes()), String::from("connection"))
    }

    #[test]
    fn each_is_told_once_an_hour_and_a_flood_has_an_end() {
        let (refusal_log, now) = (RefusalLog::default(), Instant::now());
        let told = (0..100_000).filter(|number| refusal_log.is_news(place(number % 5_000), now)).count();
        assert_eq!(told, PLACES_MAX);
        assert!(!refusal_log.is_news(place(1), now + SILENCE / 2));
        assert!(refusal_log.is_news(place(1), now + SILENCE));
        assert!(refusal_log.is_news(place(4_999), now + SILENCE), "old ones made room");
    }
}
