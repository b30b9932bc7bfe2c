//! Protocol versions, and the rules by which messages may change.
//!
//! Consecutive releases interoperate, so a cluster can be upgraded one member at a time. Messages, entries of the metadata
//! log and its snapshots are encoded as MessagePack: structs as arrays, in which a field has a position and no name, and
//! variants of enums by name. From one release to the next, therefore:
//!
//! * A new field goes to the end of its struct, with `#[serde(default, skip_serializing_if = ...)]`, and keeps its default
//!   towards a peer that speaks the older version. What is sent then equals, byte for byte, what the older release sends.
//! * A new variant goes to the end of its enum, and is not sent to a peer that speaks the older version. A new command of
//!   the log is not proposed before all members speak the newer version.
//! * Nothing is moved, renamed or removed before its version is below [`SPOKEN`]'s oldest. A better name in the code keeps
//!   the old one on the wire, by `#[serde(rename = ...)]`.
//!
//! Only the greeting has named fields: it is sent before the peer's version is known, and may gain fields at any time.
//! `tests/fuzz/corpus` holds a message of every shape of each version; all must decode, and encode to the same bytes.

use std::fmt;

/// The versions that this release speaks.
pub const SPOKEN: Versions = Versions { oldest: 1, newest: 1 };

/// A range of versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// Oldest version of the range.
    pub oldest: u16,
    /// Newest version of the range.
    pub newest: u16,
}

impl Versions {
    /// The newest version in both ranges, if there is one.
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }

    /// Whether `version` is in the range.
    pub fn contains(self, version: u16) -> bool {
        (self.oldest..=self.newest).contains(&version)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.oldest == self.newest {
            write!(f, "version {}", self.newest)
        } else {
            write!(f, "versions {} to {}", self.oldest, self.newest)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Old {
        Sent { first: u64 },
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum New {
        Sent {
            first: u64,
            #[serde(default, skip_serializing_if = "Option::is_none")]
            more: Option<u64>,
        },
        Added(u64),
    }

    #[test]
    fn a_field_added_by_the_rules_is_compatible_both_ways() {
        let (old, new) = (Old::Sent { first: 7 }, New::Sent { first: 7, more: None });
        let bytes = rmp_serde::to_vec(&old).unwrap();
        assert_eq!(rmp_serde::from_slice::<New>(&bytes).unwrap(), new);
        assert_eq!(rmp_serde::to_vec(&new).unwrap(), bytes);
        // An older peer refuses what is new, so it must not be sent.
        for newer in [New::Sent { first: 7, more: Some(1) }, New::Added(1)] {
            assert!(rmp_serde::from_slice::<Old>(&rmp_serde::to_vec(&newer).unwrap()).is_err());
        }
    }

    #[test]
    fn peers_agree_on_the_newest_common_version() {
        let versions = |oldest, newest| Versions { oldest, newest };
        assert_eq!(versions(1, 1).common(versions(1, 2)), Some(1));
        assert_eq!(versions(2, 3).common(versions(1, 2)), Some(2));
        assert_eq!(versions(2, 3).common(versions(2, 3)), Some(3));
        assert_eq!(versions(1, 1).common(versions(2, 3)), None);
        assert_eq!(versions(3, 4).common(versions(1, 2)), None);
        // An inverted range, which only a faulty or hostile peer sends.
        assert_eq!(versions(1, 1).common(versions(5, 0)), None);
    }
}
