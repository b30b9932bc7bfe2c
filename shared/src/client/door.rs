//! The client's one door to the network: every connection of the console and the command line is opened here.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::link::{BoxFuture, DIAL_TIMEOUT, Dial, DialError, Link, greet};
use crate::ids::NodeId;
use crate::wire::frame::Purpose;

/// Opens plain TCP connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDoor {
    /// The member that calls; a client has none.
    pub from: Option<NodeId>,
}

impl Dial for TcpDoor {
    fn dial(&self, address: SocketAddr, purpose: Purpose) -> BoxFuture<'_, Result<Link, DialError>> {
        let from = self.from;
        Box::pin(async move {
            let open = async {
                let stream = TcpStream::connect(address).await.map_err(|error| fault(address, error))?;
                stream.set_nodelay(true).map_err(|error| fault(address, error))?;
                let (reader, writer) = stream.into_split();
                greet(address, purpose, from, Box::new(reader), Box::new(writer)).await
            };
            timeout(DIAL_TIMEOUT, open).await.unwrap_or(Err(DialError::TimedOut { address }))
        })
    }
}

fn fault(address: SocketAddr, error: io::Error) -> DialError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => DialError::Refused { address },
        _ => DialError::Io { address, source: error.into() },
    }
}
