//! Files in folders that are mounted at the same place on every member.

use std::fs::{self, Metadata};
use std::io::{ErrorKind, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use idunno_shared::wire::references::ObjectReference;
use reqwest::Url;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use crate::buckets::check;
use crate::error::{ListError, ReadError};
use crate::place::Place;

/// Reads a file, whole or a part of it, if it is still the one that was listed. `within` are the folders in which it may really lie; `None` allows
/// all.
pub(crate) async fn read(
    path: &Path,
    object: &ObjectReference,
    part: Option<Range<u64>>,
    within: Option<&[String]>,
) -> Result<Bytes, ReadError> {
    let url = || object.url.clone();
    let fault = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => ReadError::Gone { url: url() },
        ErrorKind::PermissionDenied => ReadError::Denied { url: url(), why: error.to_string() },
        _ => ReadError::Failed { url: url(), why: error.to_string() },
    };
    let real = tokio::fs::canonicalize(path).await.map_err(fault)?;
    if within.is_some_and(|folders| !lies_within(&real, folders)) {
        let why = String::from("a link leads out of the folders in the members' reference_urls");
        return Err(ReadError::Refused { url: url(), why });
    }
    let metadata = tokio::fs::metadata(&real).await.map_err(fault)?;
    if !metadata.is_file() {
        return Err(ReadError::Url { url: url(), why: String::from("it is no file") });
    }
    check(object, metadata.len(), None, modified_ms(&metadata))?;
    if let Some(Range { start, end }) = part {
        let mut file = tokio::fs::File::open(&real).await.map_err(fault)?;
        file.seek(SeekFrom::Start(start)).await.map_err(fault)?;
        let mut content = Vec::new();
        file.take(end - start).read_to_end(&mut content).await.map_err(fault)?;
        return Ok(content.into());
    }
    let content = tokio::fs::read(&real).await.map_err(fault)?;
    check(object, content.len() as u64, None, object.modified_ms)?;
    Ok(content.into())
}

/// Whether a path is in one of the folders, whatever links lead to these.
fn lies_within(real: &Path, listed: &[String]) -> bool {
    let folders = listed.iter().filter_map(|listed| Url::parse(listed).ok()?.to_file_path().ok());
    folders.filter_map(|folder| folder.canonicalize().ok()).any(|folder| real.starts_with(folder))
}

/// The path that a `file:///` URL names.
pub fn local_path(url: &str) -> Option<PathBuf> {
    match Place::of(url).ok()? {
        Place::Folder(path) => Some(path),
        Place::Bucket { .. } | Place::Web(_) => None,
    }
}

/// The reference of a file of this machine. The path is a whole one.
pub fn reference_of_file(path: &Path) -> Result<ObjectReference, ListError> {
    let shown = || path.display().to_string();
    let failed = |error: std::io::Error| ListError::Failed { url: shown(), why: error.to_string() };
    let wrong = |why: &str| ListError::Url { url: shown(), why: why.to_owned() };
    let url = Url::from_file_path(path).map_err(|()| wrong("write the whole path"))?.to_string();
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(wrong("it is no file"));
    }
    let Some(modified_ms) = modified_ms(&metadata) else { return Err(ListError::Unversioned { url }) };
    Ok(ObjectReference { url, size: metadata.len(), etag: None, modified_ms: Some(modified_ms) })
}

/// Whole seconds: not every file system that is mounted keeps more.
fn modified_ms(metadata: &Metadata) -> Option<u64> {
    let since = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(since.as_secs() * 1_000)
}
