//! Messages between voters, and from the coordinator to members without a vote: the calls of the metadata log, the
//! announcement of its leader, and the ring election that nominates a candidate.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::bounded;
use crate::access::{NAMES_MAX, SubjectName};
use crate::ids::{NodeId, Term};

/// Most voters of a cluster, and so the most voters that a nomination visits. Of seven any three may die at once, and the
/// other four are still a majority.
pub const VOTERS_MAX: usize = 7;

/// A Raft call. The payload is the consensus library's own message, encoded by the daemon as MessagePack.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ConsensusRequest {
    /// The leader appends entries, or sends a heartbeat.
    Append(#[serde(with = "serde_bytes")] Vec<u8>),
    /// A candidate asks for a vote.
    Vote(#[serde(with = "serde_bytes")] Vec<u8>),
    /// The leader sends a part of a snapshot.
    Snapshot(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// The reply to a Raft call: the library's own `Result`, encoded as MessagePack.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConsensusReply(#[serde(with = "serde_bytes")] pub Vec<u8>);

/// The coordinator announces itself to members that receive no entries of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderAnnouncement {
    /// Term of the sender, which coordinates in it.
    pub term: Term,
    /// The voters; during a change of voters, the old and the new ones.
    pub voters: BTreeSet<NodeId>,
    /// The names whose identities are revoked.
    #[serde(
        default,
        deserialize_with = "bounded::list::<NAMES_MAX, _, _>",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub revoked: Vec<SubjectName>,
}

/// A round of the ring election, created by the voter that starts it. Of two rounds the greater one supersedes the lesser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ElectionId {
    /// One more than the greatest number that the initiator has seen, so that a later round supersedes an earlier one.
    pub number: u64,
    /// The voter that started the round.
    pub initiator: NodeId,
    /// Random: distinguishes rounds of the initiator before and after a restart.
    pub nonce: u32,
}

/// The last entry of a voter's log. The greater position is the more up-to-date log, as Raft compares them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogPosition {
    /// Term of the entry.
    pub term: Term,
    /// Index of the entry.
    pub index: u64,
}

/// A voter and the end of its log. The greatest candidate wins the nomination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// The end of the voter's log.
    pub log: LogPosition,
    /// The voter's id, which breaks ties.
    pub id: NodeId,
}

/// A nomination's list of visited voters is longer than [`VOTERS_MAX`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the nomination has visited {0} voters; a cluster has at most {VOTERS_MAX}")]
pub struct TooManyVoters(usize);

/// The voters that a nomination has visited, in order: at most [`VOTERS_MAX`], without repetition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Visited(#[serde(deserialize_with = "bounded::list::<VOTERS_MAX, _, _>")] Vec<NodeId>);

impl Visited {
    /// The visited voters, first one first.
    pub fn as_slice(&self) -> &[NodeId] {
        &self.0
    }

    /// Adds `voter`, unless the list is full; returns whether the list holds it now.
    pub fn add(&mut self, voter: NodeId) -> bool {
        if !self.0.contains(&voter) && self.0.len() < VOTERS_MAX {
            self.0.push(voter);
        }
        self.0.contains(&voter)
    }
}

impl TryFrom<Vec<NodeId>> for Visited {
    type Error = TooManyVoters;

    fn try_from(voters: Vec<NodeId>) -> Result<Self, Self::Error> {
        if voters.len() > VOTERS_MAX { Err(TooManyVoters(voters.len())) } else { Ok(Self(voters)) }
    }
}

impl From<Visited> for Vec<NodeId> {
    fn from(visited: Visited) -> Self {
        visited.0
    }
}

/// The content of a [`RingMessage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RingBody {
    /// Collects the best candidate. When it returns to its initiator, it has visited every voter.
    Nominate {
        /// The round.
        round: ElectionId,
        /// The best candidate so far.
        best: Candidate,
        /// The voters visited so far.
        visited: Visited,
    },
    /// Announces the result: only `winner` may stand for leader.
    Elected {
        /// The round.
        round: ElectionId,
        /// The best candidate among the voters visited.
        winner: Candidate,
    },
    /// Acknowledges the message of one hop.
    Ack,
}

/// A message from one voter of the ring to the next, or the acknowledgement of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingMessage {
    /// The sender's number for this hop; the acknowledgement repeats it.
    pub hop: u64,
    /// The highest term that the sender knows. Receivers ignore rounds that an elected leader has overtaken.
    pub term: Term,
    /// What the message says.
    pub body: RingBody,
}
