//! A connection whose hello is done ([`Link`]), and what opens one ([`Dial`]). All other code is written against these two, so
//! that only one module knows whether they run over TLS or plain TCP.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

use super::frames::{FrameIoError, read_frame_within, write_greeting};
use crate::ids::NodeId;
use crate::security::trust::TrustError;
use crate::wire::frame::{FrameError, HEADER_BYTES_MAX, Hello, HelloReply, Purpose};
use crate::wire::version::SPOKEN;

/// How long a connection and its hello may take together.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

/// The reading half of a link.
pub type LinkReader = Box<dyn AsyncRead + Send + Unpin>;
/// The writing half of a link.
pub type LinkWriter = Box<dyn AsyncWrite + Send + Unpin>;

/// An open connection whose hello is done.
pub struct Link {
    /// Bytes from the peer.
    pub reader: LinkReader,
    /// Bytes to the peer.
    pub writer: LinkWriter,
    /// The peer's id; an introducer has none.
    pub node: Option<NodeId>,
}

/// Why no connection was opened.
#[derive(Debug, Error)]
pub enum DialError {
    /// Nothing listens there: the process is gone, but its host is up.
    #[error("nothing listens at {address}: is the member running there?")]
    Refused {
        /// The peer.
        address: SocketAddr,
    },
    /// No answer in time.
    #[error("no answer from {address} within {} s", DIAL_TIMEOUT.as_secs())]
    TimedOut {
        /// The peer.
        address: SocketAddr,
    },
    /// The peer refused this connection.
    #[error("{address} refused the connection: {reason}")]
    Rejected {
        /// The peer.
        address: SocketAddr,
        /// The reason it gave.
        reason: String,
    },
    /// This side's identity is revoked: every member refuses it for good.
    #[error("{address} refused the connection: {reason}")]
    Revoked {
        /// The peer.
        address: SocketAddr,
        /// The reason it gave.
        reason: String,
    },
    /// The peer, or this side in the peer's eyes, is not who it must be.
    #[error("{address} {doubt}")]
    Doubtful {
        /// The peer.
        address: SocketAddr,
        /// What is wrong, and what to do.
        doubt: TrustError,
    },
    /// The peer asks for a certificate, and this side has none.
    #[error(
        "{address} asks for an identity: give --identity FILE (or IDUNNO_IDENTITY, or 'identity' in a context)"
    )]
    NeedsIdentity {
        /// The peer.
        address: SocketAddr,
    },
    /// This side has no identity, and the peer is on another machine.
    #[error(
        "{address} is not on this machine, and without an identity the connection would not be encrypted: give --identity \
         FILE (or IDUNNO_IDENTITY, or 'identity' in a context)"
    )]
    Plaintext {
        /// The peer.
        address: SocketAddr,
    },
    /// Any other fault of the network.
    #[error("cannot connect to {address}: {source}")]
    Io {
        /// The peer.
        address: SocketAddr,
        /// The fault.
        source: FrameIoError,
    },
}

impl DialError {
    /// Whether repeating is pointless until one of both sides has another identity.
    pub const fn is_about_identity(&self) -> bool {
        matches!(
            self,
            Self::Revoked { .. }
                | Self::Doubtful { .. }
                | Self::NeedsIdentity { .. }
                | Self::Plaintext { .. }
        )
    }

    /// The error for a failed read, write or handshake.
    pub(super) fn of_io(address: SocketAddr, error: io::Error) -> Self {
        match TrustError::of_io(&error) {
            Some(doubt) => Self::Doubtful { address, doubt },
            None if error.kind() == io::ErrorKind::ConnectionRefused => Self::Refused { address },
            None => Self::Io { address, source: error.into() },
        }
    }

    fn of_frame(address: SocketAddr, error: FrameIoError) -> Self {
        match error {
            FrameIoError::Io(error) => Self::of_io(address, error),
            FrameIoError::Frame(FrameError::TooLarge { bytes }) if is_alert(bytes) => {
                Self::NeedsIdentity { address }
            }
            source @ FrameIoError::Frame(_) => Self::Io { address, source },
        }
    }
}

/// Whether the bytes read as a frame's length are the beginning of a TLS alert: the peer speaks TLS.
const fn is_alert(length: usize) -> bool {
    length >> 8 == 0x15_03_03
}

/// A boxed future, so that [`Dial`] can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Opens connections.
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
    let hello = Hello::new(purpose, from);
    // A peer that refuses says why before it closes, so the reply is read even when the hello could not be sent.
    let _ = write_greeting(&mut writer, &hello).await;
    let reply = read_frame_within(&mut reader, HEADER_BYTES_MAX).await;
    match reply.map_err(|error| DialError::of_frame(address, error))? {
        HelloReply::Welcome { node, version } if SPOKEN.contains(version) => {
            Ok(Link { reader, writer, node })
        }
        HelloReply::Welcome { version, .. } => {
            let reason = format!("it chose protocol version {version}, but this side speaks {SPOKEN}");
            Err(DialError::Rejected { address, reason })
        }
        HelloReply::Refused { reason, revoked: true } => Err(DialError::Revoked { address, reason }),
        HelloReply::Refused { reason, revoked: false } => Err(DialError::Rejected { address, reason }),
    }
}
