//! Recovery of a survivor's log into a new cluster after the permanent loss of a majority.

use super::*;

const SMALL: ConsensusConfig = ConsensusConfig {
    snapshot_log_bytes_min: 2_000,
    entries_kept: 5,
    heartbeat_ms: 100,
    election_min_ms: 250,
    election_max_ms: 400,
    change_timeout_ms: 5_000,
    snapshot_timeout_ms: 10_000,
};

fn store(cluster: &Cluster, id: u64) -> std::path::PathBuf {
    cluster.dirs[&NodeId(id)].path().join(STORE_FILE)
}

/// Recovers the store of `id` into a new cluster whose first member is `first`.
async fn recovered(cluster: &Cluster, id: u64, first: u64) -> Cluster {
    let mut new = Cluster::new(SMALL);
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (store(cluster, id), dir.path().join(STORE_FILE));
    let recover = move || SurvivorLog::read(&from).unwrap().initial.write_store(NodeId(first), &to).unwrap();
    tokio::task::spawn_blocking(recover).await.unwrap();
    new.dirs.insert(NodeId(first), dir);
    new.start(NodeId(first)).await;
    // In production the ring election nominates the only voter.
    new.member(first).may_stand(true);
    new.leads(NodeId(first)).await;
    new
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_cluster_starts_with_everything_in_a_survivors_log() {
    let cluster = Cluster::of([1, 2, 3], SMALL).await;
    let leader = cluster.member(1);
    for n in 0..50 {
        must_put(&leader, &format!("t/{n}")).await;
    }
    // Whether this put was acknowledged can no longer be known.
    cluster.disconnect(2);
    cluster.disconnect(3);
    let last = leader.leadership().borrow().last_log;
    let proposer = leader.clone();
    let proposed = tokio::spawn(async move { proposer.propose(put("t/tail")).await });
    let end = until(leader.leadership(), "it is in the log", |l| l.last_log > last).await;
    proposed.abort();
    cluster.stop_all().await;

    let survivor = SurvivorLog::read(&store(&cluster, 1)).unwrap();
    assert_eq!((survivor.node, survivor.initial.state.file_count()), (NodeId(1), 51));
    assert_eq!(survivor.voters, BTreeSet::from([1, 2, 3].map(NodeId)));
    assert_eq!(survivor.initial.last_log(), (end.last_log.0.0, end.last_log.1));
    assert!(
        SurvivorLog::read(&store(&cluster, 2)).unwrap().initial.last_log() < survivor.initial.last_log(),
        "the newest log is recognised"
    );

    let mut new = recovered(&cluster, 1, 11).await;
    let leadership = new.leads(NodeId(11)).await;
    assert!(leadership.term.0 > survivor.initial.term_floor(), "{leadership:?}");
    assert_eq!(leadership.voters, BTreeSet::from([NodeId(11)]));
    let first = new.member(11);
    first.take_over(DEADLINE).await.unwrap();
    assert_eq!(*first.state().borrow().clone(), survivor.initial.state);
    must_put(&first, "t/after").await;
    // It restarts like any member, and new members receive everything.
    drop(first);
    new.stop(11).await;
    let first = new.start(NodeId(11)).await;
    first.may_stand(true);
    new.leads(NodeId(11)).await;
    for id in [12, 13] {
        new.start(NodeId(id)).await;
        first.add_learner(NodeId(id)).await.unwrap();
    }
    first.set_voters([11, 12, 13].map(NodeId).into()).await.unwrap();
    must_put(&first, "t/three").await;
    for name in ["t/0", "t/tail", "t/after", "t/three"] {
        new.sees(12, name).await;
    }
    new.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_of_the_lost_cluster_cannot_win_an_election_with_the_new_one() {
    let cluster = Cluster::of([1, 2, 3], SMALL).await;
    must_put(&cluster.member(1), "t/a").await;
    cluster.stop_all().await;
    let new = recovered(&cluster, 1, 11).await;
    let term = new.leads(NodeId(11)).await.term;

    // Member 2 lost its log and its votes. Under its old id it would vote for any candidate.
    let mut new = new;
    let forgetful = NodeId(12);
    new.start(forgetful).await;
    // A member presumed lost returns and reaches all others.
    let old = new.start_in(NodeId(3), cluster.dirs[&NodeId(3)].path()).await;
    old.may_stand(true);
    // Its term rises with each failed candidacy.
    let stood = until(old.leadership(), "it stood more than once", |l| l.term.0 > 3 || l.is_leader).await;
    assert!(!stood.is_leader, "it was elected: {stood:?}");
    assert_eq!(new.leads(NodeId(11)).await.term, term);
    must_put(&new.member(11), "t/b").await;
    new.stop_all().await;
}

#[test]
fn an_invalid_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(STORE_FILE);
    assert!(matches!(SurvivorLog::read(&path), Err(RecoverError::Unreadable { .. })));
    assert!(!path.exists(), "reading creates no file");
    drop(store::open::open(&path, NodeId(1)).unwrap());
    let error = loop {
        // The writer thread closes the file asynchronously.
        match SurvivorLog::read(&path).unwrap_err() {
            RecoverError::Unreadable { reason, .. } if reason.contains("open") => std::thread::yield_now(),
            error => break error,
        }
    };
    assert!(matches!(error, RecoverError::Empty { .. }), "{error}");
}
