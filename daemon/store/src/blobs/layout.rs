//! Where blobs are in the file system, and what a crash may have left there.

use std::fs::{self, DirEntry, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use idunno_shared::ids::Digest;
use idunno_shared::wire::blobs::BlobRef;

use super::StoreError;
use super::disk::{Disk, open_past_cache};
use super::index::Index;

/// Most damaged blobs that are kept aside, for somebody to look at, and most bytes of them; further ones are deleted.
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
    /// Makes the directories, durably: a blob must not be lost with the directory it is in.
    pub(super) fn open(root: &Path) -> Result<Self, StoreError> {
        let (blobs, incoming, corrupt) = (root.join("blobs"), root.join("incoming"), root.join("corrupt"));
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
        sync_directory(&blobs)?;
        sync_directory(root)?;
        let incoming_handle =
            File::open(&incoming).map_err(|error| StoreError::io("open", &incoming, error))?;
        let root = root.to_owned();
        Ok(Self { root, blobs, incoming, corrupt, incoming_handle, next_temp: AtomicU64::new(0) })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Open for as long as the store, so that the kernel reports every failed write-back to it once.
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

    pub(super) fn move_aside(&self, digest: Digest) -> Result<(), StoreError> {
        let blob = self.blob(digest);
        let size = fs::metadata(&blob).map_or(0, |metadata| metadata.len());
        let sizes =
            entries(&self.corrupt)?.iter().filter_map(|entry| entry.metadata().ok()).collect::<Vec<_>>();
        let kept_bytes: u64 = sizes.iter().map(fs::Metadata::len).sum();
        let done = if sizes.len() < CORRUPT_KEPT_MAX && kept_bytes + size <= CORRUPT_BYTES_MAX {
            fs::rename(&blob, self.corrupt.join(digest.to_string()))
        } else {
            fs::remove_file(&blob)
        };
        match done {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("move aside", &blob, error))
            }
            _ => Ok(()),
        }
    }

    /// Moves into place what is whole in `incoming` on the disk itself, and deletes the rest. What the page cache says
    /// does not count: a flush may have failed before the process ended.
    pub(super) fn recover(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        let mut whole = Vec::new();
        for entry in entries(&self.incoming)? {
            let path = entry.path();
            let found = open_past_cache(&path).and_then(|file| disk.digest(&file));
            if let Err(error) = &found {
                tracing::warn!(path = %path.display(), %error, "cannot read an unfinished blob: deleted");
            }
            match incoming_digest(&entry) {
                Some(digest) if found.is_ok_and(|found| found == digest) => whole.push((path, digest)),
                _ => fs::remove_file(&path).map_err(|error| StoreError::io("delete", &path, error))?,
            }
        }
        if whole.is_empty() {
            return Ok(());
        }
        // The process may have died before its flush, with the bytes only in the page cache.
        disk.sync_file_system(&self.incoming_handle)
            .map_err(|error| StoreError::io("flush", &self.incoming, error))?;
        tracing::info!(blobs = whole.len(), "blobs recovered that were flushed, not yet in place");
        for (path, digest) in whole {
            let target = self.blob(digest);
            fs::rename(&path, &target).map_err(|error| StoreError::io("rename to", &target, error))?;
        }
        Ok(())
    }

    /// Everything in place.
    pub(super) fn scan(&self) -> Result<Index, StoreError> {
        let mut index = Index::default();
        for prefix in 0..=u8::MAX {
            let prefix = format!("{prefix:02x}");
            for entry in entries(&self.blobs.join(&prefix))? {
                let path = entry.path();
                let digest =
                    entry.file_name().to_str().and_then(|rest| format!("{prefix}{rest}").parse().ok());
                let Some(digest) = digest else {
                    tracing::warn!(path = %path.display(), "not a blob: ignored");
                    continue;
                };
                let size = entry.metadata().map_err(|error| StoreError::io("inspect", &path, error))?.len();
                index.insert(BlobRef { digest, size });
            }
        }
        Ok(index)
    }
}

fn entries(path: &Path) -> Result<Vec<DirEntry>, StoreError> {
    let read = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    read.map_err(|error| StoreError::io("list", path, error))
}

fn incoming_digest(entry: &DirEntry) -> Option<Digest> {
    let name = entry.file_name();
    name.to_str()?.split_once('.')?.0.parse().ok()
}

fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| StoreError::io("flush", path, error))
}
