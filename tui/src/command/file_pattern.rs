//! Which files of the store a command means: one by its name, all below a folder, or all that match a pattern.

use std::fmt;
use std::str::FromStr;

use globset::{GlobBuilder, GlobMatcher};
use idunno_shared::names::{FileName, NameError};
use thiserror::Error;

/// What makes a name a pattern.
pub const GLOB_CHARACTERS: [char; 5] = ['*', '?', '[', '{', '\\'];

/// Files of the store: `docs/a.pdf`, `docs/` for all below it, or a pattern such as `docs/*.pdf` and `**/*.tmp`. A star stops at a
/// slash, two stars do not.
#[derive(Clone, Debug)]
pub struct FilePattern {
    text: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Name(FileName),
    Folder,
    Glob(GlobMatcher),
}

/// A text is no name, folder or pattern of files.
#[derive(Debug, Error)]
pub enum FilePatternError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Glob(#[from] globset::Error),
}

impl FromStr for FilePattern {
    type Err = FilePatternError;

    fn from_str(text: &str) -> Result<Self, FilePatternError> {
        let kind = if text.contains(GLOB_CHARACTERS) {
            Kind::Glob(GlobBuilder::new(text).literal_separator(true).build()?.compile_matcher())
        } else if let Some(folder) = text.strip_suffix('/') {
            // A folder is named as a file of its name would be.
            folder.parse::<FileName>()?;
            Kind::Folder
        } else {
            Kind::Name(text.parse()?)
        };
        Ok(Self { text: text.to_owned(), kind })
    }
}

impl PartialEq for FilePattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Display for FilePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FilePattern {
    /// Whether it names one file.
    pub fn is_name(&self) -> bool {
        matches!(self.kind, Kind::Name(_))
    }

    /// What all names that match begin with.
    pub fn prefix(&self) -> &str {
        match self.kind {
            Kind::Name(_) | Kind::Folder => &self.text,
            Kind::Glob(_) => self.text.split(GLOB_CHARACTERS).next().unwrap_or_default(),
        }
    }

    /// The folder that names which match are relative to, with its slash; empty for the root.
    pub fn folder(&self) -> &str {
        let prefix = self.prefix();
        &prefix[..prefix.rfind('/').map_or(0, |slash| slash + 1)]
    }

    /// Whether a file is meant.
    pub fn matches(&self, name: &FileName) -> bool {
        match &self.kind {
            Kind::Name(wanted) => wanted == name,
            Kind::Folder => name.as_str().starts_with(&self.text),
            Kind::Glob(glob) => glob.is_match(name.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_folders_and_patterns_match_what_they_say() {
        for (pattern, prefix, folder, matched, others) in [
            ("docs/a.pdf", "docs/a.pdf", "docs/", &["docs/a.pdf"][..], &["docs/a.pdf/b", "a.pdf"][..]),
            ("a", "a", "", &["a"], &["a/b", "ab"]),
            ("docs/", "docs/", "docs/", &["docs/a", "docs/b/c"], &["docs", "docs2/a"]),
            ("docs/*.pdf", "docs/", "docs/", &["docs/a.pdf"], &["docs/b/a.pdf", "docs/a.png"]),
            ("docs/a*", "docs/a", "docs/", &["docs/a", "docs/ab"], &["docs/b", "docs/a/b"]),
            ("**/*.tmp", "", "", &["x.tmp", "a/b/x.tmp"], &["x.tmp/a"]),
            ("t/{a,b}/?.jpg", "t/", "t/", &["t/a/1.jpg", "t/b/2.jpg"], &["t/c/1.jpg", "t/a/10.jpg"]),
            ("t/\\*", "t/", "t/", &["t/*"], &["t/a"]),
            ("t/[ab]", "t/", "t/", &["t/a"], &["t/c"]),
        ] {
            let pattern: FilePattern = pattern.parse().unwrap();
            assert_eq!((pattern.prefix(), pattern.folder()), (prefix, folder), "{pattern}");
            for name in matched {
                assert!(pattern.matches(&name.parse().unwrap()), "{pattern} {name}");
            }
            for name in others {
                assert!(!pattern.matches(&name.parse().unwrap()), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for wrong in ["", "/", "/a/", "a/../", "a//", "[", "{a", "a/../*["] {
            assert!(wrong.parse::<FilePattern>().is_err(), "{wrong:?}");
        }
    }
}
