//! Views of the cluster for clients: jobs, members, workers, models and the store, as the coordinator knows them.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::blobs::PlacedBlob;
use super::jobs::{
    BatchSize, Lease, ModelState, Parameters, Policy, QueryRange, ServerState, TokenCount, TrainingProgress,
};
use super::packages::PackageSummary;
use super::records::{RecordFormat, RecordIdentity};
use super::resources::WorkerResources;
use crate::access::SubjectName;
use crate::ids::{Digest, JobId, NodeId, Term};
use crate::names::{DatasetName, FileName, JobName, MemberName, ModelName};

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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// How the records of the data set are read, once the job is started; `None` if it is no file of records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<Box<RecordFormat>>,
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
    /// The data set.
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
    /// Tokens that the answers say they took.
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

/// A model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelView {
    /// The model's name.
    pub model: ModelName,
    /// The version trained last, if there is one.
    pub version: Option<Digest>,
    /// Whether the model is being trained.
    pub training: bool,
    /// Why the last training failed, if it did.
    pub failure: Option<String>,
    /// The model's state at each worker that reported one.
    pub workers: Vec<(NodeId, ModelState)>,
    /// Progress of the training at each worker that trains the model.
    #[serde(default)]
    pub progress: Vec<(NodeId, TrainingProgress)>,
    /// Metrics of the training of `version`, as name and value.
    #[serde(default)]
    pub metrics: Vec<(String, String)>,
    /// What was added as `version`, if that is a package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<PackageSummary>,
}

/// Whether a member is reachable, according to SWIM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Liveness {
    /// The member answers probes.
    Alive,
    /// A probe failed, and the member may still refute the suspicion.
    Suspect,
    /// The suspicion was not refuted in time, or the process is known to be gone.
    Dead,
    /// The member announced that it leaves.
    Left,
}

/// A member's role in the metadata log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogRole {
    /// The leader of the log.
    Coordinator,
    /// Votes.
    Voter,
    /// Receives the log, without a vote.
    Learner,
    /// Takes no part.
    Spare,
}

/// A member in the membership list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// The member's id.
    pub id: NodeId,
    /// The member's name.
    pub name: MemberName,
    /// The address at which the member listens.
    pub address: SocketAddr,
    /// The member's boot count.
    pub generation: u64,
    /// The member's SWIM incarnation.
    pub incarnation: u64,
    /// Whether the member is reachable.
    pub liveness: Liveness,
    /// Whether the member is reachable over TCP only.
    pub udp_blocked: bool,
    /// The member's role in the metadata log, as far as the member asked knows it.
    pub role: LogRole,
    /// When the member asked saw `liveness` change last, in milliseconds since the epoch; for that member itself, when it
    /// started.
    #[serde(default)]
    pub since_ms: u64,
    /// What the member asked finds wrong with it, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubts: Option<MemberDoubts>,
}

impl MemberView {
    /// Whether the member's disk does not answer.
    pub fn disk_hung(&self) -> bool {
        self.doubts.is_some_and(|doubts| doubts.disk_hung)
    }
}

/// What a member finds wrong with another that is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberDoubts {
    /// Its wall clock is ahead of the members' median by so many seconds, behind it if negative; 0 if it is in order.
    pub clock_ahead_s: i64,
    /// Whether its disk does not answer: the coordinator knows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disk_hung: bool,
}

/// A member as a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerView {
    /// The member's id.
    pub node: NodeId,
    /// State of its model server.
    pub server: ServerState,
    /// States of its models.
    pub models: Vec<(ModelName, ModelState)>,
    /// The devices of its machine and the processes of its models.
    #[serde(default, skip_serializing_if = "WorkerResources::is_empty")]
    pub resources: WorkerResources,
}

/// Totals of the file store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreView {
    /// Number of files.
    pub files: u64,
    /// Number of referenced blobs.
    pub blobs: u64,
    /// Bytes of the referenced blobs, each blob counted once.
    pub bytes: u64,
    /// Blobs with fewer live copies than they should have.
    pub under_replicated: u64,
    /// Copies in progress.
    pub copying: u64,
    /// Blobs without a live copy.
    pub unavailable: u64,
}

/// The state of the cluster, as a console shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    /// The coordinator's term.
    pub term: Term,
    /// The coordinator's id.
    pub coordinator: NodeId,
    /// When the view was taken, in milliseconds since the epoch.
    pub at_ms: u64,
    /// Revision of the metadata; each change raises it.
    pub revision: u64,
    /// Members in id order.
    pub members: Vec<MemberView>,
    /// Members as workers.
    pub workers: Vec<WorkerView>,
    /// All models.
    pub models: Vec<ModelView>,
    /// Jobs in the order of their numbers: those with workers and the newest, as many as fit.
    pub jobs: Vec<JobView>,
    /// The jobs that each worker works for.
    pub assignments: Vec<AssignmentView>,
    /// Totals of the file store.
    pub store: StoreView,
    /// Batches and blobs of each member.
    #[serde(default)]
    pub loads: Vec<LoadView>,
    /// How workers are shared between jobs.
    #[serde(default)]
    pub policy: Policy,
    /// The latest changes of the assignment of workers to jobs, oldest first.
    #[serde(default, rename = "sharings")]
    pub rebalances: Vec<RebalanceView>,
    /// Recent query rates; only in a watcher's first view, and whenever a step has ended since the view before.
    #[serde(default)]
    pub rates: Option<RatesView>,
    /// Older jobs that are left out of `jobs`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub jobs_left_out: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Queries answered in steps of wall-clock time, as far back as the coordinator's term goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatesView {
    /// Length of a step, in milliseconds. Step n begins n steps after the epoch.
    pub step_ms: u32,
    /// Number of the first step.
    pub first: u64,
    /// Number of steps.
    pub steps: u16,
    /// Queries answered of each job, one count a step, ending with the last step. Leading zeros are left out, and so are
    /// jobs with nothing else.
    pub jobs: Vec<(JobId, Vec<u32>)>,
    /// Queries answered by each member, in the same form.
    pub members: Vec<(NodeId, Vec<u32>)>,
}

/// What a member holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadView {
    /// The member's id.
    pub node: NodeId,
    /// Batches that its worker holds.
    pub batches: u32,
    /// Queries in these batches.
    pub queries: u64,
    /// Blobs recorded at the member.
    pub blobs: u64,
    /// Bytes of these blobs.
    pub bytes: u64,
}

/// A row of `ls`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSummary {
    /// The file's name.
    pub name: FileName,
    /// Number of the newest version.
    pub version: u64,
    /// Number of versions kept.
    pub versions: u32,
    /// Size of the newest version in bytes.
    pub size: u64,
    /// Digest of the newest version.
    pub digest: Digest,
    /// When the newest version was committed, in milliseconds since the epoch.
    pub created_ms: u64,
    /// Members that hold all of the newest version, and are up.
    pub holders: Vec<NodeId>,
    /// The attribute [`super::changes::ETAG`] of the newest version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

/// An entry of a folder of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FolderEntry {
    /// A subfolder: its full name, with the slash at its end.
    Folder(String),
    /// A file.
    File(FileSummary),
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

/// The identity of the member asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityView {
    /// The member's own entry in the membership list.
    pub member: MemberView,
    /// Whether the member is part of the cluster; false after `leave`.
    pub joined: bool,
    /// The member's data directory.
    pub data_dir: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Version of the daemon's program.
    pub program_version: String,
}
