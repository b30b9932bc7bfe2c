//! The answers of one connection on their way to its peer.
//!
//! An answer is encoded before it is queued, so that what waits is counted in bytes. Bounds: [`ANSWERS_QUEUED_MAX`] answers;
//! those of a client also by the memory of its identity: one that finds none is replaced by a refusal as busy, and a stream
//! waits, also for all but [`STREAM_UNREAD_MAX`] of its own to be read. [`WRITE_TIMEOUT`] for the peer to read.

use std::sync::Arc;
use std::time::Duration;

use idunno_shared::client::link::LinkWriter;
use idunno_shared::wire::frame::{Answer, Reply, encode_frame};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use idunno_store::memory::{MemoryBudget, MemoryPermit};
use tokio::io::AsyncWriteExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tracing::warn;

/// How long a peer may read nothing while answers wait for it. Then the connection ends, and with it its requests.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
const ANSWERS_QUEUED_MAX: usize = 64;
/// Unread answers of one stream.
pub(super) const STREAM_UNREAD_MAX: usize = 2;
/// A write that has this many bytes takes no further answer.
const WRITE_BYTES_SOFT_MAX: usize = 256 << 10;

/// An encoded answer, with the memory that it occupies.
pub(super) struct QueuedAnswer {
    frame: Vec<u8>,
    /// None for a member's, and for a refusal.
    memory: Option<MemoryPermit>,
    /// The place in its stream, if it is part of one.
    place: Option<OwnedSemaphorePermit>,
}

/// Queues answers for [`write_answers`].
#[derive(Clone)]
pub(super) struct Answers {
    queue: mpsc::Sender<QueuedAnswer>,
    /// None for a member.
    memory: Option<MemoryBudget>,
}

/// The connection has ended.
pub(super) struct Ended;

impl Answers {
    pub(super) fn new(memory: Option<MemoryBudget>) -> (Self, mpsc::Receiver<QueuedAnswer>) {
        let (queue, queued) = mpsc::channel(ANSWERS_QUEUED_MAX);
        (Self { queue, memory }, queued)
    }

    /// Queues an answer, or a refusal if too many wait unread already.
    pub(super) async fn send(&self, answer: Answer) -> Result<(), Ended> {
        let frame = encoded(&answer).ok_or(Ended)?;
        let memory = match &self.memory {
            None => None,
            Some(budget) => match budget.try_take(frame.len()) {
                None => return self.queue(busy(&answer).ok_or(Ended)?, None).await,
                taken => taken,
            },
        };
        self.queue(frame, memory).await
    }

    /// Queues one of many answers to a call, once there is memory for it and few of its stream are unread: else a long
    /// stream, as of a backup, would take all the memory of its identity, and other answers would find none.
    pub(super) async fn push(&self, answer: Answer, stream: &Arc<Semaphore>) -> Result<(), Ended> {
        let frame = encoded(&answer).ok_or(Ended)?;
        let wait = async {
            let place = Arc::clone(stream).acquire_owned().await.ok();
            let memory = match &self.memory {
                None => None,
                Some(budget) => budget.take(frame.len()).await,
            };
            (place, memory)
        };
        let (place, memory) = tokio::select! {
            taken = wait => taken,
            () = self.queue.closed() => return Err(Ended),
        };
        self.queue.send(QueuedAnswer { frame, memory, place }).await.map_err(|_| Ended)
    }

    async fn queue(&self, frame: Vec<u8>, memory: Option<MemoryPermit>) -> Result<(), Ended> {
        self.queue.send(QueuedAnswer { frame, memory, place: None }).await.map_err(|_| Ended)
    }
}

/// What takes an answer's place if too many wait unread.
fn busy(answer: &Answer) -> Option<Vec<u8>> {
    let text = "too many answers wait unread: read them, or ask for less at once";
    let reply = Reply::Refused(Refusal::new(RefusalCode::Busy, text));
    encoded(&Answer { id: answer.id, more: false, reply })
}

/// Encodes an answer, or a refusal in its place. A refusal can always be encoded.
fn encoded(answer: &Answer) -> Option<Vec<u8>> {
    let mut frame = Vec::new();
    if let Err(error) = encode_frame(answer, &mut frame) {
        warn!(%error, "cannot encode an answer, sending a refusal instead");
        frame.clear();
        let reply = Reply::Refused(Refusal::internal(format!("the answer cannot be sent: {error}")));
        encode_frame(&Answer { id: answer.id, more: false, reply }, &mut frame).ok()?;
    }
    Some(frame)
}

/// Writes answers until the connection fails.
pub(super) async fn write_answers(mut writer: LinkWriter, mut queued: mpsc::Receiver<QueuedAnswer>) {
    while let Some(QueuedAnswer { frame: mut buffer, memory, place }) = queued.recv().await {
        let mut permits = vec![(memory, place)];
        // Answers that queued up meanwhile go out in the same write.
        while buffer.len() < WRITE_BYTES_SOFT_MAX
            && let Ok(QueuedAnswer { frame, memory, place }) = queued.try_recv()
        {
            buffer.extend_from_slice(&frame);
            permits.push((memory, place));
        }
        let write = async { writer.write_all(&buffer).await.is_ok() && writer.flush().await.is_ok() };
        if !timeout(WRITE_TIMEOUT, write).await.unwrap_or(false) {
            return;
        }
    }
}
