//! Why files were not put.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::client::cluster::ClusterError;

/// Why files were not put. Those committed before the error stay.
#[derive(Debug, Error)]
pub enum PutError {
    /// A local file cannot be put.
    #[error("cannot put {}: {source}", path.display())]
    Local {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The local file was written to while it was read.
    #[error("{} changed while it was read: put it again when it is no longer being written", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A blob of more than 64 MiB, or a file of too many extents.
    #[error("{what} has {bytes} bytes; at most {limit} are allowed")]
    TooLarge {
        /// What.
        what: String,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Not one member could store the blob.
    #[error(
        "no member could store {what} (tried {tried}): check that members are up and have free disk space"
    )]
    NoHolder {
        /// The blob.
        what: String,
        /// Who was tried, and what happened.
        tried: String,
    },
    /// Nothing was stored for as long as was allowed.
    #[error(
        "nothing was stored for {} s: a member does not answer, or its disk does not; 'idunno status' names it",
        .0.as_secs()
    )]
    Stalled(Duration),
    /// The upload ended again and again before it could be committed.
    #[error("the upload was given up by the cluster {tries} times before it could be committed: try again")]
    UploadOver {
        /// How often it was begun.
        tries: u32,
    },
    /// The coordinator could not be reached, or refused.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}
