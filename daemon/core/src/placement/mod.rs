//! Where blobs go, and what keeps enough copies of them: placement, repair, trimming, garbage collection.
//!
//! Decides, from the metadata and the reachable members: the members for a new blob ([`choose`]); which blobs are to be
//! copied where, which copies are too many, which blobs nothing refers to, and what to make of a member's inventory
//! ([`ReplicationPlanner`], a machine); and, at a holder, which blobs may be deleted ([`Pins`]). It orders nothing itself:
//! the driver sends the orders, and puts their outcomes into the log.
//!
//! Sources: rendezvous hashing (Thaler and Ravishankar 1998) with weights (Schindelhauer and Schomaker 2005).
//!
//! Invariants:
//! - a copy is planned only of a blob that is referred to, from a live recorded holder to a live member that is not one;
//! - a copy of something referred to is given up only while [`COPIES`](idunno_shared::wire::blobs::COPIES) other live
//!   members are recorded to hold it, and its record goes before its bytes do: nothing counts on what is being deleted;
//! - a member is sent copies only after an inventory has voided what earlier coordinators ordered it to delete;
//! - at most [`ReplicationConfig::copies_per_member`] copies are under way to, and as many from, each member.
//!
//! Bounds: each plan has at most as many entries as its constant says. Memory grows with the blobs that need something.
//! A change of the reachable members costs one pass over all blobs, in steps of bounded length; all else costs in
//! proportion to what changed.

use std::collections::BTreeMap;

use idunno_shared::ids::NodeId;

use crate::time::Instant;

mod blob_index;
mod event;
mod inventory;
mod pins;
mod rendezvous;
mod replication;
#[cfg(test)]
mod tests;

pub use blob_index::{COUNTED_PER_STEP_MAX, Holdings, StoreTotals};
pub use event::{ReplicationEffect, ReplicationEvent, StoreSnapshot};
pub use inventory::Reconciled;
pub use pins::Pins;
pub use rendezvous::{Candidate, SPACE_RESERVE_BYTES, choose};
pub use replication::{
    CopyTask, DIGESTS_PER_COLLECT_MAX, Garbage, ReplicationConfig, ReplicationPlanner, ReplicationStatistics,
    TRIMS_PER_PLAN_MAX,
};

/// Which members are reachable, as far as the coordinator knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Members that are up and not suspected, with the bytes free on their disks.
    pub live: BTreeMap<NodeId, u64>,
    /// Members that are suspected or dead, and since when. Members that left in good order, or that have been dead for
    /// long, may be left out.
    pub absent: BTreeMap<NodeId, Instant>,
}

impl Members {
    /// How many of `holders` are live.
    pub fn live_among(&self, holders: &[NodeId]) -> usize {
        holders.iter().filter(|node| self.live.contains_key(node)).count()
    }
}
