//! JSON of commands on files of the store.

use idunno_shared::wire::control::{FileSummary, FileVersion as WireVersion};
use schemars::JsonSchema;
use serde::Serialize;

use super::document::documents;

documents!(UploadedFile, UploadedDataset, DownloadedFile, DownloadedDataset, FileVersions, DeletedFile);
documents!(FileList, DeletedFiles, CopiedFiles, ReferencedDataset);

/// `put`: the version that was written.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct UploadedFile {
    /// The file's name in the store.
    pub name: String,
    /// The new version.
    pub version: u64,
    /// Its bytes.
    pub size_bytes: u64,
    /// Durable copies of the blob with the fewest; null for an empty file, which has none.
    pub copies: Option<u32>,
    /// Copies that each blob should have; null for an empty file.
    pub copies_wanted: Option<u32>,
}

/// `populate-test-data`: what was put into the dataset.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct UploadedDataset {
    /// The dataset.
    pub dataset: String,
    /// Files that were sent.
    pub files: u64,
    /// Bytes of the files that were sent.
    pub size_bytes: u64,
    /// Files that the store held already.
    pub files_skipped: u64,
    /// Durable copies of the blob with the fewest; 0 if nothing was sent.
    pub copies: u32,
    /// Copies that each blob should have; 0 if nothing was sent.
    pub copies_wanted: u32,
    /// What was left out of the directory, by reason.
    pub left_out: Vec<LeftOut>,
}

/// `reference-data`: the objects to which the dataset refers.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ReferencedDataset {
    /// The dataset.
    pub dataset: String,
    /// The version of the file that has the references.
    pub version: u64,
    /// The objects.
    pub objects: u64,
    /// Their bytes, of which none are stored.
    pub size_bytes: u64,
    /// What was left out, by reason.
    pub left_out: Vec<LeftOut>,
}

/// Entries of a directory that were left out for one reason. A directory counts as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LeftOut {
    /// Why: `excluded`, `hidden`, `junk`, `folder`, `dangling-link`, `circular-link`, `directory-link`, `outside-link`, `special`,
    /// `unreadable` or `bad-name`.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// A file that could not have its own name in a local directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RenamedFile {
    /// Its name in the store.
    pub name: String,
    /// The local file.
    pub path: String,
}

/// `get`: the version that was fetched.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct DownloadedFile {
    /// The local file that was written.
    pub path: String,
    /// The version.
    #[serde(flatten)]
    pub version: FileVersion,
}

/// `get-dataset`: the dataset that was fetched.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct DownloadedDataset {
    /// The dataset.
    pub dataset: String,
    /// The local directory that was written.
    pub directory: String,
    /// Files that were fetched.
    pub files: u64,
    /// Their bytes.
    pub size_bytes: u64,
    /// Files that have another name there: a directory needs theirs, or a part of it is too long.
    pub renamed: Vec<RenamedFile>,
}

/// `get-versions`: the versions that were written into one local file.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct FileVersions {
    /// The local file that was written.
    pub path: String,
    /// The versions in it, newest first.
    pub versions: Vec<FileVersion>,
}

/// A version of a file.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct FileVersion {
    /// The file's name in the store.
    pub name: String,
    /// The version, from 1.
    pub version: u64,
    /// Its bytes.
    pub size_bytes: u64,
    /// Its BLAKE3 digest.
    pub digest: String,
    /// When it was committed, in milliseconds since the epoch.
    pub created_ms: u64,
}

impl From<&WireVersion> for FileVersion {
    fn from(version: &WireVersion) -> Self {
        Self {
            name: version.name.to_string(),
            version: version.version,
            size_bytes: version.size,
            digest: version.digest.to_string(),
            created_ms: version.created_ms,
        }
    }
}

/// `delete`: the file that was deleted with all its versions.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct DeletedFile {
    /// The file's name in the store.
    pub name: String,
    /// Versions that were deleted.
    pub versions: u32,
}

/// `rm`: the files that were deleted with all their versions.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct DeletedFiles {
    /// How many files.
    pub files: u64,
    /// Versions that were deleted.
    pub versions: u64,
}

/// `cp`, `mv`: the files that were copied or moved, in the order of their new names.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CopiedFiles {
    /// The files.
    pub items: Vec<CopiedFile>,
}

/// A file that was copied or moved.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CopiedFile {
    /// Its name before.
    pub from: String,
    /// The file that has its content.
    pub to: String,
    /// That file's newest version.
    pub version: u64,
}

/// `ls`, `store`: files in name order. With `--output jsonl` this, too, is one line.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct FileList {
    /// The files.
    pub items: Vec<File>,
    /// Whether files follow that are not listed; `--all` lists them.
    pub more: bool,
}

/// A file of the store.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct File {
    /// The file's name.
    pub name: String,
    /// The newest version.
    pub version: u64,
    /// Versions that are kept.
    pub versions: u32,
    /// Bytes of the newest version.
    pub size_bytes: u64,
    /// The BLAKE3 digest of the newest version.
    pub digest: String,
    /// When the newest version was committed, in milliseconds since the epoch.
    pub created_ms: u64,
    /// The members that hold all of the newest version, by name.
    pub holders: Vec<String>,
}

impl File {
    /// A file whose holders have these names.
    pub fn new(file: &FileSummary, holders: Vec<String>) -> Self {
        Self {
            name: file.name.to_string(),
            version: file.version,
            versions: file.versions,
            size_bytes: file.size,
            digest: file.digest.to_string(),
            created_ms: file.created_ms,
            holders,
        }
    }
}
