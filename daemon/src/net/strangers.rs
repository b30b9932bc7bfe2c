//! Who was refused: told in the log once, so that nobody can fill it.
//!
//! Bound: [`PLACES_MAX`] pairs of an address and what came from it are remembered for [`SILENCE`], and only such as have a
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

/// Addresses and what came from them that was refused. A port is one connection's only, so it does not count.
#[derive(Default)]
pub struct Strangers {
    told: Mutex<BTreeMap<(IpAddr, String), Instant>>,
}

impl Strangers {
    /// A `what` of this address was refused, for it `does` something.
    pub fn note(&self, from: SocketAddr, what: &'static str, does: &dyn Display) {
        let does = does.to_string();
        if self.is_news((from.ip(), format!("{what} {does}")), Instant::now()) {
            warn!(%from, "refused: a {what} from {from}, which {does}");
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
        let (strangers, now) = (Strangers::default(), Instant::now());
        let told = (0..100_000).filter(|number| strangers.is_news(place(number % 5_000), now)).count();
        assert_eq!(told, PLACES_MAX);
        assert!(!strangers.is_news(place(1), now + SILENCE / 2));
        assert!(strangers.is_news(place(1), now + SILENCE));
        assert!(strangers.is_news(place(4_999), now + SILENCE), "old ones made room");
    }
}
