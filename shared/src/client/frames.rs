//! Frames on asynchronous byte streams.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::wire::frame::{FrameError, decode_body, encode_frame, frame_length};

/// Why a message did not get through.
#[derive(Debug, Error)]
pub enum FrameIoError {
    /// The connection failed or ended.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came, or was to go, is not a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Reads one message.
pub async fn read_frame<T, R>(reader: &mut R) -> Result<T, FrameIoError>
where
    T: DeserializeOwned,
    R: AsyncRead + Unpin + ?Sized,
{
    Ok(decode_body(&read_body(reader).await?)?)
}

/// Reads one frame's bytes, behind its length.
pub async fn read_body<R>(reader: &mut R) -> Result<Vec<u8>, FrameIoError>
where
    R: AsyncRead + Unpin + ?Sized,
{
    let mut header = [0; 4];
    reader.read_exact(&mut header).await?;
    let mut body = vec![0; frame_length(header)?];
    reader.read_exact(&mut body).await?;
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
    writer.write_all(&buffer).await?;
    writer.flush().await?;
    Ok(())
}
