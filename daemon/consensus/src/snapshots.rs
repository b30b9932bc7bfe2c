//! Snapshots between members, row by row, and the task that has them made.
//!
//! The messages are those of openraft's chunked transport, so that a neighbouring release sends and receives them too.
//! Neither side holds more than a row: the receiver stores each as it arrives.
//! Bounds: one snapshot is received at a time; [`SNAPSHOT_ROW_ATTEMPTS_MAX`] attempts per row.

use std::time::Duration;

use idunno_shared::wire::consensus::ConsensusRequest;
use openraft::error::{
    Fatal, InstallSnapshotError, RPCError, RaftError, SnapshotMismatch, StreamingError, Unreachable,
};
use openraft::network::RPCOption;
use openraft::raft::{InstallSnapshotResponse, SnapshotResponse};
use openraft::{Snapshot, SnapshotSegmentId, Vote};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Consensus;
use super::codec::encode;
use super::config::{INSTALL_BYTES_PER_S_MIN, SNAPSHOT_ROW_ATTEMPTS_MAX};
use super::file::snapshot_rows::SnapshotData;
use super::file::tables::SnapshotMeta;
use super::peer::{RaftPeer, RaftPeerError, Transport};
use super::store::snapshots::LogGrowth;
use super::types::{Raft, StorageError, TypeConfig};

/// A part of a snapshot: openraft's `InstallSnapshotRequest`, with its data encoded as MessagePack binary.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SnapshotChunk {
    pub(super) vote: Vote<u64>,
    pub(super) meta: SnapshotMeta,
    pub(super) offset: u64,
    #[serde(with = "serde_bytes")]
    pub(super) data: Vec<u8>,
    pub(super) done: bool,
}

pub(super) type SnapshotResult = Result<InstallSnapshotResponse<u64>, RaftError<u64, InstallSnapshotError>>;
pub(super) type SendResult = Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>>;

/// Has a snapshot made whenever the log has grown enough, until the log ends.
pub(super) async fn make_when_due(raft: Raft, mut growth: watch::Receiver<LogGrowth>, log_bytes_min: u64) {
    loop {
        let due = growth.wait_for(|growth| growth.is_due(log_bytes_min)).await.map(|growth| growth.snapshots);
        let Ok(snapshots) = due else { return };
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
        // openraft ignores the request while it makes a snapshot anyway: that one counts as well.
        if growth.wait_for(|growth| growth.snapshots != snapshots).await.is_err() {
            return;
        }
    }
}

/// The row to send next.
#[derive(Clone, Copy, Default)]
struct NextRow {
    number: u32,
    offset: u64,
    failures: u32,
}

impl<T: Transport> RaftPeer<T> {
    pub(super) async fn send_snapshot(
        &self,
        vote: Vote<u64>,
        Snapshot { meta, snapshot: data }: Snapshot<TypeConfig>,
        option: RPCOption,
    ) -> SendResult {
        let installed_in = Duration::from_secs(data.bytes() / INSTALL_BYTES_PER_S_MIN);
        let mut next = NextRow::default();
        loop {
            let row = data.row(next.number).await.map_err(StorageError::from)?;
            let end = next.offset + row.len() as u64;
            let done = end == data.bytes();
            let chunk = SnapshotChunk { vote, meta: meta.clone(), offset: next.offset, data: row, done };
            let timeout = option.hard_ttl() + if done { installed_in } else { Duration::ZERO };
            match self.send_chunk(&chunk, timeout).await {
                // A peer with a higher vote follows another leader.
                Ok(reply) if done || reply.vote > vote => return Ok(SnapshotResponse::new(reply.vote)),
                Ok(_) => next = NextRow { number: next.number + 1, offset: end, failures: 0 },
                Err(error) => {
                    next.failures += 1;
                    if next.failures >= SNAPSHOT_ROW_ATTEMPTS_MAX {
                        return Err(StreamingError::Unreachable(Unreachable::new(&error)));
                    }
                    // The peer does not know the rows before, for example because it restarted.
                    if matches!(error, RPCError::RemoteError(_)) {
                        next = NextRow { failures: next.failures, ..NextRow::default() };
                    }
                    tokio::time::sleep(self.backoff).await;
                }
            }
        }
    }

    async fn send_chunk(
        &self,
        chunk: &SnapshotChunk,
        timeout: Duration,
    ) -> Result<InstallSnapshotResponse<u64>, RaftPeerError<InstallSnapshotError>> {
        self.call(encode(chunk).map(ConsensusRequest::Snapshot), timeout).await
    }
}

/// A snapshot of which more rows are to come.
pub(super) struct IncomingSnapshot {
    id: String,
    pub(super) data: Box<SnapshotData>,
}

/// Where a part of a snapshot belongs.
enum ChunkPlace {
    Next,
    /// It has arrived before, and its reply was lost.
    Repeated,
    Mismatch,
}

impl IncomingSnapshot {
    fn place_of(&self, chunk: &SnapshotChunk) -> ChunkPlace {
        if self.id != chunk.meta.snapshot_id {
            ChunkPlace::Mismatch
        } else if chunk.offset == self.data.bytes() {
            ChunkPlace::Next
        } else if chunk.offset.saturating_add(chunk.data.len() as u64) == self.data.bytes() {
            ChunkPlace::Repeated
        } else {
            ChunkPlace::Mismatch
        }
    }
}

impl Consensus {
    /// Stores a part of a leader's snapshot, and installs the snapshot after the last part.
    pub(super) async fn receive_chunk(&self, chunk: SnapshotChunk) -> SnapshotResult {
        let raft = &self.inner.raft;
        let vote = raft.with_raft_state(|state| *state.vote_ref()).await?;
        let mut incoming = self.inner.incoming.lock().await;
        let is_leader = chunk.vote >= vote;
        let is_known = chunk.done && self.inner.installs.is_durable(chunk.meta.last_log_id);
        if !is_leader || is_known {
            return Ok(InstallSnapshotResponse { vote });
        }
        if chunk.offset == 0 {
            let data = raft.begin_receiving_snapshot().await.map_err(fatal)?;
            *incoming = Some(IncomingSnapshot { id: chunk.meta.snapshot_id.clone(), data });
        }
        let place = incoming.as_ref().map_or(ChunkPlace::Mismatch, |incoming| incoming.place_of(&chunk));
        match (place, incoming.as_mut()) {
            (ChunkPlace::Next, Some(incoming)) => {
                incoming.data.push(chunk.data).await.map_err(|fault| Fatal::StorageError(fault.into()))?;
            }
            (ChunkPlace::Repeated, _) => {}
            _ => return Err(RaftError::APIError(mismatch(&chunk).into())),
        }
        match incoming.take_if(|_| chunk.done) {
            Some(IncomingSnapshot { data, .. }) => {
                let snapshot = Snapshot { meta: chunk.meta, snapshot: data };
                Ok(raft.install_full_snapshot(chunk.vote, snapshot).await?.into())
            }
            None => Ok(InstallSnapshotResponse { vote }),
        }
    }
}

fn mismatch(chunk: &SnapshotChunk) -> SnapshotMismatch {
    let segment = |offset| SnapshotSegmentId { id: chunk.meta.snapshot_id.clone(), offset };
    SnapshotMismatch { expect: segment(0), got: segment(chunk.offset) }
}

fn fatal(error: RaftError<u64>) -> Fatal<u64> {
    match error {
        RaftError::Fatal(fatal) => fatal,
        RaftError::APIError(never) => match never {},
    }
}
