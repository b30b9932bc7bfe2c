//! Leases batches of queries to workers, fair among jobs, and decides what becomes of those that fail.
//!
//! The machine of the coordinator of one term: it begins empty, is told the unfinished jobs from the metadata, lets
//! the workers claim what they run, and then answers their reports with batches. It keeps nothing that outlives the
//! term; what must last (answers, dead letters, pauses) goes through the metadata log and comes back as events.
//!
//! Sources: pull scheduling with leases; least virtual time and start-time fair queueing (`fairness.rs`), along a line
//! of workers (`line.rs`).
//!
//! **Invariants** ([`Scheduler::check`]): each open query of a job waits, is leased, or is about to be a dead letter,
//! and only one of them; no query is in more than two leases, and in a second one only as a copy at another worker
//! (`speculation.rs`); a worker is granted at most [`leases_per_worker`](SchedulerConfig::leases_per_worker) leases beside those
//! that have run; grants go to live, ready workers that stay and have the job's model loaded in the job's version.
//!
//! **Bounds**: workers, models and leases of a report, pieces of a job: see the constants of the parts. One event
//! costs at most O(workers x jobs + leases), and O(pieces) where failures wait.
//!
//! **Not here**: names, extents and holders of inputs, the models to load, the log, the clock.

mod assignment;
mod check;
mod config;
mod event;
mod failure;
mod fairness;
mod hang;
mod history;
mod job;
mod lease;
mod locality;
mod pace;
mod reports;
mod service;
mod sharing;
mod sizing;
mod speculation;
#[cfg(test)]
mod tests;
mod training;
mod worker;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use idunno_shared::ids::{JobId, NodeId, Term};
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{Lease, ModelState, Policy, QueryRange, ServerState};

pub use config::SchedulerConfig;
pub use event::{
    Committed, DeadQuery, JobSpec, OrdersPlan, RanBatch, SchedulerEffect, SchedulerEvent, SharedBecause,
};

use crate::ranges::RangeSet;
use crate::time::Instant;
use assignment::AssignmentLine;
use job::{Job, Piece};
use pace::Usual;
use training::Trainings;
use worker::Worker;

/// The machine of one term.
#[derive(Clone, Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    term: Term,
    now: Instant,
    jobs: BTreeMap<JobId, Job>,
    workers: BTreeMap<NodeId, Worker>,
    trainings: Trainings,
    usual: Usual,
    policy: Policy,
    line: AssignmentLine,
    /// Whether the line was laid in this term, and when the rates were last compared with it.
    is_shared: bool,
    rates_seen: Instant,
    /// End of the claim grace.
    claims_until: Instant,
    /// Expected workers that have not reported yet, once it is known whom to expect.
    unreported: Option<BTreeSet<NodeId>>,
    /// This event made work that waiting workers may take.
    work_appeared: bool,
    deadline: Option<Instant>,
    effects: VecDeque<SchedulerEffect>,
    statistics: Statistics,
}

/// What the scheduler did in its term so far. Leases, unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Granted.
    pub granted: u64,
    /// Of older terms, taken over.
    pub adopted: u64,
    /// Reported, and not the worker's.
    pub cancelled: u64,
    /// Returned for whatever reason.
    pub returned: u64,
    /// Of those, expired.
    pub expired: u64,
    /// Of those, unknown to their worker.
    pub absent: u64,
    /// Batches that failed, in whole or in part.
    pub failures: u64,
    /// Queries given up.
    pub dead_letters: u64,
    /// Revoked, because their batch hung.
    pub hung: u64,
    /// Second leases of slow batches.
    pub copied: u64,
    /// Of those, the ones that answered first.
    pub copies_won: u64,
    /// Of those, the ones whose first lease was lost.
    pub promoted: u64,
}

/// A worker's jobs.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// The worker.
    pub worker: NodeId,
    /// Its jobs and the share of the last 60 seconds' inference time that each had, 0 to 1.
    pub shares: Vec<(JobId, f64)>,
    /// The jobs whose batches it holds now.
    pub current: Vec<JobId>,
    /// The jobs that it serves first, and the part of it that each is due, 0 to 1.
    pub due: Vec<(JobId, f64)>,
}

/// A worker as the scheduler sees it.
#[derive(Clone, Copy, Debug)]
pub struct WorkerView<'a> {
    /// The worker.
    pub worker: NodeId,
    /// Its boot count.
    pub generation: u64,
    /// Its model server's state.
    pub server: &'a ServerState,
    /// Its models' states.
    pub models: &'a BTreeMap<ModelName, ModelState>,
    /// Whether it drains.
    pub draining: bool,
    /// When it last reported.
    pub heard: Instant,
}

impl Scheduler {
    /// The scheduler of the coordinator of `term`, which begins now.
    pub fn new(config: SchedulerConfig, term: Term, now: Instant) -> Self {
        let claims_until = now + config.claim_grace;
        Self {
            config,
            term,
            now,
            jobs: BTreeMap::new(),
            workers: BTreeMap::new(),
            trainings: Trainings::default(),
            usual: Usual::default(),
            policy: Policy::default(),
            line: AssignmentLine::default(),
            is_shared: false,
            rates_seen: now,
            claims_until,
            unreported: None,
            work_appeared: false,
            deadline: Some(claims_until),
            effects: VecDeque::new(),
            statistics: Statistics::default(),
        }
    }

    /// Takes note of an event. Time never goes back; drain the effects before the next event.
    pub fn handle(&mut self, event: SchedulerEvent, now: Instant) {
        self.now = self.now.max(now);
        self.work_appeared = self.deadline.is_some_and(|deadline| deadline <= self.now);
        if self.work_appeared {
            self.expire();
        }
        self.dispatch(event);
        self.share_when_due();
        if self.work_appeared {
            self.assign_trainings();
            self.serve_all();
        }
        self.answer();
        self.deadline = self.earliest();
    }

    fn dispatch(&mut self, event: SchedulerEvent) {
        match event {
            SchedulerEvent::Job(spec) => self.on_job(spec),
            SchedulerEvent::Policy(policy) => self.on_policy(policy),
            SchedulerEvent::JobEnded(job) => self.on_job_ended(job),
            SchedulerEvent::ExpectedWorkers(expected) => self.on_expected(expected),
            SchedulerEvent::Report(report) => self.on_report(&report),
            SchedulerEvent::WorkerDead(node) => self.on_worker_dead(node),
            SchedulerEvent::Committed(committed) => {
                self.on_committed(&committed);
                self.serve(committed.worker);
            }
            SchedulerEvent::Failed { worker, lease, faults } => self.on_failed(worker, lease, &faults),
            SchedulerEvent::DeadLettersCommitted { job, queries } => self.on_dead(job, &queries),
            SchedulerEvent::DeadLettersRefused { job, queries } => self.on_not_buried(job, &queries),
            SchedulerEvent::ModelWanted { model, training } => {
                self.trainings.want(model, training);
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

    /// When [`SchedulerEvent::Tick`] is due at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The next thing to do, in order.
    pub fn poll_effect(&mut self) -> Option<SchedulerEffect> {
        self.effects.pop_front()
    }

    /// Queries of the job that are leased now.
    pub fn leased(&self, job: JobId) -> u64 {
        self.jobs.get(&job).map_or(0, |job| job.leased.len())
    }

    /// How many queries the job's last batch was to have.
    pub fn batch_now(&self, job: JobId) -> u32 {
        self.jobs.get(&job).map_or(0, |job| job.batch_now)
    }

    /// Queries of the job that are neither answered, dead nor leased.
    pub fn pending(&self, job: JobId) -> u64 {
        self.jobs.get(&job).map_or(0, |job| job.open.len() - job.leased.len())
    }

    /// The leases that the worker holds now.
    pub fn leases(&self, worker: NodeId) -> impl Iterator<Item = Lease> + '_ {
        self.workers.get(&worker).into_iter().flat_map(|worker| worker.leases.iter().map(|held| held.lease))
    }

    /// Leases only the first `kept` queries of a lease that was just granted; the rest waits for another. Returns what
    /// is left of the lease, if anything is.
    pub fn shorten(&mut self, node: NodeId, lease: Lease, kept: u32) -> Option<Lease> {
        let job = self.jobs.get_mut(&lease.job)?;
        let worker = self.workers.get_mut(&node)?;
        let held = worker.leases.iter_mut().find(|held| held.lease == lease)?;
        held.lease.range.count = lease.range.count.min(kept);
        let left = held.lease;
        let rest = held.open.within(left.range.end()..lease.range.end());
        held.open.subtract(&rest);
        if held.is_copy {
            job.copied.subtract(&rest);
        } else {
            job.leased.subtract(&rest);
            job.service.refund(rest.len());
            let (leased, due) = (lease.attempt.saturating_sub(1), self.now + Duration::from_millis(1));
            for range in rest.iter() {
                job.wait(Piece { range, leased, history: held.history.clone(), due });
            }
        }
        self.drop_empty_leases(node);
        self.deadline = self.earliest();
        (left.range.count > 0).then_some(left)
    }

    /// Who works for which job.
    pub fn assignments(&self) -> Vec<Assignment> {
        let view = |(node, worker): (&NodeId, &Worker)| {
            let current: BTreeSet<JobId> = worker.leases.iter().map(|held| held.lease.job).collect();
            let current = current.into_iter().collect();
            let due = self.line.jobs(*node).to_vec();
            Assignment { worker: *node, shares: worker.shares(self.now), current, due }
        };
        self.workers.iter().map(view).collect()
    }

    /// The workers that have reported in this term.
    pub fn workers(&self) -> impl Iterator<Item = WorkerView<'_>> {
        self.workers.iter().map(|(node, worker)| WorkerView {
            worker: *node,
            generation: worker.generation,
            server: &worker.server,
            models: &worker.models,
            draining: worker.draining,
            heard: worker.heard,
        })
    }

    /// The models in training, and their workers.
    pub fn trainings(&self) -> impl Iterator<Item = (&ModelName, NodeId)> {
        self.trainings.assigned()
    }

    /// What was done so far.
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    fn on_job(&mut self, spec: JobSpec) {
        let id = spec.id;
        let was = self.jobs.get(&id).map(|job| (job.is_active(), job.service.weight));
        let was_active = was.is_some_and(|(was_active, _)| was_active);
        if let Some(job) = self.jobs.get_mut(&id) {
            let gone = job.update(spec);
            self.release_gone(id, &gone);
        } else {
            let mut job = Job::new(spec);
            job.service.set_policy(self.policy);
            self.jobs.insert(id, job);
        }
        if !was_active {
            fairness::join(&mut self.jobs, id);
        }
        let is = self.jobs.get(&id).map(|job| (job.is_active(), job.service.weight));
        if was != is {
            let runs = is.is_some_and(|(is_active, _)| is_active);
            self.share_anew(if runs { SharedBecause::JobRuns(id) } else { SharedBecause::JobStops(id) });
        }
        self.work_appeared = true;
    }

    fn on_job_ended(&mut self, id: JobId) {
        let is_known = self.jobs.remove(&id).is_some();
        for worker in self.workers.values_mut() {
            worker.forget_job(id);
        }
        if is_known {
            self.share_anew(SharedBecause::JobEnds(id));
        }
        self.work_appeared = true;
    }

    fn on_dead(&mut self, id: JobId, queries: &[QueryRange]) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let gone: RangeSet = queries.iter().map(|range| job::span(*range)).collect();
        for range in gone.iter() {
            job.dying.remove(range.clone());
            job.open.remove(range.clone());
            job.take_out(range);
        }
        self.release_gone(id, &gone);
    }

    /// Takes queries that are no longer open out of whatever leases they are in.
    fn release_gone(&mut self, id: JobId, gone: &RangeSet) {
        let leased = self.jobs.get(&id).map(|job| job.leased.intersection(gone));
        if let Some(leased) = leased.filter(|leased| !leased.is_empty()) {
            self.release(id, NodeId::default(), leased);
            self.work_appeared = true;
        }
    }

    /// The next moment at which something changes by itself.
    fn earliest(&self) -> Option<Instant> {
        let of_worker = |worker: &Worker| {
            let fixed = [worker.silent_at(&self.config), worker.heard + worker::FORGET_AFTER];
            let leases = worker.leases.iter().map(|held| held.expires);
            let ends = leases.chain(worker.parked).chain(worker.rests_until()).chain(fixed);
            ends.filter(|at| *at > self.now).min()
        };
        let workers = self.workers.values().filter_map(of_worker);
        let pieces = self.jobs.values().flat_map(|job| job.pieces.values().map(|piece| piece.due));
        workers.chain(pieces).chain([self.claims_until]).filter(|at| *at > self.now).min()
    }
}
