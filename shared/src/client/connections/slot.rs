//! The key of a connection: its peer, and what it carries.

use std::net::SocketAddr;

use crate::ids::NodeId;
use crate::wire::frame::{Purpose, Request};

/// What a connection carries. Each lane is a connection of its own, so that bulk in one never delays another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Raft and election messages: they are small, and late ones cause a failover.
    Consensus,
    /// All other calls; an answer may have megabytes.
    Calls,
    /// Bytes of files.
    Blobs(BlobLane),
}

/// Which bytes. Gets are answered in order, so small ones must not share a lane with large ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BlobLane {
    /// Puts of this process's own.
    Puts,
    /// Gets of small blobs.
    Gets,
    /// Gets of large blobs, one of several side by side.
    Large(u8),
    /// Small copies that repair orders.
    RepairGets,
    /// Large copies that repair orders.
    RepairLarge,
    /// Puts passed down a chain. Such a connection serves one incoming connection at a time: if chains shared it, each
    /// could wait for the next one round a circle of holders.
    Chain(u16),
}

impl Lane {
    /// The lane of a request.
    pub const fn of(request: &Request) -> Self {
        match request {
            Request::Consensus(_) | Request::Election(_) => Self::Consensus,
            _ => Self::Calls,
        }
    }

    /// The purpose that its connections name in their hello.
    pub const fn purpose(self) -> Purpose {
        match self {
            Self::Consensus | Self::Calls => Purpose::Calls,
            Self::Blobs(_) => Purpose::Blobs,
        }
    }
}

/// The peer of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// This member, wherever it listens.
    Member(NodeId),
    /// The process that listens there: a seed, an introducer, a newcomer.
    Address(SocketAddr),
}

/// One connection's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    /// The peer.
    pub(super) target: Target,
    /// What is carried.
    pub(super) lane: Lane,
}

impl Slot {
    /// The connection to a member.
    pub(super) const fn of_member(node: NodeId, lane: Lane) -> Self {
        Self { target: Target::Member(node), lane }
    }

    /// The connection to an address.
    pub(super) const fn of_address(address: SocketAddr, lane: Lane) -> Self {
        Self { target: Target::Address(address), lane }
    }
}
