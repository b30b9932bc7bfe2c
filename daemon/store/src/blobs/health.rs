//! Whether the disk may be trusted with more, and whether what it holds is still what was put there.
//!
//! A disk that failed a flush, is read-only or answers with I/O errors takes nothing any more until the process is
//! restarted: after a failed flush the kernel may have dropped what was dirty (Rebello et al., "Can Applications Recover
//! from fsync Failures?", ATC 2020). A full disk only refuses what does not fit: a reserve is kept free, because the
//! metadata log is on the same file system and must always be able to go on.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use idunno_shared::ids::Digest;
use idunno_shared::wire::blobs::BlobRef;

use super::disk::open_past_cache;
use super::{Shared, StoreError};

/// What the system calls report when a device fails.
const EIO: i32 = 5;

impl Shared {
    /// Refuses everything once the disk has failed.
    pub(super) fn check_health(&self) -> Result<(), StoreError> {
        self.unhealthy.get().map_or(Ok(()), |reason| Err(StoreError::Unhealthy(reason.clone())))
    }

    /// Refuses what would leave less than the reserve.
    pub(super) fn check_room(&self, bytes: u64) -> Result<(), StoreError> {
        let root = self.layout.root();
        let free = self.disk.free_bytes(root).map_err(|error| self.fault("inspect", root, error))?;
        let fits = bytes.saturating_add(self.reserve_bytes) <= free;
        if fits { Ok(()) } else { Err(StoreError::Full { path: root.to_owned() }) }
    }

    /// Bytes that blobs may still take.
    pub(super) fn usable_bytes(&self) -> u64 {
        if self.unhealthy.get().is_some() {
            return 0;
        }
        self.disk.free_bytes(self.layout.root()).unwrap_or(0).saturating_sub(self.reserve_bytes)
    }

    /// An operation on a file failed: the error, and the disk is given up if the fault is the device's.
    pub(super) fn fault(&self, doing: &'static str, path: &Path, source: io::Error) -> StoreError {
        let is_sick = source.kind() == io::ErrorKind::ReadOnlyFilesystem || is_device_fault(&source);
        let error = StoreError::io(doing, path, source);
        if is_sick {
            self.give_disk_up(&error);
        }
        error
    }

    /// A flush failed: neither it nor anything later is trusted, unless there only was no room.
    pub(super) fn flush_failed(&self, path: &Path, source: io::Error) -> StoreError {
        let error = StoreError::io("flush", path, source);
        if !matches!(error, StoreError::Full { .. }) {
            self.give_disk_up(&error);
        }
        error
    }

    fn give_disk_up(&self, error: &StoreError) {
        if self.unhealthy.set(error.to_string()).is_ok() {
            tracing::error!(%error, "the disk failed: this member stores nothing until it is restarted");
        }
    }

    /// Whether a blob is here and whole, as far as the disk says now. One that is not is given up.
    pub(super) fn has_verified(&self, blob: BlobRef) -> bool {
        self.index().size(blob.digest) == Some(blob.size) && self.check(blob.digest).is_ok()
    }

    /// Reads a blob from the disk itself; one that is damaged is given up. Answers its size. Blocks.
    pub(super) fn check(&self, digest: Digest) -> Result<u64, StoreError> {
        let size = self.index().size(digest).ok_or(StoreError::Missing(digest))?;
        let path = self.layout.blob(digest);
        let file = match open_past_cache(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.lost(digest),
            Err(error) => return Err(StoreError::io("open", &path, error)),
        };
        // Twice, because a read may fail for a moment, and a blob that was given up is gone.
        for _ in 0..2 {
            match self.disk.digest(&file) {
                Ok(found) if found == digest => return Ok(size),
                Ok(_) => {}
                Err(error) if is_device_fault(&error) => {}
                Err(error) => return Err(StoreError::io("read", &path, error)),
            }
        }
        self.give_up(digest, &file)
    }

    /// Moves a damaged blob aside, unless what is there now is another file than the one that was read.
    pub(super) fn give_up<T>(&self, digest: Digest, read: &File) -> Result<T, StoreError> {
        let path = self.layout.blob(digest);
        let mut index = self.index();
        let same = match (std::fs::metadata(&path), read.metadata()) {
            (Ok(there), Ok(read)) => there.ino() == read.ino(),
            _ => false,
        };
        if same {
            tracing::warn!(%digest, "a blob is damaged on disk: moved aside");
            index.give_up(digest);
            self.damaged.fetch_add(1, Ordering::Relaxed);
            self.layout.move_aside(digest)?;
        }
        Err(StoreError::Corrupt(digest))
    }

    /// A blob's file has vanished, unless it was deleted in good order meanwhile.
    fn lost(&self, digest: Digest) -> Result<u64, StoreError> {
        let mut index = self.index();
        if index.size(digest).is_some() && !self.layout.blob(digest).exists() {
            tracing::warn!(%digest, "a blob's file has vanished");
            index.give_up(digest);
            self.damaged.fetch_add(1, Ordering::Relaxed);
        }
        Err(StoreError::Missing(digest))
    }
}

/// Whether the device failed, not the request.
pub(super) fn is_device_fault(error: &io::Error) -> bool {
    error.raw_os_error() == Some(EIO)
}
