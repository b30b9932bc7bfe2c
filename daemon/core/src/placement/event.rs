//! The events that the driver hands to the replication planner, and the effects that the planner asks for.

use std::sync::Arc;

use idunno_shared::ids::{Digest, NodeId};

use super::inventory::{Page, Reconciled};
use super::replication::{CopyTask, Garbage};
use super::{Members, ReplicationPlanner};
use crate::invariant::InvariantViolation;
use crate::machine::Machine;
use crate::metadata::{HolderChange, State};
use crate::time::Instant;
use crate::uploads::DeletionPermit;

/// The metadata and the members at the moment of an event.
#[derive(Clone, Debug)]
pub struct StoreSnapshot {
    /// The metadata, as far as it is applied.
    pub state: Arc<State>,
    /// Which members are reachable.
    pub members: Members,
}

/// Something happened, or is due.
#[derive(Clone, Debug)]
pub enum ReplicationEvent {
    /// The metadata or the members may have changed: answered by a [`ReplicationEffect::Copy`] for each copy to begin.
    Observed(StoreSnapshot),
    /// A copy is over, also where its target died. A successful one is in the metadata by now.
    CopyEnded {
        /// The blob.
        digest: Digest,
        /// The member that was to store it.
        target: NodeId,
        /// Whether it did.
        ok: bool,
    },
    /// A page of a member's inventory is to be asked for: answered by [`ReplicationEffect::AskInventory`].
    InventoryDue {
        /// The metadata now.
        state: Arc<State>,
        /// The member.
        node: NodeId,
        /// Where the page before ended.
        after: Option<Digest>,
    },
    /// A page of a member's inventory came: answered by [`ReplicationEffect::Reconcile`].
    InventoryRead {
        /// The metadata and the members when the page arrived.
        snapshot: StoreSnapshot,
        /// The member.
        node: NodeId,
        /// The blobs that it holds after `after`, up to the last one here.
        digests: Vec<Digest>,
        /// Where the page before ended.
        after: Option<Digest>,
        /// Whether nothing follows.
        last: bool,
    },
    /// Look for copies beyond those wanted: answered by [`ReplicationEffect::Trim`] if there are any.
    TrimDue(StoreSnapshot),
    /// Look for blobs that nothing refers to: answered by [`ReplicationEffect::Forget`] if there are any.
    GarbageDue(StoreSnapshot),
    /// A member is to delete blobs whose records are gone: answered by [`ReplicationEffect::Delete`] if any of them
    /// still may go, or by [`ReplicationEffect::EndUploads`]. The snapshot is newer than the permit.
    DeletionDue {
        /// Taken after the permit was given.
        snapshot: StoreSnapshot,
        /// The member, and its permit.
        permit: DeletionPermit,
        /// The blobs.
        digests: Vec<Digest>,
    },
    /// A deletion order was answered, whether it was carried out or not. Not reported while no answer came, because the
    /// order may still be carried out.
    DeletionEnded {
        /// The member.
        node: NodeId,
        /// The order's number.
        order: u64,
        /// Its blobs.
        digests: Vec<Digest>,
    },
}

/// What the driver is to do; effects are carried out in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicationEffect {
    /// Have a member copy a blob, and report [`ReplicationEvent::CopyEnded`].
    Copy(CopyTask),
    /// Ask a member for a page of its inventory. The member first voids the deletion orders below `void_below`.
    AskInventory {
        /// The member.
        node: NodeId,
        /// Where the page before ended.
        after: Option<Digest>,
        /// Deletion orders with lower numbers are void from then on.
        void_below: u64,
    },
    /// Put into the metadata what a page of an inventory showed, before the next page is asked for.
    Reconcile {
        /// The member.
        node: NodeId,
        /// What the page calls for.
        reconciled: Reconciled,
    },
    /// Drop these records; then have the members delete the bytes, each by [`ReplicationEvent::DeletionDue`].
    Trim(Vec<HolderChange>),
    /// Drop these entries; then have the members delete the bytes, each by [`ReplicationEvent::DeletionDue`].
    Forget(Garbage),
    /// Put into the log that the uploads below the permit's watermark are over, then report
    /// [`ReplicationEvent::DeletionDue`] again.
    EndUploads {
        /// The permit for the deletion.
        permit: DeletionPermit,
        /// The blobs.
        digests: Vec<Digest>,
    },
    /// Order a member to delete blobs, once it is confirmed that this coordinator still leads, and report
    /// [`ReplicationEvent::DeletionEnded`].
    Delete {
        /// The member, its boot, and the watermark.
        permit: DeletionPermit,
        /// The order's number.
        order: u64,
        /// The blobs.
        digests: Vec<Digest>,
    },
}

impl Machine for ReplicationPlanner {
    type Event = ReplicationEvent;
    type Effect = ReplicationEffect;

    fn handle(&mut self, event: ReplicationEvent, now: Instant) {
        match event {
            ReplicationEvent::Observed(StoreSnapshot { state, members }) => {
                let copies = self.plan(&state, &members, now);
                self.effects.extend(copies.into_iter().map(ReplicationEffect::Copy));
            }
            ReplicationEvent::CopyEnded { digest, target, ok } => self.finished(digest, target, ok, now),
            ReplicationEvent::InventoryDue { state, node, after } => {
                let void_below = self.ask_inventory(&state, node, after);
                self.effects.push_back(ReplicationEffect::AskInventory { node, after, void_below });
            }
            ReplicationEvent::InventoryRead { snapshot, node, digests, after, last } => {
                let page = Page { node, digests: &digests, after, last };
                let reconciled = self.reconcile(&snapshot.state, &snapshot.members, page);
                self.effects.push_back(ReplicationEffect::Reconcile { node, reconciled });
            }
            ReplicationEvent::TrimDue(StoreSnapshot { state, members }) => {
                let trims = self.trim(&state, &members);
                self.effects.extend((!trims.is_empty()).then_some(ReplicationEffect::Trim(trims)));
            }
            ReplicationEvent::GarbageDue(StoreSnapshot { state, members }) => {
                let garbage = self.garbage(&state, &members);
                let is_due = !garbage.forget.is_empty();
                self.effects.extend(is_due.then_some(ReplicationEffect::Forget(garbage)));
            }
            // A commit under an upload that is over, on its way to the log or in it, could still bring back its blobs.
            ReplicationEvent::DeletionDue { snapshot, permit, digests }
                if snapshot.state.upload_watermark() < permit.watermark =>
            {
                self.effects.push_back(ReplicationEffect::EndUploads { permit, digests });
            }
            ReplicationEvent::DeletionDue {
                snapshot: StoreSnapshot { state, members },
                permit,
                mut digests,
            } => {
                digests.retain(|digest| self.may_collect(&state, &members, permit.node, digest));
                if !digests.is_empty() {
                    let order = self.collecting(permit.node, &digests);
                    self.effects.push_back(ReplicationEffect::Delete { permit, order, digests });
                }
            }
            ReplicationEvent::DeletionEnded { node, order, digests } => {
                self.collected(node, order, &digests);
            }
        }
    }

    /// At once while blobs are to be counted: by the next [`ReplicationEvent::Observed`]. Whatever else waits for time (an
    /// absent holder's grace, a failed copy's pause) is found by the one after, which the driver hands in regularly.
    fn next_deadline(&self) -> Option<Instant> {
        self.is_behind().then_some(Instant::START)
    }

    fn poll_effect(&mut self) -> Option<ReplicationEffect> {
        self.effects.pop_front()
    }

    fn check(&self) -> Result<(), InvariantViolation> {
        self.check_copies()
    }
}
