//! The log, the votes and the snapshot of the metadata on disk: one `redb` file.
//!
//! Source: Raft (Ongaro and Ousterhout, section 5: what is persistent), and the storage contract of openraft 0.9.
//! Invariants: a vote, an entry, a truncation or a snapshot that was reported done survives a crash; the log has no
//! hole; nothing is purged from the log that no durable snapshot holds.
//! Bounds: [`writer`] for the writes, [`index::CACHE_BYTES_MAX`] for entries in memory; one snapshot on disk, and
//! another while it is being written.
//! The state machine itself is in memory: at start it is the snapshot and the committed entries behind it.

#[cfg(debug_assertions)]
mod faults;
mod index;
mod log;
mod machine;
mod recovery;
mod snapshot;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use idunno_shared::ids::NodeId;
use openraft::StorageIOError;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use self::index::LogIndex;
pub(super) use self::log::LogStore;
pub(super) use self::machine::Machine;
pub use self::recovery::{Origin, Survivor, encode_state};
pub(super) use self::snapshot::Install;
use self::snapshot::Snapshots;
use self::writer::Writer;
use super::config::{Entry, LogId};
use super::errors::OpenError;
use super::network::{decode, encode};
use idunno_core::metadata::State;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Pieces of snapshots, by generation and number.
const PIECES: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("snapshot");

const KEY_FORMAT: &str = "format";
const KEY_NODE: &str = "node";
const KEY_VOTE: &str = "vote";
const KEY_COMMITTED: &str = "committed";
const KEY_PURGED: &str = "purged";
const KEY_SNAPSHOT: &str = "snapshot";

/// The layout of this file: tables, keys and the encoding of their values.
const FORMAT: u64 = 1;
/// Pages kept in memory, in bytes: the log is read from its own cache.
const PAGE_CACHE_BYTES: usize = 16 << 20;

/// Reading or writing the store failed. Whoever sees it must not go on.
#[derive(Clone, Debug, Error)]
#[error("cannot {doing}: {reason}")]
pub(super) struct StoreFault {
    doing: &'static str,
    reason: Arc<str>,
}

impl StoreFault {
    fn new(doing: &'static str, reason: &dyn std::fmt::Display) -> Self {
        Self { doing, reason: format!("{reason}").into() }
    }
}

impl From<StoreFault> for super::config::StorageError {
    fn from(fault: StoreFault) -> Self {
        StorageIOError::write(openraft::AnyError::new(&fault)).into()
    }
}

/// What everyone who uses the store shares. The file is closed when the last user is gone.
struct Shared {
    // The order matters: the database must be released before the queue, whose end tells the writer to close it.
    database: Arc<Database>,
    index: Arc<Mutex<LogIndex>>,
    snapshots: Snapshots,
    writer: Writer,
}

/// An open store.
pub(super) struct Opened {
    pub(super) log: LogStore,
    pub(super) machine: Machine,
    pub(super) state: watch::Receiver<Arc<State>>,
    pub(super) install: Install,
    /// Fires once the file is closed.
    pub(super) closed: oneshot::Receiver<()>,
}

/// Opens or creates the store of `node`. Blocks.
pub(super) fn open(path: &Path, node: NodeId) -> Result<Opened, OpenError> {
    let failed = |reason: String| OpenError::Store { path: PathBuf::from(path), reason };
    let database = redb::Builder::new()
        .set_cache_size(PAGE_CACHE_BYTES)
        .create(path)
        .map_err(|error| failed(error.to_string()))?;
    identify(&database, path, node)?;
    let (index, snapshot) = read(&database).map_err(|error| failed(error.to_string()))?;
    let committed = read_meta(&database, KEY_COMMITTED).map_err(|error| failed(error.to_string()))?;

    let database = Arc::new(database);
    let index = Arc::new(Mutex::new(index));
    let (closed, closed_receiver) = oneshot::channel();
    let writer = Writer::spawn(path, Arc::clone(&database), Arc::clone(&index), committed, closed)
        .map_err(|error| failed(error.to_string()))?;
    let generation = snapshot.as_ref().map_or(0, |found| found.generation);
    let (snapshots, install) = Snapshots::new(generation, snapshot.as_ref().and_then(|s| s.meta.last_log_id));
    let shared = Arc::new(Shared { database, index, snapshots, writer });
    let (machine, state) = Machine::new(Arc::clone(&shared), snapshot).map_err(|e| failed(e.to_string()))?;
    Ok(Opened { log: LogStore::new(shared), machine, state, install, closed: closed_receiver })
}

/// Creates the tables, and makes sure that the file is this member's and of this format.
fn identify(database: &Database, path: &Path, node: NodeId) -> Result<(), OpenError> {
    let exchange = || -> Result<(u64, u64), redb::Error> {
        let transaction = database.begin_write()?;
        let mut meta = transaction.open_table(META)?;
        let mut stored = |key: &str, fresh: u64| -> Result<u64, redb::Error> {
            let found =
                meta.get(key)?.and_then(|value| value.value().try_into().ok().map(u64::from_be_bytes));
            if found.is_none() {
                meta.insert(key, fresh.to_be_bytes().as_slice())?;
            }
            Ok(found.unwrap_or(fresh))
        };
        let found = (stored(KEY_FORMAT, FORMAT)?, stored(KEY_NODE, node.0)?);
        drop(meta);
        transaction.open_table(LOG)?;
        transaction.open_table(PIECES)?;
        transaction.commit()?;
        Ok(found)
    };
    let path = || PathBuf::from(path);
    let (format, owner) =
        exchange().map_err(|error| OpenError::Store { path: path(), reason: error.to_string() })?;
    if format != FORMAT {
        return Err(OpenError::Format { path: path(), found: format, known: FORMAT });
    }
    if owner != node.0 {
        return Err(OpenError::OtherNode { path: path(), found: NodeId(owner), expected: node });
    }
    Ok(())
}

/// Reads where the log begins and ends, and the snapshot; drops pieces of a snapshot that was never finished.
fn read(database: &Database) -> Result<(LogIndex, Option<snapshot::Stored>), StoreFault> {
    let fault = |error: redb::Error| StoreFault::new("read the metadata store", &error);
    let snapshot = snapshot::read(database)?;
    let kept = snapshot.as_ref().map(|found| found.generation);
    let tidy = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(PIECES)?.retain(|(generation, _), _| Some(generation) == kept)?;
        transaction.commit()?;
        Ok(())
    };
    tidy().map_err(fault)?;
    let purged: Option<LogId> = read_meta(database, KEY_PURGED)?;
    let last = || -> Result<Option<Vec<u8>>, redb::Error> {
        let log = database.begin_read()?.open_table(LOG)?;
        Ok(log.last()?.map(|(_, value)| value.value().to_vec()))
    };
    let last = match last().map_err(fault)? {
        Some(bytes) => Some(decode_row::<Entry>(&bytes)?.log_id),
        None => purged,
    };
    Ok((LogIndex::new(purged, last), snapshot))
}

/// A value of the meta table.
fn read_meta<T: DeserializeOwned>(database: &Database, key: &str) -> Result<Option<T>, StoreFault> {
    let get = || -> Result<Option<Vec<u8>>, redb::Error> {
        let meta = database.begin_read()?.open_table(META)?;
        Ok(meta.get(key)?.map(|value| value.value().to_vec()))
    };
    let bytes = get().map_err(|error| StoreFault::new("read the metadata store", &error))?;
    bytes.map(|bytes| decode_row(&bytes)).transpose()
}

fn decode_row<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreFault> {
    decode(bytes).map_err(|error| StoreFault::new("decode a row of the metadata store", &error))
}

fn encode_row<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, StoreFault> {
    encode(value).map_err(|error| StoreFault::new("encode a row of the metadata store", &error))
}

/// Runs a blocking read of the store off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreFault> + Send + 'static,
) -> Result<T, StoreFault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreFault::new("run a read of the metadata store", &error)),
    }
}

/// The lock, also after a panic of another holder: the values behind it are changed in single steps.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
