//! One error per operation.

use std::path::PathBuf;

use idunno_shared::ids::NodeId;
use thiserror::Error;

/// The metadata log was not opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The settings contradict each other.
    #[error("the timing of the metadata log is not possible: {0}")]
    Settings(String),
    /// The file was not opened or read.
    #[error("cannot open the metadata store {path}: {reason}")]
    Store {
        /// The file.
        path: PathBuf,
        /// What the store said.
        reason: String,
    },
    /// The file is another member's: votes must never be cast under two ids.
    #[error(
        "the metadata store {path} belongs to member {found}, not {expected}: use another data directory, or give an \
         'idunnod recover' that was interrupted again"
    )]
    OtherNode {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Who opened it.
        expected: NodeId,
    },
    /// The file was written by another release.
    #[error(
        "the metadata store {path} has format {found}, this program knows {known}: use the matching release"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The format of this program.
        known: u64,
    },
    /// The log or its last snapshot could not be replayed.
    #[error("cannot start the metadata log: {0}")]
    Start(String),
}

/// A survivor's log cannot be the start of a new cluster.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// There is no store, it is damaged, or it is in use.
    #[error(
        "cannot read the metadata log {path}: {reason}; choose another survivor, or stop whoever uses it"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The member never had a part in a cluster.
    #[error("the metadata log {path} is empty: choose another survivor")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It was written by another release, or is damaged.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The new store cannot be written; the old one is as it was.
    #[error("cannot write the new metadata log {path}: {reason}; the old one is unchanged")]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The cluster was not founded.
#[derive(Debug, Error)]
pub enum FoundError {
    /// The log has stopped.
    #[error("cannot found the cluster: the metadata log has stopped: {0}")]
    Stopped(String),
}

/// A command was not applied, or nobody knows whether it was.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// This member does not lead. Nothing was changed.
    #[error("this member does not lead the metadata log")]
    NotLeader {
        /// Who does, as far as this member knows.
        leader: Option<NodeId>,
    },
    /// No majority of voters has answered within the lease. Nothing was changed.
    #[error("no majority of the voters answers: the metadata cannot change until it does")]
    NoQuorum,
    /// The command was proposed, and its outcome is unknown: ask again under the same operation id.
    #[error("the change was proposed but not confirmed in time: it may or may not happen")]
    Unknown,
    /// The command does not fit into a log entry. Nothing was changed.
    #[error("the change takes {bytes} bytes, at most {limit} fit into the log: split it")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The log has stopped: this process must end. The outcome is unknown.
    #[error("the metadata log has stopped: {0}")]
    Stopped(String),
}

/// It was not confirmed that this member leads and has applied all that was acknowledged before.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BarrierError {
    /// This member does not lead.
    #[error("this member does not lead the metadata log")]
    NotLeader {
        /// Who does, as far as this member knows.
        leader: Option<NodeId>,
    },
    /// No majority confirmed it in time.
    #[error("no majority of the voters answers: the newest metadata cannot be read until it does")]
    NoQuorum,
    /// The log has stopped: this process must end.
    #[error("the metadata log has stopped: {0}")]
    Stopped(String),
}

/// The voters or learners were not changed, or nobody knows whether they were.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MembersError {
    /// This member does not lead. Nothing was changed.
    #[error("only the leader changes voters, and this member is not it")]
    NotLeader {
        /// Who does, as far as this member knows.
        leader: Option<NodeId>,
    },
    /// A voter must first be a learner that has caught up. Nothing was changed.
    #[error("member {0} must be a learner before it can vote")]
    NotLearner(NodeId),
    /// The change makes no sense. Nothing was changed.
    #[error("the voters were not changed: {0}")]
    Invalid(String),
    /// Not confirmed in time: it may still happen, in part too. Look at the leadership, and ask again.
    #[error("changing the voters was not confirmed in time: it may or may not happen")]
    Unknown,
    /// The log has stopped: this process must end.
    #[error("the metadata log has stopped: {0}")]
    Stopped(String),
}
