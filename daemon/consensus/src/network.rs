//! Raft's messages over the members' own connections: the client of each peer, and the handler of peers' requests.
//!
//! Payloads are MessagePack of openraft's types; the transport resolves a node id to an address. A peer that cannot be
//! reached, refuses, or answers garbage is `Unreachable` to openraft, which then backs off: after any other error it
//! retries at once.
//! Bounds: one message in flight per peer; message sizes in [`super::config`].

use std::future::Future;
use std::time::Duration;

use idunno_shared::wire::consensus::{ConsensusReply, ConsensusRequest};
use openraft::error::{Fatal, RaftError, ReplicationClosed, StreamingError};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, Snapshot, Vote};
use tokio::time::Instant;

use super::Consensus;
use super::codec::{decode, encode};
use super::errors::PeerRequestError;
use super::peer::{RaftPeer, RaftPeerError, Transport};
use super::snapshots::{SnapshotChunk, SnapshotResult};
use super::types::TypeConfig;

pub(super) type AppendResult = Result<AppendEntriesResponse<u64>, RaftError<u64>>;
pub(super) type VoteResult = Result<VoteResponse<u64>, RaftError<u64>>;

/// Creates openraft's client of each peer.
pub(super) struct RaftPeers<T> {
    pub(super) transport: T,
    /// Pause after a call to an unreachable peer.
    pub(super) backoff: Duration,
    pub(super) vote_timeout: Duration,
}

impl<T: Transport> RaftNetworkFactory<TypeConfig> for RaftPeers<T> {
    type Network = RaftPeer<T>;

    async fn new_client(&mut self, target: u64, _node: &EmptyNode) -> RaftPeer<T> {
        RaftPeer {
            transport: self.transport.clone(),
            target,
            backoff: self.backoff,
            vote_timeout: self.vote_timeout,
        }
    }
}

impl<T: Transport> RaftNetwork<TypeConfig> for RaftPeer<T> {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RaftPeerError<openraft::error::Infallible>> {
        self.call(encode(&rpc).map(ConsensusRequest::Append), option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<u64>,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = self.send_snapshot(vote, snapshot, option) => sent,
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        _option: RPCOption,
    ) -> Result<VoteResponse<u64>, RaftPeerError<openraft::error::Infallible>> {
        self.call(encode(&rpc).map(ConsensusRequest::Vote), self.vote_timeout).await
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(self.backoff))
    }
}

impl Consensus {
    /// Handles a peer's request. A request that cannot be decoded gets an empty reply, which the peer treats as an
    /// unreachable member.
    pub async fn handle(&self, request: ConsensusRequest) -> ConsensusReply {
        let handle = self.clone();
        // In its own task: the caller may be dropped with its connection, and a request must not be handled by half.
        let reply = tokio::spawn(async move { handle.reply_to(request).await });
        match reply.await {
            Ok(Ok(reply)) => ConsensusReply(reply),
            Ok(Err(error)) => {
                tracing::warn!(%error, "a peer's request to the metadata log failed");
                ConsensusReply(Vec::new())
            }
            Err(_) => ConsensusReply(Vec::new()),
        }
    }

    async fn reply_to(&self, request: ConsensusRequest) -> Result<Vec<u8>, PeerRequestError> {
        let raft = &self.inner.raft;
        let limit = self.inner.change_timeout;
        match request {
            ConsensusRequest::Append(payload) => {
                let result: AppendResult = within(limit, raft.append_entries(decode(&payload)?)).await?;
                if matches!(&result, Ok(response) if !matches!(response, AppendEntriesResponse::HigherVote(_)))
                {
                    *self.leader_contact() = Instant::now();
                }
                Ok(encode(&result)?)
            }
            ConsensusRequest::Vote(payload) => {
                let result: VoteResult = within(limit, raft.vote(decode(&payload)?)).await?;
                Ok(encode(&result)?)
            }
            ConsensusRequest::Snapshot(payload) => {
                let chunk: SnapshotChunk = decode(&payload)?;
                let installing = chunk.done.then(|| self.inner.installs.begin(chunk.meta.last_log_id));
                // The last part is not abandoned: it installs the snapshot.
                let result: SnapshotResult = match installing {
                    Some(_installing) => self.receive_chunk(chunk).await,
                    None => within(limit, self.receive_chunk(chunk)).await?,
                };
                if result.is_ok() {
                    *self.leader_contact() = Instant::now();
                }
                Ok(encode(&result)?)
            }
        }
    }
}

/// Abandons a request that its sender has given up by now: behind a disk that hangs, requests would pile up.
async fn within<T>(limit: Duration, handled: impl Future<Output = T>) -> Result<T, PeerRequestError> {
    let handled = tokio::time::timeout(limit, handled).await;
    handled.map_err(|_| PeerRequestError::TimedOut { limit_ms: limit.as_millis() })
}
