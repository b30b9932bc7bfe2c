//! Connections and frames.
//!
//! A connection opens with one [`Hello`] and its [`HelloReply`]. A connection for calls then carries [`Call`]s one
//! way and [`Answer`]s the other, in any order, matched by `id`. A connection for blobs carries the messages of
//! [`super::blobs`], each followed by as many raw bytes as it says.
//! Every frame is a 4-byte big-endian length and that many bytes of MessagePack, at most [`FRAME_BYTES_MAX`].

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::blobs::{FileOrder, FileReply};
use super::consensus::{ConsensusReply, ConsensusRequest, Coordinates};
use super::control::{ControlReply, ControlRequest};
use super::election::RingMessage;
use super::introduction::{IntroductionReply, IntroductionRequest};
use super::jobs::{JobReply, JobRequest, WorkReply, WorkRequest};
use super::membership::{PushPull, TcpPing, TcpPong};
use super::refusal::Refusal;
use super::version::{SPOKEN, Versions};
use crate::ids::NodeId;

/// Largest frame, in bytes: checked before anything is allocated.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// Largest hello and largest header of a blob, in bytes.
pub const HEADER_BYTES_MAX: usize = 64 << 10;
/// The first bytes of every connection's hello, so that a stray client is told apart.
pub const MAGIC: u32 = 0x1D02_2025;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Calls and answers.
    Calls,
    /// Blobs with raw bytes behind their headers.
    Blobs,
}

/// The first frame of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`MAGIC`].
    pub magic: u32,
    /// The newest version that the caller speaks.
    pub version: u16,
    /// The oldest.
    pub oldest: u16,
    /// What follows.
    pub purpose: Purpose,
    /// The member that calls; a client has none.
    pub from: Option<NodeId>,
}

impl Hello {
    /// This process's.
    pub const fn new(purpose: Purpose, from: Option<NodeId>) -> Self {
        Self { magic: MAGIC, version: SPOKEN.newest, oldest: SPOKEN.oldest, purpose, from }
    }

    /// What the caller speaks.
    pub const fn versions(&self) -> Versions {
        Versions { oldest: self.oldest, newest: self.version }
    }
}

/// The answer to a [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HelloReply {
    /// Go on.
    Welcome {
        /// Who answers; an introducer has no id.
        node: Option<NodeId>,
        /// The version that both speak from here on.
        version: u16,
    },
    /// The connection is closed behind this frame.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
}

/// A request under the caller's number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// Unique among the connection's unanswered calls.
    pub id: u64,
    /// What is asked.
    pub request: Request,
}

/// An answer to the call of the same number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The call's number.
    pub id: u64,
    /// Whether more answers to this call follow (watching).
    pub more: bool,
    /// The answer.
    pub reply: Reply,
}

/// Requests by the part of a member that takes them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// To the failure detector: its list against ours.
    PushPull(PushPull),
    /// To the failure detector, when datagrams get lost.
    Ping(TcpPing),
    /// To the ring election.
    Election(RingMessage),
    /// To the metadata log.
    Consensus(ConsensusRequest),
    /// To the file server.
    Files(FileOrder),
    /// From a worker to the coordinator.
    Jobs(JobRequest),
    /// From people's tools, and from members on their behalf.
    Control(ControlRequest),
    /// From a member to the introducer.
    Introduction(IntroductionRequest),
    /// From the member that coordinates to every other: those that are not sent the log learn it so.
    Coordinates(Coordinates),
    /// From the member that coordinates to a worker.
    Work(WorkRequest),
}

/// Answers, by the part that gave them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The failure detector's list.
    PushPull(PushPull),
    /// The member is here.
    Pong(TcpPong),
    /// The election message was taken.
    Election,
    /// The metadata log's.
    Consensus(ConsensusReply),
    /// The file server's.
    Files(FileReply),
    /// The coordinator's, to a worker.
    Jobs(JobReply),
    /// To people's tools.
    Control(Box<ControlReply>),
    /// The introducer's.
    Introduction(IntroductionReply),
    /// Not done, and why.
    Refused(Refusal),
    /// It is known who coordinates.
    Heard,
    /// A worker's, to the coordinator.
    Work(WorkReply),
}

/// Why bytes are not a frame.
#[derive(Debug, Error)]
pub enum FrameError {
    /// Larger than any frame may be.
    #[error(
        "a frame of {bytes} bytes is over the limit of its kind (of all: {FRAME_BYTES_MAX}): the peer is broken or speaks another protocol"
    )]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The bytes do not decode to the expected message.
    #[error("a frame does not decode: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    /// The message does not encode.
    #[error("a message does not encode: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
}

/// Appends `message` to `buffer` as a frame.
pub fn encode_frame<T: Serialize>(message: &T, buffer: &mut Vec<u8>) -> Result<(), FrameError> {
    encode_frame_with(buffer, |buffer| rmp_serde::encode::write(buffer, message))
}

/// Appends a [`Hello`] or [`HelloReply`] to `buffer` as a frame, its fields by name: see [`super::version`].
pub fn encode_greeting<T: Serialize>(greeting: &T, buffer: &mut Vec<u8>) -> Result<(), FrameError> {
    encode_frame_with(buffer, |buffer| rmp_serde::encode::write_named(buffer, greeting))
}

fn encode_frame_with(
    buffer: &mut Vec<u8>,
    encode: impl FnOnce(&mut Vec<u8>) -> Result<(), rmp_serde::encode::Error>,
) -> Result<(), FrameError> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    encode(buffer)?;
    let bytes = buffer.len() - start - 4;
    if bytes > FRAME_BYTES_MAX {
        buffer.truncate(start);
        return Err(FrameError::TooLarge { bytes });
    }
    let length = u32::try_from(bytes).unwrap_or(u32::MAX);
    buffer[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// The body length that a frame's first four bytes announce, if it is within the limit.
pub fn frame_length(header: [u8; 4]) -> Result<usize, FrameError> {
    let bytes = u32::from_be_bytes(header) as usize;
    if bytes > FRAME_BYTES_MAX { Err(FrameError::TooLarge { bytes }) } else { Ok(bytes) }
}

/// Decodes a frame's body.
pub fn decode_body<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, FrameError> {
    Ok(rmp_serde::from_slice(body)?)
}
