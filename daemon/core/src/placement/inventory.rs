//! What to make of a member's inventory: the disk is the truth about copies, the metadata about what is wanted.

use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Included, Unbounded};

use idunno_shared::ids::{Digest, NodeId};
use idunno_shared::wire::blobs::COPIES;

use super::{Members, ReplicationPlanner};
use crate::metadata::{BlobTable, State};

/// What one page of an inventory calls for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// The member holds these, and they are wanted: to be recorded.
    pub add: Vec<Digest>,
    /// Recorded, but not there: the record is to be dropped.
    pub remove: Vec<Digest>,
    /// There, but not wanted there: to be deleted, each by [`ReplicationEvent::DeletionDue`](super::ReplicationEvent::DeletionDue).
    pub collect: Vec<Digest>,
}

/// A page that was requested.
#[derive(Debug)]
pub(super) struct Asked {
    /// The blobs as recorded when the page was requested.
    before: BlobTable,
    /// The blobs deleted at the member since then.
    pub(super) collected: BTreeSet<Digest>,
    /// Deletion orders with lower numbers were void before the member made the page.
    void_below: u64,
}

/// A page of a member's inventory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page<'a> {
    /// The member.
    pub(super) node: NodeId,
    /// All blobs that it holds after `after`, up to the last one here, in digest order.
    pub(super) digests: &'a [Digest],
    /// Where the page before ended.
    pub(super) after: Option<Digest>,
    /// Whether nothing follows.
    pub(super) last: bool,
}

impl ReplicationPlanner {
    /// A page of a member's inventory is about to be requested, at most one per member at a time. The member must void
    /// deletion orders below the returned number before it makes the page.
    pub(super) fn ask_inventory(&mut self, state: &State, node: NodeId, after: Option<Digest>) -> u64 {
        // The first page settles what was ordered before. Further ones would void what the pages before them have ordered,
        // which may still be on its way.
        let void_below = if after.is_none() { self.next_order } else { 0 };
        let (before, collected) = (state.blobs().clone(), BTreeSet::new());
        self.asked.insert(node, Asked { before, collected, void_below });
        void_below
    }

    /// Compares a page of an inventory with the metadata. A page that was not requested yields nothing.
    ///
    /// The page shows the disk at some moment since [`ReplicationPlanner::ask_inventory`]: a blob recorded since then may be
    /// on the disk but not in the page, and one deleted since then may be in the page but not on the disk. The result must
    /// be in the metadata before the member's next page is requested.
    pub(super) fn reconcile(&mut self, state: &State, members: &Members, page: Page<'_>) -> Reconciled {
        let Page { node, digests, after, last } = page;
        let Some(Asked { before, collected, void_below }) = self.asked.remove(&node) else {
            return Reconciled::default();
        };
        self.may_copy_more |= self.settled.insert(node);
        // The page shows the outcome of the orders below `void_below`, and they have no effect any more.
        self.collecting.retain(|&(at, _, order)| at != node || order >= void_below);
        let mut reconciled = Reconciled::default();
        // The page may be outdated for these: a blob may even have been deleted, stored again and recorded since.
        let in_motion = |digest: &Digest| {
            let deleted = self.is_collecting(*digest, node) || collected.contains(digest);
            deleted || self.is_copying(*digest, node)
        };
        for digest in digests {
            if in_motion(digest) {
                continue;
            }
            match state.blob(digest).filter(|blob| blob.references > 0) {
                Some(blob) if blob.holders.contains(&node) => {}
                Some(blob) if members.live_among(&blob.holders) < COPIES => reconciled.add.push(*digest),
                _ => reconciled.collect.push(*digest),
            }
        }
        let start = after.map_or(Unbounded, Excluded);
        let end = match digests.last() {
            _ if last => Unbounded,
            Some(end) => Included(*end),
            None => return reconciled,
        };
        if matches!((start, end), (Excluded(start), Included(end)) if start >= end) {
            return reconciled;
        }
        let listed: BTreeSet<&Digest> = digests.iter().collect();
        let recorded = state.blobs().range((start, end)).filter(|(_, blob)| blob.holders.contains(&node));
        let recorded_before =
            |digest: &Digest| before.get(digest).is_some_and(|blob| blob.holders.contains(&node));
        let lost = recorded.map(|(digest, _)| *digest).filter(|digest| {
            let missing = !listed.contains(digest) && recorded_before(digest);
            missing && !in_motion(digest)
        });
        reconciled.remove.extend(lost);
        reconciled
    }
}
