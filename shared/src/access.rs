//! Who a person or program is to a cluster, and what its identity grants: role, name, prefixes. What a role may do is decided
//! by `idunno_core::access`; how a certificate carries all this is in `security::subject`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::folders;
use crate::ids::Digest;
use crate::names::{FileName, NameError};
use crate::wire::bounded;

/// Longest subject name, in characters.
const NAME_CHARS_MAX: usize = 40;
/// The name of anybody who connects with the secret itself.
const SECRET_HOLDER: &str = "secret-holder";
/// Most names of identities that a cluster lists, and most names that it can revoke.
pub const NAMES_MAX: usize = 10_000;
/// Most prefixes of an identity.
pub const PREFIXES_MAX: usize = 8;
/// Longest prefix, in bytes.
pub const PREFIX_BYTES_MAX: usize = 256;
/// The folder below which a submitter without prefixes has its own one.
const HOMES: &str = "users";

/// What a certificate entitles its subject to, in ascending order of rights.
///
/// The role is a DNS name in the certificate, so that TLS's own check of the name is a check of the role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// A person or program that may read, and change nothing.
    Viewer,
    /// A person or program that may also run jobs of its own, and change the files below its prefixes.
    Submitter,
    /// A person or program that may change everything the console can change.
    Operator,
    /// A daemon of the cluster: a member or the introducer.
    Member,
}

/// The text names no role.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is not a role: use viewer, submitter, operator or member")]
pub struct RoleError(String);

impl Role {
    /// All roles, in ascending order of rights.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Submitter, Self::Operator, Self::Member];
    /// The roles that identities have.
    pub const ISSUED: [Self; 3] = [Self::Viewer, Self::Submitter, Self::Operator];

    /// The role's name in commands, logs and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Submitter => "submitter",
            Self::Operator => "operator",
            Self::Member => "member",
        }
    }

    /// The role's name with its article.
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Viewer => "a viewer",
            Self::Submitter => "a submitter",
            Self::Operator => "an operator",
            Self::Member => "a member",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        let found = Self::ALL.into_iter().find(|role| role.name() == text);
        found.ok_or_else(|| RoleError(text.to_owned()))
    }
}

/// The name of a person or program in its certificate: 1 to 40 characters of `a` to `z`, `0` to `9` and `-`, with no
/// `-` at either end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SubjectName(String);

/// The text is not a valid subject name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "'{0}' is not a valid name: use 1 to {NAME_CHARS_MAX} letters a-z, digits and hyphens, with no hyphen at either end"
)]
pub struct SubjectNameError(String);

impl SubjectName {
    /// The name of anybody who connects with the secret itself.
    pub fn of_secret() -> Self {
        Self(String::from(SECRET_HOLDER))
    }

    /// Whether it stands for anybody who connects with the secret itself. No identity has this name.
    pub fn is_of_secret(&self) -> bool {
        self.0 == SECRET_HOLDER
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SubjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SubjectName {
    type Error = SubjectNameError;

    fn try_from(text: String) -> Result<Self, SubjectNameError> {
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_name = (1..=NAME_CHARS_MAX).contains(&text.len())
            && text.bytes().all(is_allowed)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if is_name {
            return Ok(Self(text));
        }
        // The text may come from anywhere and have any length.
        Err(SubjectNameError(text.chars().take(NAME_CHARS_MAX + 1).collect()))
    }
}

impl FromStr for SubjectName {
    type Err = SubjectNameError;

    fn from_str(text: &str) -> Result<Self, SubjectNameError> {
        Self::try_from(text.to_owned())
    }
}

impl From<SubjectName> for String {
    fn from(name: SubjectName) -> Self {
        name.0
    }
}

/// A folder of the store, and everything below it: a file's name without its last part begins with the same parts. The
/// text ends with a slash, which may be left out when it is parsed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(String);

/// The text is not a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PrefixError {
    /// It is no valid name of a folder.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The cluster keeps files of its own there.
    #[error("the cluster keeps files of its own in '{0}': take another folder as the prefix")]
    OfCluster(&'static str),
    /// It exceeds its limit.
    #[error("the prefix has {0} bytes, {PREFIX_BYTES_MAX} are allowed: shorten it")]
    TooLong(usize),
}

impl Prefix {
    /// The prefix of a submitter to whom none is given: `users/NAME/`.
    pub fn of_home(name: &SubjectName) -> Self {
        Self(format!("{HOMES}/{name}/"))
    }

    /// Whether a file is below it. Names are compared byte by byte; a name with `.` or `..` among its parts does not exist.
    pub fn covers(&self, name: &FileName) -> bool {
        name.as_str().starts_with(&self.0)
    }

    /// The prefix as text, with the slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;

    fn try_from(text: String) -> Result<Self, PrefixError> {
        let folder: FileName = text.strip_suffix('/').unwrap_or(&text).parse()?;
        if let Some(folder) = folders::of_cluster(&folder) {
            return Err(PrefixError::OfCluster(folder));
        }
        let text = format!("{folder}/");
        if text.len() > PREFIX_BYTES_MAX { Err(PrefixError::TooLong(text.len())) } else { Ok(Self(text)) }
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        Self::try_from(text.to_owned())
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.0
    }
}

/// Who asks, as its certificate says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Its name; the start of the certificate's digest if it was issued without one.
    pub name: SubjectName,
    /// What it may do.
    pub role: Role,
    /// Where a submitter may change files, at most [`PREFIXES_MAX`]; of no meaning for other roles.
    #[serde(deserialize_with = "bounded::list::<PREFIXES_MAX, _, _>")]
    pub prefixes: Vec<Prefix>,
}

impl Grant {
    /// The grant in a few words: `submitter anna, below users/anna/`.
    pub fn describe(&self) -> String {
        let Self { name, role, prefixes } = self;
        match role {
            Role::Submitter => format!("{role} {name}, below {}", join(prefixes)),
            Role::Viewer | Role::Operator | Role::Member => format!("{role} {name}"),
        }
    }
}

/// The prefixes as a list in a sentence.
pub fn join(prefixes: &[Prefix]) -> String {
    let prefixes: Vec<&str> = prefixes.iter().map(Prefix::as_str).collect();
    prefixes.join(" and ")
}

/// One certificate that was issued to somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// The certificate's digest.
    pub certificate: Digest,
    /// What it grants to whom.
    pub grant: Grant,
    /// When it ends, in milliseconds since the epoch.
    pub ends_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_name_cannot_pass_for_a_role() {
        for wrong in ["", "-", "a-", "Anna", "a.b", "member.idunno", "a b", &"a".repeat(NAME_CHARS_MAX + 1)] {
            assert!(wrong.parse::<SubjectName>().is_err(), "{wrong}");
        }
        assert!("secret-holder".parse::<SubjectName>().unwrap().is_of_secret());
    }

    #[test]
    fn a_prefix_covers_what_is_below_its_folder_and_nothing_else() {
        let file = |name: &str| name.parse::<FileName>().unwrap();
        for text in ["a", "a/"] {
            let prefix: Prefix = text.parse().unwrap();
            assert_eq!(prefix.as_str(), "a/");
            for inside in ["a/b", "a/b/c", "a/..b", "a/a"] {
                assert!(prefix.covers(&file(inside)), "{inside}");
            }
            for outside in ["a", "aa", "aa/b", "b/a/c", "A/b", "á/b", "\u{ff41}/b", "a\u{200b}/b", "a\\b"] {
                assert!(!prefix.covers(&file(outside)), "{outside}");
            }
        }
        let deep: Prefix = "a/b".parse().unwrap();
        assert!(deep.covers(&file("a/b/c")) && !deep.covers(&file("a/c")) && !deep.covers(&file("a/bc/d")));
    }

    #[test]
    fn what_is_no_folder_is_no_prefix() {
        for wrong in ["", "/", "/a", "a//", "a/../b", "..", "a/..", "./a", "a/./b", "a\nb", "a//b"] {
            assert!(wrong.parse::<Prefix>().is_err(), "{wrong:?}");
        }
        assert!("x".repeat(PREFIX_BYTES_MAX - 1).parse::<Prefix>().is_ok());
        assert!("x".repeat(PREFIX_BYTES_MAX).parse::<Prefix>().is_err(), "a slash is added");
    }

    #[test]
    fn no_prefix_is_where_the_cluster_keeps_files_of_its_own() {
        for wrong in ["models", "models/", "models/mnist-mlp", "training", "results", ".s3", ".s3/uploads/b"]
        {
            let error = wrong.parse::<Prefix>().unwrap_err();
            assert!(matches!(error, PrefixError::OfCluster(_)), "{wrong}: {error}");
        }
        for folder in ["models-2", "my/models", "result", ".s3x"] {
            assert!(folder.parse::<Prefix>().is_ok(), "{folder}");
        }
    }

    #[test]
    fn a_submitter_without_prefixes_has_a_folder_of_its_own() {
        let anna = Prefix::of_home(&"anna".parse().unwrap());
        assert_eq!(anna, "users/anna".parse().unwrap());
        assert!(!anna.covers(&"users/anna-2/x".parse().unwrap()));
    }
}
