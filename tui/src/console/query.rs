//! What the console asks the cluster for besides its view, and the answers.

use idunno_shared::client::cluster::ClusterError;
use idunno_shared::client::files::{SegmentError, Unavailable};
use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::names::FileName;
use idunno_shared::wire::control::{DeadLetter, FileSummary, FileVersion, FolderEntry, LeaseView};
use thiserror::Error;

use crate::answer::Failure;

/// The most entries of one page of the file list.
pub const FILES_PER_PAGE: u32 = 200;

/// A request for one page of the file list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesQuery {
    pub prefix: String,
    /// The last entry of the page before.
    pub after: Option<FolderEntry>,
    /// List all files below the prefix rather than one folder level.
    pub flat: bool,
}

/// One page of the file list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FilesPage {
    pub entries: Vec<FolderEntry>,
    /// Whether more entries follow.
    pub more: bool,
}

/// A request for the contents of a detail tab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetailQuery {
    DeadLetters(JobId),
    /// The newest results of a job.
    Results(JobId),
    /// Batches that are leased, of one job or of one worker.
    Leases {
        job: Option<JobId>,
        worker: Option<NodeId>,
    },
    /// The files that a member stores.
    Stored(NodeId),
    Versions(FileName),
    Preview(FileName),
}

/// The contents of a detail tab.
#[derive(Clone, Debug, PartialEq)]
pub enum DetailData {
    DeadLetters(Vec<DeadLetter>),
    Files(Vec<FileSummary>),
    /// Newest first.
    Versions(Vec<FileVersion>),
    Lines(Vec<String>),
    Leases(Vec<LeaseView>),
}

/// A query without an answer.
#[derive(Debug, Error)]
pub enum QueryError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error(transparent)]
    Segment(#[from] SegmentError),
    #[error("{}", Failure::unexpected())]
    UnexpectedReply,
    #[error("there is no file '{0}'")]
    NoFile(FileName),
    #[error("too large for a preview: ':get' fetches it into a local file")]
    TooLarge,
}
