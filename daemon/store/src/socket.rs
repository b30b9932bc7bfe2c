//! Reads and writes of a blob connection. Each must make progress within [`CHUNK_TIMEOUT`], or the connection is closed.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use idunno_shared::client::files::connection::read_chunk;
use idunno_shared::client::frames::FrameIoError;
use idunno_shared::ids::Digest;
use idunno_shared::wire::blobs::EXTENT_BYTES_MAX;
use idunno_shared::wire::frame::FrameError;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// How long the caller may take to send the next chunk of an announced blob, or to read one that it requested.
pub const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
pub(super) const SOCKET_BUFFER_BYTES: usize = 256 << 10;

/// Why this side closed a connection.
#[derive(Debug, Error)]
pub enum ServeError {
    #[error("the blob connection failed: {0}")]
    Frame(#[from] FrameIoError),
    #[error("the caller announced a blob of {0} bytes, but at most {EXTENT_BYTES_MAX} are allowed")]
    TooLarge(u64),
    /// No progress within [`CHUNK_TIMEOUT`].
    #[error("the caller stalled in the middle of a blob")]
    Stalled,
    #[error("cannot read blob {digest}: {source}")]
    Read { digest: Digest, source: io::Error },
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

/// Reads a chunk of so many bytes.
pub(super) async fn read_within<R>(reader: &mut R, length: usize) -> Result<Bytes, ServeError>
where
    R: AsyncRead + Send + Unpin,
{
    let read = timeout(CHUNK_TIMEOUT, read_chunk(reader, length, || ())).await;
    Ok(read.map_err(|_| ServeError::Stalled)??)
}

/// Writes the bytes.
pub(super) async fn write_within<W: AsyncWrite + Unpin>(
    writer: &mut W,
    bytes: &[u8],
) -> Result<(), ServeError> {
    Ok(timeout(CHUNK_TIMEOUT, writer.write_all(bytes)).await.map_err(|_| ServeError::Stalled)??)
}

/// Sends what is buffered.
pub(super) async fn flush_within<W: AsyncWrite + Unpin>(writer: &mut W) -> Result<(), ServeError> {
    Ok(timeout(CHUNK_TIMEOUT, writer.flush()).await.map_err(|_| ServeError::Stalled)??)
}
