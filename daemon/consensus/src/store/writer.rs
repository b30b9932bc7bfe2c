//! The one thread that writes the store.
//!
//! It gathers what waits into one transaction, commits that with `Durability::Immediate`, and only then reports each
//! write done, in order. How far the log is committed is written along with the next transaction, or by itself
//! after [`COMMITTED_DELAY`] of quiet: it only saves replaying from the others after a restart.
//! Bounds: [`QUEUE_MAX`] waiting writes, [`GROUP_MAX`] in a transaction. Whoever writes awaits it before the next, and
//! there are three such callers (log, state machine, snapshot builder), so the queue is never full.
//! After the first failure every further write fails: nothing may be reported done behind a lost write.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use openraft::storage::LogFlushed;
use redb::{Database, Durability};
use tokio::sync::oneshot;

use super::index::LogIndex;
use super::{
    KEY_COMMITTED, KEY_PURGED, KEY_SNAPSHOT, KEY_VOTE, LOG, META, PIECES, StoreFault, encode_row, locked,
};
use crate::config::{LogId, TypeConfig};
use idunno_shared::crash_points;

const QUEUE_MAX: usize = 64;
const GROUP_MAX: usize = 32;
const COMMITTED_DELAY: Duration = Duration::from_millis(50);

/// A change of the file. Values are encoded already.
pub(super) enum Write {
    Vote(Vec<u8>),
    Append(Vec<(u64, Vec<u8>)>),
    /// Removes the entries from this one on.
    Truncate(u64),
    /// Removes the entries up to this one, and remembers its id.
    Purge {
        upto: u64,
        id: Vec<u8>,
    },
    Piece {
        generation: u64,
        number: u32,
        bytes: Vec<u8>,
    },
    /// The snapshot of this generation is complete: it replaces all others.
    Snapshot {
        generation: u64,
        header: Vec<u8>,
    },
    /// The committed position has moved.
    Committed,
}

/// Whom to tell when a write is durable.
enum Done {
    Caller(oneshot::Sender<Result<(), StoreFault>>),
    Log { callback: LogFlushed<TypeConfig>, last: u64 },
    Nobody,
}

struct Request {
    write: Write,
    done: Done,
}

/// How far the log is committed, and whether that is yet to be written.
struct Committed {
    id: Option<LogId>,
    dirty: bool,
}

/// The way to the writer's thread, which ends with the last of these.
pub(super) struct Writer {
    committed: Arc<Mutex<Committed>>,
    queue: SyncSender<Request>,
}

impl Writer {
    /// Starts the thread; it fires `closed` when it has released the file.
    pub(super) fn spawn(
        path: &Path,
        database: Arc<Database>,
        index: Arc<Mutex<LogIndex>>,
        committed: Option<LogId>,
        closed: oneshot::Sender<()>,
    ) -> std::io::Result<Self> {
        let (queue, requests) = sync_channel(QUEUE_MAX);
        let committed = Arc::new(Mutex::new(Committed { id: committed, dirty: false }));
        #[cfg(not(debug_assertions))]
        let _ = path;
        let mut thread = Thread {
            database,
            index,
            requests,
            committed: Arc::clone(&committed),
            failed: None,
            #[cfg(debug_assertions)]
            faults: super::faults::Faults::beside(path),
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
    pub(super) async fn write(&self, write: Write) -> Result<(), StoreFault> {
        let (sender, receiver) = oneshot::channel();
        self.send(Request { write, done: Done::Caller(sender) })?;
        receiver
            .await
            .unwrap_or_else(|_closed| Err(StoreFault::new("write the metadata", &"the writer has ended")))
    }

    /// Appends entries; `callback` fires when they are durable.
    pub(super) fn append(
        &self,
        rows: Vec<(u64, Vec<u8>)>,
        last: u64,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StoreFault> {
        self.send(Request { write: Write::Append(rows), done: Done::Log { callback, last } })
    }

    /// Remembers how far the log is committed, with the next write or a little later.
    pub(super) fn committed(&self, committed: Option<LogId>) {
        *locked(&self.committed) = Committed { id: committed, dirty: true };
        // A full queue means that the writer is at work, and will see it anyway.
        self.queue.try_send(Request { write: Write::Committed, done: Done::Nobody }).ok();
    }

    /// How far the log is committed, as announced last or found in the file.
    pub(super) fn committed_id(&self) -> Option<LogId> {
        locked(&self.committed).id
    }

    fn send(&self, request: Request) -> Result<(), StoreFault> {
        self.queue.try_send(request).map_err(|error| {
            let reason = match error {
                TrySendError::Full(_) => "too many writes wait",
                TrySendError::Disconnected(_) => "the writer has ended",
            };
            StoreFault::new("write the metadata", &reason)
        })
    }
}

struct Thread {
    database: Arc<Database>,
    index: Arc<Mutex<LogIndex>>,
    requests: Receiver<Request>,
    committed: Arc<Mutex<Committed>>,
    failed: Option<StoreFault>,
    #[cfg(debug_assertions)]
    faults: super::faults::Faults,
}

impl Thread {
    fn run(&mut self) {
        let mut flush_at: Option<Instant> = None;
        loop {
            let first = match flush_at {
                None => self.requests.recv().map_err(|_closed| RecvTimeoutError::Disconnected),
                Some(at) => self.requests.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match first {
                Ok(Request { write: Write::Committed, .. }) => {
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

    /// Makes the group durable, then tells.
    fn commit(&mut self, group: Vec<Request>) {
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
            tracing::error!(%fault, "the metadata store fails");
            self.failed = Some(fault.clone());
        }
        for Request { done, .. } in group {
            match done {
                // A caller that no longer waits has been dropped with its task.
                Done::Caller(sender) => drop(sender.send(result.clone())),
                Done::Log { callback, last } => {
                    locked(&self.index).durable(last);
                    callback.log_io_completed(result.clone().map_err(std::io::Error::other));
                }
                Done::Nobody => {}
            }
        }
    }

    fn store(&self, group: &[Request], committed: Option<LogId>) -> Result<(), StoreFault> {
        #[cfg(debug_assertions)]
        self.faults.meet()?;
        let committed = committed.map(|id| encode_row(&id)).transpose()?;
        let transact = || -> Result<(), redb::Error> {
            let mut transaction = self.database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            {
                let mut meta = transaction.open_table(META)?;
                let mut log = transaction.open_table(LOG)?;
                let mut pieces = transaction.open_table(PIECES)?;
                if let Some(committed) = &committed {
                    meta.insert(KEY_COMMITTED, committed.as_slice())?;
                }
                for Request { write, .. } in group {
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
                        Write::Piece { generation, number, bytes } => {
                            pieces.insert((*generation, *number), bytes.as_slice())?;
                        }
                        Write::Snapshot { generation, header } => {
                            pieces.retain(|(other, _), _| other == *generation)?;
                            meta.insert(KEY_SNAPSHOT, header.as_slice())?;
                        }
                        Write::Committed => {}
                    }
                }
            }
            crash_points::point("log-written");
            transaction.commit()?;
            crash_points::point("log-flushed");
            Ok(())
        };
        transact().map_err(|error| StoreFault::new("write the metadata", &error))
    }
}
