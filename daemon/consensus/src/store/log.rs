//! The log as the library reads and writes it: entries from the file, or from memory ([`LogIndex`](super::index::LogIndex)).

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{RaftLogReader, Vote};
use redb::{Database, ReadableDatabase};

use super::writer::Write;
use super::{KEY_VOTE, LOG, Shared, StoreFault, blocking, decode_row, encode_row, locked, read_meta};
use crate::config::{APPEND_BYTES_SOFT_MAX, Entry, LogId, StorageError, TypeConfig};

/// Gathers entries up to a number of bytes, but at least one.
struct Gathered {
    entries: Vec<Entry>,
    bytes_left: usize,
    full: bool,
}

impl Gathered {
    fn push(&mut self, entry: Entry, bytes: usize) {
        self.full = self.full || (!self.entries.is_empty() && bytes > self.bytes_left);
        if !self.full {
            self.bytes_left = self.bytes_left.saturating_sub(bytes);
            self.entries.push(entry);
        }
    }
}

/// The library's access to the log and the votes.
#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
}

impl LogStore {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The entries of `[start, end)`, as many as fit into `bytes_max`, but at least one.
    pub(super) async fn read(
        &self,
        start: u64,
        end: u64,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StoreFault> {
        let (disk_end, cached) = locked(&self.shared.index).cached_part(start, end);
        let mut gathered = Gathered { entries: Vec::new(), bytes_left: bytes_max, full: false };
        if start < disk_end {
            let shared = Arc::clone(&self.shared);
            gathered = blocking(move || read_rows(&shared.database, start, disk_end, gathered)).await?;
        }
        for (entry, bytes) in cached {
            gathered.push(entry, bytes);
        }
        Ok(gathered.entries)
    }
}

fn read_rows(
    database: &Database,
    start: u64,
    end: u64,
    mut gathered: Gathered,
) -> Result<Gathered, StoreFault> {
    let fault = |error: redb::Error| StoreFault::new("read the metadata log", &error);
    let open =
        || -> Result<_, redb::Error> { Ok(database.begin_read()?.open_table(LOG)?.range(start..end)?) };
    for row in open().map_err(fault)? {
        let (_, value) = row.map_err(|error| fault(error.into()))?;
        let bytes = value.value();
        gathered.push(decode_row(bytes)?, bytes.len());
        if gathered.full {
            break;
        }
    }
    Ok(gathered)
}

fn limits(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let (start, end) = limits(&range);
        Ok(self.read(start, end, usize::MAX).await?)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        Ok(self.read(start, end, APPEND_BYTES_SOFT_MAX).await?)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let index = locked(&self.shared.index);
        Ok(LogState { last_purged_log_id: index.purged, last_log_id: index.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), StorageError> {
        Ok(self.shared.writer.write(Write::Vote(encode_row(vote)?)).await?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, StorageError> {
        let shared = Arc::clone(&self.shared);
        Ok(blocking(move || read_meta(&shared.database, KEY_VOTE)).await?)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.shared.writer.committed(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.shared.writer.committed_id())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut rows = Vec::new();
        for entry in entries {
            let row = encode_row(&entry)?;
            locked(&self.shared.index).append(entry.clone(), row.len());
            rows.push((entry.log_id.index, row));
        }
        let Some((last, _)) = rows.last() else {
            callback.log_io_completed(Ok(()));
            return Ok(());
        };
        let last = *last;
        Ok(self.shared.writer.append(rows, last, callback)?)
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let before = match log_id.index.checked_sub(1) {
            Some(index) => self.read(index, log_id.index, usize::MAX).await?.pop().map(|entry| entry.log_id),
            None => None,
        };
        {
            let mut index = locked(&self.shared.index);
            let last = before.or(index.purged);
            index.truncate(log_id.index, last);
        }
        Ok(self.shared.writer.write(Write::Truncate(log_id.index)).await?)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        // The library orders this right behind installing a snapshot, which another task does: were the entries
        // gone first, a crash in between would leave a log that goes on from a state nobody has.
        self.shared.snapshots.wait_until_durable(log_id).await?;
        locked(&self.shared.index).purge(log_id);
        let id = encode_row(&log_id)?;
        Ok(self.shared.writer.write(Write::Purge { upto: log_id.index, id }).await?)
    }
}
