//! Why a peer gave no answer.

use std::net::SocketAddr;
use std::sync::Arc;

use thiserror::Error;

use super::super::connection::CallError;
use super::super::link::DialError;
use crate::ids::NodeId;

/// Why a peer gave no answer. Only [`PeerError::Call`] leaves open whether the request was carried out.
#[derive(Debug, Error)]
pub enum PeerError {
    /// There is no connection.
    #[error(transparent)]
    Dial(Arc<DialError>),
    /// There is a connection, but no answer.
    #[error("{address}: {source}")]
    Call {
        /// The peer.
        address: SocketAddr,
        /// What went wrong.
        source: CallError,
    },
    /// Another process listens there now: the member was replaced.
    #[error("{address} is no longer the address of member {wanted}")]
    Stranger {
        /// The address dialled.
        address: SocketAddr,
        /// The member that was expected.
        wanted: NodeId,
    },
    /// Dialling failed a moment ago and is not repeated yet.
    #[error(transparent)]
    BackOff(Arc<DialError>),
    /// As many connections are open as may be, and all are in use.
    #[error(
        "cannot connect to {address}: this process has the most connections open that it may have, and all are in use"
    )]
    Full {
        /// The peer.
        address: SocketAddr,
    },
    /// The caller asked for calls in a lane of blobs, or the reverse.
    #[error(
        "the connection to {address} is not of the kind that was asked for: this is a fault in the program"
    )]
    WrongLane {
        /// The peer.
        address: SocketAddr,
    },
    /// The connection manager has ended with its runtime.
    #[error("cannot connect to {address}: this process is stopping")]
    Stopped {
        /// The peer.
        address: SocketAddr,
    },
}

impl PeerError {
    pub(super) fn of_call(address: SocketAddr, source: CallError) -> Self {
        Self::Call { address, source }
    }

    /// Whether dialling just now proved that nothing listens there.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Dial(error) if matches!(**error, DialError::Refused { .. }))
    }

    /// Whether this side's identity is revoked: no other member would take it, either.
    pub fn is_revoked(&self) -> bool {
        matches!(self, Self::Dial(error) | Self::BackOff(error) if matches!(**error, DialError::Revoked { .. }))
    }

    /// Whether repeating is pointless until one of both sides has another identity.
    pub fn is_about_identity(&self) -> bool {
        matches!(self, Self::Dial(error) | Self::BackOff(error) if error.is_about_identity())
    }
}
