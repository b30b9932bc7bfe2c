//! What people's tools, and members on their behalf, ask of a member.
//!
//! Reads of the metadata and all changes are for the coordinator; any other member refuses them with
//! [`super::refusal::RefusalCode::NotCoordinator`] and says whom to ask.

use serde::{Deserialize, Serialize};

use super::batches::{BatchSize, Parameters, Policy, Training};
use super::blobs::{BlobRef, Holder, PlacedBlob};
pub use super::logs::{LogFound, LogLevel, LogPage, LogPlace, LogSearch};
pub use super::views::{
    AssignmentView, ClusterView, DeadLetter, Distribution, FileSummary, FolderEntry, IdentityView, JobAbout,
    JobState, JobView, LeaseStage, LeaseView, Liveness, LoadView, LogRole, MemberView, ModelView, RatesView,
    SegmentView, SharingView, StoreView, WorkerView,
};
use crate::ids::{Digest, JobId, NodeId, OpId, Term, UploadId};
use crate::names::{DatasetName, FileName, JobName, ModelName};

/// Most files in one commit, blobs in one plan, names in one lookup or listing.
pub const ITEMS_PER_REQUEST_MAX: usize = 1024;
/// Most extents of a file: with extents of 64 MiB, files of up to 4 TiB.
pub const EXTENTS_PER_FILE_MAX: usize = 65_536;
/// Most versions of a file that are kept.
pub const VERSIONS_KEPT: usize = 5;
/// Most batches that are told of at once: so many fit into a frame.
pub const LEASES_SHOWN_MAX: usize = 65_536;
/// The data set that `populate-test-data` fills and `add-job` reads unless told otherwise.
pub const DATASET_DEFAULT: &str = "test-data";
/// The file of a data set that is its label table, not a query.
pub const LABELS_FILE: &str = "labels.csv";
/// Batch size of a job that was given none.
pub const BATCH_SIZE_DEFAULT: u32 = 32;

/// Most parameters of a job.
pub const PARAMETERS_MAX: usize = 32;
/// Longest value of a job's parameter, in bytes.
pub const PARAMETER_BYTES_MAX: usize = 4096;
/// The folder of the store in which the finished jobs' results are.
pub const RESULTS_FOLDER: &str = "results";

/// What a job may be given beyond its model and its data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOptions {
    /// A name that no other job has.
    pub name: Option<JobName>,
    /// Its share against other jobs', if it is not 1.
    pub weight: Option<u32>,
    /// For the model, at most [`PARAMETERS_MAX`].
    pub parameters: Parameters,
}

/// A request from outside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ControlRequest {
    /// `list_mem`: the membership list of the member asked.
    Members,
    /// `list_self`: the member asked.
    Identity,
    /// `join`: go back into the cluster after a `leave`.
    Join,
    /// `leave`: leave the cluster, keep running.
    Leave,
    /// Whom to ask for what only the coordinator does.
    Coordinator,
    /// `ls`: files in name order.
    List {
        /// Only names that start with this text.
        prefix: String,
        /// Only names behind this one.
        after: Option<FileName>,
        /// At most this many, up to [`ITEMS_PER_REQUEST_MAX`].
        limit: u32,
    },
    /// Where the bytes of files are: the newest version, or the one named. Unknown names answer `None`.
    Locate {
        /// The files, at most [`ITEMS_PER_REQUEST_MAX`].
        names: Vec<FileName>,
        /// Which version; the newest without one.
        version: Option<u64>,
    },
    /// `get-versions`: the newest `limit` versions of one file, newest first.
    Versions {
        /// The file.
        name: FileName,
        /// How many, up to [`VERSIONS_KEPT`].
        limit: u32,
    },
    /// `store`: the files of which a member holds bytes, in name order.
    Stored {
        /// The member.
        member: NodeId,
        /// Only names behind this one.
        after: Option<FileName>,
        /// At most this many, up to [`ITEMS_PER_REQUEST_MAX`].
        limit: u32,
    },
    /// Where blobs are to go. Opens an upload, or keeps one open.
    Plan {
        /// The upload; `None` opens one. It ends by [`ControlRequest::EndUpload`] or a minute without a request.
        upload: Option<UploadId>,
        /// The blobs, at most [`ITEMS_PER_REQUEST_MAX`].
        blobs: Vec<BlobRef>,
        /// Members that just failed the client.
        exclude: Vec<NodeId>,
    },
    /// The upload is over: what was not committed may be collected.
    EndUpload(UploadId),
    /// A change, done once however often it is asked under the same id.
    Change {
        /// Its id.
        op: OpId,
        /// What to change.
        change: Change,
    },
    /// `get-job-stats`: one job or all.
    Jobs(Option<JobId>),
    /// `get-job-assigned-VMs`: who works for which job.
    Assignments(Option<JobId>),
    /// Models and their state.
    Models,
    /// `get-job-results`: the segments of a job, in order of commit.
    Results {
        /// The job.
        job: JobId,
        /// Skip this many segments.
        skip: u64,
        /// At most this many, up to [`ITEMS_PER_REQUEST_MAX`].
        limit: u32,
    },
    /// The queries of a job that failed for good.
    DeadLetters {
        /// The job.
        job: JobId,
        /// Only queries from this number on.
        from: u64,
        /// At most this many, up to [`ITEMS_PER_REQUEST_MAX`].
        limit: u32,
    },
    /// Everything a console shows, now and whenever it changes (at most five times a second), until the connection ends.
    Watch,
    /// One level of the store: files, and folders in place of what lies below them.
    Folder {
        /// The folder's name with its slash; empty for the top.
        prefix: String,
        /// Only what is behind this entry.
        after: Option<FolderEntry>,
        /// At most this many, up to [`ITEMS_PER_REQUEST_MAX`].
        limit: u32,
    },
    /// The log of the member asked, from a place on; without one the end of its newest file.
    Log {
        /// Where the last page ended.
        after: Option<LogPlace>,
    },
    /// `logs --grep`: what a search finds in the log of the member asked.
    SearchLog(LogSearch),
    /// `get-job-leases`: the batches in workers' hands, as these said last. If there are more than [`LEASES_SHOWN_MAX`],
    /// without those that await their commit.
    Leases {
        /// Of this job only.
        job: Option<JobId>,
        /// Of this worker only.
        worker: Option<NodeId>,
    },
    /// `backup`: all metadata at one moment, answered in pieces until the one that has a digest.
    Backup,
}

/// A new version of a file, its bytes stored already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewFile {
    /// The file.
    pub name: FileName,
    /// Its size in bytes: the sum of its extents.
    pub size: u64,
    /// The digest of all its bytes.
    pub digest: Digest,
    /// Its extents in order; none for an empty file.
    pub extents: Vec<(BlobRef, Vec<NodeId>)>,
}

/// A change to the cluster's metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// `put`: commit new versions, all of them or none.
    CommitFiles {
        /// The upload under which their bytes were stored.
        upload: UploadId,
        /// The versions, at most [`ITEMS_PER_REQUEST_MAX`].
        files: Vec<NewFile>,
    },
    /// `delete`: remove a file with all its versions.
    Delete {
        /// The file.
        name: FileName,
    },
    /// `train-start`: have models trained, or all predefined ones.
    TrainStart {
        /// The models; empty for all predefined ones.
        models: Vec<ModelName>,
        /// What from.
        training: Training,
    },
    /// `add-job`.
    AddJob {
        /// The model.
        model: ModelName,
        /// The data set.
        dataset: DatasetName,
        /// Queries per batch, 1 to [`super::jobs::BATCH_QUERIES_MAX`], or auto.
        batch_size: BatchSize,
        /// Its name and the like.
        #[serde(default)]
        options: JobOptions,
    },
    /// `set-batch-size`: from the next lease on.
    SetBatchSize {
        /// The job.
        job: JobId,
        /// Queries per batch, 1 to [`super::jobs::BATCH_QUERIES_MAX`], or auto.
        batch_size: BatchSize,
    },
    /// `start-job`: freeze the data set and start, or go on after a stop.
    StartJob {
        /// The job.
        job: JobId,
    },
    /// `stop-job`: no further batches; what runs may finish.
    StopJob {
        /// The job.
        job: JobId,
    },
    /// Run a job's dead letters again.
    RetryDeadLetters {
        /// The job.
        job: JobId,
        /// These queries' only, at most [`ITEMS_PER_REQUEST_MAX`]; all without any.
        #[serde(default)]
        queries: Vec<u64>,
    },
    /// A job's share against the others', from the next lease on.
    SetWeight {
        /// The job.
        job: JobId,
        /// 1, as every new job has, to [`super::jobs::WEIGHT_MAX`].
        weight: u32,
    },
    /// In what all jobs are equal, from the next lease on.
    SetPolicy(Policy),
    /// `cancel-job`: what is not decided yet never will be. What it has is kept.
    CancelJob {
        /// The job.
        job: JobId,
    },
    /// `delete-job`: remove a job that does not run, with its results.
    DeleteJob {
        /// The job.
        job: JobId,
    },
    /// Give dead letters up: they stay in the results, and cannot be run again.
    DropDeadLetters {
        /// The job.
        job: JobId,
        /// These queries' only, at most [`ITEMS_PER_REQUEST_MAX`]; all without any.
        queries: Vec<u64>,
    },
    /// `train-stop`: end trainings; what was trained before stays.
    TrainStop {
        /// The models.
        models: Vec<ModelName>,
    },
}

/// What a change did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Changed {
    /// New versions, in the order asked: number and durable copies of the extent with the fewest.
    Files(Vec<(u64, u32)>),
    /// A file is gone, with this many versions.
    Deleted {
        /// Versions removed.
        versions: u32,
    },
    /// Models to be trained.
    Training(Vec<ModelName>),
    /// A job was added.
    JobAdded(JobId),
    /// A job was started with this many queries in its manifest, or resumed.
    JobStarted {
        /// Queries of the manifest.
        submitted: u64,
    },
    /// Done.
    Done,
    /// Dead letters to run again.
    Retried {
        /// How many.
        queries: u64,
    },
    /// A job had been started before, and is left as it is.
    StartedBefore {
        /// Queries of the manifest.
        submitted: u64,
        /// Its state.
        state: JobState,
    },
    /// Dead letters given up.
    Dropped {
        /// How many.
        queries: u64,
    },
}

/// A version of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileVersion {
    /// The file.
    pub name: FileName,
    /// Its number, from 1.
    pub version: u64,
    /// Its size in bytes.
    pub size: u64,
    /// The digest of all its bytes.
    pub digest: Digest,
    /// When it was committed, in milliseconds since the epoch, by the coordinator's clock.
    pub created_ms: u64,
    /// Its extents in order, and who holds them.
    pub extents: Vec<PlacedBlob>,
}

/// Where one blob is to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain(pub Vec<Holder>);

/// Answers to [`ControlRequest`]s.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ControlReply {
    /// Members of the list, in id order.
    Members(Vec<MemberView>),
    /// The member asked.
    Identity(IdentityView),
    /// Done.
    Done,
    /// The coordinator and its term.
    Coordinator {
        /// Who and where.
        coordinator: Holder,
        /// Its term.
        term: Term,
    },
    /// Files, and whether more follow behind the last.
    Files {
        /// The rows.
        files: Vec<FileSummary>,
        /// Whether there are more.
        more: bool,
    },
    /// The versions asked for, in the order asked.
    Located(Vec<Option<FileVersion>>),
    /// Versions of one file, newest first.
    Versions(Vec<FileVersion>),
    /// Where the blobs go.
    Planned {
        /// The upload, to be named with every put and commit.
        upload: UploadId,
        /// One chain a blob; fewer than [`super::blobs::COPIES`] holders while there are fewer members.
        chains: Vec<Chain>,
        /// Copies a blob should have with the members there are.
        copies: u32,
    },
    /// The change was made.
    Changed(Changed),
    /// Jobs.
    Jobs(Vec<JobView>),
    /// Who works for which job.
    Assignments(Vec<AssignmentView>),
    /// Models.
    Models(Vec<ModelView>),
    /// Segments, and the job's figures at the same moment.
    Results {
        /// The segments.
        segments: Vec<SegmentView>,
        /// Whether there are more.
        more: bool,
        /// The job.
        job: JobView,
    },
    /// Dead letters in query order.
    DeadLetters {
        /// The rows.
        #[serde(rename = "letters")]
        dead_letters: Vec<DeadLetter>,
        /// Whether there are more.
        more: bool,
    },
    /// To a watcher.
    View(ClusterView),
    /// One level of the store, in name order.
    Folder {
        /// The rows.
        entries: Vec<FolderEntry>,
        /// Whether there are more.
        more: bool,
    },
    /// A part of a log.
    Log(LogPage),
    /// To [`ControlRequest::SearchLog`].
    FoundLog(LogFound),
    /// Batches in workers' hands, by worker, each worker's in the order in which it runs them.
    Leases {
        /// The batches.
        leases: Vec<LeaseView>,
        /// Whether those that await their commit are left out, for there are too many.
        more: bool,
    },
    /// A part of a backup, in order.
    Backup {
        /// Its bytes, at most 4 MiB; the first has none.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
        /// The digest of all parts, with the last one.
        digest: Option<Digest>,
    },
}
