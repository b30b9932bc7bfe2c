//! Access keys: what programs sign their requests to a gateway with.
//!
//! A key's id says what the key grants, to whom and until when; its secret is a keyed hash of the id. So nobody keeps a table of
//! keys: whoever has the cluster's secret can tell the secret of an id, and an id that was changed has another one. A
//! gateway answers a request with an identity of that grant, so a key ends with its name: `idunno identity revoke`.
//!
//! An id is `NAME.ROLE.KEY.END`, and `.PREFIX` after it in hexadecimal where a submitter's prefix is not its own folder. KEY is the
//! number of the secret's key, END is in seconds since the epoch. It has no character that URLs or signatures escape.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::access::{Grant, Prefix, Role, SubjectName};

/// Longest id, in bytes: one with the longest name and prefix.
pub const ACCESS_KEY_ID_BYTES_MAX: usize = 640;
/// What secrets are derived for; of no other use of the cluster's key.
const CONTEXT: &str = "idunno 2026-12-01 secrets of access keys";
/// Bytes of a secret: 160 bits, as hexadecimal as long as those of AWS.
const SECRET_BYTES: usize = 20;

/// The id of an access key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AccessKeyId {
    /// Whose key it is.
    pub name: SubjectName,
    /// What it entitles to.
    pub role: Role,
    /// Where a submitter may change files; `None` for others.
    pub prefix: Option<Prefix>,
    /// Which key of the cluster's secret it is derived from.
    pub key: u64,
    /// When it ends, in seconds since the epoch.
    pub ends_s: u64,
}

/// The text is not the id of an access key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is not the id of an access key: have one made with 'idunno key create'")]
pub struct AccessKeyIdError(String);

impl AccessKeyId {
    /// What it grants.
    pub fn grant(&self) -> Grant {
        let prefixes = self.prefix.iter().cloned().collect();
        Grant { name: self.name.clone(), role: self.role, prefixes }
    }

    /// Its secret, given the private key of the cluster.
    pub(super) fn secret(&self, key_der: &[u8]) -> String {
        let key = blake3::derive_key(CONTEXT, key_der);
        let hash = blake3::keyed_hash(&key, self.to_string().as_bytes());
        hex(&hash.as_bytes()[..SECRET_BYTES])
    }

    fn parse(text: &str) -> Option<Self> {
        if text.len() > ACCESS_KEY_ID_BYTES_MAX {
            return None;
        }
        let parts: Vec<&str> = text.split('.').collect();
        let [name, role, key, ends_s, rest @ ..] = &parts[..] else { return None };
        let name: SubjectName = name.parse().ok()?;
        let role: Role = role.parse().ok().filter(|role| Role::ISSUED.contains(role))?;
        let prefix = match (role, rest) {
            (Role::Submitter, []) => Some(Prefix::of_home(&name)),
            (Role::Submitter, [prefix]) => Some(String::from_utf8(unhex(prefix)?).ok()?.parse().ok()?),
            (_, []) => None,
            _ => return None,
        };
        let id = Self { name, role, prefix, key: key.parse().ok()?, ends_s: ends_s.parse().ok()? };
        // One id has one text.
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for AccessKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, role, prefix, key, ends_s } = self;
        write!(f, "{name}.{role}.{key}.{ends_s}")?;
        match prefix {
            Some(prefix) if *prefix != Prefix::of_home(name) => {
                write!(f, ".{}", hex(prefix.as_str().as_bytes()))
            }
            _ => Ok(()),
        }
    }
}

impl FromStr for AccessKeyId {
    type Err = AccessKeyIdError;

    fn from_str(text: &str) -> Result<Self, AccessKeyIdError> {
        // The text may come from anywhere and have any length.
        Self::parse(text).ok_or_else(|| AccessKeyIdError(text.chars().take(80).collect()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|digit| digit.to_digit(16)?.try_into().ok()).collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    pairs.remainder().is_empty().then(|| pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::super::secret::Secret;
    use super::*;

    fn id(role: Role, prefix: Option<&str>) -> AccessKeyId {
        let name = "anna".parse().unwrap();
        AccessKeyId {
            name,
            role,
            prefix: prefix.map(|prefix| prefix.parse().unwrap()),
            key: 1,
            ends_s: 1_800_000_000,
        }
    }

    #[test]
    fn an_id_says_what_its_key_grants() {
        for (id, text) in [
            (id(Role::Viewer, None), "anna.viewer.1.1800000000"),
            (id(Role::Operator, None), "anna.operator.1.1800000000"),
            (id(Role::Submitter, Some("users/anna")), "anna.submitter.1.1800000000"),
            (id(Role::Submitter, Some("a/é")), "anna.submitter.1.1800000000.612fc3a92f"),
        ] {
            assert_eq!(id.to_string(), text);
            assert_eq!(text.parse::<AccessKeyId>().unwrap(), id);
        }
    }

    #[test]
    fn other_texts_are_no_ids() {
        for text in [
            "",
            "anna",
            "anna.member.1.1800000000",
            "anna.viewer.1.1800000000.61",
            "anna.viewer.01.1800000000",
            "anna.submitter.1.1800000000.75736572732f616e6e612f",
            "anna.submitter.1.1800000000.6",
            "anna.submitter.1.1800000000.2e2e2f",
            "Anna.viewer.1.1800000000",
            &"a".repeat(10_000),
        ] {
            assert!(text.parse::<AccessKeyId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_secret_belongs_to_one_id_of_one_cluster() {
        let (ours, theirs) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        let viewer = id(Role::Viewer, None);
        let secret = ours.access_secret(&viewer).unwrap();
        assert_eq!((secret.len(), Some(&secret)), (40, ours.access_secret(&viewer).as_ref()));
        assert_ne!(
            ours.access_secret(&AccessKeyId { role: Role::Operator, ..viewer.clone() }),
            Some(secret.clone())
        );
        assert_ne!(
            ours.access_secret(&AccessKeyId { ends_s: u64::MAX, ..viewer.clone() }),
            Some(secret.clone())
        );
        assert_ne!(theirs.access_secret(&viewer), Some(secret));
        assert_eq!(ours.access_secret(&AccessKeyId { key: 2, ..viewer }), None, "there is no such key");
    }
}
