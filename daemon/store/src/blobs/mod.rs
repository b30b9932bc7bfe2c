//! Blobs as plain files named by their digest.
//!
//! Decides when a blob is durable, and whether one may be deleted. Source: the design, section 7; group commit as in
//! Haystack and RustFS' lessons (handbook, storage, sections 4 and 9).
//!
//! Layout: `blobs/ab/<62 hex digits>`, `incoming/<digest>.<n>` while being written, `corrupt/<digest>` for what was
//! found to be damaged. A blob is written to `incoming`, verified, flushed there (file and directory entry), renamed,
//! acknowledged. The rename may be lost in a power cut, the file in `incoming` cannot: start-up moves it into place.
//!
//! Invariants: what is acknowledged is flushed and has its digest, also where it was there before; a file under `blobs`
//! was flushed before it came there; a blob is not deleted while a put of it is in progress, or while its pin is at or
//! above the watermark; a flush that failed is never repeated, and nothing is accepted after one; blobs leave the reserve
//! of the disk to the metadata log.
//!
//! Bounds: groups of at most [`GROUP_BLOBS_MAX`] blobs or [`GROUP_BYTES_MAX`]; at most [`QUEUED_BYTES_MAX`] of small
//! blobs in memory; a large blob holds at most 4 MiB. The index holds about 100 bytes a blob in memory (100 MB for
//! a million blobs). Pins and the highest term are in memory only: pins because the coordinator collects nothing here
//! while an upload older than this process lives; the term because the shell feeds it what consensus has made durable
//! ([`BlobStore::observe_term`]).
//!
//! It does not know who else holds a blob, and deletes only when ordered to.

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

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use idunno_shared::client::files::connection::verify;
use idunno_shared::client::files::direct_io;
use idunno_shared::ids::{Digest, Term, UploadId};
use idunno_shared::wire::blobs::BlobRef;
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::disk::{Disk, RealDisk};
use self::group::Job;
use self::health::is_device_fault;
use self::index::Index;
pub use self::large::StreamedPut;
use self::layout::Layout;

/// Most blobs that are flushed together.
pub const GROUP_BLOBS_MAX: usize = 128;
/// Most bytes that are flushed together, but for the last blob of a group.
pub const GROUP_BYTES_MAX: usize = 4 << 20;
/// Largest blob that is held in memory and flushed with others, in bytes.
pub const SMALL_BYTES_MAX: u64 = 1 << 20;
/// Bytes of small blobs that wait in memory for the disk.
pub const QUEUED_BYTES_MAX: usize = 64 << 20;
/// What blobs leave free of a disk unless told otherwise, in bytes.
pub const RESERVE_BYTES: u64 = 256 << 20;
const QUEUED_BLOBS_MAX: usize = 256;

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// The file system has no room. The blob is not stored.
    #[error("the disk is full, but for the reserve that is kept: free space under {}", path.display())]
    Full {
        /// The file being written.
        path: PathBuf,
    },
    /// The file system failed. The blob is not stored.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The fault.
        source: Arc<io::Error>,
    },
    /// The bytes are not those of the blob. Nothing was stored.
    #[error("{0}")]
    Mismatch(String),
    /// A flush failed before: what the disk holds is uncertain, so it takes nothing any more.
    #[error("this member's disk failed, it stores nothing until it is restarted: {0}")]
    Unhealthy(String),
    /// The blob is not here.
    #[error("blob {0} is not here")]
    Missing(Digest),
    /// The blob was here, damaged. It was moved aside.
    #[error("blob {0} was damaged on disk and is moved aside")]
    Corrupt(Digest),
    /// The store is shutting down.
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

/// An order to delete: its number in the term of the coordinator that gives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct OrderNumber {
    /// The coordinator's term.
    pub term: Term,
    /// Rises within the term.
    pub number: u64,
}

/// The order bears an older term than one already seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the order is of term {ordered}, term {seen} has begun")]
pub struct StaleTerm {
    /// The order's term.
    pub ordered: Term,
    /// The highest one seen.
    pub seen: Term,
}

/// The blobs of one data directory. Cheap to clone; the writer thread ends with the last clone.
#[derive(Clone)]
pub struct BlobStore {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Job>,
    budget: Arc<Semaphore>,
}

struct Shared {
    layout: Layout,
    disk: Box<dyn Disk>,
    index: Mutex<Index>,
    unhealthy: OnceLock<String>,
    reserve_bytes: u64,
    /// Blobs given up since the start.
    damaged: AtomicU64,
}

impl Shared {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves a flushed file into place and makes it known, in one step: what is given up meanwhile must be the old file.
    /// The guard keeps collection away.
    fn publish(&self, temp: &Path, blob: BlobRef) -> Result<(), StoreError> {
        let target = self.layout.blob(blob.digest);
        let mut index = self.index();
        std::fs::rename(temp, &target).map_err(|error| self.fault("rename to", &target, error))?;
        index.insert(blob);
        Ok(())
    }
}

/// A put in progress: the blob is not collected until this is dropped.
struct PutGuard {
    shared: Arc<Shared>,
    digest: Digest,
}

impl PutGuard {
    fn new(shared: &Arc<Shared>, digest: Digest, upload: Option<UploadId>) -> Self {
        shared.index().begin(digest, upload);
        Self { shared: Arc::clone(shared), digest }
    }
}

impl Drop for PutGuard {
    fn drop(&mut self) {
        self.shared.index().end(self.digest);
    }
}

/// A put whose bytes were handed over.
pub struct PendingStore(oneshot::Receiver<Result<(), StoreError>>);

impl PendingStore {
    /// Waits until the blob is durable, or failed.
    pub async fn done(self) -> Result<(), StoreError> {
        self.0.await.unwrap_or(Err(StoreError::Closed))
    }
}

impl BlobStore {
    /// Opens the store under `root`, recovers what a crash left behind and reads the list of blobs. What would leave
    /// less than `reserve_bytes` of the disk free is refused from then on. Blocks.
    pub fn open(root: &Path, reserve_bytes: u64) -> Result<Self, StoreError> {
        Self::open_on(root, reserve_bytes, Box::new(RealDisk))
    }

    pub(crate) fn open_on(root: &Path, reserve_bytes: u64, disk: Box<dyn Disk>) -> Result<Self, StoreError> {
        let layout = Layout::open(root)?;
        layout.recover(disk.as_ref())?;
        let (index, unhealthy, damaged) = (Mutex::new(layout.scan()?), OnceLock::new(), AtomicU64::new(0));
        let shared = Arc::new(Shared { layout, disk, index, unhealthy, reserve_bytes, damaged });
        let (queue, jobs) = mpsc::channel(QUEUED_BLOBS_MAX);
        group::spawn(Arc::clone(&shared), jobs)
            .map_err(|error| StoreError::io("start the writer thread of", root, error))?;
        Ok(Self { shared, queue, budget: Arc::new(Semaphore::new(QUEUED_BYTES_MAX)) })
    }

    /// Waits for room in memory, then hands a small blob over to be stored with others. `upload` pins it.
    ///
    /// # Errors
    /// [`StoreError::Closed`] when the writer is gone; all else comes from [`PendingStore::done`].
    pub async fn start_put(
        &self,
        blob: BlobRef,
        upload: Option<UploadId>,
        bytes: Bytes,
    ) -> Result<PendingStore, StoreError> {
        let permits = u32::try_from(bytes.len().min(QUEUED_BYTES_MAX)).unwrap_or(u32::MAX);
        let room =
            Arc::clone(&self.budget).acquire_many_owned(permits).await.map_err(|_| StoreError::Closed)?;
        let guard = PutGuard::new(&self.shared, blob.digest, upload);
        let (answer, done) = oneshot::channel();
        let job = Job { blob, bytes, answer, guard, _room: room };
        self.queue.send(job).await.map_err(|_| StoreError::Closed)?;
        Ok(PendingStore(done))
    }

    /// Starts to store a large blob, whose bytes are still to come. Must be called within a runtime.
    pub fn stream_put(&self, blob: BlobRef, upload: Option<UploadId>) -> StreamedPut {
        large::start(PutGuard::new(&self.shared, blob.digest, upload), blob)
    }

    /// Whether the blob is here.
    pub fn contains(&self, digest: Digest) -> bool {
        self.shared.index().size(digest).is_some()
    }

    /// The blob's size in bytes, if it is here.
    pub fn size(&self, digest: Digest) -> Option<u64> {
        self.shared.index().size(digest)
    }

    /// Blobs here and their bytes.
    pub fn totals(&self) -> (u64, u64) {
        self.shared.index().totals()
    }

    /// Bytes that blobs may still take here: none of a disk that failed or is read-only. Blocks shortly.
    pub fn usable_bytes(&self) -> u64 {
        self.shared.usable_bytes()
    }

    /// Blobs that were found damaged and given up since the start.
    pub fn damaged(&self) -> u64 {
        self.shared.damaged.load(Ordering::Relaxed)
    }

    /// The first blob above `after` in the order of digests, and its size.
    pub fn next(&self, after: Option<Digest>) -> Option<(Digest, u64)> {
        self.shared.index().next(after)
    }

    /// The data directory.
    pub fn root(&self) -> &Path {
        self.shared.layout.root()
    }

    /// Reads a blob from the disk itself, past the page cache; one that is damaged is moved aside. Answers its size.
    /// Blocks.
    pub fn check(&self, digest: Digest) -> Result<u64, StoreError> {
        self.shared.check(digest)
    }

    /// Reads a whole small blob and verifies it; one that is damaged is moved aside. Blocks.
    pub fn read(&self, digest: Digest) -> Result<Bytes, StoreError> {
        let (file, size) = self.open_blob(digest)?;
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        match (&file).take(size.saturating_add(1)).read_to_end(&mut bytes) {
            Err(error) if !is_device_fault(&error) => {
                Err(StoreError::io("read", &self.shared.layout.blob(digest), error))
            }
            Ok(_) if verify(BlobRef { digest, size }, &bytes).is_ok() => Ok(bytes.into()),
            _ => self.shared.give_up(digest, &file),
        }
    }

    /// Opens a blob to be read, with its size. What is read is not verified. Blocks shortly.
    pub fn open_blob(&self, digest: Digest) -> Result<(File, u64), StoreError> {
        let size = self.size(digest).ok_or(StoreError::Missing(digest))?;
        let path = self.shared.layout.blob(digest);
        let file = File::open(&path).map_err(|error| StoreError::io("open", &path, error))?;
        Ok((file, size))
    }

    /// Opens a blob to be read from `offset` on, with its size: a large one past the page cache, which it came by too.
    /// What is read is not verified. Blocks shortly.
    pub fn open_from(&self, digest: Digest, offset: u64) -> Result<(File, u64), StoreError> {
        match self.size(digest) {
            Some(size) if size > SMALL_BYTES_MAX && direct_io::is_aligned(offset) => {
                let path = self.shared.layout.blob(digest);
                let file = direct_io::open(File::options().read(true), &path);
                Ok((file.map_err(|error| StoreError::io("open", &path, error))?, size))
            }
            _ => self.open_blob(digest),
        }
    }

    /// Notes that a coordinator of `term` exists: orders of older terms are refused from now on.
    pub fn observe_term(&self, term: Term) {
        // One that is older changes nothing.
        let _ = self.shared.index().observe(term);
    }

    /// Refuses an order of an older term than one seen before.
    pub fn check_term(&self, term: Term) -> Result<(), StaleTerm> {
        self.shared.index().observe(term)
    }

    /// Deletes the given blobs, but for those that a put in progress or an upload at or above `watermark` touches.
    /// Answers which are not here any more. Blocks; each blob is decided and deleted in one step, and none once the
    /// order has become void.
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
        let mut index = self.shared.index();
        if index.is_void(order) || !index.may_collect(digest, watermark) {
            return false;
        }
        if index.size(digest).is_none() {
            return true;
        }
        match std::fs::remove_file(self.shared.layout.blob(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%digest, %error, "cannot delete a blob");
                false
            }
            _ => {
                index.remove(digest);
                true
            }
        }
    }

    /// At most `limit` digests above `after` in order, and whether more follow. No order below `void_below` deletes
    /// anything from then on.
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
