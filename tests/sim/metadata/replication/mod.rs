//! Members with disks die, crash, come back and join, files are put and deleted, coordinators change; commands are
//! carried out late, in any order, or never. The planner, the uploads and the holders' pins are the daemon's own code.
//!
//! Safety, after every step: each member recorded to hold a referenced blob has its bytes, unless destroyed, and each such
//! blob has at least one copy. Liveness, in the end: every such blob has its copies and no more, and
//! nothing else is left on a disk.

mod check;
mod member;
mod orders;

use std::collections::BTreeMap;
use std::time::Duration;

use self::member::{Health, Node};
use self::orders::{Coordinator, Work};
use idunno_core::machine::Machine;
use idunno_core::metadata::{Action, Applied, Command, State};
use idunno_core::placement::{Candidate, Members, ReplicationConfig, ReplicationPlanner, choose};
use idunno_core::time::Instant;
use idunno_core::uploads::{DeletionPermit, UploadError, Uploads, UploadsEffect, UploadsEvent, first_number};
use idunno_shared::ids::{Digest, NodeId, Term, UploadId};
use idunno_shared::wire::blobs::{BlobRef, COPIES};
use idunno_shared::wire::control::{Change, NewFile};
use idunno_shared::wire::refusal::Refusal;
use idunno_tests::seeds::{for_each_seed, is_replay};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const STEPS: usize = 400;
const CONTENTS: u64 = 16;
const MEMBERS_MAX: u64 = 14;
/// Members that vanish at once, at most.
const BURST_MAX: usize = 3;
const CONFIG: ReplicationConfig = ReplicationConfig {
    copies_per_member: 2,
    grace: Duration::from_secs(10),
    retry_after: Duration::from_secs(5),
};

struct World {
    rng: ChaCha8Rng,
    now: Instant,
    state: State,
    replication: ReplicationPlanner,
    nodes: BTreeMap<NodeId, Node>,
    work: Vec<Work>,
    coordinator: Coordinator,
    /// Entries in the log.
    log_index: u64,
    uploads: Uploads,
    figures: Seen,
}

/// Counts of what happened, which show that the seeds exercise every mechanism.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    copies: u64,
    collected: u64,
    spared: u64,
    trims: u64,
    adopted: u64,
    bursts: u64,
    void: u64,
    /// Of a coordinator, in its term.
    restarts: u64,
    /// Commits refused because their upload was over when they were applied.
    refused: u64,
}

fn digest_of(content: u64) -> Digest {
    Digest::of(&content.to_le_bytes())
}

impl World {
    fn new(seed: u64) -> Self {
        let coordinator = Coordinator { term: Term(1), taken_over_at: 1 };
        let mut world = Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: Instant::START,
            state: State::new(),
            replication: ReplicationPlanner::new(CONFIG, first_number(1)),
            nodes: BTreeMap::new(),
            work: Vec::new(),
            coordinator,
            log_index: 1,
            uploads: Uploads::new(coordinator.term, first_number(1)),
            figures: Seen::default(),
        };
        for _ in 0..world.rng.random_range(4..8) {
            world.join();
        }
        world
    }

    fn apply(&mut self, action: Action) {
        self.try_apply(action).unwrap();
    }

    fn try_apply(&mut self, action: Action) -> Result<Applied, Refusal> {
        let at_ms = self.now.as_micros() / 1000;
        let outcome = self.state.apply(&Command { at_ms, op: None, action, upload: None, by: None });
        self.log_index += 1;
        self.state.check().unwrap();
        outcome
    }

    fn members(&self) -> Members {
        let of = |health: Health| self.nodes.iter().filter(move |(_, node)| node.health == health);
        Members {
            live: of(Health::Up).map(|(id, _)| (*id, 1 << 40)).collect(),
            absent: of(Health::Crashed).map(|(id, node)| (*id, node.absent_since)).collect(),
        }
    }

    fn up(&self) -> Vec<NodeId> {
        self.members().live.into_keys().collect()
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        (!items.is_empty()).then(|| items[self.rng.random_range(0..items.len())])
    }

    fn handle_uploads(&mut self, event: UploadsEvent) -> Option<UploadsEffect> {
        self.uploads.handle(event, self.now);
        self.uploads.check().unwrap();
        self.uploads.poll_effect()
    }

    fn use_upload(&mut self, upload: Option<UploadId>) -> Result<UploadId, UploadError> {
        match self.handle_uploads(UploadsEvent::Use { request: 0, upload, confined_to: None }) {
            Some(UploadsEffect::Answer { outcome, .. }) => outcome,
            effect => panic!("unexpected effect for the use of an upload: {effect:?}"),
        }
    }

    fn permit(&mut self, node: NodeId) -> Option<DeletionPermit> {
        let generation = self.nodes[&node].boot;
        match self.handle_uploads(UploadsEvent::PermitRequested { request: 0, node, generation }) {
            Some(UploadsEffect::Permit { permit, .. }) => permit,
            effect => panic!("unexpected effect for a request for a permit: {effect:?}"),
        }
    }

    fn join(&mut self) {
        let id = NodeId(self.nodes.len() as u64);
        if id.0 < MEMBERS_MAX {
            self.nodes.insert(id, Node::new(self.now));
        }
    }

    /// Stores the bytes at the holders now; the commit comes later or never.
    fn put(&mut self) {
        let content = self.rng.random_range(0..CONTENTS);
        let digest = digest_of(content);
        let Ok(upload) = self.use_upload(None) else { return };
        let candidates: Vec<_> =
            self.up().into_iter().map(|node| Candidate { node, free_bytes: 1 << 40 }).collect();
        let mut holders = choose(&digest, &candidates, &[], COPIES);
        if self.rng.random_range(0..4) == 0 {
            holders.truncate(2);
        }
        for holder in &holders {
            self.nodes.get_mut(holder).unwrap().store(digest, upload);
        }
        let name = format!("f{}", self.rng.random_range(0..10)).parse().unwrap();
        let extents = vec![(BlobRef { digest, size: 8 }, holders)];
        self.work.push(Work::Commit { upload, file: NewFile { name, size: 8, digest, extents } });
    }

    fn delete(&mut self) {
        let names: Vec<_> = self.state.files("", None).map(|(name, _)| (**name).clone()).collect();
        if !names.is_empty() {
            let name = names[self.rng.random_range(0..names.len())].clone();
            self.apply(Action::Change(Change::Delete { name }));
        }
    }

    fn crash(&mut self) {
        let up = self.up();
        if let Some(id) = self.pick(&up).filter(|_| up.len() > 1) {
            let now = self.now;
            self.nodes.get_mut(&id).unwrap().crash(now);
        }
    }

    fn restart(&mut self) {
        let down: Vec<NodeId> = self.members().absent.into_keys().collect();
        if let Some(id) = self.pick(&down) {
            self.nodes.get_mut(&id).unwrap().restart();
        }
    }

    /// Up to three members are lost permanently, at a moment when every blob has its copies.
    fn burst(&mut self) {
        let up = self.up();
        let members = self.members();
        let wanted = COPIES.min(up.len());
        let full = self
            .state
            .blobs()
            .values()
            .all(|blob| blob.references == 0 || members.live_among(&blob.holders) >= wanted);
        let is_committing = self.work.iter().any(|work| matches!(work, Work::Propose { .. }));
        if !full || is_committing || up.len() <= BURST_MAX {
            return;
        }
        self.figures.bursts += 1;
        for _ in 0..self.rng.random_range(1..=BURST_MAX) {
            let up = self.up();
            if let Some(node) = self.pick(&up).and_then(|id| self.nodes.get_mut(&id)) {
                (node.health, node.boot) = (Health::Destroyed, node.boot + 1);
                node.disk.clear();
            }
        }
    }

    /// Another coordinator takes over, or the same one after a restart: it leads its old term again. It knows of nothing
    /// under way, and all uploads are over.
    fn fail_over(&mut self) {
        self.end_proposals();
        let Term(term) = self.coordinator.term;
        let is_restart = self.rng.random_range(0..2) == 0;
        self.figures.restarts += u64::from(is_restart);
        self.log_index += 1;
        let term = if is_restart { Term(term) } else { Term(term + 1) };
        self.coordinator = Coordinator { term, taken_over_at: self.log_index };
        let first = first_number(self.log_index);
        self.uploads = Uploads::new(term, first);
        self.replication = ReplicationPlanner::new(CONFIG, first);
    }

    fn step(&mut self) {
        self.now = self.now + Duration::from_millis(self.rng.random_range(0..500));
        match self.rng.random_range(0..100) {
            0..12 => self.put(),
            12..16 => self.delete(),
            16..18 => self.crash(),
            18..22 => self.restart(),
            22..24 => self.burst(),
            24 => self.join(),
            25 => self.fail_over(),
            26..36 => self.inventory(),
            36..50 => self.maintain(),
            _ => self.work(),
        }
        self.check();
    }

    /// Ends the faults: all members that can come back do, and all remaining work is done.
    fn settle(&mut self) {
        for _ in 0..MEMBERS_MAX {
            self.restart();
        }
        for _round in 0..30 {
            self.now = self.now + Duration::from_secs(20);
            while !self.work.is_empty() {
                self.work();
                self.check();
            }
            self.maintain();
            for id in self.up() {
                self.ask_inventory(id, None);
            }
            while !self.work.is_empty() {
                self.work();
                self.check();
            }
        }
    }
}

fn run(seed: u64) -> Seen {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.settle();
    world.check_settled();
    world.figures
}

#[test]
fn copies_survive_and_garbage_does_not() {
    let runs = for_each_seed("metadata::replication::copies_survive_and_garbage_does_not", 200, run);
    if !is_replay() {
        let sum = |figure: fn(&Seen) -> u64| runs.iter().map(figure).sum::<u64>();
        let [copies, collected, spared] = [sum(|s| s.copies), sum(|s| s.collected), sum(|s| s.spared)];
        let [trims, adopted, bursts] = [sum(|s| s.trims), sum(|s| s.adopted), sum(|s| s.bursts)];
        let [void, restarts, refused] = [sum(|s| s.void), sum(|s| s.restarts), sum(|s| s.refused)];
        let all = [copies, collected, spared, trims, adopted, bursts, void, restarts, refused];
        assert!(all.iter().all(|count| *count > 20), "the runs exercise too little: {all:?}");
        println!("copies, collected, spared, trims, adopted, bursts, void, restarts, refused: {all:?}");
    }
}
