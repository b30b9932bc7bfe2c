//! Large blobs, written as they arrive and flushed individually.
//!
//! Writes bypass the page cache where the file system allows it: buffered writes of four copies on one host run at a third
//! to half of the speed.

use std::fs::File;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use idunno_shared::client::files::direct_io::Aligner;
use idunno_shared::ids::Digest;
use idunno_shared::wire::blobs::BlobRef;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::disk::BlobDisk;
use super::{BlobStoreInner, PutGuard, StoreError};
use idunno_shared::crash_points;

const CHUNKS_QUEUED_MAX: usize = 2;

/// A large blob that is being written.
pub struct StreamedPut {
    chunks: mpsc::Sender<Bytes>,
    task: JoinHandle<Result<(), StoreError>>,
}

impl StreamedPut {
    /// Queues the next bytes. Bytes sent after a failure are dropped; [`StreamedPut::done`] returns the error.
    pub async fn send(&self, chunk: Bytes) {
        let _ = self.chunks.send(chunk).await;
    }

    /// Ends the stream, and waits until the blob is durable or has failed.
    pub async fn done(self) -> Result<(), StoreError> {
        drop(self.chunks);
        self.task.await.unwrap_or(Err(StoreError::Closed))
    }
}

pub(super) fn start(guard: PutGuard, blob: BlobRef) -> StreamedPut {
    let (chunks, receiver) = mpsc::channel(CHUNKS_QUEUED_MAX);
    let task = tokio::task::spawn_blocking(move || store(&guard, blob, receiver));
    StreamedPut { chunks, task }
}

fn store(guard: &PutGuard, blob: BlobRef, mut chunks: mpsc::Receiver<Bytes>) -> Result<(), StoreError> {
    let shared = &guard.shared;
    shared.check_health()?;
    if shared.has_intact(blob) {
        receive(blob, &mut chunks, |_| Ok(()))?;
        // It may have been quarantined meanwhile.
        return match shared.index().size(blob.digest) {
            Some(_) => Ok(()),
            None => Err(StoreError::Corrupt(blob.digest)),
        };
    }
    shared.check_space(blob.size)?;
    let temp = shared.layout.temp(blob.digest);
    let stored = write(shared, blob, &temp, &mut chunks).and_then(|()| shared.publish(&temp, blob));
    crash_points::point("blob-in-place");
    if stored.is_err() {
        shared.discard(&temp);
    }
    stored
}

fn write(
    shared: &BlobStoreInner,
    blob: BlobRef,
    temp: &Path,
    chunks: &mut mpsc::Receiver<Bytes>,
) -> Result<(), StoreError> {
    let mut target = DirectFile::create(shared, temp, blob.size)?;
    receive(blob, chunks, |chunk| target.write(chunk))?;
    let file = target.finish(blob.size)?;
    crash_points::point("blob-written");
    let incoming = shared.layout.incoming_handle();
    let flushed = shared.disk.sync(&file).and_then(|()| shared.disk.sync(incoming));
    crash_points::point("blob-flushed");
    flushed.map_err(|error| shared.flush_failed(temp, error))
}

/// Receives and hashes the bytes, and fails unless they match the blob.
fn receive(
    blob: BlobRef,
    chunks: &mut mpsc::Receiver<Bytes>,
    mut take: impl FnMut(&[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut hasher = blake3::Hasher::new();
    while let Some(chunk) = chunks.blocking_recv() {
        hasher.update(&chunk);
        if hasher.count() > blob.size {
            break;
        }
        take(&chunk)?;
    }
    if hasher.count() != blob.size {
        let text = format!("{} bytes of {} arrived", hasher.count(), blob.size);
        return Err(StoreError::Mismatch(text));
    }
    let digest = Digest(*hasher.finalize().as_bytes());
    if digest == blob.digest {
        return Ok(());
    }
    Err(StoreError::Mismatch(format!("the bytes have the digest {digest} instead of {}", blob.digest)))
}

/// A file written with direct I/O.
struct DirectFile<'a> {
    shared: &'a BlobStoreInner,
    path: PathBuf,
    file: File,
    aligner: Aligner,
}

impl<'a> DirectFile<'a> {
    fn create(shared: &'a BlobStoreInner, path: &Path, size: u64) -> Result<Self, StoreError> {
        let created = shared.disk.create_direct(path, size);
        let file = created.map_err(|error| shared.fault("create", path, error))?;
        Ok(Self { shared, path: path.to_owned(), file, aligner: Aligner::default() })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let Self { shared, path, file, aligner } = self;
        aligner.take(bytes, |piece: &[u8]| write_piece(shared, path, file, piece))
    }

    /// Writes the rest padded to the alignment, then truncates the padding.
    fn finish(mut self, size: u64) -> Result<File, StoreError> {
        let Self { shared, path, file, aligner } = &mut self;
        aligner.finish_padded(|piece: &[u8]| write_piece(shared, path, file, piece))?;
        let truncated = self.shared.disk.truncate(&self.file, size);
        truncated.map_err(|error| self.shared.fault("truncate", &self.path, error))?;
        Ok(self.file)
    }
}

fn write_piece(
    shared: &BlobStoreInner,
    path: &Path,
    file: &mut File,
    piece: &[u8],
) -> Result<(), StoreError> {
    shared.disk.write(file, piece).map_err(|error| shared.fault("write", path, error))
}
