//! The virtual cluster: a queue of happenings, one coordinator at a time, the model log, and the checks that run
//! after every event.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use idunno_core::ranges::RangeSet;
use idunno_core::scheduler::{
    Committed, OrdersPlan, RanBatch, Scheduler, SchedulerConfig, SchedulerEffect, SchedulerEvent, Statistics,
};
use idunno_core::time::Instant;
use idunno_shared::ids::{JobId, NodeId, Term};
use idunno_shared::wire::jobs::{Fault, Lease, Training, WorkerReport};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::load::model_name;
use super::log::Log;
use super::worker::SimWorker;

/// From a worker to whoever coordinates.
#[derive(Clone)]
pub(crate) enum Message {
    Report(WorkerReport),
    Commit { worker: NodeId, generation: u64, ran: RanBatch, rows: RangeSet },
    Failed { worker: NodeId, lease: Lease, faults: Vec<Fault> },
    Trained { worker: NodeId, model: u8, is_good: bool },
}

/// What comes to a worker; lost with its generation, late while it is frozen.
#[derive(Clone)]
pub(crate) enum Local {
    Orders { term: Term, plan: OrdersPlan, number: u64 },
    Acknowledged(Lease),
    RunEnds(Lease),
    CommitAgain(Lease),
    Heartbeat,
    TrainingEnds(u8),
    ServerUp,
}

pub(crate) enum Happening {
    Arrives(Message),
    At { worker: NodeId, generation: u64, local: Local },
    Detected(NodeId),
    Restart(NodeId),
    Elected(Term),
    Resume(JobId),
    Fault,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) rng: ChaCha8Rng,
    queue: BTreeMap<(Instant, u64), Happening>,
    sequence: u64,
    pub(crate) scheduler: Option<Scheduler>,
    pub(crate) term: Term,
    pub(crate) log: Log,
    pub(crate) workers: BTreeMap<NodeId, SimWorker>,
    /// Delivered reports without an answer.
    pub(crate) parked: BTreeMap<NodeId, WorkerReport>,
    pub(crate) wanted_models: BTreeSet<u8>,
    /// Messages lost, in a thousand.
    pub(crate) loss_per_mille: u32,
    /// Whether idle workers beside work are an error: without faults only.
    pub(crate) is_strict: bool,
    pub(crate) are_faults_on: bool,
    /// Whether the invariants are checked after every event.
    pub(crate) is_checked: bool,
    /// Which inputs lie where, if that counts.
    pub(crate) copies: Option<super::locality::Copies>,
    pub(crate) totals: Totals,
}

/// What happened over a run, so that a set of seeds can show that each mechanism was at work.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) events: u64,
    pub(crate) duplicates: u64,
    pub(crate) pauses: u64,
    pub(crate) marked_dead: u64,
    pub(crate) trained: u64,
    pub(crate) elections: u64,
    pub(crate) scheduler: Statistics,
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
            parked: BTreeMap::new(),
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
            let delay = world.within(0..1_000_000);
            world.local(node, delay, Local::Heartbeat);
        }
        world.at(Duration::ZERO, Happening::Elected(Term(1)));
        world
    }

    pub(crate) fn within(&mut self, micros: std::ops::Range<u64>) -> Duration {
        Duration::from_micros(self.rng.random_range(micros))
    }

    pub(crate) fn chance(&mut self, per_mille: u32) -> bool {
        self.rng.random_range(0..1000) < per_mille
    }

    pub(crate) fn at(&mut self, delay: Duration, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((self.now + delay, self.sequence), happening);
    }

    /// To the worker, as it lives now.
    pub(crate) fn local(&mut self, worker: NodeId, delay: Duration, local: Local) {
        let generation = self.workers[&worker].generation;
        self.at(delay, Happening::At { worker, generation, local });
    }

    pub(crate) fn send(&mut self, message: Message) {
        let latency = self.within(200..5_000);
        if !self.chance(self.loss_per_mille) {
            self.at(latency, Happening::Arrives(message));
        }
    }

    fn send_local(&mut self, worker: NodeId, local: Local) {
        let latency = self.within(200..5_000);
        if !self.chance(self.loss_per_mille) {
            self.local(worker, latency, local);
        }
    }

    /// Runs until then.
    pub(crate) fn run_until(&mut self, end: Instant) {
        while self.step(end) {}
        self.now = end;
    }

    /// One happening or deadline; whether there was one before `end`.
    pub(crate) fn step(&mut self, end: Instant) -> bool {
        let deadline = self.scheduler.as_ref().and_then(Scheduler::next_deadline);
        let first = self.queue.first_key_value().map(|((at, _), _)| *at);
        let Some(next) = [deadline, first].into_iter().flatten().min().filter(|at| *at <= end) else {
            return false;
        };
        self.now = self.now.max(next);
        if first == Some(next) {
            if let Some((_, happening)) = self.queue.pop_first() {
                self.happen(happening);
            }
        } else {
            self.tell(SchedulerEvent::Tick);
            let next = self.scheduler.as_ref().and_then(Scheduler::next_deadline);
            assert!(next.is_none_or(|at| at > self.now), "after a tick a deadline is over: {next:?}");
        }
        if self.is_checked {
            self.check_counts();
        }
        true
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrives(message) => self.arrive(message),
            Happening::At { worker, generation, local } => self.happen_at(worker, generation, local),
            Happening::Detected(node) => {
                let worker = &self.workers[&node];
                if !worker.is_alive || worker.frozen_until > self.now {
                    self.tell(SchedulerEvent::WorkerDead(node));
                }
            }
            Happening::Restart(node) => self.restart(node),
            Happening::Elected(term) => self.elected(term),
            Happening::Resume(job) => self.change(job, |job| job.running = true),
            Happening::Fault => self.random_fault(),
        }
    }

    fn elected(&mut self, term: Term) {
        self.term = term;
        self.totals.elections += 1;
        self.scheduler = Some(Scheduler::new(SchedulerConfig::default(), term, self.now));
        let open: Vec<JobId> =
            self.log.jobs.iter().filter(|(_, job)| !job.is_done()).map(|(id, _)| *id).collect();
        for id in open {
            self.tell(SchedulerEvent::Job(self.log.spec(id)));
        }
        for model in self.wanted_models.clone() {
            self.tell(SchedulerEvent::ModelWanted {
                model: model_name(model),
                training: Training { seed: 7, dataset: None },
            });
        }
        if self.chance(500) {
            let alive = self.workers.values().filter(|worker| worker.is_alive).map(|worker| worker.node);
            self.tell(SchedulerEvent::ExpectedWorkers(alive.collect()));
        }
    }

    pub(crate) fn depose(&mut self) {
        if let Some(scheduler) = self.scheduler.take() {
            self.totals.add(scheduler.statistics());
            self.parked.clear();
            let delay = self.within(300_000..2_000_000);
            self.at(delay, Happening::Elected(Term(self.term.0 + 1)));
        }
    }

    /// Changes a job in the log, and says so.
    pub(crate) fn change(&mut self, id: JobId, change: impl FnOnce(&mut super::log::LoggedJob)) {
        let job = self.log.jobs.get_mut(&id).expect("a job in the log");
        let was_done = job.is_done();
        change(job);
        if !was_done || !job.is_done() {
            self.tell(SchedulerEvent::Job(self.log.spec(id)));
        }
    }

    fn arrive(&mut self, message: Message) {
        if self.scheduler.is_none() {
            return;
        }
        match message {
            Message::Report(report) => {
                let node = report.worker;
                if let Some(older) = self.parked.insert(node, report.clone()) {
                    let (term, number) = (self.term, older.number);
                    let orders = Local::Orders { term, plan: OrdersPlan::default(), number };
                    self.send_local(node, orders);
                }
                self.tell(SchedulerEvent::Report(Arc::new(report)));
            }
            Message::Commit { worker, generation, ran, rows } => {
                let lease = ran.lease;
                let ranges = self.log.commit(lease.job, &rows);
                let committed = Committed { worker, job: lease.job, batches: vec![ran], ranges };
                self.tell(SchedulerEvent::Committed(committed));
                self.end_if_done(lease.job);
                if self.workers[&worker].generation == generation {
                    self.send_local(worker, Local::Acknowledged(lease));
                }
            }
            Message::Failed { worker, lease, faults } => {
                self.tell(SchedulerEvent::Failed { worker, lease, faults });
            }
            Message::Trained { worker, model, is_good } => {
                let name = model_name(model);
                if is_good {
                    self.wanted_models.remove(&model);
                    self.totals.trained += 1;
                    self.workers.values_mut().for_each(|worker| {
                        worker.models.insert(model);
                    });
                    self.tell(SchedulerEvent::ModelTrained(name));
                } else {
                    self.tell(SchedulerEvent::TrainingFailed { worker, model: name, reason: "flaky".into() });
                }
            }
        }
    }

    fn end_if_done(&mut self, id: JobId) {
        if self.log.jobs[&id].is_done() {
            self.tell(SchedulerEvent::JobEnded(id));
        }
    }

    /// Hands an event to the scheduler, carries out its effects, and checks everything.
    pub(crate) fn tell(&mut self, event: SchedulerEvent) {
        let Some(scheduler) = &mut self.scheduler else { return };
        scheduler.handle(event, self.now);
        let effects: Vec<SchedulerEffect> = std::iter::from_fn(|| scheduler.poll_effect()).collect();
        self.totals.events += 1;
        if self.is_checked {
            self.check();
        }
        for effect in effects {
            match effect {
                SchedulerEffect::Answer { worker, plan } => self.answer(worker, plan),
                SchedulerEffect::DeadLetter { job, dead_letters } => {
                    self.totals.marked_dead += dead_letters.len() as u64;
                    self.log.mark_dead(job, dead_letters.iter().map(|dead_letter| dead_letter.index));
                    let queries: RangeSet = dead_letters.iter().map(|l| l.index..l.index + 1).collect();
                    self.tell(SchedulerEvent::DeadLettersCommitted {
                        job,
                        queries: queries.queries().collect(),
                    });
                    self.end_if_done(job);
                }
                SchedulerEffect::PauseJob { job, .. } => {
                    self.totals.pauses += 1;
                    self.change(job, |job| job.running = false);
                    self.at(Duration::from_secs(1), Happening::Resume(job));
                }
                SchedulerEffect::Shared { .. } => {}
                SchedulerEffect::TrainingFailed { model, .. } => {
                    self.tell(SchedulerEvent::ModelWanted {
                        model,
                        training: Training { seed: 8, dataset: None },
                    });
                }
            }
        }
    }

    fn answer(&mut self, node: NodeId, mut plan: OrdersPlan) {
        let Some(report) = self.parked.remove(&node) else {
            assert!(plan.grants.is_empty(), "a grant without a report to answer");
            return;
        };
        plan.grants.iter_mut().for_each(|lease| *lease = self.moved(node, *lease));
        self.check_grants(node, &report, &plan);
        self.send_local(node, Local::Orders { term: self.term, plan, number: report.number });
    }
}

impl Totals {
    pub(crate) fn add(&mut self, term: Statistics) {
        let all = &mut self.scheduler;
        all.granted += term.granted;
        all.adopted += term.adopted;
        all.cancelled += term.cancelled;
        all.returned += term.returned;
        all.expired += term.expired;
        all.absent += term.absent;
        all.failures += term.failures;
        all.dead_letters += term.dead_letters;
        all.hung += term.hung;
        all.copied += term.copied;
        all.copies_won += term.copies_won;
        all.promoted += term.promoted;
    }
}
