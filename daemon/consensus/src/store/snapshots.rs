//! Which snapshot is the durable one, and when the next is due.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as SyncMutex};

use redb::Database;
use tokio::sync::{Mutex, watch};

use crate::file::snapshot_rows::SnapshotData;
use crate::file::tables::{LogId, SnapshotHeader, SnapshotMeta, StoreFault, encode_row, locked};
use crate::file::writer::{Write, Writer};

/// A durable snapshot.
#[derive(Clone)]
pub(super) struct StoredSnapshot {
    pub(super) meta: SnapshotMeta,
    pub(super) data: SnapshotData,
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

/// How much log has been written since the last snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LogGrowth {
    /// Bytes of entries appended since the store was opened, and of those that the durable snapshot did not cover then.
    appended: u64,
    /// What `appended` was when the last snapshot was begun.
    at_snapshot: u64,
    /// Size of the last snapshot.
    snapshot_bytes: u64,
    /// Snapshots completed since the store was opened.
    pub(crate) snapshots: u64,
}

impl LogGrowth {
    /// Whether as much log has been written since the last snapshot as a snapshot takes, and `bytes_min`. So snapshots at
    /// most double what is written, and a restart replays no more log than it reads snapshot.
    pub(crate) fn is_due(&self, bytes_min: u64) -> bool {
        self.appended - self.at_snapshot >= self.snapshot_bytes.max(bytes_min)
    }
}

/// Completes snapshots, one at a time.
pub(super) struct Snapshots {
    /// The number that the last snapshot was given, complete or not.
    generation: AtomicU64,
    /// Held for a moment only: nobody who reads a snapshot waits for one that is being written.
    newest: SyncMutex<Option<StoredSnapshot>>,
    completing: Mutex<()>,
    progress: watch::Sender<SnapshotProgress>,
    growth: watch::Sender<LogGrowth>,
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

    /// Whether a durable snapshot holds all entries up to `last`.
    pub(crate) fn is_durable(&self, last: Option<LogId>) -> bool {
        self.progress.borrow().durable >= last
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
    /// `log_bytes` of entries are in the file behind the stored snapshot.
    pub(super) fn new(stored: Option<StoredSnapshot>, log_bytes: u64) -> (Self, InstallTracker) {
        let durable = stored.as_ref().and_then(|stored| stored.meta.last_log_id);
        let progress = watch::Sender::new(SnapshotProgress { durable, ..SnapshotProgress::default() });
        let installs = InstallTracker { progress: progress.clone() };
        let growth = LogGrowth {
            appended: log_bytes,
            snapshot_bytes: stored.as_ref().map_or(0, |stored| stored.data.bytes()),
            ..LogGrowth::default()
        };
        let snapshots = Self {
            generation: AtomicU64::new(stored.as_ref().map_or(0, |stored| stored.data.generation())),
            newest: SyncMutex::new(stored),
            completing: Mutex::new(()),
            progress,
            growth: watch::Sender::new(growth),
        };
        (snapshots, installs)
    }

    /// A new snapshot without rows.
    pub(super) fn begin(&self, database: &Arc<Database>, writer: &Writer) -> SnapshotData {
        let number = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        SnapshotData::new(number, database, writer)
    }

    /// The newest durable snapshot.
    pub(super) fn newest(&self) -> Option<StoredSnapshot> {
        locked(&self.newest).clone()
    }

    pub(super) fn record_appended(&self, bytes: u64) {
        self.growth.send_modify(|growth| growth.appended += bytes);
    }

    /// Bytes of log appended so far, for [`Self::complete`].
    pub(super) fn appended(&self) -> u64 {
        self.growth.borrow().appended
    }

    pub(super) fn growth(&self) -> watch::Receiver<LogGrowth> {
        self.growth.subscribe()
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

    /// Durably replaces the newest snapshot by one whose rows are durable, and which was begun when `appended` bytes of
    /// log had been written. An older snapshot is ignored.
    pub(super) async fn complete(
        &self,
        writer: &Writer,
        snapshot: StoredSnapshot,
        appended: u64,
    ) -> Result<(), StoreFault> {
        let _completing = self.completing.lock().await;
        let (last, snapshot_bytes) = (snapshot.meta.last_log_id, snapshot.data.bytes());
        if self.progress.borrow().durable <= last {
            let header =
                SnapshotHeader { generation: snapshot.data.generation(), meta: snapshot.meta.clone() };
            writer.write(Write::Snapshot { header: encode_row(&header)? }).await?;
            let _older = locked(&self.newest).replace(snapshot);
            self.progress.send_modify(|progress| progress.durable = last);
            self.growth.send_modify(|growth| {
                *growth = LogGrowth { at_snapshot: appended, snapshot_bytes, ..*growth };
            });
        }
        self.growth.send_modify(|growth| growth.snapshots += 1);
        Ok(())
    }

    /// Records that a snapshot could not be stored, or that a received one was unusable.
    pub(super) fn fail(&self) {
        self.progress.send_modify(|progress| progress.failed = true);
    }
}
