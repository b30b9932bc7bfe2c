//! Serves a blob connection: stores incoming blobs while forwarding them down the chain, and sends requested blobs.
//!
//! Source: the design, section 7; chains as in HDFS.
//!
//! A put claims a term, and names members to forward to. Neither is believed: a pin of a term that never was would keep its
//! blob for ever, and an address that is no member's would make this member probe ports for the caller.
//!
//! Invariants: a put is answered once this member and all later holders are durable or have failed; bytes with a wrong
//! digest are stored nowhere; the reply lists the holders that failed, but not the unreached holders after them. While puts
//! wait for the disk, the caller receives a keep-alive every `KEEP_ALIVE_PERIOD`. One that has waited for [`DISK_TIMEOUT`]
//! has failed: a disk that hangs must look like a dead one.
//!
//! Bounds per connection: with [`PUTS_IN_FLIGHT_MAX`] unanswered puts it is no longer read; [`GETS_IN_FLIGHT_MAX`] queued
//! gets (`replies` bounds how many are opened); one connection to each next holder. The store bounds the memory for small
//! blobs; a large blob buffers a few chunks, and at most [`LARGE_PUTS_MAX`] are received at once in the whole process.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use idunno_shared::client::connections::{Connections, PeerError};
use idunno_shared::client::files::connection::{
    BlobConnection, CHUNK_BYTES_MAX, GETS_IN_FLIGHT_MAX, PendingPut, PutStream,
};
use idunno_shared::client::frames::{FrameIoError, read_frame_within};
use idunno_shared::client::link::BoxFuture;
use idunno_shared::ids::{NodeId, Term, UploadId};
use idunno_shared::wire::blobs::{
    BlobRef, BlobReply, BlobRequest, EXTENT_BYTES_MAX, Holder, PUTS_IN_FLIGHT_MAX,
};
use idunno_shared::wire::frame::HEADER_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tracing::debug;

use super::access::BlobAccess;
use super::blobs::{BlobStore, PendingStore, SMALL_BYTES_MAX, StoreError};
use super::memory::MemoryPermit;
use super::replies::{DiskWaits, GetRequest, write_replies};
use super::scrub::Scrub;
use super::socket::{SOCKET_BUFFER_BYTES, ServeError, read_within};

/// Large blobs received at once.
pub const LARGE_PUTS_MAX: usize = 64;
/// What a large put occupies while it is received: the chunk that is read, and those queued for the disk and the next holder.
const LARGE_PUT_BYTES: usize = 4 * CHUNK_BYTES_MAX;
/// A put that waits longer than this for the disk has failed.
pub const DISK_TIMEOUT: Duration = Duration::from_secs(30);

/// What this member knows of its cluster, against which the claims of a put are checked.
pub trait ClusterKnowledge: Send + Sync {
    /// Whether the member with this id listens at this address.
    fn has(&self, holder: Holder) -> bool;
    /// Waits until a term is known to have begun, for as long as the news of one may take; whether it has.
    fn has_begun(&self, term: Term) -> BoxFuture<'_, bool>;
}

/// Serves the blobs of one member.
pub struct BlobServer {
    node: NodeId,
    store: BlobStore,
    scrub: Scrub,
    connections: Connections,
    cluster: Arc<dyn ClusterKnowledge>,
    large_puts: Arc<Semaphore>,
    /// [`DISK_TIMEOUT`], unless a test shortens it.
    pub(super) disk_timeout: Duration,
}

impl BlobServer {
    pub fn new(
        node: NodeId,
        store: BlobStore,
        scrub: Scrub,
        connections: Connections,
        cluster: Arc<dyn ClusterKnowledge>,
    ) -> Self {
        let large_puts = Arc::new(Semaphore::new(LARGE_PUTS_MAX));
        Self { node, store, scrub, connections, cluster, large_puts, disk_timeout: DISK_TIMEOUT }
    }

    /// Serves a connection after its hello, until the caller closes it. Puts that were received completely are finished in
    /// the background.
    pub async fn serve<R, W>(&self, reader: R, writer: W, access: BlobAccess) -> Result<(), ServeError>
    where
        R: AsyncRead + Send + Unpin,
        W: AsyncWrite + Send + Unpin,
    {
        let (replies, stored) = mpsc::channel(PUTS_IN_FLIGHT_MAX);
        let (gets, requested) = mpsc::channel(GETS_IN_FLIGHT_MAX);
        let session = BlobSession {
            server: self,
            access: access.clone(),
            next: Mutex::default(),
            replies,
            put_permits: Arc::new(Semaphore::new(PUTS_IN_FLIGHT_MAX)),
            disk_waits: Arc::new(DiskWaits::new(self.disk_timeout)),
        };
        let disk_waits = Arc::clone(&session.disk_waits);
        let reader = BufReader::with_capacity(SOCKET_BUFFER_BYTES, reader);
        tokio::select! {
            read = session.read_requests(reader, gets) => match read {
                Err(ServeError::Frame(FrameIoError::Io(error))) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
                ended => ended,
            },
            written = write_replies(writer, stored, requested, self.store.clone(), &disk_waits, access) => {
                if let Err(ServeError::Read { digest, .. }) = &written {
                    self.scrub.suspect(*digest);
                }
                written
            }
        }
    }
}

struct PutRequest {
    id: u64,
    blob: BlobRef,
    upload: UploadId,
    chain: Vec<Holder>,
}

struct BlobSession<'a> {
    server: &'a BlobServer,
    access: BlobAccess,
    /// Connections to next holders on which puts of this one wait; each put keeps its own open. Weak, so that a session
    /// that pauses gives them back: others may use them, or idle ones close, and the next put asks again.
    next: Mutex<BTreeMap<NodeId, Weak<BlobConnection>>>,
    replies: mpsc::Sender<BlobReply>,
    put_permits: Arc<Semaphore>,
    disk_waits: Arc<DiskWaits>,
}

impl BlobSession<'_> {
    async fn read_requests<R>(&self, mut reader: R, gets: mpsc::Sender<GetRequest>) -> Result<(), ServeError>
    where
        R: AsyncRead + Send + Unpin,
    {
        loop {
            match read_frame_within(&mut reader, HEADER_BYTES_MAX).await? {
                BlobRequest::ReportCorrupt { digest } if self.access.is_member => {
                    self.server.scrub.suspect(digest);
                }
                BlobRequest::ReportCorrupt { digest } => self.server.scrub.suspect_of_client(digest),
                BlobRequest::Get { id, digest, offset } => {
                    if gets.send(GetRequest { id, digest, offset }).await.is_err() {
                        return Ok(());
                    }
                }
                BlobRequest::Put { id, blob, upload, chain } => {
                    if blob.size > EXTENT_BYTES_MAX {
                        return Err(ServeError::TooLarge(blob.size));
                    }
                    if !self.access.may_store {
                        self.refuse(id, blob.size, "this identity has read-only access", &mut reader).await?;
                        continue;
                    }
                    if !self.server.cluster.has_begun(upload.term).await {
                        let why =
                            format!("the put is part of {upload}, of a term that this member does not know");
                        self.refuse(id, blob.size, &why, &mut reader).await?;
                        continue;
                    }
                    debug!(%upload, digest = %blob.digest, bytes = blob.size, "receiving a blob");
                    let Ok(permit) = Arc::clone(&self.put_permits).acquire_owned().await else {
                        return Ok(());
                    };
                    let put = PutRequest { id, blob, upload, chain };
                    if blob.size <= SMALL_BYTES_MAX {
                        self.receive_small(put, permit, &mut reader).await?;
                    } else {
                        self.receive_large(put, permit, &mut reader).await?;
                    }
                }
            }
        }
    }

    /// Refuses a put, and discards its bytes.
    async fn refuse<R>(
        &self,
        id: u64,
        mut remaining: u64,
        why: &str,
        reader: &mut R,
    ) -> Result<(), ServeError>
    where
        R: AsyncRead + Send + Unpin,
    {
        let _memory = self.access.take(CHUNK_BYTES_MAX).await;
        while remaining > 0 {
            let length = usize::try_from(remaining).unwrap_or(usize::MAX).min(CHUNK_BYTES_MAX);
            remaining -= read_within(reader, length).await?.len() as u64;
        }
        let failed = vec![(self.server.node, why.to_owned())];
        // The caller may have disconnected.
        let _ = self.replies.send(BlobReply::Stored { id, holders: Vec::new(), failed }).await;
        Ok(())
    }

    async fn receive_small<R>(
        &self,
        put: PutRequest,
        permit: OwnedSemaphorePermit,
        reader: &mut R,
    ) -> Result<(), ServeError>
    where
        R: AsyncRead + Send + Unpin,
    {
        let size = usize::try_from(put.blob.size).unwrap_or(usize::MAX);
        // Until the store has taken the bytes over, within its own bound.
        let memory = self.take_memory(size).await;
        let bytes = read_within(reader, size).await?;
        let mut forward = self.forward(&put.chain).await;
        if let Some(connection) = forward.connection.clone() {
            let rest = &forward.chain[1..];
            match connection.start_put(put.blob, put.upload, rest, bytes.clone()).await {
                Ok(pending) => forward.pending = Some(pending),
                Err(error) => forward.abandon(&error.to_string()),
            }
        }
        let stored =
            self.disk_takes(self.server.store.start_put(put.blob, Some(put.upload), bytes)).await.flatten();
        drop(memory);
        self.reply_when_stored(put.id, permit, forward, async { stored.map(PendingStore::done)?.await });
        Ok(())
    }

    async fn receive_large<R>(
        &self,
        put: PutRequest,
        permit: OwnedSemaphorePermit,
        reader: &mut R,
    ) -> Result<(), ServeError>
    where
        R: AsyncRead + Send + Unpin,
    {
        let _memory = self.take_memory(LARGE_PUT_BYTES).await;
        let Ok(slot) = Arc::clone(&self.server.large_puts).acquire_owned().await else { return Ok(()) };
        let mut forward = self.forward(&put.chain).await;
        let mut stream = forward.stream(&put).await;
        let mut local = Ok(self.server.store.stream_put(put.blob, Some(put.upload)));
        let mut remaining = put.blob.size;
        while remaining > 0 {
            let length = usize::try_from(remaining).unwrap_or(usize::MAX).min(CHUNK_BYTES_MAX);
            let chunk = read_within(reader, length).await?;
            remaining -= length as u64;
            if let Some(next) = &stream
                && let Err(error) = next.send(chunk.clone()).await
            {
                forward.abandon(&error.to_string());
                stream = None;
            }
            // The other holders get the rest also if this disk hangs.
            if let Ok(put) = &local
                && let Err(error) = self.disk_takes(put.send(chunk)).await
            {
                local = Err(error);
            }
        }
        self.reply_when_stored(put.id, permit, forward, async move {
            let stored = local?.done().await;
            drop(slot);
            stored
        });
        Ok(())
    }

    /// Waits for memory. The peer is told meanwhile that its put is not forgotten.
    async fn take_memory(&self, bytes: usize) -> Option<MemoryPermit> {
        let _wait = self.disk_waits.begin();
        self.access.take(bytes).await
    }

    /// Waits until the store has taken bytes over, for as long as a disk may take at most.
    async fn disk_takes<T>(&self, taken: impl Future<Output = T> + Send) -> Result<T, StoreError> {
        let _wait = self.disk_waits.begin();
        let limit = self.server.disk_timeout;
        timeout(limit, taken).await.map_err(|_| too_late(limit))
    }

    /// Connects to the first reachable holder of the chain, and skips those before it.
    async fn forward(&self, chain: &[Holder]) -> ForwardedPut {
        let mut forward = ForwardedPut { chain: chain.to_vec(), ..ForwardedPut::default() };
        while let Some(&next) = forward.chain.first() {
            let failure = if self.server.cluster.has(next) {
                match self.next(next).await {
                    Ok(connection) => {
                        forward.connection = Some(connection);
                        break;
                    }
                    Err(error) => error.to_string(),
                }
            } else {
                format!("{} is no address of {} that this member knows", next.address, next.node)
            };
            forward.failed.push((next.node, failure));
            forward.chain.remove(0);
        }
        forward
    }

    /// The connection to the next holder: the one on which puts of this session wait, otherwise an unused one.
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

    /// Replies once the local copy and those of later holders are durable or have failed.
    fn reply_when_stored(
        &self,
        id: u64,
        permit: OwnedSemaphorePermit,
        forward: ForwardedPut,
        local: impl Future<Output = Result<(), StoreError>> + Send + 'static,
    ) {
        let node = self.server.node;
        let replies = self.replies.clone();
        let disk_timeout = self.server.disk_timeout;
        let wait = self.disk_waits.begin();
        tokio::spawn(async move {
            let local =
                async { timeout(disk_timeout, local).await.unwrap_or_else(|_| Err(too_late(disk_timeout))) };
            let (local, forwarded) = tokio::join!(local, forward.outcome());
            let ForwardOutcome { mut holders, mut failed } = forwarded;
            drop(wait);
            match local {
                Ok(()) => holders.insert(0, node),
                Err(error) => failed.insert(0, (node, error.to_string())),
            }
            // The caller may have disconnected.
            let _ = replies.send(BlobReply::Stored { id, holders, failed }).await;
            drop(permit);
        });
    }
}

/// The bytes may be stored yet: nothing refers to them then, and they are collected.
fn too_late(limit: Duration) -> StoreError {
    StoreError::TooLate { seconds: limit.as_secs() }
}

/// The part of a put further down the chain.
#[derive(Default)]
struct ForwardedPut {
    chain: Vec<Holder>,
    /// Held until the put is answered: until then no other session gets this connection.
    connection: Option<Arc<BlobConnection>>,
    pending: Option<PendingPut>,
    failed: Vec<(NodeId, String)>,
}

/// The later holders of the chain that stored the blob, and those that failed, with the reason.
struct ForwardOutcome {
    holders: Vec<NodeId>,
    failed: Vec<(NodeId, String)>,
}

impl ForwardedPut {
    async fn stream(&mut self, put: &PutRequest) -> Option<PutStream> {
        let connection = self.connection.clone()?;
        match connection.stream_put(put.blob, put.upload, &self.chain[1..]).await {
            Ok((stream, pending)) => {
                self.pending = Some(pending);
                Some(stream)
            }
            Err(error) => {
                self.abandon(&error.to_string());
                None
            }
        }
    }

    /// Records the failure of the next holder. Holders after it have not failed: they are merely unreached.
    fn abandon(&mut self, reason: &str) {
        self.pending = None;
        let next = std::mem::take(&mut self.chain).into_iter().next();
        self.failed.extend(next.map(|holder| (holder.node, reason.to_owned())));
    }

    async fn outcome(mut self) -> ForwardOutcome {
        let Some(pending) = self.pending.take() else {
            return ForwardOutcome { holders: Vec::new(), failed: self.failed };
        };
        match pending.answer().await {
            Ok(mut stored) => {
                // Ignores holders that are not in the chain.
                stored.holders.retain(|node| self.chain.iter().any(|holder| holder.node == *node));
                self.failed.extend(stored.failed);
                ForwardOutcome { holders: stored.holders, failed: self.failed }
            }
            Err(error) => {
                self.abandon(&error.to_string());
                ForwardOutcome { holders: Vec::new(), failed: self.failed }
            }
        }
    }
}
