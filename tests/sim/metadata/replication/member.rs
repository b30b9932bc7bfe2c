//! A member as replication sees it: a process that carries out orders, and a disk.

use std::collections::BTreeSet;

use idunno_core::placement::Pins;
use idunno_core::time::Instant;
use idunno_shared::ids::{Digest, Term, UploadId};

/// Digests in a page of an inventory.
pub(super) const PAGE: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Up,
    Crashed,
    Destroyed,
}

/// A member's process and disk.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) health: Health,
    pub(super) disk: BTreeSet<Digest>,
    pins: Pins,
    /// The highest term of its orders, and the number below which deletion orders of that term are void.
    term: Term,
    pub(super) void_below: u64,
    pub(super) absent_since: Instant,
    /// How often it was restarted.
    pub(super) boot: u64,
}

impl Node {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            health: Health::Up,
            disk: BTreeSet::new(),
            pins: Pins::default(),
            term: Term(0),
            void_below: 0,
            absent_since: now,
            boot: 0,
        }
    }

    pub(super) fn store(&mut self, digest: Digest, upload: UploadId) {
        self.pins.begin_put(digest, Some(upload));
        self.disk.insert(digest);
        self.pins.end_put(digest);
    }

    pub(super) fn crash(&mut self, now: Instant) {
        (self.health, self.absent_since) = (Health::Crashed, now);
        self.void_below = 0;
        self.pins = Pins::default();
    }

    pub(super) fn restart(&mut self) {
        self.health = Health::Up;
        self.boot += 1;
    }

    /// Whether it runs and accepts an order of this term: it has seen no later one.
    pub(super) fn accepts(&mut self, term: Term) -> bool {
        if term > self.term {
            (self.term, self.void_below) = (term, 0);
        }
        self.health == Health::Up && term == self.term
    }

    /// Deletes blobs that are not pinned, unless the order is void. Returns how many were deleted, and how many kept.
    pub(super) fn collect(&mut self, order: u64, watermark: UploadId, digests: &[Digest]) -> (u64, u64) {
        self.pins.forget_below(watermark);
        let (mut collected, mut spared) = (0, 0);
        for &digest in digests.iter().filter(|_| order >= self.void_below) {
            if self.pins.may_delete(digest, watermark) {
                collected += u64::from(self.disk.remove(&digest));
                self.pins.deleted(digest);
            } else {
                spared += 1;
            }
        }
        (collected, spared)
    }

    /// A page of its inventory.
    pub(super) fn list(&mut self, void_below: u64, after: Option<Digest>) -> Vec<Digest> {
        self.void_below = self.void_below.max(void_below);
        let digests = self.disk.iter().filter(|digest| after.is_none_or(|after| **digest > after));
        digests.take(PAGE).copied().collect()
    }
}
