//! One peer, as the log calls it.

use std::future::Future;
use std::time::Duration;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::consensus::{ConsensusReply, ConsensusRequest};
use openraft::EmptyNode;
use openraft::error::{RPCError, RaftError, RemoteError, Unreachable};
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::codec::decode;

/// Calls a member by its id.
pub trait Transport: Clone + Send + Sync + 'static {
    /// Gives up after `timeout`. The future may be dropped at any time.
    fn call(
        &self,
        target: NodeId,
        request: ConsensusRequest,
        timeout: Duration,
    ) -> impl Future<Output = Result<ConsensusReply, TransportError>> + Send;
}

/// A call was not answered, but may have been carried out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("cannot call member {target}: {reason}")]
pub struct TransportError {
    pub target: NodeId,
    pub reason: String,
}

pub(super) struct RaftPeer<T> {
    pub(super) transport: T,
    pub(super) target: u64,
    pub(super) backoff: Duration,
    pub(super) vote_timeout: Duration,
}

pub(super) type RaftPeerError<E> = RPCError<u64, EmptyNode, RaftError<u64, E>>;

impl<T: Transport> RaftPeer<T> {
    /// Calls the peer. Only an answer of its log is final; a peer whose log has stopped counts as unreachable.
    pub(super) async fn call<R, E>(
        &self,
        request: Result<ConsensusRequest, rmp_serde::encode::Error>,
        timeout: Duration,
    ) -> Result<R, RaftPeerError<E>>
    where
        R: DeserializeOwned,
        E: std::error::Error + DeserializeOwned,
    {
        let request = request.map_err(|error| unreachable(&error))?;
        let reply = self.transport.call(NodeId(self.target), request, timeout).await;
        let reply = reply.map_err(|error| unreachable(&error))?;
        let result: Result<R, RaftError<u64, E>> = decode(&reply.0).map_err(|error| unreachable(&error))?;
        result.map_err(|error| match error {
            RaftError::APIError(_) => RPCError::RemoteError(RemoteError::new(self.target, error)),
            RaftError::Fatal(fatal) => unreachable(&fatal),
        })
    }
}

fn unreachable<E: std::error::Error>(error: &(impl std::error::Error + 'static)) -> RaftPeerError<E> {
    RPCError::Unreachable(Unreachable::new(error))
}
