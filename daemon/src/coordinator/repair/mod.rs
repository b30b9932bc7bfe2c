//! Keeps four copies of every blob, and deletes what nothing refers to: carries out the plans of `core::placement`.
//!
//! One task a term. Commands to file servers run beside it and come back as outcomes; outcomes that came together go
//! into the log together. Nothing is deleted without a fresh confirmation that this member still leads.

mod disks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use idunno_core::metadata::{Action, HolderChange, State};
use idunno_core::placement::{
    Candidate, CopyTask, Garbage, Holdings, Reconciled, ReplicationConfig, ReplicationEffect,
    ReplicationEvent, ReplicationPlanner, StoreSnapshot,
};
use idunno_core::uploads::DeletionPermit;
use idunno_shared::client::connections::PeerError;
use idunno_shared::ids::{Digest, NodeId, Term};
use idunno_shared::wire::blobs::{FileReply, FileRequest, ReplicaCommand};
use idunno_shared::wire::control::StoreView;
use idunno_shared::wire::frame::{Reply, Request};
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::disks::{Disks, InventoryPage, LAST_DIGEST};
use super::uploads::UploadsHandle;
use super::{Deps, LeaderTerm};
use crate::membership::MembershipView;
use crate::runtime::driver::{Driver, Shell, Turn};

const COPY_TIMEOUT: Duration = Duration::from_secs(60);
const ORDER_TIMEOUT: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(500);
/// Commands proposed in a tick for the release of retired versions.
const RELEASES_PER_TICK: usize = 50;
const OUTCOMES_QUEUED_MAX: usize = 1_024;
/// About half a megabyte of the log each.
const HOLDERS_PER_COMMAND_MAX: usize = 8_192;

/// The store as repair sees it.
#[derive(Clone, Debug, Default)]
pub struct RepairView {
    /// Members that may take new blobs.
    pub candidates: Vec<Candidate>,
    /// The store in figures, but for the count of files.
    pub store: StoreView,
    /// What each member holds.
    pub holdings: BTreeMap<NodeId, Holdings>,
    /// Live members whose disks do not answer.
    pub hung: BTreeSet<NodeId>,
}

pub(super) enum Outcome {
    Copied { task: CopyTask, outcome: Result<(), String> },
    Deleted { node: NodeId, order: u64, digests: Vec<Digest>, unanswered: bool },
    Inventory { node: NodeId, after: Option<Digest>, page: Option<InventoryPage> },
}

/// What the task has to do.
pub(super) enum Input {
    /// The metadata or the members have changed.
    Observe,
    /// Commands to file servers have ended.
    Record(Vec<Outcome>),
    /// A command has ended, and its outcome is in the log if the flag is set.
    Settle(Outcome, bool),
    /// An inventory's page is in the log.
    EndPage(NodeId),
    Trim,
    CollectGarbage,
    Delete(NodeId, Vec<Digest>),
}

/// Carries out the replication plans of one term.
pub(super) struct RepairTask {
    leader_term: Weak<LeaderTerm>,
    deps: Deps,
    term: Term,
    uploads: UploadsHandle,
    disks: Disks,
    state: watch::Receiver<Arc<State>>,
    view: watch::Receiver<Arc<MembershipView>>,
    ticks: Interval,
    outcomes: mpsc::Sender<Outcome>,
    ended: mpsc::Receiver<Outcome>,
    published: watch::Sender<RepairView>,
}

impl RepairTask {
    /// Starts the task of a term.
    pub(super) fn spawn(
        leader_term: Weak<LeaderTerm>,
        deps: Deps,
        term: Term,
        first_order: u64,
        uploads: UploadsHandle,
        closed: &CancellationToken,
    ) -> watch::Receiver<RepairView> {
        let (clock, monitor) = (deps.clock, deps.monitor.clone());
        let machine = ReplicationPlanner::new(ReplicationConfig::default(), first_order);
        let (outcomes, ended) = mpsc::channel(OUTCOMES_QUEUED_MAX);
        let (published, repairs) = watch::channel(RepairView::default());
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut shell = Self {
            leader_term,
            term,
            uploads,
            disks: Disks::default(),
            state: deps.consensus.state().clone(),
            view: deps.membership.view(),
            deps,
            ticks,
            outcomes,
            ended,
            published,
        };
        shell.publish(&machine);
        let (_, inputs) = mpsc::channel(1);
        Driver { machine, shell, clock, inputs }.spawn("repair", &monitor, closed);
        repairs
    }
}

impl Shell for RepairTask {
    type Machine = ReplicationPlanner;
    type Input = Input;

    async fn next_input(&mut self) -> Option<Input> {
        let input = tokio::select! {
            changed = self.state.changed() => changed.ok().map(|()| Input::Observe)?,
            changed = self.view.changed() => changed.ok().map(|()| Input::Observe)?,
            Some(outcome) = self.ended.recv() => {
                let mut outcomes = vec![outcome];
                while let Ok(outcome) = self.ended.try_recv() {
                    outcomes.push(outcome);
                }
                Input::Record(outcomes)
            }
            _ = self.ticks.tick() => Input::Trim,
        };
        Some(input)
    }

    fn on_deadline(&mut self, turn: &mut Turn<Self>) {
        turn.input(Input::Observe);
    }

    async fn translate(&mut self, input: Input, turn: &mut Turn<Self>) {
        match input {
            Input::Observe => self.observe(turn),
            Input::Record(outcomes) => {
                let is_recorded = self.record_copies(&outcomes).await;
                let settled = outcomes.into_iter().map(|outcome| Input::Settle(outcome, is_recorded));
                settled.chain([Input::Observe]).for_each(|input| turn.input(input));
            }
            Input::Settle(outcome, is_recorded) => self.settle(outcome, is_recorded, turn).await,
            Input::EndPage(node) => {
                if let Some(last) = self.disks.end_page(node, self.deps.clock.now()) {
                    let state = self.snapshot().state;
                    turn.event(ReplicationEvent::InventoryDue { state, node, after: Some(last) });
                }
            }
            Input::Trim => {
                self.release_retired().await;
                turn.event(ReplicationEvent::TrimDue(self.snapshot()));
                turn.input(Input::CollectGarbage);
                turn.input(Input::Observe);
            }
            Input::CollectGarbage => turn.event(ReplicationEvent::GarbageDue(self.snapshot())),
            Input::Delete(node, digests) => self.delete(node, digests, turn).await,
        }
    }

    async fn carry_out(&mut self, effect: ReplicationEffect, turn: &mut Turn<Self>) {
        match effect {
            ReplicationEffect::Copy(task) => self.order_copy(task),
            ReplicationEffect::AskInventory { node, after, void_below } => {
                self.ask_inventory(node, after, void_below);
            }
            ReplicationEffect::Reconcile { node, reconciled } => self.reconcile(node, reconciled, turn).await,
            ReplicationEffect::Trim(trims) => self.trim(trims, turn).await,
            ReplicationEffect::Forget(garbage) => self.forget(garbage, turn).await,
            ReplicationEffect::EndUploads { permit, digests } => {
                self.end_uploads(permit, digests, turn).await;
            }
            ReplicationEffect::Delete { permit, order, digests } => {
                self.order_deletion(permit, order, digests);
            }
        }
    }

    fn publish(&mut self, planner: &ReplicationPlanner) {
        let members = self.snapshot().members;
        let candidate = |(&node, &free_bytes)| Candidate { node, free_bytes };
        let figures = planner.figures();
        let store = StoreView {
            files: 0,
            blobs: figures.blobs,
            bytes: figures.bytes,
            under_replicated: figures.under_replicated,
            copying: planner.copies_under_way() as u64,
            unavailable: figures.unavailable,
            full_disks: self.disks.full(),
        };
        let candidates = members.live.iter().map(candidate).collect();
        self.published.send_replace(RepairView {
            candidates,
            store,
            holdings: planner.holdings().clone(),
            hung: self.disks.hung(),
        });
    }
}

impl RepairTask {
    fn snapshot(&mut self) -> StoreSnapshot {
        let members = self.disks.members(&self.deps.membership.current(), self.deps.clock.now());
        StoreSnapshot { state: Arc::clone(&self.deps.consensus.state().borrow()), members }
    }

    /// Asks for the inventories that are due, and for the copies that are wanted.
    fn observe(&mut self, turn: &mut Turn<Self>) {
        self.view.borrow_and_update();
        self.state.borrow_and_update();
        let snapshot = self.snapshot();
        for (node, wants_inventory) in self.disks.due(self.deps.clock.now()) {
            if wants_inventory {
                let state = Arc::clone(&snapshot.state);
                turn.event(ReplicationEvent::InventoryDue { state, node, after: None });
            } else {
                self.ask_inventory(node, Some(LAST_DIGEST), 0);
            }
        }
        turn.event(ReplicationEvent::Observed(snapshot));
    }

    /// Versions that ended jobs had pinned are released by whatever commands follow. An idle log has none: proposes some.
    async fn release_retired(&self) {
        let Some(leader_term) = self.leader_term.upgrade() else { return };
        let has_more = || self.deps.consensus.state().borrow().has_unreleased();
        let release = || leader_term.propose(None, Action::Forget(Vec::new()));
        // Mostly one is enough.
        if has_more() && release().await.is_ok() && has_more() {
            // Side by side they share an entry of the log and its flush.
            join_all((1..RELEASES_PER_TICK).map(|_| release())).await;
        }
    }

    /// Sends a command to a file server without blocking the task; `then` turns the answer into an outcome.
    fn order(
        &self,
        node: NodeId,
        request: FileRequest,
        limit: Duration,
        then: impl FnOnce(Result<FileReply, String>) -> Outcome + Send + 'static,
    ) {
        let address = self.deps.membership.current().address(node);
        let (peers, outcomes) = (self.deps.peers.clone(), self.outcomes.clone());
        let order = ReplicaCommand { term: self.term, to: node, request };
        tokio::spawn(async move {
            let answer = match address {
                Some(address) => match peers.call(address, Request::Files(order), limit).await {
                    Ok(Reply::Files(reply)) => Ok(reply),
                    Ok(Reply::Refused(refusal)) => Err(refusal.message),
                    Ok(_) => Err(String::from("unexpected reply")),
                    Err(error) => Err(error.to_string()),
                },
                None => Err(String::from("its address is unknown")),
            };
            // The receiver is gone once the term is over.
            let _ = outcomes.send(then(answer)).await;
        });
    }

    fn order_copy(&self, task: CopyTask) {
        let view = self.deps.membership.current();
        let sources = task.sources.iter().filter_map(|&node| view.holder(node)).collect();
        let request = FileRequest::Copy { blob: task.blob, sources };
        self.order(task.target, request, COPY_TIMEOUT, move |answer| {
            let outcome = answer.and_then(|reply| match reply {
                FileReply::Copied => Ok(()),
                _ => Err(String::from("unexpected reply")),
            });
            Outcome::Copied { task, outcome }
        });
    }

    fn ask_inventory(&self, node: NodeId, after: Option<Digest>, void_below: u64) {
        let request = FileRequest::Inventory { void_below, after };
        self.order(node, request, ORDER_TIMEOUT, move |answer| {
            let page = match answer {
                Ok(FileReply::Inventory { generation, digests, more, free_bytes, damaged, disk_hung }) => {
                    Some(InventoryPage { generation, digests, more, free_bytes, damaged, disk_hung })
                }
                _ => None,
            };
            Outcome::Inventory { node, after, page }
        });
    }

    /// Records the successful copies in the log. Returns whether that succeeded.
    async fn record_copies(&self, outcomes: &[Outcome]) -> bool {
        let mut changes = Vec::new();
        for outcome in outcomes {
            let Outcome::Copied { task, outcome } = outcome else { continue };
            match outcome {
                Ok(()) => changes.push(added(task.blob.digest, task.target)),
                Err(reason) => {
                    warn!(blob = %task.blob.digest, target = %task.target, %reason, "cannot copy a blob");
                }
            }
        }
        self.record(changes).await
    }

    async fn record(&self, changes: Vec<HolderChange>) -> bool {
        let Some(leader_term) = self.leader_term.upgrade() else { return false };
        // A member that lost its disk loses every record: more than one command holds.
        for part in changes.chunks(HOLDERS_PER_COMMAND_MAX) {
            if let Err(refusal) = leader_term.propose_surely(Action::Holders(part.to_vec())).await {
                warn!(%refusal, "cannot record the holders of blobs");
                return false;
            }
        }
        true
    }

    async fn settle(&mut self, outcome: Outcome, is_recorded: bool, turn: &mut Turn<Self>) {
        match outcome {
            Outcome::Copied { task: CopyTask { blob, target, .. }, outcome } => {
                let ok = outcome.is_ok() && is_recorded;
                turn.event(ReplicationEvent::CopyEnded { digest: blob.digest, target, ok });
                // Its disk may be full or broken. Until that is known, it would be chosen again and again.
                if outcome.is_err() {
                    self.disks.ask_soon(target, self.deps.clock.now());
                }
            }
            // An order that may still be carried out stays under way until an inventory makes it void.
            Outcome::Deleted { unanswered: true, .. } => {}
            Outcome::Deleted { node, order, digests, .. } => {
                turn.event(ReplicationEvent::DeletionEnded { node, order, digests });
            }
            Outcome::Inventory { node, after, page } => {
                let Some(page) = self.disks.take_page(node, after, page, self.deps.clock.now()) else {
                    return;
                };
                self.uploads.booted(node, page.generation).await;
                if after != Some(LAST_DIGEST) {
                    let (snapshot, last) = (self.snapshot(), !page.more);
                    let digests = page.digests;
                    turn.event(ReplicationEvent::InventoryRead { snapshot, node, digests, after, last });
                }
            }
        }
    }

    async fn reconcile(&self, node: NodeId, reconciled: Reconciled, turn: &mut Turn<Self>) {
        let Reconciled { add, remove, collect } = reconciled;
        let (gained, lost, surplus) = (add.len(), remove.len(), collect.len());
        if gained + lost + surplus > 0 {
            info!(%node, added = gained, removed = lost, surplus, "a member's inventory differs from the records, correcting them");
        }
        let added = add.into_iter().map(|digest| added(digest, node));
        let removed =
            remove.into_iter().map(|digest| HolderChange { digest, add: vec![], remove: vec![node] });
        if self.record(added.chain(removed).collect()).await {
            turn.input(Input::Delete(node, collect));
            turn.input(Input::EndPage(node));
        }
    }

    /// Drops surplus copies: the records first, then the bytes, so that nothing ever relies on a copy that is being deleted.
    async fn trim(&self, trims: Vec<HolderChange>, turn: &mut Turn<Self>) {
        let mut surplus: BTreeMap<NodeId, Vec<Digest>> = BTreeMap::new();
        for trim in &trims {
            for &node in &trim.remove {
                surplus.entry(node).or_default().push(trim.digest);
            }
        }
        if self.record(trims).await {
            surplus.into_iter().for_each(|(node, digests)| turn.input(Input::Delete(node, digests)));
        }
    }

    /// Drops the blobs that nothing refers to: the records first, then the bytes.
    async fn forget(&self, garbage: Garbage, turn: &mut Turn<Self>) {
        let Some(leader_term) = self.leader_term.upgrade() else { return };
        debug!(blobs = garbage.forget.len(), "dropping blobs that nothing refers to");
        if let Err(refusal) = leader_term.propose_surely(Action::Forget(garbage.forget)).await {
            warn!(%refusal, "cannot drop the blobs that nothing refers to");
            return;
        }
        for (node, digests) in garbage.collect {
            turn.input(Input::Delete(node, digests));
        }
    }

    /// Has a member delete blobs, unless an upload from before its restart may still depend on pins that it forgot. Blobs
    /// that are kept are found again by the next inventory.
    async fn delete(&mut self, node: NodeId, digests: Vec<Digest>, turn: &mut Turn<Self>) {
        // Brings the disks up to date with the members.
        self.snapshot();
        let Some(permit) = self.uploads.permit(node, self.disks.generation(node)).await else { return };
        let snapshot = self.snapshot();
        turn.event(ReplicationEvent::DeletionDue { snapshot, permit, digests });
    }

    /// Has the log refuse what uploads that are over may still commit, and goes on with the deletion.
    async fn end_uploads(&mut self, permit: DeletionPermit, digests: Vec<Digest>, turn: &mut Turn<Self>) {
        let Some(leader_term) = self.leader_term.upgrade() else { return };
        if let Err(refusal) = leader_term.propose_surely(Action::EndUploads(permit.watermark)).await {
            warn!(%refusal, "cannot put into the log which uploads are over");
            return;
        }
        let snapshot = self.snapshot();
        turn.event(ReplicationEvent::DeletionDue { snapshot, permit, digests });
    }

    fn order_deletion(&self, permit: DeletionPermit, order: u64, digests: Vec<Digest>) {
        let Some(leader_term) = self.leader_term.upgrade() else { return };
        let DeletionPermit { node, generation, watermark } = permit;
        let (peers, outcomes, term) = (self.deps.peers.clone(), self.outcomes.clone(), self.term);
        let address = self.deps.membership.current().address(node);
        tokio::spawn(async move {
            let unanswered = match (leader_term.barrier().await, address) {
                (Ok(_), Some(address)) => {
                    let digests = digests.clone();
                    let request = FileRequest::Collect { generation, number: order, watermark, digests };
                    let order = ReplicaCommand { term, to: node, request };
                    let answer = peers.call(address, Request::Files(order), ORDER_TIMEOUT).await;
                    matches!(answer, Err(PeerError::Call { .. }))
                }
                _ => false,
            };
            // The receiver is gone once the term is over.
            let _ = outcomes.send(Outcome::Deleted { node, order, digests, unanswered }).await;
        });
    }
}

fn added(digest: Digest, node: NodeId) -> HolderChange {
    HolderChange { digest, add: vec![node], remove: Vec::new() }
}
