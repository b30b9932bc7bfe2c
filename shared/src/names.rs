//! Names given by people. Each type is checked when it is made, so a value of it is always valid.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest file name, in bytes.
pub const FILE_NAME_BYTES_MAX: usize = 1024;
/// Longest name of a column, in bytes.
pub const COLUMN_NAME_BYTES_MAX: usize = 256;
/// Longest name of a model, member, job or parameter, in bytes.
pub const LABEL_BYTES_MAX: usize = 64;

/// Why a name is invalid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// The name is empty.
    #[error("the {kind} is empty: it needs at least one character")]
    Empty {
        /// What the name is for.
        kind: &'static str,
    },
    /// The name exceeds its limit.
    #[error("the {kind} '{start}...' has {bytes} bytes, {limit} are allowed: shorten it")]
    TooLong {
        /// What the name is for.
        kind: &'static str,
        /// First characters of the name.
        start: String,
        /// Length in bytes.
        bytes: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// The name breaks a rule.
    #[error("the {kind} {name:?} is not allowed: {why}")]
    Invalid {
        /// What the name is for.
        kind: &'static str,
        /// The name.
        name: String,
        /// The rule that it breaks.
        why: &'static str,
    },
}

fn check_length(kind: &'static str, name: &str, limit: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { kind });
    }
    if name.len() > limit {
        let start = name.chars().take(32).filter(|c| !c.is_control()).collect();
        return Err(NameError::TooLong { kind, start, bytes: name.len(), limit });
    }
    Ok(())
}

fn check_path(kind: &'static str, name: &str) -> Result<(), NameError> {
    check_length(kind, name, FILE_NAME_BYTES_MAX)?;
    let invalid = |why| Err(NameError::Invalid { kind, name: name.to_owned(), why });
    if name.chars().any(char::is_control) {
        return invalid("it contains a control character");
    }
    if name.starts_with('/') {
        return invalid("it starts with a slash: remove it");
    }
    if name.split('/').any(|part| part == ".." || part == ".") {
        return invalid("'.' and '..' cannot be parts of it");
    }
    if name.split('/').any(str::is_empty) {
        return invalid("it has two slashes in a row, or one at the end");
    }
    Ok(())
}

fn check_label(kind: &'static str, name: &str) -> Result<(), NameError> {
    check_length(kind, name, LABEL_BYTES_MAX)?;
    if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Ok(());
    }
    let why = "only letters, digits, '.', '_' and '-' are allowed";
    Err(NameError::Invalid { kind, name: name.to_owned(), why })
}

fn check_column(kind: &'static str, name: &str) -> Result<(), NameError> {
    check_length(kind, name, COLUMN_NAME_BYTES_MAX)
}

/// A member keeps the data of a model's training in a directory of this name.
fn check_model(kind: &'static str, name: &str) -> Result<(), NameError> {
    check_label(kind, name)?;
    if name == "." || name == ".." {
        return Err(NameError::Invalid { kind, name: name.to_owned(), why: "it stands for a directory" });
    }
    Ok(())
}

/// Commands take a job's name in place of its id, so a name must not look like an id.
fn check_job(kind: &'static str, name: &str) -> Result<(), NameError> {
    check_label(kind, name)?;
    let number = name.strip_prefix("job-").unwrap_or(name);
    if number.bytes().all(|byte| byte.is_ascii_digit()) {
        let why = "it looks like a job's id";
        return Err(NameError::Invalid { kind, name: name.to_owned(), why });
    }
    Ok(())
}

macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(name: String) -> Result<Self, NameError> {
                $check($kind, &name)?;
                Ok(Self(name.into()))
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::try_from(name.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked_name!(
    /// A file's name in SDFS: flat, slashes allowed, at most [`FILE_NAME_BYTES_MAX`] bytes.
    FileName,
    "file name",
    check_path
);
checked_name!(
    /// A column of CSV, or a field of a JSON object: 1 to [`COLUMN_NAME_BYTES_MAX`] bytes.
    ColumnName,
    "column name",
    check_column
);
checked_name!(
    /// A dataset: all files whose names start with this text and a slash, or one file of this name.
    DatasetName,
    "dataset name",
    check_path
);
checked_name!(
    /// A model's name: at most [`LABEL_BYTES_MAX`] letters, digits, `.`, `_` and `-`.
    ModelName,
    "model name",
    check_model
);
checked_name!(
    /// A job's name: at most [`LABEL_BYTES_MAX`] letters, digits, `.`, `_` and `-`, and unlike a job's id.
    JobName,
    "job name",
    check_job
);
checked_name!(
    /// The name of a model's parameter: at most [`LABEL_BYTES_MAX`] letters, digits, `.`, `_` and `-`.
    ParameterName,
    "parameter name",
    check_label
);
checked_name!(
    /// A member's name as people see it: at most [`LABEL_BYTES_MAX`] letters, digits, `.`, `_` and `-`.
    MemberName,
    "member name",
    check_label
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_names_are_accepted() {
        for name in ["a", "docs/report.pdf", "a..b/c", "naïve café.txt", &"x".repeat(FILE_NAME_BYTES_MAX)] {
            assert_eq!(name.parse::<FileName>().unwrap().as_str(), name);
        }
        assert!("squeezenet1.1".parse::<ModelName>().is_ok());
    }

    #[test]
    fn invalid_names_are_refused_and_named_in_the_error() {
        for name in ["", "/etc/passwd", "../up", "a/../b", "a//b", "a/", ".", "a\nb", "a\u{7f}"] {
            assert!(name.parse::<FileName>().is_err(), "{name:?}");
        }
        assert!("x".repeat(FILE_NAME_BYTES_MAX + 1).parse::<FileName>().is_err());
        for name in ["no spaces", "..", ".", "a/b", "../a", ""] {
            assert!(name.parse::<ModelName>().is_err(), "{name:?}");
        }
        assert!("nightly-7".parse::<JobName>().is_ok() && "job-seven".parse::<JobName>().is_ok());
        for number in ["7", "job-7", "job-"] {
            assert!(number.parse::<JobName>().is_err(), "{number}");
        }
        let error = "a/../b".parse::<FileName>().unwrap_err().to_string();
        assert!(error.contains("a/../b"), "{error}");
    }

    #[test]
    fn deserialisation_checks_names() {
        assert!(serde_json::from_str::<FileName>("\"../x\"").is_err());
        assert!(serde_json::from_str::<FileName>("\"x\"").is_ok());
    }
}
