//! The answering half of a connection for blobs: what became of puts, and the bytes that were asked for.
//!
//! Small blobs are read and verified in groups, one group ahead of the socket; large ones are sent as they are read.
//! Invariant: gets are answered in the order they came. Bounds: [`GROUPS_PREPARED`] groups of gets, and those of [`super::server`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt, unfold};
use idunno_shared::client::files::connection::CHUNK_BYTES_MAX;
use idunno_shared::client::files::direct_io::AlignedBuffer;
use idunno_shared::ids::Digest;
use idunno_shared::wire::blobs::BlobReply;
use idunno_shared::wire::frame::encode_frame;
use tokio::io::{AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::blobs::{BlobStore, SMALL_BYTES_MAX, StoreError};
use super::connection::{CHUNK_TIMEOUT, SOCKET_BUFFER_BYTES, ServeError};

/// Most gets that are opened, and small blobs read, in one go.
pub(super) const GETS_GROUP_MAX: usize = 16;
/// Most bytes of small blobs that are read in one go, but for the last one.
pub(super) const GETS_GROUP_BYTES_MAX: u64 = 1 << 20;
/// Groups of gets of one connection that are read ahead.
pub(super) const GROUPS_PREPARED: usize = 2;
/// How often a caller hears that its puts are being worked on.
pub(super) const WORKING_PERIOD: Duration = Duration::from_secs(1);

/// A get.
pub(super) struct Wanted {
    pub(super) id: u64,
    pub(super) digest: Digest,
    pub(super) offset: u64,
}

/// Puts whose bytes are here, and since when.
pub(super) struct Waits {
    /// How long a put may wait before its caller hears no more.
    patience: Duration,
    /// The number of the last one, and those that wait.
    waiting: Mutex<(u64, BTreeMap<u64, Instant>)>,
}

impl Waits {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, waiting: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Instant>)> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self) -> u64 {
        let mut waits = self.lock();
        waits.0 += 1;
        let number = waits.0;
        waits.1.insert(number, Instant::now());
        number
    }

    pub(super) fn end(&self, number: u64) {
        self.lock().1.remove(&number);
    }

    /// Whether some wait, and none for too long.
    fn worked_on(&self) -> bool {
        self.lock().1.first_key_value().is_some_and(|(_, since)| since.elapsed() < self.patience)
    }
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
    if file.metadata().is_ok_and(|metadata| metadata.len() != size) {
        // It was cut: this says so, and moves it aside.
        store.check(digest)?;
    }
    Ok(Prepared::File { file, position: offset, bytes: size.saturating_sub(offset) })
}

/// Answers puts and gets until the connection fails.
pub(super) async fn write_replies<W>(
    writer: W,
    mut stored: mpsc::Receiver<BlobReply>,
    wanted: mpsc::Receiver<Wanted>,
    store: BlobStore,
    waits: &Waits,
) -> Result<(), ServeError>
where
    W: AsyncWrite + Send + Unpin,
{
    let mut working = interval(WORKING_PERIOD);
    working.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
            _ = working.tick() => {
                if !waits.worked_on() {
                    continue;
                }
                write_reply(&mut writer, &BlobReply::Working).await?;
            }
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
