//! One error per operation.

use std::path::{Path, PathBuf};

use idunno_shared::ids::NodeId;
use thiserror::Error;

/// The metadata log was not opened.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("invalid timing for the metadata log: {0}")]
    Config(String),
    #[error("cannot open the metadata store {path}: {reason}")]
    Store { path: PathBuf, reason: String },
    /// The file is not what this program wrote. A member must not vote on a part of what it promised.
    #[error("the metadata store {path} is damaged: {reason}; {}", way_out(path))]
    Damaged { path: PathBuf, reason: String },
    /// A member must never vote under two ids.
    #[error(
        "the metadata store {path} belongs to member {owner}, and {} names member {expected}: if an 'idunnod recover' was \
         interrupted, repeat it; if the store is another member's, use another data directory; if neither, one of the two files \
         is damaged: {}",
        path.with_file_name("identity.json").display(),
        way_out(path)
    )]
    OtherNode { path: PathBuf, owner: NodeId, expected: NodeId },
    #[error(
        "the metadata store {path} has format {found}, but this program reads format {known}: use the matching release"
    )]
    Format { path: PathBuf, found: u64, known: u64 },
    /// The log or its last snapshot could not be replayed.
    #[error("cannot start the metadata log: {0}")]
    Start(String),
}

/// How a member goes on whose store cannot be used: as a new one, with its blobs.
fn way_out(store: &Path) -> String {
    let data_dir = store.parent().unwrap_or_else(|| Path::new("."));
    format!(
        "run 'idunnod recover --forget-log --yes --data-dir {}', which keeps the blobs, while a majority of the voters is up",
        data_dir.display()
    )
}

/// A survivor's log cannot be the start of a new cluster.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// There is no store, it is damaged, or another process has it open.
    #[error(
        "cannot read the metadata log {path}: {reason}; choose another survivor, or stop the process that uses the file"
    )]
    Unreadable { path: PathBuf, reason: String },
    /// The member never belonged to a cluster.
    #[error("the metadata log {path} is empty: choose another survivor")]
    Empty { path: PathBuf },
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The new store cannot be written. The old one is untouched.
    #[error("cannot write the new metadata log {path}: {reason}; the old log is unchanged")]
    Unwritable { path: PathBuf, reason: String },
}

/// A state cannot be encoded for a backup, or a backup's state cannot be restored.
#[derive(Debug, Error)]
pub enum InitialStateError {
    #[error("{0}")]
    Codec(String),
    #[error("the metadata are inconsistent: {0}")]
    Inconsistent(String),
}

/// The cluster was not created.
#[derive(Debug, Error)]
pub enum BootstrapError {
    #[error("cannot create the cluster: the metadata log has stopped: {0}")]
    Stopped(String),
}

/// A command was not applied, or its outcome is unknown.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// Nothing was changed. `leader` is the leader that this member knows of.
    #[error("this member does not lead the metadata log")]
    NotLeader { leader: Option<NodeId> },
    /// No majority of voters has answered within the lease. Nothing was changed.
    #[error("no majority of the voters answers: the metadata cannot change until one does")]
    NoQuorum,
    /// The command was proposed: repeat it under the same operation id to learn its outcome.
    #[error("the change was proposed but not confirmed in time: it may or may not take effect")]
    Unknown,
    /// Nothing was changed.
    #[error("the change takes {bytes} bytes, but a log entry holds at most {limit}: split it")]
    TooLarge { bytes: usize, limit: usize },
    /// The outcome is unknown, and this process must end.
    #[error("the metadata log has stopped: {0}")]
    Stopped(String),
}

impl ProposeError {
    pub(super) fn shut_down() -> Self {
        Self::Stopped("it was shut down".to_owned())
    }
}

/// This member could not confirm that it leads and has applied everything acknowledged before.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BarrierError {
    #[error("this member does not lead the metadata log")]
    NotLeader { leader: Option<NodeId> },
    #[error("no majority of the voters answers: the newest metadata cannot be read until one does")]
    NoQuorum,
    /// This process must end.
    #[error("the metadata log has stopped: {0}")]
    Stopped(String),
}

/// The voters or learners were not changed, or the outcome is unknown.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VoterChangeError {
    /// Nothing was changed.
    #[error("only the leader changes voters, and this member does not lead")]
    NotLeader { leader: Option<NodeId> },
    /// A voter must first be a learner that has caught up. Nothing was changed.
    #[error("member {0} must be a learner before it can vote")]
    NotLearner(NodeId),
    /// Nothing was changed.
    #[error("the voters were not changed: {0}")]
    Invalid(String),
    /// The change may still happen, wholly or in part: check the leadership and repeat the change.
    #[error("the change of voters was not confirmed in time: it may or may not take effect")]
    Unknown,
    /// This process must end.
    #[error("the metadata log has stopped: {0}")]
    Stopped(String),
}

/// A peer's message was not handled: the peer gets an empty reply, which it treats as an unreachable member.
#[derive(Debug, Error)]
pub(super) enum PeerRequestError {
    #[error("cannot decode it: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    #[error("cannot encode the reply: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
    #[error("the log did not handle it within {limit_ms} ms")]
    TimedOut { limit_ms: u128 },
}
