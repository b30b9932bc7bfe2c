//! The scheduler's record of one worker, from its reports, commits and failures.
//!
//! Bounds: [`WORKERS_MAX`] workers; per worker [`STATES_MAX`] states and the rates of [`MODELS_MAX`] models,
//! [`FAILED_LEASES_MAX`] failed leases, [`CRASHES_MAX`] models that start again, and a minute of usage per job.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use idunno_shared::ids::{Digest, JobId};
use idunno_shared::names::ModelName;
use idunno_shared::wire::control::ITEMS_PER_REQUEST_MAX;
use idunno_shared::wire::jobs::{LEASES_HELD_MAX, Lease, ModelState, ServerState, WorkerReport};
use idunno_shared::wire::resources::{ReadFeature, SharedBackend};

use super::config::MODELS_MAX;
use super::fault_history::{FaultHistory, back_off};
use super::job::Job;
use super::sizing::{BatchSizer, Rate};
use super::window::Window;
use super::{CompletedBatch, ReplyPlan, SchedulerConfig};
use crate::ranges::RangeSet;
use crate::time::Instant;

/// Tracked workers; reports of further workers get empty replies.
pub(super) const WORKERS_MAX: usize = 1024;
/// A worker without leases is forgotten after this time without a report.
pub(super) const FORGET_AFTER: Duration = Duration::from_secs(60);
/// Seconds over which a worker's shares are computed.
const USAGE_SECONDS: usize = 60;
/// Failed leases remembered per worker, so that a repeated failure report counts once.
const FAILED_LEASES_MAX: usize = 64;
/// Models per worker whose processes have ended and that are not loaded again yet.
const CRASHES_MAX: usize = 64;
/// Most that a job is charged for one crash: longer than most models take to load.
const CRASH_CHARGE_MAX: Duration = Duration::from_secs(120);
/// States of models per worker.
const STATES_MAX: usize = ITEMS_PER_REQUEST_MAX;
/// Consecutive failed batches of a job that others can serve, after which the worker cools down from that job.
const JOB_STRIKES: u32 = 3;

/// A lease that a worker holds.
#[derive(Clone, Debug)]
pub(super) struct HeldLease {
    pub(super) lease: Lease,
    /// Its queries that are neither answered nor failed; never empty.
    pub(super) open: RangeSet,
    /// The earlier faults of these queries.
    pub(super) history: FaultHistory,
    /// How often these queries have been leased; exceeds the lease's attempt number once there is a copy.
    pub(super) lease_count: u32,
    /// Whether this is the second lease of a batch that another worker also holds.
    pub(super) is_copy: bool,
    pub(super) stage: Stage,
    pub(super) expires_at: Instant,
    /// When a report first lacked it; `None` while reports list it.
    pub(super) absent_since: Option<Instant>,
}

/// A batch's progress at its worker, by the newest report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Queued,
    Running {
        since: Instant,
    },
    /// It has run and awaits its commit.
    Completed,
}

impl Stage {
    /// The stage of the lease at `index` of a report: completed leases come first, then the running one.
    pub(super) fn reported(report: &WorkerReport, index: usize, now: Instant) -> Self {
        let completed = usize::from(report.awaiting_commit);
        match report.running_ms {
            _ if index < completed => Self::Completed,
            Some(ms) if index == completed => Self::Running { since: now - Duration::from_millis(ms.into()) },
            _ => Self::Queued,
        }
    }
}

/// A pause in a worker's leases after failures.
#[derive(Clone, Debug, Default)]
struct Cooldown {
    strikes: u32,
    until: Instant,
}

impl Cooldown {
    /// Counts a failure. The first `free` of them cause no pause.
    fn strike(&mut self, free: u32, now: Instant, config: &SchedulerConfig) {
        self.strikes = self.strikes.saturating_add(1);
        if let Some(doublings) = self.strikes.checked_sub(free + 1) {
            self.until = now + back_off(config.cooldown_base, doublings, config.cooldown_max);
        }
    }
}

/// A model version whose process was ended by a batch of a job.
#[derive(Clone, Debug)]
struct Crash {
    job: JobId,
    model: ModelName,
    version: Digest,
    at: Instant,
    /// Whether a report has shown since that the version is not loaded. The report before may still be on its way.
    is_seen: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) generation: u64,
    /// The number of its newest report.
    pub(super) number: u64,
    pub(super) server: ServerState,
    /// The model servers that it calls beside other workers.
    pub(super) shared: Vec<SharedBackend>,
    /// What its program can read.
    pub(super) features: Vec<ReadFeature>,
    /// Whether it can train any model, or else which.
    offers: Option<BTreeSet<ModelName>>,
    /// What is done with each model, and the versions of it that are loaded.
    pub(super) models: BTreeMap<ModelName, Vec<ModelState>>,
    pub(super) draining: bool,
    /// Batches that its unanswered report still wants.
    pub(super) wanted: u8,
    pub(super) leases: Vec<HeldLease>,
    /// When its newest report arrived.
    pub(super) last_report: Instant,
    /// When its newest report must be answered; `None` once it is.
    pub(super) reply_by: Option<Instant>,
    /// The reply being composed; empty between events.
    pub(super) reply: ReplyPlan,
    /// Its latest failed leases, newest first.
    failed: VecDeque<Lease>,
    /// The crashes whose models are not loaded again yet.
    crashes: Vec<Crash>,
    cooldown: Cooldown,
    job_cooldowns: BTreeMap<JobId, Cooldown>,
    /// Microseconds of inference.
    usage: BTreeMap<JobId, Window<USAGE_SECONDS>>,
    pub(super) rates: BTreeMap<ModelName, Rate>,
    sizers: BTreeMap<ModelName, BatchSizer>,
}

impl Worker {
    pub(super) fn new(report: &WorkerReport, now: Instant) -> Self {
        let mut worker = Self {
            generation: report.generation,
            number: report.number,
            server: ServerState::Starting,
            shared: Vec::new(),
            features: Vec::new(),
            offers: None,
            models: BTreeMap::new(),
            draining: false,
            wanted: 0,
            leases: Vec::new(),
            last_report: now,
            reply_by: None,
            reply: ReplyPlan::default(),
            failed: VecDeque::new(),
            crashes: Vec::new(),
            cooldown: Cooldown::default(),
            job_cooldowns: BTreeMap::new(),
            usage: BTreeMap::new(),
            rates: BTreeMap::new(),
            sizers: BTreeMap::new(),
        };
        worker.update(report, now);
        worker
    }

    pub(super) fn update(&mut self, report: &WorkerReport, now: Instant) {
        self.number = report.number;
        self.server = report.server.clone();
        self.models.clear();
        for (model, state) in report.models.iter().take(STATES_MAX) {
            self.models.entry(model.clone()).or_default().push(state.clone());
        }
        self.shared.clone_from(&report.resources.shared);
        self.features = report.resources.features();
        self.offers = report.offers.as_ref().map(|offers| offers.iter().cloned().collect());
        self.draining = report.draining;
        self.wanted = report.wanted;
        self.last_report = now;
    }

    /// When it stops counting as live unless it reports.
    pub(super) fn silent_at(&self, config: &SchedulerConfig) -> Instant {
        self.last_report + config.lease
    }

    /// Whether it is live, has a ready model server and is not draining.
    pub(super) fn is_usable(&self, now: Instant, config: &SchedulerConfig) -> bool {
        now < self.silent_at(config) && self.server == ServerState::Ready && !self.draining
    }

    pub(super) fn has_loaded(&self, model: &ModelName, version: Digest) -> bool {
        self.is_in_state(model, &ModelState::Ready(version))
    }

    /// Whether its model servers say that they have this model. One that cannot list its models may have it.
    pub(super) fn offers(&self, model: &ModelName) -> bool {
        self.offers.as_ref().is_none_or(|offers| offers.contains(model))
    }

    pub(super) fn is_training(&self, model: &ModelName) -> bool {
        self.is_in_state(model, &ModelState::Training)
    }

    fn is_in_state(&self, model: &ModelName, state: &ModelState) -> bool {
        self.models.get(model).is_some_and(|states| states.contains(state))
    }

    pub(super) fn wants_batch(&self, config: &SchedulerConfig) -> bool {
        self.reply_by.is_some() && self.wanted > 0 && self.has_room(Stage::Queued, config)
    }

    /// Whether it may hold one more lease that is at this stage.
    pub(super) fn has_room(&self, stage: Stage, config: &SchedulerConfig) -> bool {
        let may_run = stage == Stage::Completed || self.uncompleted().count() < config.leases_per_worker;
        may_run && self.leases.len() < LEASES_HELD_MAX
    }

    /// Its leases that have not run to completion, in the order in which it runs them.
    pub(super) fn uncompleted(&self) -> impl Iterator<Item = &HeldLease> {
        self.leases.iter().filter(|held| held.stage != Stage::Completed)
    }

    /// Whether it is cooling down, from all jobs or from this one.
    pub(super) fn is_cooling_down(&self, job: JobId, now: Instant) -> bool {
        now < self.cooldown.until || self.job_cooldowns.get(&job).is_some_and(|cooldown| now < cooldown.until)
    }

    pub(super) fn cooldown_ends(&self) -> impl Iterator<Item = Instant> + '_ {
        self.job_cooldowns.values().map(|cooldown| cooldown.until).chain([self.cooldown.until])
    }

    /// Records a failed lease. False if its failure was reported before.
    pub(super) fn record_failed(&mut self, lease: Lease) -> bool {
        if self.failed.contains(&lease) {
            return false;
        }
        self.failed.truncate(FAILED_LEASES_MAX - 1);
        self.failed.push_front(lease);
        true
    }

    /// Records that a batch of the job ended the process of its model.
    pub(super) fn record_crash(&mut self, id: JobId, job: &Job, now: Instant) {
        let is_known = |crash: &Crash| crash.model == job.model && crash.version == job.version;
        if self.crashes.len() < CRASHES_MAX && !self.crashes.iter().any(is_known) {
            let (model, version) = (job.model.clone(), job.version);
            self.crashes.push(Crash { job: id, model, version, at: now, is_seen: false });
        }
    }

    /// The crashes that are over by the newest report: its job, and how long it took until the model was loaded again, or
    /// [`CRASH_CHARGE_MAX`].
    pub(super) fn take_recovered(
        &mut self,
        now: Instant,
        config: &SchedulerConfig,
    ) -> Vec<(JobId, Duration)> {
        let mut crashes = std::mem::take(&mut self.crashes);
        let is_over = |crash: &mut Crash| {
            let is_loaded = self.has_loaded(&crash.model, crash.version);
            crash.is_seen |= !is_loaded;
            // A model that is loaded again faster than the worker reports is never seen without.
            let is_back = is_loaded && (crash.is_seen || now >= crash.at + config.absence_grace);
            is_back || now >= crash.at + CRASH_CHARGE_MAX
        };
        let over = crashes.extract_if(.., is_over);
        let recovered = over.map(|crash| (crash.job, now.since(crash.at).min(CRASH_CHARGE_MAX))).collect();
        self.crashes = crashes;
        recovered
    }

    /// Adds a lease and its grant to the reply.
    pub(super) fn grant(&mut self, held: HeldLease) {
        let lease = held.lease;
        self.leases.push(held);
        self.wanted = self.wanted.saturating_sub(1);
        // Retried dead letters are leased with the attempt numbers of their first life.
        self.failed.retain(|failed| *failed != lease);
        self.reply.grants.push(lease);
    }

    /// Records a fault of the worker itself.
    pub(super) fn strike(&mut self, now: Instant, config: &SchedulerConfig) {
        self.cooldown.strike(0, now, config);
    }

    /// Records a failed batch of a job that has had answers.
    pub(super) fn strike_job(&mut self, job: JobId, now: Instant, config: &SchedulerConfig) {
        self.job_cooldowns.entry(job).or_default().strike(JOB_STRIKES - 1, now, config);
    }

    /// Records a commit of the job: cooldowns end and its inference time counts as usage.
    pub(super) fn record_success(&mut self, job: JobId, inference_us: u64, now: Instant) {
        self.cooldown = Cooldown::default();
        self.job_cooldowns.remove(&job);
        self.usage.entry(job).or_insert_with(Window::new).add(inference_us, now);
        self.usage.retain(|_, used| used.sum(now) > 0);
    }

    /// Records the measurements of a committed batch.
    pub(super) fn record_batch(&mut self, model: &ModelName, batch: &CompletedBatch, now: Instant) {
        if self.rates.len() >= MODELS_MAX && !self.rates.contains_key(model) {
            return;
        }
        self.rates.entry(model.clone()).or_default().add(batch.inferred, batch.inference_us, now);
        let sizer = self.sizers.entry(model.clone()).or_default();
        if batch.refused > 0 {
            sizer.record_refusal(batch.refused, now);
        } else {
            sizer.record_batch(batch.inferred, batch.inference_us, now);
        }
    }

    /// The size of its batches of the model, where the job leaves the size to the scheduler.
    pub(super) fn batch_size(&self, model: &ModelName) -> u32 {
        self.sizers.get(model).map_or_else(|| BatchSizer::default().size(), BatchSizer::size)
    }

    /// Records a batch that failed as a whole: it may have been too large.
    pub(super) fn record_failed_batch(&mut self, model: &ModelName, queries: u32, now: Instant) {
        // A smaller batch is a part of one that failed before.
        if let Some(sizer) = self.sizers.get_mut(model).filter(|sizer| sizer.size() == queries) {
            sizer.record_refusal(queries, now);
        }
    }

    pub(super) fn forget_job(&mut self, job: JobId) {
        self.leases.retain(|held| held.lease.job != job);
        self.job_cooldowns.remove(&job);
    }

    /// Each job's fraction of the inference time of the last minute.
    pub(super) fn shares(&self, now: Instant) -> Vec<(JobId, f64)> {
        let used: Vec<_> = self.usage.iter().map(|(job, used)| (*job, used.sum(now))).collect();
        let total = used.iter().fold(0_u64, |total, (_, us)| total.saturating_add(*us));
        used.into_iter().filter(|(_, us)| *us > 0).map(|(job, us)| (job, us as f64 / total as f64)).collect()
    }
}
