//! Files in and out of the cluster's store: streams of bytes between a client and the holders of blobs.
//!
//! Decides how a file is cut, hashed, sent, committed and read back. Source: the design, section 7 (SDFS): a chain of
//! holders as in HDFS and GFS, content-addressed extents as in Garage.
//!
//! Layers, each on the one below: [`connection`] (many puts and gets on one link), [`upload`] (blobs to as many holders as
//! planned), [`source`] (local files, hashed), [`put`], and [`fetch`] (blobs, falling over from holder to holder),
//! [`destination`] (what a path names), [`atomic_file`] (local files, written aside and renamed), [`get`].
//!
//! Invariants: a version is committed only when every extent of it is durable on at least one holder, and with fewer
//! copies than planned only after [`upload::PLANS_MAX`] plans; a local file is replaced only by bytes whose digest was
//! verified.
//!
//! Bounds: a put holds at most [`put::MEMORY_BYTES_MAX`] of file bytes; a get holds a few MiB an extent, at most
//! [`fetch::EXTENTS_IN_FLIGHT`] extents at once.
//!
//! It does not choose holders, and it deletes nothing: the coordinator does.

pub mod atomic_file;
pub mod connection;
pub mod destination;
pub mod direct_io;
pub mod fetch;
pub mod get;
pub mod put;
mod put_error;
pub mod source;
pub mod upload;

use std::time::Duration;

pub use fetch::{SegmentError, Unavailable};
pub use get::{GetError, GetItem, GetReport};
pub use put::{PutItem, PutOptions, PutReport, StoredFiles};
pub use put_error::PutError;
pub use upload::StoredBlobs;

use super::cluster::Cluster;
use crate::ids::NodeId;

/// Receives the progress of a put or a get. Called from the operation's own task, so it must return at once.
pub trait Progress: Send + Sync {
    /// `count` more bytes are done: stored on their holders, verified and written locally, or found there already.
    fn bytes(&self, count: u64);
    /// One more file is done.
    fn file(&self);
    /// How many bytes there are to do, as soon as that is known of a get.
    fn set_total(&self, _bytes: u64) {}
}

/// Ignores progress.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn bytes(&self, _count: u64) {}
    fn file(&self) {}
}

/// The files of a cluster. Cheap to clone; connections to holders are the cluster's.
#[derive(Clone)]
pub struct Files {
    cluster: Cluster,
    near: Option<NodeId>,
    /// How long a get continues without receiving an extent.
    patience: Duration,
    /// How long a put continues without storing anything, if that is limited.
    put_limit: Option<Duration>,
}

impl Files {
    /// The files of `cluster`.
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, near: None, patience: get::DEADLINE, put_limit: None }
    }

    /// The same files, read from `node` first where it holds them.
    #[must_use]
    pub fn near(mut self, node: NodeId) -> Self {
        self.near = Some(node);
        self
    }

    /// The same files, with another limit than [`get::DEADLINE`] on how long a get waits for an extent to be found.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The same files, with a limit on how long a put waits for a blob to be stored.
    #[must_use]
    pub fn put_limit(mut self, limit: Duration) -> Self {
        self.put_limit = Some(limit);
        self
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}
