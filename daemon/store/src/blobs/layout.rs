//! The store's directories: paths, recovery after a crash, the scan at start-up.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use idunno_shared::ids::Digest;
use idunno_shared::wire::blobs::BlobRef;

use super::StoreError;
use super::disk::{BlobDisk, ListedFile};
use super::index::Index;

/// Damaged blobs kept for inspection, in number and bytes; further ones are deleted.
const CORRUPT_KEPT_MAX: usize = 64;
const CORRUPT_BYTES_MAX: u64 = 256 << 20;

pub(super) struct Layout {
    root: PathBuf,
    blobs: PathBuf,
    incoming: PathBuf,
    corrupt: PathBuf,
    incoming_handle: File,
    next_temp: AtomicU64,
}

impl Layout {
    /// Creates the directories durably: a blob must not be lost with its directory.
    pub(super) fn open(root: &Path, disk: &dyn BlobDisk) -> Result<Self, StoreError> {
        let blobs = root.join("blobs");
        let incoming = root.join("incoming");
        let corrupt = root.join("corrupt");
        for path in [&blobs, &incoming, &corrupt] {
            fs::create_dir_all(path).map_err(|error| StoreError::io("create", path, error))?;
        }
        for prefix in 0..=u8::MAX {
            let path = blobs.join(format!("{prefix:02x}"));
            match fs::create_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(StoreError::io("create", &path, error));
                }
                _ => {}
            }
        }
        for path in [&blobs, root] {
            disk.sync_directory(path).map_err(|error| StoreError::io("flush", path, error))?;
        }
        let incoming_handle =
            disk.open(&incoming).map_err(|error| StoreError::io("open", &incoming, error))?;
        let root = root.to_owned();
        Ok(Self { root, blobs, incoming, corrupt, incoming_handle, next_temp: AtomicU64::new(0) })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Open as long as the store, so that the kernel reports every failed write-back on it once.
    pub(super) fn incoming_handle(&self) -> &File {
        &self.incoming_handle
    }

    pub(super) fn incoming(&self) -> &Path {
        &self.incoming
    }

    pub(super) fn blob(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        let (prefix, rest) = name.split_at(2);
        self.blobs.join(prefix).join(rest)
    }

    pub(super) fn temp(&self, digest: Digest) -> PathBuf {
        let number = self.next_temp.fetch_add(1, Ordering::Relaxed);
        self.incoming.join(format!("{digest}.{number}"))
    }

    pub(super) fn quarantine(&self, disk: &dyn BlobDisk, digest: Digest) -> Result<(), StoreError> {
        let blob = self.blob(digest);
        let size = disk.metadata(&blob).map_or(0, |metadata| metadata.len());
        let kept = entries(disk, &self.corrupt)?;
        let kept_bytes: u64 = kept.iter().map(|file| file.size).sum();
        let done = if kept.len() < CORRUPT_KEPT_MAX && kept_bytes + size <= CORRUPT_BYTES_MAX {
            disk.rename(&blob, &self.corrupt.join(digest.to_string()))
        } else {
            disk.remove(&blob)
        };
        match done {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("quarantine", &blob, error))
            }
            _ => Ok(()),
        }
    }

    /// Renames complete files of `incoming` into place and deletes the others. Files are read from the disk itself, not from
    /// the page cache: a flush may have failed before the process ended.
    pub(super) fn recover(&self, disk: &dyn BlobDisk) -> Result<(), StoreError> {
        let mut complete = Vec::new();
        for ListedFile { path, .. } in entries(disk, &self.incoming)? {
            let found = disk.open_direct(&path).and_then(|file| disk.digest(&file));
            if let Err(error) = &found {
                tracing::warn!(path = %path.display(), %error, "cannot read an unfinished blob: deleting it");
            }
            match incoming_digest(&path) {
                Some(digest) if found.is_ok_and(|found| found == digest) => complete.push((path, digest)),
                _ => disk.remove(&path).map_err(|error| StoreError::io("delete", &path, error))?,
            }
        }
        if complete.is_empty() {
            return Ok(());
        }
        // The process may have died before its flush: the bytes may be in the page cache only.
        disk.sync_file_system(&self.incoming_handle)
            .map_err(|error| StoreError::io("flush", &self.incoming, error))?;
        tracing::info!(
            blobs = complete.len(),
            "recovered blobs that were written but not yet renamed into place"
        );
        for (path, digest) in complete {
            let target = self.blob(digest);
            disk.rename(&path, &target).map_err(|error| StoreError::io("rename to", &target, error))?;
        }
        Ok(())
    }

    /// Lists the blobs.
    pub(super) fn scan(&self, disk: &dyn BlobDisk) -> Result<Index, StoreError> {
        let mut index = Index::default();
        for prefix in 0..=u8::MAX {
            let prefix = format!("{prefix:02x}");
            for ListedFile { path, size } in entries(disk, &self.blobs.join(&prefix))? {
                let rest = path.file_name().and_then(OsStr::to_str);
                let digest = rest.and_then(|rest| format!("{prefix}{rest}").parse().ok());
                let Some(digest) = digest else {
                    tracing::warn!(path = %path.display(), "ignoring a file that is not a blob");
                    continue;
                };
                index.insert(BlobRef { digest, size });
            }
        }
        Ok(index)
    }
}

fn entries(disk: &dyn BlobDisk, path: &Path) -> Result<Vec<ListedFile>, StoreError> {
    disk.list(path).map_err(|error| StoreError::io("list", path, error))
}

fn incoming_digest(path: &Path) -> Option<Digest> {
    path.file_name()?.to_str()?.split_once('.')?.0.parse().ok()
}
