//! `put` and `populate-test-data` of objects outside the cluster: in a bucket, or behind a URL of the web.
//!
//! They are downloaded into a temporary folder, as they were listed or not at all, and put from there; the credentials are
//! those of whoever runs the command. A part that fails is asked for again.
//! Bounds: [`PARTS_AT_ONCE`] parts of [`PART_BYTES`] are in memory, of one object or each of another. The temporary folder
//! has one object, or several of at most [`STAGED_BYTES_MAX`] together.

use std::io;
use std::ops::Range;
use std::path::Path;

use backon::{ExponentialBuilder, Retryable as _};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use idunno_references::{ObjectClient, ReadError, Trust};
use idunno_shared::client::files::{PutItem, PutOptions, PutReport};
use idunno_shared::names::{DatasetName, FileName};
use idunno_shared::wire::references::{ObjectReference, ReferenceSource};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

use super::references::find;
use super::upload::{self, Uploaded};
use super::walk::{Found, Reason, Selection};
use crate::answer::{Answer, Exit, Failure};
use crate::execute::temporary_folder;
use crate::session::Session;

const SCHEMES: [&str; 6] = ["s3://", "s3a://", "gs://", "az://", "http://", "https://"];
const PART_BYTES: u64 = 16 << 20;
const PARTS_AT_ONCE: usize = 8;
const STAGED_BYTES_MAX: u64 = 1 << 30;
const STAGED_OBJECTS_MAX: usize = 1_000;
/// After the first attempt to read a part.
const ATTEMPTS_MORE: usize = 4;

/// The URL that stands in the place of a local path, if one does.
pub fn url_of(local: &Path) -> Option<&str> {
    local.to_str().filter(|local| SCHEMES.iter().any(|scheme| local.starts_with(scheme)))
}

/// The object of a URL, which must lead to one alone.
pub async fn one_object(url: &str, source: &ReferenceSource) -> Result<ObjectReference, Failure> {
    let listed = ObjectClient::new(&Trust::Everything).list(source, url).await;
    let mut objects = listed.map_err(|error| super::references::refused(&error))?.objects;
    match (objects.pop(), objects.len()) {
        (Some(object), 0) if !url.ends_with('/') && object.url == url => Ok(object),
        _ => {
            let text =
                format!("{url} is no single object: populate-test-data takes all objects below a prefix");
            Err(Failure::new(Exit::Usage, text))
        }
    }
}

/// `put URL SDFS`.
pub async fn put(
    session: &Session,
    url: &str,
    source: &ReferenceSource,
    name: FileName,
) -> Result<Answer, Failure> {
    let object = one_object(url, source).await?;
    let folder = temporary_folder("idunno-downloads-")?;
    let path = folder.path().join("object");
    let client = ObjectClient::new(&Trust::Everything);
    Download { client: &client, source, parts_at_once: PARTS_AT_ONCE }.fetch(&object, &path).await?;
    upload::put(session, path, name).await
}

/// The objects below a URL with their names in a dataset, and what is left out.
pub async fn named(
    url: &str,
    source: &ReferenceSource,
    dataset: &DatasetName,
    selection: &Selection,
) -> Result<(Vec<(FileName, ObjectReference)>, Found), Failure> {
    let (objects, mut found) = find(source, url, dataset, selection).await?;
    let mut named = Vec::with_capacity(objects.len());
    for object in objects {
        let below = below(url, &object.url);
        match format!("{dataset}/{below}").parse::<FileName>() {
            Ok(name) => named.push((name, object)),
            Err(error) => found.leave_out(Reason::BadName, Path::new(below), Some(error.to_string())),
        }
    }
    if selection.strict {
        found.check_strict()?;
    }
    Ok((named, found))
}

/// `populate-test-data URL`.
pub async fn populate(
    session: &Session,
    url: &str,
    source: &ReferenceSource,
    dataset: &DatasetName,
    selection: &Selection,
) -> Result<Answer, Failure> {
    let (objects, found) = named(url, source, dataset, selection).await?;
    if objects.is_empty() {
        let lines = [vec![format!("{url} has no objects to put")], found.left_out_text()];
        return Err(Failure::new(Exit::Refused, lines.concat().join("; ")));
    }
    let size_bytes = objects.iter().map(|(_, object)| object.size).sum();
    let progress = session.reporter.start(dataset.as_str(), objects.len() as u64, size_bytes);
    let client = ObjectClient::new(&Trust::Everything);
    let download = Download { client: &client, source, parts_at_once: 1 };
    let mut report: Option<PutReport> = None;
    for stage in stages(&objects) {
        let folder = temporary_folder("idunno-downloads-")?;
        let items = stage.iter().enumerate().map(|(number, (name, object))| {
            let item = PutItem { name: name.clone(), path: folder.path().join(number.to_string()) };
            async move { download.fetch(object, &item.path).await.map(|()| item) }
        });
        let items: Vec<PutItem> = stream::iter(items).buffered(PARTS_AT_ONCE).try_collect().await?;
        let options = PutOptions { skip_unchanged: true, ..PutOptions::default() };
        let put = session.files().put_files(items, options, progress.as_ref()).await?;
        report = Some(match report {
            Some(before) => both(before, put),
            None => put,
        });
    }
    let report = report.unwrap_or_default();
    Ok(Uploaded { dataset, report: &report, found: &found }.answer())
}

/// What follows the URL in an object's; the last part of its own name if it was asked for by that.
fn below<'a>(url: &str, object: &'a str) -> &'a str {
    let below = object.strip_prefix(url).map(|below| below.trim_start_matches('/'));
    match below.filter(|below| !below.is_empty()) {
        // A prefix that ends within a name, as `photos/2026-`, is part of it.
        Some(_) if !url.ends_with('/') && !object[url.len()..].starts_with('/') => {
            let start = url.rfind('/').map_or(0, |slash| slash + 1);
            &object[start..]
        }
        Some(below) => below,
        None => without_query(object).rsplit('/').next().unwrap_or(object),
    }
}

/// Of a URL of the web.
fn without_query(url: &str) -> &str {
    if url.starts_with("http") { url.split(['?', '#']).next().unwrap_or(url) } else { url }
}

/// Cuts a list so that each piece has room in the temporary folder.
fn stages(objects: &[(FileName, ObjectReference)]) -> Vec<&[(FileName, ObjectReference)]> {
    let (mut stages, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (index, (_, object)) in objects.iter().enumerate() {
        let is_full = bytes + object.size > STAGED_BYTES_MAX || index - start == STAGED_OBJECTS_MAX;
        if index > start && is_full {
            stages.push(&objects[start..index]);
            (start, bytes) = (index, 0);
        }
        bytes += object.size;
    }
    stages.push(&objects[start..]);
    stages
}

/// The report of two puts, one after the other.
fn both(before: PutReport, after: PutReport) -> PutReport {
    // One that sent nothing says nothing of copies.
    let copies = match (before.copies_wanted, after.copies_wanted) {
        (0, _) => (after.copies_min, after.copies_wanted),
        (_, 0) => (before.copies_min, before.copies_wanted),
        _ => (before.copies_min.min(after.copies_min), before.copies_wanted.max(after.copies_wanted)),
    };
    PutReport {
        files: before.files + after.files,
        bytes: before.bytes + after.bytes,
        skipped: before.skipped + after.skipped,
        copies_min: copies.0,
        copies_wanted: copies.1,
        versions: [before.versions, after.versions].concat(),
    }
}

/// How objects are read.
#[derive(Clone, Copy)]
struct Download<'a> {
    client: &'a ObjectClient,
    source: &'a ReferenceSource,
    /// Of each object.
    parts_at_once: usize,
}

impl Download<'_> {
    /// Writes an object to a local file.
    async fn fetch(self, object: &ObjectReference, path: &Path) -> Result<(), Failure> {
        let not_written = |error: io::Error| {
            Failure::error(format!("cannot keep {} in a temporary file: {error}", object.url))
        };
        let mut file = File::create(path).await.map_err(not_written)?;
        let parts = parts(object.size).into_iter().map(|part| self.part(object, part));
        let mut parts = stream::iter(parts).buffered(self.parts_at_once);
        while let Some(part) = parts.next().await {
            let bytes = part.map_err(|error| not_read(&error))?;
            file.write_all(&bytes).await.map_err(not_written)?;
        }
        file.flush().await.map_err(not_written)?;
        let written = file.stream_position().await.map_err(not_written)?;
        if written == object.size {
            return Ok(());
        }
        let text = format!("{}: {written} bytes came in place of {}", object.url, object.size);
        Err(Failure::error(text))
    }

    async fn part(self, object: &ObjectReference, part: Range<u64>) -> Result<bytes::Bytes, ReadError> {
        let is_whole = part == (0..object.size);
        let read = || {
            let part = part.clone();
            async move {
                if is_whole {
                    self.client.read(self.source, object).await
                } else {
                    self.client.read_part(self.source, object, part).await
                }
            }
        };
        let is_passing = |error: &ReadError| matches!(error, ReadError::Failed { .. });
        read.retry(ExponentialBuilder::default().with_max_times(ATTEMPTS_MORE)).when(is_passing).await
    }
}

/// The parts of an object; a small one, or one without bytes, is one part.
fn parts(size: u64) -> Vec<Range<u64>> {
    if size <= PART_BYTES {
        return vec![Range { start: 0, end: size }];
    }
    let starts = (0..size).step_by(usize::try_from(PART_BYTES).unwrap_or(usize::MAX));
    starts.map(|start| start..size.min(start + PART_BYTES)).collect()
}

fn not_read(error: &ReadError) -> Failure {
    let exit = match error {
        ReadError::Gone { .. } => Exit::NotFound,
        ReadError::Url { .. } => Exit::Usage,
        ReadError::Refused { .. } | ReadError::Changed { .. } | ReadError::Denied { .. } => Exit::Refused,
        ReadError::NotBuilt | ReadError::Failed { .. } => Exit::Error,
    };
    Failure::new(exit, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_of_buckets_and_of_the_web_are_remote() {
        for (local, is_remote) in [
            ("s3://b/k", true),
            ("https://h/x", true),
            ("file:///x", false),
            ("s3:/b", false),
            ("./gs://x", false),
        ] {
            assert_eq!(url_of(Path::new(local)).is_some(), is_remote, "{local}");
        }
    }

    #[test]
    fn a_name_is_what_follows_the_prefix_and_an_object_keeps_its_own() {
        for (url, object, name) in [
            ("s3://b/photos/", "s3://b/photos/a/1.jpg", "a/1.jpg"),
            ("s3://b/photos", "s3://b/photos/a/1.jpg", "a/1.jpg"),
            ("s3://b/photos/2026-", "s3://b/photos/2026-05.jpg", "2026-05.jpg"),
            ("s3://b/photos/1.jpg", "s3://b/photos/1.jpg", "1.jpg"),
            ("https://h/d/a.csv?sig=x/y", "https://h/d/a.csv?sig=x/y", "a.csv"),
        ] {
            assert_eq!(below(url, object), name);
        }
    }

    fn object(size: u64) -> (FileName, ObjectReference) {
        let reference = ObjectReference { url: "s3://b/k".into(), size, etag: None, modified_ms: Some(1) };
        ("d/k".parse().unwrap(), reference)
    }

    #[test]
    fn parts_and_stages_cover_everything_once() {
        let ends = |size| parts(size).iter().map(|part| (part.start, part.end)).collect::<Vec<_>>();
        assert_eq!((ends(0), ends(PART_BYTES)), (vec![(0, 0)], vec![(0, PART_BYTES)]));
        assert_eq!(ends(PART_BYTES + 1), [(0, PART_BYTES), (PART_BYTES, PART_BYTES + 1)]);
        let objects = [STAGED_BYTES_MAX - 1, 1, 1, 3 * STAGED_BYTES_MAX, 5].map(object);
        let sizes: Vec<usize> = stages(&objects).iter().map(|stage| stage.len()).collect();
        assert_eq!(sizes, [2, 1, 1, 1]);
        let many = vec![object(0); STAGED_OBJECTS_MAX + 1];
        assert_eq!(stages(&many).len(), 2);
    }

    #[test]
    fn a_put_that_sent_nothing_says_nothing_of_copies() {
        let put = |files, copies_min, copies_wanted| PutReport {
            files,
            copies_min,
            copies_wanted,
            ..PutReport::default()
        };
        let all = both(both(put(1, 0, 0), put(2, 3, 4)), put(3, 0, 0));
        assert_eq!((all.files, all.copies_min, all.copies_wanted), (6, 3, 4));
    }
}
