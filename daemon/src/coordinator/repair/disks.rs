//! What repair knows of each member's disk: its free space, and when it is asked again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use idunno_core::placement::Members;
use idunno_core::time::Instant;
use idunno_shared::ids::{Digest, NodeId};
use idunno_shared::wire::blobs::EXTENT_BYTES_MAX;
use idunno_shared::wire::membership::MemberState;

use super::TICK;
use crate::membership::MembershipView;

/// The free space of a member that has not reported it yet.
const FREE_BYTES_UNKNOWN: u64 = 64 << 30;
const FREE_SPACE_PERIOD: Duration = Duration::from_secs(10);
/// Between two inventories of a member. Blobs left there by orders that did not arrive, or by uploads that were given up,
/// stay that long.
const INVENTORY_PERIOD_MIN: Duration = Duration::from_secs(10);
const INVENTORY_PERIOD_MAX: Duration = Duration::from_secs(600);
/// A period grows by this for each blob at the member, so that inventories cost 32 KB a second at most.
const INVENTORY_PERIOD_PER_BLOB: Duration = Duration::from_millis(1);
/// Sorts after every other digest: an inventory from here on reports the free space and nothing else.
pub(super) const LAST_DIGEST: Digest = Digest([0xff; 32]);

/// A member's answer to a request for its inventory.
pub(in super::super) struct InventoryPage {
    pub(super) generation: u64,
    pub(super) digests: Vec<Digest>,
    pub(super) more: bool,
    pub(super) free_bytes: u64,
    /// Blobs that it has given up as damaged since it started.
    pub(super) damaged: u64,
    pub(super) disk_hung: bool,
}

/// The disks of the live members.
#[derive(Default)]
pub(super) struct Disks {
    live: BTreeMap<NodeId, Disk>,
    /// Members that are suspected or dead, and since when.
    absent: BTreeMap<NodeId, Instant>,
}

struct Disk {
    /// The member's boot count, as membership has it.
    generation: u64,
    free_bytes: u64,
    /// Its member says that it does not answer.
    hung: bool,
    inventory_at: Instant,
    free_space_at: Instant,
    /// From the request for an inventory's first page to the answer to its last.
    asking: bool,
    /// Blobs listed by the inventory that is being asked for.
    listed: u32,
    /// Blobs it had given up as damaged when the last inventory was begun.
    damaged: u64,
    /// The page that is being compared with the metadata.
    page: Option<PageEnd>,
}

#[derive(Clone, Copy)]
struct PageEnd {
    /// The last digest, where more follow.
    next: Option<Digest>,
    damaged: u64,
}

impl Disks {
    /// The members as placement sees them; brings the disks up to date with them.
    pub(super) fn members(&mut self, view: &MembershipView, now: Instant) -> Members {
        let mut members = Members::default();
        for (&node, member) in &view.members {
            match member.record.state {
                MemberState::Alive => {
                    self.absent.remove(&node);
                    let generation = member.record.generation.into();
                    let disk = self.live.entry(node).or_insert_with(|| Disk::new(generation, now));
                    if disk.generation != generation {
                        *disk = Disk::new(generation, now);
                    }
                    members.live.insert(node, disk.free_bytes);
                }
                MemberState::Suspect | MemberState::Dead => {
                    self.live.remove(&node);
                    self.absent.entry(node).or_insert(now);
                }
                MemberState::Left => {
                    self.live.remove(&node);
                    self.absent.remove(&node);
                }
            }
        }
        members.absent = self.absent.clone();
        members
    }

    /// The live members whose disks do not answer.
    pub(super) fn hung(&self) -> BTreeSet<NodeId> {
        self.live.iter().filter(|(_, disk)| disk.hung).map(|(&node, _)| node).collect()
    }

    /// How many live members have no room for another extent.
    pub(super) fn full(&self) -> u64 {
        self.live.values().filter(|disk| disk.free_bytes < EXTENT_BYTES_MAX).count() as u64
    }

    pub(super) fn generation(&self, node: NodeId) -> u64 {
        self.live.get(&node).map_or(0, |disk| disk.generation)
    }

    /// The members to be asked now, and whether for their inventory, or for their free space alone.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(NodeId, bool)> {
        let due = self.live.iter_mut().filter(|(_, disk)| !disk.asking && disk.free_space_at <= now);
        let ask = |(&node, disk): (&NodeId, &mut Disk)| {
            disk.asking = true;
            (node, disk.inventory_at <= now)
        };
        due.map(ask).collect()
    }

    pub(super) fn ask_soon(&mut self, node: NodeId, now: Instant) {
        if let Some(disk) = self.live.get_mut(&node) {
            disk.free_space_at = disk.free_space_at.min(now);
        }
    }

    /// Processes an answer; returns it if it arrived and comes from the member's current process.
    pub(super) fn take_page(
        &mut self,
        node: NodeId,
        after: Option<Digest>,
        page: Option<InventoryPage>,
        now: Instant,
    ) -> Option<InventoryPage> {
        let disk = self.live.get_mut(&node)?;
        disk.asking = false;
        // Membership may not know of the restart yet, or the answer is from before it.
        let Some(page) = page.filter(|page| page.generation == disk.generation) else {
            disk.free_space_at = now + TICK;
            return None;
        };
        disk.free_space_at = now + FREE_SPACE_PERIOD;
        disk.free_bytes = page.free_bytes;
        disk.hung = page.disk_hung;
        if page.damaged != disk.damaged && after.is_some() {
            // Its lost blobs are still recorded: ask for the inventory at once.
            disk.inventory_at = now;
        }
        if after == Some(LAST_DIGEST) {
            if disk.inventory_at <= now {
                disk.free_space_at = now;
            }
            return Some(page);
        }
        if after.is_none() {
            (disk.damaged, disk.listed) = (page.damaged, 0);
        }
        disk.listed = disk.listed.saturating_add(u32::try_from(page.digests.len()).unwrap_or(u32::MAX));
        let next = page.digests.last().copied().filter(|_| page.more);
        disk.page = Some(PageEnd { next, damaged: page.damaged });
        Some(page)
    }

    /// The page is in the log. Returns where the next one begins, if there is one.
    pub(super) fn end_page(&mut self, node: NodeId, now: Instant) -> Option<Digest> {
        let disk = self.live.get_mut(&node)?;
        let page = disk.page.take()?;
        if page.next.is_some() {
            disk.asking = true;
        } else if page.damaged == disk.damaged {
            let period = INVENTORY_PERIOD_PER_BLOB.saturating_mul(disk.listed);
            disk.inventory_at = now + period.clamp(INVENTORY_PERIOD_MIN, INVENTORY_PERIOD_MAX);
        }
        page.next
    }
}

impl Disk {
    fn new(generation: u64, now: Instant) -> Self {
        Self {
            generation,
            free_bytes: FREE_BYTES_UNKNOWN,
            hung: false,
            inventory_at: now,
            free_space_at: now,
            asking: false,
            listed: 0,
            damaged: 0,
            page: None,
        }
    }
}
