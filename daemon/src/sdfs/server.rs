//! Serves one connection for blobs: stores what comes while passing it on down the chain, and sends what is asked for.
//!
//! Source: the design, section 7; chains as in HDFS.
//!
//! Invariants: a put is answered once this member and all behind it are durable or failed; bytes whose digest is
//! wrong are stored nowhere; the answer names every member of the chain.
//!
//! Bounds, a connection: [`PUTS_IN_FLIGHT_MAX`] puts unanswered, then it is not read on; [`GETS_IN_FLIGHT_MAX`] gets
//! waiting, [`GROUPS_PREPARED`] groups of them opened; one connection to each next holder. Small blobs in memory are bounded
//! by the store, large ones to a few chunks each, [`LARGE_PUTS_MAX`] at once in the whole process.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt, unfold};
use idunno_shared::client::files::connection::{
    BlobConnection, CHUNK_BYTES_MAX, GETS_IN_FLIGHT_MAX, PendingPut, PutStream, read_chunk,
};
use idunno_shared::client::files::direct::AlignedBuffer;
use idunno_shared::client::files::pool::{BlobPool, Lane};
use idunno_shared::client::frames::{FrameIoError, read_frame};
use idunno_shared::client::link::Dial;
use idunno_shared::ids::{Digest, NodeId, UploadId};
use idunno_shared::wire::blobs::{
    BlobRef, BlobReply, BlobRequest, COPIES, EXTENT_BYTES_MAX, Holder, PUTS_IN_FLIGHT_MAX,
};
use idunno_shared::wire::frame::{FrameError, encode_frame};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::store::{BlobStore, PendingStore, SMALL_BYTES_MAX, StoreError};

/// Most gets that are opened, and small blobs read, in one go.
pub const GETS_GROUP_MAX: usize = 16;
/// Most bytes of small blobs that are read in one go, but for the last one.
pub const GETS_GROUP_BYTES_MAX: u64 = 1 << 20;
/// Groups of gets of one connection that are read ahead.
pub const GROUPS_PREPARED: usize = 2;
/// Large blobs that are being received at once.
pub const LARGE_PUTS_MAX: usize = 64;
/// How long a caller may take for the next chunk of a blob that it announced, or to take one that it asked for.
pub const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
const SOCKET_BUFFER_BYTES: usize = 256 << 10;

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

/// Serves blobs of one member.
pub struct BlobServer {
    node: NodeId,
    store: BlobStore,
    dialer: Arc<dyn Dial>,
    large: Arc<Semaphore>,
}

impl BlobServer {
    /// The server of the member `node`, that reaches other holders through `dialer`.
    pub fn new(node: NodeId, store: BlobStore, dialer: Arc<dyn Dial>) -> Self {
        Self { node, store, dialer, large: Arc::new(Semaphore::new(LARGE_PUTS_MAX)) }
    }

    /// Serves a connection behind its hello, until the caller closes it. Puts that were received whole are finished
    /// in the background.
    pub async fn serve<R, W>(&self, reader: R, writer: W) -> Result<(), ServeError>
    where
        R: AsyncRead + Send + Unpin,
        W: AsyncWrite + Send + Unpin,
    {
        let (replies, stored) = mpsc::channel(PUTS_IN_FLIGHT_MAX);
        let (gets, wanted) = mpsc::channel(GETS_IN_FLIGHT_MAX);
        let session = Session {
            server: self,
            next: BlobPool::new(Arc::clone(&self.dialer)),
            replies,
            turns: Arc::new(Semaphore::new(PUTS_IN_FLIGHT_MAX)),
        };
        let reader = BufReader::with_capacity(SOCKET_BUFFER_BYTES, reader);
        tokio::select! {
            read = session.read_requests(reader, gets) => match read {
                Err(ServeError::Frame(FrameIoError::Io(error))) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
                ended => ended,
            },
            written = write_replies(writer, stored, wanted, self.store.clone()) => written,
        }
    }
}

struct Wanted {
    id: u64,
    digest: Digest,
    offset: u64,
}

struct Put {
    id: u64,
    blob: BlobRef,
    upload: UploadId,
    chain: Vec<Holder>,
}

struct Session<'a> {
    server: &'a BlobServer,
    next: BlobPool,
    replies: mpsc::Sender<BlobReply>,
    turns: Arc<Semaphore>,
}

impl Session<'_> {
    async fn read_requests<R>(&self, mut reader: R, gets: mpsc::Sender<Wanted>) -> Result<(), ServeError>
    where
        R: AsyncRead + Send + Unpin,
    {
        loop {
            match read_frame(&mut reader).await? {
                BlobRequest::Get { id, digest, offset } => {
                    if gets.send(Wanted { id, digest, offset }).await.is_err() {
                        return Ok(());
                    }
                }
                BlobRequest::Put { id, blob, upload, chain } => {
                    if blob.size > EXTENT_BYTES_MAX {
                        return Err(ServeError::TooLarge(blob.size));
                    }
                    if chain.len() > COPIES {
                        return Err(ServeError::ChainTooLong(chain.len()));
                    }
                    let Ok(turn) = Arc::clone(&self.turns).acquire_owned().await else { return Ok(()) };
                    let put = Put { id, blob, upload, chain };
                    if blob.size <= SMALL_BYTES_MAX {
                        self.take_small(put, turn, &mut reader).await?;
                    } else {
                        self.take_large(put, turn, &mut reader).await?;
                    }
                }
            }
        }
    }

    async fn take_small<R>(
        &self,
        put: Put,
        turn: OwnedSemaphorePermit,
        reader: &mut R,
    ) -> Result<(), ServeError>
    where
        R: AsyncRead + Send + Unpin,
    {
        let bytes = read_within(reader, usize::try_from(put.blob.size).unwrap_or(usize::MAX)).await?;
        let mut forward = self.forward(&put.chain).await;
        if let Some(connection) = forward.connection.take() {
            let behind = &forward.chain[1..];
            match connection.start_put(put.blob, put.upload, behind, bytes.clone()).await {
                Ok(pending) => forward.pending = Some(pending),
                Err(error) => forward.give_up(&error.to_string()),
            }
        }
        let stored = self.server.store.start_put(put.blob, Some(put.upload), bytes).await;
        self.finish_later(put.id, turn, forward, async { stored.map(PendingStore::done)?.await });
        Ok(())
    }

    async fn take_large<R>(
        &self,
        put: Put,
        turn: OwnedSemaphorePermit,
        reader: &mut R,
    ) -> Result<(), ServeError>
    where
        R: AsyncRead + Send + Unpin,
    {
        let Ok(room) = Arc::clone(&self.server.large).acquire_owned().await else { return Ok(()) };
        let mut forward = self.forward(&put.chain).await;
        let mut stream = forward.stream(&put).await;
        let local = self.server.store.stream_put(put.blob, Some(put.upload));
        let mut remaining = put.blob.size;
        while remaining > 0 {
            let length = usize::try_from(remaining).unwrap_or(usize::MAX).min(CHUNK_BYTES_MAX);
            let chunk = read_within(reader, length).await?;
            remaining -= length as u64;
            if let Some(next) = &stream
                && let Err(error) = next.send(chunk.clone()).await
            {
                forward.give_up(&error.to_string());
                stream = None;
            }
            local.send(chunk).await;
        }
        self.finish_later(put.id, turn, forward, async move {
            let stored = local.done().await;
            drop(room);
            stored
        });
        Ok(())
    }

    /// The first holder of the chain that can be dialled; those before it are skipped.
    async fn forward(&self, chain: &[Holder]) -> Forward {
        let mut forward = Forward { chain: chain.to_vec(), ..Forward::default() };
        while let Some(&next) = forward.chain.first() {
            match self.next.connection(next.address, Lane::Puts).await {
                Ok(connection) => {
                    forward.connection = Some(connection);
                    break;
                }
                Err(reason) => {
                    forward.failed.push((next.node, reason));
                    forward.chain.remove(0);
                }
            }
        }
        forward
    }

    /// Answers when the local copy and those behind are decided.
    fn finish_later(
        &self,
        id: u64,
        turn: OwnedSemaphorePermit,
        forward: Forward,
        local: impl Future<Output = Result<(), StoreError>> + Send + 'static,
    ) {
        let (node, replies) = (self.server.node, self.replies.clone());
        tokio::spawn(async move {
            let (local, (mut holders, mut failed)) = tokio::join!(local, forward.outcome());
            match local {
                Ok(()) => holders.insert(0, node),
                Err(error) => failed.insert(0, (node, error.to_string())),
            }
            // A caller that went away is no fault.
            let _ = replies.send(BlobReply::Stored { id, holders, failed }).await;
            drop(turn);
        });
    }
}

/// The part of a put that lies further down the chain.
#[derive(Default)]
struct Forward {
    chain: Vec<Holder>,
    connection: Option<BlobConnection>,
    pending: Option<PendingPut>,
    failed: Vec<(NodeId, String)>,
}

impl Forward {
    async fn stream(&mut self, put: &Put) -> Option<PutStream> {
        let connection = self.connection.take()?;
        match connection.stream_put(put.blob, put.upload, &self.chain[1..]).await {
            Ok((stream, pending)) => {
                self.pending = Some(pending);
                Some(stream)
            }
            Err(error) => {
                self.give_up(&error.to_string());
                None
            }
        }
    }

    fn give_up(&mut self, reason: &str) {
        self.pending = None;
        for (position, holder) in std::mem::take(&mut self.chain).into_iter().enumerate() {
            let why = if position == 0 {
                reason.to_owned()
            } else {
                format!("behind a member that failed: {reason}")
            };
            self.failed.push((holder.node, why));
        }
    }

    async fn outcome(mut self) -> (Vec<NodeId>, Vec<(NodeId, String)>) {
        let Some(pending) = self.pending.take() else { return (Vec::new(), self.failed) };
        match pending.answer().await {
            Ok(mut stored) => {
                // Only those asked can have stored it.
                stored.holders.retain(|node| self.chain.iter().any(|holder| holder.node == *node));
                self.failed.extend(stored.failed);
                (stored.holders, self.failed)
            }
            Err(error) => {
                self.give_up(&error.to_string());
                (Vec::new(), self.failed)
            }
        }
    }
}

async fn read_within<R>(reader: &mut R, length: usize) -> Result<Bytes, ServeError>
where
    R: AsyncRead + Send + Unpin,
{
    let read = timeout(CHUNK_TIMEOUT, read_chunk(reader, length, || ())).await;
    Ok(read.map_err(|_| ServeError::Stalled)??)
}

/// What a get is answered with, ready to be sent.
enum Prepared {
    Missing(String),
    Whole(Bytes),
    File { file: File, position: u64, bytes: u64 },
}

/// Gets in the order they came, in groups that are prepared together.
fn groups(wanted: mpsc::Receiver<Wanted>, store: BlobStore) -> impl Stream<Item = Vec<Wanted>> {
    unfold((wanted, store), async |(mut wanted, store)| {
        let small =
            |get: &Wanted| store.size(get.digest).filter(|&size| size <= SMALL_BYTES_MAX).unwrap_or(0);
        let first = wanted.recv().await?;
        let mut bytes = small(&first);
        let mut group = vec![first];
        while group.len() < GETS_GROUP_MAX && bytes < GETS_GROUP_BYTES_MAX {
            let Ok(next) = wanted.try_recv() else { break };
            bytes += small(&next);
            group.push(next);
        }
        Some((group, (wanted, store)))
    })
}

async fn prepare(group: Vec<Wanted>, store: BlobStore) -> Vec<(Wanted, Prepared)> {
    let open_all = move || -> Vec<(Wanted, Prepared)> {
        let open_one = |get: Wanted| {
            let prepared = open(&store, get.digest, get.offset);
            (get, prepared.unwrap_or_else(|error| Prepared::Missing(error.to_string())))
        };
        group.into_iter().map(open_one).collect()
    };
    spawn_blocking(open_all).await.unwrap_or_else(|error| {
        tracing::error!(%error, "reading blobs failed: whoever asked reads them elsewhere");
        Vec::new()
    })
}

fn open(store: &BlobStore, digest: Digest, offset: u64) -> Result<Prepared, StoreError> {
    let size = store.size(digest).ok_or(StoreError::Missing(digest))?;
    if size <= SMALL_BYTES_MAX && offset == 0 {
        return Ok(Prepared::Whole(store.read(digest)?));
    }
    let (file, size) = store.open_from(digest, offset)?;
    let there = file.metadata().map_or(0, |metadata| metadata.len());
    if there != size {
        store.move_aside(digest)?;
        return Err(StoreError::Corrupt(digest));
    }
    Ok(Prepared::File { file, position: offset, bytes: size.saturating_sub(offset) })
}

async fn write_replies<W>(
    writer: W,
    mut stored: mpsc::Receiver<BlobReply>,
    wanted: mpsc::Receiver<Wanted>,
    store: BlobStore,
) -> Result<(), ServeError>
where
    W: AsyncWrite + Send + Unpin,
{
    let mut writer = BufWriter::with_capacity(SOCKET_BUFFER_BYTES, writer);
    let gets = groups(wanted, store.clone()).map(|group| prepare(group, store.clone()));
    let mut gets = std::pin::pin!(gets.buffered(GROUPS_PREPARED));
    loop {
        tokio::select! {
            Some(reply) = stored.recv() => {
                write_reply(&mut writer, &reply).await?;
                while let Ok(reply) = stored.try_recv() {
                    write_reply(&mut writer, &reply).await?;
                }
            }
            Some(group) = gets.next() => {
                for (wanted, prepared) in group {
                    write_blob(&mut writer, &wanted, prepared).await?;
                }
            }
            else => return Ok(()),
        }
        timeout(CHUNK_TIMEOUT, writer.flush()).await.map_err(|_| ServeError::Stalled)??;
    }
}

async fn write_reply<W: AsyncWrite + Unpin>(writer: &mut W, reply: &BlobReply) -> Result<(), ServeError> {
    let mut frame = Vec::with_capacity(128);
    encode_frame(reply, &mut frame)?;
    write_within(writer, &frame).await
}

async fn write_within<W: AsyncWrite + Unpin>(writer: &mut W, bytes: &[u8]) -> Result<(), ServeError> {
    Ok(timeout(CHUNK_TIMEOUT, writer.write_all(bytes)).await.map_err(|_| ServeError::Stalled)??)
}

async fn write_blob<W: AsyncWrite + Unpin>(
    writer: &mut W,
    wanted: &Wanted,
    prepared: Prepared,
) -> Result<(), ServeError> {
    let id = wanted.id;
    match prepared {
        Prepared::Missing(reason) => write_reply(writer, &BlobReply::Missing { id, reason }).await,
        Prepared::Whole(bytes) => {
            write_reply(writer, &BlobReply::Data { id, bytes: bytes.len() as u64 }).await?;
            write_within(writer, &bytes).await
        }
        Prepared::File { file, position, bytes } => {
            write_reply(writer, &BlobReply::Data { id, bytes }).await?;
            write_file(writer, file, position, bytes).await.map_err(|error| match error {
                ServeError::Read { source, .. } => ServeError::Read { digest: wanted.digest, source },
                other => other,
            })
        }
    }
}

/// A chunk of a file: the file, the buffer, and how much of it is filled.
type ReadAhead = JoinHandle<io::Result<(File, AlignedBuffer, usize)>>;

fn read_ahead(file: File, mut buffer: AlignedBuffer, position: u64, remaining: u64) -> ReadAhead {
    spawn_blocking(move || {
        let length = usize::try_from(remaining).unwrap_or(usize::MAX).min(CHUNK_BYTES_MAX);
        let mut filled = 0;
        while filled < length {
            // The whole rest of the buffer: a direct read has an aligned length, and ends with the file.
            match file.read_at(&mut buffer.bytes_mut()[filled..], position + filled as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok((file, buffer, length))
    })
}

/// Sends a file from `position` on, one chunk being read while the one before is sent.
async fn write_file<W: AsyncWrite + Unpin>(
    writer: &mut W,
    file: File,
    mut position: u64,
    bytes: u64,
) -> Result<(), ServeError> {
    let fault = |source| ServeError::Read { digest: Digest::default(), source };
    let mut remaining = bytes;
    let mut spare = AlignedBuffer::new(CHUNK_BYTES_MAX);
    let mut ahead = read_ahead(file, AlignedBuffer::new(CHUNK_BYTES_MAX), position, remaining);
    while remaining > 0 {
        let (file, buffer, length) =
            ahead.await.map_err(|error| fault(io::Error::other(error)))?.map_err(fault)?;
        remaining -= length as u64;
        position += length as u64;
        ahead = read_ahead(file, spare, position, remaining);
        write_within(writer, &buffer.bytes()[..length]).await?;
        spare = buffer;
    }
    Ok(())
}
