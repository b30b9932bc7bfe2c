//! Connections and frames.
//!
//! A connection opens with a [`Hello`] and a [`HelloReply`]. After that, a connection for calls carries [`Call`]s one way
//! and [`Answer`]s the other, in any order, matched by `id`. A blob connection carries the messages of [`super::blobs`],
//! each followed by as many raw bytes as it announces.
//!
//! A frame is a 4-byte big-endian length, then that many bytes of MessagePack, at most [`FRAME_BYTES_MAX`].

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::blobs::{FileReply, ReplicaCommand};
use super::consensus::{ConsensusReply, ConsensusRequest, LeaderAnnouncement, RingMessage};
use super::control::{ControlReply, ControlRequest};
use super::jobs::{JobReply, JobRequest, WorkReply, WorkRequest};
use super::membership::{IntroductionReply, IntroductionRequest, PushPull, TcpPing, TcpPong};
use super::refusal::Refusal;
use super::version::{SPOKEN, Versions};
use crate::ids::NodeId;

/// Largest frame, in bytes; checked before memory is allocated for it.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// Largest request of a viewer, in bytes: a lookup of as many names as allowed, of the greatest length.
pub const VIEWER_REQUEST_BYTES_MAX: usize = (1 << 20) + (64 << 10);
/// Largest request of an operator, in bytes: the commit of a file of 4 TiB has 6 MiB.
pub const OPERATOR_REQUEST_BYTES_MAX: usize = 8 << 20;
/// Largest greeting and largest message of a blob connection, in bytes.
pub const HEADER_BYTES_MAX: usize = 64 << 10;
/// Opens every [`Hello`], so that a client of another protocol is recognised.
pub const MAGIC: u32 = 0x1D02_2025;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// [`Call`]s and [`Answer`]s.
    Calls,
    /// The messages of [`super::blobs`], with raw bytes between them.
    Blobs,
}

/// The first frame of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`MAGIC`].
    pub magic: u32,
    /// Newest protocol version that the caller speaks.
    pub version: u16,
    /// Oldest protocol version that the caller speaks.
    pub oldest: u16,
    /// What the connection is for.
    pub purpose: Purpose,
    /// The calling member's id; `None` from a client.
    pub from: Option<NodeId>,
}

impl Hello {
    /// The greeting of this process.
    pub const fn new(purpose: Purpose, from: Option<NodeId>) -> Self {
        Self { magic: MAGIC, version: SPOKEN.newest, oldest: SPOKEN.oldest, purpose, from }
    }

    /// The protocol versions that the caller speaks.
    pub const fn versions(&self) -> Versions {
        Versions { oldest: self.oldest, newest: self.version }
    }
}

/// The reply to a [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HelloReply {
    /// The connection is accepted.
    Welcome {
        /// The answering member's id; `None` from the introducer.
        node: Option<NodeId>,
        /// The protocol version of all that follows.
        version: u16,
    },
    /// The connection is refused, and closed after this frame.
    Refused {
        /// Why, and what to do.
        reason: String,
        /// Whether the caller's identity is revoked, so that every member refuses it for good.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        revoked: bool,
    },
}

/// A request on a connection for calls.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the caller; unique among the connection's unanswered calls.
    pub id: u64,
    /// The request.
    pub request: Request,
}

/// The answer to a [`Call`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The call's id.
    pub id: u64,
    /// Whether further answers to the same call follow.
    pub more: bool,
    /// The answer.
    pub reply: Reply,
}

/// Requests, by the part of a member that serves them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Failure detector: exchange membership lists.
    PushPull(PushPull),
    /// Failure detector: a probe over TCP.
    Ping(TcpPing),
    /// Ring election.
    Election(RingMessage),
    /// Metadata log.
    Consensus(ConsensusRequest),
    /// File server.
    Files(ReplicaCommand),
    /// Coordinator, from a worker.
    Jobs(JobRequest),
    /// Control, from a client or from a member on a client's behalf.
    Control(ControlRequest),
    /// Introducer.
    Introduction(IntroductionRequest),
    /// From the coordinator to members that receive no entries of the log.
    #[serde(rename = "Coordinates")]
    LeaderAnnouncement(LeaderAnnouncement),
    /// Worker, from the coordinator.
    Work(WorkRequest),
}

/// Replies, by the kind of request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The other member's list.
    PushPull(PushPull),
    /// To a TCP ping.
    Pong(TcpPong),
    /// The election message was received.
    Election,
    /// From the metadata log.
    Consensus(ConsensusReply),
    /// From the file server.
    Files(FileReply),
    /// From the coordinator to a worker.
    Jobs(JobReply),
    /// To a control request.
    Control(Box<ControlReply>),
    /// From the introducer.
    Introduction(IntroductionReply),
    /// The request was refused.
    Refused(Refusal),
    /// The leader announcement was received.
    #[serde(rename = "Heard")]
    LeaderNoted,
    /// From a worker to the coordinator.
    Work(WorkReply),
}

/// Why a frame could not be read or written.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The frame exceeds its limit.
    #[error(
        "a frame of {bytes} bytes exceeds the limit for its kind (at most {FRAME_BYTES_MAX} for any): the peer is faulty or speaks another protocol"
    )]
    TooLarge {
        /// Length of the frame, in bytes.
        bytes: usize,
    },
    /// The body is not the expected message.
    #[error("cannot decode a frame: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    /// The message cannot be encoded.
    #[error("cannot encode a message: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
}

/// Appends `message` to `buffer` as a frame. On an error `buffer` may end in a partial frame.
pub fn encode_frame<T: Serialize>(message: &T, buffer: &mut Vec<u8>) -> Result<(), FrameError> {
    encode_frame_with(buffer, |buffer| rmp_serde::encode::write(buffer, message))
}

/// Appends a [`Hello`] or [`HelloReply`] to `buffer` as a frame whose fields have names: see [`super::version`].
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

/// The length of a frame's body, from the frame's first four bytes. Fails if it exceeds [`FRAME_BYTES_MAX`].
pub fn frame_length(header: [u8; 4]) -> Result<usize, FrameError> {
    let bytes = u32::from_be_bytes(header) as usize;
    if bytes > FRAME_BYTES_MAX { Err(FrameError::TooLarge { bytes }) } else { Ok(bytes) }
}

/// Decodes a frame's body.
pub fn decode_body<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, FrameError> {
    Ok(rmp_serde::from_slice(body)?)
}
