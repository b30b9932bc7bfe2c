//! Frames on asynchronous byte streams.
//!
//! Bounds: memory is allocated as bytes arrive, not as they are announced; a frame that was begun is complete within
//! [`LENGTH_TIMEOUT`] and [`FRAME_TIMEOUT`], or the connection has failed. Pauses between frames are not limited.

use std::io;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::wire::frame::{
    FRAME_BYTES_MAX, FrameError, decode_body, encode_frame, encode_greeting, frame_length,
};

/// How long the bytes of a frame may take, once its length is known.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a frame's length may take from its first byte on.
pub const LENGTH_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes that are allocated for a frame before its bytes arrive.
const ALLOCATED_BYTES_MAX: usize = 64 << 10;

/// Why a message could not be read or written.
#[derive(Debug, Error)]
pub enum FrameIoError {
    /// The connection failed or ended.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes received are not a frame, or the message cannot be one.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Reads one message.
pub async fn read_frame<T, R>(reader: &mut R) -> Result<T, FrameIoError>
where
    T: DeserializeOwned,
    R: AsyncRead + Unpin + ?Sized,
{
    read_frame_within(reader, FRAME_BYTES_MAX).await
}

/// Reads one message of at most `bytes_max` bytes.
pub async fn read_frame_within<T, R>(reader: &mut R, bytes_max: usize) -> Result<T, FrameIoError>
where
    T: DeserializeOwned,
    R: AsyncRead + Unpin + ?Sized,
{
    Ok(decode_body(&read_body_within(reader, bytes_max).await?)?)
}

/// Reads one frame's bytes, after its length: at most `bytes_max`.
pub async fn read_body_within<R>(reader: &mut R, bytes_max: usize) -> Result<Vec<u8>, FrameIoError>
where
    R: AsyncRead + Unpin + ?Sized,
{
    let bytes = read_length_within(reader, bytes_max).await?;
    read_announced(reader, bytes).await
}

/// Reads the length of a frame's body: at most `bytes_max`. The body is read with [`read_announced`].
pub async fn read_length_within<R>(reader: &mut R, bytes_max: usize) -> Result<usize, FrameIoError>
where
    R: AsyncRead + Unpin + ?Sized,
{
    let mut header = [0; 4];
    reader.read_exact(&mut header[..1]).await?;
    let rest = timeout(LENGTH_TIMEOUT, reader.read_exact(&mut header[1..])).await;
    rest.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let bytes = frame_length(header)?;
    if bytes > bytes_max { Err(FrameError::TooLarge { bytes }.into()) } else { Ok(bytes) }
}

/// Reads the body of a frame whose length was read.
pub async fn read_announced<R>(reader: &mut R, bytes: usize) -> Result<Vec<u8>, FrameIoError>
where
    R: AsyncRead + Unpin + ?Sized,
{
    let mut body = Vec::with_capacity(bytes.min(ALLOCATED_BYTES_MAX));
    let read = async { reader.take(bytes as u64).read_to_end(&mut body).await };
    let read = timeout(FRAME_TIMEOUT, read).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if read < bytes {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(body)
}

/// Writes one message and flushes it.
pub async fn write_frame<T, W>(writer: &mut W, message: &T) -> Result<(), FrameIoError>
where
    T: Serialize,
    W: AsyncWrite + Unpin + ?Sized,
{
    let mut buffer = Vec::with_capacity(256);
    encode_frame(message, &mut buffer)?;
    write_whole(writer, &buffer).await
}

/// Writes one hello or its reply and flushes it.
pub async fn write_greeting<T, W>(writer: &mut W, greeting: &T) -> Result<(), FrameIoError>
where
    T: Serialize,
    W: AsyncWrite + Unpin + ?Sized,
{
    let mut buffer = Vec::with_capacity(128);
    encode_greeting(greeting, &mut buffer)?;
    write_whole(writer, &buffer).await
}

async fn write_whole<W: AsyncWrite + Unpin + ?Sized>(
    writer: &mut W,
    frame: &[u8],
) -> Result<(), FrameIoError> {
    writer.write_all(frame).await?;
    writer.flush().await?;
    Ok(())
}
