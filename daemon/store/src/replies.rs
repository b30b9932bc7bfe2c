//! The sending half of a blob connection: the outcomes of puts, and the requested blobs.
//!
//! Small blobs are read and verified in groups, one group ahead of the socket; large ones are streamed from the disk.
//! Invariant: gets are answered in the order of their requests. Bounds: [`GROUPS_PREPARED`] groups of gets, and those of
//! [`super::server`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt, unfold};
use idunno_shared::client::files::connection::CHUNK_BYTES_MAX;
use idunno_shared::client::files::direct_io::AlignedBuffer;
use idunno_shared::ids::Digest;
use idunno_shared::wire::blobs::BlobReply;
use idunno_shared::wire::frame::encode_frame;
use tokio::io::{AsyncWrite, BufWriter};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::access::BlobAccess;
use super::blobs::{BlobStore, SMALL_BYTES_MAX, StoreError};
use super::memory::MemoryPermit;
use super::socket::{SOCKET_BUFFER_BYTES, ServeError, flush_within, write_within};

/// Gets opened, and small blobs read, together.
pub(super) const GETS_GROUP_MAX: usize = 16;
/// Bytes of small blobs read together; the last blob may exceed it.
pub(super) const GETS_GROUP_BYTES_MAX: u64 = 1 << 20;
/// Groups of gets read ahead per connection.
pub(super) const GROUPS_PREPARED: usize = 2;
/// Interval of the keep-alive while puts wait for the disk.
pub(super) const KEEP_ALIVE_PERIOD: Duration = Duration::from_secs(1);

pub(super) struct GetRequest {
    pub(super) id: u64,
    pub(super) digest: Digest,
    pub(super) offset: u64,
}

/// Puts that wait for this member, and not for the peer: for its disk, or for memory.
pub(super) struct DiskWaits {
    /// After this long a put no longer sends keep-alives.
    timeout: Duration,
    state: Mutex<WaitState>,
}

#[derive(Default)]
struct WaitState {
    last_number: u64,
    /// Start of each wait, by number and therefore oldest first.
    started: BTreeMap<u64, Instant>,
}

impl DiskWaits {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, WaitState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a wait, which ends when it is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> DiskWait {
        let mut state = self.lock();
        state.last_number += 1;
        let number = state.last_number;
        state.started.insert(number, Instant::now());
        DiskWait { waits: Arc::clone(self), number }
    }

    /// Whether puts wait, none of them longer than the timeout.
    fn are_progressing(&self) -> bool {
        self.lock().started.first_key_value().is_some_and(|(_, since)| since.elapsed() < self.timeout)
    }
}

/// A put that waits.
pub(super) struct DiskWait {
    waits: Arc<DiskWaits>,
    number: u64,
}

impl Drop for DiskWait {
    fn drop(&mut self) {
        self.waits.lock().started.remove(&self.number);
    }
}

/// A get's reply, ready to be sent.
enum PreparedReply {
    Missing(String),
    Whole(Bytes),
    File { file: File, position: u64, bytes: u64 },
}

/// Groups queued gets, in order.
fn grouped(requests: mpsc::Receiver<GetRequest>, store: BlobStore) -> impl Stream<Item = Vec<GetRequest>> {
    unfold((requests, store), async |(mut requests, store)| {
        let small_bytes =
            |get: &GetRequest| store.size(get.digest).filter(|&size| size <= SMALL_BYTES_MAX).unwrap_or(0);
        let first = requests.recv().await?;
        let mut bytes = small_bytes(&first);
        let mut group = vec![first];
        while group.len() < GETS_GROUP_MAX && bytes < GETS_GROUP_BYTES_MAX {
            let Ok(next) = requests.try_recv() else { break };
            bytes += small_bytes(&next);
            group.push(next);
        }
        Some((group, (requests, store)))
    })
}

/// What gets occupy until they are written: small blobs are read whole, large ones one after the other in two chunks.
fn memory_of(group: &[GetRequest], store: &BlobStore) -> usize {
    let (mut small, mut large) = (0, 0);
    for size in group.iter().filter_map(|get| store.size(get.digest)) {
        if size <= SMALL_BYTES_MAX {
            small += usize::try_from(size).unwrap_or(usize::MAX);
        } else {
            large = 2 * CHUNK_BYTES_MAX;
        }
    }
    small + large
}

/// Gets that are ready to be written, with the memory that they occupy.
struct PreparedGroup {
    gets: Vec<(GetRequest, PreparedReply)>,
    _memory: Option<MemoryPermit>,
}

async fn prepare(group: Vec<GetRequest>, store: BlobStore, access: BlobAccess) -> PreparedGroup {
    let memory = access.take(memory_of(&group, &store)).await;
    PreparedGroup { gets: open_group(group, store).await, _memory: memory }
}

async fn open_group(group: Vec<GetRequest>, store: BlobStore) -> Vec<(GetRequest, PreparedReply)> {
    let open_all = move || -> Vec<(GetRequest, PreparedReply)> {
        let open_one = |get: GetRequest| {
            let prepared = open(&store, get.digest, get.offset);
            (get, prepared.unwrap_or_else(|error| PreparedReply::Missing(error.to_string())))
        };
        group.into_iter().map(open_one).collect()
    };
    spawn_blocking(open_all).await.unwrap_or_else(|error| {
        tracing::error!(%error, "reading blobs panicked: their readers must use other holders");
        Vec::new()
    })
}

fn open(store: &BlobStore, digest: Digest, offset: u64) -> Result<PreparedReply, StoreError> {
    let size = store.size(digest).ok_or(StoreError::Missing(digest))?;
    if size <= SMALL_BYTES_MAX && offset == 0 {
        return Ok(PreparedReply::Whole(store.read(digest)?));
    }
    let (file, size) = store.open_from(digest, offset)?;
    if file.metadata().is_ok_and(|metadata| metadata.len() != size) {
        // The file was truncated: the check quarantines it.
        store.check(digest)?;
    }
    Ok(PreparedReply::File { file, position: offset, bytes: size.saturating_sub(offset) })
}

/// Sends replies to puts and gets until the connection fails.
pub(super) async fn write_replies<W>(
    writer: W,
    mut stored: mpsc::Receiver<BlobReply>,
    requests: mpsc::Receiver<GetRequest>,
    store: BlobStore,
    waits: &DiskWaits,
    access: BlobAccess,
) -> Result<(), ServeError>
where
    W: AsyncWrite + Send + Unpin,
{
    let mut keep_alive = interval(KEEP_ALIVE_PERIOD);
    keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut writer = BufWriter::with_capacity(SOCKET_BUFFER_BYTES, writer);
    let gets = grouped(requests, store.clone()).map(|group| prepare(group, store.clone(), access.clone()));
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
                for (request, prepared) in group.gets {
                    write_blob(&mut writer, &request, prepared).await?;
                }
            }
            _ = keep_alive.tick() => {
                if !waits.are_progressing() {
                    continue;
                }
                write_reply(&mut writer, &BlobReply::Working).await?;
            }
        }
        flush_within(&mut writer).await?;
    }
}

async fn write_reply<W: AsyncWrite + Unpin>(writer: &mut W, reply: &BlobReply) -> Result<(), ServeError> {
    let mut frame = Vec::with_capacity(128);
    encode_frame(reply, &mut frame)?;
    write_within(writer, &frame).await
}

async fn write_blob<W: AsyncWrite + Unpin>(
    writer: &mut W,
    request: &GetRequest,
    prepared: PreparedReply,
) -> Result<(), ServeError> {
    let id = request.id;
    match prepared {
        PreparedReply::Missing(reason) => write_reply(writer, &BlobReply::Missing { id, reason }).await,
        PreparedReply::Whole(bytes) => {
            write_reply(writer, &BlobReply::Data { id, bytes: bytes.len() as u64 }).await?;
            write_within(writer, &bytes).await
        }
        PreparedReply::File { file, position, bytes } => {
            write_reply(writer, &BlobReply::Data { id, bytes }).await?;
            write_file(writer, file, position, bytes).await.map_err(|error| match error {
                ServeError::Read { source, .. } => ServeError::Read { digest: request.digest, source },
                other => other,
            })
        }
    }
}

/// A chunk that is being read: the file, the buffer, and the number of bytes in it.
type ReadAhead = JoinHandle<io::Result<(File, AlignedBuffer, usize)>>;

fn read_ahead(file: File, mut buffer: AlignedBuffer, position: u64, remaining: u64) -> ReadAhead {
    spawn_blocking(move || {
        let length = usize::try_from(remaining).unwrap_or(usize::MAX).min(CHUNK_BYTES_MAX);
        let mut filled = 0;
        while filled < length {
            // Reads into the whole rest of the buffer: direct reads have an aligned length, and stop at the end of the file.
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

/// Sends a file from `position`, reading one chunk while sending the one before.
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
