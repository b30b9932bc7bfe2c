//! What people see: jobs, members, workers, models and the store, as the coordinator shows them.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::blobs::PlacedBlob;
use super::jobs::{
    BatchSize, Lease, ModelState, Parameters, Policy, QueryRange, ServerState, TrainingProgress,
};
use crate::ids::{Digest, JobId, NodeId, Term};
use crate::names::{DatasetName, FileName, JobName, MemberName, ModelName};

/// A job's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobState {
    /// Added, never started.
    Added,
    /// Running, or waiting for workers.
    Running,
    /// Stopped by a person.
    Stopped,
    /// Stopped by the cluster, because every batch failed: why.
    Paused(String),
    /// All queries answered or dead.
    Done,
    /// Ended by a person before that.
    Cancelled,
}

impl JobState {
    /// Whether nothing more is run, unless dead letters are.
    pub const fn is_over(&self) -> bool {
        matches!(self, Self::Done | Self::Cancelled)
    }
}

/// What a person gave a job, and when it went on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobAbout {
    /// Its name, if it has one.
    pub name: Option<JobName>,
    /// Its share against other jobs'.
    pub weight: u32,
    /// What it hands to the model.
    pub parameters: Parameters,
    /// When it was added, in milliseconds since the epoch.
    pub created_ms: u64,
    /// When it was started for the first time.
    pub started_ms: Option<u64>,
    /// When it was done, or cancelled.
    pub finished_ms: Option<u64>,
    /// The file of its results, once it has been made.
    pub results: Option<FileName>,
    /// Dead queries that were given up.
    pub dropped: u64,
}

/// A job, as shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// Its number.
    pub id: JobId,
    /// Its model.
    pub model: ModelName,
    /// The model's version, once started.
    pub version: Option<Digest>,
    /// Its data set.
    pub dataset: DatasetName,
    /// Queries per batch, as it was set.
    pub batch_size: BatchSize,
    /// Its state.
    pub state: JobState,
    /// Queries of its manifest; 0 before the start.
    pub submitted: u64,
    /// Queries answered.
    pub done: u64,
    /// Queries failed for good.
    pub dead: u64,
    /// Queries in leases now.
    pub leased: u64,
    /// Queries per second over the last 10 seconds.
    pub rate_10s_qps: f64,
    /// Queries per second since the start, without stops.
    pub rate_qps: f64,
    /// Seconds of running so far.
    pub running_s: f64,
    /// Processing time of a query (its batch's inference time over the batch's queries), in milliseconds.
    pub processing_ms: Distribution,
    /// Seconds to the end at the current rate, while running.
    pub eta_s: Option<f64>,
    /// Answered queries with a label.
    pub labelled: u64,
    /// Of those, answered right.
    pub correct: u64,
    /// Rows that came twice and were dropped.
    pub duplicates_dropped: u64,
    /// Of the answered queries' inputs, the share that was read from the worker's own disk, 0 to 1.
    #[serde(default)]
    pub local_share: f64,
    /// Queries of the batch that was leased last, while the job runs: where the size is auto it differs by worker.
    #[serde(default)]
    pub batch_now: u32,
    /// What else is known of it.
    #[serde(default)]
    pub about: JobAbout,
}

/// A distribution. All zero while nothing was measured.
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

/// Who works for which job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AssignmentView {
    /// The worker.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its jobs and the share of the last 60 seconds' work that each had, 0 to 1.
    pub shares: Vec<(JobId, f64)>,
    /// The jobs whose batches it holds now.
    pub current: Vec<JobId>,
    /// The jobs that it is assigned to, and the share of it that each is due, 0 to 1.
    #[serde(default)]
    pub due: Vec<(JobId, f64)>,
}

/// Workers were assigned to jobs anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharingView {
    /// When, in milliseconds since the epoch.
    pub at_ms: u64,
    /// Why, and to which jobs.
    pub text: String,
}

/// A batch in a worker's hands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// The worker.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// The lease.
    pub lease: Lease,
    /// How far it is.
    pub stage: LeaseStage,
}

/// How far a worker is with a batch, as it said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseStage {
    /// Waits for those before it.
    Waits,
    /// Runs, for so many milliseconds when it was said.
    Runs {
        /// Milliseconds.
        ms: u32,
    },
    /// Has run, and awaits its commit.
    Ran,
}

/// A model, as shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelView {
    /// The model.
    pub model: ModelName,
    /// Its trained version, if it has one.
    pub version: Option<Digest>,
    /// Whether it is being trained, and by whom.
    pub training: bool,
    /// Why the last training failed, if it did.
    pub failure: Option<String>,
    /// Its state at each worker that reported one.
    pub workers: Vec<(NodeId, ModelState)>,
    /// How far its training is, at each worker that trains it.
    #[serde(default)]
    pub progress: Vec<(NodeId, TrainingProgress)>,
    /// What the training of its version measured, as text.
    #[serde(default)]
    pub metrics: Vec<(String, String)>,
}

/// A member's liveness, as shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Liveness {
    /// Answers.
    Alive,
    /// Does not answer, not given up yet.
    Suspect,
    /// Given up.
    Dead,
    /// Left in good order.
    Left,
}

/// Its part in the metadata log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogRole {
    /// Decides.
    Coordinator,
    /// Votes.
    Voter,
    /// Follows without a vote.
    Learner,
    /// Has no part.
    Spare,
}

/// A member, as shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: MemberName,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its boot count.
    pub generation: u64,
    /// Its SWIM incarnation.
    pub incarnation: u64,
    /// Its liveness.
    pub liveness: Liveness,
    /// Whether only TCP reaches it.
    pub udp_blocked: bool,
    /// Its part in the metadata log, where the member asked knows it.
    pub role: LogRole,
    /// Since when it is in its state, as the member asked saw it, in milliseconds since the epoch; the member itself,
    /// since it started.
    #[serde(default)]
    pub since_ms: u64,
}

/// A worker, as shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerView {
    /// The member.
    pub node: NodeId,
    /// Its model server's state.
    pub server: ServerState,
    /// Its models' states.
    pub models: Vec<(ModelName, ModelState)>,
}

/// The file store in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreView {
    /// Files.
    pub files: u64,
    /// Blobs that are referenced.
    pub blobs: u64,
    /// Their bytes, each counted once.
    pub bytes: u64,
    /// Blobs with fewer live copies than they should have.
    pub under_replicated: u64,
    /// Copies under way.
    pub copying: u64,
    /// Blobs without any live copy.
    pub unavailable: u64,
}

/// Everything a console shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    /// The coordinator's term.
    pub term: Term,
    /// The coordinator.
    pub coordinator: NodeId,
    /// When this was taken, in milliseconds since the epoch.
    pub at_ms: u64,
    /// The metadata's revision: it rises with every change.
    pub revision: u64,
    /// Members.
    pub members: Vec<MemberView>,
    /// Workers.
    pub workers: Vec<WorkerView>,
    /// Models.
    pub models: Vec<ModelView>,
    /// Jobs.
    pub jobs: Vec<JobView>,
    /// Who works for which job.
    pub assignments: Vec<AssignmentView>,
    /// The file store.
    pub store: StoreView,
    /// What members hold and have in hand.
    #[serde(default)]
    pub loads: Vec<LoadView>,
    /// In what jobs are equal.
    #[serde(default)]
    pub policy: Policy,
    /// The newest reassignments of workers, oldest first.
    #[serde(default)]
    pub sharings: Vec<SharingView>,
    /// What was answered lately: only in the first view that a watcher gets, and when a step has ended since the last.
    #[serde(default)]
    pub rates: Option<RatesView>,
}

/// What was answered lately, in steps of wall time, as far back as the coordinator's term goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatesView {
    /// The length of a step, in milliseconds. Step n begins n steps after the epoch.
    pub step_ms: u32,
    /// The number of the first step.
    pub first: u64,
    /// How many steps there are.
    pub steps: u16,
    /// Queries of each job that were answered in the last steps. Zeros before them are left out, and jobs with nothing
    /// else.
    pub jobs: Vec<(JobId, Vec<u32>)>,
    /// The same by the member that answered.
    pub members: Vec<(NodeId, Vec<u32>)>,
}

/// What a member holds and has in hand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadView {
    /// The member.
    pub node: NodeId,
    /// Batches that its worker holds.
    pub batches: u32,
    /// Their queries.
    pub queries: u64,
    /// Blobs recorded to be on its disk.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A row of `ls`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSummary {
    /// The file.
    pub name: FileName,
    /// Its newest version.
    pub version: u64,
    /// Versions kept.
    pub versions: u32,
    /// The newest version's size in bytes.
    pub size: u64,
    /// The newest version's digest.
    pub digest: Digest,
    /// When it was committed, in milliseconds since the epoch.
    pub created_ms: u64,
    /// Members that hold all of the newest version.
    pub holders: Vec<NodeId>,
}

/// A row of one level of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FolderEntry {
    /// A folder: its whole name, with the slash.
    Folder(String),
    /// A file.
    File(FileSummary),
}

/// A segment of a job's results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentView {
    /// The blob of result lines, and who holds it.
    pub segment: PlacedBlob,
    /// The queries whose rows count; rows of others are to be skipped.
    pub ranges: Vec<QueryRange>,
}

/// A query that failed for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The query's number.
    pub index: u64,
    /// The file.
    pub name: FileName,
    /// Why.
    pub reason: String,
    /// The worker that failed last.
    pub worker: NodeId,
    /// How often it was tried.
    pub attempts: u32,
    /// Whether it was given up: it cannot be run again.
    #[serde(default)]
    pub dropped: bool,
}

/// The member asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityView {
    /// Itself.
    pub member: MemberView,
    /// Whether it is in the cluster.
    pub joined: bool,
    /// Its data directory.
    pub data_dir: String,
    /// Its process.
    pub pid: u32,
    /// Its program's version.
    pub program_version: String,
}
