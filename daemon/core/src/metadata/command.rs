//! The commands of the metadata log, and their outcomes.

use std::sync::Arc;

use idunno_shared::access::{Issued, Role, SubjectName};
use idunno_shared::ids::{Digest, JobId, NodeId, OpId, UploadId};
use idunno_shared::names::{FileName, ModelName};
use idunno_shared::wire::blobs::BlobRef;
use idunno_shared::wire::control::{Change, Changed, StartOptions, TrainedFrom};
use idunno_shared::wire::jobs::{BatchOutcome, QueryRange, Training};
use idunno_shared::wire::records::RecordIdentity;
use serde::{Deserialize, Serialize};

use super::{Inputs, MergedRows};

/// A command, as stored in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// When the coordinator proposed it, in milliseconds since the epoch. The state ignores a time before its own.
    pub at_ms: u64,
    /// The id of the client's operation, if it has one: a repetition returns the first outcome and changes nothing.
    pub op: Option<OpId>,
    /// The change.
    pub action: Action,
    /// The upload under which the blobs of the action were stored: the command is refused once that is over.
    /// [`Change::CommitFiles`], [`Change::CommitFile`] and [`Change::AddModel`] name their own.
    #[serde(default)]
    pub upload: Option<UploadId>,
    /// Who asked for the change: the command is refused once that name is revoked. `None` for what the cluster does by
    /// itself, and without security.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<AskedBy>,
}

/// A person or program that asked for a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedBy {
    /// The name of its identity.
    pub name: SubjectName,
    /// As what it asked.
    pub role: Role,
    /// Holders of the blobs that it commits which were not up: their copies do not count against those that it stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<NodeId>,
}

impl AskedBy {
    /// Whether it is not trusted with what belongs to others.
    pub(super) fn is_confined(&self) -> bool {
        self.role < Role::Operator
    }
}

impl Command {
    /// The upload that must not be over when the command is applied.
    pub(super) fn upload(&self) -> Option<UploadId> {
        match &self.action {
            Action::Change(
                Change::CommitFiles { upload, .. }
                | Change::CommitFile { upload, .. }
                | Change::AddModel { upload, .. },
            ) => Some(*upload),
            _ => self.upload,
        }
    }
}

/// The change that a command makes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// A client's request.
    Change(Change),
    /// Members gained or lost copies. Unknown blobs are skipped.
    Holders(Vec<HolderChange>),
    /// Drops the entries of these blobs, except those with references.
    Forget(Vec<Digest>),
    /// Result rows of a worker. The first answer to a query counts.
    CommitSegment {
        /// The worker that ran the batches.
        worker: NodeId,
        /// The job; a segment has rows of one job only.
        job: JobId,
        /// The blob with the rows, and its holders.
        segment: (BlobRef, Vec<NodeId>),
        /// The batches whose rows it contains; no query twice.
        batches: Vec<BatchOutcome>,
    },
    /// Queries whose attempts are used up. Those that are already decided are skipped.
    DeadLetters {
        /// Their job.
        job: JobId,
        /// The queries with their reasons.
        #[serde(rename = "letters")]
        dead_letters: Vec<DeadLetterRecord>,
    },
    /// The scheduler pauses a running job because all its batches fail.
    PauseJob {
        /// The job to pause.
        job: JobId,
        /// The reason shown to people.
        reason: String,
    },
    /// A requested training succeeded. The artefact also becomes a version of the file `models/<model>`, and the report a
    /// version of `training/<model>.json`.
    ModelTrained {
        /// The trained model.
        model: ModelName,
        /// The model version: the digest of the whole artefact.
        version: Digest,
        /// The artefact's size in bytes: the sum of its extents.
        size: u64,
        /// The artefact's extents in order, with their holders.
        extents: Vec<(BlobRef, Vec<NodeId>)>,
        /// The seed and dataset it was trained with; refused unless the request has the same.
        training: Training,
        /// Names and values of the measured metrics.
        #[serde(default)]
        metrics: Vec<(String, String)>,
        /// The training report for people, and its holders.
        #[serde(default)]
        report: Option<(BlobRef, Vec<NodeId>)>,
        /// What the artefact is, if it is a package: the first extent is its manifest, whose digest is the version and which
        /// alone becomes a version of the file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        package: Option<TrainedFrom>,
    },
    /// A requested training was given up.
    ModelFailed {
        /// The model.
        model: ModelName,
        /// The last failure, for people.
        reason: String,
    },
    /// `start-job` of a job whose inputs the coordinator has read and indexed.
    StartJob {
        /// The job to start.
        job: JobId,
        /// The inputs of its dataset.
        inputs: Inputs,
        /// Which of them it runs, and when it gives up.
        #[serde(default, skip_serializing_if = "StartOptions::is_default")]
        options: StartOptions,
    },
    /// First step of `start-job` of a job over a folder: from now on the files of the folder stay readable as they are now,
    /// until the job needs them no more or pins them again.
    PinFolder {
        /// The job that will start.
        job: JobId,
    },
    /// The start of a job that has pinned its folder was refused: the folder is kept no longer.
    UnpinFolder {
        /// The job that does not start.
        job: JobId,
    },
    /// The results of a finished job become a version of the file `results/<job>.jsonl`.
    FileResults {
        /// The finished job.
        job: JobId,
        /// When the job was done by these results: they are refused if it has run again since.
        finished_ms: u64,
        /// The size in bytes: the sum of the extents.
        size: u64,
        /// The digest of all bytes.
        digest: Digest,
        /// The extents in order, with their holders.
        extents: Vec<(BlobRef, Vec<NodeId>)>,
        /// Which rows are in which extent. The extents then replace the job's segments.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rows: Option<MergedRows>,
    },
    /// All uploads below this one are over, so that their blobs may be deleted: commands that name them are refused from
    /// now on.
    EndUploads(UploadId),
    /// Somebody has connected with this identity.
    NoteIdentity(Issued),
    /// The webhook of a job was told an end of the job, or that was given up.
    EndWebhook {
        /// The job.
        job: JobId,
        /// When it came into the state that was told: refused if another has come since.
        due_ms: u64,
        /// Why it was given up, for people; `None` if the webhook knows.
        failure: Option<String>,
    },
}

/// Members that gained or lost their copy of one blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderChange {
    /// The blob.
    pub digest: Digest,
    /// Members that now hold it, durable and verified.
    pub add: Vec<NodeId>,
    /// Members that no longer hold it.
    pub remove: Vec<NodeId>,
}

/// A query whose attempts are used up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterRecord {
    /// The query's number within the job.
    pub index: u64,
    /// The last failure; truncated to [`idunno_shared::wire::jobs::REASON_BYTES_MAX`] bytes.
    pub reason: String,
    /// The worker that failed last.
    pub worker: NodeId,
    /// Failed leases of the query, or of the ranges it was in.
    pub attempts: u32,
    /// The name of the input, if the job is over a folder; set when the command is applied.
    #[serde(default)]
    pub name: Option<Arc<FileName>>,
    /// The record's own id and label; bounded when the command is applied.
    #[serde(default, skip_serializing_if = "RecordIdentity::is_empty")]
    pub identity: RecordIdentity,
}

/// The outcome of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// Of [`Action::Change`].
    Changed(Changed),
    /// Of [`Action::CommitSegment`].
    Committed {
        /// Queries answered by this commit.
        accepted: u64,
        /// Queries that were already decided: their rows do not count.
        duplicates: u64,
        /// Whether the job is done now.
        job_done: bool,
        /// The queries answered by this commit, in order.
        accepted_ranges: Vec<QueryRange>,
    },
    /// Of all other actions.
    Done,
}
