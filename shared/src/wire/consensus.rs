//! Messages of the metadata log. Their payload is the consensus library's own, encoded by the daemon.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ids::{NodeId, Term};

/// A Raft call. The payload is MessagePack.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ConsensusRequest {
    /// Entries, or a heartbeat, from the leader.
    Append(#[serde(with = "serde_bytes")] Vec<u8>),
    /// A candidate asks for a vote.
    Vote(#[serde(with = "serde_bytes")] Vec<u8>),
    /// A piece of a snapshot.
    Snapshot(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// The answer to a Raft call: the library's `Result`, MessagePack.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConsensusReply(#[serde(with = "serde_bytes")] pub Vec<u8>);

/// What a coordinator tells those who may not be sent its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordinates {
    /// The term in which the sender coordinates.
    pub term: Term,
    /// Who votes now; during a change, the old and the new voters.
    pub voters: BTreeSet<NodeId>,
}
