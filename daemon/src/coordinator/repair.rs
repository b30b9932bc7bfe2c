//! Keeps four copies of every blob, and deletes what nothing refers to: carries out the plans of `core::placement`.
//!
//! One task a term. Orders to file servers run beside it and come back as outcomes; outcomes that came together go
//! into the log together. Nothing is deleted without a fresh confirmation that this member still leads.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use idunno_core::metadata::{Action, HolderChange, State};
use idunno_core::placement::{
    Candidate, CopyTask, Holdings, Members, Page, ReplicationConfig, ReplicationPlanner,
};
use idunno_core::time::Instant;
use idunno_shared::client::connections::PeerError;
use idunno_shared::ids::{Digest, NodeId, Term};
use idunno_shared::wire::blobs::{FileOrder, FileReply, FileRequest};
use idunno_shared::wire::control::StoreView;
use idunno_shared::wire::frame::{Reply, Request};
use idunno_shared::wire::membership::MemberState;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Deps, LeaderTerm};
use crate::runtime::clock::wall_ms;

/// What a member is taken to have free until it says so.
const FREE_BYTES_UNKNOWN: u64 = 64 << 30;
const COPY_TIMEOUT: Duration = Duration::from_secs(60);
const ORDER_TIMEOUT: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(500);
const FREE_SPACE_PERIOD: Duration = Duration::from_secs(10);
/// Between two inventories of a member: what is left behind there, by orders that did not arrive or uploads that were
/// given up, stays so long.
const INVENTORY_PERIOD_MIN: Duration = Duration::from_secs(10);
const INVENTORY_PERIOD_MAX: Duration = Duration::from_secs(600);
/// What a period grows by for each blob at the member, so that inventories cost 32 KB a second at most.
const INVENTORY_PERIOD_PER_BLOB: Duration = Duration::from_millis(1);
const OUTCOMES_QUEUED_MAX: usize = 1_024;
/// About half a megabyte of the log each.
const HOLDERS_PER_COMMAND_MAX: usize = 8_192;
/// Behind every digest: an inventory from here on tells the free space and nothing else.
const LAST_DIGEST: Digest = Digest([0xff; 32]);

/// What the rest of the leader_term wants to know.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Members that may take new blobs.
    pub candidates: Vec<Candidate>,
    /// The store in figures, but for the count of files.
    pub store: StoreView,
    /// What each member holds.
    pub holdings: BTreeMap<NodeId, Holdings>,
}

enum Outcome {
    Copied(CopyTask, Result<(), String>),
    Collected { node: NodeId, order: u64, ordered: Vec<Digest>, unanswered: bool },
    Inventory { node: NodeId, after: Option<Digest>, reply: Option<InventoryPage> },
}

struct InventoryPage {
    generation: u64,
    digests: Vec<Digest>,
    more: bool,
    free_bytes: u64,
    damaged: u64,
}

/// What is known of a member's disk.
struct Disk {
    /// Its boot count, as membership has it.
    generation: u64,
    free_bytes: u64,
    /// When its inventory is due, and its free space.
    inventory_at: Instant,
    free_space_at: Instant,
    /// From the request for an inventory's first page to the answer to its last.
    asking: bool,
    /// Blobs listed by the inventory that is being asked for.
    listed: u32,
    /// Blobs it had given up as damaged when the last inventory was begun.
    damaged: u64,
}

/// Starts the task of a term.
pub fn start(
    leader_term: Weak<LeaderTerm>,
    deps: Deps,
    term: Term,
    closed: CancellationToken,
) -> watch::Receiver<Progress> {
    let (outcomes, queued) = mpsc::channel(OUTCOMES_QUEUED_MAX);
    let mut warden = RepairTask {
        leader_term,
        term,
        planner: ReplicationPlanner::new(ReplicationConfig::default(), wall_ms()),
        disks: BTreeMap::new(),
        absent: BTreeMap::new(),
        outcomes,
        deps,
    };
    let members = warden.members();
    let (publish, progress) = watch::channel(warden.progress(&members));
    tokio::spawn(async move {
        tokio::select! {
            () = warden.run(queued, publish) => {}
            () = closed.cancelled() => {}
        }
    });
    progress
}

struct RepairTask {
    leader_term: Weak<LeaderTerm>,
    deps: Deps,
    term: Term,
    planner: ReplicationPlanner,
    disks: BTreeMap<NodeId, Disk>,
    absent: BTreeMap<NodeId, Instant>,
    outcomes: mpsc::Sender<Outcome>,
}

impl RepairTask {
    async fn run(&mut self, mut queued: mpsc::Receiver<Outcome>, publish: watch::Sender<Progress>) {
        let (mut state, mut view) = (self.deps.consensus.state(), self.deps.membership.view());
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = state.changed() => if changed.is_err() { return },
                changed = view.changed() => if changed.is_err() { return },
                Some(outcome) = queued.recv() => {
                    let mut outcomes = vec![outcome];
                    while let Ok(outcome) = queued.try_recv() {
                        outcomes.push(outcome);
                    }
                    self.settle(outcomes).await;
                }
                _ = ticks.tick() => self.collect_garbage().await,
            }
            view.borrow_and_update();
            let now = Arc::clone(&state.borrow_and_update());
            let members = self.members();
            self.ask_for_inventories();
            for task in self.planner.plan(&now, &members, self.deps.clock.now()) {
                self.copy(task);
            }
            publish.send_replace(self.progress(&members));
        }
    }

    /// Who answers now; keeps track of who does not.
    fn members(&mut self) -> Members {
        let (view, now) = (self.deps.membership.current(), self.deps.clock.now());
        let mut members = Members::default();
        for (&node, peer) in &view.members {
            match peer.record.state {
                MemberState::Alive => {
                    self.absent.remove(&node);
                    let generation = peer.record.generation.into();
                    let disk = self.disks.entry(node).or_insert_with(|| Disk::new(generation, now));
                    if disk.generation != generation {
                        *disk = Disk::new(generation, now);
                    }
                    members.live.insert(node, disk.free_bytes);
                }
                MemberState::Suspect | MemberState::Dead => {
                    self.disks.remove(&node);
                    self.absent.entry(node).or_insert(now);
                }
                MemberState::Left => {
                    self.disks.remove(&node);
                    self.absent.remove(&node);
                }
            }
        }
        members.absent = self.absent.clone();
        members
    }

    fn progress(&self, members: &Members) -> Progress {
        let candidate = |(&node, &free_bytes)| Candidate { node, free_bytes };
        let figures = self.planner.figures();
        let store = StoreView {
            files: 0,
            blobs: figures.blobs,
            bytes: figures.bytes,
            under_replicated: figures.under_replicated,
            copying: self.planner.copies_under_way() as u64,
            unavailable: figures.unavailable,
        };
        let candidates = members.live.iter().map(candidate).collect();
        Progress { candidates, store, holdings: self.planner.holdings().clone() }
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.deps.consensus.state().borrow())
    }

    /// Has a file server do something, beside the task; what `then` makes of the answer comes back as an outcome.
    fn order(
        &self,
        node: NodeId,
        request: FileRequest,
        limit: Duration,
        then: impl FnOnce(Result<FileReply, String>) -> Outcome + Send + 'static,
    ) {
        let address = self.deps.membership.current().address(node);
        let (peers, outcomes) = (self.deps.peers.clone(), self.outcomes.clone());
        let order = FileOrder { term: self.term, to: node, request };
        tokio::spawn(async move {
            let answer = match address {
                Some(address) => match peers.call(address, Request::Files(order), limit).await {
                    Ok(Reply::Files(reply)) => Ok(reply),
                    Ok(Reply::Refused(refusal)) => Err(refusal.message),
                    Ok(_) => Err(String::from("it answered out of turn")),
                    Err(error) => Err(error.to_string()),
                },
                None => Err(String::from("its address is unknown")),
            };
            // When the term is over nobody waits.
            let _ = outcomes.send(then(answer)).await;
        });
    }

    fn copy(&self, task: CopyTask) {
        let view = self.deps.membership.current();
        let sources = task.sources.iter().filter_map(|&node| view.holder(node)).collect();
        let request = FileRequest::Copy { blob: task.blob, sources };
        self.order(task.target, request, COPY_TIMEOUT, move |answer| {
            let copied = answer.and_then(|reply| match reply {
                FileReply::Copied => Ok(()),
                _ => Err(String::from("it answered out of turn")),
            });
            Outcome::Copied(task, copied)
        });
    }

    fn ask_for_inventories(&mut self) {
        let now = self.deps.clock.now();
        let due = self.disks.iter_mut().filter(|(_, disk)| !disk.asking && disk.free_space_at <= now);
        let mut asked = Vec::new();
        for (&node, disk) in due {
            disk.asking = true;
            asked.push((node, if disk.inventory_at <= now { None } else { Some(LAST_DIGEST) }));
        }
        for (node, after) in asked {
            self.ask_for_inventory(node, after);
        }
    }

    fn ask_for_inventory(&mut self, node: NodeId, after: Option<Digest>) {
        let void_below = if after == Some(LAST_DIGEST) {
            0
        } else {
            self.planner.ask_inventory(&self.deps.consensus.state().borrow(), node)
        };
        let request = FileRequest::Inventory { void_below, after };
        self.order(node, request, ORDER_TIMEOUT, move |answer| {
            let reply = match answer {
                Ok(FileReply::Inventory { generation, digests, more, free_bytes, damaged }) => {
                    Some(InventoryPage { generation, digests, more, free_bytes, damaged })
                }
                _ => None,
            };
            Outcome::Inventory { node, after, reply }
        });
    }

    /// Puts what came of orders into the log, then tells the planner.
    async fn settle(&mut self, outcomes: Vec<Outcome>) {
        let mut changes = Vec::new();
        for outcome in &outcomes {
            match outcome {
                Outcome::Copied(task, Ok(())) => {
                    changes.push(HolderChange {
                        digest: task.blob.digest,
                        add: vec![task.target],
                        remove: Vec::new(),
                    });
                }
                Outcome::Copied(task, Err(reason)) => {
                    warn!(blob = %task.blob.digest, target = %task.target, %reason, "a copy failed");
                }
                Outcome::Collected { .. } | Outcome::Inventory { .. } => {}
            }
        }
        let recorded = self.record(changes).await;
        for outcome in outcomes {
            match outcome {
                Outcome::Copied(task, copied) => {
                    let (ok, now) = (copied.is_ok() && recorded, self.deps.clock.now());
                    self.planner.finished(task.blob.digest, task.target, ok, now);
                    // Its disk may be full, or worse: until that is known it would be asked again and again.
                    if let (Err(_), Some(disk)) = (&copied, self.disks.get_mut(&task.target)) {
                        disk.free_space_at = disk.free_space_at.min(now);
                    }
                }
                // An order that may still be carried out stays under way until an inventory makes it void.
                Outcome::Collected { unanswered: true, .. } => {}
                Outcome::Collected { node, order, ordered, .. } => {
                    self.planner.collected(node, order, &ordered);
                }
                Outcome::Inventory { node, after, reply } => self.take_inventory(node, after, reply).await,
            }
        }
    }

    async fn record(&self, changes: Vec<HolderChange>) -> bool {
        let Some(leader_term) = self.leader_term.upgrade() else { return false };
        // A member that lost its disk loses every record: more than one command holds.
        for part in changes.chunks(HOLDERS_PER_COMMAND_MAX) {
            if let Err(refusal) = leader_term.propose_surely(Action::Holders(part.to_vec())).await {
                warn!(%refusal, "holders cannot be recorded");
                return false;
            }
        }
        true
    }

    async fn take_inventory(&mut self, node: NodeId, after: Option<Digest>, reply: Option<InventoryPage>) {
        let now = self.deps.clock.now();
        let Some(disk) = self.disks.get_mut(&node) else { return };
        disk.asking = false;
        disk.free_space_at = now + FREE_SPACE_PERIOD;
        let Some(page) = reply else {
            disk.free_space_at = now + TICK;
            return;
        };
        if page.generation != disk.generation {
            // Membership has not heard of the restart yet, or has and this answer is from before.
            disk.free_space_at = now + TICK;
            return;
        }
        disk.free_bytes = page.free_bytes;
        if page.damaged != disk.damaged && after.is_some() {
            // What it lost is still on record: find out at once.
            disk.inventory_at = now;
        }
        if let Some(leader_term) = self.leader_term.upgrade() {
            leader_term.uploads().booted(node, page.generation);
        }
        if after == Some(LAST_DIGEST) {
            if disk.inventory_at <= now {
                disk.free_space_at = now;
            }
            return;
        }
        if after.is_none() {
            (disk.damaged, disk.listed) = (page.damaged, 0);
        }
        disk.listed = disk.listed.saturating_add(u32::try_from(page.digests.len()).unwrap_or(u32::MAX));
        let (members, state) = (self.members(), self.state());
        let compared = Page { node, digests: &page.digests, after, last: !page.more };
        let reconciled = self.planner.reconcile(&state, &members, compared);
        let (added, removed, surplus) =
            (reconciled.add.len(), reconciled.remove.len(), reconciled.collect.len());
        if added + removed + surplus > 0 {
            info!(%node, added, removed, surplus, "an inventory differs from the record");
        }
        let gained =
            reconciled.add.iter().map(|&digest| HolderChange { digest, add: vec![node], remove: Vec::new() });
        let lost = reconciled.remove.iter().map(|&digest| HolderChange {
            digest,
            add: Vec::new(),
            remove: vec![node],
        });
        if !self.record(gained.chain(lost).collect()).await {
            return;
        }
        self.order_deletion(node, reconciled.collect);
        let Some(disk) = self.disks.get_mut(&node) else { return };
        match (page.more, page.digests.last()) {
            (true, Some(&last)) => {
                disk.asking = true;
                self.ask_for_inventory(node, Some(last));
            }
            _ if page.damaged == disk.damaged => {
                let period = INVENTORY_PERIOD_PER_BLOB.saturating_mul(disk.listed);
                disk.inventory_at = now + period.clamp(INVENTORY_PERIOD_MIN, INVENTORY_PERIOD_MAX);
            }
            _ => {}
        }
    }

    /// Gives up what is too much or not referred to: the records first, then the bytes, so that nothing ever counts on
    /// what is being deleted.
    async fn collect_garbage(&mut self) {
        let (members, state) = (self.members(), self.state());
        let trims = self.planner.trim(&state, &members);
        let mut surplus: BTreeMap<NodeId, Vec<Digest>> = BTreeMap::new();
        for trim in &trims {
            for &node in &trim.remove {
                surplus.entry(node).or_default().push(trim.digest);
            }
        }
        if self.record(trims).await {
            for (node, digests) in surplus {
                self.order_deletion(node, digests);
            }
        }
        let garbage = self.planner.garbage(&self.state(), &members);
        let Some(leader_term) = self.leader_term.upgrade() else { return };
        if garbage.forget.is_empty() {
            return;
        }
        debug!(blobs = garbage.forget.len(), "nothing refers to these any more");
        if let Err(refusal) = leader_term.propose_surely(Action::Forget(garbage.forget)).await {
            warn!(%refusal, "garbage stays");
            return;
        }
        for (node, digests) in garbage.collect {
            self.order_deletion(node, digests);
        }
    }

    /// Orders a member to delete blobs, unless an upload from before its restart may still count on what it forgot.
    /// What is spared is found again by the next inventory.
    fn order_deletion(&mut self, node: NodeId, digests: Vec<Digest>) {
        let (members, now) = (self.members(), self.deps.clock.now());
        let Some(leader_term) = self.leader_term.upgrade() else { return };
        let generation = self.disks.get(&node).map_or(0, |disk| disk.generation);
        if !leader_term.uploads().may_collect(node, generation, now) {
            return;
        }
        // Before the state: what an upload below has committed is in it.
        let watermark = leader_term.uploads().watermark(now);
        let state = self.state();
        let may_collect = |digest: &Digest| self.planner.may_collect(&state, &members, node, digest);
        let ordered: Vec<Digest> = digests.into_iter().filter(may_collect).collect();
        if ordered.is_empty() {
            return;
        }
        let number = self.planner.collecting(node, &ordered);
        let (peers, outcomes, term) = (self.deps.peers.clone(), self.outcomes.clone(), self.term);
        let address = self.deps.membership.current().address(node);
        tokio::spawn(async move {
            let unanswered = match (leader_term.barrier().await, address) {
                (Ok(_), Some(address)) => {
                    let digests = ordered.clone();
                    let request = FileRequest::Collect { generation, number, watermark, digests };
                    let order = FileOrder { term, to: node, request };
                    let answer = peers.call(address, Request::Files(order), ORDER_TIMEOUT).await;
                    matches!(answer, Err(PeerError::Call { .. }))
                }
                _ => false,
            };
            // When the term is over nobody waits.
            let _ = outcomes.send(Outcome::Collected { node, order: number, ordered, unanswered }).await;
        });
    }
}

impl Disk {
    fn new(generation: u64, now: Instant) -> Self {
        Self {
            generation,
            free_bytes: FREE_BYTES_UNKNOWN,
            inventory_at: now,
            free_space_at: now,
            asking: false,
            listed: 0,
            damaged: 0,
        }
    }
}
