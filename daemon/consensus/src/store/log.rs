//! The log as openraft reads and writes it: entries from the file, or from memory ([`LogIndex`]).

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{RaftLogReader, Vote};
use redb::{Database, ReadableDatabase};

use super::writer::Write;
use super::{KEY_VOTE, LOG, LogStoreInner, StoreFault, blocking, decode_row, encode_row, locked, read_meta};
use crate::config::{APPEND_BYTES_SOFT_MAX, Entry, LogId, StorageError, TypeConfig};

/// Encoded bytes of the newest entries kept in memory, besides those not yet durable.
pub(super) const CACHE_BYTES_MAX: usize = 8 << 20;

/// Where the log begins and ends, and a cache of its newest entries.
///
/// Invariants: the cached entries are a contiguous tail of the log; every entry that is not yet durable is cached.
pub(super) struct LogIndex {
    pub(super) purged: Option<LogId>,
    pub(super) last: Option<LogId>,
    cache: BTreeMap<u64, Cached>,
    cache_bytes: usize,
    /// All entries before this one are durable.
    durable_end: u64,
}

struct Cached {
    entry: Entry,
    bytes: usize,
}

impl LogIndex {
    pub(super) fn new(purged: Option<LogId>, last: Option<LogId>) -> Self {
        let durable_end = last.map_or(0, |id| id.index + 1);
        Self { purged, last, cache: BTreeMap::new(), cache_bytes: 0, durable_end }
    }

    pub(super) fn append(&mut self, entry: Entry, bytes: usize) {
        self.last = Some(entry.log_id);
        self.cache_bytes += bytes;
        self.cache.insert(entry.log_id.index, Cached { entry, bytes });
    }

    /// Records that the entries up to `last` are durable, and evicts the oldest beyond the limit.
    pub(super) fn mark_durable(&mut self, last: u64) {
        self.durable_end = self.durable_end.max(last + 1);
        while self.cache_bytes > CACHE_BYTES_MAX {
            let Some(oldest) = self.cache.first_entry().filter(|entry| *entry.key() < self.durable_end)
            else {
                return;
            };
            self.cache_bytes -= oldest.remove().bytes;
        }
    }

    #[cfg(test)]
    pub(super) fn cached(&self) -> usize {
        self.cache.len()
    }

    pub(super) fn truncate(&mut self, from: u64, last: Option<LogId>) {
        let removed = self.cache.split_off(&from);
        self.cache_bytes -= removed.values().map(|cached| cached.bytes).sum::<usize>();
        self.durable_end = self.durable_end.min(from);
        self.last = last;
    }

    pub(super) fn purge(&mut self, upto: LogId) {
        let kept = self.cache.split_off(&(upto.index + 1));
        let removed = std::mem::replace(&mut self.cache, kept);
        self.cache_bytes -= removed.values().map(|cached| cached.bytes).sum::<usize>();
        self.purged = self.purged.max(Some(upto));
        self.last = self.last.max(Some(upto));
    }

    /// The cached entries of `[start, end)` with their encoded sizes, and the index below which the file has to be read.
    /// Entries are shared, not copied.
    pub(super) fn cached_tail(&self, start: u64, end: u64) -> (u64, Vec<(Entry, usize)>) {
        let disk_end = self.cache.keys().next().map_or(end, |first| end.min(*first)).max(start);
        let cached = if disk_end < end { Some(self.cache.range(disk_end..end)) } else { None };
        (disk_end, cached.into_iter().flatten().map(|(_, c)| (c.entry.clone(), c.bytes)).collect())
    }
}

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
        // openraft requests this right after installing a snapshot, which another task does: if the entries were deleted
        // first, a crash in between would leave a log that continues a state that no longer exists.
        self.shared.snapshots.wait_until_durable(log_id).await?;
        locked(&self.shared.index).purge(log_id);
        let id = encode_row(&log_id)?;
        Ok(self.shared.writer.write(Write::Purge { upto: log_id.index, id }).await?)
    }
}
