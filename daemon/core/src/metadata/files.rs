//! Files and their versions.
//!
//! A commit of several files is all or nothing. The newest [`VERSIONS_KEPT`] versions are kept; a deleted file that
//! is put again starts at version 1.

use std::borrow::Borrow;
use std::sync::Arc;

use idunno_shared::ids::Digest;
use idunno_shared::names::FileName;
use idunno_shared::wire::blobs::{BlobRef, COPIES};
use idunno_shared::wire::control::{
    Changed, EXTENTS_PER_FILE_MAX, ITEMS_PER_REQUEST_MAX, NewFile, VERSIONS_KEPT,
};
use idunno_shared::wire::refusal::Refusal;
use serde::{Deserialize, Serialize};

use super::State;
use super::blobs::PlacedExtents;

/// A file's name as the key of the file table, found by any text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Key(pub(super) Arc<FileName>);

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        self.0.as_str()
    }
}

/// One version of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its number, from 1.
    pub number: u64,
    /// Its size in bytes.
    pub size: u64,
    /// The digest of all its bytes.
    pub digest: Digest,
    /// When it was committed, in milliseconds since the epoch.
    pub created_ms: u64,
    /// Its extents in order.
    pub extents: Arc<[BlobRef]>,
}

/// A file: its versions, oldest first, never none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct File {
    pub(super) versions: Vec<Version>,
}

impl File {
    /// The versions kept, newest first.
    pub fn versions(&self) -> impl Iterator<Item = &Version> {
        self.versions.iter().rev()
    }

    /// The newest version, or the one with this number.
    pub fn version(&self, number: Option<u64>) -> Option<&Version> {
        self.versions().find(|version| number.is_none_or(|number| version.number == number))
    }
}

impl State {
    /// Files in name order: those that start with `prefix`, behind `after`.
    pub fn files<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&FileName>,
    ) -> impl Iterator<Item = (&'a Arc<FileName>, &'a File)> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let from = match after.map(FileName::as_str) {
            Some(after) if after >= prefix => Excluded(after),
            _ => Included(prefix),
        };
        let rows = self.files.range::<_, str>((from, Unbounded));
        rows.take_while(move |(key, _)| key.0.as_str().starts_with(prefix))
            .map(|(key, file)| (&key.0, &**file))
    }

    /// One file.
    pub fn file(&self, name: &FileName) -> Option<&File> {
        self.files.get(name.as_str()).map(|file| &**file)
    }

    /// How many files there are.
    pub fn file_count(&self) -> u64 {
        self.files.len() as u64
    }

    pub(super) fn commit_files(&mut self, files: &[NewFile]) -> Result<Changed, Refusal> {
        if files.is_empty() || files.len() > ITEMS_PER_REQUEST_MAX {
            let message =
                format!("a commit of {} files: 1 to {ITEMS_PER_REQUEST_MAX} are allowed", files.len());
            return Err(Refusal::invalid(message));
        }
        for file in files {
            self.check_content(&format!("file '{}'", file.name), file.size, &file.extents)?;
        }
        // The same blob in two files of one commit, with two sizes.
        let extents: Vec<_> = files.iter().flat_map(|file| file.extents.iter().cloned()).collect();
        self.check_extents("this commit", &extents)?;
        let versions = files.iter().map(|file| {
            let number = self.add_version(&file.name, file.size, file.digest, &file.extents);
            (number, copies_min(&file.extents))
        });
        Ok(Changed::Files(versions.collect()))
    }

    /// Refuses content that is too long, or whose extents do not add up.
    pub(super) fn check_content(
        &self,
        what: &str,
        size: u64,
        extents: &PlacedExtents,
    ) -> Result<(), Refusal> {
        if extents.len() > EXTENTS_PER_FILE_MAX {
            let message = format!("{what} has {} extents, {EXTENTS_PER_FILE_MAX} are allowed", extents.len());
            return Err(Refusal::invalid(message));
        }
        self.check_extents(what, extents)?;
        let sum: u64 = extents.iter().map(|(blob, _)| blob.size).sum();
        if sum != size {
            let message = format!("{what} is said to have {size} bytes, its extents have {sum}");
            return Err(Refusal::invalid(message));
        }
        Ok(())
    }

    /// Adds a version whose content was checked; drops the oldest beyond those kept. Returns its number.
    pub(super) fn add_version(
        &mut self,
        name: &FileName,
        size: u64,
        digest: Digest,
        extents: &PlacedExtents,
    ) -> u64 {
        let extents = self.record_extents(extents);
        let known = self.files.get_key_value(name.as_str());
        let (key, mut versions) = known.map_or_else(
            || (Key(Arc::new(name.clone())), Vec::new()),
            |(key, file)| (key.clone(), file.versions.clone()),
        );
        let number = versions.last().map_or(1, |newest| newest.number + 1);
        versions.push(Version { number, size, digest, created_ms: self.now_ms, extents });
        if versions.len() > VERSIONS_KEPT {
            let oldest = versions.remove(0);
            self.release(&oldest.extents);
        }
        self.files.insert(key, Arc::new(File { versions }));
        number
    }

    pub(super) fn delete(&mut self, name: &FileName) -> Result<Changed, Refusal> {
        let Some(file) = self.files.remove(name.as_str()) else {
            return Err(Refusal::not_found(format!("there is no file '{name}': ls lists what there is")));
        };
        for version in &file.versions {
            self.release(&version.extents);
        }
        Ok(Changed::Deleted { versions: u32::try_from(file.versions.len()).unwrap_or(u32::MAX) })
    }
}

/// Copies of the extent with the fewest; an empty file needs no copies and counts as fully copied.
fn copies_min(extents: &PlacedExtents) -> u32 {
    let copies = extents.iter().map(|(_, holders)| {
        let mut holders = holders.clone();
        holders.sort_unstable();
        holders.dedup();
        holders.len()
    });
    u32::try_from(copies.min().unwrap_or(COPIES)).unwrap_or(u32::MAX)
}
