//! What a holder may not delete: blobs that are being stored, and blobs that an upload has touched and not committed.
//!
//! Decides whether a blob may be deleted under a coordinator's watermark. The store runs this beside its list of blobs, the
//! simulator runs the same code.
//!
//! Source: our own; see [`crate::uploads`] for the coordinator's side.
//!
//! Invariants: a blob with a put in progress may not be deleted, nor may one that an upload at or above the watermark has
//! touched. Orders to delete may arrive in any order: one whose watermark is below another's that was seen deletes
//! nothing, because the pins that would hold against it may be forgotten.
//!
//! Bounds: one pin per blob touched by an upload that is not known to be over, one count per blob being stored.
//!
//! Does not do: survive a restart. The coordinator sends no order to delete while an upload from before it is alive.

use std::collections::BTreeMap;

use idunno_shared::ids::{Digest, UploadId};

use crate::invariant::InvariantViolation;

/// The pins of one holder, since its process started.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    /// The newest upload that touched a blob.
    newest: BTreeMap<Digest, UploadId>,
    /// Puts in progress.
    puts: BTreeMap<Digest, u32>,
    /// The highest watermark seen: pins below it are forgotten.
    forgotten_below: UploadId,
}

impl Pins {
    /// A put begins, as part of an upload or of a repair.
    pub fn begin_put(&mut self, digest: Digest, upload: Option<UploadId>) {
        *self.puts.entry(digest).or_default() += 1;
        if let Some(upload) = upload {
            let pin = self.newest.entry(digest).or_default();
            *pin = upload.max(*pin);
        }
    }

    /// A put has ended. The pin of one that failed stays: it can only delay a deletion.
    pub fn end_put(&mut self, digest: Digest) {
        if let Some(puts) = self.puts.get_mut(&digest) {
            *puts -= 1;
            if *puts == 0 {
                self.puts.remove(&digest);
            }
        }
    }

    /// The blob was deleted.
    pub fn deleted(&mut self, digest: Digest) {
        self.newest.remove(&digest);
    }

    /// Forgets the pins of uploads below the watermark, because those uploads are over.
    pub fn forget_below(&mut self, watermark: UploadId) {
        self.newest.retain(|_, upload| *upload >= watermark);
        self.forgotten_below = watermark.max(self.forgotten_below);
    }

    /// Whether an order to delete the blob may be obeyed. Every upload below the order's watermark is over.
    pub fn may_delete(&self, digest: Digest, watermark: UploadId) -> bool {
        let is_pinned = self.newest.get(&digest).is_some_and(|upload| *upload >= watermark);
        watermark >= self.forgotten_below && !is_pinned && !self.puts.contains_key(&digest)
    }

    /// Whether the invariants hold.
    pub fn check(&self) -> Result<(), InvariantViolation> {
        let ended = self.puts.iter().find(|(_, puts)| **puts == 0);
        InvariantViolation::unless(ended.is_none(), || format!("a put is counted that has ended: {ended:?}"))
    }
}

#[cfg(test)]
mod tests {
    use idunno_shared::ids::Term;

    use super::*;

    fn upload(number: u64) -> UploadId {
        UploadId { term: Term(1), number }
    }

    #[test]
    fn a_blob_is_kept_for_the_newest_upload_that_touched_it() {
        let (mut pins, blob) = (Pins::default(), Digest::of(b"blob"));
        for number in [3, 5, 4] {
            pins.begin_put(blob, Some(upload(number)));
            pins.end_put(blob);
        }
        pins.check().unwrap();
        assert!(!pins.may_delete(blob, upload(5)), "the newest counts, not the last");
        assert!(pins.may_delete(blob, upload(6)));
        pins.forget_below(upload(5));
        assert!(!pins.may_delete(blob, upload(5)), "nothing at the watermark is forgotten");
        pins.deleted(blob);
        assert!(pins.may_delete(blob, upload(5)));
    }

    /// Found by the simulator: the blob was unreferenced when the first order was given, and is committed by upload 7 when
    /// that order arrives, after one that was given later.
    #[test]
    fn an_order_that_arrives_late_deletes_nothing_that_was_committed_meanwhile() {
        let (mut pins, blob) = (Pins::default(), Digest::of(b"blob"));
        pins.begin_put(blob, Some(upload(7)));
        pins.end_put(blob);
        pins.forget_below(upload(10));
        assert!(!pins.may_delete(blob, upload(5)), "upload 7 has touched it");
        assert!(pins.may_delete(blob, upload(10)), "a newer order knows what was committed");
    }

    #[test]
    fn a_put_in_progress_keeps_the_blob_whatever_its_upload() {
        let (mut pins, blob) = (Pins::default(), Digest::of(b"blob"));
        pins.begin_put(blob, None);
        pins.begin_put(blob, Some(upload(1)));
        pins.end_put(blob);
        assert!(!pins.may_delete(blob, upload(9)));
        pins.end_put(blob);
        assert!(pins.may_delete(blob, upload(9)));
        pins.check().unwrap();
    }
}
