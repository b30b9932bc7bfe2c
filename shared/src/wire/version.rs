//! Which versions of the protocol a process speaks, and how messages may change.
//!
//! Two neighbouring releases understand each other, so that a cluster is upgraded one member at a time. Messages, the
//! metadata log's rows and its snapshots travel as MessagePack arrays: fields have no names there, only places. So, from
//! one release to the next:
//!
//! * A field is added at the end of its struct, with `#[serde(default, skip_serializing_if = ...)]`, and left at its
//!   default towards whoever speaks the older version. Then what is sent is, byte for byte, what the older release sends.
//! * A variant is added at the end of its enum, and not sent to whoever speaks the older version. A command of the log is
//!   not proposed before all members speak the newer one.
//! * Nothing is moved, renamed or removed before the version that has it is below [`SPOKEN`]'s oldest.
//!
//! The greeting alone has named fields: it is sent before anything is known of the other side, and may get further ones
//! at any time. `tests/fuzz/corpus` holds a message of every shape of each version: they must decode, and encode to the
//! same bytes.

use std::fmt;

/// What this release speaks.
pub const SPOKEN: Versions = Versions { oldest: 1, newest: 1 };

/// A range of versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub oldest: u16,
    /// The newest.
    pub newest: u16,
}

impl Versions {
    /// The newest that both speak, if there is any.
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }

    /// Whether `version` is spoken.
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
        Told { first: u64 },
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum New {
        Told {
            first: u64,
            #[serde(default, skip_serializing_if = "Option::is_none")]
            more: Option<u64>,
        },
        Added(u64),
    }

    #[test]
    fn a_field_that_is_added_by_the_rules_is_read_and_written_by_neighbours() {
        let (old, new) = (Old::Told { first: 7 }, New::Told { first: 7, more: None });
        let bytes = rmp_serde::to_vec(&old).unwrap();
        assert_eq!(rmp_serde::from_slice::<New>(&bytes).unwrap(), new);
        assert_eq!(rmp_serde::to_vec(&new).unwrap(), bytes);
        // What has to wait until the neighbour knows it.
        for newer in [New::Told { first: 7, more: Some(1) }, New::Added(1)] {
            assert!(rmp_serde::from_slice::<Old>(&rmp_serde::to_vec(&newer).unwrap()).is_err());
        }
    }

    #[test]
    fn neighbours_meet_at_the_newest_that_both_speak() {
        let versions = |oldest, newest| Versions { oldest, newest };
        assert_eq!(versions(1, 1).common(versions(1, 2)), Some(1));
        assert_eq!(versions(2, 3).common(versions(1, 2)), Some(2));
        assert_eq!(versions(2, 3).common(versions(2, 3)), Some(3));
        assert_eq!(versions(1, 1).common(versions(2, 3)), None);
        assert_eq!(versions(3, 4).common(versions(1, 2)), None);
        // What no process says of itself, and somebody may send.
        assert_eq!(versions(1, 1).common(versions(5, 0)), None);
    }
}
