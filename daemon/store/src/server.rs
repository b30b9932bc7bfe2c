//! Serves one connection for blobs: stores what comes while passing it on down the chain, and sends what is asked for.
//!
//! Source: the design, section 7; chains as in HDFS.
//!
//! Invariants: a put is answered once this member and all behind it are durable or failed; bytes whose digest is
//! wrong are stored nowhere; the answer names as failed those that failed, not those out of reach behind them. While puts
//! wait for the disk the caller is told so every [`WORKING_PERIOD`](super::replies::WORKING_PERIOD), unless one has waited for [`DISK_PATIENCE`]: a disk
//! that hangs must look like a dead one.
//!
//! Bounds, a connection: [`PUTS_IN_FLIGHT_MAX`] puts unanswered, then it is not read on; [`GETS_IN_FLIGHT_MAX`] gets
//! waiting (`replies.rs` says how many are opened); one connection to each next holder. Small blobs in memory are bounded
//! by the store, large ones to a few chunks each, [`LARGE_PUTS_MAX`] at once in the whole process.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use idunno_shared::client::connections::{Connections, PeerError};
use idunno_shared::client::files::connection::{
    BlobConnection, CHUNK_BYTES_MAX, GETS_IN_FLIGHT_MAX, PendingPut, PutStream, read_chunk,
};
use idunno_shared::client::frames::{FrameIoError, read_frame_within};
use idunno_shared::ids::{NodeId, UploadId};
use idunno_shared::wire::blobs::{
    BlobRef, BlobReply, BlobRequest, COPIES, EXTENT_BYTES_MAX, Holder, PUTS_IN_FLIGHT_MAX,
};
use idunno_shared::wire::frame::HEADER_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tracing::debug;

use super::blobs::{BlobStore, PendingStore, SMALL_BYTES_MAX, StoreError};
use super::connection::{CHUNK_TIMEOUT, SOCKET_BUFFER_BYTES, ServeError};
use super::replies::{Waits, Wanted, write_replies};
use super::scrub::Scrub;

/// Large blobs that are being received at once.
pub const LARGE_PUTS_MAX: usize = 64;
/// How long a put may take, once its bytes are here, before its caller hears no more of it.
pub const DISK_PATIENCE: Duration = Duration::from_secs(30);

/// Serves blobs of one member.
pub struct BlobServer {
    node: NodeId,
    store: BlobStore,
    scrub: Scrub,
    connections: Connections,
    large: Arc<Semaphore>,
    /// [`DISK_PATIENCE`], unless a test has less.
    pub(super) patience: Duration,
}

impl BlobServer {
    /// The server of the member `node`, that reaches other holders through `connections`.
    pub fn new(node: NodeId, store: BlobStore, scrub: Scrub, connections: Connections) -> Self {
        let large = Arc::new(Semaphore::new(LARGE_PUTS_MAX));
        Self { node, store, scrub, connections, large, patience: DISK_PATIENCE }
    }

    /// Serves a connection behind its hello, until the caller closes it. Puts that were received whole are finished
    /// in the background. Unless the caller `may_store`, its puts are refused.
    pub async fn serve<R, W>(&self, reader: R, writer: W, may_store: bool) -> Result<(), ServeError>
    where
        R: AsyncRead + Send + Unpin,
        W: AsyncWrite + Send + Unpin,
    {
        let (replies, stored) = mpsc::channel(PUTS_IN_FLIGHT_MAX);
        let (gets, wanted) = mpsc::channel(GETS_IN_FLIGHT_MAX);
        let session = Session {
            server: self,
            may_store,
            next: Mutex::default(),
            replies,
            turns: Arc::new(Semaphore::new(PUTS_IN_FLIGHT_MAX)),
            waits: Arc::new(Waits::new(self.patience)),
        };
        let waits = Arc::clone(&session.waits);
        let reader = BufReader::with_capacity(SOCKET_BUFFER_BYTES, reader);
        tokio::select! {
            read = session.read_requests(reader, gets) => match read {
                Err(ServeError::Frame(FrameIoError::Io(error))) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
                ended => ended,
            },
            written = write_replies(writer, stored, wanted, self.store.clone(), &waits) => {
                if let Err(ServeError::Read { digest, .. }) = &written {
                    self.scrub.doubt(*digest);
                }
                written
            }
        }
    }
}

struct Put {
    id: u64,
    blob: BlobRef,
    upload: UploadId,
    chain: Vec<Holder>,
}

struct Session<'a> {
    server: &'a BlobServer,
    may_store: bool,
    /// Connections to next holders on which puts of this one wait.
    next: Mutex<BTreeMap<NodeId, Weak<BlobConnection>>>,
    replies: mpsc::Sender<BlobReply>,
    turns: Arc<Semaphore>,
    waits: Arc<Waits>,
}

impl Session<'_> {
    async fn read_requests<R>(&self, mut reader: R, gets: mpsc::Sender<Wanted>) -> Result<(), ServeError>
    where
        R: AsyncRead + Send + Unpin,
    {
        loop {
            match read_frame_within(&mut reader, HEADER_BYTES_MAX).await? {
                BlobRequest::Doubt { digest } => self.server.scrub.doubt(digest),
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
                    if !self.may_store {
                        self.refuse(id, blob.size, &mut reader).await?;
                        continue;
                    }
                    debug!(%upload, digest = %blob.digest, bytes = blob.size, "a blob comes in");
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

    /// Answers a put of one who may not, and lets its bytes pass.
    async fn refuse<R>(&self, id: u64, mut remaining: u64, reader: &mut R) -> Result<(), ServeError>
    where
        R: AsyncRead + Send + Unpin,
    {
        while remaining > 0 {
            let length = usize::try_from(remaining).unwrap_or(usize::MAX).min(CHUNK_BYTES_MAX);
            remaining -= read_within(reader, length).await?.len() as u64;
        }
        let failed = vec![(self.server.node, String::from("this identity may look and not store anything"))];
        // A caller that went away is no fault.
        let _ = self.replies.send(BlobReply::Stored { id, holders: Vec::new(), failed }).await;
        Ok(())
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
        if let Some(connection) = forward.connection.clone() {
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
            match self.next(next).await {
                Ok(connection) => {
                    forward.connection = Some(connection);
                    break;
                }
                Err(error) => {
                    forward.failed.push((next.node, error.to_string()));
                    forward.chain.remove(0);
                }
            }
        }
        forward
    }

    /// The connection to the next holder: that on which puts wait, or else one that nobody uses.
    async fn next(&self, holder: Holder) -> Result<Arc<BlobConnection>, PeerError> {
        let open = |connection: &Arc<BlobConnection>| !connection.is_closed();
        let lent = self.lent().get(&holder.node).and_then(Weak::upgrade).filter(open);
        if let Some(connection) = lent {
            return Ok(connection);
        }
        let connection = Arc::new(self.server.connections.chain(holder).await?);
        let mut lent = self.lent();
        lent.retain(|_, connection| connection.strong_count() > 0);
        lent.insert(holder.node, Arc::downgrade(&connection));
        Ok(connection)
    }

    fn lent(&self) -> MutexGuard<'_, BTreeMap<NodeId, Weak<BlobConnection>>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
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
        let (waits, number) = (Arc::clone(&self.waits), self.waits.begin());
        tokio::spawn(async move {
            let (local, (mut holders, mut failed)) = tokio::join!(local, forward.outcome());
            waits.end(number);
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
    /// Held until the put is answered: nobody else is lent it before.
    connection: Option<Arc<BlobConnection>>,
    pending: Option<PendingPut>,
    failed: Vec<(NodeId, String)>,
}

impl Forward {
    async fn stream(&mut self, put: &Put) -> Option<PutStream> {
        let connection = self.connection.clone()?;
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

    /// The next holder failed. Those behind it did not: they are only not reached.
    fn give_up(&mut self, reason: &str) {
        self.pending = None;
        let next = std::mem::take(&mut self.chain).into_iter().next();
        self.failed.extend(next.map(|holder| (holder.node, reason.to_owned())));
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
