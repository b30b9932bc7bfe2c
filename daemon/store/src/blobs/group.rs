//! The writer thread: small blobs, flushed together.
//!
//! While one group is being flushed the next one queues up; nothing waits for a timer.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use idunno_shared::client::files::connection::verify;
use idunno_shared::wire::blobs::BlobRef;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::disk::BlobDisk;
use super::{BlobStoreInner, GROUP_BLOBS_MAX, GROUP_BYTES_MAX, PutGuard, StoreError};
use idunno_shared::crash_points;

pub(super) struct PutJob {
    pub(super) blob: BlobRef,
    pub(super) bytes: Bytes,
    pub(super) reply: oneshot::Sender<Result<(), StoreError>>,
    pub(super) guard: PutGuard,
    pub(super) _memory: OwnedSemaphorePermit,
}

impl PutJob {
    fn finish(self, result: Result<(), StoreError>) {
        // Before the reply: once a put is answered, only its pin protects the blob.
        drop(self.guard);
        // The caller may be gone; the blob is stored all the same.
        let _ = self.reply.send(result);
    }
}

struct WrittenBlob {
    job: PutJob,
    temp: PathBuf,
    file: File,
}

pub(super) fn spawn(shared: Arc<BlobStoreInner>, mut jobs: mpsc::Receiver<PutJob>) -> io::Result<()> {
    let run = move || {
        while let Some(first) = jobs.blocking_recv() {
            store(&shared, gather(first, &mut jobs));
        }
    };
    std::thread::Builder::new().name(String::from("blob-writer")).spawn(run).map(drop)
}

fn gather(first: PutJob, jobs: &mut mpsc::Receiver<PutJob>) -> Vec<PutJob> {
    let mut bytes = first.bytes.len();
    let mut group = vec![first];
    while group.len() < GROUP_BLOBS_MAX && bytes < GROUP_BYTES_MAX {
        let Ok(job) = jobs.try_recv() else { break };
        bytes += job.bytes.len();
        group.push(job);
    }
    group
}

fn store(shared: &Arc<BlobStoreInner>, group: Vec<PutJob>) {
    let mut written = Vec::with_capacity(group.len());
    for job in group {
        match write_incoming(shared, &job) {
            Ok(Some((temp, file))) => written.push(WrittenBlob { job, temp, file }),
            Ok(None) => job.finish(Ok(())),
            Err(error) => job.finish(Err(error)),
        }
    }
    crash_points::point("blob-written");
    let flushed = flush(shared, &written);
    crash_points::point("blob-flushed");
    for WrittenBlob { job, temp, file } in written {
        drop(file);
        let stored = flushed.clone().and_then(|()| shared.publish(&temp, job.blob));
        if stored.is_err() {
            shared.discard(&temp);
        }
        crash_points::point("blob-in-place");
        job.finish(stored);
    }
}

/// Verifies a blob and writes it to `incoming`; `None` if the store holds it intact already.
fn write_incoming(shared: &BlobStoreInner, job: &PutJob) -> Result<Option<(PathBuf, File)>, StoreError> {
    shared.check_health()?;
    verify(job.blob, &job.bytes).map_err(|error| StoreError::Mismatch(error.to_string()))?;
    debug_assert_eq!(job.guard.digest, job.blob.digest, "the guard is the blob's own");
    if shared.has_intact(job.blob) {
        return Ok(None);
    }
    shared.check_space(job.blob.size)?;
    let temp = shared.layout.temp(job.blob.digest);
    let mut file = shared.disk.create(&temp).map_err(|error| shared.fault("create", &temp, error))?;
    match shared.disk.write(&mut file, &job.bytes) {
        Ok(()) => Ok(Some((temp, file))),
        Err(error) => {
            shared.discard(&temp);
            Err(shared.fault("write", &temp, error))
        }
    }
}

/// One flush for the group: of the file system, or of a lone file and its directory entry.
fn flush(shared: &BlobStoreInner, written: &[WrittenBlob]) -> Result<(), StoreError> {
    let layout = &shared.layout;
    let flushed = match written {
        [] => Ok(()),
        [only] => shared.disk.sync(&only.file).and_then(|()| shared.disk.sync(layout.incoming_handle())),
        _ => shared.disk.sync_file_system(layout.incoming_handle()),
    };
    flushed.map_err(|error| shared.flush_failed(layout.incoming(), error))
}

impl BlobStoreInner {
    /// Deletes an unfinished file. One that cannot be deleted now is deleted at the next start.
    pub(super) fn discard(&self, temp: &Path) {
        if let Err(error) = self.disk.remove(temp) {
            tracing::warn!(path = %temp.display(), %error, "cannot delete an unfinished blob");
        }
    }
}
