//! Whether the disk can be trusted, and whether its blobs are intact.
//!
//! A disk that failed a flush, is read-only or returns I/O errors accepts nothing until the process restarts: after a
//! failed flush the kernel may have dropped dirty pages (Rebello et al., "Can Applications Recover from fsync Failures?",
//! ATC 2020). A full disk only refuses what does not fit. A reserve is kept free, because the metadata log is on the same
//! file system and must always be able to continue.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use idunno_shared::ids::Digest;
use idunno_shared::wire::blobs::BlobRef;

use super::disk::BlobDisk;
use super::{BlobStoreInner, StoreError};

/// The errno of a failing device.
const EIO: i32 = 5;

impl BlobStoreInner {
    /// Refuses everything once the disk has failed, and while it hangs.
    pub(super) fn check_health(&self) -> Result<(), StoreError> {
        if let Some(hung) = self.disk.hung_for() {
            return Err(StoreError::Hung { seconds: hung.as_secs() });
        }
        self.unhealthy.get().map_or(Ok(()), |reason| Err(StoreError::Unhealthy(reason.clone())))
    }

    /// Refuses a blob that would not leave the reserve free.
    pub(super) fn check_space(&self, bytes: u64) -> Result<(), StoreError> {
        let root = self.layout.root();
        let free = self.disk.free_bytes(root).map_err(|error| self.fault("inspect", root, error))?;
        let fits = bytes.saturating_add(self.reserve_bytes) <= free;
        if fits { Ok(()) } else { Err(StoreError::Full { path: root.to_owned() }) }
    }

    pub(super) fn usable_bytes(&self) -> u64 {
        if self.check_health().is_err() {
            return 0;
        }
        self.disk.free_bytes(self.layout.root()).unwrap_or(0).saturating_sub(self.reserve_bytes)
    }

    /// The error of a failed file operation. A fault of the device marks the disk as unhealthy.
    pub(super) fn fault(&self, doing: &'static str, path: &Path, source: io::Error) -> StoreError {
        let is_disk_fault = source.kind() == io::ErrorKind::ReadOnlyFilesystem || is_device_fault(&source);
        let error = StoreError::io(doing, path, source);
        if is_disk_fault {
            self.mark_unhealthy(&error);
        }
        error
    }

    /// The error of a failed flush, which marks the disk as unhealthy unless the disk was only full.
    pub(super) fn flush_failed(&self, path: &Path, source: io::Error) -> StoreError {
        let error = StoreError::io("flush", path, source);
        if !matches!(error, StoreError::Full { .. }) {
            self.mark_unhealthy(&error);
        }
        error
    }

    fn mark_unhealthy(&self, error: &StoreError) {
        if self.unhealthy.set(error.to_string()).is_ok() {
            tracing::error!(%error, "the disk failed: this member stores nothing until it restarts");
        }
    }

    /// Whether the disk holds the blob intact. A damaged blob is quarantined.
    pub(super) fn has_intact(&self, blob: BlobRef) -> bool {
        self.index().size(blob.digest) == Some(blob.size) && self.check(blob.digest).is_ok()
    }

    /// See [`BlobStore::check`](super::BlobStore::check).
    pub(super) fn check(&self, digest: Digest) -> Result<u64, StoreError> {
        let size = self.index().size(digest).ok_or(StoreError::Missing(digest))?;
        let path = self.layout.blob(digest);
        let file = match self.disk.open_direct(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.record_missing(digest),
            Err(error) => return Err(StoreError::io("open", &path, error)),
        };
        // Two attempts: a read may fail transiently, and a quarantined blob is lost.
        for _ in 0..2 {
            match self.disk.digest(&file) {
                Ok(found) if found == digest => return Ok(size),
                Ok(_) => {}
                Err(error) if is_device_fault(&error) => {}
                Err(error) => return Err(StoreError::io("read", &path, error)),
            }
        }
        self.quarantine(digest, &file)
    }

    /// Quarantines a damaged blob, unless the file that was read has been replaced since.
    pub(super) fn quarantine<T>(&self, digest: Digest, read: &File) -> Result<T, StoreError> {
        let path = self.layout.blob(digest);
        let _placing = self.placing();
        let is_same = match (self.disk.metadata(&path), read.metadata()) {
            (Ok(current), Ok(read)) => current.ino() == read.ino(),
            _ => false,
        };
        if is_same {
            tracing::warn!(%digest, "a blob is damaged on disk: quarantined");
            self.index().give_up(digest);
            self.damaged.fetch_add(1, Ordering::Relaxed);
            self.layout.quarantine(&self.disk, digest)?;
        }
        Err(StoreError::Corrupt(digest))
    }

    /// Records that a blob's file is missing, unless the blob was deleted on order meanwhile.
    fn record_missing(&self, digest: Digest) -> Result<u64, StoreError> {
        let _placing = self.placing();
        let is_missing = || {
            let found = self.disk.metadata(&self.layout.blob(digest));
            found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        if self.index().size(digest).is_some() && is_missing() {
            tracing::warn!(%digest, "a blob's file is missing");
            self.index().give_up(digest);
            self.damaged.fetch_add(1, Ordering::Relaxed);
        }
        Err(StoreError::Missing(digest))
    }
}

/// Whether the device failed rather than the request.
pub(super) fn is_device_fault(error: &io::Error) -> bool {
    error.raw_os_error() == Some(EIO)
}
