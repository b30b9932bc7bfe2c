//! Blob transfer, and the coordinator's commands to the file server of a member.
//!
//! On a blob connection the client sends [`BlobRequest`] frames, each put followed by exactly `size` raw bytes. Many
//! requests may be in flight. The server sends [`BlobReply`] frames: it answers puts as they become durable, in any
//! order, and gets in the order of the requests, each answer followed by its raw bytes.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::bounded;
use crate::ids::{Digest, NodeId, Term, UploadId};

/// Largest blob, in bytes. A larger file is stored as several extents of this size.
pub const EXTENT_BYTES_MAX: u64 = 64 << 20;
/// Copies that a blob should have; fewer in a cluster with fewer members.
pub const COPIES: usize = 4;
/// Most holders of one blob in a message: every member of the largest cluster.
pub const HOLDERS_MAX: usize = 1_024;
/// Most unanswered puts on one connection. The server reads no further request until one is answered.
pub const PUTS_IN_FLIGHT_MAX: usize = 256;
/// Most digests in one page of an inventory.
pub const INVENTORY_DIGESTS_MAX: usize = 65_536;

/// A blob's identity and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// Digest of the blob's bytes.
    pub digest: Digest,
    /// Size in bytes, at most [`EXTENT_BYTES_MAX`].
    pub size: u64,
}

/// A member that stores a blob, or is chosen to store one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Holder {
    /// The member's id.
    pub node: NodeId,
    /// The address at which the member listens.
    pub address: SocketAddr,
}

/// A blob and where it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedBlob {
    /// The blob.
    pub blob: BlobRef,
    /// The members that hold a copy.
    #[serde(deserialize_with = "bounded::list::<HOLDERS_MAX, _, _>")]
    pub holders: Vec<Holder>,
}

/// From the client of a blob connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobRequest {
    /// Store the `blob.size` raw bytes that follow, and forward them along the chain.
    Put {
        /// Request id, chosen by the client; the reply repeats it.
        id: u64,
        /// The blob whose bytes follow.
        blob: BlobRef,
        /// The upload that the blob is part of. The holder keeps the blob at least until the upload is over.
        upload: UploadId,
        /// The holders to forward to, next one first; at most [`COPIES`].
        #[serde(deserialize_with = "bounded::list::<COPIES, _, _>")]
        chain: Vec<Holder>,
    },
    /// Send a blob's bytes from `offset` to its end.
    Get {
        /// Request id, chosen by the client; the reply repeats it.
        id: u64,
        /// The blob to read.
        digest: Digest,
        /// First byte to send, from 0.
        offset: u64,
    },
    /// The bytes received do not match the blob's digest: verify the copy on disk. Not answered.
    #[serde(rename = "Doubt")]
    ReportCorrupt {
        /// The blob to verify.
        digest: Digest,
    },
}

/// From the server of a blob connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobReply {
    /// The outcome of a put, for the whole chain.
    Stored {
        /// Id of the put.
        id: u64,
        /// Members on which the blob is durable and verified.
        #[serde(deserialize_with = "bounded::list::<HOLDERS_MAX, _, _>")]
        holders: Vec<NodeId>,
        /// Members of the chain that failed, each with the reason. A member in neither list was not reached, because one
        /// before it failed.
        #[serde(deserialize_with = "bounded::list::<HOLDERS_MAX, _, _>")]
        failed: Vec<(NodeId, String)>,
    },
    /// Keep-alive while puts wait for a disk that is slow but within its limit.
    Working,
    /// The reply to a get: `bytes` raw bytes follow this frame.
    Data {
        /// Id of the get.
        id: u64,
        /// Number of raw bytes that follow.
        bytes: u64,
    },
    /// The member does not hold the blob, or cannot read it.
    Missing {
        /// Id of the get.
        id: u64,
        /// Why the blob cannot be sent.
        reason: String,
    },
}

/// A command from the coordinator to a member's file server. One with an older term, or for another member, is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaCommand {
    /// The coordinator's term. Once a file server has seen a term, it refuses commands of older ones.
    pub term: Term,
    /// The member that is to execute it: another one may have taken over the address.
    pub to: NodeId,
    /// What to do.
    pub request: FileRequest,
}

/// What a file server is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileRequest {
    /// Fetch a blob from one of its holders, verify it and store it durably.
    Copy {
        /// The blob to fetch.
        blob: BlobRef,
        /// Holders to fetch from, best first.
        #[serde(deserialize_with = "bounded::list::<HOLDERS_MAX, _, _>")]
        sources: Vec<Holder>,
    },
    /// Delete blobs, except those that an upload at or above the watermark has touched.
    Collect {
        /// Boot count of the process that the command is for. A restarted process has lost its pins, so it must refuse.
        generation: u64,
        /// Number of the command within its term: see [`FileRequest::Inventory`].
        number: u64,
        /// All uploads below this one are over.
        watermark: UploadId,
        /// The blobs to delete.
        #[serde(deserialize_with = "bounded::list::<INVENTORY_DIGESTS_MAX, _, _>")]
        digests: Vec<Digest>,
    },
    /// List the stored blobs in digest order.
    Inventory {
        /// Voids every [`FileRequest::Collect`] of this term with a lower number, even one still in flight, so that none
        /// deletes a blob after it was listed.
        void_below: u64,
        /// List only digests greater than this one.
        after: Option<Digest>,
    },
}

/// A file server's answer to a [`ReplicaCommand`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileReply {
    /// The copy is durable and verified.
    Copied,
    /// The outcome of a [`FileRequest::Collect`].
    Collected {
        /// The blobs that the member no longer holds. The others were kept.
        #[serde(deserialize_with = "bounded::list::<INVENTORY_DIGESTS_MAX, _, _>")]
        gone: Vec<Digest>,
    },
    /// A page of the inventory.
    Inventory {
        /// Boot count of the process; pins of uploads are lost with it.
        generation: u64,
        /// Stored blobs in digest order, at most [`INVENTORY_DIGESTS_MAX`].
        #[serde(deserialize_with = "bounded::list::<INVENTORY_DIGESTS_MAX, _, _>")]
        digests: Vec<Digest>,
        /// Whether more digests follow the last one.
        more: bool,
        /// Bytes still available to blobs; 0 while the disk is faulty.
        free_bytes: u64,
        /// Blobs found damaged and discarded since the process started.
        damaged: u64,
        /// Whether the disk does not answer.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        disk_hung: bool,
    },
}
