//! Paths on this machine that complete what is typed: the entries of one directory, read beside the loop.

use std::fs;
use std::path::Path;

/// The most entries of a directory that are offered.
const ENTRIES_MAX: usize = 1000;

/// The entries of the directory that was asked for last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalPaths {
    /// The directory as typed, with its slash; empty for the one that the console runs in.
    directory: Option<String>,
    /// As they would be typed; directories end in a slash.
    pub entries: Vec<String>,
}

impl LocalPaths {
    /// The directory to read now, if the path that is being typed is in another one.
    pub fn next_query(&mut self, path: &str) -> Option<String> {
        let directory = directory_of(path);
        if self.directory.as_deref() == Some(directory) {
            return None;
        }
        *self = Self { directory: Some(directory.to_owned()), entries: Vec::new() };
        self.directory.clone()
    }

    /// Takes the entries of a directory. False for one that was asked for before, whose entries are dropped.
    pub fn accept(&mut self, directory: &str, entries: Vec<String>) -> bool {
        let is_wanted = self.directory.as_deref() == Some(directory);
        if is_wanted {
            self.entries = entries;
        }
        is_wanted
    }
}

/// The directory that a path is in, with its slash.
fn directory_of(path: &str) -> &str {
    path.rfind('/').map_or("", |slash| &path[..=slash])
}

/// Reads a directory. What cannot be read has no entries: then nothing completes.
pub fn read(directory: &str) -> Vec<String> {
    let place = if directory.is_empty() { Path::new(".") } else { Path::new(directory) };
    let Ok(found) = fs::read_dir(place) else { return Vec::new() };
    let entry = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        // A link to a directory counts as one.
        let slash = if entry.path().is_dir() { "/" } else { "" };
        Some(format!("{directory}{name}{slash}"))
    };
    let mut entries: Vec<String> = found.flatten().take(ENTRIES_MAX).filter_map(entry).collect();
    entries.sort_unstable();
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_what_would_be_typed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("photos")).unwrap();
        fs::write(dir.path().join("a.csv"), "").unwrap();
        let prefix = format!("{}/", dir.path().display());
        assert_eq!(read(&prefix), [format!("{prefix}a.csv"), format!("{prefix}photos/")]);
        assert!(read(&format!("{prefix}none/")).is_empty());
        assert_eq!((directory_of("a/b/c"), directory_of("a"), directory_of("/x")), ("a/b/", "", "/"));
    }
}
