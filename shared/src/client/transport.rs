//! Opens TCP connections: the only place in clients and members that does.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::link::{BoxFuture, DIAL_TIMEOUT, Dial, DialError, Link, greet};
use super::revocable::Revocable;
use crate::ids::NodeId;
use crate::security::Credentials;
use crate::security::tls::{READ_BYTES, WRITE_BYTES};
use crate::wire::frame::Purpose;

/// Opens connections by TLS, to members only; in the clear only with insecure credentials,
/// and then only within this machine.
#[derive(Clone, Debug)]
pub struct TcpConnector {
    /// The id of the member that connects; a client has none.
    from: Option<NodeId>,
    credentials: Credentials,
}

impl TcpConnector {
    /// Connects as a client.
    pub const fn new(credentials: Credentials) -> Self {
        Self { from: None, credentials }
    }

    /// Connects as the member `node`.
    pub const fn of_member(node: NodeId, credentials: Credentials) -> Self {
        Self { from: Some(node), credentials }
    }

    async fn open(&self, address: SocketAddr, purpose: Purpose) -> Result<Link, DialError> {
        let fault = |error| DialError::of_io(address, error);
        if self.credentials.connector().is_none() && !is_this_machine(address.ip()) {
            return Err(DialError::Plaintext { address });
        }
        let stream = TcpStream::connect(address).await.map_err(fault)?;
        stream.set_nodelay(true).map_err(fault)?;
        let Some((connector, name)) = self.credentials.connector() else {
            let (reader, writer) = stream.into_split();
            return greet(address, purpose, self.from, Box::new(reader), Box::new(writer)).await;
        };
        let mut stream = connector
            .connect(name, BufReader::with_capacity(READ_BYTES, stream))
            .await
            .map_err(|error| fault(in_handshake(error)))?;
        stream.get_mut().1.set_buffer_limit(Some(WRITE_BYTES));
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
        let (reader, writer) = tokio::io::split(stream);
        match shown {
            // A member's secret may change while the connection lasts; a person's identity does not.
            Some(shown) if self.from.is_some() => {
                let reader = Revocable::new(reader, shown.clone(), self.credentials.clone());
                let writer = Revocable::new(writer, shown, self.credentials.clone());
                greet(address, purpose, self.from, Box::new(reader), Box::new(writer)).await
            }
            _ => greet(address, purpose, self.from, Box::new(reader), Box::new(writer)).await,
        }
    }
}

impl Dial for TcpConnector {
    fn dial(&self, address: SocketAddr, purpose: Purpose) -> BoxFuture<'_, Result<Link, DialError>> {
        Box::pin(async move {
            let open = timeout(DIAL_TIMEOUT, self.open(address, purpose)).await;
            open.unwrap_or(Err(DialError::TimedOut { address }))
        })
    }
}

/// Whether what is sent to the address stays on this machine, so that it may go in the clear.
pub fn is_this_machine(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// A handshake that the other side ends without an alert has a likely cause, which the library's error does not name.
fn in_handshake(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return io::Error::new(
            error.kind(),
            "it closed the connection during the handshake: does it run with --insecure?",
        );
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_leaves_this_machine_in_the_clear() {
        let connector = TcpConnector::new(Credentials::insecure());
        // Addresses for documentation: nothing is sent, so the answer comes at once and not by a timeout.
        for address in ["192.0.2.1:7401", "[2001:db8::1]:7401", "[::ffff:192.0.2.1]:7401", "0.0.0.0:7401"] {
            for purpose in [Purpose::Calls, Purpose::Blobs] {
                let dialled = connector.dial(address.parse().unwrap(), purpose).await;
                let error = dialled.err().unwrap();
                assert!(matches!(error, DialError::Plaintext { .. }), "{address}: {error}");
                assert!(error.is_about_identity() && error.to_string().contains("--identity"), "{error}");
            }
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        for loopback in [address.to_string(), format!("[::ffff:127.0.0.1]:{}", address.port())] {
            let error = connector.dial(loopback.parse().unwrap(), Purpose::Calls).await.err().unwrap();
            assert!(matches!(error, DialError::Refused { .. }), "{loopback}: {error}");
        }
    }
}
