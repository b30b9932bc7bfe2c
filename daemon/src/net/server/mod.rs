//! Accepts connections, authenticates their peers, checks their hellos and the role that each request needs
//! ([`super::roles`]), and hands the requests to the [`Service`].
//!
//! Bounds: those of [`Limits`] on connections that say hello (further ones wait in the system's queue), on clients, on
//! each client's identity and on members (further ones are refused), each counted separately, so that clients cannot keep
//! members out, nor one client the others; [`CALLS_MAX`] requests of one connection in progress at once (its reader pauses
//! beyond), [`HELLO_TIMEOUT`] for the handshake and the hello, [`WRITE_TIMEOUT`] for a peer to read its answers,
//! [`CLIENT_IDLE_MAX`] for a client without requests. Together they are well below
//! [`crate::runtime::process::FILES_MAX`].

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use idunno_shared::client::frames::{FrameIoError, read_body_within, read_frame_within, write_greeting};
use idunno_shared::client::link::{Link, LinkReader, LinkWriter};
use idunno_shared::ids::NodeId;
use idunno_shared::security::Role;
use idunno_shared::wire::frame::{
    Answer, Call, FRAME_BYTES_MAX, FrameError, HEADER_BYTES_MAX, Hello, HelloReply, MAGIC, Purpose, Reply,
    Request, decode_body, encode_frame,
};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use idunno_shared::wire::version::{SPOKEN, Versions};
use serde::Deserialize;
use serde::de::IgnoredAny;
use thiserror::Error;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::connection_limits::{ConnectionLimits, ConnectionPermit, Limits};
use super::roles;
use super::transport::{Accepted, Acceptor, Incoming, Peer};

/// Requests of one connection in progress at once.
pub const CALLS_MAX: usize = 256;
/// How long a new connection may take for its handshake and its hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a peer may read nothing while answers wait for it. Then the connection ends, and with it its requests.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client's connection for calls may be idle.
pub const CLIENT_IDLE_MAX: Duration = Duration::from_secs(300);
const ANSWERS_QUEUED_MAX: usize = 64;
/// A write that has this many bytes takes no further answer.
const WRITE_BYTES_SOFT_MAX: usize = 256 << 10;

/// The answer to a request.
pub enum Response {
    /// Once.
    One(Reply),
    /// Until the sender is dropped or the connection ends.
    Many(mpsc::Receiver<Reply>),
}

impl From<Reply> for Response {
    fn from(reply: Reply) -> Self {
        Self::One(reply)
    }
}

/// Handles the requests and connections that a server accepts.
pub trait Service: Send + Sync + 'static {
    /// The id that answers to hellos name.
    fn node(&self) -> Option<NodeId>;
    /// Answers one request.
    fn request(&self, request: Request, from: &Caller) -> impl Future<Output = Response> + Send;
    /// A member's connection for calls ended; the process may be gone.
    fn hung_up(&self, member: NodeId) -> impl Future<Output = ()> + Send {
        let _ = member;
        std::future::ready(())
    }
    /// Serves one connection for blobs until it ends; accepts puts only if `may_store`.
    fn blobs(&self, link: Link, may_store: bool) -> impl Future<Output = ()> + Send;
}

/// Serves until `stop` is cancelled, which ends all connections.
pub async fn serve<S: Service>(acceptor: Acceptor, service: Arc<S>, limits: Limits, stop: CancellationToken) {
    let greetings = Arc::new(Semaphore::new(limits.greetings));
    let limits = Arc::new(ConnectionLimits::new(limits));
    let mut tasks = JoinSet::new();
    loop {
        let next = async {
            let greeting = Arc::clone(&greetings).acquire_owned().await;
            (greeting, acceptor.accept().await)
        };
        let (greeting, accepted) = tokio::select! {
            next = next => next,
            () = stop.cancelled() => return,
        };
        while tasks.try_join_next().is_some() {}
        match accepted {
            Ok(incoming) => {
                let (service, limits, from) = (Arc::clone(&service), Arc::clone(&limits), incoming.from);
                tasks.spawn(async move {
                    if let Err(error) = serve_connection(service, &limits, greeting, incoming).await {
                        debug!(%from, %error, "connection ended");
                    }
                });
            }
            Err(error) => {
                // Most likely the process is out of file descriptors: other connections must end first.
                warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_connection<S: Service, T>(
    service: Arc<S>,
    limits: &ConnectionLimits,
    greeting: T,
    incoming: Incoming,
) -> Result<(), FrameIoError> {
    let from = incoming.from;
    let greet = async {
        let Some(mut accepted) = incoming.prove().await else { return Ok(None) };
        let hello = read_frame_within::<Hello, _>(&mut accepted.reader, HEADER_BYTES_MAX).await?;
        Ok::<_, FrameIoError>(Some((accepted, hello)))
    };
    let Ok(greeted) = timeout(HELLO_TIMEOUT, greet).await else {
        debug!(%from, "closing a connection that sent no hello in time");
        return Ok(());
    };
    let Some((Accepted { reader, mut writer, peer }, hello)) = greeted? else { return Ok(()) };
    let admitted = match agree(&hello, &peer) {
        Ok(version) => match limits.enter(hello.from.is_some(), &peer) {
            Ok(permit) => Ok((version, permit)),
            Err(limit) => Err(limit.to_string()),
        },
        Err(disagreement) => Err(disagreement.to_string()),
    };
    let (version, permit) = match admitted {
        Ok(admitted) => admitted,
        Err(reason) => return write_greeting(&mut writer, &HelloReply::Refused { reason }).await,
    };
    drop(greeting);
    write_greeting(&mut writer, &HelloReply::Welcome { node: service.node(), version }).await?;
    // A peer that has the cluster's secret but names no member is an operator.
    let role = if hello.from.is_some() { Role::Member } else { peer.role.min(Role::Operator) };
    let served = async {
        match hello.purpose {
            Purpose::Calls => {
                let caller = Caller { node: hello.from, role, peer: peer.clone() };
                let served =
                    serve_calls(Arc::clone(&service), reader, writer, Arc::new(caller), &permit).await;
                if let Some(member) = hello.from {
                    service.hung_up(member).await;
                }
                served
            }
            Purpose::Blobs => {
                let link = Link { reader, writer, node: hello.from };
                service.blobs(link, roles::may_store(role)).await;
                Ok(())
            }
        }
    };
    tokio::select! {
        ended = served => ended,
        () = peer.is_distrusted() => {
            peer.note_refusal("its certificate is no longer trusted");
            Ok(())
        }
    }
}

/// The peer that sent a request.
pub struct Caller {
    /// Its id, if it is a member.
    pub node: Option<NodeId>,
    role: Role,
    peer: Peer,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node {
            Some(node) => write!(f, "member {node} at {}", self.peer.address),
            None => write!(f, "{} at {}", self.peer.identity(), self.peer.address),
        }
    }
}

/// Why a hello is refused.
#[derive(Debug, Error)]
enum HelloError {
    #[error("this is an IDunno member, and the caller speaks something else")]
    OtherProgram,
    #[error("the caller claims to be a member, but its certificate is that of a console ({0})")]
    NoMember(Role),
    #[error(
        "the caller speaks {theirs} of the protocol, this member {SPOKEN}: releases that are not neighbours cannot talk, \
         upgrade one by one"
    )]
    OtherVersion { theirs: Versions },
}

/// The protocol version that both speak.
fn agree(hello: &Hello, peer: &Peer) -> Result<u16, HelloError> {
    if hello.magic != MAGIC {
        return Err(HelloError::OtherProgram);
    }
    if hello.from.is_some() && peer.role < Role::Member {
        peer.note_refusal("it claims to be a member, but has a console's certificate");
        return Err(HelloError::NoMember(peer.role));
    }
    let theirs = hello.versions();
    SPOKEN.common(theirs).ok_or(HelloError::OtherVersion { theirs })
}

async fn serve_calls<S: Service>(
    service: Arc<S>,
    reader: LinkReader,
    writer: LinkWriter,
    caller: Arc<Caller>,
    permit: &ConnectionPermit,
) -> Result<(), FrameIoError> {
    let is_client = caller.node.is_none();
    let (answers, queued) = mpsc::channel(ANSWERS_QUEUED_MAX);
    let slots = Arc::new(Semaphore::new(CALLS_MAX));
    let mut tasks = JoinSet::new();
    let mut writing = JoinSet::new();
    writing.spawn(write_answers(writer, queued));
    let mut reader = BufReader::with_capacity(64 << 10, reader);
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, read_body_within(&mut reader, FRAME_BYTES_MAX).await)
        };
        let (slot, body) = tokio::select! {
            next = next => next,
            () = idle(&slots), if is_client => return Ok(()),
            // The peer would not receive the answers.
            _ = writing.join_next() => return Ok(()),
        };
        let (id, request) = decode_call(&body?)?;
        let request = request.and_then(|request| {
            roles::check(caller.role, &request)
                .inspect_err(|_| caller.peer.note_refusal("it asks for more than its role allows"))?;
            let request_permit = permit
                .admit_request(&caller.peer)
                .map_err(|limit| Refusal::new(RefusalCode::Busy, limit.to_string()))?;
            Ok((request, request_permit))
        });
        while tasks.try_join_next().is_some() {}
        let (service, answers, caller) = (Arc::clone(&service), answers.clone(), Arc::clone(&caller));
        tasks.spawn(async move {
            let (response, request_permit) = match request {
                Ok((request, request_permit)) => (service.request(request, &caller).await, request_permit),
                Err(refusal) => (Reply::Refused(refusal).into(), None),
            };
            match response {
                Response::One(reply) => {
                    // The connection may have ended meanwhile.
                    let _ = answers.send(Answer { id, more: false, reply }).await;
                }
                Response::Many(mut replies) => {
                    while let Some(reply) = replies.recv().await {
                        if answers.send(Answer { id, more: true, reply }).await.is_err() {
                            break;
                        }
                    }
                    // The caller must learn that no more will come: the connection may stay open for a long time.
                    let reply = Reply::Refused(Refusal::conflict("the stream has ended at this member"));
                    let _ = answers.send(Answer { id, more: false, reply }).await;
                }
            }
            drop((slot, request_permit));
        });
    }
}

/// Returns when a connection has been idle for [`CLIENT_IDLE_MAX`], with no request in progress.
async fn idle(slots: &Semaphore) {
    loop {
        sleep(CLIENT_IDLE_MAX).await;
        // The reader holds a slot of its own.
        if slots.available_permits() >= CALLS_MAX - 1 {
            return;
        }
    }
}

/// Decodes a call's number and its request. A request that does not decode (an invalid name, say) is answered; a frame that
/// is not a call ends the connection.
fn decode_call(body: &[u8]) -> Result<(u64, Result<Request, Refusal>), FrameError> {
    #[derive(Deserialize)]
    struct Numbered {
        id: u64,
        #[serde(rename = "request")]
        _request: IgnoredAny,
    }
    match decode_body(body) {
        Ok(Call { id, request }) => Ok((id, Ok(request))),
        Err(error) => {
            let Numbered { id, .. } = decode_body(body)?;
            Ok((id, Err(Refusal::invalid(format!("the request cannot be read: {error}")))))
        }
    }
}

async fn write_answers(mut writer: LinkWriter, mut queued: mpsc::Receiver<Answer>) {
    let mut buffer = Vec::new();
    while let Some(answer) = queued.recv().await {
        let mut next = Some(answer);
        // Answers that queued up meanwhile go out in the same write.
        while let Some(answer) = next {
            if let Err(error) = encode_frame(&answer, &mut buffer) {
                warn!(%error, "cannot encode an answer, sending a refusal instead");
                let reply = Reply::Refused(Refusal::internal(format!("the answer cannot be sent: {error}")));
                let instead = Answer { id: answer.id, more: false, reply };
                if encode_frame(&instead, &mut buffer).is_err() {
                    return;
                }
            }
            next = if buffer.len() < WRITE_BYTES_SOFT_MAX { queued.try_recv().ok() } else { None };
        }
        let write = async { writer.write_all(&buffer).await.is_ok() && writer.flush().await.is_ok() };
        if !timeout(WRITE_TIMEOUT, write).await.unwrap_or(false) {
            return;
        }
        // One large answer must not occupy memory for as long as the connection lasts.
        buffer.clear();
        buffer.shrink_to(WRITE_BYTES_SOFT_MAX);
    }
}

#[cfg(test)]
mod tests;
