//! Where the log begins and ends, and its newest entries in memory.

use std::collections::BTreeMap;

use crate::file::tables::LogId;
use crate::types::Entry;

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
