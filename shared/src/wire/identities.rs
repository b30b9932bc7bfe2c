//! The identities of people, as far as the cluster knows them: which certificates have connected, and which names are
//! revoked.

use serde::{Deserialize, Serialize};

use super::bounded;
use super::control::CERTIFICATES_PER_NAME_MAX;
use crate::access::{Issued, SubjectName};

/// A name that identities bear: who has it, as far as the cluster knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedIdentity {
    /// The name.
    pub name: SubjectName,
    /// Certificates of this name that have connected, the one that ends first foremost; none if none has.
    #[serde(deserialize_with = "bounded::list::<CERTIFICATES_PER_NAME_MAX, _, _>")]
    pub certificates: Vec<SeenCertificate>,
    /// Set once the name is revoked.
    pub revoked: Option<Revocation>,
}

/// Part of time, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// It begins after this moment.
    pub after_ms: u64,
    /// Its last moment.
    pub until_ms: u64,
}

impl Period {
    /// Whether a moment is within.
    pub const fn contains(self, at_ms: u64) -> bool {
        self.after_ms < at_ms && at_ms <= self.until_ms
    }
}

/// A certificate that has connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenCertificate {
    /// The certificate.
    pub issued: Issued,
    /// When it was first seen, in milliseconds since the epoch.
    pub seen_ms: u64,
}

/// The end of all identities of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// When, in milliseconds since the epoch.
    pub at_ms: u64,
    /// The name of who revoked it; `None` without security.
    pub by: Option<SubjectName>,
}
