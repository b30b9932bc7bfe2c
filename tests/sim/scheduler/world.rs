//! The simulated cluster: a queue of events in virtual time, one coordinator at a time, the model of the log, and checks
//! after every event.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use idunno_core::ranges::RangeSet;
use idunno_core::scheduler::{
    Committed, CompletedBatch, ReplyPlan, Scheduler, SchedulerConfig, SchedulerEffect, SchedulerEvent,
    SchedulerStatistics,
};
use idunno_core::time::Instant;
use idunno_shared::ids::{JobId, NodeId, Term};
use idunno_shared::wire::jobs::{Fault, Lease, Training, WorkerReport};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::jobs::Log;
use super::jobs::model_name;
use super::worker::SimWorker;

/// A message from a worker to the coordinator.
#[derive(Clone)]
pub(crate) enum Message {
    Report(WorkerReport),
    Commit { worker: NodeId, generation: u64, ran: CompletedBatch, rows: RangeSet },
    Failed { worker: NodeId, lease: Lease, faults: Vec<Fault> },
    Trained { worker: NodeId, model: u8, is_good: bool },
}

/// An event at a worker. Lost when the worker restarts, delayed while it is frozen.
#[derive(Clone)]
pub(crate) enum WorkerEvent {
    Reply { term: Term, reply: ReplyPlan, number: u64 },
    Acknowledged(Lease),
    RunEnds(Lease),
    CommitAgain(Lease),
    Heartbeat,
    TrainingEnds(u8),
    RunnerUp(u8),
    ServerUp,
}

pub(crate) enum SimEvent {
    Arrives(Message),
    AtWorker { worker: NodeId, generation: u64, event: WorkerEvent },
    Detected(NodeId),
    Restart(NodeId),
    Elected(Term),
    Resume(JobId),
    Fault,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) rng: ChaCha8Rng,
    queue: BTreeMap<(Instant, u64), SimEvent>,
    sequence: u64,
    pub(crate) scheduler: Option<Scheduler>,
    pub(crate) term: Term,
    pub(crate) log: Log,
    pub(crate) workers: BTreeMap<NodeId, SimWorker>,
    /// Delivered reports that are not answered yet.
    pub(crate) unanswered: BTreeMap<NodeId, WorkerReport>,
    pub(crate) wanted_models: BTreeSet<u8>,
    /// Messages lost per thousand.
    pub(crate) loss_per_mille: u32,
    /// Whether a worker may not be idle while queries are pending; not under faults.
    pub(crate) is_strict: bool,
    pub(crate) are_faults_on: bool,
    /// Whether the invariants are checked after every event.
    pub(crate) is_checked: bool,
    /// Where the inputs are, in simulations of locality.
    pub(crate) copies: Option<super::locality::Copies>,
    pub(crate) totals: Totals,
}

/// Counts over a run, which show that a set of seeds exercises every mechanism.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) events: u64,
    pub(crate) duplicates: u64,
    pub(crate) pauses: u64,
    pub(crate) marked_dead: u64,
    pub(crate) trained: u64,
    pub(crate) elections: u64,
    pub(crate) scheduler: SchedulerStatistics,
}

impl World {
    pub(crate) fn new(seed: u64, workers: Vec<SimWorker>) -> Self {
        let mut world = Self {
            now: Instant::START,
            rng: ChaCha8Rng::seed_from_u64(seed),
            queue: BTreeMap::new(),
            sequence: 0,
            scheduler: None,
            term: Term(0),
            log: Log::default(),
            workers: workers.into_iter().map(|worker| (worker.node, worker)).collect(),
            unanswered: BTreeMap::new(),
            wanted_models: BTreeSet::new(),
            loss_per_mille: 0,
            is_strict: false,
            are_faults_on: false,
            is_checked: true,
            copies: None,
            totals: Totals::default(),
        };
        let nodes: Vec<NodeId> = world.workers.keys().copied().collect();
        for node in nodes {
            let delay = world.random_duration(0..1_000_000);
            world.schedule_for(node, delay, WorkerEvent::Heartbeat);
        }
        world.schedule(Duration::ZERO, SimEvent::Elected(Term(1)));
        world
    }

    pub(crate) fn random_duration(&mut self, micros: std::ops::Range<u64>) -> Duration {
        Duration::from_micros(self.rng.random_range(micros))
    }

    pub(crate) fn chance(&mut self, per_mille: u32) -> bool {
        self.rng.random_range(0..1000) < per_mille
    }

    pub(crate) fn schedule(&mut self, delay: Duration, event: SimEvent) {
        self.sequence += 1;
        self.queue.insert((self.now + delay, self.sequence), event);
    }

    /// Schedules an event for the worker's present generation.
    pub(crate) fn schedule_for(&mut self, worker: NodeId, delay: Duration, event: WorkerEvent) {
        let generation = self.workers[&worker].generation;
        self.schedule(delay, SimEvent::AtWorker { worker, generation, event });
    }

    pub(crate) fn send(&mut self, message: Message) {
        let latency = self.random_duration(200..5_000);
        if !self.chance(self.loss_per_mille) {
            self.schedule(latency, SimEvent::Arrives(message));
        }
    }

    fn send_to_worker(&mut self, worker: NodeId, event: WorkerEvent) {
        let latency = self.random_duration(200..5_000);
        if !self.chance(self.loss_per_mille) {
            self.schedule_for(worker, latency, event);
        }
    }

    /// Runs until `end`.
    pub(crate) fn run_until(&mut self, end: Instant) {
        while self.step(end) {}
        self.now = end;
    }

    /// Processes the next event or deadline. False if there is none before `end`.
    pub(crate) fn step(&mut self, end: Instant) -> bool {
        let deadline = self.scheduler.as_ref().and_then(Scheduler::next_deadline);
        let first = self.queue.first_key_value().map(|((at, _), _)| *at);
        let Some(next) = [deadline, first].into_iter().flatten().min().filter(|at| *at <= end) else {
            return false;
        };
        self.now = self.now.max(next);
        if first == Some(next) {
            if let Some((_, event)) = self.queue.pop_first() {
                self.dispatch(event);
            }
        } else {
            self.handle(SchedulerEvent::Tick);
            let next = self.scheduler.as_ref().and_then(Scheduler::next_deadline);
            assert!(
                next.is_none_or(|at| at > self.now),
                "the deadline after a tick is in the past: {next:?}"
            );
        }
        if self.is_checked {
            self.check_counts();
        }
        true
    }

    fn dispatch(&mut self, event: SimEvent) {
        match event {
            SimEvent::Arrives(message) => self.arrive(message),
            SimEvent::AtWorker { worker, generation, event } => {
                self.on_worker_event(worker, generation, event);
            }
            SimEvent::Detected(node) => {
                let worker = &self.workers[&node];
                if !worker.is_alive || worker.frozen_until > self.now {
                    self.handle(SchedulerEvent::WorkerDead(node));
                }
            }
            SimEvent::Restart(node) => self.restart(node),
            SimEvent::Elected(term) => self.elected(term),
            SimEvent::Resume(job) => self.change(job, |job| job.running = true),
            SimEvent::Fault => self.random_fault(),
        }
    }

    fn elected(&mut self, term: Term) {
        self.term = term;
        self.totals.elections += 1;
        self.scheduler = Some(Scheduler::new(SchedulerConfig::default(), term, self.now));
        let open: Vec<JobId> =
            self.log.jobs.iter().filter(|(_, job)| !job.is_done()).map(|(id, _)| *id).collect();
        for id in open {
            self.handle(SchedulerEvent::Job(self.log.spec(id)));
        }
        for model in self.wanted_models.clone() {
            self.handle(SchedulerEvent::ModelWanted {
                model: model_name(model),
                training: Training { seed: 7, ..Training::default() },
            });
        }
        if self.chance(500) {
            let alive = self.workers.values().filter(|worker| worker.is_alive).map(|worker| worker.node);
            self.handle(SchedulerEvent::ExpectedWorkers(alive.collect()));
        }
    }

    pub(crate) fn depose(&mut self) {
        if let Some(scheduler) = self.scheduler.take() {
            self.totals.add(scheduler.statistics());
            self.unanswered.clear();
            let delay = self.random_duration(300_000..2_000_000);
            self.schedule(delay, SimEvent::Elected(Term(self.term.0 + 1)));
        }
    }

    /// Changes a job in the log and informs the scheduler.
    pub(crate) fn change(&mut self, id: JobId, change: impl FnOnce(&mut super::jobs::LoggedJob)) {
        let job = self.log.jobs.get_mut(&id).expect("a job in the log");
        let was_done = job.is_done();
        change(job);
        if !was_done || !job.is_done() {
            self.handle(SchedulerEvent::Job(self.log.spec(id)));
        }
    }

    fn arrive(&mut self, message: Message) {
        if self.scheduler.is_none() {
            return;
        }
        match message {
            Message::Report(report) => {
                let node = report.worker;
                if let Some(older) = self.unanswered.insert(node, report.clone()) {
                    let (term, number) = (self.term, older.number);
                    let reply = WorkerEvent::Reply { term, reply: ReplyPlan::default(), number };
                    self.send_to_worker(node, reply);
                }
                self.handle(SchedulerEvent::Report(Arc::new(report)));
            }
            Message::Commit { worker, generation, ran, rows } => {
                let lease = ran.lease;
                let ranges = self.log.commit(lease.job, &rows);
                let committed = Committed { worker, job: lease.job, batches: vec![ran], ranges };
                self.handle(SchedulerEvent::Committed(committed));
                self.end_if_done(lease.job);
                if self.workers[&worker].generation == generation {
                    self.send_to_worker(worker, WorkerEvent::Acknowledged(lease));
                }
            }
            Message::Failed { worker, lease, faults } => {
                self.handle(SchedulerEvent::Failed { worker, lease, faults });
            }
            Message::Trained { worker, model, is_good } => {
                let name = model_name(model);
                if is_good {
                    self.wanted_models.remove(&model);
                    self.totals.trained += 1;
                    self.workers.values_mut().for_each(|worker| {
                        worker.models.insert(model);
                    });
                    self.handle(SchedulerEvent::ModelTrained(name));
                } else {
                    self.handle(SchedulerEvent::TrainingFailed {
                        worker,
                        model: name,
                        reason: "flaky".into(),
                    });
                }
            }
        }
    }

    fn end_if_done(&mut self, id: JobId) {
        if self.log.jobs[&id].is_done() {
            self.handle(SchedulerEvent::JobEnded(id));
        }
    }

    /// Passes an event to the scheduler, checks the invariants, and carries out the effects.
    pub(crate) fn handle(&mut self, event: SchedulerEvent) {
        let Some(scheduler) = &mut self.scheduler else { return };
        scheduler.handle(event, self.now);
        let effects: Vec<SchedulerEffect> = std::iter::from_fn(|| scheduler.poll_effect()).collect();
        self.totals.events += 1;
        if self.is_checked {
            self.check();
        }
        for effect in effects {
            match effect {
                SchedulerEffect::Answer { worker, reply } => self.send_reply(worker, reply),
                SchedulerEffect::DeadLetter { job, dead_letters } => {
                    self.totals.marked_dead += dead_letters.len() as u64;
                    self.log.mark_dead(job, dead_letters.iter().map(|dead_letter| dead_letter.index));
                    let queries: RangeSet = dead_letters.iter().map(|l| l.index..l.index + 1).collect();
                    self.handle(SchedulerEvent::DeadLettersCommitted {
                        job,
                        queries: queries.queries().collect(),
                    });
                    self.end_if_done(job);
                }
                SchedulerEffect::PauseJob { job, .. } => {
                    self.totals.pauses += 1;
                    self.change(job, |job| job.running = false);
                    self.schedule(Duration::from_secs(1), SimEvent::Resume(job));
                }
                SchedulerEffect::Rebalanced { .. } | SchedulerEffect::LeaseLost { .. } => {}
                SchedulerEffect::TrainingFailed { model, .. } => {
                    self.handle(SchedulerEvent::ModelWanted {
                        model,
                        training: Training { seed: 8, ..Training::default() },
                    });
                }
            }
        }
    }

    fn send_reply(&mut self, node: NodeId, mut reply: ReplyPlan) {
        let Some(report) = self.unanswered.remove(&node) else {
            assert!(reply.grants.is_empty(), "a grant without an unanswered report");
            return;
        };
        reply.grants.iter_mut().for_each(|lease| *lease = self.relocate(node, *lease));
        self.check_grants(node, &report, &reply);
        self.send_to_worker(node, WorkerEvent::Reply { term: self.term, reply, number: report.number });
    }
}

impl Totals {
    pub(crate) fn add(&mut self, term: SchedulerStatistics) {
        let all = &mut self.scheduler;
        all.granted += term.granted;
        all.adopted += term.adopted;
        all.cancelled += term.cancelled;
        all.returned += term.returned;
        all.expired += term.expired;
        all.absent += term.absent;
        all.failures += term.failures;
        all.dead_letters += term.dead_letters;
        all.crashes += term.crashes;
        all.quarantined += term.quarantined;
        all.hung += term.hung;
        all.copied += term.copied;
        all.copies_won += term.copies_won;
        all.promoted += term.promoted;
    }
}
