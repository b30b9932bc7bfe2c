//! Jobs and the changes of their state.
//!
//! Added -> Running -> Done, with Stopped (by a person) and Paused (by the cluster) on the way, both resumed by a
//! start; or Cancelled, from which nothing leads on. A start freezes inputs, label table and model version
//! ([`super::inputs`]); they stay the same for the life of the job.

use std::collections::BTreeSet;
use std::sync::Arc;

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::names::{DatasetName, FileName, JobName, ModelName};
use idunno_shared::wire::blobs::BlobRef;
use idunno_shared::wire::control::{Changed, JobOptions, JobState, PARAMETER_BYTES_MAX, PARAMETERS_MAX};
use idunno_shared::wire::jobs::{BATCH_QUERIES_MAX, BatchSize, Parameters, QueryRange, WEIGHT_MAX};
use idunno_shared::wire::refusal::Refusal;
use imbl::{OrdMap, Vector};
use serde::{Deserialize, Serialize};

use super::{Applied, Artefact, DeadLetterRecord, Manifest, Query, Records, State, Statistics, cut_reason};
use crate::ranges::RangeSet;

/// Most jobs; none is dropped but by a person, because its results stay.
pub const JOBS_MAX: usize = 10_000;
/// Most queries of one job.
pub const QUERIES_PER_JOB_MAX: usize = 4_000_000;

/// A blob of result rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The blob.
    pub blob: BlobRef,
    /// The worker that wrote it.
    pub worker: NodeId,
    /// The queries whose rows count, in order.
    pub ranges: Vec<QueryRange>,
}

/// A job. Its clone shares all that grows with the job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its number.
    pub id: JobId,
    /// Its model.
    pub model: ModelName,
    /// Its data set.
    pub dataset: DatasetName,
    /// Queries per batch, for leases from now on.
    pub batch_size: BatchSize,
    /// Its state.
    pub state: JobState,
    /// Queries of its manifest; 0 before the start.
    pub submitted: u64,
    /// The queries, once started and until none of them can have to be run any more.
    pub manifest: Option<Arc<Manifest>>,
    /// The queries whose inputs the job keeps from being collected: all while it runs; the dead ones behind its end.
    pub held: RangeSet,
    /// The model version that it started with.
    pub artefact: Option<Arc<Artefact>>,
    /// The extents of the label table that it started with; kept from being collected while any query is held.
    pub labels: Option<Arc<[BlobRef]>>,
    /// The queries answered.
    pub done: RangeSet,
    /// The queries that failed for good.
    pub dead: RangeSet,
    /// Why they did, by query.
    #[serde(rename = "letters")]
    pub dead_letters: OrdMap<u64, Arc<DeadLetterRecord>>,
    /// The results, in order of commit.
    pub segments: Vector<Arc<Segment>>,
    /// Its figures.
    pub statistics: Statistics,
    /// When it was added, in milliseconds since the epoch.
    pub created_ms: u64,
    /// When it was started for the first time.
    pub started_ms: Option<u64>,
    /// When its last query was decided, while it is done.
    pub finished_ms: Option<u64>,
    /// When it began to run, while it runs.
    pub running_since_ms: Option<u64>,
    /// How long it ran before that, in milliseconds.
    pub ran_ms: u64,
    /// Its share against other jobs'.
    #[serde(default = "ordinary_weight")]
    pub weight: u32,
    /// Its name, if it has one.
    #[serde(default)]
    pub name: Option<JobName>,
    /// What it hands to the model.
    #[serde(default)]
    pub parameters: Arc<Parameters>,
    /// The queries, where they are records of one file; kept as the manifest is.
    #[serde(default)]
    pub records: Option<Arc<Records>>,
    /// Whether its results are in a file.
    #[serde(default)]
    pub filed: bool,
}

fn ordinary_weight() -> u32 {
    1
}

impl Job {
    fn new(id: JobId, model: ModelName, dataset: DatasetName, batch_size: BatchSize, now_ms: u64) -> Self {
        Self {
            id,
            model,
            dataset,
            batch_size,
            state: JobState::Added,
            submitted: 0,
            manifest: None,
            held: RangeSet::new(),
            artefact: None,
            labels: None,
            done: RangeSet::new(),
            dead: RangeSet::new(),
            dead_letters: OrdMap::new(),
            segments: Vector::new(),
            statistics: Statistics::default(),
            created_ms: now_ms,
            started_ms: None,
            finished_ms: None,
            running_since_ms: None,
            ran_ms: 0,
            weight: ordinary_weight(),
            name: None,
            parameters: Arc::default(),
            records: None,
            filed: false,
        }
    }

    /// What the query is called: its file, or its place in the file of records. `None` once nobody needs to know.
    pub fn input_name(&self, index: u64) -> Option<FileName> {
        if let Some(records) = self.records.as_deref() {
            return records.name(index);
        }
        let (_, query) = self.manifest.as_deref()?.slice(index, index + 1).next()?;
        Some((*query.name).clone())
    }

    /// Whether its queries' names are known.
    pub(super) fn has_inputs(&self) -> bool {
        self.manifest.is_some() || self.records.is_some()
    }

    /// The queries neither answered nor dead; none before the start.
    pub fn pending(&self) -> RangeSet {
        let mut pending = RangeSet::from(0..self.submitted);
        pending.subtract(&self.done);
        pending.subtract(&self.dead);
        pending
    }

    /// How long it has been running until `now_ms`, stops left out, in milliseconds.
    pub fn running_ms(&self, now_ms: u64) -> u64 {
        self.ran_ms + self.running_since_ms.map_or(0, |since| now_ms.saturating_sub(since))
    }

    pub(super) fn run(&mut self, now_ms: u64) {
        self.state = JobState::Running;
        self.finished_ms = None;
        self.filed = false;
        self.running_since_ms.get_or_insert(now_ms);
    }

    pub(super) fn halt(&mut self, state: JobState, now_ms: u64) {
        self.ran_ms = self.running_ms(now_ms);
        self.running_since_ms = None;
        self.state = state;
    }
}

fn check_batch_size(batch_size: BatchSize) -> Result<(), Refusal> {
    match batch_size {
        BatchSize::Fixed(queries) if queries.get() > BATCH_QUERIES_MAX => Err(Refusal::invalid(format!(
            "a batch of {queries} queries: 1 to {BATCH_QUERIES_MAX}, or auto, are allowed"
        ))),
        BatchSize::Fixed(_) | BatchSize::Auto => Ok(()),
    }
}

fn check_weight(weight: u32) -> Result<(), Refusal> {
    if (1..=WEIGHT_MAX).contains(&weight) {
        return Ok(());
    }
    Err(Refusal::invalid(format!("a weight of {weight}: 1 to {WEIGHT_MAX} are allowed")))
}

fn check_parameters(parameters: &Parameters) -> Result<(), Refusal> {
    if parameters.len() > PARAMETERS_MAX {
        let message = format!("{} parameters: {PARAMETERS_MAX} are allowed", parameters.len());
        return Err(Refusal::invalid(message));
    }
    let long = parameters.iter().find(|(_, value)| value.len() > PARAMETER_BYTES_MAX);
    let Some((name, value)) = long else { return Ok(()) };
    let message = format!("parameter '{name}' has {} bytes: {PARAMETER_BYTES_MAX} are allowed", value.len());
    Err(Refusal::invalid(message))
}

impl State {
    /// All jobs, in order of their numbers.
    pub fn jobs(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.jobs.values()
    }

    /// One job.
    pub fn job(&self, id: JobId) -> Option<&Arc<Job>> {
        self.jobs.get(&id)
    }

    /// One job, or the refusal that says there is none.
    pub fn job_or_refusal(&self, id: JobId) -> Result<&Arc<Job>, Refusal> {
        self.jobs
            .get(&id)
            .ok_or_else(|| Refusal::not_found(format!("there is no {id}: get-job-stats lists the jobs")))
    }

    /// The queries of a job that are neither answered nor dead; none of an unknown job.
    pub fn pending(&self, id: JobId) -> RangeSet {
        self.jobs.get(&id).map_or_else(RangeSet::new, |job| job.pending())
    }

    /// The inputs of a job's queries, with their numbers; none where the job is unknown or needs no inputs any more.
    pub fn queries(&self, id: JobId, range: QueryRange) -> impl Iterator<Item = (u64, &Query)> {
        let manifest = self.jobs.get(&id).and_then(|job| job.manifest.as_deref());
        manifest.into_iter().flat_map(move |manifest| {
            manifest.slice(range.first, range.first.saturating_add(u64::from(range.count)))
        })
    }

    /// Puts back a job that was taken out and changed.
    pub(super) fn set_job(&mut self, job: Job) {
        self.jobs.insert(job.id, Arc::new(job));
    }

    pub(super) fn add_job(
        &mut self,
        model: &ModelName,
        dataset: &DatasetName,
        batch_size: BatchSize,
        options: &JobOptions,
    ) -> Result<Changed, Refusal> {
        check_batch_size(batch_size)?;
        let weight = options.weight.unwrap_or_else(ordinary_weight);
        check_weight(weight)?;
        check_parameters(&options.parameters)?;
        self.check_model(model, &BTreeSet::new())?;
        if self.jobs.len() >= JOBS_MAX {
            let message = format!("there are {JOBS_MAX} jobs: no more can be kept, delete-job makes room");
            return Err(Refusal::conflict(message));
        }
        if let (Some(name), Some(other)) = (&options.name, self.named(options.name.as_ref())) {
            return Err(Refusal::conflict(format!(
                "{} has the name '{name}' already: give another",
                other.id
            )));
        }
        let highest = self.jobs.get_max().map_or(0, |(id, _)| id.0);
        self.last_job = self.last_job.max(highest) + 1;
        let id = JobId(self.last_job);
        self.set_job(Job {
            weight,
            name: options.name.clone(),
            parameters: Arc::new(options.parameters.clone()),
            ..Job::new(id, model.clone(), dataset.clone(), batch_size, self.now_ms)
        });
        Ok(Changed::JobAdded(id))
    }

    fn named(&self, name: Option<&JobName>) -> Option<&Arc<Job>> {
        self.jobs.values().find(|job| name.is_some() && job.name.as_ref() == name)
    }

    /// One job that is not over, or the refusal that says why `what` has no more effect.
    fn unfinished(&self, id: JobId, what: &str) -> Result<&Arc<Job>, Refusal> {
        let job = self.job_or_refusal(id)?;
        let state = match job.state {
            JobState::Done => "done",
            JobState::Cancelled => "cancelled",
            _ => return Ok(job),
        };
        Err(Refusal::conflict(format!("{id} is {state}: its {what} has no more effect")))
    }

    pub(super) fn set_batch_size(&mut self, id: JobId, batch_size: BatchSize) -> Result<Changed, Refusal> {
        check_batch_size(batch_size)?;
        let job = self.unfinished(id, "batch size")?;
        self.set_job(Job { batch_size, ..(**job).clone() });
        Ok(Changed::Done)
    }

    pub(super) fn set_weight(&mut self, id: JobId, weight: u32) -> Result<Changed, Refusal> {
        check_weight(weight)?;
        let job = self.unfinished(id, "weight")?;
        self.set_job(Job { weight, ..(**job).clone() });
        Ok(Changed::Done)
    }

    pub(super) fn stop_job(&mut self, id: JobId) -> Result<Changed, Refusal> {
        let mut job = (**self.job_or_refusal(id)?).clone();
        match job.state {
            JobState::Running | JobState::Paused(_) => {}
            JobState::Added => return Err(Refusal::conflict(format!("{id} was not started yet"))),
            JobState::Stopped => return Err(Refusal::conflict(format!("{id} is stopped already"))),
            JobState::Done => return Err(Refusal::conflict(format!("{id} is done already"))),
            JobState::Cancelled => return Err(Refusal::conflict(format!("{id} is cancelled already"))),
        }
        job.halt(JobState::Stopped, self.now_ms);
        self.set_job(job);
        Ok(Changed::Done)
    }

    pub(super) fn pause_job(&mut self, id: JobId, reason: &str) -> Result<Applied, Refusal> {
        let mut job = (**self.job_or_refusal(id)?).clone();
        if job.state != JobState::Running {
            return Err(Refusal::conflict(format!("{id} is not running: it cannot be paused")));
        }
        job.halt(JobState::Paused(cut_reason(reason)), self.now_ms);
        self.set_job(job);
        Ok(Applied::Done)
    }
}
