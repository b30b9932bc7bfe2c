//! The store's in-memory index, without I/O: which blobs are stored, and which may be deleted. [`Pins`] holds the blobs that
//! uploads protect.
//!
//! Invariants: the byte total is the sum of the sizes. Bounds: one entry per blob, and those of [`Pins`].

use std::collections::BTreeMap;
use std::ops::Bound;

use idunno_core::placement::Pins;
use idunno_shared::ids::{Digest, Term, UploadId};
use idunno_shared::wire::blobs::BlobRef;

use super::{OrderNumber, StaleTerm};

#[derive(Default)]
pub(super) struct Index {
    sizes: BTreeMap<Digest, u64>,
    bytes: u64,
    pins: Pins,
    /// Of the highest term seen: deletion orders with lower numbers are void.
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
        self.pins.deleted(digest);
    }

    /// The blob was damaged. Its pin stays: it may be stored again under the same upload.
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
        self.pins.begin_put(digest, upload);
    }

    pub(super) fn end(&mut self, digest: Digest) {
        self.pins.end_put(digest);
    }

    pub(super) fn observe(&mut self, term: Term) -> Result<(), StaleTerm> {
        self.make_void(OrderNumber { term, number: 0 })
    }

    /// Voids deletion orders below this one, and all of older terms.
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

    pub(super) fn forget_pins(&mut self, watermark: UploadId) {
        self.pins.forget_below(watermark);
    }

    pub(super) fn may_collect(&self, digest: Digest, watermark: UploadId) -> bool {
        self.pins.may_delete(digest, watermark)
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
        self.pins.check().unwrap();
    }
}
