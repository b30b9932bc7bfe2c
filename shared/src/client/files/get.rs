//! Reads files from the store.
//!
//! Decides how a version becomes a local file: its extents are read side by side into a file beside the target, which
//! replaces the target once all are verified. When no holder gives an extent the file is located again, because it may
//! have been copied elsewhere meanwhile, until [`DEADLINE`] has passed without an extent.
//!
//! Bounds: [`EXTENTS_IN_FLIGHT`] extents of a file at once; of many files [`BATCHES_IN_FLIGHT`] batches at once, each of
//! them a larger file, or small ones of at most [`BATCH_BYTES_MAX`] together.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt, iter};
use thiserror::Error;
use time::OffsetDateTime;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::atomic_file::Target;
use super::fetch::{EXTENTS_IN_FLIGHT, FetchError, SMALL_BYTES_MAX};
use super::{Files, Progress, Unavailable};
use crate::client::cluster::ClusterError;
use crate::names::FileName;
use crate::wire::blobs::PlacedBlob;
use crate::wire::control::{ControlReply, ControlRequest, FileVersion};
use crate::wire::refusal::Refusal;

/// Batches of files that are read at once.
pub const BATCHES_IN_FLIGHT: usize = 4;
/// Most small files in a batch.
pub const BATCH_FILES_MAX: usize = 32;
/// Most bytes of small files in a batch.
pub const BATCH_BYTES_MAX: u64 = 4 << 20;
/// How long a get continues without receiving an extent: longer than any failover.
pub const DEADLINE: Duration = Duration::from_secs(30);
const LOCATE_NAMES_MAX: usize = 256;
/// Requests for locations that are under way while files are read.
const PARTS_LOCATED: usize = 2;
const PAUSE: Duration = Duration::from_millis(500);

/// A file and where it is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetItem {
    /// Its name in the store.
    pub name: FileName,
    /// The local file to write.
    pub target: PathBuf,
}

/// A file to get, and where it is.
type Located = (GetItem, FileVersion);

/// What a get of many files did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GetReport {
    /// Files written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Why a file was not read. The target is as it was before.
#[derive(Debug, Error)]
pub enum GetError {
    /// There is no such file.
    #[error("there is no file '{name}': ls lists the files")]
    NotFound {
        /// The file.
        name: FileName,
    },
    /// The file has no such version.
    #[error("the file '{name}' has no version {version}: get-versions shows those that are kept")]
    NoVersion {
        /// The file.
        name: FileName,
        /// The version asked for.
        version: u64,
    },
    /// No holder returned one of its extents.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The local file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Target {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The coordinator could not be reached, or refused.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl GetError {
    fn target(path: &Path, source: io::Error) -> Self {
        Self::Target { path: path.to_owned(), source }
    }
}

impl Files {
    /// Reads a file's newest version, or the one named, into `target`, which is replaced at once and only on success.
    pub async fn get_file(
        &self,
        name: &FileName,
        version: Option<u64>,
        target: &Path,
        progress: &dyn Progress,
    ) -> Result<FileVersion, GetError> {
        let version = self.locate(name, version).await?;
        progress.set_total(version.size);
        self.write_file(version, target, progress).await
    }

    /// Writes what these extents hold, in their order, into `target`, which is replaced at once and only on success.
    pub async fn get_extents(&self, extents: &[PlacedBlob], target: &Path) -> Result<(), GetError> {
        let size = extents.iter().map(|extent| extent.blob.size).sum();
        let out = create(target, size).await?;
        let (mut offset, mut gets) = (0, Vec::with_capacity(extents.len()));
        for (index, extent) in extents.iter().enumerate() {
            let sink = out.sink(offset, extent.blob.size);
            offset += extent.blob.size;
            gets.push(async move { (index, self.fetch_extent(extent, index, sink).await) });
        }
        let mut gets = iter(gets).buffer_unordered(EXTENTS_IN_FLIGHT);
        while let Some((index, got)) = gets.next().await {
            match got {
                Ok(()) => {}
                Err(FetchError::Sink(error)) => return Err(GetError::target(target, error)),
                Err(FetchError::Unavailable(tried)) => {
                    let what = format!("blob {}", extents[index].blob.digest);
                    return Err(Unavailable { what, tried }.into());
                }
            }
        }
        drop(gets);
        finish(out, target).await
    }

    async fn write_file(
        &self,
        version: FileVersion,
        target: &Path,
        progress: &dyn Progress,
    ) -> Result<FileVersion, GetError> {
        let out = create(target, version.size).await?;
        let version = self.write_version(version, &out, target, 0, progress).await?;
        finish(out, target).await?;
        progress.file();
        Ok(version)
    }

    /// Reads the newest versions of many files, many at once. Stops at the first that fails; those written stay.
    pub async fn get_files(
        &self,
        items: Vec<GetItem>,
        progress: &dyn Progress,
    ) -> Result<GetReport, GetError> {
        // Made first, not within the stream: a closure there is not general enough for a future that is Send.
        let parts: Vec<_> =
            items.chunks(LOCATE_NAMES_MAX).map(|part| self.locate_all(part.to_vec())).collect();
        let mut parts = iter(parts).buffered(PARTS_LOCATED);
        let (mut waiting, mut under_way) = (VecDeque::new(), FuturesUnordered::new());
        let (mut report, mut more) = (GetReport::default(), true);
        loop {
            while under_way.len() < BATCHES_IN_FLIGHT
                && let Some(batch) = waiting.pop_front()
            {
                under_way.push(self.get_batch(batch, progress));
            }
            tokio::select! {
                part = parts.next(), if more && waiting.is_empty() => match part {
                    Some(part) => waiting.extend(batches(part?)),
                    None => more = false,
                },
                Some(done) = under_way.next() => {
                    let done: GetReport = done?;
                    report.files += done.files;
                    report.bytes += done.bytes;
                }
                else => return Ok(report),
            }
        }
    }

    /// Writes the newest `count` versions of a file into `target`, newest first, each under a delimiter line and with
    /// a line end after it.
    pub async fn get_versions(
        &self,
        name: &FileName,
        count: u32,
        target: &Path,
        progress: &dyn Progress,
    ) -> Result<Vec<FileVersion>, GetError> {
        let request = ControlRequest::Versions { name: name.clone(), limit: count };
        let ControlReply::Versions(versions) = self.cluster.control(request).await? else {
            return Err(unexpected());
        };
        if versions.is_empty() {
            return Err(GetError::NotFound { name: name.clone() });
        }
        progress.set_total(versions.iter().map(|version| version.size).sum());
        let out = create(target, 0).await?;
        let (mut offset, mut written) = (0, Vec::with_capacity(versions.len()));
        for version in versions {
            let line = delimiter(&version);
            out.write(offset, line.as_bytes()).map_err(|error| GetError::target(target, error))?;
            offset += line.len() as u64;
            let version = self.write_version(version, &out, target, offset, progress).await?;
            offset += version.size;
            out.write(offset, b"\n").map_err(|error| GetError::target(target, error))?;
            offset += 1;
            written.push(version);
        }
        finish(out, target).await?;
        progress.file();
        Ok(written)
    }

    async fn locate(&self, name: &FileName, version: Option<u64>) -> Result<FileVersion, GetError> {
        if let Some(found) = self.find(name, version).await? {
            return Ok(found);
        }
        // Only a file that exists can lack a version.
        match version {
            Some(version) if self.find(name, None).await?.is_some() => {
                Err(GetError::NoVersion { name: name.clone(), version })
            }
            _ => Err(GetError::NotFound { name: name.clone() }),
        }
    }

    async fn find(&self, name: &FileName, version: Option<u64>) -> Result<Option<FileVersion>, GetError> {
        let request = ControlRequest::Locate { names: vec![name.clone()], version };
        let ControlReply::Located(mut versions) = self.cluster.control(request).await? else {
            return Err(unexpected());
        };
        Ok(versions.pop().flatten())
    }

    /// The newest versions of files, of which there are at most [`LOCATE_NAMES_MAX`].
    async fn locate_all(&self, items: Vec<GetItem>) -> Result<Vec<Located>, GetError> {
        let names = items.iter().map(|item| item.name.clone()).collect();
        let located = self.cluster.control(ControlRequest::Locate { names, version: None }).await?;
        let ControlReply::Located(versions) = located else { return Err(unexpected()) };
        let found = items.into_iter().zip(versions).map(|(item, version)| match version {
            Some(version) => Ok((item, version)),
            None => Err(GetError::NotFound { name: item.name }),
        });
        found.collect()
    }

    /// Reads small files, one extent each, and writes them together. A file that fails is retried by [`Files::get_file`].
    async fn get_batch(&self, batch: Vec<Located>, progress: &dyn Progress) -> Result<GetReport, GetError> {
        let (small, mut left): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|(_, version)| is_small(version));
        let extents: Vec<PlacedBlob> =
            small.iter().flat_map(|(_, version)| version.extents.iter().cloned()).collect();
        let mut whole = Vec::with_capacity(small.len());
        for (located, bytes) in small.into_iter().zip(self.fetch_blobs(&extents).await) {
            match bytes {
                Ok(bytes) => whole.push((located.0.target, bytes)),
                Err(_) => left.push(located),
            }
        }
        let mut report = GetReport::default();
        for size in write_all(whole).await? {
            report.files += 1;
            report.bytes += size;
            progress.bytes(size);
            progress.file();
        }
        for (item, version) in left {
            let version = self.locate(&item.name, Some(version.version)).await?;
            let got = self.write_file(version, &item.target, progress).await?;
            report.files += 1;
            report.bytes += got.size;
        }
        Ok(report)
    }

    /// Writes a version's bytes into `out` from `base` on; answers the version with its holders as last known.
    async fn write_version(
        &self,
        mut version: FileVersion,
        out: &Target,
        path: &Path,
        base: u64,
        progress: &dyn Progress,
    ) -> Result<FileVersion, GetError> {
        let offsets = offsets(&version)?;
        let mut left: Vec<usize> = (0..version.extents.len()).collect();
        let mut came = Instant::now();
        loop {
            let mut last = None;
            let mut gets = iter(std::mem::take(&mut left))
                .map(|index| {
                    let extent = &version.extents[index];
                    let sink = out.sink(base + offsets[index], extent.blob.size);
                    async move { (index, self.fetch_extent(extent, index, sink).await) }
                })
                .buffer_unordered(EXTENTS_IN_FLIGHT);
            while let Some((index, got)) = gets.next().await {
                match got {
                    Ok(()) => {
                        came = Instant::now();
                        progress.bytes(version.extents[index].blob.size);
                    }
                    Err(FetchError::Sink(error)) => return Err(GetError::target(path, error)),
                    Err(FetchError::Unavailable(tried)) => {
                        left.push(index);
                        last = Some((index, tried));
                    }
                }
            }
            drop(gets);
            let Some((index, tried)) = last else { return Ok(version) };
            if came.elapsed() > self.patience {
                let extents = version.extents.len();
                let what = format!(
                    "extent {} of {extents} of '{}' version {}",
                    index + 1,
                    version.name,
                    version.version
                );
                return Err(Unavailable { what, tried }.into());
            }
            sleep(PAUSE).await;
            let found = self.locate(&version.name, Some(version.version)).await?;
            if found.digest == version.digest && found.extents.len() == version.extents.len() {
                version = found;
            }
        }
    }

    async fn fetch_extent(
        &self,
        extent: &PlacedBlob,
        index: usize,
        mut sink: super::atomic_file::FileSink,
    ) -> Result<(), FetchError> {
        self.fetch(extent, index, &mut sink).await
    }
}

/// Cuts files into what is read and written together: small ones in batches, each other one by itself.
fn batches(located: Vec<Located>) -> Vec<Vec<Located>> {
    let mut batches: Vec<Vec<Located>> = Vec::new();
    let mut room = 0;
    for (item, version) in located {
        let size = version.size;
        match batches.last_mut() {
            Some(batch) if is_small(&version) && size <= room && batch.len() < BATCH_FILES_MAX => {
                room -= size;
                batch.push((item, version));
            }
            _ => {
                room = if is_small(&version) { BATCH_BYTES_MAX.saturating_sub(size) } else { 0 };
                batches.push(vec![(item, version)]);
            }
        }
    }
    batches
}

fn is_small(version: &FileVersion) -> bool {
    version.extents.len() == 1 && version.size <= SMALL_BYTES_MAX
}

/// Writes whole files on one thread: many at once would only wait for the directory's lock. Answers their sizes.
async fn write_all(files: Vec<(PathBuf, Bytes)>) -> Result<Vec<u64>, GetError> {
    let write = move || -> Result<Vec<u64>, GetError> {
        let write_one = |(path, bytes): &(PathBuf, Bytes)| match Target::write_all(path, bytes) {
            Ok(()) => Ok(bytes.len() as u64),
            Err(error) => Err(GetError::target(path, error)),
        };
        files.iter().map(write_one).collect()
    };
    spawn_blocking(write)
        .await
        .unwrap_or_else(|error| Err(GetError::target(Path::new("files"), error.into())))
}

/// Where each extent starts; refused if the extents are not the file.
fn offsets(version: &FileVersion) -> Result<Vec<u64>, GetError> {
    let mut offset = 0_u64;
    let mut offsets = Vec::with_capacity(version.extents.len());
    for extent in &version.extents {
        offsets.push(offset);
        offset = offset.saturating_add(extent.blob.size);
    }
    if offset == version.size { Ok(offsets) } else { Err(unexpected()) }
}

async fn create(path: &Path, bytes: u64) -> Result<Target, GetError> {
    let target = path.to_owned();
    let created = spawn_blocking(move || Target::create(&target, bytes)).await;
    created
        .unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(|error| GetError::target(path, error))
}

async fn finish(out: Target, path: &Path) -> Result<(), GetError> {
    let finished = spawn_blocking(move || out.finish()).await;
    finished
        .unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(|error| GetError::target(path, error))
}

fn unexpected() -> GetError {
    ClusterError::from(Refusal::internal("unexpected reply of the coordinator to a request for a file"))
        .into()
}

/// The line above a version in a file of versions.
pub fn delimiter(version: &FileVersion) -> String {
    let FileVersion { name, version: number, size, digest, created_ms, .. } = version;
    format!("==== {name} version {number} | {size} bytes | {} | blake3 {digest} ====\n", utc(*created_ms))
}

/// A time in milliseconds since the epoch as `2026-11-23T01:02:03Z`; beyond the year 9999 its seconds alone.
pub fn utc(at_ms: u64) -> String {
    let seconds = i64::try_from(at_ms / 1000).unwrap_or(i64::MAX);
    let Ok(at) = OffsetDateTime::from_unix_timestamp(seconds) else { return seconds.to_string() };
    let (hour, minute, second) = at.to_hms();
    format!("{}T{hour:02}:{minute:02}:{second:02}Z", at.date())
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_795_395_723_999), "2026-11-23T01:02:03Z");
        assert_eq!(utc(4_107_542_399_000), "2100-02-28T23:59:59Z");
        assert_eq!(utc(u64::MAX), "18446744073709551");
    }
}
