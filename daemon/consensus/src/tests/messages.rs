//! Every openraft message survives encoding and decoding.

use std::fmt::Debug;

use openraft::error::{Fatal, InstallSnapshotError, RaftError, SnapshotMismatch};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{
    AnyError, CommittedLeaderId, EmptyNode, EntryPayload, LogId, Membership, SnapshotMeta, SnapshotSegmentId,
    StorageIOError, StoredMembership, Vote,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::snapshots::{SnapshotChunk, SnapshotResult};
use super::*;
use crate::codec::decode;
use crate::network::{AppendResult, VoteResult};
use crate::types::{Entry, TypeConfig};

fn assert_round_trip<T: Debug + Serialize + DeserializeOwned>(value: &T) {
    let back: T = decode(&encode(value).unwrap()).unwrap();
    assert_eq!(format!("{back:?}"), format!("{value:?}"));
}

fn log_id(index: u64) -> LogId<u64> {
    LogId::new(CommittedLeaderId::new(3, u64::MAX), index)
}

fn membership() -> Membership<u64, EmptyNode> {
    let nodes: BTreeSet<u64> = [1, 2, 3, 9].into();
    Membership::new(vec![[1, 2].into(), [2, 3].into()], nodes)
}

fn fatal() -> Fatal<u64> {
    Fatal::StorageError(StorageIOError::write_logs(AnyError::error("the disk is full")).into())
}

#[test]
fn requests_round_trip() {
    let payloads = [
        EntryPayload::Blank,
        EntryPayload::Normal(CommandBatch(Arc::new(vec![put("t/a"), put("t/b")]))),
        EntryPayload::Membership(membership()),
    ];
    let entries: Vec<_> =
        (5..).zip(payloads).map(|(index, payload)| Entry { log_id: log_id(index), payload }).collect();
    let vote = Vote::new_committed(3, u64::MAX);
    for (prev_log_id, leader_commit) in [(None, None), (Some(log_id(4)), Some(log_id(2)))] {
        assert_round_trip(&AppendEntriesRequest::<TypeConfig> {
            vote,
            prev_log_id,
            entries: entries.clone(),
            leader_commit,
        });
    }
    assert_round_trip(&VoteRequest::<u64> { vote: Vote::new(4, 2), last_log_id: Some(log_id(7)) });
    let meta = SnapshotMeta {
        last_log_id: Some(log_id(7)),
        last_membership: StoredMembership::new(Some(log_id(5)), membership()),
        snapshot_id: "x".to_owned(),
    };
    let chunk = SnapshotChunk { vote, meta, offset: 1 << 40, data: vec![200; 300], done: true };
    assert_round_trip(&chunk);
    assert!(encode(&chunk).unwrap().len() < 600, "the data is encoded as MessagePack binary");
}

#[test]
fn replies_round_trip() {
    let vote = Vote::new(4, 2);
    let appended = [
        AppendEntriesResponse::Success,
        AppendEntriesResponse::PartialSuccess(Some(log_id(3))),
        AppendEntriesResponse::PartialSuccess(None),
        AppendEntriesResponse::Conflict,
        AppendEntriesResponse::HigherVote(vote),
    ];
    for reply in appended {
        assert_round_trip::<AppendResult>(&Ok(reply));
    }
    assert_round_trip::<VoteResult>(&Ok(VoteResponse::new(vote, Some(log_id(3)), true)));
    assert_round_trip::<SnapshotResult>(&Ok(InstallSnapshotResponse { vote }));
    for fatal in [Fatal::Stopped, Fatal::Panicked, fatal()] {
        assert_round_trip::<AppendResult>(&Err(RaftError::Fatal(fatal.clone())));
        assert_round_trip::<VoteResult>(&Err(RaftError::Fatal(fatal.clone())));
        assert_round_trip::<SnapshotResult>(&Err(RaftError::Fatal(fatal)));
    }
    let segment = |offset| SnapshotSegmentId { id: "x".to_owned(), offset };
    let mismatch = SnapshotMismatch { expect: segment(0), got: segment(9) };
    assert_round_trip::<SnapshotResult>(&Err(RaftError::APIError(InstallSnapshotError::from(mismatch))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_gets_an_empty_reply() {
    let cluster = Cluster::of([1], ConsensusConfig::default()).await;
    let member = cluster.member(1);
    for request in [ConsensusRequest::Append, ConsensusRequest::Vote, ConsensusRequest::Snapshot] {
        assert!(member.handle(request(vec![0xc1, 2, 3])).await.0.is_empty());
    }
    let chunk = SnapshotChunk {
        vote: Vote::new_committed(99, 2),
        meta: SnapshotMeta { snapshot_id: "x".to_owned(), ..SnapshotMeta::default() },
        offset: u64::MAX,
        data: vec![1],
        done: false,
    };
    let reply = member.handle(ConsensusRequest::Snapshot(encode(&chunk).unwrap())).await;
    let refused: SnapshotResult = decode(&reply.0).unwrap();
    assert!(matches!(refused, Err(RaftError::APIError(_))), "its beginning is missing: {refused:?}");
    must_put(&member, "t/continues").await;
    cluster.stop_all().await;
}
