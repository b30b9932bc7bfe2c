//! Files and their versions.
//!
//! A commit of several files is atomic; a commit of one may name the version that it expects to be the newest, so that of two
//! writers that have seen the same one only the first succeeds. The newest [`VERSIONS_KEPT`] versions of a file are kept; a file
//! that is deleted and put again starts at version 1.

use std::borrow::Borrow;
use std::sync::Arc;

use idunno_shared::ids::Digest;
use idunno_shared::names::FileName;
use idunno_shared::wire::blobs::{BlobRef, COPIES};
use idunno_shared::wire::control::{
    ATTRIBUTE_BYTES_MAX, ATTRIBUTES_MAX, Attributes, Changed, EXTENTS_PER_FILE_MAX, Expected,
    ITEMS_PER_REQUEST_MAX, NewFile, SAME_COMMIT_MS, VERSIONS_KEPT,
};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use serde::{Deserialize, Serialize};

use super::blobs::PlacedExtents;
use super::{AskedBy, OneOrMany, State};

/// A file name as key of the file table, which is also searched by `str`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct FileKey(pub(super) Arc<FileName>);

impl Borrow<str> for FileKey {
    fn borrow(&self) -> &str {
        self.0.as_str()
    }
}

/// Stored content, as commands carry it.
#[derive(Clone, Copy)]
pub(super) struct Content<'a> {
    /// In bytes.
    pub(super) size: u64,
    /// Of all bytes.
    pub(super) digest: Digest,
    pub(super) extents: &'a PlacedExtents,
}

impl<'a> Content<'a> {
    fn of(file: &'a NewFile) -> Self {
        Self { size: file.size, digest: file.digest, extents: &file.extents }
    }
}

/// How one file is committed.
#[derive(Clone, Copy)]
pub(super) struct CommitTerms<'a> {
    pub(super) attributes: &'a Attributes,
    pub(super) expected: Option<Expected>,
    /// Whether its extents are those of other files.
    pub(super) borrows: bool,
}

/// One version of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredVersion", into = "StoredVersion")]
pub struct VersionRecord {
    /// The version number, from 1.
    pub number: u64,
    /// When it was committed, in milliseconds since the epoch.
    pub created_ms: u64,
    /// The extents in order.
    pub extents: OneOrMany<BlobRef>,
    /// The revision of the metadata that added it; 0 if a release of format 1 did.
    pub born: u64,
    /// `None` if size and digest are those of the only extent, as in a small file, and there are no attributes.
    whole: Option<Box<Whole>>,
}

/// What a version has beside its extents.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Whole {
    /// Of all bytes.
    size: u64,
    /// Of all bytes.
    digest: Digest,
    attributes: Attributes,
}

/// A version as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredVersion {
    number: u64,
    size: u64,
    digest: Digest,
    created_ms: u64,
    extents: OneOrMany<BlobRef>,
    #[serde(default)]
    born: u64,
    #[serde(default, skip_serializing_if = "Attributes::is_empty")]
    attributes: Attributes,
}

impl From<StoredVersion> for VersionRecord {
    fn from(stored: StoredVersion) -> Self {
        let StoredVersion { number, size, digest, created_ms, extents, born, attributes } = stored;
        let is_plain = *extents == [BlobRef { digest, size }] && attributes.is_empty();
        let whole = (!is_plain).then(|| Box::new(Whole { size, digest, attributes }));
        Self { number, created_ms, extents, born, whole }
    }
}

impl From<VersionRecord> for StoredVersion {
    fn from(version: VersionRecord) -> Self {
        let (size, digest) = (version.size(), version.digest());
        let VersionRecord { number, created_ms, extents, born, whole } = version;
        let attributes = whole.map(|whole| whole.attributes).unwrap_or_default();
        Self { number, size, digest, created_ms, extents, born, attributes }
    }
}

impl VersionRecord {
    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.whole
            .as_ref()
            .map_or_else(|| self.extents.iter().map(|blob| blob.size).sum(), |whole| whole.size)
    }

    /// The digest of all bytes.
    pub fn digest(&self) -> Digest {
        let only = || self.extents.first().map_or_else(Digest::default, |blob| blob.digest);
        self.whole.as_ref().map_or_else(only, |whole| whole.digest)
    }

    /// What is kept with the version beside its bytes; `None` if that is nothing.
    pub fn attributes(&self) -> Option<&Attributes> {
        self.whole.as_ref().map(|whole| &whole.attributes).filter(|attributes| !attributes.is_empty())
    }
}

/// A file: its versions, oldest first; at least one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FileRecord {
    pub(super) versions: OneOrMany<VersionRecord>,
}

impl FileRecord {
    /// The kept versions, newest first.
    pub fn versions(&self) -> impl Iterator<Item = &VersionRecord> {
        self.versions.iter().rev()
    }

    /// The version with this number, or the newest; `None` if it is not kept.
    pub fn version(&self, number: Option<u64>) -> Option<&VersionRecord> {
        self.versions().find(|version| number.is_none_or(|number| version.number == number))
    }
}

impl State {
    /// The files that start with `prefix` and follow `after`, in name order.
    pub fn files<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&FileName>,
    ) -> impl Iterator<Item = (&'a Arc<FileName>, &'a FileRecord)> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let from = match after.map(FileName::as_str) {
            Some(after) if after >= prefix => Excluded(after),
            _ => Included(prefix),
        };
        let rows = self.files.range::<_, str>((from, Unbounded));
        rows.take_while(move |(key, _)| key.0.as_str().starts_with(prefix))
            .map(|(key, file)| (&key.0, &**file))
    }

    /// The file with this name.
    pub fn file(&self, name: &FileName) -> Option<&FileRecord> {
        self.files.get(name.as_str()).map(|file| &**file)
    }

    /// How many files there are.
    pub fn file_count(&self) -> u64 {
        self.files.len() as u64
    }

    /// `confined` is who commits, if that is nobody who is trusted with the blobs of others.
    pub(super) fn commit_files(
        &mut self,
        files: &[NewFile],
        confined: Option<&AskedBy>,
    ) -> Result<Changed, Refusal> {
        if files.is_empty() || files.len() > ITEMS_PER_REQUEST_MAX {
            let message =
                format!("the commit has {} files; 1 to {ITEMS_PER_REQUEST_MAX} are allowed", files.len());
            return Err(Refusal::invalid(message));
        }
        for file in files {
            self.check_content(&format!("file '{}'", file.name), Content::of(file))?;
        }
        // Finds a blob that has different sizes in two files of the commit.
        let extents: Vec<_> = files.iter().flat_map(|file| file.extents.iter().cloned()).collect();
        self.check_extents("the commit", &extents)?;
        let versions = files.iter().map(|file| {
            let number = self.add_version(&file.name, Content::of(file), confined);
            (number, copies_min(&file.extents))
        });
        Ok(Changed::Files(versions.collect()))
    }

    /// Commits one file on its terms.
    pub(super) fn commit_file(
        &mut self,
        file: &NewFile,
        terms: CommitTerms<'_>,
        confined: Option<&AskedBy>,
    ) -> Result<Changed, Refusal> {
        let what = format!("file '{}'", file.name);
        check_attributes(&what, terms.attributes)?;
        self.check_content(&what, Content::of(file))?;
        let newest = self.file(&file.name).and_then(|known| known.version(None));
        check_expected(&what, newest, terms.expected)?;
        if terms.borrows {
            self.check_referenced(&what, &file.extents)?;
        }
        let changed = |number| Changed::Files(vec![(number, copies_min(&file.extents))]);
        if let Some(newest) = newest.filter(|newest| self.was_just_committed(newest, file, terms.attributes))
        {
            return Ok(changed(newest.number));
        }
        let content = Content::of(file);
        Ok(changed(self.add_version_with(&file.name, content, terms.attributes.clone(), confined)))
    }

    /// Whether this is the same version, committed a moment ago.
    fn was_just_committed(&self, newest: &VersionRecord, file: &NewFile, attributes: &Attributes) -> bool {
        let is_same = newest.size() == file.size
            && newest.digest() == file.digest
            && newest.attributes().unwrap_or(&Attributes::new()) == attributes;
        is_same && self.now_ms.saturating_sub(newest.created_ms) < SAME_COMMIT_MS
    }

    /// Refuses content that has too many extents, or whose extents do not add up to its size. `what` names it in messages.
    pub(super) fn check_content(&self, what: &str, content: Content<'_>) -> Result<(), Refusal> {
        let Content { size, extents, .. } = content;
        if extents.len() > EXTENTS_PER_FILE_MAX {
            let message = format!("{what} has {} extents; {EXTENTS_PER_FILE_MAX} are allowed", extents.len());
            return Err(Refusal::invalid(message));
        }
        self.check_extents(what, extents)?;
        let sum: u64 = extents.iter().map(|(blob, _)| blob.size).sum();
        if sum != size {
            let message = format!("the size of {what} is given as {size} bytes, its extents have {sum}");
            return Err(Refusal::invalid(message));
        }
        Ok(())
    }

    /// Adds a version with checked content and drops the oldest beyond those kept. Returns its number. `confined` is
    /// who stored it, if that is nobody who is trusted with the blobs of others.
    pub(super) fn add_version(
        &mut self,
        name: &FileName,
        content: Content<'_>,
        confined: Option<&AskedBy>,
    ) -> u64 {
        self.add_version_with(name, content, Attributes::new(), confined)
    }

    fn add_version_with(
        &mut self,
        name: &FileName,
        content: Content<'_>,
        attributes: Attributes,
        confined: Option<&AskedBy>,
    ) -> u64 {
        let Content { size, digest, extents } = content;
        let extents = self.record_extents(extents, confined);
        self.append_version(name, (size, digest), extents, attributes)
    }

    /// Adds a version of this size and digest, whose extents have their references, and drops the oldest beyond those kept.
    /// Returns its number.
    pub(super) fn append_version(
        &mut self,
        name: &FileName,
        (size, digest): (u64, Digest),
        extents: OneOrMany<BlobRef>,
        attributes: Attributes,
    ) -> u64 {
        let known = self.files.get_key_value(name.as_str());
        let (key, kept) = known.map_or_else(
            || (FileKey(Arc::new(name.clone())), Arc::default()),
            |(key, file)| (key.clone(), Arc::clone(file)),
        );
        let number = kept.version(None).map_or(1, |newest| newest.number + 1);
        let born = self.next_revision();
        let created_ms = self.now_ms;
        let new = StoredVersion { number, size, digest, created_ms, extents, born, attributes };
        let all = FileRecord { versions: kept.versions.iter().cloned().chain([new.into()]).collect() };
        let leaving = all.versions.len().saturating_sub(VERSIONS_KEPT);
        self.retire(&key.0, &all, leaving, born);
        let versions =
            if leaving == 0 { all.versions } else { all.versions[leaving..].iter().cloned().collect() };
        self.files.insert(key, Arc::new(FileRecord { versions }));
        number
    }

    pub(super) fn delete(&mut self, name: &FileName) -> Result<Changed, Refusal> {
        let Some((key, file)) = self.files.remove_with_key(name.as_str()) else {
            return Err(Refusal::not_found(format!("there is no file '{name}': ls lists the files")));
        };
        self.retire(&key.0, &file, file.versions.len(), self.next_revision());
        Ok(Changed::Deleted { versions: u32::try_from(file.versions.len()).unwrap_or(u32::MAX) })
    }

    pub(super) fn delete_files(&mut self, names: &[FileName]) -> Result<Changed, Refusal> {
        if names.len() > ITEMS_PER_REQUEST_MAX {
            let message =
                format!("{} files are to be deleted; {ITEMS_PER_REQUEST_MAX} are allowed", names.len());
            return Err(Refusal::invalid(message));
        }
        let mut versions = 0;
        for name in names {
            if let Ok(Changed::Deleted { versions: deleted }) = self.delete(name) {
                versions += deleted;
            }
        }
        Ok(Changed::Deleted { versions })
    }
}

/// Refuses attributes beyond their bounds.
fn check_attributes(what: &str, attributes: &Attributes) -> Result<(), Refusal> {
    let bytes: usize = attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
    if attributes.len() > ATTRIBUTES_MAX || bytes > ATTRIBUTE_BYTES_MAX {
        return Err(Refusal::invalid(format!(
            "{what} has {} attributes of {bytes} bytes; {ATTRIBUTES_MAX} of {ATTRIBUTE_BYTES_MAX} bytes are allowed",
            attributes.len()
        )));
    }
    Ok(())
}

fn check_expected(
    what: &str,
    newest: Option<&VersionRecord>,
    expected: Option<Expected>,
) -> Result<(), Refusal> {
    let found = newest.map(|newest| (newest.number, newest.digest()));
    let not_newest = |message: String| Err(Refusal::new(RefusalCode::NotNewest, message));
    match (expected, found) {
        (None, _) | (Some(Expected::NoFile), None) => Ok(()),
        (Some(Expected::Version { number, digest }), Some(found)) if found == (number, digest) => Ok(()),
        (Some(Expected::NoFile), Some((number, _))) => {
            not_newest(format!("{what} exists: its newest version is {number}"))
        }
        (Some(Expected::Version { number, .. }), Some((found, _))) => {
            not_newest(format!("the newest version of {what} is {found}, and not the {number} that was seen"))
        }
        (Some(Expected::Version { number, .. }), None) => {
            not_newest(format!("{what}, of which version {number} was seen, does not exist any more"))
        }
    }
}

/// The copies of the extent with the fewest. An empty file needs no copies and counts as fully replicated.
fn copies_min(extents: &PlacedExtents) -> u32 {
    let copies = extents.iter().map(|(_, holders)| {
        let mut holders = holders.clone();
        holders.sort_unstable();
        holders.dedup();
        holders.len()
    });
    u32::try_from(copies.min().unwrap_or(COPIES)).unwrap_or(u32::MAX)
}
