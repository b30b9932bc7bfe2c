//! The one thread that writes the store.
//!
//! It groups the queued writes into one transaction, commits that with `Durability::Immediate`, and only then completes
//! each write, in order. The committed position is written with the next transaction, or alone after [`COMMITTED_DELAY`]
//! without one: it only saves a replay from the peers after a restart.
//! Bounds: [`QUEUE_MAX`] queued writes, [`GROUP_MAX`] in a transaction. Each of the callers (log, state machine,
//! snapshot builder, receiver of a snapshot) awaits its write before the next, so the queue is never full.
//! After the first failure every further write fails: no write may be reported durable after a lost one.

use std::path::Path;
#[cfg(debug_assertions)]
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redb::{Database, Durability, ReadableTable};
use tokio::sync::oneshot;

use super::tables::{
    KEY_COMMITTED, KEY_PURGED, KEY_SNAPSHOT, KEY_VOTE, LOG, LogId, META, MetaTable, SNAPSHOT_CHUNKS,
    SnapshotHeader, StoreFault, encode_row, locked,
};
use idunno_shared::crash_points;

const QUEUE_MAX: usize = 64;
const GROUP_MAX: usize = 32;
const COMMITTED_DELAY: Duration = Duration::from_millis(50);

/// A change of the file, with encoded values.
pub(crate) enum Write {
    Vote(Vec<u8>),
    Append(Vec<(u64, Vec<u8>)>),
    /// Deletes the entries from this index on.
    Truncate(u64),
    /// Deletes the entries up to this index, and records its id.
    Purge {
        upto: u64,
        id: Vec<u8>,
    },
    SnapshotChunk {
        generation: u64,
        number: u32,
        bytes: Vec<u8>,
    },
    /// Makes a complete snapshot the durable one.
    Snapshot {
        header: Vec<u8>,
    },
    /// Deletes the rows of a snapshot that nobody reads any more, unless it is the durable one.
    DropSnapshot(u64),
    /// The committed position has moved.
    Committed,
}

/// Who is notified when a write is durable.
enum Completion {
    Caller(oneshot::Sender<Result<(), StoreFault>>),
    Log(Box<dyn FnOnce(Result<(), StoreFault>) + Send>),
    Nobody,
}

struct WriteRequest {
    write: Write,
    done: Completion,
}

/// How far the log is committed, and whether that has yet to be written.
struct CommittedMarker {
    id: Option<LogId>,
    dirty: bool,
}

/// A handle of the writer thread, which ends when all handles are dropped.
#[derive(Clone)]
pub(crate) struct Writer {
    committed: Arc<Mutex<CommittedMarker>>,
    queue: SyncSender<WriteRequest>,
}

impl Writer {
    /// Starts the thread. It fires `closed` once it has released the file.
    pub(crate) fn spawn(
        path: &Path,
        database: Arc<Database>,
        committed: Option<LogId>,
        closed: oneshot::Sender<()>,
    ) -> std::io::Result<Self> {
        let (queue, requests) = sync_channel(QUEUE_MAX);
        let committed = Arc::new(Mutex::new(CommittedMarker { id: committed, dirty: false }));
        #[cfg(not(debug_assertions))]
        let _ = path;
        let mut thread = WriterThread {
            database,
            requests,
            committed: Arc::clone(&committed),
            failed: None,
            #[cfg(debug_assertions)]
            faults: FaultInjection::beside(path),
        };
        std::thread::Builder::new().name("metadata-writer".to_owned()).spawn(move || {
            thread.run();
            drop(thread);
            // Nobody may be waiting for it.
            closed.send(()).ok();
        })?;
        Ok(Self { committed, queue })
    }

    /// Writes, and returns when it is durable.
    pub(crate) async fn write(&self, write: Write) -> Result<(), StoreFault> {
        let (sender, receiver) = oneshot::channel();
        self.send(WriteRequest { write, done: Completion::Caller(sender) })?;
        receiver
            .await
            .unwrap_or_else(|_closed| Err(StoreFault::new("write the metadata", &"the writer has ended")))
    }

    /// Appends entries. The writer calls `done` when they are durable, or failed: it must not block.
    pub(crate) fn append(
        &self,
        rows: Vec<(u64, Vec<u8>)>,
        done: impl FnOnce(Result<(), StoreFault>) + Send + 'static,
    ) -> Result<(), StoreFault> {
        self.send(WriteRequest { write: Write::Append(rows), done: Completion::Log(Box::new(done)) })
    }

    /// Records how far the log is committed; written with the next write or shortly after.
    pub(crate) fn record_committed(&self, committed: Option<LogId>) {
        *locked(&self.committed) = CommittedMarker { id: committed, dirty: true };
        // With a full queue the writer is busy, and will see the marker with the next write.
        self.queue.try_send(WriteRequest { write: Write::Committed, done: Completion::Nobody }).ok();
    }

    /// Deletes a snapshot's rows some time. With a full queue they stay until the store is opened again.
    pub(crate) fn drop_snapshot(&self, generation: u64) {
        let request = WriteRequest { write: Write::DropSnapshot(generation), done: Completion::Nobody };
        self.queue.try_send(request).ok();
    }

    /// How far the log is committed: as last recorded, or as read from the file.
    pub(crate) fn committed_id(&self) -> Option<LogId> {
        locked(&self.committed).id
    }

    fn send(&self, request: WriteRequest) -> Result<(), StoreFault> {
        self.queue.try_send(request).map_err(|error| {
            let reason = match error {
                TrySendError::Full(_) => "too many writes are queued",
                TrySendError::Disconnected(_) => "the writer has ended",
            };
            StoreFault::new("write the metadata", &reason)
        })
    }
}

struct WriterThread {
    database: Arc<Database>,
    requests: Receiver<WriteRequest>,
    committed: Arc<Mutex<CommittedMarker>>,
    failed: Option<StoreFault>,
    #[cfg(debug_assertions)]
    faults: FaultInjection,
}

impl WriterThread {
    fn run(&mut self) {
        let mut flush_at: Option<Instant> = None;
        loop {
            let first = match flush_at {
                None => self.requests.recv().map_err(|_closed| RecvTimeoutError::Disconnected),
                Some(at) => self.requests.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match first {
                Ok(WriteRequest { write: Write::Committed, .. }) => {
                    flush_at.get_or_insert_with(|| Instant::now() + COMMITTED_DELAY);
                }
                Ok(first) => {
                    let rest = self.requests.try_iter().take(GROUP_MAX - 1);
                    let group: Vec<_> = std::iter::once(first).chain(rest).collect();
                    self.commit(group);
                    flush_at = None;
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.commit(Vec::new());
                    flush_at = None;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    if flush_at.is_some() {
                        self.commit(Vec::new());
                    }
                    return;
                }
            }
        }
    }

    /// Makes the group durable, then completes its writes.
    fn commit(&mut self, group: Vec<WriteRequest>) {
        let committed = {
            let mut committed = locked(&self.committed);
            let dirty = std::mem::take(&mut committed.dirty);
            committed.id.filter(|_| dirty)
        };
        let result = match &self.failed {
            Some(fault) => Err(fault.clone()),
            None => self.store(&group, committed),
        };
        if let Err(fault) = &result {
            tracing::error!(%fault, "the metadata store failed");
            self.failed = Some(fault.clone());
        }
        for WriteRequest { done, .. } in group {
            match done {
                // The caller may have been dropped.
                Completion::Caller(sender) => drop(sender.send(result.clone())),
                Completion::Log(done) => done(result.clone()),
                Completion::Nobody => {}
            }
        }
    }

    fn store(&self, group: &[WriteRequest], committed: Option<LogId>) -> Result<(), StoreFault> {
        #[cfg(debug_assertions)]
        self.faults.check()?;
        let committed = committed.map(|id| encode_row(&id)).transpose()?;
        self.transact(group, committed.as_deref())
            .map_err(|error| StoreFault::new("write the metadata", &error))
    }

    fn transact(&self, group: &[WriteRequest], committed: Option<&[u8]>) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut meta = transaction.open_table(META)?;
            let mut log = transaction.open_table(LOG)?;
            let mut chunks = transaction.open_table(SNAPSHOT_CHUNKS)?;
            if let Some(committed) = committed {
                meta.insert(KEY_COMMITTED, committed)?;
            }
            for WriteRequest { write, .. } in group {
                match write {
                    Write::Vote(vote) => drop(meta.insert(KEY_VOTE, vote.as_slice())?),
                    Write::Append(rows) => {
                        for (index, row) in rows {
                            log.insert(index, row.as_slice())?;
                        }
                    }
                    Write::Truncate(from) => log.retain_in(*from.., |_, _| false)?,
                    Write::Purge { upto, id } => {
                        log.retain_in(..=*upto, |_, _| false)?;
                        meta.insert(KEY_PURGED, id.as_slice())?;
                    }
                    Write::SnapshotChunk { generation, number, bytes } => {
                        chunks.insert((*generation, *number), bytes.as_slice())?;
                    }
                    Write::Snapshot { header } => drop(meta.insert(KEY_SNAPSHOT, header.as_slice())?),
                    Write::DropSnapshot(generation) => {
                        if may_drop_snapshot(&meta, *generation)? {
                            chunks.retain_in((*generation, 0)..=(*generation, u32::MAX), |_, _| false)?;
                        }
                    }
                    Write::Committed => {}
                }
            }
        }
        crash_points::point("log-written");
        transaction.commit()?;
        crash_points::point("log-flushed");
        Ok(())
    }
}

/// Whether the durable snapshot is another one. Whoever completed this one may have been dropped before it knew so.
fn may_drop_snapshot(meta: &MetaTable<'_>, generation: u64) -> Result<bool, redb::Error> {
    let durable = meta.get(KEY_SNAPSHOT)?.map(|header| SnapshotHeader::generation_of(header.value()));
    Ok(durable.is_none_or(|durable| durable.is_some_and(|other| other != generation)))
}

/// Disk faults on demand, for tests of real processes: a file beside the store makes its writes hang
/// (`metadata.redb.hang`) or fail (`metadata.redb.fail`) while it exists. Not compiled into release builds.
#[cfg(debug_assertions)]
struct FaultInjection {
    hang: PathBuf,
    fail: PathBuf,
}

#[cfg(debug_assertions)]
impl FaultInjection {
    const POLL: Duration = Duration::from_millis(20);

    fn beside(store: &Path) -> Self {
        Self { hang: store.with_extension("redb.hang"), fail: store.with_extension("redb.fail") }
    }

    fn check(&self) -> Result<(), StoreFault> {
        while self.hang.exists() {
            std::thread::sleep(Self::POLL);
        }
        if self.fail.exists() {
            return Err(StoreFault::new("write the metadata", &"a test makes it fail"));
        }
        Ok(())
    }
}
