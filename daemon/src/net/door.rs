//! The daemon's one door to the network: every connection and datagram is opened and accepted here. TCP and UDP share
//! one port. What takes the place of plain TCP and UDP later takes it here.

use std::io;
use std::net::SocketAddr;

use idunno_shared::client::door::TcpDoor;
use idunno_shared::client::link::{BoxFuture, Dial, DialError, Link, LinkReader, LinkWriter};
use idunno_shared::ids::NodeId;
use idunno_shared::wire::frame::Purpose;
use thiserror::Error;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::broadcast;

/// Largest datagram that is read; membership's are smaller.
pub const DATAGRAM_BYTES_MAX: usize = 2_048;
const PORT_TRIES: usize = 32;
const REFUSALS_QUEUED_MAX: usize = 64;

/// Why there is no listening port.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Somebody else listens there.
    #[error("port {} of {} is in use: stop what listens there, or give another --listen", address.port(), address.ip())]
    InUse {
        /// Where.
        address: SocketAddr,
    },
    /// Any other fault.
    #[error("cannot listen on {address}: {source}")]
    Io {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// The listening side: one port, TCP and UDP.
pub struct Listening {
    tcp: TcpListener,
    udp: UdpSocket,
    address: SocketAddr,
}

impl Listening {
    /// Listens on `address`; port 0 takes any that is free for both.
    pub async fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
        loop {
            tries -= 1;
            match Self::bind_both(address).await {
                Ok(listening) => return Ok(listening),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    return Err(ListenError::InUse { address });
                }
                Err(source) => return Err(ListenError::Io { address, source }),
            }
        }
    }

    async fn bind_both(address: SocketAddr) -> io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        let address = tcp.local_addr()?;
        let udp = UdpSocket::bind(address).await?;
        Ok(Self { tcp, udp, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The two halves: connections and datagrams.
    pub fn split(self) -> (Connections, Datagrams) {
        (Connections { tcp: self.tcp }, Datagrams { udp: self.udp })
    }
}

/// Accepts connections.
pub struct Connections {
    tcp: TcpListener,
}

impl Connections {
    /// The next connection, its hello still to come.
    pub async fn accept(&self) -> io::Result<(LinkReader, LinkWriter, SocketAddr)> {
        let (stream, from) = self.tcp.accept().await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok((Box::new(reader), Box::new(writer), from))
    }
}

/// Sends and receives datagrams.
pub struct Datagrams {
    udp: UdpSocket,
}

impl Datagrams {
    /// The next datagram, its bytes in `buffer`. An error may tell that an earlier one was refused.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.udp.recv_from(buffer).await
    }

    /// Sends a datagram, or drops it if the system has no room for it.
    pub fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        match self.udp.try_send_to(bytes, to) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            sent => sent.map(drop),
        }
    }
}

/// Opens connections as a member.
#[derive(Clone, Debug)]
pub struct MemberDoor {
    plain: TcpDoor,
    refusals: broadcast::Sender<SocketAddr>,
}

impl MemberDoor {
    /// The door of the member `node`.
    pub fn new(node: NodeId) -> Self {
        Self { plain: TcpDoor { from: Some(node) }, refusals: broadcast::channel(REFUSALS_QUEUED_MAX).0 }
    }

    /// Addresses at which nothing listens, as they are found out: proof that the process there is gone.
    pub fn refusals(&self) -> broadcast::Receiver<SocketAddr> {
        self.refusals.subscribe()
    }
}

impl Dial for MemberDoor {
    fn dial(&self, address: SocketAddr, purpose: Purpose) -> BoxFuture<'_, Result<Link, DialError>> {
        Box::pin(async move {
            let dialled = self.plain.dial(address, purpose).await;
            if matches!(dialled, Err(DialError::Refused { .. })) {
                // Nobody listening to refusals is no fault.
                let _ = self.refusals.send(address);
            }
            dialled
        })
    }
}
