//! The log, the votes and the snapshot of the metadata on disk: one `redb` file.
//!
//! Source: Raft (Ongaro and Ousterhout, section 5: what is persistent), and the storage contract of openraft 0.9.
//! Invariants: a vote, an entry, a truncation or a snapshot that was reported durable survives a crash; the log has no
//! gap; no entry is purged before a durable snapshot holds it.
//! Bounds: [`writer`] for the writes, [`log::CACHE_BYTES_MAX`] for entries in memory; on disk one snapshot, those that are
//! being written or received, and older ones while they are being sent.
//! The state machine is in memory: at start it is the snapshot and the committed entries after it.

mod log;
mod recovery;
mod snapshot;
mod snapshot_rows;
mod state_machine;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use idunno_shared::ids::NodeId;
use openraft::StorageIOError;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use self::log::LogIndex;
pub(super) use self::log::LogStore;
pub use self::recovery::{InitialState, SurvivorLog, encode_state};
pub(super) use self::snapshot::{InstallTracker, LogGrowth};
use self::snapshot::{SnapshotHeader, Snapshots, StoredSnapshot};
pub(super) use self::snapshot_rows::SnapshotData;
use self::snapshot_rows::{RowReader, decode_state};
pub(super) use self::state_machine::StateMachine;
use self::writer::Writer;
use super::config::{Entry, LogId};
use super::errors::OpenError;
use super::network::{decode, encode};
use idunno_core::metadata::State;

type MetaTable<'a> = redb::Table<'a, &'static str, &'static [u8]>;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Chunks of snapshots, by generation and number.
const SNAPSHOT_CHUNKS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("snapshot");

const KEY_FORMAT: &str = "format";
const KEY_NODE: &str = "node";
const KEY_VOTE: &str = "vote";
const KEY_COMMITTED: &str = "committed";
const KEY_PURGED: &str = "purged";
const KEY_SNAPSHOT: &str = "snapshot";

/// Version of the file's layout: its tables, keys and the encoding of their values.
const FORMAT: u64 = 1;
/// Small, because the log is read from its own cache.
const PAGE_CACHE_BYTES: usize = 16 << 20;

/// Reading or writing the store failed. The caller must stop.
#[derive(Clone, Debug, Error)]
#[error("cannot {doing}: {reason}")]
pub(crate) struct StoreFault {
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

/// State that the users of the store share. The file is closed when the last user is dropped.
struct LogStoreInner {
    // Field order matters: the database must be dropped before the queue, whose end makes the writer close the file.
    database: Arc<Database>,
    index: Arc<Mutex<LogIndex>>,
    snapshots: Snapshots,
    writer: Writer,
}

pub(super) struct OpenStore {
    pub(super) log: LogStore,
    pub(super) machine: StateMachine,
    pub(super) state: watch::Receiver<Arc<State>>,
    pub(super) installs: InstallTracker,
    pub(super) growth: watch::Receiver<LogGrowth>,
    /// Fires once the file is closed.
    pub(super) closed: oneshot::Receiver<()>,
}

/// Opens or creates the store of `node`. Blocks.
pub(super) fn open(path: &Path, node: NodeId) -> Result<OpenStore, OpenError> {
    let failed = |reason: String| OpenError::Store { path: PathBuf::from(path), reason };
    let damaged =
        |fault: StoreFault| OpenError::Damaged { path: PathBuf::from(path), reason: fault.to_string() };
    let database = builder().create(path).map_err(|error| opening(path, error))?;
    identify(&database, path, node)?;
    let LogRead { index, snapshot, log_bytes } = read(&database).map_err(damaged)?;
    let committed = read_meta(&database, KEY_COMMITTED).map_err(damaged)?;
    let restored = snapshot.map(|header| Restored::read(header, &database)).transpose().map_err(damaged)?;

    let database = Arc::new(database);
    let index = Arc::new(Mutex::new(index));
    let (closed, closed_receiver) = oneshot::channel();
    let writer = Writer::spawn(path, Arc::clone(&database), Arc::clone(&index), committed, closed)
        .map_err(|error| failed(error.to_string()))?;
    let (stored, state) = match restored {
        Some(Restored { header: SnapshotHeader { generation, meta }, rows, state }) => {
            let data = SnapshotData::new(generation, &database, &writer).of_rows(&rows);
            (Some(StoredSnapshot { meta, data }), state)
        }
        None => (None, State::default()),
    };
    let (snapshots, installs) = Snapshots::new(stored, log_bytes);
    let growth = snapshots.growth();
    let shared = Arc::new(LogStoreInner { database, index, snapshots, writer });
    let (machine, state) = StateMachine::new(Arc::clone(&shared), state);
    Ok(OpenStore { log: LogStore::new(shared), machine, state, installs, growth, closed: closed_receiver })
}

/// The durable snapshot, read and decoded.
struct Restored {
    header: SnapshotHeader,
    rows: RowReader,
    state: State,
}

impl Restored {
    fn read(header: SnapshotHeader, database: &Database) -> Result<Self, StoreFault> {
        let mut rows = RowReader::open(database, header.generation)?;
        let state = decode_state(&mut rows)?;
        Ok(Self { header, rows, state })
    }
}

/// [`open`] on a thread of its own. A library that panics over the file's content has found it damaged.
pub(super) async fn open_apart(path: PathBuf, node: NodeId) -> Result<OpenStore, OpenError> {
    let file = path.clone();
    let opened = tokio::task::spawn_blocking(move || open(&file, node)).await;
    opened.map_err(|error| OpenError::Damaged { path, reason: error.to_string() })?
}

/// Opens files whole or not at all: every page's checksum is verified, because redb otherwise trusts a file that was closed
/// cleanly, and a flipped bit would become another vote or another entry. It reads the whole file, which the replay does
/// anyway.
fn builder() -> redb::Builder {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(PAGE_CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// What an error of redb says of the file.
fn opening(path: &Path, error: DatabaseError) -> OpenError {
    let (path, reason) = (PathBuf::from(path), error.to_string());
    let is_damaged = match error {
        DatabaseError::UpgradeRequired(_) | DatabaseError::Storage(StorageError::Corrupted(_)) => true,
        // Its word for a file that begins otherwise or ends early.
        DatabaseError::Storage(StorageError::Io(error)) => {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    };
    if is_damaged { OpenError::Damaged { path, reason } } else { OpenError::Store { path, reason } }
}

/// Creates the tables, and checks that the file belongs to this member and has this format.
fn identify(database: &Database, path: &Path, node: NodeId) -> Result<(), OpenError> {
    let path = || PathBuf::from(path);
    let StoreIdentity { format, owner } = read_or_create_identity(database, node)
        .map_err(|error| OpenError::Store { path: path(), reason: error.to_string() })?;
    if format != FORMAT {
        return Err(OpenError::Format { path: path(), found: format, known: FORMAT });
    }
    if owner != node {
        return Err(OpenError::OtherNode { path: path(), owner, expected: node });
    }
    Ok(())
}

struct StoreIdentity {
    format: u64,
    owner: NodeId,
}

fn read_or_create_identity(database: &Database, node: NodeId) -> Result<StoreIdentity, redb::Error> {
    let transaction = database.begin_write()?;
    let mut meta = transaction.open_table(META)?;
    let format = get_or_insert(&mut meta, KEY_FORMAT, FORMAT)?;
    let owner = NodeId(get_or_insert(&mut meta, KEY_NODE, node.0)?);
    drop(meta);
    transaction.open_table(LOG)?;
    transaction.open_table(SNAPSHOT_CHUNKS)?;
    transaction.commit()?;
    Ok(StoreIdentity { format, owner })
}

fn get_or_insert(meta: &mut MetaTable<'_>, key: &str, default: u64) -> Result<u64, redb::Error> {
    let found = meta.get(key)?.and_then(|value| value.value().try_into().ok().map(u64::from_be_bytes));
    if found.is_none() {
        meta.insert(key, default.to_be_bytes().as_slice())?;
    }
    Ok(found.unwrap_or(default))
}

/// What the file says at its opening.
struct LogRead {
    index: LogIndex,
    snapshot: Option<SnapshotHeader>,
    /// Bytes of the entries behind the snapshot.
    log_bytes: u64,
}

/// Reads where the log begins and ends, and which snapshot is durable; deletes the rows of all others.
fn read(database: &Database) -> Result<LogRead, StoreFault> {
    let fault = |error: redb::Error| StoreFault::new("read the metadata store", &error);
    let snapshot = SnapshotHeader::read(database)?;
    let kept = snapshot.as_ref().map(|snapshot| snapshot.generation);
    delete_other_snapshots(database, kept).map_err(fault)?;
    let purged: Option<LogId> = read_meta(database, KEY_PURGED)?;
    let last = match last_log_row(database).map_err(fault)? {
        Some(bytes) => Some(decode_row::<Entry>(&bytes)?.log_id),
        None => purged,
    };
    let covered = snapshot.as_ref().and_then(|snapshot| snapshot.meta.last_log_id);
    let log_bytes = log_bytes_behind(database, covered).map_err(fault)?;
    Ok(LogRead { index: LogIndex::new(purged, last), snapshot, log_bytes })
}

fn log_bytes_behind(database: &Database, covered: Option<LogId>) -> Result<u64, redb::Error> {
    let log = database.begin_read()?.open_table(LOG)?;
    let first = covered.map_or(0, |id| id.index + 1);
    log.range(first..)?.map(|row| Ok(row?.1.value().len() as u64)).sum()
}

fn delete_other_snapshots(database: &Database, kept: Option<u64>) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(SNAPSHOT_CHUNKS)?.retain(|(generation, _), _| Some(generation) == kept)?;
    transaction.commit()?;
    Ok(())
}

fn last_log_row(database: &Database) -> Result<Option<Vec<u8>>, redb::Error> {
    let log = database.begin_read()?.open_table(LOG)?;
    Ok(log.last()?.map(|(_, value)| value.value().to_vec()))
}

fn read_meta<T: DeserializeOwned>(database: &Database, key: &str) -> Result<Option<T>, StoreFault> {
    let row = read_meta_row(database, key);
    let row = row.map_err(|error| StoreFault::new("read the metadata store", &error))?;
    row.map(|bytes| decode_row(&bytes)).transpose()
}

fn read_meta_row(database: &Database, key: &str) -> Result<Option<Vec<u8>>, redb::Error> {
    let meta = database.begin_read()?.open_table(META)?;
    Ok(meta.get(key)?.map(|value| value.value().to_vec()))
}

fn decode_row<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreFault> {
    decode(bytes).map_err(|error| StoreFault::new("decode a row of the metadata store", &error))
}

fn encode_row<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, StoreFault> {
    encode(value).map_err(|error| StoreFault::new("encode a row of the metadata store", &error))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreFault> + Send + 'static,
) -> Result<T, StoreFault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreFault::new("read the metadata store in the background", &error)),
    }
}

/// Locks, ignoring poison: every change of the guarded values is a single step.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
