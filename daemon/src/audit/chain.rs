//! The lines of the audit, each chained to the one before.
//!
//! A line is a JSON object with `seq`, its number from 1, and `prev`, the BLAKE3 digest of the line before without its end;
//! 64 zeros in the first. The rest is the event. A line cannot contain a line end: JSON escapes it. Whoever holds a line's
//! number and digest ([`Head`]) holds all lines before it: none of them can change unnoticed.

use std::fmt;
use std::str::FromStr;

use idunno_shared::ids::Digest;
use idunno_shared::text::visible_json;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::AuditEvent;

/// The end of a chain: the number and the digest of its last line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub seq: u64,
    /// All zeros before the first line.
    pub digest: Digest,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.digest)
    }
}

/// The text is not `NUMBER:DIGEST`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("write the number of an event and its digest as NUMBER:DIGEST, as verify-audit prints them")]
pub struct HeadError;

impl FromStr for Head {
    type Err = HeadError;

    fn from_str(text: &str) -> Result<Self, HeadError> {
        let (seq, digest) = text.split_once(':').ok_or(HeadError)?;
        let (seq, digest) = (seq.parse().ok(), digest.parse().ok());
        seq.zip(digest).map(|(seq, digest)| Self { seq, digest }).ok_or(HeadError)
    }
}

#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    prev: String,
    at: String,
    #[serde(flatten)]
    event: &'a AuditEvent,
}

/// What every line has, whatever its event.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Link {
    pub(super) seq: u64,
    prev: String,
    pub(super) at: String,
    /// Of the first line of a file.
    pub(super) kept_from: Option<u64>,
    /// Of a line that says that others are missing.
    pub(super) events: Option<u64>,
    event: String,
}

impl Link {
    pub(super) fn read(line: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line)
    }

    /// How many events the line says are missing.
    pub(super) fn lost(&self) -> u64 {
        if self.event == "lost" { self.events.unwrap_or_default() } else { 0 }
    }

    /// Whether the line is the one after `head`.
    pub(super) fn follows(&self, head: Head) -> bool {
        self.seq == head.seq + 1 && self.prev == head.digest.to_string()
    }
}

impl Head {
    /// The line of an event after this one, with its end. Moves on to it.
    pub(super) fn append(&mut self, event: &AuditEvent, at: &str) -> serde_json::Result<String> {
        let line = Line { seq: self.seq + 1, prev: self.digest.to_string(), at: at.to_owned(), event };
        let mut text = visible_json(&serde_json::to_string(&line)?).into_owned();
        *self = Self { seq: line.seq, digest: Digest::of(text.as_bytes()) };
        text.push('\n');
        Ok(text)
    }

    /// The end of the chain after a line that was read.
    pub(super) fn after(link: &Link, line: &[u8]) -> Self {
        Self { seq: link.seq, digest: Digest::of(line) }
    }
}
