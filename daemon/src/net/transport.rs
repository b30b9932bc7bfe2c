//! Opens and accepts every connection and datagram of the daemon. TCP and UDP share one port. Connections are mutual TLS and
//! datagrams are sealed, except on loopback with `--insecure`.

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use idunno_shared::access::Issued;
use idunno_shared::client::link::{BoxFuture, Dial, DialError, Link, LinkReader, LinkWriter};
use idunno_shared::client::transport::{TcpConnector, is_this_machine};
use idunno_shared::ids::NodeId;
use idunno_shared::security::datagrams::{Seal, UnsealError};
use idunno_shared::security::tls::{READ_BYTES, WRITE_BYTES};
use idunno_shared::security::trust::TrustError;
use idunno_shared::security::{CertificateDer, Credentials, Role};
use idunno_shared::wire::frame::Purpose;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::broadcast;
use tokio::time::timeout;
use tracing::debug;

use super::refusal_log::{RefusalLog, RefusedKind};

/// Largest datagram that is read; membership's are smaller.
pub const DATAGRAM_BYTES_MAX: usize = 2_048;
const PORT_TRIES: usize = 32;
/// Hundreds of members may die at one moment. One whose refusal is lost is found by SWIM only, which takes minutes in a
/// large cluster.
const REFUSALS_QUEUED_MAX: usize = 2_048;
/// What an unauthenticated peer may still send while its connection is being closed.
const UNREAD_BYTES_MAX: u64 = 64 << 10;
const UNREAD_TIMEOUT: Duration = Duration::from_secs(1);

/// Why there is no listening port.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Another process listens there.
    #[error("port {} of {} is in use: stop what listens there, or give another --listen", address.port(), address.ip())]
    InUse { address: SocketAddr },
    /// Any other fault.
    #[error("cannot listen on {address}: {source}")]
    Io { address: SocketAddr, source: io::Error },
}

/// The listening side: one port, TCP and UDP.
pub struct Listener {
    tcp: TcpListener,
    udp: UdpSocket,
    address: SocketAddr,
    credentials: Credentials,
}

impl Listener {
    /// Listens on `address`; port 0 takes any that is free for both.
    pub async fn bind(address: SocketAddr, credentials: &Credentials) -> Result<Self, ListenError> {
        let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
        loop {
            tries -= 1;
            match bind_both(address).await {
                Ok((tcp, udp, address)) => {
                    return Ok(Self { tcp, udp, address, credentials: credentials.clone() });
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    return Err(ListenError::InUse { address });
                }
                Err(source) => return Err(ListenError::Io { address, source }),
            }
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The two halves: connections and datagrams.
    pub fn split(self) -> io::Result<(Acceptor, Datagrams)> {
        let seal = Seal::new(self.credentials.clone()).map_err(io::Error::other)?;
        let refusal_log = Arc::new(RefusalLog::default());
        let acceptor =
            Acceptor { tcp: self.tcp, credentials: self.credentials, refusal_log: Arc::clone(&refusal_log) };
        Ok((acceptor, Datagrams { udp: self.udp, seal, refusal_log }))
    }
}

async fn bind_both(address: SocketAddr) -> io::Result<(TcpListener, UdpSocket, SocketAddr)> {
    let tcp = TcpListener::bind(address).await?;
    let address = tcp.local_addr()?;
    let udp = UdpSocket::bind(address).await?;
    Ok((tcp, udp, address))
}

/// Accepts TCP connections.
pub struct Acceptor {
    tcp: TcpListener,
    credentials: Credentials,
    refusal_log: Arc<RefusalLog>,
}

impl Acceptor {
    /// The next connection; its peer is not authenticated yet.
    pub async fn accept(&self) -> io::Result<Incoming> {
        let (stream, from) = self.tcp.accept().await?;
        stream.set_nodelay(true)?;
        let refusal_log = Arc::clone(&self.refusal_log);
        Ok(Incoming { stream, from, credentials: self.credentials.clone(), refusal_log })
    }
}

/// A connection whose peer is not authenticated yet.
pub struct Incoming {
    stream: TcpStream,
    /// Where it comes from.
    pub from: SocketAddr,
    credentials: Credentials,
    refusal_log: Arc<RefusalLog>,
}

/// A connection with an authenticated peer that has not sent its hello yet.
pub struct Accepted {
    pub reader: LinkReader,
    pub writer: LinkWriter,
    pub peer: Peer,
}

/// The peer of an accepted connection.
#[derive(Clone)]
pub struct Peer {
    pub address: SocketAddr,
    /// The role of its certificate; [`Role::Member`] in insecure mode.
    pub role: Role,
    identity: Arc<str>,
    /// What its certificate grants; `None` in insecure mode.
    issued: Option<Arc<Issued>>,
    certificate: Option<CertificateDer<'static>>,
    credentials: Credentials,
    refusal_log: Arc<RefusalLog>,
}

impl Peer {
    /// The subject of its certificate in readable form; its address in insecure mode.
    pub fn identity(&self) -> &Arc<str> {
        &self.identity
    }

    /// What its certificate grants; `None` in insecure mode.
    pub fn issued(&self) -> Option<&Issued> {
        self.issued.as_deref()
    }

    /// Returns when its certificate is no longer trusted.
    pub async fn is_distrusted(&self) {
        match &self.certificate {
            Some(certificate) => self.credentials.distrusts(certificate, self.role).await,
            None => std::future::pending().await,
        }
    }

    /// Logs once that it was refused.
    pub fn note_refusal(&self, why: &'static str) {
        self.refusal_log.note(RefusedKind::Identity, self.address, why);
    }
}

impl Incoming {
    /// What logs its refusal, also after it has been consumed.
    pub(super) fn refusal_log(&self) -> Arc<RefusalLog> {
        Arc::clone(&self.refusal_log)
    }

    /// Authenticates the peer. Returns `None` if that fails: the connection is closed then, and the peer gets the reason as
    /// far as TLS allows. The caller limits how long it may take.
    pub async fn prove(self) -> Option<Accepted> {
        let Self { stream, from, credentials, refusal_log } = self;
        let Some(acceptor) = credentials.acceptor() else {
            let identity = from.ip().to_string().into();
            let peer = Peer {
                address: from,
                role: Role::Member,
                identity,
                issued: None,
                certificate: None,
                credentials,
                refusal_log,
            };
            let (reader, writer) = stream.into_split();
            return Some(Accepted { reader: Box::new(reader), writer: Box::new(writer), peer });
        };
        let stream = BufReader::with_capacity(READ_BYTES, stream);
        let mut stream = match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => stream,
            Err((error, stream)) => {
                if let Some(doubt) = TrustError::of_io(&error) {
                    refusal_log.note(RefusedKind::Stranger, from, format_args!("it {doubt}"));
                } else {
                    debug!(%from, %error, "a connection ended in its handshake");
                }
                let_read(stream).await;
                return None;
            }
        };
        stream.get_mut().1.set_buffer_limit(Some(WRITE_BYTES));
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
        let Some(issued) = certificate.as_ref().and_then(|shown| credentials.issued(shown)) else {
            refusal_log.note(RefusedKind::Stranger, from, "its certificate does not say what it grants");
            return None;
        };
        let role = issued.grant.role;
        let identity = format!("{role} {}", issued.grant.name).into();
        let issued = Some(Arc::new(issued));
        let peer = Peer { address: from, role, identity, issued, certificate, credentials, refusal_log };
        let (reader, writer) = tokio::io::split(stream);
        Some(Accepted { reader: Box::new(reader), writer: Box::new(writer), peer })
    }
}

/// Lets a peer read the last answer: closing a socket with unread bytes would discard it.
async fn let_read(mut stream: BufReader<TcpStream>) {
    // The connection is being closed anyway.
    let _ = stream.shutdown().await;
    let mut unread = stream.take(UNREAD_BYTES_MAX);
    let _ = timeout(UNREAD_TIMEOUT, tokio::io::copy(&mut unread, &mut tokio::io::sink())).await;
}

/// Sends and receives datagrams.
pub struct Datagrams {
    udp: UdpSocket,
    seal: Option<Seal>,
    refusal_log: Arc<RefusalLog>,
}

impl Datagrams {
    /// The next datagram of a member, its bytes in `buffer`. An error may report that an earlier one was refused.
    pub async fn receive<'a>(
        &mut self,
        buffer: &'a mut [u8; DATAGRAM_BYTES_MAX],
    ) -> io::Result<(&'a [u8], SocketAddr)> {
        loop {
            let (length, from) = self.udp.recv_from(buffer).await?;
            let Some(seal) = &mut self.seal else { return Ok((&buffer[..length], from)) };
            match seal.open(&mut buffer[..length]) {
                Ok(range) => return Ok((&buffer[range], from)),
                // The network may duplicate a datagram.
                Err(UnsealError::Replayed) => debug!(%from, "ignoring a datagram that arrived before"),
                Err(unopened) => {
                    self.refusal_log.note(
                        RefusedKind::Datagram,
                        from,
                        format_args!("its datagram {unopened}"),
                    );
                }
            }
        }
    }

    /// Sends a datagram, or drops it if the system has no room for it.
    pub fn send(&mut self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        let sealed = match &mut self.seal {
            Some(seal) => Cow::from(seal.seal(bytes).ok_or_else(|| io::Error::other("it cannot be sealed"))?),
            // A peer's list may name any address.
            None if !is_this_machine(to.ip()) => {
                return Err(io::Error::other("it would leave this machine in the clear"));
            }
            None => Cow::from(bytes),
        };
        match self.udp.try_send_to(&sealed, to) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            sent => sent.map(drop),
        }
    }
}

/// Opens connections as a member.
#[derive(Clone, Debug)]
pub struct MemberConnector {
    connector: TcpConnector,
    refusals: broadcast::Sender<SocketAddr>,
}

impl MemberConnector {
    /// Connects as the member `node`.
    pub fn new(node: NodeId, credentials: Credentials) -> Self {
        let connector = TcpConnector::of_member(node, credentials);
        Self { connector, refusals: broadcast::channel(REFUSALS_QUEUED_MAX).0 }
    }

    /// Addresses that refused a connection, as it happens: proof that the process there is gone.
    pub fn refusals(&self) -> broadcast::Receiver<SocketAddr> {
        self.refusals.subscribe()
    }
}

impl Dial for MemberConnector {
    fn dial(&self, address: SocketAddr, purpose: Purpose) -> BoxFuture<'_, Result<Link, DialError>> {
        Box::pin(async move {
            let dialled = self.connector.dial(address, purpose).await;
            if matches!(dialled, Err(DialError::Refused { .. })) {
                // There may be no receiver.
                let _ = self.refusals.send(address);
            }
            dialled
        })
    }
}
