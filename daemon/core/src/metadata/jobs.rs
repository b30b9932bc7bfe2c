//! Jobs and their states.
//!
//! Added -> Running -> Done. A running job may be Stopped by a person or Paused by the cluster; `start-job` resumes it.
//! A job that follows another is Waiting before it runs (`followers.rs`). Cancelled is final. The first start freezes inputs, label table and model version for the life of the job
//! (`dataset_freeze.rs`).

use std::collections::BTreeSet;
use std::sync::Arc;

use idunno_shared::access::SubjectName;
use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::names::{DatasetName, FileName, JobName, ModelName};
use idunno_shared::wire::blobs::BlobRef;
use idunno_shared::wire::control::{
    Changed, JobOptions, JobState, PARAMETER_BYTES_MAX, PARAMETERS_MAX, StartOptions,
};
use idunno_shared::wire::jobs::{BATCH_QUERIES_MAX, BatchSize, Parameters, QueryRange, WEIGHT_MAX};
use idunno_shared::wire::records::{KEPT_COLUMNS_MAX, KEPT_NAMES_BYTES_MAX, Keep, ReadOptions};
use idunno_shared::wire::refusal::Refusal;
use idunno_shared::wire::resources::ReadFeature;
use imbl::{OrdMap, Vector};
use serde::{Deserialize, Serialize};

use super::{
    Applied, Artefact, DeadLetterRecord, JobStatistics, Manifest, OneOrMany, PREDEFINED_MODELS, PinnedFolder,
    Query, Records, State, Webhook, truncate_reason,
};
use crate::ranges::RangeSet;

/// Most jobs. Finished jobs count until they are deleted, because their results are kept.
pub const JOBS_MAX: usize = 10_000;
/// Most queries per job.
pub const QUERIES_PER_JOB_MAX: u64 = 1_000_000_000;

/// A blob of result rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The blob.
    pub blob: BlobRef,
    /// The worker that wrote it.
    pub worker: NodeId,
    /// The queries whose rows count, in order; other rows are duplicates.
    pub ranges: Vec<QueryRange>,
}

/// A job. A clone shares everything that grows with the job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// The job's number.
    pub id: JobId,
    /// The model that answers its queries.
    pub model: ModelName,
    /// The dataset of its queries.
    pub dataset: DatasetName,
    /// Queries per batch, for future leases.
    pub batch_size: BatchSize,
    /// Whether it runs, and if not, why.
    pub state: JobState,
    /// The number of queries; 0 before the first start.
    pub submitted: u64,
    /// The queries, if a list names their files, or a release of format 1 started the job: from the start until neither
    /// inputs nor names are needed.
    pub manifest: Option<Arc<Manifest>>,
    /// The queries whose inputs are kept from collection: all until the end, then the dead ones.
    pub held: RangeSet,
    /// The model version to which it is pinned, from the first start.
    pub artefact: Option<Arc<Artefact>>,
    /// The extents of its label table, from the first start; kept from collection while any query is held.
    pub labels: Option<OneOrMany<BlobRef>>,
    /// The answered queries.
    pub done: RangeSet,
    /// The queries whose attempts were used up.
    pub dead: RangeSet,
    /// The reasons, by dead query.
    #[serde(rename = "letters")]
    pub dead_letters: OrdMap<u64, Arc<DeadLetterRecord>>,
    /// The results, in order of commit.
    pub segments: Vector<Arc<Segment>>,
    /// Statistics over its answered queries.
    pub statistics: JobStatistics,
    /// When it was added, in milliseconds since the epoch.
    pub created_ms: u64,
    /// When it was first started.
    pub started_ms: Option<u64>,
    /// When it was done or cancelled; `None` again if a retry resumes it.
    pub finished_ms: Option<u64>,
    /// When it was last started or resumed; `None` unless it is running.
    pub running_since_ms: Option<u64>,
    /// How long it ran before that, in milliseconds.
    pub ran_ms: u64,
    /// Its query rate relative to other jobs.
    #[serde(default = "default_weight")]
    pub weight: u32,
    /// The name given by a person; unique among jobs.
    #[serde(default)]
    pub name: Option<JobName>,
    /// Parameters passed to the model.
    #[serde(default)]
    pub parameters: Arc<Parameters>,
    /// The queries, if they are records of one file; kept as long as a manifest would be.
    #[serde(default)]
    pub records: Option<Arc<Records>>,
    /// Whether its results are merged into a file.
    #[serde(default)]
    pub filed: bool,
    /// The queries, if they are the files below the dataset's name: kept as long as an input is held.
    #[serde(default)]
    pub folder: Option<Arc<PinnedFolder>>,
    /// The name of the identity that added it; `None` without security, and if a release of format 1 added it.
    #[serde(default)]
    pub owner: Option<SubjectName>,
    /// How people want it to be run.
    #[serde(default, skip_serializing_if = "has_no_terms")]
    pub terms: Arc<JobTerms>,
}

/// How people want a job to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobTerms {
    /// How the records of its dataset are read.
    pub reading: ReadOptions,
    /// Which inputs it runs, from the first start, and how many may fail, from the last.
    pub start: StartOptions,
    /// Who is told when it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
}

fn has_no_terms(terms: &JobTerms) -> bool {
    *terms == JobTerms::default()
}

fn default_weight() -> u32 {
    1
}

impl JobRecord {
    /// What a worker's program must be built with to read its queries.
    pub fn needs(&self) -> Option<ReadFeature> {
        self.records.as_ref().and_then(|records| records.format.needs())
    }

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
            statistics: JobStatistics::default(),
            created_ms: now_ms,
            started_ms: None,
            finished_ms: None,
            running_since_ms: None,
            ran_ms: 0,
            weight: default_weight(),
            name: None,
            parameters: Arc::default(),
            records: None,
            filed: false,
            folder: None,
            owner: None,
            terms: Arc::default(),
        }
    }

    /// The queries that are neither answered nor dead; empty before the first start.
    pub fn pending(&self) -> RangeSet {
        let mut pending = RangeSet::from(0..self.submitted);
        pending.subtract(&self.done);
        pending.subtract(&self.dead);
        pending
    }

    /// Those of `queries` that are answered or dead.
    pub fn decided(&self, queries: &RangeSet) -> RangeSet {
        let mut decided = self.done.intersection(queries);
        decided.merge(&self.dead.intersection(queries));
        decided
    }

    /// The number of the input in the dataset that a query has. A list keeps only the inputs of queries.
    pub fn input_of(&self, query: u64) -> u64 {
        let folder = self.folder.as_ref().and_then(|folder| folder.index.as_ref());
        let inputs =
            self.records.as_ref().map(|records| records.count).or_else(|| folder.map(|index| index.count));
        inputs.map_or(query, |inputs| self.terms.start.selection.input_of(query, inputs))
    }

    /// How many queries are pending.
    pub fn pending_len(&self) -> u64 {
        self.submitted - self.done.len() - self.dead.len()
    }

    /// Whether it is not over, or its results are yet to be merged into a file.
    pub(super) fn is_unsettled(&self) -> bool {
        !self.state.is_over() || (self.state == JobState::Done && !self.filed)
    }

    /// How long it has run until `now_ms`, in milliseconds, without stops and pauses.
    pub fn running_ms(&self, now_ms: u64) -> u64 {
        self.ran_ms + self.running_since_ms.map_or(0, |since| now_ms.saturating_sub(since))
    }

    pub(super) fn run(&mut self, now_ms: u64) {
        self.state = JobState::Running;
        self.finished_ms = None;
        self.filed = false;
        self.running_since_ms.get_or_insert(now_ms);
        self.update_webhook(now_ms);
    }

    pub(super) fn halt(&mut self, state: JobState, now_ms: u64) {
        self.ran_ms = self.running_ms(now_ms);
        self.running_since_ms = None;
        self.state = state;
        self.update_webhook(now_ms);
    }
}

fn check_batch_size(batch_size: BatchSize) -> Result<(), Refusal> {
    match batch_size {
        BatchSize::Fixed(queries) if queries.get() > BATCH_QUERIES_MAX => Err(Refusal::invalid(format!(
            "the batch size is {queries}; 1 to {BATCH_QUERIES_MAX} or auto are allowed"
        ))),
        BatchSize::Fixed(_) | BatchSize::Auto => Ok(()),
    }
}

fn check_weight(weight: u32) -> Result<(), Refusal> {
    if (1..=WEIGHT_MAX).contains(&weight) {
        return Ok(());
    }
    Err(Refusal::invalid(format!("the weight is {weight}; 1 to {WEIGHT_MAX} are allowed")))
}

fn check_parameters(parameters: &Parameters) -> Result<(), Refusal> {
    if parameters.len() > PARAMETERS_MAX {
        let message = format!("the job has {} parameters; {PARAMETERS_MAX} are allowed", parameters.len());
        return Err(Refusal::invalid(message));
    }
    let too_long = parameters.iter().find(|(_, value)| value.len() > PARAMETER_BYTES_MAX);
    let Some((name, value)) = too_long else { return Ok(()) };
    let message = format!("parameter '{name}' has {} bytes; {PARAMETER_BYTES_MAX} are allowed", value.len());
    Err(Refusal::invalid(message))
}

/// Refuses options under which no file can be read.
pub(super) fn check_reading(reading: &ReadOptions) -> Result<(), Refusal> {
    let is_separator = |byte: u8| byte == b'\t' || byte == b' ' || byte.is_ascii_punctuation();
    if let Some(delimiter) = reading.delimiter.filter(|&byte| !is_separator(byte) || byte == b'"') {
        let shown = delimiter.escape_ascii();
        return Err(Refusal::invalid(format!(
            "'{shown}' cannot separate columns: use a tab, a space or an ASCII punctuation mark other than '\"'"
        )));
    }
    let Keep::Columns(names) = &reading.keep else { return Ok(()) };
    let bytes: usize = names.iter().map(|name| name.as_str().len()).sum();
    if names.len() > KEPT_COLUMNS_MAX || bytes > KEPT_NAMES_BYTES_MAX {
        return Err(Refusal::invalid(format!(
            "{} columns to keep, with {bytes} bytes of names; {KEPT_COLUMNS_MAX} and {KEPT_NAMES_BYTES_MAX} are allowed",
            names.len()
        )));
    }
    let repeated = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name));
    match repeated {
        Some((_, name)) => Err(Refusal::invalid(format!("column '{name}' is to be kept twice"))),
        None => Ok(()),
    }
}

impl State {
    /// All jobs, in order of their numbers.
    pub fn jobs(&self) -> impl DoubleEndedIterator<Item = &Arc<JobRecord>> {
        self.jobs.values()
    }

    /// How many jobs there are.
    pub fn job_count(&self) -> u64 {
        self.jobs.len() as u64
    }

    /// The jobs whose numbers follow `after`.
    pub fn jobs_after(&self, after: Option<JobId>) -> impl Iterator<Item = &Arc<JobRecord>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.jobs.range::<_, JobId>((from, Unbounded)).map(|(_, job)| job)
    }

    /// The job with this number.
    pub fn job(&self, id: JobId) -> Option<&Arc<JobRecord>> {
        self.jobs.get(&id)
    }

    /// The job with this number, or a refusal that it does not exist.
    pub fn job_or_refusal(&self, id: JobId) -> Result<&Arc<JobRecord>, Refusal> {
        self.jobs
            .get(&id)
            .ok_or_else(|| Refusal::not_found(format!("there is no {id}: get-job-stats lists the jobs")))
    }

    /// The queries of a job that are neither answered nor dead; empty if the job is unknown.
    pub fn pending(&self, id: JobId) -> RangeSet {
        self.jobs.get(&id).map_or_else(RangeSet::new, |job| job.pending())
    }

    /// The inputs of a job's queries with the query numbers; empty if the job is unknown, has dropped its inputs, or reads
    /// records.
    pub fn queries(&self, id: JobId, range: QueryRange) -> Vec<(u64, Query)> {
        let Some(job) = self.jobs.get(&id) else { return Vec::new() };
        let Some(manifest) = job.manifest.as_deref() else {
            return self.folder_queries(job, range.queries());
        };
        manifest.slice(range.first, range.end()).map(|(number, query)| (number, query.clone())).collect()
    }

    /// The name of a query's input: its file, or the file of records and the record's number. `None` once the names are
    /// dropped.
    pub fn input_name(&self, job: &JobRecord, query: u64) -> Option<FileName> {
        if let Some(records) = job.records.as_deref() {
            return (query < job.submitted).then(|| records.name(job.input_of(query)))?;
        }
        if let Some(name) = job.dead_letters.get(&query).and_then(|dead_letter| dead_letter.name.as_ref()) {
            return Some((**name).clone());
        }
        let queries = self.queries(job.id, QueryRange { first: query, count: 1 });
        queries.first().map(|(_, query)| (*query.name).clone())
    }

    /// The jobs that are not over, or whose results are yet to be merged into a file, in order of their numbers.
    pub fn unsettled_jobs(&self) -> impl Iterator<Item = &Arc<JobRecord>> {
        self.unsettled.iter().filter_map(|id| self.jobs.get(id))
    }

    /// Stores a changed job.
    pub(super) fn set_job(&mut self, job: JobRecord) {
        if job.is_unsettled() {
            self.unsettled.insert(job.id);
        } else {
            self.unsettled.remove(&job.id);
        }
        if job.webhook_due_ms().is_some() {
            self.untold.insert(job.id);
        } else {
            self.untold.remove(&job.id);
        }
        self.jobs.insert(job.id, Arc::new(job));
    }

    pub(super) fn add_job(
        &mut self,
        model: &ModelName,
        dataset: &DatasetName,
        batch_size: BatchSize,
        options: &JobOptions,
        owner: Option<&SubjectName>,
    ) -> Result<Changed, Refusal> {
        check_batch_size(batch_size)?;
        let weight = options.weight.unwrap_or_else(default_weight);
        check_weight(weight)?;
        check_parameters(&options.parameters)?;
        check_reading(&options.reading)?;
        self.check_model(model, &BTreeSet::new())?;
        if self.jobs.len() >= JOBS_MAX {
            let message = format!("there are {JOBS_MAX} jobs, which is the maximum: delete-job makes room");
            return Err(Refusal::conflict(message));
        }
        if let (Some(name), Some(other)) = (&options.name, self.job_named(options.name.as_ref())) {
            return Err(Refusal::conflict(format!(
                "the name '{name}' is taken by {}: choose another",
                other.id
            )));
        }
        if let Some(name) = &options.name {
            self.check_job_name(name)?;
        }
        let highest = self.jobs.get_max().map_or(0, |(id, _)| id.0);
        self.last_job = self.last_job.max(highest) + 1;
        let id = JobId(self.last_job);
        self.set_job(JobRecord {
            weight,
            name: options.name.clone(),
            parameters: Arc::new(options.parameters.clone()),
            owner: owner.cloned(),
            terms: Arc::new(JobTerms { reading: options.reading.clone(), ..JobTerms::default() }),
            ..JobRecord::new(id, model.clone(), dataset.clone(), batch_size, self.now_ms)
        });
        Ok(Changed::JobAdded(id))
    }

    /// Refuses a job's name that people may type and mean something else: a model's name stands for the model's job.
    fn check_job_name(&self, name: &JobName) -> Result<(), Refusal> {
        let text = name.as_str();
        let is_of_model = |job: &Arc<JobRecord>| job.model.as_str() == text;
        let is_model =
            PREDEFINED_MODELS.contains(&text) || self.models.keys().any(|model| model.as_str() == text);
        if is_model || self.jobs.values().any(is_of_model) {
            return Err(Refusal::conflict(format!(
                "'{name}' is the name of a model, which stands for the model's job: choose another name"
            )));
        }
        if text.starts_with('-') {
            return Err(Refusal::invalid(format!(
                "the job's name '{name}' looks like an option: choose another"
            )));
        }
        Ok(())
    }

    fn job_named(&self, name: Option<&JobName>) -> Option<&Arc<JobRecord>> {
        let name = name?;
        self.jobs.values().find(|job| job.name.as_ref() == Some(name))
    }

    /// The job, or a refusal that changing its `property` has no effect because the job is over.
    pub(super) fn unfinished(&self, id: JobId, property: &str) -> Result<&Arc<JobRecord>, Refusal> {
        let job = self.job_or_refusal(id)?;
        let state = match job.state {
            JobState::Done => "done",
            JobState::Cancelled => "cancelled",
            _ => return Ok(job),
        };
        Err(Refusal::conflict(format!("{id} is {state}: changing its {property} has no effect")))
    }

    pub(super) fn set_batch_size(&mut self, id: JobId, batch_size: BatchSize) -> Result<Changed, Refusal> {
        check_batch_size(batch_size)?;
        let job = self.unfinished(id, "batch size")?;
        self.set_job(JobRecord { batch_size, ..(**job).clone() });
        Ok(Changed::Done)
    }

    pub(super) fn set_weight(&mut self, id: JobId, weight: u32) -> Result<Changed, Refusal> {
        check_weight(weight)?;
        let job = self.unfinished(id, "weight")?;
        self.set_job(JobRecord { weight, ..(**job).clone() });
        Ok(Changed::Done)
    }

    pub(super) fn stop_job(&mut self, id: JobId) -> Result<Changed, Refusal> {
        let mut job = (**self.job_or_refusal(id)?).clone();
        match job.state {
            JobState::Running | JobState::Paused(_) | JobState::Waiting(_) => {}
            JobState::Added => return Err(Refusal::conflict(format!("{id} has not been started"))),
            JobState::Stopped => return Err(Refusal::conflict(format!("{id} is already stopped"))),
            JobState::Done => return Err(Refusal::conflict(format!("{id} is already done"))),
            JobState::Cancelled => return Err(Refusal::conflict(format!("{id} is already cancelled"))),
        }
        job.halt(JobState::Stopped, self.now_ms);
        self.set_job(job);
        Ok(Changed::Done)
    }

    pub(super) fn pause_job(&mut self, id: JobId, reason: &str) -> Result<Applied, Refusal> {
        let mut job = (**self.job_or_refusal(id)?).clone();
        if job.state != JobState::Running {
            return Err(Refusal::conflict(format!("{id} is not running, so it cannot be paused")));
        }
        job.halt(JobState::Paused(truncate_reason(reason)), self.now_ms);
        self.set_job(job);
        Ok(Applied::Done)
    }
}
