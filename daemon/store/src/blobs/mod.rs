//! Blobs as plain files named by their digest.
//!
//! Decides when a blob is durable, and whether it may be deleted. Source: the design, section 7; group commit as in
//! Haystack.
//!
//! Layout: `blobs/ab/<62 hex digits>`, `incoming/<digest>.<n>` while being written, `corrupt/<digest>` for damaged blobs.
//! A blob is written to `incoming`, verified, flushed there (file and directory entry), renamed, and acknowledged. A power
//! cut may undo the rename but not the file in `incoming`: start-up moves it into place.
//!
//! Invariants: an acknowledged blob is flushed and matches its digest, even if it was stored before; a file under `blobs`
//! was flushed before the rename; a blob is not deleted while a put of it is in progress, or while its pin is at or above
//! the watermark; a failed flush is never retried, and nothing is accepted after one; blobs leave a reserve of disk space
//! to the metadata log.
//!
//! Bounds: groups of at most [`GROUP_BLOBS_MAX`] blobs or [`GROUP_BYTES_MAX`]; at most [`QUEUED_BYTES_MAX`] of small
//! blobs in memory; a large blob buffers at most 4 MiB. The index takes about 100 bytes of memory per blob. Pins and the
//! highest term are kept in memory only: pins because the coordinator collects nothing here while an upload older than
//! this process is open; the term because the daemon feeds it what consensus has made durable
//! ([`BlobStore::observe_term`]).
//!
//! The index is never locked while the disk is waited for: async tasks take that lock. What a rename or a deletion means
//! for the index is decided under a lock of its own, which only blocking threads take.
//!
//! It does not know which other members hold a blob, and deletes only on order.

pub(crate) mod disk;
mod group;
mod health;
mod index;
mod large;
mod layout;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod watched;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use idunno_shared::client::files::connection::verify;
use idunno_shared::client::files::direct_io;
use idunno_shared::ids::{Digest, Term, UploadId};
use idunno_shared::wire::blobs::BlobRef;
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::disk::{BlobDisk, RealDisk};
use self::group::PutJob;
use self::health::is_device_fault;
use self::index::Index;
pub use self::large::StreamedPut;
use self::layout::Layout;
pub use self::watched::HUNG_AFTER;
pub(crate) use self::watched::WatchedDisk;

/// Blobs flushed together.
pub const GROUP_BLOBS_MAX: usize = 128;
/// Bytes flushed together; the last blob of a group may exceed it.
pub const GROUP_BYTES_MAX: usize = 4 << 20;
/// Largest blob that is held in memory and flushed with others.
pub const SMALL_BYTES_MAX: u64 = 1 << 20;
/// Bytes of small blobs queued in memory.
pub const QUEUED_BYTES_MAX: usize = 64 << 20;
/// Default disk space that blobs leave free.
pub const RESERVE_BYTES: u64 = 256 << 20;
const QUEUED_BLOBS_MAX: usize = 256;

/// An operation of the store failed.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// The blob is not stored.
    #[error("the disk is full up to its reserve: free space under {}", path.display())]
    Full { path: PathBuf },
    /// The blob is not stored.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: Arc<io::Error> },
    /// The received bytes do not match the blob. Nothing was stored.
    #[error("{0}")]
    Mismatch(String),
    /// An earlier operation failed in a way that makes the disk's content uncertain.
    #[error("this member's disk failed; it stores nothing until the member restarts: {0}")]
    Unhealthy(String),
    /// Nothing was stored, and later calls may succeed.
    #[error("this member's disk has not answered for {seconds} s; it stores nothing until it does")]
    Hung { seconds: u64 },
    /// The blob may be stored later, unknown to anybody.
    #[error("this member's disk has not stored it within {seconds} s")]
    TooLate { seconds: u64 },
    #[error("blob {0} is not stored on this member")]
    Missing(Digest),
    /// The damaged file was quarantined.
    #[error("blob {0} was damaged on disk and has been quarantined")]
    Corrupt(Digest),
    #[error("the store is shutting down")]
    Closed,
}

impl StoreError {
    fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            _ => Self::Io { doing, path, source: source.into() },
        }
    }
}

/// Identifies an order to delete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct OrderNumber {
    pub term: Term,
    /// Increases within the term.
    pub number: u64,
}

/// The order carries an older term than one already seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the order is of term {ordered}, but term {seen} has begun")]
pub struct StaleTerm {
    pub ordered: Term,
    pub seen: Term,
}

/// The blobs of one data directory. Clones are cheap; the writer thread ends when the last one is dropped.
#[derive(Clone)]
pub struct BlobStore {
    shared: Arc<BlobStoreInner>,
    queue: mpsc::Sender<PutJob>,
    budget: Arc<Semaphore>,
}

struct BlobStoreInner {
    layout: Layout,
    disk: WatchedDisk,
    index: Mutex<Index>,
    /// Held from the decision about a blob's file until both file and index are changed. Taken before the index, and by
    /// blocking threads only: whoever holds it may wait for the disk.
    placing: Mutex<()>,
    unhealthy: OnceLock<String>,
    reserve_bytes: u64,
    damaged: AtomicU64,
}

impl BlobStoreInner {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn placing(&self) -> MutexGuard<'_, ()> {
        self.placing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renames a flushed file into place and adds it to the index as one step, so that a concurrent quarantine can only
    /// affect the old file. The put's guard prevents collection.
    fn publish(&self, temp: &Path, blob: BlobRef) -> Result<(), StoreError> {
        let target = self.layout.blob(blob.digest);
        let _placing = self.placing();
        self.disk.rename(temp, &target).map_err(|error| self.fault("rename to", &target, error))?;
        self.index().insert(blob);
        Ok(())
    }
}

/// A put in progress: the blob is not collected before this is dropped.
struct PutGuard {
    shared: Arc<BlobStoreInner>,
    digest: Digest,
}

impl PutGuard {
    fn new(shared: &Arc<BlobStoreInner>, digest: Digest, upload: Option<UploadId>) -> Self {
        shared.index().begin(digest, upload);
        Self { shared: Arc::clone(shared), digest }
    }
}

impl Drop for PutGuard {
    fn drop(&mut self) {
        self.shared.index().end(self.digest);
    }
}

/// A put whose bytes are queued.
pub struct PendingStore(oneshot::Receiver<Result<(), StoreError>>);

impl PendingStore {
    /// Waits until the blob is durable or has failed.
    pub async fn done(self) -> Result<(), StoreError> {
        self.0.await.unwrap_or(Err(StoreError::Closed))
    }
}

impl BlobStore {
    /// Opens the store under `root`, recovers files that a crash left behind, and lists the blobs. Puts that would leave
    /// less than `reserve_bytes` of the disk free are refused. Blocks.
    pub fn open(root: &Path, reserve_bytes: u64) -> Result<Self, StoreError> {
        Self::open_on(root, reserve_bytes, WatchedDisk::new(Box::new(RealDisk), HUNG_AFTER))
    }

    pub(crate) fn open_on(root: &Path, reserve_bytes: u64, disk: WatchedDisk) -> Result<Self, StoreError> {
        let layout = Layout::open(root, &disk)?;
        layout.recover(&disk)?;
        let index = Mutex::new(layout.scan(&disk)?);
        let shared = Arc::new(BlobStoreInner {
            layout,
            disk,
            index,
            placing: Mutex::default(),
            unhealthy: OnceLock::new(),
            reserve_bytes,
            damaged: AtomicU64::new(0),
        });
        let (queue, jobs) = mpsc::channel(QUEUED_BLOBS_MAX);
        group::spawn(Arc::clone(&shared), jobs)
            .map_err(|error| StoreError::io("start the writer thread of", root, error))?;
        Ok(Self { shared, queue, budget: Arc::new(Semaphore::new(QUEUED_BYTES_MAX)) })
    }

    /// Waits for memory, then queues a small blob to be flushed with others. `upload` pins it.
    ///
    /// # Errors
    /// [`StoreError::Closed`] when the writer thread is gone, and [`StoreError::Hung`] or [`StoreError::Unhealthy`] at once
    /// where the writer would wait; all other errors come from [`PendingStore::done`].
    pub async fn start_put(
        &self,
        blob: BlobRef,
        upload: Option<UploadId>,
        bytes: Bytes,
    ) -> Result<PendingStore, StoreError> {
        self.shared.check_health()?;
        let permits = u32::try_from(bytes.len().min(QUEUED_BYTES_MAX)).unwrap_or(u32::MAX);
        let memory =
            Arc::clone(&self.budget).acquire_many_owned(permits).await.map_err(|_| StoreError::Closed)?;
        let guard = PutGuard::new(&self.shared, blob.digest, upload);
        let (reply, done) = oneshot::channel();
        let job = PutJob { blob, bytes, reply, guard, _memory: memory };
        self.queue.send(job).await.map_err(|_| StoreError::Closed)?;
        Ok(PendingStore(done))
    }

    /// Starts to store a large blob whose bytes follow. Must be called within a runtime.
    pub fn stream_put(&self, blob: BlobRef, upload: Option<UploadId>) -> StreamedPut {
        large::start(PutGuard::new(&self.shared, blob.digest, upload), blob)
    }

    pub fn contains(&self, digest: Digest) -> bool {
        self.shared.index().size(digest).is_some()
    }

    /// The blob's size, if it is stored.
    pub fn size(&self, digest: Digest) -> Option<u64> {
        self.shared.index().size(digest)
    }

    /// Number of blobs and of their bytes.
    pub fn totals(&self) -> (u64, u64) {
        self.shared.index().totals()
    }

    /// How long the disk has not answered, while it hangs.
    pub fn hung_for(&self) -> Option<Duration> {
        self.shared.disk.hung_for()
    }

    /// Bytes that blobs may still take: 0 on a failed, read-only or hung disk. Blocks briefly.
    pub fn usable_bytes(&self) -> u64 {
        self.shared.usable_bytes()
    }

    /// Blobs found damaged or missing since the start.
    pub fn damaged(&self) -> u64 {
        self.shared.damaged.load(Ordering::Relaxed)
    }

    /// The first blob after `after` in digest order, and its size.
    pub fn next(&self, after: Option<Digest>) -> Option<(Digest, u64)> {
        self.shared.index().next(after)
    }

    pub fn root(&self) -> &Path {
        self.shared.layout.root()
    }

    /// Verifies a blob by reading it from the disk itself, bypassing the page cache, and returns its size. A damaged blob
    /// is quarantined. Blocks.
    pub fn check(&self, digest: Digest) -> Result<u64, StoreError> {
        self.shared.check(digest)
    }

    /// Reads and verifies a blob. A damaged one is quarantined. Blocks.
    pub fn read(&self, digest: Digest) -> Result<Bytes, StoreError> {
        let (file, size) = self.open_from(digest, 0)?;
        let read =
            if size > SMALL_BYTES_MAX { direct_io::read_whole(&file, size) } else { read_small(&file, size) };
        match read {
            Err(error) if !is_device_fault(&error) => {
                Err(StoreError::io("read", &self.shared.layout.blob(digest), error))
            }
            Ok(bytes) if verify(BlobRef { digest, size }, &bytes).is_ok() => Ok(bytes),
            _ => self.shared.quarantine(digest, &file),
        }
    }

    /// Opens a blob for unverified reading, and returns its size too. Blocks briefly.
    pub fn open_blob(&self, digest: Digest) -> Result<(File, u64), StoreError> {
        let size = self.size(digest).ok_or(StoreError::Missing(digest))?;
        let path = self.shared.layout.blob(digest);
        let file = self.shared.disk.open(&path).map_err(|error| StoreError::io("open", &path, error))?;
        Ok((file, size))
    }

    /// Opens a blob for unverified reading from `offset`, and returns its size too. A large blob bypasses the page cache,
    /// as it did when it was written. Blocks briefly.
    pub fn open_from(&self, digest: Digest, offset: u64) -> Result<(File, u64), StoreError> {
        match self.size(digest) {
            Some(size) if size > SMALL_BYTES_MAX && direct_io::is_aligned(offset) => {
                let path = self.shared.layout.blob(digest);
                let file = self.shared.disk.open_direct(&path);
                Ok((file.map_err(|error| StoreError::io("open", &path, error))?, size))
            }
            _ => self.open_blob(digest),
        }
    }

    /// Records that `term` has begun: orders of older terms are refused from now on.
    pub fn observe_term(&self, term: Term) {
        // An older term changes nothing.
        let _ = self.shared.index().observe(term);
    }

    /// Refuses an order of an older term than the highest seen.
    pub fn check_term(&self, term: Term) -> Result<(), StaleTerm> {
        self.shared.index().observe(term)
    }

    /// Deletes the given blobs, except those used by a put in progress or by an upload at or above `watermark`, and
    /// returns the ones that are no longer stored. Each blob leaves the index as it is checked, and none after the order has
    /// become void: an inventory lists no blob that is being deleted. Blocks.
    pub fn collect(
        &self,
        order: OrderNumber,
        watermark: UploadId,
        digests: Vec<Digest>,
    ) -> Result<Vec<Digest>, StaleTerm> {
        self.check_term(order.term)?;
        self.shared.index().forget_pins(watermark);
        let mut gone = digests;
        gone.retain(|&digest| self.collect_one(order, watermark, digest));
        Ok(gone)
    }

    fn collect_one(&self, order: OrderNumber, watermark: UploadId, digest: Digest) -> bool {
        let _placing = self.shared.placing();
        let size = {
            let mut index = self.shared.index();
            if index.is_void(order) || !index.may_collect(digest, watermark) {
                return false;
            }
            let Some(size) = index.size(digest) else { return true };
            index.remove(digest);
            size
        };
        match self.shared.disk.remove(&self.shared.layout.blob(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%digest, %error, "cannot delete a blob");
                self.shared.index().insert(BlobRef { digest, size });
                false
            }
            _ => true,
        }
    }

    /// At most `limit` digests after `after` in order, and whether more follow. Deletion orders below `void_below` have
    /// no effect from then on.
    pub fn inventory(
        &self,
        void_below: OrderNumber,
        after: Option<Digest>,
        limit: usize,
    ) -> Result<(Vec<Digest>, bool), StaleTerm> {
        let mut index = self.shared.index();
        index.make_void(void_below)?;
        Ok(index.list(after, limit))
    }
}

/// A file of so many bytes, in memory of just that size; of a longer one, one byte more.
fn read_small(file: &File, size: u64) -> io::Result<Bytes> {
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    file.take(size.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}
