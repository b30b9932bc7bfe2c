//! Changes of learners and voters.

use super::*;
use crate::codec::decode;
use crate::file::tables::SnapshotMeta;
use crate::snapshots::{SnapshotChunk, SnapshotResult};

fn nodes<const N: usize>(ids: [u64; N]) -> BTreeSet<NodeId> {
    ids.map(NodeId).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_catches_up_and_becomes_a_voter() {
    let mut cluster = Cluster::of([1], ConsensusConfig::default()).await;
    let leader = cluster.member(1);
    must_put(&leader, "t/early").await;
    assert_eq!(leader.set_voters(nodes([1, 2])).await, Err(VoterChangeError::NotLearner(NodeId(2))));
    cluster.start(NodeId(2)).await;
    leader.add_learner(NodeId(2)).await.unwrap();
    assert_eq!(leader.leadership().borrow().learners, nodes([2]));
    until(leader.leadership(), "it has caught up", |l| l.caught_up == nodes([2])).await;
    cluster.sees(2, "t/early").await;
    assert_eq!(
        cluster.member(2).set_voters(nodes([2])).await,
        Err(VoterChangeError::NotLeader { leader: Some(NodeId(1)) })
    );
    leader.set_voters(nodes([1, 2])).await.unwrap();
    let seen = until(leader.leadership(), "two vote", |l| l.voters == nodes([1, 2]) && !l.joint).await;
    assert!(seen.learners.is_empty());
    // The quorum is now both.
    cluster.disconnect(2);
    until(leader.leadership(), "one of two is no majority", |l| !l.has_quorum).await;
    cluster.reconnect(2);
    until(leader.leadership(), "two of two are", |l| l.has_quorum).await;
    must_put(&leader, "t/late").await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_receives_a_snapshot_of_purged_entries() {
    let config =
        ConsensusConfig { snapshot_log_bytes_min: 2_000, entries_kept: 2, ..ConsensusConfig::default() };
    let mut cluster = Cluster::of([1], config).await;
    let leader = cluster.member(1);
    for n in 0..100 {
        must_put(&leader, &format!("t/{n}")).await;
    }
    cluster.start(NodeId(2)).await;
    leader.add_learner(NodeId(2)).await.unwrap();
    leader.set_voters(nodes([1, 2])).await.unwrap();
    assert!(cluster.network.0.lock().unwrap().snapshot_chunks > 0);
    let state = leader.state().borrow().clone();
    until(cluster.member(2).state(), "it has caught up", |other| **other == *state).await;
    // The snapshot is also on its own disk.
    cluster.stop(2).await;
    let again = cluster.start(NodeId(2)).await;
    assert!(again.state().borrow().file_count() >= 80);
    until(again.state(), "it has caught up again", |other| **other == *state).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_has_no_largest_size() {
    let cluster = Cluster::of([1], ConsensusConfig::default()).await;
    let member = cluster.member(1);
    let vote = member.inner.raft.with_raft_state(|state| *state.vote_ref()).await.unwrap();
    let chunk = |offset, data: &[u8]| SnapshotChunk {
        vote,
        meta: SnapshotMeta { snapshot_id: "large".to_owned(), ..SnapshotMeta::default() },
        offset,
        data: data.to_vec(),
        done: false,
    };
    member.receive_chunk(chunk(0, &[1])).await.unwrap();
    member.inner.incoming.lock().await.as_mut().unwrap().data.set_bytes(1 << 40);
    let request = ConsensusRequest::Snapshot(encode(&chunk(1 << 40, &[2, 3])).unwrap());
    let reply: SnapshotResult = decode(&member.handle(request.clone()).await.0).unwrap();
    assert_eq!(reply.unwrap().vote, vote);
    // A repeated part is not appended twice.
    let reply: SnapshotResult = decode(&member.handle(request).await.0).unwrap();
    reply.unwrap();
    assert_eq!(member.inner.incoming.lock().await.as_ref().unwrap().data.bytes(), (1 << 40) + 2);
    member.receive_chunk(chunk(7, &[2])).await.unwrap_err();
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_voter_is_replaced() {
    let mut cluster = Cluster::of([1, 2, 3], ConsensusConfig::default()).await;
    let leader = cluster.member(1);
    cluster.stop(3).await;
    must_put(&leader, "t/two-of-three").await;
    cluster.start(NodeId(4)).await;
    leader.add_learner(NodeId(4)).await.unwrap();
    leader.set_voters(nodes([1, 2, 4])).await.unwrap();
    let seen = until(leader.leadership(), "4 votes", |l| l.voters == nodes([1, 2, 4]) && !l.joint).await;
    assert!(seen.learners.is_empty(), "the replaced voter is removed: {seen:?}");
    // The new voter counts: it and the leader are a majority.
    cluster.stop(2).await;
    must_put(&leader, "t/with-the-new-voter").await;
    cluster.sees(4, "t/with-the-new-voter").await;
    leader.set_voters(nodes([1, 2, 4])).await.unwrap();
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_learner_does_not_block_commits() {
    let config = ConsensusConfig { change_timeout_ms: 1_000, ..ConsensusConfig::default() };
    let cluster = Cluster::of([1, 2], config).await;
    let leader = cluster.member(1);
    assert_eq!(leader.add_learner(NodeId(9)).await, Err(VoterChangeError::Unknown));
    must_put(&leader, "t/continues").await;
    assert_eq!(leader.leadership().borrow().learners, nodes([9]));
    leader.remove_learner(NodeId(9)).await.unwrap();
    until(leader.leadership(), "it is gone", |l| l.learners.is_empty()).await;
    leader.set_voters(nodes([1])).await.unwrap();
    assert!(matches!(leader.set_voters(BTreeSet::new()).await, Err(VoterChangeError::Invalid(_))));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_voter_changes_are_serialized() {
    let mut cluster = Cluster::of([1], ConsensusConfig::default()).await;
    let leader = cluster.member(1);
    for id in [2, 3, 4, 5] {
        cluster.start(NodeId(id)).await;
    }
    let changes: Vec<_> = [2, 3, 4, 5]
        .map(|id| {
            let leader = leader.clone();
            tokio::spawn(async move { leader.add_learner(NodeId(id)).await })
        })
        .into();
    for change in changes {
        change.await.unwrap().unwrap();
    }
    let (three, five) =
        tokio::join!(leader.set_voters(nodes([1, 2, 3])), leader.set_voters(nodes([1, 2, 3, 4, 5])));
    three.unwrap();
    five.unwrap();
    let seen = until(leader.leadership(), "settled", |l| !l.joint).await;
    assert!(seen.voters == nodes([1, 2, 3]) || seen.voters == nodes([1, 2, 3, 4, 5]), "{seen:?}");
    cluster.stop_all().await;
}
