//! A connection whose hello is done, and who makes one. All else is written against these two, so that what lies
//! beneath (plain TCP today) can change in one place.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

use super::frames::{FrameIoError, read_frame, write_frame};
use crate::ids::NodeId;
use crate::wire::frame::{Hello, HelloReply, MAGIC, PROTOCOL_VERSION, Purpose};

/// How long a connection and its hello may take together.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

/// The reading half of a link.
pub type LinkReader = Box<dyn AsyncRead + Send + Unpin>;
/// The writing half of a link.
pub type LinkWriter = Box<dyn AsyncWrite + Send + Unpin>;

/// An open connection behind its hello.
pub struct Link {
    /// Bytes from the peer.
    pub reader: LinkReader,
    /// Bytes to the peer.
    pub writer: LinkWriter,
    /// Who answered; an introducer has no id.
    pub node: Option<NodeId>,
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum DialError {
    /// Nobody listens there: the process is gone while its host lives.
    #[error("nothing listens at {address}: is the member running there?")]
    Refused {
        /// Whom.
        address: SocketAddr,
    },
    /// No answer in time.
    #[error("no answer from {address} within {} s", DIAL_TIMEOUT.as_secs())]
    TimedOut {
        /// Whom.
        address: SocketAddr,
    },
    /// The peer answered, and does not want this connection.
    #[error("{address} refused the connection: {reason}")]
    Rejected {
        /// Whom.
        address: SocketAddr,
        /// Its words.
        reason: String,
    },
    /// Any other fault of the network.
    #[error("cannot connect to {address}: {source}")]
    Io {
        /// Whom.
        address: SocketAddr,
        /// The fault.
        source: FrameIoError,
    },
}

/// A boxed future, so that [`Dial`] can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who opens connections.
pub trait Dial: Send + Sync {
    /// Opens a connection to `address`, hello included, within [`DIAL_TIMEOUT`].
    fn dial(&self, address: SocketAddr, purpose: Purpose) -> BoxFuture<'_, Result<Link, DialError>>;
}

/// Says hello on a fresh connection and waits for the welcome.
pub async fn greet(
    address: SocketAddr,
    purpose: Purpose,
    from: Option<NodeId>,
    mut reader: LinkReader,
    mut writer: LinkWriter,
) -> Result<Link, DialError> {
    let hello = Hello { magic: MAGIC, version: PROTOCOL_VERSION, purpose, from };
    write_frame(&mut writer, &hello).await.map_err(|source| DialError::Io { address, source })?;
    match read_frame(&mut reader).await.map_err(|source| DialError::Io { address, source })? {
        HelloReply::Welcome { node } => Ok(Link { reader, writer, node }),
        HelloReply::Refused { reason } => Err(DialError::Rejected { address, reason }),
    }
}
