//! Leases batches of queries to workers, shares the workers fairly between jobs, and decides what happens to batches
//! that fail.
//!
//! The coordinator runs one scheduler per term. It starts empty, receives the unfinished jobs from the metadata log,
//! lets the workers claim the leases that they still run, and then answers their reports with batches. It keeps nothing
//! beyond the term: what must last (answers, dead letters, pauses) goes through the log and comes back as events.
//!
//! Sources: pull scheduling with leases; least virtual time and start-time fair queueing (`fairness.rs`) over workers
//! assigned to jobs (`assignment.rs`).
//!
//! **Invariants** ([`Scheduler::check`]): every open query of a job waits, is leased, or awaits its dead letter, and
//! exactly one of these; a query is in at most two leases, and the second is a copy at another worker
//! (`stragglers.rs`); a worker holds at most [`leases_per_worker`](SchedulerConfig::leases_per_worker) uncompleted
//! leases; grants go only to live, ready, non-draining workers that have loaded the job's model version, and not beyond
//! what a model server that workers share takes (`shared_backends.rs`); queries in quarantine are leased alone
//! (`fault_history.rs`).
//!
//! **Bounds**: workers, models and leases per report, and chunks per job are limited by the constants of the parts. An
//! event looks at the workers that it changes, at those whose time has come, and at all jobs. Where it makes work
//! available, it costs O(workers + jobs + leases), and O(workers x jobs) while there is work or a late batch that waiting
//! workers may take, plus O(chunks) where failed batches wait.
//!
//! **Not here**: names, extents and holders of inputs, which models to load, the log, the clock.

mod assignment;
mod check;
mod chunks;
mod circuit_breaker;
mod config;
mod event;
mod failures;
mod fairness;
mod fault_history;
mod job;
mod jobs;
mod leases;
mod reports;
mod service;
mod shared_backends;
mod sizing;
mod stragglers;
#[cfg(test)]
mod tests;
mod training;
mod window;
mod worker;
mod workers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use idunno_shared::ids::{JobId, NodeId, Term};
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{Lease, Policy};

pub use config::SchedulerConfig;
pub use event::{
    Committed, CompletedBatch, DeadQuery, JobSpec, LossReason, RebalanceReason, ReplyPlan, SchedulerEffect,
    SchedulerEvent,
};

use crate::invariant::InvariantViolation;
use crate::machine::Machine;
use crate::time::Instant;
use assignment::AssignmentLine;
use job::Job;
use sizing::BatchTimes;
use training::Trainings;
use worker::Worker;
use workers::Workers;

/// The scheduler of one term. Inputs: [`handle`](Self::handle). Outputs: [`poll_effect`](Self::poll_effect) and
/// [`next_deadline`](Self::next_deadline).
#[derive(Clone, Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    term: Term,
    now: Instant,
    jobs: BTreeMap<JobId, Job>,
    workers: Workers,
    trainings: Trainings,
    batch_times: BatchTimes,
    policy: Policy,
    line: AssignmentLine,
    /// Whether the workers have been assigned to jobs in this term.
    is_assigned: bool,
    /// When the assignment was last compared with the measured rates.
    rates_checked_at: Instant,
    grace_ends: Instant,
    /// Expected workers that have not reported yet; `None` until the expected workers are known.
    unreported: Option<BTreeSet<NodeId>>,
    /// Whether the current event made work available that waiting workers may take.
    has_new_work: bool,
    /// Whether a worker has named a shared backend: any event may then have made room for a batch of another worker.
    has_shared_backends: bool,
    deadline: Option<Instant>,
    effects: VecDeque<SchedulerEffect>,
    statistics: SchedulerStatistics,
}

/// Counts of what a scheduler has done since its term began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulerStatistics {
    /// First leases granted.
    pub granted: u64,
    /// Leases of earlier terms taken over.
    pub adopted: u64,
    /// Reported leases that were not the worker's and were cancelled.
    pub cancelled: u64,
    /// First leases that returned without a commit, for any reason.
    pub returned: u64,
    /// Returned leases that had expired.
    pub expired: u64,
    /// Leases that their worker's reports lacked.
    pub absent: u64,
    /// Batches that failed, in whole or in part.
    pub failures: u64,
    /// Queries given up.
    pub dead_letters: u64,
    /// Batches that ended the process of their model.
    pub crashes: u64,
    /// First leases granted to queries in quarantine.
    pub quarantined: u64,
    /// Leases revoked because their batch hung.
    pub hung: u64,
    /// Copies granted: second leases of slow batches.
    pub copied: u64,
    /// Copies that were committed before the first lease.
    pub copies_won: u64,
    /// Copies that replaced a lost first lease.
    pub promoted: u64,
    /// Jobs and workers that were compared to find the next batch.
    pub compared: u64,
}

/// The jobs of a worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// The worker.
    pub worker: NodeId,
    /// Its jobs, each with its fraction (0 to 1) of the inference time of the last 60 seconds.
    pub shares: Vec<(JobId, f64)>,
    /// The jobs whose batches it holds now.
    pub current: Vec<JobId>,
    /// The jobs that it serves first, each with the fraction (0 to 1) of the worker due to it.
    pub due: Vec<(JobId, f64)>,
}

impl Machine for Scheduler {
    type Event = SchedulerEvent;
    type Effect = SchedulerEffect;

    fn handle(&mut self, event: SchedulerEvent, now: Instant) {
        self.handle(event, now);
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.next_deadline()
    }

    fn poll_effect(&mut self) -> Option<SchedulerEffect> {
        self.poll_effect()
    }

    fn check(&self) -> Result<(), InvariantViolation> {
        self.check()
    }
}

impl Scheduler {
    /// The scheduler of the coordinator of `term`, which begins at `now`.
    pub fn new(config: SchedulerConfig, term: Term, now: Instant) -> Self {
        let grace_ends = now + config.claim_grace;
        Self {
            config,
            term,
            now,
            jobs: BTreeMap::new(),
            workers: Workers::default(),
            trainings: Trainings::default(),
            batch_times: BatchTimes::default(),
            policy: Policy::default(),
            line: AssignmentLine::default(),
            is_assigned: false,
            rates_checked_at: now,
            grace_ends,
            unreported: None,
            has_new_work: false,
            has_shared_backends: false,
            deadline: Some(grace_ends),
            effects: VecDeque::new(),
            statistics: SchedulerStatistics::default(),
        }
    }

    /// Processes an event at `now`, which must not be earlier than that of the previous event. Drain the effects before
    /// the next one.
    pub fn handle(&mut self, event: SchedulerEvent, now: Instant) {
        self.now = self.now.max(now);
        self.has_new_work = self.deadline.is_some_and(|deadline| deadline <= self.now);
        if self.has_new_work {
            self.expire();
        }
        self.dispatch(event);
        self.has_new_work |= self.has_shared_backends;
        self.rebalance_when_due();
        if self.has_new_work {
            self.assign_trainings();
            self.serve_all();
        }
        self.send_replies();
        self.settle();
    }

    fn dispatch(&mut self, event: SchedulerEvent) {
        match event {
            SchedulerEvent::Job(spec) => self.on_job(spec),
            SchedulerEvent::Policy(policy) => self.on_policy(policy),
            SchedulerEvent::JobEnded(job) => self.on_job_ended(job),
            SchedulerEvent::ExpectedWorkers(expected) => self.on_expected_workers(expected),
            SchedulerEvent::Report(report) => self.on_report(&report),
            SchedulerEvent::WorkerDead(node) => self.on_worker_dead(node),
            SchedulerEvent::Committed(committed) => {
                self.on_committed(&committed);
                self.serve(committed.worker);
            }
            SchedulerEvent::Failed { worker, lease, faults } => self.on_failed(worker, lease, &faults),
            SchedulerEvent::DeadLettersCommitted { job, queries } => {
                self.on_dead_letters_committed(job, &queries);
            }
            SchedulerEvent::DeadLettersRefused { job, queries } => {
                self.on_dead_letters_refused(job, &queries);
            }
            SchedulerEvent::ModelWanted { model, training } => {
                self.trainings.request(model, training);
                self.assign_trainings();
            }
            SchedulerEvent::ModelTrained(model) | SchedulerEvent::ModelGone(model) => {
                self.trainings.forget(&model);
                self.assign_trainings();
            }
            SchedulerEvent::TrainingFailed { worker, model, reason } => {
                self.on_training_failed(worker, &model, reason);
            }
            SchedulerEvent::Tick => {}
        }
    }

    /// The latest time at which [`SchedulerEvent::Tick`] is due; `None` if nothing waits for time to pass.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The next effect, in order; `None` once all are drained.
    pub fn poll_effect(&mut self) -> Option<SchedulerEffect> {
        self.effects.pop_front()
    }

    /// How many queries of the job are leased. A query with a copy counts once.
    pub fn leased(&self, job: JobId) -> u64 {
        self.jobs.get(&job).map_or(0, |job| job.leased.len())
    }

    /// The batch size that applied to the job's latest grant, in queries.
    pub fn current_batch_size(&self, job: JobId) -> u32 {
        self.jobs.get(&job).map_or(0, |job| job.current_batch_size)
    }

    /// How many queries of the job are neither answered, dead nor leased.
    pub fn pending(&self, job: JobId) -> u64 {
        self.jobs.get(&job).map_or(0, |job| job.open.len() - job.leased.len())
    }

    /// The leases that the worker holds, copies included.
    pub fn leases(&self, worker: NodeId) -> impl Iterator<Item = Lease> + '_ {
        self.workers.get(&worker).into_iter().flat_map(|worker| worker.leases.iter().map(|held| held.lease))
    }

    /// The jobs of every worker.
    pub fn assignments(&self) -> Vec<Assignment> {
        let view = |(node, worker): (&NodeId, &Worker)| {
            let current: BTreeSet<JobId> = worker.leases.iter().map(|held| held.lease.job).collect();
            Assignment {
                worker: *node,
                shares: worker.shares(self.now),
                current: current.into_iter().collect(),
                due: self.line.jobs(*node).to_vec(),
            }
        };
        self.workers.iter().map(view).collect()
    }

    /// The models in training, with their workers.
    pub fn trainings(&self) -> impl Iterator<Item = (&ModelName, NodeId)> {
        self.trainings.assigned()
    }

    /// Counts since the term began.
    pub fn statistics(&self) -> SchedulerStatistics {
        self.statistics
    }

    /// Sets the deadline: the earliest time in the future at which a lease, a wait, a cooldown or a grace ends.
    fn settle(&mut self) {
        self.workers.settle(self.now, &self.config);
        let chunks = self.jobs.values().filter_map(|job| job.chunks.next_due(self.now));
        let grace = Some(self.grace_ends).filter(|at| *at > self.now);
        self.deadline = chunks.chain(self.workers.next_due()).chain(grace).min();
    }
}
