//! The real metadata and scheduler with workers that answer at once, in virtual time: messages take random times, and now
//! and then a worker dies with what it has not committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use idunno_core::metadata::{Action, Applied, State};
use idunno_core::scheduler::{
    Committed, CompletedBatch, JobSpec, ReplyPlan, Scheduler, SchedulerConfig, SchedulerEffect,
    SchedulerEvent,
};
use idunno_core::time::Instant;
use idunno_shared::ids::{JobId, NodeId, Term};
use idunno_shared::wire::control::JobState;
use idunno_shared::wire::jobs::{
    BatchOutcome, LEASES_PER_WORKER_MAX, Lease, ModelState, ServerState, TokenCount, WorkerReport,
};
use idunno_shared::wire::resources::WorkerResources;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::metadata::{MODEL, command, extent};

const HEARTBEAT: Duration = Duration::from_secs(1);
/// Batches in a segment: a worker stores one when it has so many, or no more work.
const BATCHES_PER_SEGMENT: usize = 64;
/// What the inference of a query takes, for the automatic batch size.
const QUERY_US: u64 = 2;

enum Event {
    Report(WorkerReport),
    Reply { worker: NodeId, generation: u64, reply: ReplyPlan },
    Commit { worker: NodeId, generation: u64, ran: Vec<Lease> },
    Heartbeat(NodeId),
}

#[derive(Default)]
struct Worker {
    generation: u64,
    reports: u64,
    /// Batches that have run and are not sent yet.
    ran: Vec<Lease>,
    /// Batches whose commit is on its way.
    sent: Vec<Lease>,
}

/// What a run has cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// Events of the scheduler.
    pub(crate) events: u64,
    /// Entries of the log.
    pub(crate) entries: u64,
    /// Batches that were committed.
    pub(crate) batches: u64,
    /// Queries that the log accepted, and those that it had accepted before.
    pub(crate) accepted: u64,
    pub(crate) duplicates: u64,
    pub(crate) deaths: u64,
}

pub(crate) struct NoOpCluster {
    pub(crate) state: State,
    pub(crate) scheduler: Scheduler,
    pub(crate) cost: Cost,
    /// Of so many commits, one is the last that its worker does.
    pub(crate) commits_per_death: u32,
    now: Instant,
    rng: ChaCha8Rng,
    queue: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    workers: BTreeMap<NodeId, Worker>,
}

impl NoOpCluster {
    /// `workers` workers over a state in which jobs are running.
    pub(crate) fn new(state: State, workers: u64) -> Self {
        let scheduler = Scheduler::new(SchedulerConfig::default(), Term(1), Instant::START);
        let workers: BTreeMap<NodeId, Worker> =
            (1..=workers).map(|node| (NodeId(node), Worker::default())).collect();
        let nodes: BTreeSet<NodeId> = workers.keys().copied().collect();
        let mut cluster = Self {
            state,
            scheduler,
            cost: Cost::default(),
            commits_per_death: u32::MAX,
            now: Instant::START,
            rng: ChaCha8Rng::seed_from_u64(7),
            queue: BTreeMap::new(),
            sequence: 0,
            workers,
        };
        cluster.handle(SchedulerEvent::ExpectedWorkers(nodes.clone()));
        cluster.announce();
        for node in nodes {
            cluster.after(Duration::ZERO, Event::Heartbeat(node));
        }
        cluster
    }

    /// Hands the scheduler the running jobs, as the coordinator does. Returns how many jobs it looked at.
    pub(crate) fn announce(&mut self) -> usize {
        let jobs: Vec<_> = self.state.unsettled_jobs().map(Arc::clone).collect();
        for job in &jobs {
            let Some(artefact) = job.artefact.as_ref().filter(|_| !job.state.is_over()) else { continue };
            self.handle(SchedulerEvent::Job(JobSpec {
                id: job.id,
                model: job.model.clone(),
                version: artefact.version,
                batch_size: job.batch_size,
                running: job.state == JobState::Running,
                pending: job.pending(),
                weight: job.weight,
                needs: None,
            }));
        }
        jobs.len()
    }

    /// Runs until all these jobs are done.
    pub(crate) fn run(&mut self, jobs: &[JobId]) {
        let mut open: BTreeSet<JobId> = jobs.iter().copied().collect();
        while !open.is_empty() {
            let deadline = self.scheduler.next_deadline();
            let first = self.queue.first_key_value().map(|((at, _), _)| *at).unwrap();
            self.now = self.now.max(deadline.map_or(first, |deadline| deadline.min(first)));
            if first > self.now {
                self.handle(SchedulerEvent::Tick);
                continue;
            }
            let (_, event) = self.queue.pop_first().unwrap();
            if let Some(done) = self.dispatch(event) {
                open.remove(&done);
            }
        }
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.sequence += 1;
        self.queue.insert((self.now + delay, self.sequence), event);
    }

    fn send(&mut self, event: Event) {
        let latency = Duration::from_micros(self.rng.random_range(200..5_000));
        self.after(latency, event);
    }

    /// Returns the job that is done by this event, if one is.
    fn dispatch(&mut self, event: Event) -> Option<JobId> {
        match event {
            Event::Heartbeat(node) => {
                self.report(node, 0);
                self.after(HEARTBEAT, Event::Heartbeat(node));
            }
            Event::Report(report) => {
                if self.workers[&report.worker].generation == report.generation {
                    self.handle(SchedulerEvent::Report(Arc::new(report)));
                }
            }
            Event::Reply { worker, generation, reply } => self.take_reply(worker, generation, reply),
            Event::Commit { worker, generation, ran } => return self.commit(worker, generation, &ran),
        }
        None
    }

    fn report(&mut self, node: NodeId, wait_ms: u32) {
        let worker = self.workers.get_mut(&node).unwrap();
        worker.reports += 1;
        let leases: Vec<Lease> = worker.sent.iter().chain(&worker.ran).copied().collect();
        let report = WorkerReport {
            worker: node,
            generation: worker.generation,
            server: ServerState::Ready,
            models: vec![(
                MODEL.parse().unwrap(),
                ModelState::Ready(
                    self.state.model(&MODEL.parse().unwrap()).unwrap().artefact.as_ref().unwrap().version,
                ),
            )],
            awaiting_commit: u16::try_from(leases.len()).unwrap(),
            leases,
            wanted: u8::try_from(LEASES_PER_WORKER_MAX).unwrap(),
            wait_ms,
            draining: false,
            offers: None,
            running_ms: None,
            number: worker.reports,
            trainings: Vec::new(),
            resources: WorkerResources::default(),
        };
        self.send(Event::Report(report));
    }

    fn take_reply(&mut self, node: NodeId, generation: u64, reply: ReplyPlan) {
        let worker = self.workers.get_mut(&node).unwrap();
        if worker.generation != generation {
            return;
        }
        worker.ran.retain(|lease| !reply.cancelled.contains(lease));
        let is_idle = reply.grants.is_empty();
        worker.ran.extend(reply.grants);
        if worker.ran.len() >= BATCHES_PER_SEGMENT || (is_idle && !worker.ran.is_empty()) {
            let ran = std::mem::take(&mut worker.ran);
            worker.sent.extend(&ran);
            self.send(Event::Commit { worker: node, generation, ran });
        }
        self.report(node, if is_idle { 1_500 } else { 0 });
    }

    fn commit(&mut self, node: NodeId, generation: u64, ran: &[Lease]) -> Option<JobId> {
        // A segment has rows of one job.
        let job = ran[0].job;
        let (of_job, others): (Vec<Lease>, Vec<Lease>) = ran.iter().partition(|lease| lease.job == job);
        let outcome = |lease: &Lease| BatchOutcome {
            lease: *lease,
            answered: vec![lease.range],
            inference_us: QUERY_US * u64::from(lease.range.count),
            labelled: 0,
            correct: 0,
            local: 0,
            refused: 0,
            tokens: TokenCount::default(),
        };
        let batches: Vec<BatchOutcome> = of_job.iter().map(outcome).collect();
        self.cost.entries += 1;
        let segment = extent(&format!("segment {}", self.cost.entries), 1 << 20);
        let action = Action::CommitSegment { worker: node, job, segment, batches };
        let Applied::Committed { accepted, duplicates, job_done, accepted_ranges } =
            self.state.apply(&command(action)).unwrap()
        else {
            panic!("the commit of a segment is answered otherwise");
        };
        self.cost.accepted += accepted;
        self.cost.duplicates += duplicates;
        self.cost.batches += of_job.len() as u64;
        let completed = |lease: &Lease| CompletedBatch {
            lease: *lease,
            inferred: lease.range.count,
            inference_us: QUERY_US * u64::from(lease.range.count),
            refused: 0,
        };
        let batches = of_job.iter().map(completed).collect();
        self.handle(SchedulerEvent::Committed(Committed {
            worker: node,
            job,
            batches,
            ranges: accepted_ranges,
        }));
        if job_done {
            self.handle(SchedulerEvent::JobEnded(job));
        }
        let worker = self.workers.get_mut(&node).unwrap();
        if worker.generation == generation {
            worker.sent.retain(|lease| !of_job.contains(lease));
            if self.rng.random_range(0..self.commits_per_death) == 0 {
                self.restart(node);
            } else if !others.is_empty() {
                self.send(Event::Commit { worker: node, generation, ran: others });
            }
        }
        job_done.then_some(job)
    }

    /// The worker dies and starts again. Its commits under way may still arrive.
    fn restart(&mut self, node: NodeId) {
        self.cost.deaths += 1;
        let worker = self.workers.get_mut(&node).unwrap();
        *worker = Worker { generation: worker.generation + 1, ..Worker::default() };
        self.handle(SchedulerEvent::WorkerDead(node));
    }

    fn handle(&mut self, event: SchedulerEvent) {
        self.cost.events += 1;
        self.scheduler.handle(event, self.now);
        while let Some(effect) = self.scheduler.poll_effect() {
            match effect {
                SchedulerEffect::Answer { worker, reply } => {
                    let generation = self.workers[&worker].generation;
                    self.send(Event::Reply { worker, generation, reply });
                }
                SchedulerEffect::Rebalanced { .. } | SchedulerEffect::LeaseLost { .. } => {}
                effect => panic!("{effect:?}"),
            }
        }
    }
}
