//! Requests of clients, and of members on their behalf.
//!
//! Only the coordinator serves changes and reads of the metadata. Any other member refuses them with
//! [`super::refusal::RefusalCode::NotCoordinator`], which names the coordinator.

use serde::{Deserialize, Serialize};

use super::blobs::{BlobRef, HOLDERS_MAX, Holder, PlacedBlob};
use super::bounded;
pub use super::changes::{
    ATTRIBUTE_BYTES_MAX, ATTRIBUTES_MAX, Attributes, Change, Changed, ETAG, Expected, FileCopy, JobOptions,
    NewFile,
};
pub use super::identities::{NamedIdentity, Period, Revocation, SeenCertificate};
pub use super::job_views::{
    AssignmentView, DeadLetter, Distribution, JobDetails, JobState, JobView, LeaseStage, LeaseView,
    RebalanceView, SegmentView,
};
pub use super::logs::{LogCursor, LogLevel, LogMatches, LogPage, LogSearch};
pub use super::packages::{NewPackage, PackageSummary, RUNTIME_BYTES_MAX, TrainedFrom};
pub use super::start_options::{FailedMax, FailedMaxError, Reuse, Selection, StartOptions};
pub use super::views::{
    ClusterView, FileKey, FileOrder, FileSummary, FolderEntry, IdentityView, Liveness, LoadView, LogRole,
    MemberDoubts, MemberView, ModelView, RatesView, StoreView, WorkerView,
};
use crate::access::{Issued, SubjectName};
use crate::ids::{Digest, JobId, NodeId, OpId, Term, UploadId};
use crate::names::FileName;

/// Most files in a commit, blobs in a plan, names in a lookup and rows in a page.
pub const ITEMS_PER_REQUEST_MAX: usize = 1024;
/// Most names in a page of [`ControlRequest::Identities`].
pub const IDENTITIES_PER_PAGE_MAX: usize = 256;
/// Most certificates of one name that are listed; of more, those that end last.
pub const CERTIFICATES_PER_NAME_MAX: usize = 8;
/// Most extents of a file; at 64 MiB each, they limit a file to 4 TiB.
pub const EXTENTS_PER_FILE_MAX: usize = 65_536;
/// Versions of a file that are kept; a new one evicts the oldest.
pub const VERSIONS_KEPT: usize = 5;
/// For how long an equal version is not committed again by [`Change::CommitFile`], in milliseconds.
pub const SAME_COMMIT_MS: u64 = 60_000;
/// Most batches in the reply to [`ControlRequest::Leases`], so that it fits into a frame.
pub const LEASES_SHOWN_MAX: usize = 65_536;
/// The dataset that `populate-test-data` fills, and the default of `add-job`.
pub const DATASET_DEFAULT: &str = "test-data";
/// The file of a dataset that holds the label table and is not a query.
pub const LABELS_FILE: &str = "labels.csv";
/// Default batch size of a job.
pub const BATCH_SIZE_DEFAULT: u32 = 32;
/// Most parameters of a job.
pub const PARAMETERS_MAX: usize = 32;
/// Longest value of a job's parameter, in bytes.
pub const PARAMETER_BYTES_MAX: usize = 4096;

/// A request of a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ControlRequest {
    /// `list_mem`: the membership list of the member asked.
    Members,
    /// `list_self`: the identity of the member asked.
    Identity,
    /// `join`: return to the cluster after a `leave`.
    Join,
    /// `leave`: leave the cluster and keep running.
    Leave,
    /// The coordinator's id, address and term.
    Coordinator,
    /// `ls`: files in name order.
    List {
        /// List only names that start with this text.
        prefix: String,
        /// List only names after this one.
        after: Option<FileName>,
        /// Most rows, up to [`ITEMS_PER_REQUEST_MAX`].
        limit: u32,
    },
    /// Where the bytes of files are stored. A name without such a version yields `None`.
    Locate {
        /// The files, at most [`ITEMS_PER_REQUEST_MAX`].
        #[serde(deserialize_with = "bounded::list::<ITEMS_PER_REQUEST_MAX, _, _>")]
        names: Vec<FileName>,
        /// The version to locate; `None` for the newest.
        version: Option<u64>,
    },
    /// `get-versions`: the newest `limit` versions of a file, newest first.
    Versions {
        /// The file's name.
        name: FileName,
        /// Most versions, up to [`VERSIONS_KEPT`].
        limit: u32,
    },
    /// `store`: the files of which a member holds bytes, in name order.
    Stored {
        /// The member's id.
        member: NodeId,
        /// List only names after this one.
        after: Option<FileName>,
        /// Most rows, up to [`ITEMS_PER_REQUEST_MAX`].
        limit: u32,
    },
    /// Choose holders for blobs. Opens an upload or keeps one open.
    Plan {
        /// The upload to keep open; `None` opens one. An upload ends with [`ControlRequest::EndUpload`], or after a minute
        /// without a request.
        upload: Option<UploadId>,
        /// The blobs, at most [`ITEMS_PER_REQUEST_MAX`].
        #[serde(deserialize_with = "bounded::list::<ITEMS_PER_REQUEST_MAX, _, _>")]
        blobs: Vec<BlobRef>,
        /// Members to avoid, because they have just failed the client.
        #[serde(deserialize_with = "bounded::list::<ITEMS_PER_REQUEST_MAX, _, _>")]
        exclude: Vec<NodeId>,
    },
    /// End an upload. Its blobs may be collected unless they were committed.
    EndUpload(UploadId),
    /// Make a change. Repeating it with the same id makes it once.
    Change {
        /// Operation id, chosen by the client.
        op: OpId,
        /// The change to make.
        change: Change,
    },
    /// `get-job-stats`: one job, or all of them; refused if they do not fit into one answer, see
    /// [`ControlRequest::JobPage`].
    Jobs(Option<JobId>),
    /// `get-job-assigned-VMs`: which members work for one job, or for all of them.
    Assignments(Option<JobId>),
    /// Models and their state.
    Models,
    /// `get-job-results`: the segments of a job's results in the order of their commits.
    Results {
        /// The job's id.
        job: JobId,
        /// Number of segments to skip.
        skip: u64,
        /// Most segments, up to [`ITEMS_PER_REQUEST_MAX`].
        limit: u32,
    },
    /// The dead letters of a job in query order.
    DeadLetters {
        /// The job's id.
        job: JobId,
        /// List only queries from this number on.
        from: u64,
        /// Most rows, up to [`ITEMS_PER_REQUEST_MAX`].
        limit: u32,
    },
    /// A [`ClusterView`] now and after each change, at most five a second, until the connection ends.
    Watch,
    /// One level of the store: the files in a folder, and its subfolders.
    Folder {
        /// The folder's name with the slash at its end; empty for the top level.
        prefix: String,
        /// List only entries after this one.
        after: Option<FolderEntry>,
        /// Most rows, up to [`ITEMS_PER_REQUEST_MAX`].
        limit: u32,
    },
    /// A page of the log of the member asked.
    Log {
        /// Where the previous page ended; `None` for the end of the newest log file.
        after: Option<LogCursor>,
    },
    /// `logs --grep`: search the log of the member asked.
    SearchLog(LogSearch),
    /// `get-job-leases`: the batches that workers hold, according to their latest reports. If there are more than
    /// [`LEASES_SHOWN_MAX`], those that await their commit are left out.
    Leases {
        /// List only batches of this job.
        job: Option<JobId>,
        /// List only batches of this member.
        worker: Option<NodeId>,
    },
    /// `backup`: all metadata at one moment, in several replies, the last of which has a digest.
    Backup,
    /// `get-job-stats`: jobs in the order of their numbers.
    JobPage {
        /// List only jobs after this one.
        after: Option<JobId>,
        /// Most rows, up to [`ITEMS_PER_REQUEST_MAX`]; fewer come where they are large.
        limit: u32,
    },
    /// `identity ls`: identities that have connected, and names that are revoked.
    Identities {
        /// List only names after this one.
        after: Option<SubjectName>,
        /// Most names, up to [`IDENTITIES_PER_PAGE_MAX`].
        limit: u32,
        /// List only names that are not revoked and whose last certificate ends then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ending: Option<Period>,
    },
    /// From a member: somebody has connected to it with this identity.
    NoteIdentity(Issued),
    /// Files in any order, by position. A page looks at the whole list.
    SortedFiles {
        /// List only names that start with this text: a folder's name with the slash at its end, or its beginning.
        prefix: String,
        /// Whether files in subfolders are listed, in place of the subfolders.
        flat: bool,
        /// The order of the list.
        order: FileOrder,
        /// The position of the first entry; beyond the end of the list it means the last page.
        first: u64,
        /// Most rows, up to [`ITEMS_PER_REQUEST_MAX`].
        limit: u32,
    },
}

/// A committed version of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileVersion {
    /// The file's name.
    pub name: FileName,
    /// The version's number, from 1.
    pub version: u64,
    /// Size in bytes.
    pub size: u64,
    /// Digest of the whole file.
    pub digest: Digest,
    /// Time of the commit by the coordinator's clock, in milliseconds since the epoch.
    pub created_ms: u64,
    /// The extents in order, with their holders.
    #[serde(deserialize_with = "bounded::list::<EXTENTS_PER_FILE_MAX, _, _>")]
    pub extents: Vec<PlacedBlob>,
    /// What is kept with it.
    #[serde(
        default,
        skip_serializing_if = "Attributes::is_empty",
        deserialize_with = "bounded::map::<ATTRIBUTES_MAX, _, _, _>"
    )]
    pub attributes: Attributes,
}

/// The holders chosen for one blob, in the order in which it is forwarded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain(#[serde(deserialize_with = "bounded::list::<HOLDERS_MAX, _, _>")] pub Vec<Holder>);

/// The reply to a [`ControlRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ControlReply {
    /// The membership list in id order.
    Members(Vec<MemberView>),
    /// The identity of the member asked.
    Identity(IdentityView),
    /// The request was carried out, and there is nothing to report.
    Done,
    /// The coordinator.
    Coordinator {
        /// The coordinator's id and address.
        coordinator: Holder,
        /// The term in which it coordinates.
        term: Term,
    },
    /// A page of files.
    Files {
        /// The files in name order.
        #[serde(deserialize_with = "bounded::list::<ITEMS_PER_REQUEST_MAX, _, _>")]
        files: Vec<FileSummary>,
        /// Whether more files follow the last one.
        more: bool,
    },
    /// The versions asked for, in the order of the request.
    Located(
        #[serde(deserialize_with = "bounded::list::<ITEMS_PER_REQUEST_MAX, _, _>")] Vec<Option<FileVersion>>,
    ),
    /// Versions of one file, newest first.
    Versions(#[serde(deserialize_with = "bounded::list::<ITEMS_PER_REQUEST_MAX, _, _>")] Vec<FileVersion>),
    /// The holders chosen for the blobs of a [`ControlRequest::Plan`].
    Planned {
        /// The upload, which every put and commit must name.
        upload: UploadId,
        /// One chain a blob, in the order of the request. A chain is shorter than [`super::blobs::COPIES`] if there are
        /// fewer members.
        #[serde(deserialize_with = "bounded::list::<ITEMS_PER_REQUEST_MAX, _, _>")]
        chains: Vec<Chain>,
        /// Copies that a blob should have with the present members.
        copies: u32,
    },
    /// The change was made.
    Changed(Changed),
    /// The jobs asked for.
    Jobs(Vec<JobView>),
    /// The assignments asked for, one a worker.
    Assignments(Vec<AssignmentView>),
    /// All models.
    Models(Vec<ModelView>),
    /// A page of a job's results.
    Results {
        /// The segments in the order of their commits.
        #[serde(deserialize_with = "bounded::list::<ITEMS_PER_REQUEST_MAX, _, _>")]
        segments: Vec<SegmentView>,
        /// Whether more segments follow the last one.
        more: bool,
        /// The job at the same moment.
        job: JobView,
    },
    /// A page of a job's dead letters.
    DeadLetters {
        /// The dead letters in query order.
        #[serde(rename = "letters", deserialize_with = "bounded::list::<ITEMS_PER_REQUEST_MAX, _, _>")]
        dead_letters: Vec<DeadLetter>,
        /// Whether more dead letters follow the last one.
        more: bool,
    },
    /// The state of the cluster, for [`ControlRequest::Watch`].
    View(ClusterView),
    /// A page of one level of the store.
    Folder {
        /// Files and subfolders in name order.
        #[serde(deserialize_with = "bounded::list::<ITEMS_PER_REQUEST_MAX, _, _>")]
        entries: Vec<FolderEntry>,
        /// Whether more entries follow the last one.
        more: bool,
    },
    /// A page of a log.
    Log(LogPage),
    /// A page of the matches of a [`ControlRequest::SearchLog`].
    FoundLog(LogMatches),
    /// Batches that workers hold, grouped by worker, each worker's in the order in which it runs them.
    Leases {
        /// The batches.
        #[serde(deserialize_with = "bounded::list::<LEASES_SHOWN_MAX, _, _>")]
        leases: Vec<LeaseView>,
        /// Whether there are too many, so that those that await their commit are left out.
        more: bool,
    },
    /// A part of a backup, in order.
    Backup {
        /// Bytes of the backup, at most 4 MiB; the first part is empty.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
        /// The digest of all parts, in the last part only.
        digest: Option<Digest>,
    },
    /// A page of jobs.
    JobPage {
        /// The jobs in the order of their numbers.
        #[serde(deserialize_with = "bounded::list::<ITEMS_PER_REQUEST_MAX, _, _>")]
        jobs: Vec<JobView>,
        /// Whether more jobs follow the last one.
        more: bool,
    },
    /// A page of the files that a member holds, for [`ControlRequest::Stored`]. It may be empty before the last.
    Stored {
        /// The files in name order.
        #[serde(deserialize_with = "bounded::list::<ITEMS_PER_REQUEST_MAX, _, _>")]
        files: Vec<FileSummary>,
        /// The name after which the next page begins; `None` on the last page.
        next: Option<FileName>,
    },
    /// A page of identities.
    Identities {
        /// In the order of their names.
        #[serde(deserialize_with = "bounded::list::<IDENTITIES_PER_PAGE_MAX, _, _>")]
        identities: Vec<NamedIdentity>,
        /// Whether more follow the last one.
        more: bool,
    },
    /// A page of a sorted list of files.
    SortedFiles {
        /// The position of the first entry.
        first: u64,
        /// Entries of the whole list.
        total: u64,
        /// Files and subfolders, in the order that was asked for.
        #[serde(deserialize_with = "bounded::list::<ITEMS_PER_REQUEST_MAX, _, _>")]
        entries: Vec<FolderEntry>,
    },
}
