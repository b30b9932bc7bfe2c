//! Views of jobs, their assignments and leases for clients, as the coordinator knows them.

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use super::blobs::PlacedBlob;
use super::jobs::{BatchSize, Lease, Parameters, QueryRange, TokenCount};
use super::records::{RecordFormat, RecordIdentity};
use super::start_options::Reuse;
use super::webhooks::WebhookView;
use crate::access::SubjectName;
use crate::ids::{Digest, JobId, NodeId};
use crate::names::{DatasetName, FileName, JobName, ModelName};

/// The state of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobState {
    /// Added and never started.
    Added,
    /// Running, or waiting for workers.
    Running,
    /// Stopped by a person.
    Stopped,
    /// Stopped by the cluster, because every batch failed; why.
    Paused(String),
    /// All queries are answered or dead.
    Done,
    /// Ended by a person before it was done.
    Cancelled,
    /// Started, and runs once this job is done.
    Waiting(JobId),
}

impl JobState {
    /// Whether the job runs no further queries, unless dead letters are retried.
    pub const fn is_over(&self) -> bool {
        matches!(self, Self::Done | Self::Cancelled)
    }
}

/// Properties of a job that were set by people, and the times of its life.
///
/// Of the last fields, which later versions added, those at the end that have no value are left out of messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct JobDetails {
    /// The job's name, if it has one.
    pub name: Option<JobName>,
    /// The job's weight against other jobs.
    pub weight: u32,
    /// The job's parameters for the model.
    pub parameters: Parameters,
    /// When the job was added, in milliseconds since the epoch.
    pub created_ms: u64,
    /// When the job was first started, in milliseconds since the epoch.
    pub started_ms: Option<u64>,
    /// When the job was done or cancelled, in milliseconds since the epoch.
    pub finished_ms: Option<u64>,
    /// The file with the merged results, once it exists.
    pub results: Option<FileName>,
    /// Number of dead letters that were given up.
    pub dropped: u64,
    /// The name of the identity that added the job; `None` without security.
    #[serde(default)]
    pub owner: Option<SubjectName>,
    /// How the records of the dataset are read, once the job is started; `None` if it is no file of records.
    #[serde(default)]
    pub records: Option<Box<RecordFormat>>,
    /// Where the job's end is told, if anywhere.
    #[serde(default)]
    pub webhook: Option<Box<WebhookView>>,
    /// Whether it takes answers over from an earlier job.
    #[serde(default)]
    pub reuse: Reuse,
}

impl Serialize for JobDetails {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let later = match (&self.records, &self.webhook, self.reuse) {
            (_, _, Reuse::On | Reuse::From(_)) => 3,
            (_, Some(_), Reuse::Off) => 2,
            (Some(_), None, Reuse::Off) => 1,
            (None, None, Reuse::Off) => 0,
        };
        let mut details = serializer.serialize_struct("JobDetails", 9 + later)?;
        details.serialize_field("name", &self.name)?;
        details.serialize_field("weight", &self.weight)?;
        details.serialize_field("parameters", &self.parameters)?;
        details.serialize_field("created_ms", &self.created_ms)?;
        details.serialize_field("started_ms", &self.started_ms)?;
        details.serialize_field("finished_ms", &self.finished_ms)?;
        details.serialize_field("results", &self.results)?;
        details.serialize_field("dropped", &self.dropped)?;
        details.serialize_field("owner", &self.owner)?;
        if later > 0 {
            details.serialize_field("records", &self.records)?;
        }
        if later > 1 {
            details.serialize_field("webhook", &self.webhook)?;
        }
        if later > 2 {
            details.serialize_field("reuse", &self.reuse)?;
        }
        details.end()
    }
}

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// The job's id.
    pub id: JobId,
    /// The model that answers the queries.
    pub model: ModelName,
    /// The model's version; `None` until the job is started.
    pub version: Option<Digest>,
    /// The dataset.
    pub dataset: DatasetName,
    /// Queries per batch, as set.
    pub batch_size: BatchSize,
    /// The job's state.
    pub state: JobState,
    /// Queries in the manifest; 0 until the job is started.
    pub submitted: u64,
    /// Queries answered.
    pub done: u64,
    /// Queries that failed permanently.
    pub dead: u64,
    /// Queries leased to workers now.
    pub leased: u64,
    /// Queries answered per second over the last 10 seconds.
    pub rate_10s_qps: f64,
    /// Queries answered per second of running time.
    pub rate_qps: f64,
    /// Running time so far, in seconds.
    pub running_s: f64,
    /// Processing time of a query in milliseconds: the inference time of its batch, divided by the batch's queries. So
    /// the percentiles are of batches' means: a slow query shows only as far as it slows its batch.
    pub processing_ms: Distribution,
    /// Seconds until the job is done at the present rate; `None` unless it runs.
    pub eta_s: Option<f64>,
    /// Answered queries with a true label.
    pub labelled: u64,
    /// Labelled queries that were answered right.
    pub correct: u64,
    /// Rows discarded because their query already had an answer.
    pub duplicates_dropped: u64,
    /// Share of the answered queries whose input was read from the worker's own disk, 0 to 1.
    #[serde(default)]
    pub local_share: f64,
    /// Queries in the batch leased last, while the job runs. With an automatic batch size it differs by worker.
    #[serde(default)]
    pub batch_now: u32,
    /// Properties and times.
    #[serde(default, rename = "about")]
    pub details: JobDetails,
    /// Tokens that the answers say they took, and the answers that were taken over from an earlier job.
    #[serde(default, skip_serializing_if = "TokenCount::is_zero")]
    pub tokens: TokenCount,
}

impl JobView {
    /// A job that has just been added: nothing of it has run.
    pub fn added(id: JobId, model: ModelName, dataset: DatasetName, batch_size: BatchSize) -> Self {
        Self {
            id,
            model,
            version: None,
            dataset,
            batch_size,
            state: JobState::Added,
            submitted: 0,
            done: 0,
            dead: 0,
            leased: 0,
            rate_10s_qps: 0.0,
            rate_qps: 0.0,
            running_s: 0.0,
            processing_ms: Distribution::default(),
            eta_s: None,
            labelled: 0,
            correct: 0,
            duplicates_dropped: 0,
            local_share: 0.0,
            batch_now: 0,
            details: JobDetails { weight: 1, ..JobDetails::default() },
            tokens: TokenCount::default(),
        }
    }
}

/// A distribution of measurements; all zero if nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std_dev: f64,
    /// Median.
    pub median: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// The jobs that one worker works for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AssignmentView {
    /// The member's id.
    pub node: NodeId,
    /// The member's name.
    pub name: String,
    /// Share of the worker's time that each job took in the last 60 seconds, 0 to 1.
    pub shares: Vec<(JobId, f64)>,
    /// Jobs whose batches the worker holds now.
    pub current: Vec<JobId>,
    /// Jobs that the worker is assigned to, and the share of its time that each is entitled to, 0 to 1.
    #[serde(default, rename = "due")]
    pub target_shares: Vec<(JobId, f64)>,
}

/// A change of the assignment of workers to jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebalanceView {
    /// When, in milliseconds since the epoch.
    pub at_ms: u64,
    /// Why, and which worker now works for which job.
    pub text: String,
}

/// A batch that a worker holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// The member's id.
    pub node: NodeId,
    /// The member's name.
    pub name: String,
    /// The batch's lease.
    pub lease: Lease,
    /// How far the worker is with the batch.
    pub stage: LeaseStage,
}

/// How far a worker is with a batch, according to its latest report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseStage {
    /// Waits for earlier batches.
    #[serde(rename = "Waits")]
    Waiting,
    /// Runs.
    #[serde(rename = "Runs")]
    Running {
        /// How long the batch had run at the time of the report, in milliseconds.
        ms: u32,
    },
    /// Has run, and its rows are not committed yet.
    #[serde(rename = "Ran")]
    AwaitingCommit,
}

/// A segment of a job's results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentView {
    /// The blob of result lines, with its holders.
    pub segment: PlacedBlob,
    /// The queries whose rows in this segment are valid. Readers skip all other rows.
    pub ranges: Vec<QueryRange>,
}

/// A query that failed permanently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The query's number in the manifest, from 0.
    pub index: u64,
    /// The query's file.
    pub name: FileName,
    /// Why the last attempt failed.
    pub reason: String,
    /// The member that made the last attempt.
    pub worker: NodeId,
    /// Number of attempts.
    pub attempts: u32,
    /// Whether the query was given up, so that it cannot be run again.
    #[serde(default)]
    pub dropped: bool,
    /// The record's own id and label.
    #[serde(default, skip_serializing_if = "RecordIdentity::is_empty")]
    pub identity: RecordIdentity,
}
