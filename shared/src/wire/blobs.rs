//! Blobs on the wire, and what the coordinator asks of a file server.
//!
//! On a connection for blobs the caller sends [`BlobRequest`] frames, each put followed by exactly `size` raw
//! bytes; many may be in flight. The server sends [`BlobReply`] frames: puts are answered as they become durable,
//! in any order; gets are answered in order, each followed by its raw bytes.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, NodeId, Term, UploadId};

/// Largest blob, in bytes: a larger file is cut into extents of this size.
pub const EXTENT_BYTES_MAX: u64 = 64 << 20;
/// Copies of every blob, while there are as many members.
pub const COPIES: usize = 4;
/// Most puts that one connection may have unanswered; the server stops reading beyond.
pub const PUTS_IN_FLIGHT_MAX: usize = 256;
/// Most digests in one inventory frame.
pub const INVENTORY_DIGESTS_MAX: usize = 65_536;

/// A blob: its name and its size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// The digest of its bytes.
    pub digest: Digest,
    /// Its size in bytes, at most [`EXTENT_BYTES_MAX`].
    pub size: u64,
}

/// A member that stores, or is to store, a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Holder {
    /// The member.
    pub node: NodeId,
    /// Where it listens.
    pub address: SocketAddr,
}

/// A blob and the members that hold it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedBlob {
    /// The blob.
    pub blob: BlobRef,
    /// Who holds it.
    pub holders: Vec<Holder>,
}

/// On a connection for blobs, from the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobRequest {
    /// Store the `blob.size` raw bytes that follow, and pass them on down the chain.
    Put {
        /// The caller's number for the answer.
        id: u64,
        /// What follows.
        blob: BlobRef,
        /// The upload it belongs to: the holder keeps the blob until that is over.
        upload: UploadId,
        /// The holders after this one; at most [`COPIES`].
        chain: Vec<Holder>,
    },
    /// Send a blob's bytes from `offset` to its end.
    Get {
        /// The caller's number for the answer.
        id: u64,
        /// The blob.
        digest: Digest,
        /// The first byte wanted.
        offset: u64,
    },
    /// What was sent of this blob has another digest: look at it. Not answered.
    Doubt {
        /// The blob.
        digest: Digest,
    },
}

/// On a connection for blobs, from the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobReply {
    /// What became of a put.
    Stored {
        /// The put's number.
        id: u64,
        /// The members on which the blob is durable and verified.
        holders: Vec<NodeId>,
        /// The members of the chain that failed, and why. One of which neither is known was out of reach behind them.
        failed: Vec<(NodeId, String)>,
    },
    /// Puts wait for the disk, and it is no older than it should be: do not take the silence for death.
    Working,
    /// The blob's bytes follow, `bytes` of them.
    Data {
        /// The get's number.
        id: u64,
        /// How many raw bytes follow this frame.
        bytes: u64,
    },
    /// This member does not hold the blob, or cannot read it.
    Missing {
        /// The get's number.
        id: u64,
        /// Why.
        reason: String,
    },
}

/// What a coordinator orders of a file server. Orders of an older term, or for another member, are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOrder {
    /// The coordinator's term: no order of an older one is obeyed once this one came.
    pub term: Term,
    /// Who is to obey: another member may have come to its address.
    pub to: NodeId,
    /// What to do.
    pub request: FileRequest,
}

/// What a file server is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileRequest {
    /// Fetch a blob from one of its holders, verify it and store it durably.
    Copy {
        /// The blob.
        blob: BlobRef,
        /// Who has it, best first.
        sources: Vec<Holder>,
    },
    /// Delete these blobs, unless an upload at or above the watermark touched them.
    Collect {
        /// The boot count of the process that the order was made for: one that restarted has forgotten its pins.
        generation: u64,
        /// The order's number in its term: see [`FileRequest::Inventory`].
        number: u64,
        /// Every upload below is over.
        watermark: UploadId,
        /// What to delete.
        digests: Vec<Digest>,
    },
    /// List what is stored, in digest order.
    Inventory {
        /// Orders of this term to delete with lower numbers are void from here on, wherever they still are: what is
        /// listed does not vanish by them.
        void_below: u64,
        /// Only digests above this one.
        after: Option<Digest>,
    },
}

/// A file server's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileReply {
    /// The copy is durable and verified here.
    Copied,
    /// These were deleted, or were not here; the others stay.
    Collected {
        /// Gone from this member.
        gone: Vec<Digest>,
    },
    /// What is stored.
    Inventory {
        /// The process' boot count: pins of uploads do not outlive it.
        generation: u64,
        /// In digest order, at most [`INVENTORY_DIGESTS_MAX`].
        digests: Vec<Digest>,
        /// Whether more follow behind the last one.
        more: bool,
        /// Bytes of the disk that blobs may still take; none while the disk is out of order.
        free_bytes: u64,
        /// Blobs that were found damaged and given up since the process began.
        damaged: u64,
    },
}
