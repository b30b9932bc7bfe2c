//! What is stored and what may be deleted: the store's memory, pure.
//!
//! Invariants: the byte total is the sum of the sizes; a digest with a put in progress is never free to be collected.
//! Bounds: one entry a blob; one pin a blob touched by an upload that is not known to be over.

use std::collections::BTreeMap;
use std::ops::Bound;

use idunno_shared::ids::{Digest, Term, UploadId};
use idunno_shared::wire::blobs::BlobRef;

use super::{OrderNumber, StaleTerm};

#[derive(Default)]
pub(super) struct Index {
    sizes: BTreeMap<Digest, u64>,
    bytes: u64,
    /// The highest upload that touched a blob.
    pins: BTreeMap<Digest, UploadId>,
    /// Puts in progress.
    busy: BTreeMap<Digest, u32>,
    /// In the highest term seen: orders to delete below are void.
    void_below: OrderNumber,
}

impl Index {
    pub(super) fn insert(&mut self, blob: BlobRef) {
        self.remove_size(blob.digest);
        self.sizes.insert(blob.digest, blob.size);
        self.bytes += blob.size;
    }

    /// The blob was deleted.
    pub(super) fn remove(&mut self, digest: Digest) {
        self.remove_size(digest);
        self.pins.remove(&digest);
    }

    /// The blob was damaged. Its pin stays: it may be stored anew under the same upload.
    pub(super) fn give_up(&mut self, digest: Digest) {
        self.remove_size(digest);
    }

    fn remove_size(&mut self, digest: Digest) {
        self.bytes -= self.sizes.remove(&digest).unwrap_or(0);
    }

    pub(super) fn size(&self, digest: Digest) -> Option<u64> {
        self.sizes.get(&digest).copied()
    }

    /// The first digest above `after`, with its size.
    pub(super) fn next(&self, after: Option<Digest>) -> Option<(Digest, u64)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.sizes.range((from, Bound::Unbounded)).next().map(|(&digest, &size)| (digest, size))
    }

    pub(super) fn totals(&self) -> (u64, u64) {
        (self.sizes.len() as u64, self.bytes)
    }

    pub(super) fn begin(&mut self, digest: Digest, upload: Option<UploadId>) {
        *self.busy.entry(digest).or_default() += 1;
        if let Some(upload) = upload {
            let pin = self.pins.entry(digest).or_default();
            *pin = upload.max(*pin);
        }
    }

    /// A put has ended. The pin of one that failed stays: it can only delay a collection.
    pub(super) fn end(&mut self, digest: Digest) {
        if let Some(puts) = self.busy.get_mut(&digest) {
            *puts -= 1;
            if *puts == 0 {
                self.busy.remove(&digest);
            }
        }
    }

    pub(super) fn observe(&mut self, term: Term) -> Result<(), StaleTerm> {
        self.make_void(OrderNumber { term, number: 0 })
    }

    /// ReplicaCommands to delete below this one are void, as are all of older terms.
    pub(super) fn make_void(&mut self, below: OrderNumber) -> Result<(), StaleTerm> {
        if below.term < self.void_below.term {
            return Err(StaleTerm { ordered: below.term, seen: self.void_below.term });
        }
        self.void_below = below.max(self.void_below);
        Ok(())
    }

    pub(super) fn is_void(&self, order: OrderNumber) -> bool {
        order < self.void_below
    }

    /// Uploads below the watermark are over: their pins say nothing any more.
    pub(super) fn forget_pins(&mut self, watermark: UploadId) {
        self.pins.retain(|_, pin| *pin >= watermark);
    }

    pub(super) fn may_collect(&self, digest: Digest, watermark: UploadId) -> bool {
        !self.busy.contains_key(&digest) && self.pins.get(&digest).is_none_or(|pin| *pin < watermark)
    }

    pub(super) fn list(&self, after: Option<Digest>, limit: usize) -> (Vec<Digest>, bool) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut above = self.sizes.range((from, Bound::Unbounded)).map(|(digest, _)| *digest);
        let digests: Vec<Digest> = above.by_ref().take(limit).collect();
        (digests, above.next().is_some())
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        assert_eq!(self.bytes, self.sizes.values().sum::<u64>(), "the byte total is the sum of the sizes");
        assert!(self.busy.values().all(|puts| *puts > 0), "no put is counted that is not in progress");
    }
}
