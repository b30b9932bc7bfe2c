//! The snapshot: in pieces, so that neither a transaction nor a message holds the whole.

use std::io::Cursor;
use std::sync::Arc;

use openraft::{RaftSnapshotBuilder, Snapshot, StoredMembership};
use redb::{Database, ReadableDatabase};
use tokio::sync::{Mutex, watch};

use super::writer::{Write, Writer};
use super::{KEY_SNAPSHOT, PIECES, Shared, StoreFault, blocking, encode_row, read_meta};
use crate::config::{LogId, SNAPSHOT_PIECE_BYTES, SnapshotMeta, StorageError, TypeConfig};
use idunno_core::metadata::{self, State};

/// A snapshot as read from the file.
pub(super) struct Stored {
    pub(super) generation: u64,
    pub(super) meta: SnapshotMeta,
    pub(super) bytes: Vec<u8>,
}

/// How far the durable snapshot goes, and how far one goes that is about to be installed.
#[derive(Clone, Copy, Default)]
struct Progress {
    durable: Option<LogId>,
    installing: Option<LogId>,
    /// How many are being installed: a leader that waits no longer sends the last piece again.
    installs: usize,
    failed: bool,
}

/// Writing snapshots, one at a time.
pub(super) struct Snapshots {
    /// The generation written last, finished or not.
    generation: Mutex<u64>,
    progress: watch::Sender<Progress>,
}

/// Announces snapshots that come in from a leader.
#[derive(Clone)]
pub(crate) struct Install {
    progress: watch::Sender<Progress>,
}

impl Install {
    /// From here to the drop of the guard, a snapshot up to `last` is being installed.
    pub(crate) fn announce(&self, last: Option<LogId>) -> Installing {
        self.progress.send_modify(|progress| {
            progress.installing = progress.installing.max(last);
            progress.installs += 1;
        });
        Installing(self.progress.clone())
    }
}

/// A snapshot is being installed.
pub(crate) struct Installing(watch::Sender<Progress>);

impl Drop for Installing {
    fn drop(&mut self) {
        self.0.send_modify(|progress| {
            progress.installs -= 1;
            progress.installing = progress.installing.filter(|_| progress.installs > 0);
        });
    }
}

impl Snapshots {
    pub(super) fn new(generation: u64, durable: Option<LogId>) -> (Self, Install) {
        let progress = watch::Sender::new(Progress { durable, ..Progress::default() });
        let install = Install { progress: progress.clone() };
        (Self { generation: Mutex::new(generation), progress }, install)
    }

    /// Returns when the entries up to `upto` may go. It waits only for a snapshot that is being installed.
    pub(super) async fn wait_until_durable(&self, upto: LogId) -> Result<(), StoreFault> {
        let may_go = |p: &Progress| p.failed || p.durable >= Some(upto) || p.installing < Some(upto);
        let fault = |reason: &str| StoreFault::new("purge the metadata log", &reason);
        let mut progress = self.progress.subscribe();
        let progress = progress.wait_for(may_go).await.map_err(|_closed| fault("the store is closed"))?;
        if progress.failed { Err(fault("its snapshot was not stored")) } else { Ok(()) }
    }

    /// Makes a snapshot durable in the place of the last one. An older one than that is not stored.
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

    /// A snapshot came in and was not usable.
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
    for (number, piece) in (0..).zip(bytes.chunks(SNAPSHOT_PIECE_BYTES)) {
        writer.write(Write::Piece { generation, number, bytes: piece.to_vec() }).await?;
    }
    let header = encode_row(&(generation, meta))?;
    writer.write(Write::Snapshot { generation, header }).await
}

/// The snapshot in the file.
pub(super) fn read(database: &Database) -> Result<Option<Stored>, StoreFault> {
    let Some((generation, meta)) = read_meta::<(u64, SnapshotMeta)>(database, KEY_SNAPSHOT)? else {
        return Ok(None);
    };
    let collect = || -> Result<Vec<u8>, redb::Error> {
        let mut bytes = Vec::new();
        let pieces = database.begin_read()?.open_table(PIECES)?;
        for row in pieces.range((generation, 0)..=(generation, u32::MAX))? {
            bytes.extend_from_slice(row?.1.value());
        }
        Ok(bytes)
    };
    let bytes = collect().map_err(|error| StoreFault::new("read the metadata snapshot", &error))?;
    Ok(Some(Stored { generation, meta, bytes }))
}

/// The newest snapshot, for a follower.
pub(super) async fn current(shared: &Arc<Shared>) -> Result<Option<Snapshot<TypeConfig>>, StoreFault> {
    // Held, so that a newer one does not take away the pieces between its header and them.
    let _generation = shared.snapshots.generation.lock().await;
    let shared = Arc::clone(shared);
    let stored = blocking(move || read(&shared.database)).await?;
    Ok(stored.map(|Stored { meta, bytes, .. }| Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) }))
}

/// Builds a snapshot of the state as it was when this was made.
pub(crate) struct Builder {
    pub(super) shared: Arc<Shared>,
    pub(super) state: State,
    pub(super) applied: Option<LogId>,
    pub(super) membership: StoredMembership<u64, openraft::EmptyNode>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
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
