//! Which blobs need something: kept up to date from one state of the metadata to the next.
//!
//! When members come or go, all blobs are counted anew, in digest order and a part at a time: no step takes longer where
//! there are more blobs. Until their turn comes, blobs count as before; those that have not been counted in this term count
//! as short of copies.
//!
//! Bounds: [`COUNTED_PER_STEP_MAX`] blobs a step, besides those that changed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};

use idunno_shared::ids::{Digest, NodeId};
use idunno_shared::wire::blobs::COPIES;
use imbl::ordmap::DiffItem;

use super::Members;
use crate::metadata::{Blob, BlobTable, State};

/// Most records of a blob that has all its copies. Records of dead members beyond this are trimmed, because every member
/// that is lost permanently would otherwise leave one.
pub(super) const RECORDS_KEPT: usize = 2 * COPIES;

/// Most blobs that one step counts anew.
pub const COUNTED_PER_STEP_MAX: usize = 16_384;

/// The store in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreTotals {
    /// Blobs that are referred to.
    pub blobs: u64,
    /// Their bytes, each blob counted once.
    pub bytes: u64,
    /// Of these, blobs with fewer live copies than they should have, as far as they are counted.
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
    recount: Option<Recount>,
    /// Blobs counted since the term began.
    pub(super) counted: u64,
    /// Whether [`Self::short`] has changed since this was set back.
    pub(super) is_short_changed: bool,
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

/// A count of all blobs by the members that are live now.
#[derive(Debug)]
struct Recount {
    /// The members by which the blobs behind `after` are counted; `None` if they are not counted yet.
    before: Option<BTreeSet<NodeId>>,
    /// The last blob that is counted anew.
    after: Option<Digest>,
}

/// Live copies that a blob should have.
fn wanted(live: &BTreeSet<NodeId>) -> usize {
    COPIES.min(live.len())
}

impl BlobIndex {
    /// Live copies that a blob should have.
    pub(super) fn copies_wanted(&self) -> usize {
        wanted(&self.live)
    }

    pub(super) fn figures(&self) -> StoreTotals {
        let uncounted =
            (self.seen.len() as u64).saturating_sub(self.figures.blobs + self.unreferenced.len() as u64);
        StoreTotals { under_replicated: self.figures.under_replicated + uncounted, ..self.figures }
    }

    /// Whether blobs are still to be counted: by the next [`Self::observe`].
    pub(super) fn is_behind(&self) -> bool {
        self.recount.is_some()
    }

    /// Brings the index up to date with the metadata, and a step nearer to the members.
    pub(super) fn observe(&mut self, state: &State, members: &Members) {
        let is_first = self.counted == 0;
        if self.recount.is_none() && (is_first || !self.live.iter().eq(members.live.keys())) {
            let before = std::mem::replace(&mut self.live, members.live.keys().copied().collect());
            self.recount = Some(Recount { before: (!is_first).then_some(before), after: None });
        }
        let before = std::mem::replace(&mut self.seen, state.blobs().clone());
        if !is_first {
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
        self.go_on_counting();
    }

    /// Counts the next blobs by the members that are live now.
    fn go_on_counting(&mut self) {
        let Some(recount) = &self.recount else { return };
        let (blobs, after) = (self.seen.clone(), recount.after);
        let mut next = blobs.range((after.map_or(Unbounded, Excluded), Unbounded));
        for (digest, blob) in next.by_ref().take(COUNTED_PER_STEP_MAX) {
            self.count(digest, blob, false);
            if let Some(recount) = &mut self.recount {
                recount.after = Some(*digest);
            }
            self.count(digest, blob, true);
        }
        if next.next().is_none() {
            self.recount = None;
        }
    }

    /// The members by which a blob is counted; `None` if it is not counted yet.
    fn live_for(&self, digest: &Digest) -> Option<&BTreeSet<NodeId>> {
        match &self.recount {
            Some(recount) if recount.after.is_none_or(|after| after < *digest) => recount.before.as_ref(),
            _ => Some(&self.live),
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
        let Some(live) = self.live_for(digest) else { return };
        let (copies, wanted) = (blob.holders.iter().filter(|node| live.contains(node)).count(), wanted(live));
        self.counted += 1;
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
        add(&mut self.figures.blobs, 1);
        add(&mut self.figures.bytes, blob.size);
        if copies < wanted {
            put(&mut self.short, (copies, *digest), enter);
            self.is_short_changed = true;
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
