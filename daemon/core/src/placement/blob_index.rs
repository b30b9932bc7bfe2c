//! Which blobs need something: kept up to date from one state of the metadata to the next.

use std::collections::{BTreeMap, BTreeSet};

use idunno_shared::ids::{Digest, NodeId};
use idunno_shared::wire::blobs::COPIES;
use imbl::ordmap::DiffItem;

use super::Members;
use crate::metadata::{Blob, BlobTable, State};

/// Most records of a blob that has all its copies. Records of dead members beyond this are trimmed, because every member
/// that is lost permanently would otherwise leave one.
pub(super) const RECORDS_KEPT: usize = 2 * COPIES;

/// The store in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreTotals {
    /// Blobs that are referred to.
    pub blobs: u64,
    /// Their bytes, each blob counted once.
    pub bytes: u64,
    /// Of these, blobs with fewer live copies than they should have.
    pub under_replicated: u64,
    /// Of these, blobs without any live copy.
    pub unavailable: u64,
}

/// What is recorded to be on one member's disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Blobs, referred to or not.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// An index of the blobs that need something, as of the state and the members observed last.
#[derive(Debug, Default)]
pub(super) struct BlobIndex {
    seen: BlobTable,
    live: BTreeSet<NodeId>,
    /// Blobs with fewer live copies than they should have, those with the fewest first.
    pub(super) short: BTreeSet<(usize, Digest)>,
    /// Blobs with more live copies than they should have, or with all of them and too many records.
    pub(super) excess: BTreeSet<Digest>,
    /// Blobs that nothing refers to.
    pub(super) unreferenced: BTreeSet<Digest>,
    /// Members that hold anything.
    pub(super) holdings: BTreeMap<NodeId, Holdings>,
    figures: StoreTotals,
}

impl BlobIndex {
    /// Live copies that a blob should have.
    pub(super) fn copies_wanted(&self) -> usize {
        COPIES.min(self.live.len())
    }

    pub(super) fn figures(&self) -> StoreTotals {
        self.figures
    }

    /// Brings the index up to date with the metadata and the members.
    pub(super) fn observe(&mut self, state: &State, members: &Members) {
        if !self.live.iter().eq(members.live.keys()) {
            *self = Self { live: members.live.keys().copied().collect(), ..Self::default() };
        }
        let before = std::mem::replace(&mut self.seen, state.blobs().clone());
        for change in before.diff(state.blobs()) {
            match change {
                DiffItem::Add(digest, blob) => self.count(digest, blob, true),
                DiffItem::Remove(digest, blob) => self.count(digest, blob, false),
                DiffItem::Update { old: (digest, old), new: (_, new) } => {
                    self.count(digest, old, false);
                    self.count(digest, new, true);
                }
            }
        }
    }

    /// Adds a blob to the lists and totals in which it counts, or removes it from them.
    fn count(&mut self, digest: &Digest, blob: &Blob, enter: bool) {
        fn put<T: Ord>(list: &mut BTreeSet<T>, item: T, enter: bool) {
            if enter {
                list.insert(item);
            } else {
                list.remove(&item);
            }
        }
        let add =
            |figure: &mut u64, amount: u64| *figure = if enter { *figure + amount } else { *figure - amount };
        for &node in &*blob.holders {
            let held = self.holdings.entry(node).or_default();
            add(&mut held.blobs, 1);
            add(&mut held.bytes, blob.size);
            if held.blobs == 0 {
                self.holdings.remove(&node);
            }
        }
        if blob.references == 0 {
            put(&mut self.unreferenced, *digest, enter);
            return;
        }
        let copies = blob.holders.iter().filter(|node| self.live.contains(node)).count();
        add(&mut self.figures.blobs, 1);
        add(&mut self.figures.bytes, blob.size);
        if copies < self.copies_wanted() {
            put(&mut self.short, (copies, *digest), enter);
            add(&mut self.figures.under_replicated, 1);
        }
        if copies == 0 {
            add(&mut self.figures.unavailable, 1);
        }
        if copies > COPIES || (copies == COPIES && blob.holders.len() > RECORDS_KEPT) {
            put(&mut self.excess, *digest, enter);
        }
    }
}
