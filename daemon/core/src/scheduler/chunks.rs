//! Chunks of queries, and those of a job that wait for another lease, by when they are due.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, Range};

use super::fault_history::FaultHistory;
use crate::time::Instant;

/// Consecutive queries with a shared lease history. They are leased again as one batch, or in parts if the batch size
/// has shrunk.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) range: Range<u64>,
    /// How often it has been leased.
    pub(super) lease_count: u32,
    pub(super) history: FaultHistory,
    /// When it may be leased again.
    pub(super) due: Instant,
}

impl Chunk {
    pub(super) fn fresh(range: Range<u64>) -> Self {
        Self { range, lease_count: 0, history: FaultHistory::default(), due: Instant::START }
    }

    /// How many queries it has.
    pub(super) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// Chunks by their first query. Read as a map.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunks {
    by_first: BTreeMap<u64, Chunk>,
    by_due: BTreeSet<(Instant, u64)>,
}

impl Deref for Chunks {
    type Target = BTreeMap<u64, Chunk>;

    fn deref(&self) -> &Self::Target {
        &self.by_first
    }
}

impl Chunks {
    pub(super) fn insert(&mut self, chunk: Chunk) {
        let first = chunk.range.start;
        self.remove(&first);
        self.by_due.insert((chunk.due, first));
        self.by_first.insert(first, chunk);
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature of the map behind it")]
    pub(super) fn remove(&mut self, first: &u64) -> Option<Chunk> {
        let chunk = self.by_first.remove(first)?;
        self.by_due.remove(&(chunk.due, *first));
        Some(chunk)
    }

    /// When the first chunk is due that is not due yet.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let mut later = self.by_due.range((now, u64::MAX)..).map(|(due, _)| *due);
        later.find(|due| *due > now)
    }

    /// Whether both orders hold the same chunks.
    pub(super) fn is_consistent(&self) -> bool {
        self.by_due.len() == self.by_first.len()
            && self.by_first.iter().all(|(first, chunk)| self.by_due.contains(&(chunk.due, *first)))
    }
}
