//! The log as openraft reads and writes it: entries from the file, or from memory ([`LogIndex`](super::log_index::LogIndex)).

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{RaftLogReader, Vote};
use redb::{Database, ReadableDatabase};

use super::shared::LogStoreInner;
use crate::config::APPEND_BYTES_SOFT_MAX;
use crate::file::tables::{
    KEY_VOTE, LOG, LogId, StoreFault, blocking, decode_row, encode_row, locked, read_meta,
};
use crate::file::writer::Write;
use crate::types::{Entry, StorageError, TypeConfig};

/// A page of entries: at least one, and no more than fit into a number of bytes.
struct EntryPage {
    entries: Vec<Entry>,
    bytes_left: usize,
    full: bool,
}

impl EntryPage {
    fn push(&mut self, entry: Entry, bytes: usize) {
        self.full = self.full || (!self.entries.is_empty() && bytes > self.bytes_left);
        if !self.full {
            self.bytes_left = self.bytes_left.saturating_sub(bytes);
            self.entries.push(entry);
        }
    }
}

/// openraft's access to the log and the votes.
#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<LogStoreInner>,
}

impl LogStore {
    pub(super) fn new(shared: Arc<LogStoreInner>) -> Self {
        Self { shared }
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &LogStoreInner {
        &self.shared
    }

    /// The entries of `[start, end)` that fit into `bytes_max`, but at least one.
    pub(super) async fn read(
        &self,
        start: u64,
        end: u64,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StoreFault> {
        let (disk_end, cached) = locked(&self.shared.index).cached_tail(start, end);
        let mut page = EntryPage { entries: Vec::new(), bytes_left: bytes_max, full: false };
        if start < disk_end {
            let shared = Arc::clone(&self.shared);
            page = blocking(move || read_rows(&shared.database, start, disk_end, page)).await?;
        }
        for (entry, bytes) in cached {
            page.push(entry, bytes);
        }
        Ok(page.entries)
    }
}

fn read_rows(
    database: &Database,
    start: u64,
    end: u64,
    mut page: EntryPage,
) -> Result<EntryPage, StoreFault> {
    let fault = |error: redb::Error| StoreFault::new("read the metadata log", &error);
    let open =
        || -> Result<_, redb::Error> { Ok(database.begin_read()?.open_table(LOG)?.range(start..end)?) };
    for row in open().map_err(fault)? {
        let (_, value) = row.map_err(|error| fault(error.into()))?;
        let bytes = value.value();
        page.push(decode_row(bytes)?, bytes.len());
        if page.full {
            break;
        }
    }
    Ok(page)
}

fn bounds_of(range: &impl RangeBounds<u64>) -> (u64, u64) {
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
        let (start, end) = bounds_of(&range);
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
        self.shared.writer.record_committed(committed);
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
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for entry in entries {
            let row = encode_row(&entry)?;
            locked(&self.shared.index).append(entry.clone(), row.len());
            bytes += row.len() as u64;
            rows.push((entry.log_id.index, row));
        }
        let Some((last, _)) = rows.last() else {
            callback.log_io_completed(Ok(()));
            return Ok(());
        };
        let last = *last;
        self.shared.snapshots.record_appended(bytes);
        let index = Arc::clone(&self.shared.index);
        let written = move |written: Result<(), StoreFault>| {
            locked(&index).mark_durable(last);
            callback.log_io_completed(written.map_err(std::io::Error::other));
        };
        Ok(self.shared.writer.append(rows, written)?)
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
        // openraft requests this right after installing a snapshot, which another task does: if the entries were deleted
        // first, a crash in between would leave a log that continues a state that no longer exists.
        self.shared.snapshots.wait_until_durable(log_id).await?;
        locked(&self.shared.index).purge(log_id);
        let id = encode_row(&log_id)?;
        Ok(self.shared.writer.write(Write::Purge { upto: log_id.index, id }).await?)
    }
}
