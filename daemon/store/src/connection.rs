//! What both halves of a connection for blobs have in common: how long they wait, and why they end.

use std::io;
use std::time::Duration;

use idunno_shared::client::frames::FrameIoError;
use idunno_shared::ids::Digest;
use idunno_shared::wire::blobs::{COPIES, EXTENT_BYTES_MAX};
use idunno_shared::wire::frame::FrameError;
use thiserror::Error;

/// How long a caller may take for the next chunk of a blob that it announced, or to take one that it asked for.
pub const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
pub(super) const SOCKET_BUFFER_BYTES: usize = 256 << 10;

/// Why a connection was ended by this side.
#[derive(Debug, Error)]
pub enum ServeError {
    /// It failed, or carried what is not a frame.
    #[error("a connection for blobs failed: {0}")]
    Frame(#[from] FrameIoError),
    /// The caller announced more than an extent.
    #[error("the caller announced a blob of {0} bytes, at most {EXTENT_BYTES_MAX} are possible")]
    TooLarge(u64),
    /// The caller named more holders than there are copies.
    #[error("the caller named a chain of {0} holders, at most {COPIES} are possible")]
    ChainTooLong(usize),
    /// No bytes within [`CHUNK_TIMEOUT`].
    #[error("the caller stopped in the middle of a blob")]
    Stalled,
    /// A blob could not be read to its end.
    #[error("cannot read blob {digest}: {source}")]
    Read {
        /// The blob.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
}

impl From<io::Error> for ServeError {
    fn from(error: io::Error) -> Self {
        Self::Frame(error.into())
    }
}

impl From<FrameError> for ServeError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error.into())
    }
}
