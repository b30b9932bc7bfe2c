//! Many puts and gets at once on one connection to a holder.
//!
//! Used by clients towards the first holder of a chain and by holders towards the next one.
//!
//! Invariants: the bytes after a put's header are exactly as many as the header says, or the connection ends; every
//! put and get ends with an answer or an error, at the latest when the connection has been silent for its limit.
//!
//! Bounds: [`PUTS_IN_FLIGHT_MAX`] unanswered puts, [`GETS_IN_FLIGHT_MAX`] unanswered gets, [`WRITES_QUEUED_MAX`]
//! requests queued for the socket, [`CHUNKS_QUEUED_MAX`] chunks read ahead of a get's taker.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::direct_io;
use crate::client::frames::{FrameIoError, read_frame};
use crate::client::link::{Link, LinkReader, LinkWriter};
use crate::ids::{Digest, NodeId, UploadId};
use crate::wire::blobs::{BlobRef, BlobReply, BlobRequest, Holder, PUTS_IN_FLIGHT_MAX};
use crate::wire::frame::encode_frame;

/// Silence after which a holder without successors in the chain counts as failed.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Added for each holder further down, so that the one next to the stalled one is the first to notice.
pub const STALL_STEP: Duration = Duration::from_secs(2);
/// Most gets that one connection may have unanswered.
pub const GETS_IN_FLIGHT_MAX: usize = 64;
/// Largest chunk that is read or forwarded at once, in bytes.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;
const WRITES_QUEUED_MAX: usize = 16;
const CHUNKS_QUEUED_MAX: usize = 2;
const SOCKET_BUFFER_BYTES: usize = 256 << 10;

/// Why a put or a get has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BlobError {
    /// The connection ended first.
    #[error("the connection closed")]
    Closed,
    /// The peer was silent for too long.
    #[error("no progress for {} s", .0.as_secs())]
    Stalled(Duration),
    /// The peer does not hold the blob, or cannot read it.
    #[error("{0}")]
    Missing(String),
    /// The peer's bytes are not those asked for.
    #[error("{0}")]
    Corrupt(String),
}

/// The outcome of a put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Where the blob is durable.
    pub holders: Vec<NodeId>,
    /// Where it is not, and why.
    pub failed: Vec<(NodeId, String)>,
}

enum Body {
    None,
    Whole(Bytes),
    Stream(mpsc::Receiver<Bytes>),
}

struct Outgoing {
    header: Vec<u8>,
    bytes: u64,
    body: Body,
}

enum Waiter {
    Put(oneshot::Sender<Stored>),
    Get(mpsc::Sender<Result<Bytes, BlobError>>),
}

/// A connection to a holder, shared by many callers. Cheap to clone; closes when the last clone is dropped.
#[derive(Clone)]
pub struct BlobConnection {
    shared: Arc<Shared>,
}

struct Shared {
    state: Arc<State>,
    puts: Arc<Semaphore>,
    gets: Arc<Semaphore>,
    writes: mpsc::Sender<Outgoing>,
    tasks: [AbortHandle; 2],
}

/// What the callers and the connection's two tasks share.
struct State {
    opened: Instant,
    /// When bytes last went out or came in, in milliseconds since `opened`.
    active_ms: AtomicU64,
    next_id: AtomicU64,
    /// `None` once the connection has ended.
    waiting: Mutex<Option<BTreeMap<u64, Waiter>>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl State {
    fn waiting(&self) -> MutexGuard<'_, Option<BTreeMap<u64, Waiter>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        let now_ms = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.active_ms.store(now_ms, Ordering::Relaxed);
    }

    fn close(&self) {
        *self.waiting() = None;
    }

    fn register(&self, waiter: Waiter) -> Result<u64, BlobError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.waiting().as_mut().ok_or(BlobError::Closed)?.insert(id, waiter);
        Ok(id)
    }

    /// Waits for `event`, as long as the connection is not silent for `limit` from now on.
    async fn unless_stalled<T>(
        &self,
        limit: Duration,
        event: impl Future<Output = T>,
    ) -> Result<T, BlobError> {
        let begun = Instant::now();
        let mut event = std::pin::pin!(event);
        loop {
            let active = self.opened + Duration::from_millis(self.active_ms.load(Ordering::Relaxed));
            let silent = active.max(begun).elapsed();
            if silent >= limit {
                // All callers give up a connection that is silent for this long, and the peer is dialled again.
                self.close();
                return Err(BlobError::Stalled(limit));
            }
            if let Ok(value) = timeout(limit.saturating_sub(silent), &mut event).await {
                return Ok(value);
            }
        }
    }
}

impl BlobConnection {
    /// Takes a link over. Must be called within a runtime.
    pub fn new(link: Link) -> Self {
        let state = Arc::new(State {
            opened: Instant::now(),
            active_ms: AtomicU64::new(0),
            next_id: AtomicU64::new(1),
            waiting: Mutex::new(Some(BTreeMap::new())),
        });
        let (writes, queued) = mpsc::channel(WRITES_QUEUED_MAX);
        let reader = tokio::spawn(read_replies(link.reader, Arc::clone(&state)));
        let writer = tokio::spawn(write_requests(link.writer, queued, Arc::clone(&state)));
        let shared = Shared {
            state,
            puts: Arc::new(Semaphore::new(PUTS_IN_FLIGHT_MAX)),
            gets: Arc::new(Semaphore::new(GETS_IN_FLIGHT_MAX)),
            writes,
            tasks: [reader.abort_handle(), writer.abort_handle()],
        };
        Self { shared: Arc::new(shared) }
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.state.waiting().is_none()
    }

    /// Whether there is another clone than this one.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.shared) > 1
    }

    /// Stores a blob whose bytes are in memory.
    pub async fn put(
        &self,
        blob: BlobRef,
        upload: UploadId,
        chain: &[Holder],
        bytes: Bytes,
    ) -> Result<Stored, BlobError> {
        self.begin(blob, upload, chain, Body::Whole(bytes)).await?.answer().await
    }

    /// Starts to store a blob whose bytes are in memory: they are queued for the socket when this returns.
    pub async fn start_put(
        &self,
        blob: BlobRef,
        upload: UploadId,
        chain: &[Holder],
        bytes: Bytes,
    ) -> Result<PendingPut, BlobError> {
        self.begin(blob, upload, chain, Body::Whole(bytes)).await
    }

    /// Starts to store a blob whose bytes are still to come: exactly `blob.size` of them, through the sender. Dropping
    /// the sender too early ends the connection.
    pub async fn stream_put(
        &self,
        blob: BlobRef,
        upload: UploadId,
        chain: &[Holder],
    ) -> Result<(PutStream, PendingPut), BlobError> {
        let (sender, chunks) = mpsc::channel(CHUNKS_QUEUED_MAX);
        let pending = self.begin(blob, upload, chain, Body::Stream(chunks)).await?;
        Ok((PutStream { connection: self.clone(), limit: pending.limit, sender }, pending))
    }

    async fn begin(
        &self,
        blob: BlobRef,
        upload: UploadId,
        chain: &[Holder],
        body: Body,
    ) -> Result<PendingPut, BlobError> {
        let state = &self.shared.state;
        let behind = u32::try_from(chain.len()).unwrap_or(u32::MAX);
        let limit = STALL_TIMEOUT + STALL_STEP.saturating_mul(behind);
        let turn = state
            .unless_stalled(limit, Arc::clone(&self.shared.puts).acquire_owned())
            .await?
            .map_err(|_| BlobError::Closed)?;
        let (sender, answer) = oneshot::channel();
        let id = state.register(Waiter::Put(sender))?;
        let request = BlobRequest::Put { id, blob, upload, chain: chain.to_vec() };
        self.send(&request, blob.size, body, limit).await?;
        Ok(PendingPut { connection: self.clone(), answer, limit, _turn: turn })
    }

    /// Asks for a blob's bytes from `offset` on.
    pub async fn get(&self, blob: BlobRef, offset: u64) -> Result<BlobStream, BlobError> {
        let state = &self.shared.state;
        let turn = state
            .unless_stalled(STALL_TIMEOUT, Arc::clone(&self.shared.gets).acquire_owned())
            .await?
            .map_err(|_| BlobError::Closed)?;
        let (sender, chunks) = mpsc::channel(CHUNKS_QUEUED_MAX);
        let id = state.register(Waiter::Get(sender))?;
        let request = BlobRequest::Get { id, digest: blob.digest, offset };
        self.send(&request, 0, Body::None, STALL_TIMEOUT).await?;
        let remaining = blob.size.saturating_sub(offset);
        Ok(BlobStream { connection: self.clone(), chunks, remaining, _turn: turn })
    }

    /// Reports to the peer that its bytes do not match the blob, so that it checks its copy. A hint, dropped when the
    /// socket is busy; the scrub finds the damage later.
    pub fn doubt(&self, digest: Digest) {
        let mut header = Vec::with_capacity(64);
        if encode_frame(&BlobRequest::ReportCorrupt { digest }, &mut header).is_ok() {
            let _ = self.shared.writes.try_send(Outgoing { header, bytes: 0, body: Body::None });
        }
    }

    async fn send(
        &self,
        request: &BlobRequest,
        bytes: u64,
        body: Body,
        limit: Duration,
    ) -> Result<(), BlobError> {
        let mut header = Vec::with_capacity(256);
        encode_frame(request, &mut header).map_err(|error| BlobError::Corrupt(error.to_string()))?;
        let outgoing = Outgoing { header, bytes, body };
        let sent = self.shared.state.unless_stalled(limit, self.shared.writes.send(outgoing)).await?;
        sent.map_err(|_| BlobError::Closed)
    }
}

/// Where the bytes of a streamed put go.
pub struct PutStream {
    connection: BlobConnection,
    limit: Duration,
    sender: mpsc::Sender<Bytes>,
}

impl PutStream {
    /// Passes on the next bytes, once there is room.
    pub async fn send(&self, chunk: Bytes) -> Result<(), BlobError> {
        let state = &self.connection.shared.state;
        state.unless_stalled(self.limit, self.sender.send(chunk)).await?.map_err(|_| BlobError::Closed)
    }
}

/// A put that is not answered yet.
pub struct PendingPut {
    connection: BlobConnection,
    answer: oneshot::Receiver<Stored>,
    limit: Duration,
    _turn: OwnedSemaphorePermit,
}

impl PendingPut {
    /// Waits for the outcome.
    pub async fn answer(self) -> Result<Stored, BlobError> {
        let state = &self.connection.shared.state;
        state.unless_stalled(self.limit, self.answer).await?.map_err(|_| BlobError::Closed)
    }
}

/// A blob's bytes as they arrive.
pub struct BlobStream {
    connection: BlobConnection,
    chunks: mpsc::Receiver<Result<Bytes, BlobError>>,
    remaining: u64,
    _turn: OwnedSemaphorePermit,
}

impl BlobStream {
    /// The next bytes, at most [`CHUNK_BYTES_MAX`]; `None` at the end. Not verified: that is the caller's part.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        if self.remaining == 0 {
            return Ok(None);
        }
        let state = &self.connection.shared.state;
        let chunk =
            state.unless_stalled(STALL_TIMEOUT, self.chunks.recv()).await?.ok_or(BlobError::Closed)??;
        let length = chunk.len() as u64;
        self.remaining = self
            .remaining
            .checked_sub(length)
            .ok_or_else(|| BlobError::Corrupt(String::from("it sent more bytes than the blob has")))?;
        Ok(Some(chunk))
    }
}

async fn read_replies(reader: LinkReader, state: Arc<State>) {
    let mut reader = BufReader::with_capacity(SOCKET_BUFFER_BYTES, reader);
    while let Ok(reply) = read_frame(&mut reader).await {
        state.touch();
        if take_reply(reply, &mut reader, &state).await.is_err() {
            break;
        }
    }
    state.close();
}

async fn take_reply(
    reply: BlobReply,
    reader: &mut BufReader<LinkReader>,
    state: &State,
) -> Result<(), FrameIoError> {
    let waiter = |id| state.waiting().as_mut().and_then(|waiting| waiting.remove(&id));
    match reply {
        BlobReply::Stored { id, holders, failed } => {
            if let Some(Waiter::Put(answer)) = waiter(id) {
                // The caller may have given up.
                let _ = answer.send(Stored { holders, failed });
            }
        }
        BlobReply::Missing { id, reason } => {
            if let Some(Waiter::Get(taker)) = waiter(id) {
                let _ = taker.send(Err(BlobError::Missing(reason))).await;
            }
        }
        // A keep-alive carries no data.
        BlobReply::Working => {}
        BlobReply::Data { id, bytes } => {
            let taker = match waiter(id) {
                Some(Waiter::Get(taker)) => Some(taker),
                _ => None,
            };
            read_body(bytes, taker, reader, state).await?;
        }
    }
    Ok(())
}

/// Passes a body on in chunks. If the caller has given up, the rest is read and dropped.
async fn read_body(
    bytes: u64,
    mut taker: Option<mpsc::Sender<Result<Bytes, BlobError>>>,
    reader: &mut BufReader<LinkReader>,
    state: &State,
) -> Result<(), FrameIoError> {
    let mut remaining = bytes;
    while remaining > 0 {
        let length = usize::try_from(remaining).unwrap_or(usize::MAX).min(CHUNK_BYTES_MAX);
        let chunk = read_chunk(reader, length, || state.touch()).await?;
        remaining -= length as u64;
        if let Some(sender) = &taker
            && sender.send(Ok(chunk)).await.is_err()
        {
            taker = None;
        }
        // Waiting for a slow caller is not the peer's silence.
        state.touch();
    }
    Ok(())
}

/// Reads exactly `length` bytes into aligned memory; `touch` is called whenever some have come.
pub async fn read_chunk<R>(reader: &mut R, length: usize, mut touch: impl FnMut()) -> io::Result<Bytes>
where
    R: AsyncRead + Unpin + ?Sized,
{
    let mut chunk = direct_io::chunk(length);
    while chunk.len() < length {
        let missing = (length - chunk.len()) as u64;
        if (&mut *reader).take(missing).read_buf(&mut chunk).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        touch();
    }
    Ok(chunk.freeze())
}

async fn write_requests(writer: LinkWriter, mut queued: mpsc::Receiver<Outgoing>, state: Arc<State>) {
    let mut writer = BufWriter::with_capacity(SOCKET_BUFFER_BYTES, writer);
    while let Some(first) = queued.recv().await {
        let mut next = Some(first);
        while let Some(outgoing) = next {
            if write_request(outgoing, &mut writer, &state).await.is_err() {
                return state.close();
            }
            next = queued.try_recv().ok();
        }
        if writer.flush().await.is_err() {
            return state.close();
        }
        state.touch();
    }
}

async fn write_request(
    outgoing: Outgoing,
    writer: &mut BufWriter<LinkWriter>,
    state: &State,
) -> io::Result<()> {
    writer.write_all(&outgoing.header).await?;
    let mut remaining = outgoing.bytes;
    match outgoing.body {
        Body::None => {}
        Body::Whole(bytes) => {
            for chunk in bytes.chunks(CHUNK_BYTES_MAX) {
                writer.write_all(chunk).await?;
                remaining = remaining.saturating_sub(chunk.len() as u64);
                state.touch();
            }
        }
        Body::Stream(mut chunks) => {
            while remaining > 0 {
                let chunk = if let Ok(chunk) = chunks.try_recv() {
                    chunk
                } else {
                    // The sender is slow: earlier requests must not wait for it.
                    writer.flush().await?;
                    chunks.recv().await.ok_or(io::ErrorKind::UnexpectedEof)?
                };
                writer.write_all(&chunk).await?;
                remaining = remaining.checked_sub(chunk.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
                state.touch();
            }
        }
    }
    if remaining == 0 { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Checks that `bytes` are those of `blob`.
pub fn verify(blob: BlobRef, bytes: &[u8]) -> Result<(), BlobError> {
    if bytes.len() as u64 != blob.size {
        let text = format!("{} bytes of {} arrived", bytes.len(), blob.size);
        return Err(BlobError::Corrupt(text));
    }
    let digest = Digest::of(bytes);
    if digest == blob.digest {
        return Ok(());
    }
    Err(BlobError::Corrupt(format!("the bytes have the digest {digest} instead of {}", blob.digest)))
}
