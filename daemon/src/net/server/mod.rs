//! Accepts connections, authenticates their peers, checks their hellos, whether their identities are revoked
//! ([`super::revocations`]) and what each request needs ([`super::roles`]), and hands the requests to the [`Service`].
//!
//! Every connection is accepted at once: the system's queue never fills with strangers. Bounds: those of
//! [`super::unproven`] on connections that have not said hello (the oldest is closed); those of [`Limits`] on clients, on
//! each client's identity and on members (further ones are refused), each counted separately, so that clients cannot keep
//! members out, nor one client the others, and on the memory that a client's requests, answers and files occupy (further
//! requests wait, further answers are refused); the size of a request by role ([`roles::request_bytes_max`]); [`CALLS_MAX`] requests of one connection in progress at once (its reader pauses
//! beyond), [`HELLO_TIMEOUT`] for the handshake and the hello, [`WRITE_TIMEOUT`] for a peer to read its answers,
//! [`CLIENT_IDLE_MAX`] for a client without requests. Together they are well below
//! [`crate::config::FILES_MAX`].

mod answers;

use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use idunno_core::access::{Asker, need};
use idunno_core::metadata::revoked_text;
use idunno_shared::access::Issued;
use idunno_shared::client::frames::{
    FRAME_TIMEOUT, FrameIoError, read_announced, read_frame_within, read_length_within, write_greeting,
};
use idunno_shared::client::link::{Link, LinkReader, LinkWriter};
use idunno_shared::ids::NodeId;
use idunno_shared::security::Role;
use idunno_shared::wire::frame::{
    Answer, Call, FrameError, HEADER_BYTES_MAX, Hello, HelloReply, MAGIC, Purpose, Reply, Request,
    decode_body,
};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use idunno_shared::wire::version::{SPOKEN, Versions};
use idunno_store::access::BlobAccess;
use idunno_store::memory::MemoryPermit;
use serde::Deserialize;
use serde::de::IgnoredAny;
use thiserror::Error;
use tokio::io::BufReader;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

pub use self::answers::WRITE_TIMEOUT;
use self::answers::{Answers, Ended, STREAM_UNREAD_MAX, write_answers};
use super::connection_limits::{ConnectionLimits, ConnectionPermit, Limits, RequestPermit};
use super::refusal_log::RefusedKind;
use super::revocations::Revocations;
use super::roles;
use super::transport::{Accepted, Acceptor, Incoming, Peer};
use super::unproven::{Unproven, UnprovenLimits, UnprovenPlace};

/// Requests of one connection in progress at once.
pub const CALLS_MAX: usize = 256;
/// How long a new connection may take for its handshake and its hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client's connection for calls may be idle.
pub const CLIENT_IDLE_MAX: Duration = Duration::from_secs(300);

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
    /// Whether a known member has this address: strangers must not take its place.
    fn knows(&self, address: IpAddr) -> bool {
        let _ = address;
        false
    }
    /// A person or program has connected with this identity.
    fn greeted(&self, identity: &Issued) {
        let _ = identity;
    }
    /// Answers one request.
    fn request(&self, request: Request, from: &Caller) -> impl Future<Output = Response> + Send;
    /// A member's connection for calls ended; the process may be gone.
    fn hung_up(&self, member: NodeId) -> impl Future<Output = ()> + Send {
        let _ = member;
        std::future::ready(())
    }
    /// Serves one connection for blobs until it ends.
    fn blobs(&self, link: Link, access: BlobAccess) -> impl Future<Output = ()> + Send;
}

/// Serves until `stop` is cancelled, which ends all connections. Those of revoked identities are refused, or ended.
pub async fn serve<S: Service>(
    acceptor: Acceptor,
    service: Arc<S>,
    limits: Limits,
    revocations: Revocations,
    stop: CancellationToken,
) {
    let unproven = Unproven::new(UnprovenLimits::with_members(limits.greetings));
    let limits = Arc::new(ConnectionLimits::new(limits));
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = acceptor.accept() => accepted,
            () = stop.cancelled() => return,
        };
        while tasks.try_join_next().is_some() {}
        match accepted {
            Ok(incoming) => {
                let (service, limits, from) = (Arc::clone(&service), Arc::clone(&limits), incoming.from);
                let revocations = revocations.clone();
                let place = unproven.enter(from.ip(), service.knows(from.ip()));
                tasks.spawn(async move {
                    let served = serve_connection(service, &limits, &revocations, place, incoming);
                    if let Err(error) = served.await {
                        debug!(%from, %error, "connection ended");
                    }
                });
            }
            // The peer gave up before it was accepted.
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            Err(error) => {
                // Most likely the process is out of file descriptors: other connections must end first.
                warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_connection<S: Service>(
    service: Arc<S>,
    limits: &ConnectionLimits,
    revocations: &Revocations,
    place: UnprovenPlace,
    incoming: Incoming,
) -> Result<(), FrameIoError> {
    let (from, refusal_log) = (incoming.from, incoming.refusal_log());
    let greet = async {
        let Some(mut accepted) = incoming.prove().await else { return Ok(None) };
        let hello = read_frame_within::<Hello, _>(&mut accepted.reader, HEADER_BYTES_MAX).await?;
        Ok::<_, FrameIoError>(Some((accepted, hello)))
    };
    let greeted = tokio::select! {
        greeted = timeout(HELLO_TIMEOUT, greet) => greeted,
        () = place.evicted() => {
            let why = "it was the oldest of too many connections without authentication";
            refusal_log.note(RefusedKind::Stranger, from, why);
            return Ok(());
        }
    };
    let Ok(greeted) = greeted else {
        debug!(%from, "closing a connection that sent no hello in time");
        return Ok(());
    };
    let Some((Accepted { reader, mut writer, peer }, hello)) = greeted? else { return Ok(()) };
    let admitted = match agree(&hello, &peer, revocations) {
        Ok(version) => match limits.enter(hello.from.is_some(), &peer) {
            Ok(permit) => Ok((version, permit)),
            Err(limit) => Err((limit.to_string(), false)),
        },
        Err(disagreement) => {
            let revoked = matches!(disagreement, HelloError::Revoked(_));
            Err((disagreement.to_string(), revoked))
        }
    };
    let (version, permit) = match admitted {
        Ok(admitted) => admitted,
        Err((reason, revoked)) => {
            return write_greeting(&mut writer, &HelloReply::Refused { reason, revoked }).await;
        }
    };
    drop(place);
    write_greeting(&mut writer, &HelloReply::Welcome { node: service.node(), version }).await?;
    if let Some(issued) = peer.issued().filter(|_| hello.from.is_none()) {
        service.greeted(issued);
    }
    // A peer that has the cluster's secret but names no member is an operator.
    let role = if hello.from.is_some() { Role::Member } else { peer.role.min(Role::Operator) };
    let name = peer.issued().filter(|_| hello.from.is_none()).map(|issued| &issued.grant.name);
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
                service.blobs(link, roles::blob_access(role, permit.blob_memory())).await;
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
        // A client that connects again is told why.
        () = revocations.revoked(name) => {
            peer.note_refusal("its identity was revoked");
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

impl Caller {
    /// Who it is, for what is limited for each identity.
    pub fn identity(&self) -> &Arc<str> {
        self.peer.identity()
    }

    /// Who it is, for what it may do.
    pub fn asker(&self) -> Asker<'_> {
        Asker { role: self.role, grant: self.peer.issued().map(|issued| &issued.grant) }
    }
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
    #[error("{0}")]
    Revoked(String),
    #[error(
        "the caller speaks {theirs} of the protocol, this member {SPOKEN}: releases that are not neighbours cannot talk, \
         upgrade one by one"
    )]
    OtherVersion { theirs: Versions },
}

/// The protocol version that both speak.
fn agree(hello: &Hello, peer: &Peer, revocations: &Revocations) -> Result<u16, HelloError> {
    if hello.magic != MAGIC {
        return Err(HelloError::OtherProgram);
    }
    if hello.from.is_some() && peer.role < Role::Member {
        peer.note_refusal("it claims to be a member, but has a console's certificate");
        return Err(HelloError::NoMember(peer.role));
    }
    if let Some(issued) = peer.issued().filter(|issued| revocations.contains(&issued.grant.name)) {
        peer.note_refusal("its identity was revoked");
        return Err(HelloError::Revoked(revoked_text(&issued.grant.name)));
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
    let (answers, queued) = Answers::new(permit.answer_memory());
    let slots = Arc::new(Semaphore::new(CALLS_MAX));
    let mut tasks = JoinSet::new();
    let mut writing = JoinSet::new();
    writing.spawn(write_answers(writer, queued));
    let mut reader = BufReader::with_capacity(64 << 10, reader);
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, read_call(&mut reader, &caller, permit).await)
        };
        let (slot, call) = tokio::select! {
            next = next => next,
            () = idle(&slots), if is_client => return Ok(()),
            // The peer would not receive the answers.
            _ = writing.join_next() => return Ok(()),
        };
        let ReadCall { id, request, memory } = call?;
        while tasks.try_join_next().is_some() {}
        let (request, request_permit) = match request {
            Ok(admitted) => admitted,
            // It gets no task, whose memory nobody counts: nothing further is read until the refusal has its place.
            Err(refusal) => match answer(id, Reply::Refused(refusal).into(), &answers).await {
                Ok(()) => continue,
                Err(Ended) => return Ok(()),
            },
        };
        let (service, answers, caller) = (Arc::clone(&service), answers.clone(), Arc::clone(&caller));
        tasks.spawn(async move {
            let response = service.request(request, &caller).await;
            drop(memory);
            // The connection may have ended meanwhile.
            let _ = answer(id, response, &answers).await;
            drop((slot, request_permit));
        });
    }
}

async fn answer(id: u64, response: Response, answers: &Answers) -> Result<(), Ended> {
    match response {
        Response::One(reply) => answers.send(Answer { id, more: false, reply }).await,
        Response::Many(mut replies) => {
            let stream = Arc::new(Semaphore::new(STREAM_UNREAD_MAX));
            while let Some(reply) = replies.recv().await {
                answers.push(Answer { id, more: true, reply }, &stream).await?;
            }
            // The caller must learn that no more will come: the connection may stay open for a long time.
            let reply = Reply::Refused(Refusal::conflict("the stream has ended at this member"));
            answers.send(Answer { id, more: false, reply }).await
        }
    }
}

/// A call that was read, and what it occupies until it is answered.
struct ReadCall {
    id: u64,
    request: Result<(Request, RequestPermit), Refusal>,
    memory: Option<MemoryPermit>,
}

/// Reads the next call. What it occupies is taken from its identity's quota before it is read and decoded.
async fn read_call(
    reader: &mut BufReader<LinkReader>,
    caller: &Caller,
    permit: &ConnectionPermit,
) -> Result<ReadCall, FrameIoError> {
    let bytes = match read_length_within(reader, roles::request_bytes_max(caller.role)).await {
        Err(error @ FrameIoError::Frame(_)) => {
            caller.peer.note_refusal("it sends a request that is larger than its role may send");
            return Err(error);
        }
        bytes => bytes?,
    };
    let Ok(memory) = timeout(FRAME_TIMEOUT, permit.request_memory(bytes)).await else {
        caller.peer.note_refusal("its requests occupy as much memory as those of one identity may");
        return Err(io::Error::from(ErrorKind::TimedOut).into());
    };
    let body = read_announced(reader, bytes).await?;
    let request_permit = match permit.admit_request(&caller.peer) {
        Ok(request_permit) => request_permit,
        Err(limit) => {
            let refusal = Refusal::new(RefusalCode::Busy, limit.to_string());
            return Ok(ReadCall { id: decode_call_id(&body)?, request: Err(refusal), memory });
        }
    };
    let (id, request) = decode_call(&body)?;
    let request = request.and_then(|request| {
        roles::check(caller.asker(), need(&request), None)
            .inspect_err(|_| caller.peer.note_refusal("it asks for more than its role allows"))?;
        Ok((request, request_permit))
    });
    Ok(ReadCall { id, request, memory })
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
    match decode_body(body) {
        Ok(Call { id, request }) => Ok((id, Ok(request))),
        Err(error) => {
            let refusal = Refusal::invalid(format!("the request cannot be read: {error}"));
            Ok((decode_call_id(body)?, Err(refusal)))
        }
    }
}

/// Decodes a call's number only, which allocates nothing.
fn decode_call_id(body: &[u8]) -> Result<u64, FrameError> {
    #[derive(Deserialize)]
    struct Numbered {
        id: u64,
        #[serde(rename = "request")]
        _request: IgnoredAny,
    }
    decode_body(body).map(|Numbered { id, .. }| id)
}

#[cfg(test)]
mod tests;
