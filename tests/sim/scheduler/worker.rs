//! A worker as the scheduler meets it: two leases, one running; it reports, commits until it is acknowledged,
//! and can die, restart, freeze, and lose its model server.

use std::collections::BTreeSet;

use idunno_core::ranges::RangeSet;
use idunno_core::time::Instant;
use idunno_shared::ids::{JobId, NodeId, Term};
use idunno_shared::wire::jobs::{LEASES_PER_WORKER_MAX, Lease, ModelState, ServerState, WorkerReport};

use super::load::{model_name, version};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stage {
    Waits,
    Runs {
        since: Instant,
    },
    /// Its rows are being committed.
    Ran {
        rows: RangeSet,
        inference_us: u64,
    },
}

pub(crate) struct SimWorker {
    pub(crate) node: NodeId,
    pub(crate) generation: u64,
    pub(crate) is_alive: bool,
    pub(crate) frozen_until: Instant,
    pub(crate) server_down: bool,
    pub(crate) draining: bool,
    pub(crate) models: BTreeSet<u8>,
    pub(crate) training: BTreeSet<u8>,
    /// Runs take this many percent of their time.
    pub(crate) slowness: u64,
    pub(crate) term: Term,
    pub(crate) leases: Vec<(Lease, Stage)>,
    pub(crate) busy_us: u64,
    /// Batches that it began, and those of another job than the one before.
    pub(crate) batches: u64,
    pub(crate) switches: u64,
    pub(crate) last_job: Option<JobId>,
    /// Its model server answers nothing until it is restarted.
    pub(crate) hangs: bool,
    /// Reports of this generation.
    pub(crate) sent: u64,
}

impl SimWorker {
    pub(crate) fn new(node: NodeId, models: BTreeSet<u8>) -> Self {
        Self {
            node,
            generation: 1,
            is_alive: true,
            frozen_until: Instant::START,
            server_down: false,
            draining: false,
            models,
            training: BTreeSet::new(),
            slowness: 100,
            term: Term(0),
            leases: Vec::new(),
            busy_us: 0,
            batches: 0,
            switches: 0,
            last_job: None,
            hangs: false,
            sent: 0,
        }
    }

    pub(crate) fn restart(&mut self) {
        self.is_alive = true;
        self.generation += 1;
        self.server_down = false;
        self.draining = false;
        self.training.clear();
        self.term = Term(0);
        self.leases.clear();
        self.hangs = false;
        self.sent = 0;
    }

    pub(crate) fn wanted(&self) -> u8 {
        let free = LEASES_PER_WORKER_MAX.saturating_sub(self.leases.len());
        if self.server_down || self.draining { 0 } else { u8::try_from(free).unwrap_or(0) }
    }

    pub(crate) fn report(&self, now: Instant) -> WorkerReport {
        let mut leases: Vec<&(Lease, Stage)> = self.leases.iter().collect();
        leases.sort_by_key(|(_, stage)| match stage {
            Stage::Ran { .. } => 0,
            Stage::Runs { .. } => 1,
            Stage::Waits => 2,
        });
        let running = leases.iter().find_map(|(_, stage)| match stage {
            Stage::Runs { since } => Some(now.since(*since)),
            _ => None,
        });
        let ran = leases.iter().filter(|(_, stage)| matches!(stage, Stage::Ran { .. })).count();
        let ready = self.models.iter().map(|m| (model_name(*m), ModelState::Ready(version(*m))));
        let training = self.training.iter().map(|m| (model_name(*m), ModelState::Training));
        WorkerReport {
            worker: self.node,
            generation: self.generation,
            server: if self.server_down { ServerState::Down("crashed".into()) } else { ServerState::Ready },
            models: ready.chain(training).collect(),
            leases: leases.iter().map(|(lease, _)| *lease).collect(),
            awaiting_commit: u16::try_from(ran).unwrap_or(u16::MAX),
            wanted: self.wanted(),
            wait_ms: 1_500,
            draining: self.draining,
            offers: None,
            running_ms: running.map(|ran| u32::try_from(ran.as_millis()).unwrap_or(u32::MAX)),
            number: self.sent,
            trainings: Vec::new(),
        }
    }

    /// The lease to run next, if none runs.
    pub(crate) fn start(&mut self, now: Instant) -> Option<Lease> {
        if self.server_down || self.leases.iter().any(|(_, stage)| matches!(stage, Stage::Runs { .. })) {
            return None;
        }
        let (lease, stage) = self.leases.iter_mut().find(|(_, stage)| *stage == Stage::Waits)?;
        *stage = Stage::Runs { since: now };
        Some(*lease)
    }

    pub(crate) fn stage(&mut self, lease: Lease) -> Option<&mut Stage> {
        self.leases.iter_mut().find(|(held, _)| *held == lease).map(|(_, stage)| stage)
    }

    pub(crate) fn drop_lease(&mut self, lease: Lease) {
        self.leases.retain(|(held, _)| *held != lease);
    }
}
