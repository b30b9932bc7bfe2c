//! Opens the file whole or not at all, and starts the writer.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use idunno_core::metadata::State;
use idunno_shared::ids::NodeId;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError};
use tokio::sync::{oneshot, watch};

use super::log::LogStore;
use super::log_index::LogIndex;
use super::shared::LogStoreInner;
use super::snapshots::{InstallTracker, LogGrowth, Snapshots, StoredSnapshot};
use super::state_machine::StateMachine;
use crate::errors::OpenError;
use crate::file::snapshot_rows::{RowReader, SnapshotData, decode_state};
use crate::file::tables::{
    KEY_COMMITTED, KEY_FORMAT, KEY_NODE, KEY_PURGED, LOG, LogId, META, MetaTable, SNAPSHOT_CHUNKS,
    SnapshotHeader, StoreFault, decode_row, read_meta,
};
use crate::file::writer::Writer;
use crate::types::Entry;

/// Version of the file's layout: its tables, keys and the encoding of their values.
const FORMAT: u64 = 1;
/// Small, because the log is read from its own cache.
const PAGE_CACHE_BYTES: usize = 16 << 20;

pub(crate) struct OpenStore {
    pub(crate) log: LogStore,
    pub(crate) machine: StateMachine,
    pub(crate) state: watch::Receiver<Arc<State>>,
    pub(crate) installs: InstallTracker,
    pub(crate) growth: watch::Receiver<LogGrowth>,
    /// Fires once the file is closed.
    pub(crate) closed: oneshot::Receiver<()>,
}

/// Opens or creates the store of `node`. Blocks.
pub(crate) fn open(path: &Path, node: NodeId) -> Result<OpenStore, OpenError> {
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
    let writer = Writer::spawn(path, Arc::clone(&database), committed, closed)
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
pub(crate) async fn open_apart(path: PathBuf, node: NodeId) -> Result<OpenStore, OpenError> {
    let file = path.clone();
    let opened = tokio::task::spawn_blocking(move || open(&file, node)).await;
    opened.map_err(|error| OpenError::Damaged { path, reason: error.to_string() })?
}

/// Opens files whole or not at all: every page's checksum is verified, because redb otherwise trusts a file that was closed
/// cleanly, and a flipped bit would become another vote or another entry. It reads the whole file, which the replay does
/// anyway.
pub(super) fn builder() -> redb::Builder {
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
pub(super) fn identify(database: &Database, path: &Path, node: NodeId) -> Result<(), OpenError> {
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
