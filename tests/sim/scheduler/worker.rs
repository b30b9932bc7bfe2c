//! A simulated worker: it holds two leases and runs one, reports, and commits until it is acknowledged. It can die,
//! restart, freeze and lose its model server (`faults.rs`).

use std::collections::BTreeSet;
use std::time::Duration;

use idunno_core::ranges::RangeSet;
use idunno_core::scheduler::{CompletedBatch, ReplyPlan};
use idunno_core::time::Instant;
use idunno_shared::ids::{JobId, NodeId, Term};
use idunno_shared::wire::jobs::{
    FaultKind, LEASES_PER_WORKER_MAX, Lease, ModelState, ServerState, WorkerReport,
};
use idunno_shared::wire::resources::{SharedBackend, WorkerResources};
use rand::RngExt;

use super::jobs::{fault, model_name, version};
use super::world::{Message, SimEvent, WorkerEvent, World};

const HEARTBEAT: Duration = Duration::from_secs(1);
const COMMIT_TIMEOUT: Duration = Duration::from_millis(400);
/// The worker's deadline for a batch of a model that it has not measured.
const BATCH_TIMEOUT: Duration = Duration::from_secs(90);

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stage {
    Queued,
    Running {
        since: Instant,
    },
    /// Its rows are sent until the commit is acknowledged.
    Completed {
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
    /// The models whose processes have ended and start again.
    pub(crate) restarting: BTreeSet<u8>,
    /// The time of its batches as a percentage of the normal time.
    pub(crate) slowness: u64,
    pub(crate) term: Term,
    pub(crate) leases: Vec<(Lease, Stage)>,
    pub(crate) busy_us: u64,
    /// Batches that it started, and those among them of another job than the one before.
    pub(crate) batches: u64,
    pub(crate) switches: u64,
    pub(crate) last_job: Option<JobId>,
    /// Whether its model server answers nothing until it is restarted.
    pub(crate) hangs: bool,
    /// Reports sent in this generation.
    pub(crate) sent: u64,
    /// The backends that it shares with others.
    pub(crate) shared: Vec<SharedBackend>,
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
            restarting: BTreeSet::new(),
            slowness: 100,
            term: Term(0),
            leases: Vec::new(),
            busy_us: 0,
            batches: 0,
            switches: 0,
            last_job: None,
            hangs: false,
            sent: 0,
            shared: Vec::new(),
        }
    }

    pub(crate) fn restart(&mut self) {
        self.is_alive = true;
        self.generation += 1;
        self.server_down = false;
        self.draining = false;
        self.training.clear();
        self.restarting.clear();
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
            Stage::Completed { .. } => 0,
            Stage::Running { .. } => 1,
            Stage::Queued => 2,
        });
        let running = leases.iter().find_map(|(_, stage)| match stage {
            Stage::Running { since } => Some(now.since(*since)),
            _ => None,
        });
        let ran = leases.iter().filter(|(_, stage)| matches!(stage, Stage::Completed { .. })).count();
        let ready = self
            .models
            .difference(&self.restarting)
            .map(|m| (model_name(*m), ModelState::Ready(version(*m))));
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
            resources: WorkerResources { shared: self.shared.clone(), ..WorkerResources::default() },
        }
    }

    /// Starts the next lease, if none is running.
    pub(crate) fn start(&mut self, now: Instant) -> Option<Lease> {
        if self.server_down || self.leases.iter().any(|(_, stage)| matches!(stage, Stage::Running { .. })) {
            return None;
        }
        let (lease, stage) = self.leases.iter_mut().find(|(_, stage)| *stage == Stage::Queued)?;
        *stage = Stage::Running { since: now };
        Some(*lease)
    }

    pub(crate) fn stage(&mut self, lease: Lease) -> Option<&mut Stage> {
        self.leases.iter_mut().find(|(held, _)| *held == lease).map(|(_, stage)| stage)
    }

    pub(crate) fn drop_lease(&mut self, lease: Lease) {
        self.leases.retain(|(held, _)| *held != lease);
    }
}

impl World {
    pub(crate) fn on_worker_event(&mut self, node: NodeId, generation: u64, event: WorkerEvent) {
        let worker = &self.workers[&node];
        if !worker.is_alive || worker.generation != generation {
            return;
        }
        if worker.frozen_until > self.now {
            let delay = worker.frozen_until.since(self.now);
            self.schedule(delay, SimEvent::AtWorker { worker: node, generation, event });
            return;
        }
        match event {
            WorkerEvent::Reply { term, reply, number } => self.apply_reply(node, term, reply, number),
            WorkerEvent::Acknowledged(lease) => {
                self.worker(node).drop_lease(lease);
                self.report(node);
            }
            WorkerEvent::RunEnds(lease) => self.run_ends(node, lease),
            WorkerEvent::CommitAgain(lease) => self.commit(node, lease),
            WorkerEvent::Heartbeat => {
                self.report(node);
                self.schedule_for(node, HEARTBEAT, WorkerEvent::Heartbeat);
            }
            WorkerEvent::TrainingEnds(model) => {
                if self.worker(node).training.remove(&model) {
                    let is_good = self.chance(600);
                    self.send(Message::Trained { worker: node, model, is_good });
                }
            }
            WorkerEvent::RunnerUp(model) => {
                self.worker(node).restarting.remove(&model);
                self.report(node);
            }
            WorkerEvent::ServerUp => {
                self.worker(node).server_down = false;
                self.report(node);
            }
        }
    }

    pub(crate) fn worker(&mut self, node: NodeId) -> &mut SimWorker {
        self.workers.get_mut(&node).expect("a known worker")
    }

    pub(crate) fn report(&mut self, node: NodeId) {
        self.worker(node).sent += 1;
        let report = self.workers[&node].report(self.now);
        self.send(Message::Report(report));
    }

    fn apply_reply(&mut self, node: NodeId, term: Term, reply: ReplyPlan, number: u64) {
        let Some(worker) = self.workers.get_mut(&node) else { return };
        if term < worker.term {
            return;
        }
        worker.term = term;
        for lease in reply.cancelled {
            worker.drop_lease(lease);
        }
        for lease in reply.grants {
            // A batch whose model has ended since is given back: it is not reported.
            if !worker.restarting.contains(&self.log.jobs[&lease.job].load.model) {
                worker.leases.push((lease, Stage::Queued));
            }
        }
        let number_of = |model| (0..=u8::MAX).find(|m| model_name(*m) == model).expect("a known model");
        for model in reply.stop_training {
            self.worker(node).training.remove(&number_of(model));
        }
        for (model, _) in reply.train {
            let model: u8 = number_of(model);
            if self.worker(node).training.insert(model) {
                self.schedule_for(node, Duration::from_secs(2), WorkerEvent::TrainingEnds(model));
            }
        }
        if reply.restart.is_some() {
            self.crash_server(node);
        }
        self.start(node);
        let is_newest = self.workers[&node].sent == number;
        if is_newest && self.workers[&node].wanted() > 0 {
            self.report(node);
        }
    }

    fn start(&mut self, node: NodeId) {
        let now = self.now;
        let Some(lease) = self.worker(node).start(now) else { return };
        let (cost_us, _) = self.log.jobs[&lease.job].load.cost(lease.range.count);
        let slowness = self.workers[&node].slowness;
        let noise = self.rng.random_range(80..120);
        let run_us = cost_us * slowness * noise / 10_000;
        let ends = if self.workers[&node].hangs { BATCH_TIMEOUT } else { Duration::from_micros(run_us) };
        self.schedule_for(node, ends, WorkerEvent::RunEnds(lease));
        let worker = self.worker(node);
        worker.busy_us += run_us;
        worker.batches += 1;
        worker.switches +=
            u64::from(worker.last_job.replace(lease.job).is_some_and(|last| last != lease.job));
    }

    fn run_ends(&mut self, node: NodeId, lease: Lease) {
        let Some(&mut Stage::Running { since }) = self.worker(node).stage(lease) else { return };
        if self.workers[&node].hangs {
            self.worker(node).drop_lease(lease);
            self.log.jobs.get_mut(&lease.job).expect("a job in the log").call_failed(lease.range);
            let faults = vec![fault(FaultKind::Inference, &RangeSet::from(lease.range))];
            self.send(Message::Failed { worker: node, lease, faults });
            return self.crash_server(node);
        }
        let inference_us = self.now.as_micros() - since.as_micros();
        let job = self.log.jobs.get_mut(&lease.job).expect("a job in the log");
        let (rows, faults) = job.load.run(lease.range);
        let is_crash = faults.iter().any(|fault| fault.kind == FaultKind::Crash);
        if is_crash || faults.iter().any(|fault| fault.kind == FaultKind::Inference) {
            job.call_failed(lease.range);
        }
        if is_crash {
            self.crash_runner(node, lease);
        }
        if !faults.is_empty() {
            self.send(Message::Failed { worker: node, lease, faults });
        }
        if rows.is_empty() {
            self.worker(node).drop_lease(lease);
            self.report(node);
        } else if let Some(stage) = self.worker(node).stage(lease) {
            *stage = Stage::Completed { rows, inference_us };
            self.commit(node, lease);
        }
        self.start(node);
    }

    fn commit(&mut self, node: NodeId, lease: Lease) {
        let generation = self.workers[&node].generation;
        let Some(Stage::Completed { rows, inference_us }) = self.worker(node).stage(lease).cloned() else {
            return;
        };
        let (_, refused) = self.log.jobs[&lease.job].load.cost(lease.range.count);
        let ran = CompletedBatch { lease, inferred: lease.range.count, inference_us, refused };
        self.send(Message::Commit { worker: node, generation, ran, rows });
        self.schedule_for(node, COMMIT_TIMEOUT, WorkerEvent::CommitAgain(lease));
    }

    pub(crate) fn restart(&mut self, node: NodeId) {
        if !self.workers[&node].is_alive {
            self.worker(node).restart();
            self.schedule_for(node, Duration::ZERO, WorkerEvent::Heartbeat);
        }
    }
}
