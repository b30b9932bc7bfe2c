//! What goes into the metadata log, and what comes out of applying it.

use idunno_shared::ids::{Digest, JobId, NodeId, OpId};
use idunno_shared::names::ModelName;
use idunno_shared::wire::blobs::BlobRef;
use idunno_shared::wire::control::{Change, Changed};
use idunno_shared::wire::jobs::{BatchOutcome, QueryRange, Training};
use serde::{Deserialize, Serialize};

use super::Inputs;

/// One change of the metadata, as it stands in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// When the coordinator proposed it, in milliseconds since the epoch. Time within the state never goes back.
    pub at_ms: u64,
    /// Under which id a client asked for it: a repetition answers as the first time and changes nothing.
    pub op: Option<OpId>,
    /// What to change.
    pub action: Action,
}

/// What a command changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// What a person asked for.
    Change(Change),
    /// Members that gained or lost copies. Unknown blobs are passed over.
    Holders(Vec<HolderChange>),
    /// Drop the entries of these blobs, where nothing refers to them.
    Forget(Vec<Digest>),
    /// A worker's result rows: the first answer to a query counts.
    CommitSegment {
        /// The worker.
        worker: NodeId,
        /// The job.
        job: JobId,
        /// The blob of rows, and who holds it.
        segment: (BlobRef, Vec<NodeId>),
        /// The batches whose rows it holds; no query twice.
        batches: Vec<BatchOutcome>,
    },
    /// Queries that failed for good; those decided already are passed over.
    DeadLetters {
        /// The job.
        job: JobId,
        /// The queries.
        #[serde(rename = "letters")]
        dead_letters: Vec<DeadLetterRecord>,
    },
    /// The cluster stops a running job, because every batch of it fails.
    PauseJob {
        /// The job.
        job: JobId,
        /// Why.
        reason: String,
    },
    /// A training that was asked for succeeded; the artefact also becomes a version of the file `models/<model>`, and its
    /// report one of `training/<model>.json`.
    ModelTrained {
        /// The model.
        model: ModelName,
        /// Its version: the digest of the whole artefact.
        version: Digest,
        /// The artefact's size in bytes: the sum of its extents.
        size: u64,
        /// The artefact's extents in order, and who holds them.
        extents: Vec<(BlobRef, Vec<NodeId>)>,
        /// What it was trained from: what is asked for, or it is not taken.
        training: Training,
        /// What it measured, as text.
        #[serde(default)]
        metrics: Vec<(String, String)>,
        /// What it was and measured, for people, and who holds that.
        #[serde(default)]
        report: Option<(BlobRef, Vec<NodeId>)>,
    },
    /// A training that was asked for failed.
    ModelFailed {
        /// The model.
        model: ModelName,
        /// Why.
        reason: String,
    },
    /// `start-job` of a job whose data set is one file, as the coordinator has read it.
    StartJob {
        /// The job.
        job: JobId,
        /// What the file says.
        inputs: Inputs,
    },
    /// The results of a finished job become a version of the file `results/<job>.jsonl`.
    FileResults {
        /// The job.
        job: JobId,
        /// When the job was done, as these results have it.
        finished_ms: u64,
        /// Their size in bytes: the sum of the extents.
        size: u64,
        /// The digest of all their bytes.
        digest: Digest,
        /// Their extents in order, and who holds them.
        extents: Vec<(BlobRef, Vec<NodeId>)>,
    },
}

/// Members that gained or lost their copy of one blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderChange {
    /// The blob.
    pub digest: Digest,
    /// Members that hold it now, durable and verified.
    pub add: Vec<NodeId>,
    /// Members that hold it no longer.
    pub remove: Vec<NodeId>,
}

/// A query that failed for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterRecord {
    /// The query's number.
    pub index: u64,
    /// Why; cut to [`idunno_shared::wire::jobs::REASON_BYTES_MAX`] bytes.
    pub reason: String,
    /// The worker that failed last.
    pub worker: NodeId,
    /// How often it was tried.
    pub attempts: u32,
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// The answer to [`Action::Change`].
    Changed(Changed),
    /// The answer to [`Action::CommitSegment`].
    Committed {
        /// Queries answered by this commit.
        accepted: u64,
        /// Queries that were decided already: their rows do not count.
        duplicates: u64,
        /// Whether the job is done now.
        job_done: bool,
        /// The queries answered by this commit, in order.
        accepted_ranges: Vec<QueryRange>,
    },
    /// The answer to the rest.
    Done,
}
