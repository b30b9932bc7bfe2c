//! What is known of one worker, from its reports.
//!
//! Bounds: [`WORKERS_MAX`] workers, [`MODELS_MAX`] models and [`FAILED_MAX`] failed leases each, a minute of usage per
//! job.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use idunno_shared::ids::{Digest, JobId};
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{LEASES_HELD_MAX, Lease, ModelState, ServerState, WorkerReport};

use super::config::MODELS_MAX;
use super::history::{History, back_off};
use super::pace::Rate;
use super::service::Window;
use super::sizing::Sizing;
use super::{OrdersPlan, RanBatch, SchedulerConfig};
use crate::ranges::RangeSet;
use crate::time::Instant;

/// Reports of further workers are answered empty.
pub(super) const WORKERS_MAX: usize = 1024;
/// A worker that is silent for so long and holds nothing is forgotten.
pub(super) const FORGET_AFTER: Duration = Duration::from_secs(60);
/// Seconds over which a worker's shares are counted.
pub(super) const USAGE_SECONDS: usize = 60;
/// Failed leases of a worker that are remembered, so that each counts once.
pub(super) const FAILED_MAX: usize = 64;
/// Batch failures in a row of a job that others can serve, after which the worker pauses for that job.
const STRIKES: u32 = 3;

/// A lease that a worker holds.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) lease: Lease,
    /// The queries of it that are neither answered nor failed; never empty.
    pub(super) open: RangeSet,
    /// What had gone wrong with them before.
    pub(super) history: History,
    /// How often the range's first query has been leased by now: more than the lease says once it has been copied.
    pub(super) leased: u32,
    /// Whether another worker holds the batch too, and had it first.
    pub(super) is_copy: bool,
    pub(super) stage: Stage,
    pub(super) expires: Instant,
    /// When a report first lacked it, since one last listed it.
    pub(super) missing: Option<Instant>,
}

/// How far a worker is with a batch, as it said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Waits,
    Runs {
        since: Instant,
    },
    /// It awaits its commit.
    Ran,
}

impl Stage {
    /// Of the lease at this place of a report.
    pub(super) fn reported(report: &WorkerReport, place: usize, now: Instant) -> Self {
        let ran = usize::from(report.awaiting_commit);
        match report.running_ms {
            _ if place < ran => Self::Ran,
            Some(ms) if place == ran => Self::Runs { since: now - Duration::from_millis(ms.into()) },
            _ => Self::Waits,
        }
    }
}

/// A worker's rest after failures.
#[derive(Clone, Debug, Default)]
struct Cooldown {
    strikes: u32,
    until: Instant,
}

impl Cooldown {
    /// One more failure; the first `free` of them cost nothing.
    fn strike(&mut self, free: u32, now: Instant, config: &SchedulerConfig) {
        self.strikes = self.strikes.saturating_add(1);
        if let Some(doublings) = self.strikes.checked_sub(free + 1) {
            self.until = now + back_off(config.cooldown_base, doublings, config.cooldown_max);
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) generation: u64,
    /// Of its newest report.
    pub(super) number: u64,
    pub(super) server: ServerState,
    pub(super) models: BTreeMap<ModelName, ModelState>,
    pub(super) draining: bool,
    /// Batches that its unanswered report still wants.
    pub(super) wanted: u8,
    pub(super) leases: Vec<Held>,
    /// When it last reported.
    pub(super) heard: Instant,
    /// Until when its report may stay unanswered; `None` when it is answered.
    pub(super) parked: Option<Instant>,
    /// The answer being made; empty between events.
    pub(super) plan: OrdersPlan,
    /// The leases that it failed last.
    failed: VecDeque<Lease>,
    cooldown: Cooldown,
    job_cooldowns: BTreeMap<JobId, Cooldown>,
    /// Microseconds of inference.
    usage: BTreeMap<JobId, Window<USAGE_SECONDS>>,
    pub(super) rates: BTreeMap<ModelName, Rate>,
    sizes: BTreeMap<ModelName, Sizing>,
}

impl Worker {
    pub(super) fn new(report: &WorkerReport, now: Instant) -> Self {
        let mut worker = Self {
            generation: report.generation,
            number: report.number,
            server: ServerState::Starting,
            models: BTreeMap::new(),
            draining: false,
            wanted: 0,
            leases: Vec::new(),
            heard: now,
            parked: None,
            plan: OrdersPlan::default(),
            failed: VecDeque::new(),
            cooldown: Cooldown::default(),
            job_cooldowns: BTreeMap::new(),
            usage: BTreeMap::new(),
            rates: BTreeMap::new(),
            sizes: BTreeMap::new(),
        };
        worker.update(report, now);
        worker
    }

    pub(super) fn update(&mut self, report: &WorkerReport, now: Instant) {
        self.number = report.number;
        self.server = report.server.clone();
        self.models = report.models.iter().take(MODELS_MAX).cloned().collect();
        self.draining = report.draining;
        self.wanted = report.wanted;
        self.heard = now;
    }

    pub(super) fn silent_at(&self, config: &SchedulerConfig) -> Instant {
        self.heard + config.lease
    }

    /// Whether it is live, has a model server, and stays.
    pub(super) fn is_usable(&self, now: Instant, config: &SchedulerConfig) -> bool {
        now < self.silent_at(config) && self.server == ServerState::Ready && !self.draining
    }

    pub(super) fn is_loaded(&self, model: &ModelName, version: Digest) -> bool {
        self.models.get(model) == Some(&ModelState::Ready(version))
    }

    pub(super) fn is_training(&self, model: &ModelName) -> bool {
        self.models.get(model) == Some(&ModelState::Training)
    }

    pub(super) fn wants_batch(&self, config: &SchedulerConfig) -> bool {
        self.parked.is_some() && self.wanted > 0 && self.has_room(Stage::Waits, config)
    }

    /// Whether it may hold one more lease that is so far.
    pub(super) fn has_room(&self, stage: Stage, config: &SchedulerConfig) -> bool {
        let may_work = stage == Stage::Ran || self.at_work().count() < config.leases_per_worker;
        may_work && self.leases.len() < LEASES_HELD_MAX
    }

    /// Its leases that have not run yet, in the order in which it runs them.
    pub(super) fn at_work(&self) -> impl Iterator<Item = &Held> {
        self.leases.iter().filter(|held| held.stage != Stage::Ran)
    }

    /// Whether it rests, from everything or from this job.
    pub(super) fn is_cooling(&self, job: JobId, now: Instant) -> bool {
        now < self.cooldown.until || self.job_cooldowns.get(&job).is_some_and(|cooldown| now < cooldown.until)
    }

    /// The ends of its rests.
    pub(super) fn rests_until(&self) -> impl Iterator<Item = Instant> + '_ {
        self.job_cooldowns.values().map(|cooldown| cooldown.until).chain([self.cooldown.until])
    }

    /// Whether it says for the first time that this lease failed; notes that it did.
    pub(super) fn fails_first(&mut self, lease: Lease) -> bool {
        if self.failed.contains(&lease) {
            return false;
        }
        self.failed.truncate(FAILED_MAX - 1);
        self.failed.push_front(lease);
        true
    }

    /// Gives it a batch of those that it wants.
    pub(super) fn grant(&mut self, held: Held) {
        let lease = held.lease;
        self.leases.push(held);
        self.wanted = self.wanted.saturating_sub(1);
        // Queries that died and are tried again are leased under the same numbers.
        self.failed.retain(|failed| *failed != lease);
        self.plan.grants.push(lease);
    }

    /// It said itself that it can run nothing.
    pub(super) fn strike(&mut self, now: Instant, config: &SchedulerConfig) {
        self.cooldown.strike(0, now, config);
    }

    /// It failed a batch of a job that has had answers.
    pub(super) fn strike_job(&mut self, job: JobId, now: Instant, config: &SchedulerConfig) {
        self.job_cooldowns.entry(job).or_default().strike(STRIKES - 1, now, config);
    }

    /// It answered queries of the job.
    pub(super) fn succeeded(&mut self, job: JobId, inference_us: u64, now: Instant) {
        self.cooldown = Cooldown::default();
        self.job_cooldowns.remove(&job);
        self.usage.entry(job).or_insert_with(Window::new).add(inference_us, now);
        self.usage.retain(|_, used| used.sum(now) > 0);
    }

    /// It ran a batch of the model.
    pub(super) fn ran(&mut self, model: &ModelName, ran: &RanBatch, now: Instant) {
        if self.rates.len() >= MODELS_MAX && !self.rates.contains_key(model) {
            return;
        }
        let (queries, inference_us) = (ran.lease.range.count, ran.inference_us);
        self.rates.entry(model.clone()).or_default().add(queries, inference_us, now);
        let sizing = self.sizes.entry(model.clone()).or_default();
        if ran.refused > 0 {
            sizing.refused(ran.refused, now);
        } else {
            sizing.ran(queries, inference_us, now);
        }
    }

    /// How many queries of the model its batches have where we choose.
    pub(super) fn size(&self, model: &ModelName) -> u32 {
        self.sizes.get(model).map_or_else(|| Sizing::default().size(), Sizing::size)
    }

    /// A batch of so many queries of the model failed as a whole: it may have been too much.
    pub(super) fn choked(&mut self, model: &ModelName, queries: u32, now: Instant) {
        // A smaller one is part of one that failed before.
        if let Some(sizing) = self.sizes.get_mut(model).filter(|sizing| sizing.size() == queries) {
            sizing.refused(queries, now);
        }
    }

    pub(super) fn forget_job(&mut self, job: JobId) {
        self.leases.retain(|held| held.lease.job != job);
        self.job_cooldowns.remove(&job);
    }

    /// Each job's share of the inference time of the last minute.
    pub(super) fn shares(&self, now: Instant) -> Vec<(JobId, f64)> {
        let used: Vec<_> = self.usage.iter().map(|(job, used)| (*job, used.sum(now))).collect();
        let total = used.iter().fold(0_u64, |total, (_, us)| total.saturating_add(*us));
        used.into_iter().filter(|(_, us)| *us > 0).map(|(job, us)| (job, us as f64 / total as f64)).collect()
    }
}
