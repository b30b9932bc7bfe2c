//! The snapshot, in chunks: neither a transaction nor a message holds the whole.

use std::io::Cursor;
use std::sync::Arc;

use openraft::{RaftSnapshotBuilder, Snapshot, StoredMembership};
use redb::{Database, ReadableDatabase};
use tokio::sync::{Mutex, watch};

use super::writer::{Write, Writer};
use super::{KEY_SNAPSHOT, LogStoreInner, SNAPSHOT_CHUNKS, StoreFault, blocking, encode_row, read_meta};
use crate::config::{LogId, SNAPSHOT_CHUNK_BYTES, SnapshotMeta, StorageError, TypeConfig};
use idunno_core::metadata::{self, State};

/// A snapshot as read from the file.
pub(super) struct StoredSnapshot {
    pub(super) generation: u64,
    pub(super) meta: SnapshotMeta,
    pub(super) bytes: Vec<u8>,
}

/// The last entry of the durable snapshot, and of one that is being installed.
#[derive(Clone, Copy, Default)]
struct SnapshotProgress {
    durable: Option<LogId>,
    installing: Option<LogId>,
    /// Installations in progress: a leader that timed out sends the last chunk again.
    installs: usize,
    failed: bool,
}

/// Writes snapshots, one at a time.
pub(super) struct Snapshots {
    /// The generation written last, complete or not.
    generation: Mutex<u64>,
    progress: watch::Sender<SnapshotProgress>,
}

/// Tracks snapshots that a leader sends.
#[derive(Clone)]
pub(crate) struct InstallTracker {
    progress: watch::Sender<SnapshotProgress>,
}

impl InstallTracker {
    /// Marks a snapshot up to `last` as being installed, until the guard is dropped.
    pub(crate) fn begin(&self, last: Option<LogId>) -> InstallGuard {
        self.progress.send_modify(|progress| {
            progress.installing = progress.installing.max(last);
            progress.installs += 1;
        });
        InstallGuard(self.progress.clone())
    }
}

pub(crate) struct InstallGuard(watch::Sender<SnapshotProgress>);

impl Drop for InstallGuard {
    fn drop(&mut self) {
        self.0.send_modify(|progress| {
            progress.installs -= 1;
            progress.installing = progress.installing.filter(|_| progress.installs > 0);
        });
    }
}

impl Snapshots {
    pub(super) fn new(generation: u64, durable: Option<LogId>) -> (Self, InstallTracker) {
        let progress = watch::Sender::new(SnapshotProgress { durable, ..SnapshotProgress::default() });
        let installs = InstallTracker { progress: progress.clone() };
        (Self { generation: Mutex::new(generation), progress }, installs)
    }

    /// Waits until the entries up to `upto` may be purged. It waits only for a snapshot that is being installed.
    pub(super) async fn wait_until_durable(&self, upto: LogId) -> Result<(), StoreFault> {
        let may_purge =
            |p: &SnapshotProgress| p.failed || p.durable >= Some(upto) || p.installing < Some(upto);
        let fault = |reason: &str| StoreFault::new("purge the metadata log", &reason);
        let mut progress = self.progress.subscribe();
        let progress = progress.wait_for(may_purge).await.map_err(|_closed| fault("the store is closed"))?;
        if progress.failed { Err(fault("its snapshot could not be stored")) } else { Ok(()) }
    }

    /// Durably replaces the last snapshot. An older snapshot is ignored.
    pub(super) async fn save(
        &self,
        writer: &Writer,
        meta: &SnapshotMeta,
        bytes: &[u8],
    ) -> Result<(), StoreFault> {
        let mut generation = self.generation.lock().await;
        if self.progress.borrow().durable > meta.last_log_id {
            return Ok(());
        }
        *generation += 1;
        let saved = write(writer, *generation, meta, bytes).await;
        self.progress.send_modify(|progress| match &saved {
            Ok(()) => progress.durable = meta.last_log_id,
            Err(_) => progress.failed = true,
        });
        saved
    }

    /// Records that a received snapshot was unusable.
    pub(super) fn fail(&self) {
        self.progress.send_modify(|progress| progress.failed = true);
    }
}

async fn write(
    writer: &Writer,
    generation: u64,
    meta: &SnapshotMeta,
    bytes: &[u8],
) -> Result<(), StoreFault> {
    for (number, chunk) in (0..).zip(bytes.chunks(SNAPSHOT_CHUNK_BYTES)) {
        writer.write(Write::SnapshotChunk { generation, number, bytes: chunk.to_vec() }).await?;
    }
    let header = encode_row(&(generation, meta))?;
    writer.write(Write::Snapshot { generation, header }).await
}

/// The snapshot in the file.
pub(super) fn read(database: &Database) -> Result<Option<StoredSnapshot>, StoreFault> {
    let Some((generation, meta)) = read_meta::<(u64, SnapshotMeta)>(database, KEY_SNAPSHOT)? else {
        return Ok(None);
    };
    let bytes = read_chunks(database, generation);
    let bytes = bytes.map_err(|error| StoreFault::new("read the metadata snapshot", &error))?;
    Ok(Some(StoredSnapshot { generation, meta, bytes }))
}

fn read_chunks(database: &Database, generation: u64) -> Result<Vec<u8>, redb::Error> {
    let mut bytes = Vec::new();
    let chunks = database.begin_read()?.open_table(SNAPSHOT_CHUNKS)?;
    for row in chunks.range((generation, 0)..=(generation, u32::MAX))? {
        bytes.extend_from_slice(row?.1.value());
    }
    Ok(bytes)
}

/// The newest snapshot, for a follower.
pub(super) async fn current(shared: &Arc<LogStoreInner>) -> Result<Option<Snapshot<TypeConfig>>, StoreFault> {
    // Held so that a newer snapshot does not delete the chunks after the header was read.
    let _generation = shared.snapshots.generation.lock().await;
    let shared = Arc::clone(shared);
    let stored = blocking(move || read(&shared.database)).await?;
    Ok(stored
        .map(|StoredSnapshot { meta, bytes, .. }| Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) }))
}

/// Builds a snapshot of the state as of its creation.
pub(crate) struct SnapshotBuilder {
    pub(super) shared: Arc<LogStoreInner>,
    pub(super) state: State,
    pub(super) applied: Option<LogId>,
    pub(super) membership: StoredMembership<u64, openraft::EmptyNode>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let state = self.state.clone();
        let bytes = blocking(move || encode_row(&metadata::Snapshot::from(state))).await?;
        let snapshot_id = self.applied.map_or_else(|| "empty".to_owned(), |id| id.to_string());
        let meta =
            SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone(), snapshot_id };
        self.shared.snapshots.save(&self.shared.writer, &meta, &bytes).await?;
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) })
    }
}
