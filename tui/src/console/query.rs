//! What the console asks the cluster for besides its view, and the answers.

use idunno_shared::client::cluster::ClusterError;
use idunno_shared::client::files::{SegmentError, Unavailable};
use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::names::FileName;
use idunno_shared::wire::control::{DeadLetter, FileOrder, FileSummary, FileVersion, FolderEntry, LeaseView};
use thiserror::Error;

use crate::answer::Failure;

/// The most entries of one page of the file list.
pub const FILES_PER_PAGE: u32 = 200;

/// A request for one page of the file list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesQuery {
    pub prefix: String,
    /// List all files below the prefix rather than one folder level.
    pub flat: bool,
    /// The coordinator sorts: the console has one page of the list.
    pub order: FileOrder,
    /// The position of the first entry.
    pub first: u64,
}

/// One page of the file list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FilesPage {
    pub entries: Vec<FolderEntry>,
    /// The position of the first entry.
    pub first: u64,
    /// Entries of the whole list.
    pub total: u64,
}

/// A request for the contents of a detail tab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetailQuery {
    DeadLetters(JobId),
    /// Results of a job.
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

/// Rows of a list that was fetched whole, or up to a limit: sorting and filtering see these.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gathered<T> {
    pub rows: Vec<T>,
    /// Whether more rows follow.
    pub more: bool,
}

/// The contents of a detail tab.
#[derive(Clone, Debug, PartialEq)]
pub enum DetailData {
    DeadLetters(Gathered<DeadLetter>),
    Files(Gathered<FileSummary>),
    /// Newest first.
    Versions(Vec<FileVersion>),
    /// Rows of results, as JSON, in query order.
    Results(Gathered<String>),
    Lines(Vec<String>),
    Leases(Gathered<LeaseView>),
}

impl DetailData {
    /// Whether more rows follow those that were fetched.
    pub const fn more(&self) -> bool {
        match self {
            Self::DeadLetters(Gathered { more, .. })
            | Self::Files(Gathered { more, .. })
            | Self::Results(Gathered { more, .. })
            | Self::Leases(Gathered { more, .. }) => *more,
            Self::Versions(_) | Self::Lines(_) => false,
        }
    }
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
