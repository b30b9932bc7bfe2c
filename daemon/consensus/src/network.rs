//! Raft's messages over the members' own connections.
//!
//! Payloads are MessagePack of the library's types; the transport finds the address of a node id. A peer that cannot
//! be reached, refuses or answers nonsense is `Unreachable` to the library, which then backs off: any other error
//! would have it try again at once.
//! Bounds: one message in flight per peer; sizes by [`super::config`].

use std::future::Future;
use std::time::Duration;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::consensus::{ConsensusReply, ConsensusRequest};
use openraft::error::{InstallSnapshotError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, Vote};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::config::{SnapshotMeta, TypeConfig};

/// How a member is called, by its id.
pub trait Transport: Clone + Send + Sync + 'static {
    /// Calls `target`, and gives up after `timeout`. The future may be dropped at any time.
    fn call(
        &self,
        target: NodeId,
        request: ConsensusRequest,
        timeout: Duration,
    ) -> impl Future<Output = Result<ConsensusReply, TransportError>> + Send;
}

/// A call was not answered. It may have been carried out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("cannot call member {target}: {reason}")]
pub struct TransportError {
    /// Who was called.
    pub target: NodeId,
    /// What went wrong.
    pub reason: String,
}

/// A piece of a snapshot: the library's request, its bytes encoded as bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SnapshotPiece {
    vote: Vote<u64>,
    meta: SnapshotMeta,
    offset: u64,
    #[serde(with = "serde_bytes")]
    data: Vec<u8>,
    done: bool,
}

impl From<InstallSnapshotRequest<TypeConfig>> for SnapshotPiece {
    fn from(request: InstallSnapshotRequest<TypeConfig>) -> Self {
        let InstallSnapshotRequest { vote, meta, offset, data, done } = request;
        Self { vote, meta, offset, data, done }
    }
}

impl From<SnapshotPiece> for InstallSnapshotRequest<TypeConfig> {
    fn from(piece: SnapshotPiece) -> Self {
        let SnapshotPiece { vote, meta, offset, data, done } = piece;
        Self { vote, meta, offset, data, done }
    }
}

pub(super) type AppendResult = Result<AppendEntriesResponse<u64>, RaftError<u64>>;
pub(super) type VoteResult = Result<VoteResponse<u64>, RaftError<u64>>;
pub(super) type SnapshotResult = Result<InstallSnapshotResponse<u64>, RaftError<u64, InstallSnapshotError>>;

/// A payload, or a row of the store, as MessagePack.
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    rmp_serde::to_vec(value)
}

/// The reverse of [`encode`].
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, rmp_serde::decode::Error> {
    rmp_serde::from_slice(bytes)
}

/// Makes the library's clients of peers.
pub(super) struct Network<T> {
    pub(super) transport: T,
    /// How long an unreachable peer is left alone.
    pub(super) backoff: Duration,
    /// How long a voter may take to answer a candidate.
    pub(super) vote_timeout: Duration,
}

impl<T: Transport> RaftNetworkFactory<TypeConfig> for Network<T> {
    type Network = Peer<T>;

    async fn new_client(&mut self, target: u64, _node: &EmptyNode) -> Peer<T> {
        Peer {
            transport: self.transport.clone(),
            target,
            backoff: self.backoff,
            vote_timeout: self.vote_timeout,
        }
    }
}

/// The library's client of one peer.
pub(super) struct Peer<T> {
    transport: T,
    target: u64,
    backoff: Duration,
    vote_timeout: Duration,
}

type PeerError<E> = RPCError<u64, EmptyNode, RaftError<u64, E>>;

impl<T: Transport> Peer<T> {
    /// Calls the peer. What it answers is final only if it is an answer of its log; that it has stopped is not.
    async fn call<R, E>(
        &self,
        request: Result<ConsensusRequest, rmp_serde::encode::Error>,
        timeout: Duration,
    ) -> Result<R, PeerError<E>>
    where
        R: DeserializeOwned,
        E: std::error::Error + DeserializeOwned,
    {
        let request = request.map_err(|error| unreachable_by(&error))?;
        let reply = self.transport.call(NodeId(self.target), request, timeout).await;
        let reply = reply.map_err(|error| unreachable_by(&error))?;
        let result: Result<R, RaftError<u64, E>> =
            decode(&reply.0).map_err(|error| unreachable_by(&error))?;
        result.map_err(|error| match error {
            RaftError::APIError(_) => RPCError::RemoteError(RemoteError::new(self.target, error)),
            RaftError::Fatal(fatal) => unreachable_by(&fatal),
        })
    }
}

fn unreachable_by<E: std::error::Error>(error: &(impl std::error::Error + 'static)) -> PeerError<E> {
    RPCError::Unreachable(Unreachable::new(error))
}

impl<T: Transport> RaftNetwork<TypeConfig> for Peer<T> {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, PeerError<openraft::error::Infallible>> {
        self.call(encode(&rpc).map(ConsensusRequest::Append), option.hard_ttl()).await
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, PeerError<InstallSnapshotError>> {
        let piece = SnapshotPiece::from(rpc);
        self.call(encode(&piece).map(ConsensusRequest::Snapshot), option.hard_ttl()).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        _option: RPCOption,
    ) -> Result<VoteResponse<u64>, PeerError<openraft::error::Infallible>> {
        self.call(encode(&rpc).map(ConsensusRequest::Vote), self.vote_timeout).await
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(self.backoff))
    }
}
