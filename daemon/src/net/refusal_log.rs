//! Logs each refused peer once an hour, so that none can flood the log, and counts the others, so that none can silence it.
//!
//! What can be forged does not take room from what cannot: datagrams with invented addresses, connections of strangers, and
//! peers with an identity have a table each.
//!
//! Bound: a table remembers [`ENTRIES_MAX`] pairs of an address and a reason for [`SILENCE`]. Refusals that it has no room for
//! are counted, and their number is logged at most once per [`SWEEP_PERIOD`].

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

/// Pairs of an address and a reason that one table remembers.
pub const ENTRIES_MAX: usize = 1_024;
/// How long a pair is not logged again.
pub const SILENCE: Duration = Duration::from_secs(3_600);
/// How often old pairs are forgotten, and refusals beyond the table are logged.
pub const SWEEP_PERIOD: Duration = Duration::from_secs(60);

/// What was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedKind {
    /// A datagram, whose sender may be invented.
    Datagram,
    /// A connection of a peer that has not proven who it is.
    Stranger,
    /// A peer with an identity of the cluster.
    Identity,
}

impl RefusedKind {
    const fn noun(self) -> &'static str {
        match self {
            Self::Datagram => "datagrams",
            Self::Stranger => "connections of strangers",
            Self::Identity => "requests of peers with an identity",
        }
    }
}

/// The refusals logged lately. Ports are left out: each connection has another.
#[derive(Default)]
pub struct RefusalLog {
    datagrams: Mutex<RefusalTable>,
    strangers: Mutex<RefusalTable>,
    identities: Mutex<RefusalTable>,
}

impl RefusalLog {
    /// Notes that an address was refused; `why` is a clause about it ("it has ...").
    pub fn note(&self, kind: RefusedKind, from: SocketAddr, why: impl Display) {
        let table = match kind {
            RefusedKind::Datagram => &self.datagrams,
            RefusedKind::Stranger => &self.strangers,
            RefusedKind::Identity => &self.identities,
        };
        let why = why.to_string();
        let key = (from.ip(), why.clone());
        let noted = table.lock().unwrap_or_else(PoisonError::into_inner).note(key, Instant::now());
        match noted.before {
            _ if !noted.is_news => {}
            0 => warn!(%from, "refused: {why}"),
            before => warn!(%from, before, "refused: {why}"),
        }
        if noted.uncounted > 0 {
            let (uncounted, noun) = (noted.uncounted, kind.noun());
            warn!(
                "refused {uncounted} more {noun} from further addresses: more than {ENTRIES_MAX} were refused within an hour"
            );
        }
    }
}

#[derive(Default)]
struct RefusalTable {
    logged: BTreeMap<(IpAddr, String), Entry>,
    /// Refusals without an entry since the last sweep.
    uncounted: u64,
    swept_at: Option<Instant>,
}

struct Entry {
    since: Instant,
    /// Refusals since then.
    count: u64,
}

/// What is to be logged of a refusal.
#[derive(Debug, Default, PartialEq, Eq)]
struct Noted {
    is_news: bool,
    /// How often the same was refused in the hour before without a line.
    before: u64,
    /// Refusals that the table had no room for, if they are to be logged now.
    uncounted: u64,
}

impl RefusalTable {
    fn note(&mut self, key: (IpAddr, String), now: Instant) -> Noted {
        let uncounted = self.sweep(now);
        let is_full = self.logged.len() >= ENTRIES_MAX;
        match self.logged.get_mut(&key) {
            Some(entry) if now.duration_since(entry.since) < SILENCE => {
                entry.count += 1;
                Noted { uncounted, ..Noted::default() }
            }
            Some(entry) => {
                let before = entry.count;
                *entry = Entry { since: now, count: 0 };
                Noted { is_news: true, before, uncounted }
            }
            None if is_full => {
                self.uncounted += 1;
                Noted { uncounted, ..Noted::default() }
            }
            None => {
                self.logged.insert(key, Entry { since: now, count: 0 });
                Noted { is_news: true, before: 0, uncounted }
            }
        }
    }

    /// Forgets what is older than an hour. Returns how many refusals had no entry since the last sweep.
    fn sweep(&mut self, now: Instant) -> u64 {
        if self.swept_at.is_some_and(|at| now.duration_since(at) < SWEEP_PERIOD) {
            return 0;
        }
        self.swept_at = Some(now);
        // One sweep longer, so that an entry that is refused again tells how often it was.
        self.logged.retain(|_, entry| now.duration_since(entry.since) < SILENCE + 2 * SWEEP_PERIOD);
        std::mem::take(&mut self.uncounted)
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
        let (mut table, now) = (RefusalTable::default(), Instant::now());
        let logged = (0..100_000).filter(|number| table.note(entry(number % 5_000), now).is_news).count();
        assert_eq!((logged, table.logged.len()), (ENTRIES_MAX, ENTRIES_MAX));
        assert_eq!(table.note(entry(1), now + SILENCE / 2).before, 0);
        assert!(!table.note(entry(1), now + SILENCE / 2).is_news);
        let again = table.note(entry(1), now + SILENCE);
        assert_eq!((again.is_news, again.before), (true, 21), "the line tells how often it was refused");
    }

    #[test]
    fn a_flood_of_invented_addresses_is_counted_and_does_not_silence_what_follows() {
        let (mut table, now) = (RefusalTable::default(), Instant::now());
        let beyond = 5_000;
        for number in 0..u32::try_from(ENTRIES_MAX).unwrap() + beyond {
            table.note(entry(number), now);
        }
        let next = table.note(entry(1), now + SWEEP_PERIOD);
        assert_eq!(next.uncounted, u64::from(beyond), "what has no line is counted within a minute");
        assert_eq!(table.note(entry(1), now + SWEEP_PERIOD).uncounted, 0, "and told once");
        // Old entries go by time, whether the table is full or not.
        assert!(table.note(entry(u32::MAX), now + SILENCE + 2 * SWEEP_PERIOD).is_news);
        assert_eq!(table.logged.len(), 1);
    }
}
