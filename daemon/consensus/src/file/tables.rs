//! The tables of the file, and how their rows are read and encoded.

use std::sync::{Arc, Mutex, PoisonError};

use openraft::{EmptyNode, StorageIOError};
use redb::{Database, ReadableDatabase, TableDefinition};
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::codec::{decode, encode};

pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, EmptyNode>;
pub(crate) type MetaTable<'a> = redb::Table<'a, &'static str, &'static [u8]>;

pub(crate) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(crate) const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Chunks of snapshots, by generation and number.
pub(crate) const SNAPSHOT_CHUNKS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("snapshot");

pub(crate) const KEY_FORMAT: &str = "format";
pub(crate) const KEY_NODE: &str = "node";
pub(crate) const KEY_VOTE: &str = "vote";
pub(crate) const KEY_COMMITTED: &str = "committed";
pub(crate) const KEY_PURGED: &str = "purged";
pub(crate) const KEY_SNAPSHOT: &str = "snapshot";

/// Reading or writing the store failed. The caller must stop.
#[derive(Clone, Debug, Error)]
#[error("cannot {doing}: {reason}")]
pub(crate) struct StoreFault {
    doing: &'static str,
    reason: Arc<str>,
}

impl StoreFault {
    pub(crate) fn new(doing: &'static str, reason: &dyn std::fmt::Display) -> Self {
        Self { doing, reason: format!("{reason}").into() }
    }
}

impl From<StoreFault> for openraft::StorageError<u64> {
    fn from(fault: StoreFault) -> Self {
        StorageIOError::write(openraft::AnyError::new(&fault)).into()
    }
}

/// The row that makes a snapshot the durable one.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct SnapshotHeader {
    pub(crate) generation: u64,
    pub(crate) meta: SnapshotMeta,
}

impl SnapshotHeader {
    pub(crate) fn read(database: &Database) -> Result<Option<Self>, StoreFault> {
        read_meta(database, KEY_SNAPSHOT)
    }

    /// The generation that an encoded header names.
    pub(crate) fn generation_of(row: &[u8]) -> Option<u64> {
        decode_row::<Self>(row).ok().map(|header| header.generation)
    }
}

pub(crate) fn read_meta<T: DeserializeOwned>(
    database: &Database,
    key: &str,
) -> Result<Option<T>, StoreFault> {
    let row = read_meta_row(database, key);
    let row = row.map_err(|error| StoreFault::new("read the metadata store", &error))?;
    row.map(|bytes| decode_row(&bytes)).transpose()
}

pub(crate) fn read_meta_row(database: &Database, key: &str) -> Result<Option<Vec<u8>>, redb::Error> {
    let meta = database.begin_read()?.open_table(META)?;
    Ok(meta.get(key)?.map(|value| value.value().to_vec()))
}

pub(crate) fn decode_row<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreFault> {
    decode(bytes).map_err(|error| StoreFault::new("decode a row of the metadata store", &error))
}

pub(crate) fn encode_row<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, StoreFault> {
    encode(value).map_err(|error| StoreFault::new("encode a row of the metadata store", &error))
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreFault> + Send + 'static,
) -> Result<T, StoreFault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreFault::new("read the metadata store in the background", &error)),
    }
}

/// Locks, ignoring poison: every change of the guarded values is a single step.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
