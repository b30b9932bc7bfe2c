//! A majority is lost for ever, and a survivor's log becomes the start of a new cluster.

use super::*;

const SMALL: Settings = Settings {
    snapshot_every_entries: 20,
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

/// Makes the store of `id` that of `founder`, in a cluster of its own.
async fn recovered(cluster: &Cluster, id: u64, founder: u64) -> Cluster {
    let mut new = Cluster::new(SMALL);
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (store(cluster, id), dir.path().join(STORE_FILE));
    let recover = move || Survivor::read(&from).unwrap().origin.found(NodeId(founder), &to).unwrap();
    tokio::task::spawn_blocking(recover).await.unwrap();
    new.dirs.insert(NodeId(founder), dir);
    new.start(NodeId(founder)).await;
    // The ring names the only voter.
    new.member(founder).may_stand(true);
    new.leads(NodeId(founder)).await;
    new
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_goes_on_alone_from_all_that_its_log_holds() {
    let cluster = Cluster::of([1, 2, 3], SMALL).await;
    let leader = cluster.member(1);
    for n in 0..50 {
        must_put(&leader, &format!("t/{n}")).await;
    }
    // Nobody can say any more whether this was acknowledged.
    cluster.cut(2);
    cluster.cut(3);
    let last = leader.leadership().borrow().last_log;
    let proposer = leader.clone();
    let proposed = tokio::spawn(async move { proposer.propose(put("t/tail")).await });
    let end = until(leader.leadership(), "it is in the log", |l| l.last_log > last).await;
    proposed.abort();
    cluster.stop_all().await;

    let survivor = Survivor::read(&store(&cluster, 1)).unwrap();
    assert_eq!((survivor.node, survivor.origin.state.file_count()), (NodeId(1), 51));
    assert_eq!(survivor.voters, BTreeSet::from([1, 2, 3].map(NodeId)));
    assert_eq!(survivor.origin.last_log(), (end.last_log.0.0, end.last_log.1));
    assert!(
        Survivor::read(&store(&cluster, 2)).unwrap().origin.last_log() < survivor.origin.last_log(),
        "it says who has the newest"
    );

    let mut new = recovered(&cluster, 1, 11).await;
    let leadership = new.leads(NodeId(11)).await;
    assert!(leadership.term.0 > survivor.origin.new_term(), "{leadership:?}");
    assert_eq!(leadership.voters, BTreeSet::from([NodeId(11)]));
    let founder = new.member(11);
    founder.take_over(DEADLINE).await.unwrap();
    assert_eq!(*founder.state().borrow().clone(), survivor.origin.state);
    must_put(&founder, "t/after").await;
    // It restarts like any other, and newcomers get all of it.
    drop(founder);
    new.stop(11).await;
    let founder = new.start(NodeId(11)).await;
    founder.may_stand(true);
    new.leads(NodeId(11)).await;
    for id in [12, 13] {
        new.start(NodeId(id)).await;
        founder.add_learner(NodeId(id)).await.unwrap();
    }
    founder.set_voters([11, 12, 13].map(NodeId).into()).await.unwrap();
    must_put(&founder, "t/three").await;
    for name in ["t/0", "t/tail", "t/after", "t/three"] {
        new.sees(12, name).await;
    }
    new.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_of_the_lost_cluster_cannot_count_one_of_the_new() {
    let cluster = Cluster::of([1, 2, 3], SMALL).await;
    must_put(&cluster.member(1), "t/a").await;
    cluster.stop_all().await;
    let new = recovered(&cluster, 1, 11).await;
    let term = new.leads(NodeId(11)).await.term;

    // Member 2 has forgotten its log and its votes. Under its old id it would vote for whoever asks.
    let mut new = new;
    let forgetful = NodeId(12);
    new.start(forgetful).await;
    // One that was thought lost comes back, and reaches everybody.
    let old = new.start_in(NodeId(3), cluster.dirs[&NodeId(3)].path()).await;
    old.may_stand(true);
    // Its term rises whenever it stands in vain.
    let stood = until(old.leadership(), "it has stood more than once", |l| l.term.0 > 3 || l.is_leader).await;
    assert!(!stood.is_leader, "it was elected: {stood:?}");
    assert_eq!(new.leads(NodeId(11)).await.term, term);
    must_put(&new.member(11), "t/b").await;
    new.stop_all().await;
}

#[test]
fn what_is_no_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(STORE_FILE);
    assert!(matches!(Survivor::read(&path), Err(RecoverError::Unreadable { .. })));
    assert!(!path.exists(), "looking makes no file");
    drop(store::open(&path, NodeId(1)).unwrap());
    let error = loop {
        // The writer's thread closes the file.
        match Survivor::read(&path).unwrap_err() {
            RecoverError::Unreadable { reason, .. } if reason.contains("open") => std::thread::yield_now(),
            error => break error,
        }
    };
    assert!(matches!(error, RecoverError::Empty { .. }), "{error}");
}
