//! The coordinator's shell, as the daemon's is: it hands the planner its events and carries out its effects, and the members
//! carry out its orders.

use std::collections::BTreeMap;
use std::sync::Arc;

use idunno_core::machine::Machine;
use idunno_core::metadata::{Action, HolderChange};
use idunno_core::placement::{
    CopyTask, Garbage, Reconciled, ReplicationEffect, ReplicationEvent, StoreSnapshot,
};
use idunno_core::uploads::{DeletionPermit, UploadsEvent};
use idunno_shared::ids::{Digest, NodeId, Term, UploadId};
use idunno_shared::wire::blobs::COPIES;
use idunno_shared::wire::control::{Change, NewFile};
use idunno_shared::wire::refusal::RefusalCode;
use rand::RngExt;

use super::World;
use super::member::{Health, PAGE};

/// One process that coordinates, in one term. Members compare terms alone; answers reach only the process that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Coordinator {
    pub(super) term: Term,
    /// The index of the log's entry by which it took over.
    pub(super) taken_over_at: u64,
}

/// Work in flight; all of it may happen late, in any order.
#[derive(Debug)]
pub(super) enum Work {
    Copy {
        from: Coordinator,
        task: CopyTask,
    },
    Record {
        from: Coordinator,
        digest: Digest,
        target: NodeId,
        ok: bool,
    },
    /// A command that is to be sent, planned from an earlier state.
    Order {
        from: Coordinator,
        node: NodeId,
        digests: Vec<Digest>,
    },
    Collect {
        from: Coordinator,
        permit: DeletionPermit,
        order: u64,
        digests: Vec<Digest>,
    },
    Collected {
        from: Coordinator,
        node: NodeId,
        order: u64,
        digests: Vec<Digest>,
    },
    Commit {
        upload: UploadId,
        file: NewFile,
    },
    /// A commit whose upload was found alive, on its way to being applied.
    Propose {
        from: Coordinator,
        upload: UploadId,
        file: NewFile,
    },
    Inventory {
        from: Coordinator,
        node: NodeId,
        void_below: u64,
        page: Option<InventoryPage>,
        after: Option<Digest>,
    },
}

/// A page that a member listed, and its boot count then.
#[derive(Debug)]
pub(super) struct InventoryPage {
    boot: u64,
    digests: Vec<Digest>,
}

impl World {
    fn snapshot(&self) -> StoreSnapshot {
        StoreSnapshot { state: Arc::new(self.state.clone()), members: self.members() }
    }

    /// Hands the planner an event, and carries out what it asks for.
    fn replicate(&mut self, event: ReplicationEvent) {
        self.replication.handle(event, self.now);
        self.replication.check().unwrap();
        while let Some(effect) = self.replication.poll_effect() {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: ReplicationEffect) {
        let from = self.coordinator;
        match effect {
            ReplicationEffect::Copy(task) => {
                let live = self.members().live;
                assert!(task.sources.iter().all(|source| live.contains_key(source)), "{task:?}");
                assert!(!self.state.holders(&task.blob.digest).contains(&task.target), "{task:?}");
                assert!(
                    self.state.blob(&task.blob.digest).is_some_and(|blob| blob.references > 0),
                    "{task:?}"
                );
                self.work.push(Work::Copy { from, task });
            }
            ReplicationEffect::AskInventory { node, after, void_below } => {
                self.work.push(Work::Inventory { from, node, void_below, page: None, after });
            }
            ReplicationEffect::Reconcile { node, reconciled } => self.reconcile(node, reconciled),
            ReplicationEffect::Trim(trims) => self.trim(trims),
            ReplicationEffect::Forget(Garbage { forget, collect }) => {
                self.apply(Action::Forget(forget));
                self.order_later(collect);
            }
            ReplicationEffect::EndUploads { permit, digests } => {
                self.apply(Action::EndUploads(permit.watermark));
                self.replicate(ReplicationEvent::DeletionDue { snapshot: self.snapshot(), permit, digests });
            }
            ReplicationEffect::Delete { permit, order, digests } => {
                self.work.push(Work::Collect { from, permit, order, digests });
            }
        }
    }

    fn order_later(&mut self, collect: BTreeMap<NodeId, Vec<Digest>>) {
        let from = self.coordinator;
        self.work.extend(collect.into_iter().map(|(node, digests)| Work::Order { from, node, digests }));
    }

    fn trim(&mut self, trims: Vec<HolderChange>) {
        self.figures.trims += trims.len() as u64;
        self.apply(Action::Holders(trims.clone()));
        let members = self.members();
        let mut surplus: BTreeMap<NodeId, Vec<Digest>> = BTreeMap::new();
        for HolderChange { digest, remove, .. } in trims {
            let live = members.live_among(self.state.holders(&digest));
            assert!(live >= COPIES, "blob {digest} was trimmed too far");
            for node in remove {
                surplus.entry(node).or_default().push(digest);
            }
        }
        self.order_later(surplus);
    }

    fn reconcile(&mut self, node: NodeId, reconciled: Reconciled) {
        let Reconciled { add, remove, collect } = reconciled;
        self.figures.adopted += add.len() as u64;
        let added = add.into_iter().map(|digest| HolderChange { digest, add: vec![node], remove: vec![] });
        let removed =
            remove.into_iter().map(|digest| HolderChange { digest, add: vec![], remove: vec![node] });
        self.apply(Action::Holders(added.chain(removed).collect()));
        self.order_later(BTreeMap::from([(node, collect)]));
    }

    pub(super) fn maintain(&mut self) {
        self.replicate(ReplicationEvent::Observed(self.snapshot()));
        self.replicate(ReplicationEvent::TrimDue(self.snapshot()));
        self.replicate(ReplicationEvent::GarbageDue(self.snapshot()));
    }

    fn order_deletion(&mut self, node: NodeId, digests: Vec<Digest>) {
        let Some(permit) = self.permit(node) else {
            self.figures.spared += digests.len() as u64;
            return;
        };
        self.replicate(ReplicationEvent::DeletionDue { snapshot: self.snapshot(), permit, digests });
    }

    pub(super) fn inventory(&mut self) {
        let up = self.up();
        let now = self.coordinator;
        let asked = |work: &Work, id: NodeId| matches!(work, Work::Inventory { node, from, .. } if *node == id && *from == now);
        if let Some(node) = self.pick(&up).filter(|id| !self.work.iter().any(|work| asked(work, *id))) {
            self.ask_inventory(node, None);
        }
    }

    pub(super) fn ask_inventory(&mut self, node: NodeId, after: Option<Digest>) {
        let state = Arc::new(self.state.clone());
        self.replicate(ReplicationEvent::InventoryDue { state, node, after });
    }

    pub(super) fn work(&mut self) {
        if self.work.is_empty() {
            return;
        }
        let index = self.rng.random_range(0..self.work.len());
        match self.work.swap_remove(index) {
            Work::Copy { from, task } => self.copy(from, &task),
            Work::Record { from, digest, target, ok } => self.record(from, digest, target, ok),
            Work::Order { from, node, digests } => {
                if from == self.coordinator {
                    self.order_deletion(node, digests);
                }
            }
            Work::Collect { from, permit, order, digests } => {
                self.collect(from, permit, order, &digests);
                // Sometimes the answer is lost.
                if self.rng.random_range(0..4) > 0 {
                    let node = permit.node;
                    self.work.push(Work::Collected { from, node, order, digests });
                }
            }
            Work::Collected { from, node, order, digests } => {
                if from == self.coordinator {
                    self.replicate(ReplicationEvent::DeletionEnded { node, order, digests });
                }
            }
            Work::Commit { upload, file } => self.commit(upload, file),
            Work::Propose { from, upload, file } => {
                if from == self.coordinator {
                    self.apply_commit(upload, file);
                }
            }
            Work::Inventory { from, node, void_below, page: None, after } => {
                self.list_inventory(from, node, void_below, after);
            }
            Work::Inventory { from, node, page: Some(page), after, .. } => {
                self.read_inventory(from, node, page, after);
            }
        }
    }

    fn commit(&mut self, upload: UploadId, mut file: NewFile) {
        let nodes = &self.nodes;
        file.extents[0].1.retain(|id| nodes[id].health == Health::Up);
        let abandoned = file.extents[0].1.is_empty() || self.rng.random_range(0..5) == 0;
        if self.use_upload(Some(upload)).is_ok() && !abandoned {
            self.work.push(Work::Propose { from: self.coordinator, upload, file });
            // Most wait for the outcome.
            if self.rng.random_range(0..4) > 0 {
                return;
            }
        }
        assert_eq!(self.handle_uploads(UploadsEvent::End { upload, confined_to: None }), None);
    }

    fn apply_commit(&mut self, upload: UploadId, file: NewFile) {
        let outcome = self.try_apply(Action::Change(Change::CommitFiles { upload, files: vec![file] }));
        if let Err(refusal) = outcome {
            assert_eq!(refusal.code, RefusalCode::UploadOver, "{refusal}");
            self.figures.refused += 1;
        }
        assert_eq!(self.handle_uploads(UploadsEvent::End { upload, confined_to: None }), None);
    }

    /// Each commit under way has reached the next coordinator's log, or is lost.
    pub(super) fn end_proposals(&mut self) {
        for work in std::mem::take(&mut self.work) {
            match work {
                Work::Propose { upload, file, .. } => {
                    if self.rng.random_range(0..2) == 0 {
                        self.apply_commit(upload, file);
                    }
                }
                work => self.work.push(work),
            }
        }
    }

    fn copy(&mut self, from: Coordinator, task: &CopyTask) {
        let digest = task.blob.digest;
        let readable =
            |id: &NodeId| self.nodes[id].health == Health::Up && self.nodes[id].disk.contains(&digest);
        let found = task.sources.iter().any(readable);
        let target = self.nodes.get_mut(&task.target).unwrap();
        let mut ok = found && target.accepts(from.term);
        if ok && self.rng.random_range(0..10) == 0 {
            ok = false;
        }
        if ok {
            self.figures.copies += 1;
            target.disk.insert(digest);
        }
        self.work.push(Work::Record { from, digest, target: task.target, ok });
    }

    fn record(&mut self, from: Coordinator, digest: Digest, target: NodeId, ok: bool) {
        if from != self.coordinator {
            return;
        }
        if ok {
            self.apply(Action::Holders(vec![HolderChange { digest, add: vec![target], remove: vec![] }]));
        }
        self.replicate(ReplicationEvent::CopyEnded { digest, target, ok });
    }

    fn collect(&mut self, from: Coordinator, permit: DeletionPermit, order: u64, digests: &[Digest]) {
        let node = self.nodes.get_mut(&permit.node).unwrap();
        if node.boot == permit.generation && node.accepts(from.term) {
            self.figures.void += u64::from(order < node.void_below);
            let (collected, spared) = node.collect(order, permit.watermark, digests);
            self.figures.collected += collected;
            self.figures.spared += spared;
        }
    }

    /// The member lists its blobs; the coordinator reads the page later.
    fn list_inventory(&mut self, from: Coordinator, id: NodeId, void_below: u64, after: Option<Digest>) {
        let node = self.nodes.get_mut(&id).unwrap();
        if node.accepts(from.term) {
            let page = Some(InventoryPage { boot: node.boot, digests: node.list(void_below, after) });
            self.work.push(Work::Inventory { from, node: id, void_below, page, after });
        }
    }

    fn read_inventory(&mut self, from: Coordinator, id: NodeId, page: InventoryPage, after: Option<Digest>) {
        let node = &self.nodes[&id];
        if from != self.coordinator || node.health != Health::Up || node.boot != page.boot {
            return;
        }
        let booted = UploadsEvent::Booted { node: id, generation: page.boot };
        assert_eq!(self.handle_uploads(booted), None);
        let digests = page.digests;
        let (last, end) = (digests.len() < PAGE, digests.last().copied());
        self.replicate(ReplicationEvent::InventoryRead {
            snapshot: self.snapshot(),
            node: id,
            digests,
            after,
            last,
        });
        if !last {
            self.ask_inventory(id, end);
        }
    }
}
