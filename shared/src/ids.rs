//! Ids that appear on the wire and in the metadata log.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A member's id: drawn at random when its data directory is created, and never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The term of the Raft vote that elected the coordinator. Receivers ignore messages with an older term than one seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(pub u64);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of a change, 128 random bits chosen by the client. A change repeated with the same id is made once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpId(pub u64, pub u64);

impl OpId {
    /// Draws an id. Ids of one process differ even if the operating system provides no randomness.
    pub fn random() -> Self {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let count = || COUNTER.fetch_add(1, Ordering::Relaxed);
        Self(
            getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id())),
            getrandom::u64().unwrap_or_else(|_| count()),
        )
    }
}

impl OpId {
    /// The id as that of this asker: whoever learns the id of another's change, and repeats it, makes a change of its own and
    /// is not told what the other's did. The half that is shown stays.
    #[must_use]
    pub fn asked_by(self, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("idunno 2026 the operation id of one asker");
        hasher.update(&self.0.to_be_bytes()).update(&self.1.to_be_bytes()).update(name.as_bytes());
        let mut half = [0; 8];
        hasher.finalize_xof().fill(&mut half);
        Self(self.0, u64::from_be_bytes(half))
    }
}

/// The first half of the id, which is enough to find it in logs.
impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A job's id: a number that the metadata log counts up from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job-{}", self.0)
    }
}

/// The text is not a job's id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is not a job: give its id as job-N or N, as get-job-stats prints it")]
pub struct JobIdError(String);

impl FromStr for JobId {
    type Err = JobIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("job-").unwrap_or(text);
        digits.parse().map(Self).map_err(|_| JobIdError(text.to_owned()))
    }
}

/// The id of an upload, assigned by the coordinator.
///
/// Ids are ordered, so that the coordinator can tell holders by one watermark which uploads are over: all below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UploadId {
    /// Term of the coordinator that opened the upload.
    pub term: Term,
    /// Number of the upload within the term.
    pub number: u64,
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "upload-{}-{}", self.term, self.number)
    }
}

/// A BLAKE3 digest; the digest of a blob is its name in the store.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl Digest {
    /// Computes the digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The text is not a digest of 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is not a digest: a digest has 64 lower-case hexadecimal digits")]
pub struct DigestError(String);

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let bytes = text.as_bytes();
        if bytes.len() != 64 {
            return Err(DigestError(text.to_owned()));
        }
        let mut digest = [0; 32];
        for (target, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
                return Err(DigestError(text.to_owned()));
            };
            *target = high << 4 | low;
        }
        Ok(Self(digest))
    }
}
