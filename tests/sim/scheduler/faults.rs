//! Faults of workers and coordinators, and changes by people, at random times.

use std::time::Duration;

use idunno_core::ranges::RangeSet;
use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::jobs::{FaultKind, Lease};
use rand::RngExt;

use super::jobs::fault;
use super::worker::Stage;
use super::world::{Message, SimEvent, WorkerEvent, World};

/// How long a model's process takes to start again.
const RUNNER_START_US: std::ops::Range<u64> = 1_000_000..3_000_000;

impl World {
    fn kill(&mut self, node: NodeId) {
        if self.workers[&node].is_alive {
            self.worker(node).is_alive = false;
            let (noticed, back) =
                (self.random_duration(300_000..1_500_000), self.random_duration(200_000..5_000_000));
            self.schedule(noticed, SimEvent::Detected(node));
            self.schedule(back, SimEvent::Restart(node));
        }
    }

    fn freeze(&mut self, node: NodeId) {
        let end = self.now + self.random_duration(200_000..9_000_000);
        self.worker(node).frozen_until = end;
        self.schedule(Duration::from_secs(2), SimEvent::Detected(node));
    }

    pub(crate) fn crash_server(&mut self, node: NodeId) {
        let worker = self.worker(node);
        if !worker.is_alive || worker.server_down {
            return;
        }
        worker.server_down = true;
        worker.hangs = false;
        worker.training.clear();
        worker.restarting.clear();
        let unrun: Vec<Lease> = worker
            .leases
            .iter()
            .filter(|(_, stage)| !matches!(stage, Stage::Completed { .. }))
            .map(|(lease, _)| *lease)
            .collect();
        for lease in unrun {
            self.worker(node).drop_lease(lease);
            let faults = vec![fault(FaultKind::Worker, &RangeSet::from(lease.range))];
            self.send(Message::Failed { worker: node, lease, faults });
        }
        let back = self.random_duration(300_000..3_000_000);
        self.schedule_for(node, back, WorkerEvent::ServerUp);
    }

    /// A batch ends the process of its model: what waits for it is given back without a fault, and it starts again.
    pub(crate) fn crash_runner(&mut self, node: NodeId, lease: Lease) {
        let model = self.log.jobs[&lease.job].load.model;
        let jobs = &self.log.jobs;
        let Some(worker) = self.workers.get_mut(&node) else { return };
        worker.restarting.insert(model);
        worker.leases.retain(|(held, stage)| {
            *held == lease || *stage != Stage::Queued || jobs[&held.job].load.model != model
        });
        let back = self.random_duration(RUNNER_START_US);
        self.schedule_for(node, back, WorkerEvent::RunnerUp(model));
    }

    fn drain(&mut self, node: NodeId) {
        let worker = self.worker(node);
        if worker.is_alive {
            worker.draining = true;
            worker.leases.retain(|(_, stage)| *stage != Stage::Queued);
            self.report(node);
        }
    }

    /// Injects a random fault, or a random change by a person.
    pub(crate) fn random_fault(&mut self) {
        if !self.are_faults_on {
            return;
        }
        let next = self.random_duration(100_000..1_500_000);
        self.schedule(next, SimEvent::Fault);
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
                let back = self.random_duration(100_000..4_000_000);
                self.schedule(back, SimEvent::Resume(job));
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

    /// Ends all faults; from now on only the faulty queries fail.
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
