//! Plans copies, trims and garbage collection, and tracks the copies and deletions under way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use idunno_shared::ids::{Digest, NodeId};
use idunno_shared::wire::blobs::{BlobRef, COPIES};

use super::Members;
use super::ReplicationEffect;
use super::blob_index::{BlobIndex, Holdings, RECORDS_KEPT, StoreTotals};
use super::inventory::Asked;
use super::rendezvous::{Candidate, choose};
use crate::invariant::InvariantViolation;
use crate::metadata::{Blob, HolderChange, State};
use crate::time::Instant;

/// Most trims in one plan.
pub const TRIMS_PER_PLAN_MAX: usize = 1024;
/// Most digests that one plan of garbage names.
pub const DIGESTS_PER_COLLECT_MAX: usize = 4096;
/// Most blobs that one plan looks at from the start of the list, and from where the last plan ended.
const EXAMINED_PER_PLAN_MAX: usize = 4096;
/// Copies with which a blob waits for its absent holders to come back.
const COPIES_TO_WAIT: usize = 3;
/// Between two plans of copies, if nothing but time has passed: a pause or the wait for an absent holder may be over.
const REPLAN_PERIOD: Duration = Duration::from_millis(250);
/// Most failed copies that are remembered.
const FAILED_MAX: usize = 4096;
/// Consecutive failed copies, of whatever blobs, after which a member gets no copies for a while.
const FAILURES_IN_A_ROW_MAX: u32 = 8;

/// How copies are paced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicationConfig {
    /// Most copies under way to each member, and from each member; at least 1.
    pub copies_per_member: usize,
    /// How long a blob with three live copies waits for an absent holder to come back; longer than a restart.
    pub grace: Duration,
    /// How long a member that failed to take a copy is not asked for the same one again.
    pub retry_after: Duration,
}

impl Default for ReplicationConfig {
    fn default() -> Self {
        Self { copies_per_member: 8, grace: Duration::from_secs(10), retry_after: Duration::from_secs(5) }
    }
}

/// A copy to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyTask {
    /// The blob.
    pub blob: BlobRef,
    /// The member to fetch and store it.
    pub target: NodeId,
    /// The members to fetch it from, the least busy first.
    pub sources: Vec<NodeId>,
}

/// What nothing refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    /// What live members are to delete, once it is forgotten.
    pub collect: BTreeMap<NodeId, Vec<Digest>>,
    /// All entries that nothing refers to.
    pub forget: Vec<Digest>,
}

/// What a planner has looked at since its term began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicationStatistics {
    /// Blobs counted, each as often as it changed or members came or went.
    pub counted: u64,
    /// Blobs examined for copies.
    pub examined: u64,
}

/// Keeps the copies of blobs at their number. It lives in the coordinator of one term.
#[derive(Debug, Default)]
pub struct ReplicationPlanner {
    config: ReplicationConfig,
    index: BlobIndex,
    /// Copies under way, by blob and target: the source that is counted for it.
    copying: BTreeMap<(Digest, NodeId), NodeId>,
    copies_to: BTreeMap<NodeId, usize>,
    copies_from: BTreeMap<NodeId, usize>,
    failed: BTreeMap<(Digest, NodeId), Instant>,
    /// Consecutive failures at a member, and until when it gets no copies.
    failing: BTreeMap<NodeId, (u32, Option<Instant>)>,
    /// Deletions ordered that may still be carried out, with the order's number: one blob may be in several.
    pub(super) collecting: BTreeSet<(NodeId, Digest, u64)>,
    pub(super) next_order: u64,
    /// Inventories that are being asked for.
    pub(super) asked: BTreeMap<NodeId, Asked>,
    /// Members that have voided the orders of earlier coordinators. One that led this same term may have left orders to
    /// delete on their way; a member still obeys them, and nothing pins a copy against them.
    pub(super) settled: BTreeSet<NodeId>,
    repair_cursor: (usize, Digest),
    /// Whether a copy may have become possible since the last plan.
    pub(super) may_copy_more: bool,
    planned_at: Instant,
    examined: u64,
    pub(super) effects: VecDeque<ReplicationEffect>,
}

impl ReplicationPlanner {
    /// A planner with nothing under way. `first_order` is a [`first_number`](crate::uploads::first_number).
    pub fn new(config: ReplicationConfig, first_order: u64) -> Self {
        Self { config, next_order: first_order, ..Self::default() }
    }

    /// The store in figures, as of the last plan.
    pub fn figures(&self) -> StoreTotals {
        self.index.figures()
    }

    /// What each member holds, as of the last plan.
    pub fn holdings(&self) -> &BTreeMap<NodeId, Holdings> {
        &self.index.holdings
    }

    /// How many copies are under way.
    pub fn copies_under_way(&self) -> usize {
        self.copying.len()
    }

    /// What the planner has looked at.
    pub fn statistics(&self) -> ReplicationStatistics {
        ReplicationStatistics { counted: self.index.counted, examined: self.examined }
    }

    /// Whether blobs are still to be counted after members came or went.
    pub(super) fn is_behind(&self) -> bool {
        self.index.is_behind()
    }

    /// The copies to be started now. Each is under way until [`ReplicationPlanner::finished`] is called for it. Most entries
    /// of the log change nothing about that.
    pub(super) fn plan(&mut self, state: &State, members: &Members, now: Instant) -> Vec<CopyTask> {
        self.index.observe(state, members);
        let is_due =
            std::mem::take(&mut self.index.is_short_changed) | std::mem::take(&mut self.may_copy_more);
        if !is_due && now < self.planned_at + REPLAN_PERIOD {
            return Vec::new();
        }
        self.planned_at = now;
        self.failed.retain(|_, until| *until > now);
        self.failing.retain(|node, _| members.live.contains_key(node));
        // Without any live copy there is nothing to copy from.
        let first = (1, Digest::default());
        let from_cursor = self.index.short.range(self.repair_cursor.max(first)..).take(EXAMINED_PER_PLAN_MAX);
        let from_start = self.index.short.range(first..).take(EXAMINED_PER_PLAN_MAX);
        let resume = from_cursor.clone().nth(EXAMINED_PER_PLAN_MAX - 1).copied();
        let examined: Vec<(usize, Digest)> = from_start.chain(from_cursor).copied().collect();
        self.repair_cursor = resume.unwrap_or_default();
        let mut tasks = Vec::new();
        for (_, digest) in examined {
            self.examined += 1;
            if !members.live.keys().any(|node| self.may_take_copy(*node, now)) {
                break;
            }
            if let Some(blob) = state.blob(&digest) {
                self.plan_blob(digest, blob, members, now, &mut tasks);
            }
        }
        tasks
    }

    fn may_take_copy(&self, node: NodeId, now: Instant) -> bool {
        let is_paused =
            self.failing.get(&node).is_some_and(|(_, until)| until.is_some_and(|until| until > now));
        let is_settled = self.settled.contains(&node);
        is_settled
            && !is_paused
            && self.copies_to.get(&node).is_none_or(|copies| *copies < self.config.copies_per_member)
    }

    fn plan_blob(
        &mut self,
        digest: Digest,
        blob: &Blob,
        members: &Members,
        now: Instant,
        tasks: &mut Vec<CopyTask>,
    ) {
        let absent = |node: &NodeId| {
            members.absent.get(node).is_some_and(|since| now.since(*since) < self.config.grace)
        };
        // The index may be behind.
        let copies = members.live_among(&blob.holders);
        if copies >= COPIES_TO_WAIT && blob.holders.iter().any(absent) {
            return;
        }
        let under_way = self
            .copies_of(digest)
            .filter(|target| members.live.contains_key(target) && !blob.holders.contains(target));
        let under_way = under_way.count();
        let missing = self.index.copies_wanted().saturating_sub(copies + under_way);
        if missing == 0 {
            return;
        }
        let fit = |(node, free_bytes): (&NodeId, &u64)| {
            let fits = *free_bytes > blob.size
                && self.may_take_copy(*node, now)
                && !blob.holders.contains(node)
                && !self.copying.contains_key(&(digest, *node))
                && !self.failed.contains_key(&(digest, *node))
                && !self.is_collecting(digest, *node);
            fits.then_some(Candidate { node: *node, free_bytes: *free_bytes })
        };
        let candidates: Vec<Candidate> = members.live.iter().filter_map(fit).collect();
        for target in choose(&digest, &candidates, &[], missing) {
            let Some(sources) = self.sources(blob, members) else { return };
            self.copying.insert((digest, target), sources[0]);
            *self.copies_to.entry(target).or_insert(0) += 1;
            *self.copies_from.entry(sources[0]).or_insert(0) += 1;
            tasks.push(CopyTask { blob: BlobRef { digest, size: blob.size }, target, sources });
        }
    }

    /// The live holders, the least busy first; none while all are busy.
    fn sources(&self, blob: &Blob, members: &Members) -> Option<Vec<NodeId>> {
        let busy = |node: &NodeId| self.copies_from.get(node).copied().unwrap_or(0);
        let live = blob.holders.iter().copied().filter(|node| members.live.contains_key(node));
        let mut sources: Vec<NodeId> = live.collect();
        sources.sort_by_key(busy);
        let free = sources.first().is_some_and(|node| busy(node) < self.config.copies_per_member);
        free.then_some(sources)
    }

    fn copies_of(&self, digest: Digest) -> impl Iterator<Item = &NodeId> {
        let all = (digest, NodeId(0))..=(digest, NodeId(u64::MAX));
        self.copying.range(all).map(|((_, target), _)| target)
    }

    /// A copy is over, also if its target died. A successful one must be in the metadata before this is called: until then
    /// its blob is not collected at the target.
    pub(super) fn finished(&mut self, digest: Digest, target: NodeId, ok: bool, now: Instant) {
        if !self.end_copy(digest, target) {
            return;
        }
        self.may_copy_more = true;
        if ok {
            self.failing.remove(&target);
            return;
        }
        let until = now + self.config.retry_after;
        if self.failed.len() < FAILED_MAX {
            self.failed.insert((digest, target), until);
        }
        let (count, paused_until) = self.failing.entry(target).or_default();
        *count = count.saturating_add(1);
        *paused_until = (*count >= FAILURES_IN_A_ROW_MAX).then_some(until);
    }

    fn end_copy(&mut self, digest: Digest, target: NodeId) -> bool {
        let Some(source) = self.copying.remove(&(digest, target)) else { return false };
        for (counts, node) in [(&mut self.copies_to, target), (&mut self.copies_from, source)] {
            if let Some(count) = counts.get_mut(&node) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&node);
                }
            }
        }
        true
    }

    /// Whether an order to delete a blob at a member may still be sent.
    ///
    /// Called right before the order is sent, because it was planned from an older state. A blob being copied to the member
    /// stays.
    pub(super) fn may_collect(
        &self,
        state: &State,
        members: &Members,
        node: NodeId,
        digest: &Digest,
    ) -> bool {
        if self.copying.contains_key(&(*digest, node)) {
            return false;
        }
        state.blob(digest).is_none_or(|blob| {
            let spare = !blob.holders.contains(&node) && members.live_among(&blob.holders) >= COPIES;
            blob.references == 0 || spare
        })
    }

    /// The records to be dropped: those of surplus copies, and those of members that are long gone. The bytes are deleted
    /// later: the next inventory finds them unrecorded, or the driver orders their deletion once the change is in the
    /// metadata.
    pub(super) fn trim(&mut self, state: &State, members: &Members) -> Vec<HolderChange> {
        self.index.observe(state, members);
        let trim = |digest: &Digest| {
            let live = state.holders(digest).iter().filter_map(|node| {
                let free_bytes = *members.live.get(node)?;
                Some(Candidate { node: *node, free_bytes })
            });
            let live: Vec<Candidate> = live.collect();
            let keep = choose(digest, &live, &[], COPIES);
            let holders = state.holders(digest);
            let spare = |node: &NodeId| {
                let counts = members.live.contains_key(node) || holders.len() > RECORDS_KEPT;
                counts && !keep.contains(node)
            };
            let remove: Vec<NodeId> = holders.iter().copied().filter(spare).collect();
            let enough = keep.len() == COPIES && !remove.is_empty();
            enough.then(|| HolderChange { digest: *digest, add: Vec::new(), remove })
        };
        self.index.excess.iter().filter_map(trim).take(TRIMS_PER_PLAN_MAX).collect()
    }

    /// The blobs that nothing refers to. Their entries go first, by [`crate::metadata::Action::Forget`]; the deletion orders
    /// follow once that is in the metadata, each after [`ReplicationPlanner::may_collect`]. A blob that no order reaches is
    /// found by the member's next inventory.
    pub(super) fn garbage(&mut self, state: &State, members: &Members) -> Garbage {
        self.index.observe(state, members);
        let mut garbage = Garbage::default();
        for digest in self.index.unreferenced.iter().take(DIGESTS_PER_COLLECT_MAX) {
            garbage.forget.push(*digest);
            for node in state.holders(digest).iter().filter(|node| members.live.contains_key(node)) {
                if !self.is_copying(*digest, *node) && !self.is_collecting(*digest, *node) {
                    garbage.collect.entry(*node).or_default().push(*digest);
                }
            }
        }
        garbage
    }

    /// A deletion order is about to be sent, under the returned number. The member is not recorded as a holder of these
    /// blobs until [`ReplicationPlanner::collected`], or until its next inventory has voided the order.
    pub(super) fn collecting(&mut self, node: NodeId, digests: &[Digest]) -> u64 {
        let order = self.next_order;
        self.next_order += 1;
        self.collecting.extend(digests.iter().map(|digest| (node, *digest, order)));
        order
    }

    /// A deletion order was answered, whether it was carried out or not. The records were dropped before it was sent.
    ///
    /// Not called while no answer came, because the order may still be carried out.
    pub(super) fn collected(&mut self, node: NodeId, order: u64, digests: &[Digest]) {
        for digest in digests {
            self.collecting.remove(&(node, *digest, order));
        }
        if let Some(asked) = self.asked.get_mut(&node) {
            asked.collected.extend(digests);
        }
    }

    pub(super) fn check_copies(&self) -> Result<(), InvariantViolation> {
        let limit = self.config.copies_per_member;
        for (counts, what) in [(&self.copies_to, "to"), (&self.copies_from, "from")] {
            let total: usize = counts.values().sum();
            InvariantViolation::unless(total == self.copying.len(), || {
                format!("{total} copies are counted {what} members, {} are under way", self.copying.len())
            })?;
            let over = counts.iter().find(|(_, count)| **count > limit);
            InvariantViolation::unless(over.is_none(), || format!("too many copies {what} {over:?}"))?;
        }
        let failed = self.failed.len();
        InvariantViolation::unless(failed <= FAILED_MAX, || format!("{failed} failed copies are remembered"))
    }

    pub(super) fn is_copying(&self, digest: Digest, node: NodeId) -> bool {
        self.copying.contains_key(&(digest, node))
    }

    pub(super) fn is_collecting(&self, digest: Digest, node: NodeId) -> bool {
        self.collecting.range((node, digest, 0)..=(node, digest, u64::MAX)).next().is_some()
    }
}
