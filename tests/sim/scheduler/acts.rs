//! What the workers do, and what is done to them.

use std::time::Duration;

use idunno_core::ranges::RangeSet;
use idunno_core::scheduler::{OrdersPlan, RanBatch};
use idunno_shared::ids::{JobId, NodeId, Term};
use idunno_shared::wire::jobs::{FaultKind, Lease};
use rand::RngExt;

use super::load::{fault, model_name};
use super::worker::Stage;
use super::world::{Happening, Local, Message, World};

const HEARTBEAT: Duration = Duration::from_secs(1);
const COMMIT_TIMEOUT: Duration = Duration::from_millis(400);
/// A worker's own deadline for a batch, while it has measured nothing.
const GIVES_UP: Duration = Duration::from_secs(90);

impl World {
    pub(crate) fn happen_at(&mut self, node: NodeId, generation: u64, local: Local) {
        let worker = &self.workers[&node];
        if !worker.is_alive || worker.generation != generation {
            return;
        }
        if worker.frozen_until > self.now {
            let delay = worker.frozen_until.since(self.now);
            self.at(delay, Happening::At { worker: node, generation, local });
            return;
        }
        match local {
            Local::Orders { term, plan, number } => self.obey(node, term, plan, number),
            Local::Acknowledged(lease) => {
                self.worker(node).drop_lease(lease);
                self.report(node);
            }
            Local::RunEnds(lease) => self.run_ends(node, lease),
            Local::CommitAgain(lease) => self.commit(node, lease),
            Local::Heartbeat => {
                self.report(node);
                self.local(node, HEARTBEAT, Local::Heartbeat);
            }
            Local::TrainingEnds(model) => {
                if self.worker(node).training.remove(&model) {
                    let is_good = self.chance(600);
                    self.send(Message::Trained { worker: node, model, is_good });
                }
            }
            Local::ServerUp => {
                self.worker(node).server_down = false;
                self.report(node);
            }
        }
    }

    fn worker(&mut self, node: NodeId) -> &mut super::worker::SimWorker {
        self.workers.get_mut(&node).expect("a known worker")
    }

    fn report(&mut self, node: NodeId) {
        self.worker(node).sent += 1;
        let report = self.workers[&node].report(self.now);
        self.send(Message::Report(report));
    }

    fn obey(&mut self, node: NodeId, term: Term, plan: OrdersPlan, number: u64) {
        let worker = self.worker(node);
        if term < worker.term {
            return;
        }
        worker.term = term;
        for lease in plan.cancelled {
            worker.drop_lease(lease);
        }
        for lease in plan.grants {
            worker.leases.push((lease, Stage::Waits));
        }
        let number_of = |model| (0..=u8::MAX).find(|m| model_name(*m) == model).expect("a known model");
        for model in plan.stop_training {
            self.worker(node).training.remove(&number_of(model));
        }
        for (model, _) in plan.train {
            let model: u8 = number_of(model);
            if self.worker(node).training.insert(model) {
                self.local(node, Duration::from_secs(2), Local::TrainingEnds(model));
            }
        }
        if plan.restart.is_some() {
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
        let ends = if self.workers[&node].hangs { GIVES_UP } else { Duration::from_micros(run_us) };
        self.local(node, ends, Local::RunEnds(lease));
        let worker = self.worker(node);
        worker.busy_us += run_us;
        worker.batches += 1;
        worker.switches +=
            u64::from(worker.last_job.replace(lease.job).is_some_and(|last| last != lease.job));
    }

    fn run_ends(&mut self, node: NodeId, lease: Lease) {
        let Some(&mut Stage::Runs { since }) = self.worker(node).stage(lease) else { return };
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
        if faults.iter().any(|fault| fault.kind == FaultKind::Inference) {
            job.call_failed(lease.range);
        }
        if !faults.is_empty() {
            self.send(Message::Failed { worker: node, lease, faults });
        }
        if rows.is_empty() {
            self.worker(node).drop_lease(lease);
            self.report(node);
        } else if let Some(stage) = self.worker(node).stage(lease) {
            *stage = Stage::Ran { rows, inference_us };
            self.commit(node, lease);
        }
        self.start(node);
    }

    fn commit(&mut self, node: NodeId, lease: Lease) {
        let generation = self.workers[&node].generation;
        let Some(Stage::Ran { rows, inference_us }) = self.worker(node).stage(lease).cloned() else { return };
        let (_, refused) = self.log.jobs[&lease.job].load.cost(lease.range.count);
        let ran = RanBatch { lease, inference_us, refused };
        self.send(Message::Commit { worker: node, generation, ran, rows });
        self.local(node, COMMIT_TIMEOUT, Local::CommitAgain(lease));
    }

    pub(crate) fn restart(&mut self, node: NodeId) {
        if !self.workers[&node].is_alive {
            self.worker(node).restart();
            self.local(node, Duration::ZERO, Local::Heartbeat);
        }
    }

    fn kill(&mut self, node: NodeId) {
        if self.workers[&node].is_alive {
            self.worker(node).is_alive = false;
            let (noticed, back) = (self.within(300_000..1_500_000), self.within(200_000..5_000_000));
            self.at(noticed, Happening::Detected(node));
            self.at(back, Happening::Restart(node));
        }
    }

    fn freeze(&mut self, node: NodeId) {
        let end = self.now + self.within(200_000..9_000_000);
        self.worker(node).frozen_until = end;
        self.at(Duration::from_secs(2), Happening::Detected(node));
    }

    fn crash_server(&mut self, node: NodeId) {
        let worker = self.worker(node);
        if !worker.is_alive || worker.server_down {
            return;
        }
        worker.server_down = true;
        worker.hangs = false;
        worker.training.clear();
        let unrun: Vec<Lease> = worker
            .leases
            .iter()
            .filter(|(_, stage)| !matches!(stage, Stage::Ran { .. }))
            .map(|(lease, _)| *lease)
            .collect();
        for lease in unrun {
            self.worker(node).drop_lease(lease);
            let faults = vec![fault(FaultKind::Worker, &RangeSet::from(lease.range))];
            self.send(Message::Failed { worker: node, lease, faults });
        }
        let back = self.within(300_000..3_000_000);
        self.local(node, back, Local::ServerUp);
    }

    fn drain(&mut self, node: NodeId) {
        let worker = self.worker(node);
        if worker.is_alive {
            worker.draining = true;
            worker.leases.retain(|(_, stage)| *stage != Stage::Waits);
            self.report(node);
        }
    }

    /// Something goes wrong, or a person changes something.
    pub(crate) fn random_fault(&mut self) {
        if !self.are_faults_on {
            return;
        }
        let next = self.within(100_000..1_500_000);
        self.at(next, Happening::Fault);
        let nodes: Vec<NodeId> = self.workers.keys().copied().collect();
        let node = nodes[self.rng.random_range(0..nodes.len())];
        let jobs: Vec<JobId> = self.log.jobs.keys().copied().collect();
        let job = jobs[self.rng.random_range(0..jobs.len())];
        match self.rng.random_range(0..100) {
            0..20 => self.kill(node),
            20..40 => self.freeze(node),
            40..50 => self.depose(),
            50..60 => self.crash_server(node),
            60..64 => self.drain(node),
            64..67 => self.worker(node).hangs = true,
            67..72 => self.worker(node).slowness = [30, 100, 400][self.rng.random_range(0..3)],
            72..82 => {
                self.change(job, |job| job.running = false);
                let back = self.within(100_000..4_000_000);
                self.at(back, Happening::Resume(job));
            }
            82..94 => {
                let size = [0, 1, 5, 16, 32, 100][self.rng.random_range(0..6)];
                self.change(job, |job| job.batch_size = size.into());
            }
            94..97 if jobs.len() < 8 => {
                let load = super::random_load(self, 0);
                let added = self.log.add(load, 16, 1);
                self.change(added, |_| {});
            }
            _ => self.change(job, |job| job.dead.clear()),
        }
    }

    /// From now on nothing fails but the queries that do.
    pub(crate) fn heal(&mut self) {
        self.are_faults_on = false;
        self.loss_per_mille = 0;
        let nodes: Vec<NodeId> = self.workers.keys().copied().collect();
        for node in nodes {
            if self.workers[&node].draining {
                self.worker(node).is_alive = false;
            }
            self.worker(node).frozen_until = self.now;
            self.worker(node).slowness = 100;
            self.restart(node);
        }
        let jobs: Vec<JobId> = self.log.jobs.keys().copied().collect();
        for job in jobs {
            self.change(job, |job| job.running = true);
        }
    }
}
