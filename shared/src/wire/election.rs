//! What voters pass round the ring when they look for a candidate.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{NodeId, Term};

/// The most voters of a cluster, and so the most stations of a nomination.
pub const MAX_VOTERS: usize = 7;

/// A round of the election, minted by the voter that starts it. The greater one swallows the lesser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ElectionId {
    /// One more than the greatest that its initiator had seen, so that a later round passes an earlier one.
    pub number: u64,
    /// Who started it.
    pub initiator: NodeId,
    /// Tells two lives of one initiator apart.
    pub nonce: u32,
}

/// The last entry of a voter's log. The greater one is more up to date, as Raft compares them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogPosition {
    /// The entry's term.
    pub term: Term,
    /// Its index.
    pub index: u64,
}

/// A voter with its log: the greatest one is nominated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// The end of its log.
    pub log: LogPosition,
    /// Who it is; decides between equal logs.
    pub id: NodeId,
}

/// The list of stations was longer than a cluster has voters.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a nomination that visited {0} voters: a cluster has at most {MAX_VOTERS}")]
pub struct TooManyVoters(usize);

/// The voters that a nomination has passed, in order: at most [`MAX_VOTERS`], none twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<NodeId>", into = "Vec<NodeId>")]
pub struct Visited(Vec<NodeId>);

impl Visited {
    /// The voters.
    pub fn as_slice(&self) -> &[NodeId] {
        &self.0
    }

    /// Adds `voter`, unless it is there or the list is full; says whether it is there now.
    pub fn add(&mut self, voter: NodeId) -> bool {
        if !self.0.contains(&voter) && self.0.len() < MAX_VOTERS {
            self.0.push(voter);
        }
        self.0.contains(&voter)
    }
}

impl TryFrom<Vec<NodeId>> for Visited {
    type Error = TooManyVoters;

    fn try_from(voters: Vec<NodeId>) -> Result<Self, Self::Error> {
        if voters.len() > MAX_VOTERS { Err(TooManyVoters(voters.len())) } else { Ok(Self(voters)) }
    }
}

impl From<Visited> for Vec<NodeId> {
    fn from(visited: Visited) -> Self {
        visited.0
    }
}

/// What goes round, and the acknowledgement of each hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RingBody {
    /// Who is fittest? Back at its initiator it has the answer.
    Nominate {
        /// The round.
        round: ElectionId,
        /// The fittest voter so far.
        best: Candidate,
        /// The voters that it has passed.
        visited: Visited,
    },
    /// `winner` may stand, and nobody else.
    Elected {
        /// The round.
        round: ElectionId,
        /// The fittest of the voters visited.
        winner: Candidate,
    },
    /// The message of hop `hop` arrived.
    Ack,
}

/// A message between two voters of the ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingMessage {
    /// The sender's number for the hop; an acknowledgement repeats it.
    pub hop: u64,
    /// The highest term that the sender knows: receivers ignore rounds that a newer leader has overtaken.
    pub term: Term,
    /// What it says.
    pub body: RingBody,
}
