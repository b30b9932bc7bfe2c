//! Many calls at once over one link.
//!
//! Bounds: [`CALLS_MAX`] calls may wait for an answer; further ones queue. A call is forgotten as soon as
//! its caller has the answer, gives up or is dropped. When the link ends, every waiting call ends with
//! [`CallError::Closed`].

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::frames::read_frame;
use super::link::{Link, LinkReader, LinkWriter};
use crate::ids::NodeId;
use crate::wire::frame::{Answer, Call, FrameError, Reply, Request, encode_frame};

/// Calls that one connection may have unanswered.
pub const CALLS_MAX: usize = 1024;
const WRITES_QUEUED_MAX: usize = 64;
const PUSHES_QUEUED_MAX: usize = 16;

/// Why a call has no answer.
#[derive(Debug, Error)]
pub enum CallError {
    /// The connection ended before the answer came; the request may have been carried out.
    #[error("the connection closed before the answer came")]
    Closed,
    /// The answer did not come in time; the request may have been carried out.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The request was never sent.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// `None` once the link has ended.
type Waiting = Arc<Mutex<Option<Calls>>>;

struct Calls {
    senders: BTreeMap<u64, mpsc::Sender<Reply>>,
    /// When the peer last answered anything; at first, when the link was opened.
    last_answer: Instant,
}

/// One connection, shared by many callers. Cheap to clone; closes when the last clone is dropped.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
}

struct Shared {
    node: Option<NodeId>,
    next_id: AtomicU64,
    waiting: Waiting,
    slots: Semaphore,
    writes: mpsc::Sender<Vec<u8>>,
    task: AbortHandle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    /// Takes a link over. Must be called within a runtime.
    pub fn new(link: Link) -> Self {
        let calls = Calls { senders: BTreeMap::new(), last_answer: Instant::now() };
        let waiting: Waiting = Arc::new(Mutex::new(Some(calls)));
        let (writes, queued) = mpsc::channel(WRITES_QUEUED_MAX);
        let task = tokio::spawn(run(link.reader, link.writer, queued, Arc::clone(&waiting)));
        let shared = Shared {
            node: link.node,
            next_id: AtomicU64::new(1),
            waiting,
            slots: Semaphore::new(CALLS_MAX),
            writes,
            task: task.abort_handle(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Whether both are clones of one connection.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Whether there is another clone than this one.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.shared) > 1
    }

    /// The peer's id; an introducer has none.
    pub fn node(&self) -> Option<NodeId> {
        self.shared.node
    }

    /// Whether the link has ended.
    pub fn is_closed(&self) -> bool {
        lock(&self.shared.waiting).is_none()
    }

    /// How long ago the peer last answered anything.
    pub fn silence(&self) -> Duration {
        lock(&self.shared.waiting).as_ref().map_or(Duration::MAX, |calls| calls.last_answer.elapsed())
    }

    /// Ends when the link has ended. It does not keep the connection open.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let writes = self.shared.writes.clone();
        async move { writes.closed().await }
    }

    /// Sends a request, and waits for its one answer.
    pub async fn call(&self, request: Request, limit: Duration) -> Result<Reply, CallError> {
        let ask = async {
            let slot = self.shared.slots.acquire().await.map_err(|_| CallError::Closed)?;
            let (id, mut answers) = self.open(1)?;
            let _pending = PendingCall { shared: &self.shared, id, _slot: slot };
            self.send(id, request).await?;
            answers.recv().await.ok_or(CallError::Closed)
        };
        timeout(limit, ask).await.unwrap_or(Err(CallError::TimedOut(limit)))
    }

    /// Sends a request that is answered repeatedly. The receiver ends with the connection. A slow receiver delays the other
    /// calls on it, so a watch should have a connection of its own.
    pub async fn watch(&self, request: Request) -> Result<mpsc::Receiver<Reply>, CallError> {
        let (id, answers) = self.open(PUSHES_QUEUED_MAX)?;
        self.send(id, request).await?;
        Ok(answers)
    }

    /// Registers a call before it is sent, so that no answer can come too early.
    fn open(&self, queued_max: usize) -> Result<(u64, mpsc::Receiver<Reply>), CallError> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, answers) = mpsc::channel(queued_max);
        lock(&self.shared.waiting).as_mut().ok_or(CallError::Closed)?.senders.insert(id, sender);
        Ok((id, answers))
    }

    async fn send(&self, id: u64, request: Request) -> Result<(), CallError> {
        let mut frame = Vec::with_capacity(256);
        encode_frame(&Call { id, request }, &mut frame)?;
        self.shared.writes.send(frame).await.map_err(|_| CallError::Closed)
    }
}

/// A call in flight; dropping it forgets the call.
struct PendingCall<'a> {
    shared: &'a Shared,
    id: u64,
    _slot: SemaphorePermit<'a>,
}

impl Drop for PendingCall<'_> {
    fn drop(&mut self) {
        if let Some(calls) = lock(&self.shared.waiting).as_mut() {
            calls.senders.remove(&self.id);
        }
    }
}

fn lock(waiting: &Waiting) -> std::sync::MutexGuard<'_, Option<Calls>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs both directions; when one ends, the link has ended.
async fn run(reader: LinkReader, writer: LinkWriter, mut queued: mpsc::Receiver<Vec<u8>>, waiting: Waiting) {
    tokio::select! {
        () = read_answers(reader, &waiting) => {}
        () = write_calls(writer, &mut queued) => {}
    }
    *lock(&waiting) = None;
    // Whoever waits in `closed` wakes only now, and finds the connection closed.
    drop(queued);
}

async fn read_answers(reader: LinkReader, waiting: &Waiting) {
    let mut reader = BufReader::with_capacity(64 << 10, reader);
    while let Ok(Answer { id, more, reply }) = read_frame(&mut reader).await {
        let sender = {
            let mut guard = lock(waiting);
            let Some(calls) = guard.as_mut() else { return };
            calls.last_answer = Instant::now();
            if more { calls.senders.get(&id).cloned() } else { calls.senders.remove(&id) }
        };
        // The caller may have given up.
        let Some(sender) = sender else { continue };
        if sender.send(reply).await.is_err()
            && let Some(calls) = lock(waiting).as_mut()
        {
            calls.senders.remove(&id);
        }
    }
}

async fn write_calls(mut writer: LinkWriter, queued: &mut mpsc::Receiver<Vec<u8>>) {
    while let Some(mut frame) = queued.recv().await {
        // Calls that queued up meanwhile go out in the same write.
        while let Ok(next) = queued.try_recv() {
            frame.extend_from_slice(&next);
        }
        if writer.write_all(&frame).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;
    use std::task::{Context, Wake, Waker};

    use tokio::io::{AsyncReadExt, DuplexStream, duplex, split};

    use super::*;
    use crate::client::frames::write_frame;
    use crate::wire::control::{ControlReply, ControlRequest};

    fn pair() -> (Connection, DuplexStream) {
        let (ours, theirs) = duplex(1 << 20);
        let (reader, writer) = split(ours);
        (Connection::new(Link { reader: Box::new(reader), writer: Box::new(writer), node: None }), theirs)
    }

    fn request() -> Request {
        Request::Control(ControlRequest::Coordinator)
    }

    async fn answer(peer: &mut DuplexStream, id: u64) {
        let reply = Reply::Control(Box::new(ControlReply::Done));
        write_frame(peer, &Answer { id, more: false, reply }).await.unwrap();
    }

    fn waiting(connection: &Connection) -> usize {
        lock(&connection.shared.waiting).as_ref().unwrap().senders.len()
    }

    #[tokio::test]
    async fn a_peer_that_never_answers_leaves_nothing_behind() {
        let (connection, _silent) = pair();
        for _ in 0..50 {
            let error = connection.call(request(), Duration::from_millis(1)).await.unwrap_err();
            assert!(matches!(error, CallError::TimedOut(_)), "{error}");
        }
        assert_eq!(waiting(&connection), 0);
        assert_eq!(connection.shared.slots.available_permits(), CALLS_MAX);
        assert!(connection.silence() >= Duration::from_millis(50));
    }

    #[tokio::test]
    async fn answers_find_their_calls_in_any_order_and_late_ones_are_dropped() {
        let (connection, mut peer) = pair();
        let given_up = connection.call(request(), Duration::from_millis(1)).await;
        assert!(given_up.is_err());
        let call = || {
            let connection = connection.clone();
            tokio::spawn(async move { connection.call(request(), Duration::from_secs(5)).await })
        };
        let calls = [call(), call()];
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(read_frame::<Call, _>(&mut peer).await.unwrap().id);
        }
        for id in ids.into_iter().rev() {
            answer(&mut peer, id).await;
        }
        for call in calls {
            assert!(matches!(call.await.unwrap(), Ok(Reply::Control(_))));
        }
    }

    #[tokio::test]
    async fn a_peer_that_disconnects_ends_every_call() {
        let (connection, mut peer) = pair();
        let call = {
            let connection = connection.clone();
            tokio::spawn(async move { connection.call(request(), Duration::from_secs(5)).await })
        };
        peer.read_u8().await.unwrap();
        let closed = connection.closed();
        drop(peer);
        assert!(matches!(call.await.unwrap(), Err(CallError::Closed)));
        closed.await;
        assert!(connection.is_closed());
    }

    /// Whether the connection was closed when whoever waits for its end was woken.
    struct Woken(Connection, OnceLock<bool>);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.1.get_or_init(|| self.0.is_closed());
        }
    }

    #[tokio::test]
    async fn whoever_is_told_of_the_end_finds_the_connection_closed() {
        let (connection, peer) = pair();
        let woken = Arc::new(Woken(connection.clone(), OnceLock::new()));
        let waker = Waker::from(Arc::clone(&woken));
        let mut waits = Box::pin(connection.closed());
        assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(peer);
        connection.closed().await;
        assert_eq!(woken.1.get(), Some(&true));
    }
}
