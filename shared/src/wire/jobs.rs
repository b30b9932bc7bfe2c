//! Between a worker and the coordinator.
//!
//! A worker reports every heartbeat (one second) and whenever it wants a batch; a report renews its leases, and its
//! answer carries what to run, load, train and cancel. Results go to the file servers; only their ranges come here.

use serde::{Deserialize, Serialize};

pub use super::batches::{
    BATCH_QUERIES_MAX, BatchSize, BatchSizeError, LEASES_HELD_MAX, LEASES_PER_WORKER_MAX, Lease, Parameters,
    Policy, QueryRange, SEGMENT_BATCHES, Training, WEIGHT_MAX,
};
use super::blobs::PlacedBlob;
use crate::ids::{Digest, JobId, NodeId, Term, UploadId};
use crate::names::{FileName, ModelName};

/// Longest reason kept with a failure, in bytes.
pub const REASON_BYTES_MAX: usize = 512;

/// One input of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryInput {
    /// Its number in the manifest.
    pub index: u64,
    /// The file's name.
    pub name: FileName,
    /// The file's extents in order, and who holds them.
    pub extents: Vec<PlacedBlob>,
}

/// How the records of one file are queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecordFormat {
    /// A JSON value a line.
    Jsonl,
    /// CSV with a headline; the columns by number.
    Csv {
        /// The input's.
        input: u32,
        /// The true label's.
        label: Option<u32>,
        /// The row's own name's.
        id: Option<u32>,
    },
}

/// Inputs that are consecutive records of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordsGrant {
    /// The file's name.
    pub file: FileName,
    /// How it is read.
    pub format: RecordFormat,
    /// The extents in which the records are, in order, and who holds them.
    pub extents: Vec<PlacedBlob>,
    /// Bytes of the first extent before the first of the records that are to be read.
    pub skip_bytes: u64,
    /// Bytes of the records that are to be read: whole records.
    pub bytes: u64,
    /// Records of these before the batch's first.
    pub skip: u32,
}

/// A trained model: the file that every worker loads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelArtefact {
    /// The model.
    pub model: ModelName,
    /// Its version: the digest of the whole artefact.
    pub version: Digest,
    /// The artefact's extents in order, and who holds them.
    pub extents: Vec<PlacedBlob>,
}

/// A batch to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The right to run it.
    pub lease: Lease,
    /// The model.
    pub model: ModelName,
    /// The model's version: the batch is not run by any other.
    pub version: Digest,
    /// The inputs, in order; `lease.range.count` of them.
    pub inputs: Vec<QueryInput>,
    /// The data set's label table (CSV, columns file and label), where it has one.
    pub labels: Option<Vec<PlacedBlob>>,
    /// The inputs, where they are records of one file; then `inputs` is empty.
    #[serde(default)]
    pub records: Option<RecordsGrant>,
    /// For the model.
    #[serde(default)]
    pub parameters: Parameters,
}

/// The state of a worker's model server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerState {
    /// Not answering yet.
    #[default]
    Starting,
    /// Live and ready.
    Ready,
    /// Not usable: why.
    Down(String),
}

/// The state of one model at one worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModelState {
    /// Being trained here, for everybody.
    Training,
    /// Being fetched and loaded.
    Loading,
    /// Loaded: this version answers.
    Ready(Digest),
    /// Not loadable: why. Tried again with back-off.
    Failed(String),
}

/// How far a training is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingProgress {
    /// The share that is over, in thousandths.
    pub permille: u16,
    /// Steps that are over.
    pub step: u64,
    /// Steps in all; 0 where that is not known.
    pub steps: u64,
    /// What was measured last, as text; at most [`METRICS_MAX`].
    pub metrics: Vec<(String, String)>,
}

/// Most figures of a training.
pub const METRICS_MAX: usize = 16;
/// Longest name, and longest value, of such a figure, in bytes.
pub const METRIC_BYTES_MAX: usize = 64;

/// What a worker says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// The worker.
    pub worker: NodeId,
    /// Its boot count: a new one voids the leases of the old.
    pub generation: u64,
    /// Its model server's state.
    pub server: ServerState,
    /// Its models' states.
    pub models: Vec<(ModelName, ModelState)>,
    /// The leases it holds, whoever granted them: first those that have run and have no commit yet, then the one that
    /// runs, then those that wait to run; at most [`LEASES_HELD_MAX`].
    #[serde(with = "super::leases")]
    pub leases: Vec<Lease>,
    /// How many of these have run, and only await their commit: they keep it from nothing.
    pub ran: u16,
    /// How many further batches it wants now; 0 for a mere heartbeat.
    pub wanted: u8,
    /// How long the coordinator may hold the answer until there is work, in milliseconds; at most 2,000.
    pub wait_ms: u32,
    /// Whether it drains: it wants nothing more and its unstarted leases are returned.
    pub draining: bool,
    /// The models that its server offers, which is what can be trained; none while it was never ready. `None`: it is
    /// ready and cannot list them.
    #[serde(default)]
    pub offers: Option<Vec<ModelName>>,
    /// For how long the first lease that has not run has been running, in milliseconds; `None` while none runs.
    #[serde(default)]
    pub running_ms: Option<u32>,
    /// Counts the reports of this boot of the worker: one that was overtaken by a later one is not looked at.
    #[serde(default)]
    pub number: u64,
    /// How far the trainings that run here are.
    #[serde(default)]
    pub trainings: Vec<(ModelName, TrainingProgress)>,
}

/// A batch that ran, in a commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchOutcome {
    /// The lease it ran under.
    pub lease: Lease,
    /// The queries whose rows are in the segment: within the lease's range, in order, without those that failed.
    pub answered: Vec<QueryRange>,
    /// Wall time from the start of the batch's inference to its answer, in microseconds.
    pub inference_us: u64,
    /// Of the answered queries, the numbers of those with a label.
    pub labelled: u32,
    /// Of the labelled, those whose first label was right.
    pub correct: u32,
    /// Of the answered queries, those whose input was read from the worker's own disk.
    #[serde(default)]
    pub local: u32,
    /// The most queries of a call that the model server refused as too much at once; 0 if it took all calls.
    #[serde(default)]
    pub refused: u32,
}

/// A segment of result rows, stored durably, and the batches in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentCommit {
    /// The worker.
    pub worker: NodeId,
    /// The job; a segment holds one job's rows.
    pub job: JobId,
    /// The upload under which the segment was stored.
    pub upload: UploadId,
    /// The segment, and who holds it.
    pub segment: PlacedBlob,
    /// The batches whose rows it holds.
    pub batches: Vec<BatchOutcome>,
}

/// What went wrong with a query or a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// The model server called the input bad: it would fail anywhere.
    BadInput,
    /// The model server failed or timed out on it: another worker may do better.
    Inference,
    /// The input could not be read from the store just now.
    Fetch,
    /// This worker cannot run anything now: the batch is not to blame.
    Worker,
}

/// Queries that a worker could not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The queries: all within one lease.
    pub ranges: Vec<QueryRange>,
    /// What kind of failure.
    pub kind: FaultKind,
    /// Why, at most [`REASON_BYTES_MAX`] bytes.
    pub reason: String,
}

/// What a worker asks of the coordinator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum JobRequest {
    /// Heartbeat and pull.
    Report(WorkerReport),
    /// Make these rows the answers, where there are none yet.
    Commit(SegmentCommit),
    /// These queries of a lease failed here; sent before or after the commit of the rest, which ends the lease.
    Failed {
        /// The worker.
        worker: NodeId,
        /// The lease.
        lease: Lease,
        /// What failed.
        faults: Vec<Fault>,
    },
    /// The outcome of a training order.
    Trained {
        /// The worker.
        worker: NodeId,
        /// The model.
        model: ModelName,
        /// What was asked for.
        training: Training,
        /// The upload under which the artefact was stored, with the artefact; or why there is none.
        result: Result<(UploadId, ModelArtefact), String>,
        /// What it measured, as text; at most [`METRICS_MAX`].
        #[serde(default)]
        metrics: Vec<(String, String)>,
        /// The same for people, as JSON: stored under the same upload.
        #[serde(default)]
        report: Option<PlacedBlob>,
    },
}

/// The coordinator's answer to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobReply {
    /// To a report.
    Orders(Orders),
    /// To a commit: how many of its queries had no answer before.
    Committed {
        /// Queries answered by this commit.
        accepted: u64,
        /// Queries that had an answer already: their rows are not used.
        duplicates: u64,
    },
    /// To the rest.
    Noted,
}

/// What a worker is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// The coordinator's term. A worker drops orders of a term below one that it has seen.
    pub term: Term,
    /// Batches to run.
    pub grants: Vec<Grant>,
    /// Reported leases that are no longer the worker's: stop them, drop their rows.
    pub cancelled: Vec<Lease>,
    /// Models to have loaded.
    pub load: Vec<ModelArtefact>,
    /// Models to train.
    pub train: Vec<(ModelName, Training)>,
    /// The model server hangs: it is to be killed and started again. Why.
    #[serde(default)]
    pub restart: Option<String>,
    /// Trainings that nobody wants any more.
    #[serde(default)]
    pub stop_training: Vec<ModelName>,
}

/// What the coordinator asks of a worker beside its batches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkRequest {
    /// Whether the model takes these parameters.
    CheckParameters {
        /// The model.
        model: ModelName,
        /// The parameters.
        parameters: Parameters,
    },
    /// Put a finished job's results into one file, and store it.
    Compact {
        /// The job.
        job: JobId,
    },
}

/// A worker's answer to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkReply {
    /// To a check: the model takes them, or why it does not.
    Checked(Result<(), String>),
    /// To a compaction.
    Compacted(CompactedResults),
}

/// A finished job's results in one file, stored and committed by nobody yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactedResults {
    /// The upload under which it was stored.
    pub upload: UploadId,
    /// Its size in bytes.
    pub size: u64,
    /// The digest of all its bytes.
    pub digest: Digest,
    /// Its extents in order, and who holds them.
    pub extents: Vec<PlacedBlob>,
    /// When the job was done, as these results have it: it may have been run again since.
    pub finished_ms: u64,
}
