//! Writing, reading and restarting.

use std::time::Instant;

use idunno_shared::wire::refusal::RefusalCode;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_member_leads_again_after_a_restart() {
    let mut cluster = Cluster::of([1], ConsensusConfig::default()).await;
    let member = cluster.member(1);
    member.bootstrap().await.unwrap();
    must_put(&member, "t/a").await;
    member.barrier(DEADLINE).await.unwrap();
    drop(member);
    cluster.stop(1).await;

    let member = cluster.start(NodeId(1)).await;
    cluster.leads(NodeId(1)).await;
    cluster.sees(1, "t/a").await;
    must_put(&member, "t/b").await;
    // Its writes and reads need no other member.
    member.barrier(DEADLINE).await.unwrap();
    assert!(member.leadership().borrow().has_quorum);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_reach_the_proposer_and_change_nothing() {
    let cluster = Cluster::of([1, 2, 3], ConsensusConfig::default()).await;
    let member = cluster.member(1);
    let delete = Action::Change(Change::Delete { name: "t/none".parse().unwrap() });
    let refusal = member
        .propose(Command { at_ms: 1, op: None, action: delete, upload: None, by: None })
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(refusal.code, RefusalCode::NotFound);
    let mut large = put("t/large");
    if let Action::Change(Change::CommitFiles { files, .. }) = &mut large.action {
        let name = format!("t/{}", "x".repeat(1000));
        *files = vec![NewFile { name: name.parse().unwrap(), ..files[0].clone() }; 7_000];
    }
    let error = member.propose(large).await.unwrap_err();
    assert!(matches!(error, ProposeError::TooLarge { .. }), "{error}");
    assert_eq!(member.state().borrow().revision(), 0);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_proposals_share_log_entries() {
    const COMMANDS: u64 = 1000;
    let cluster = Cluster::of([1, 2, 3], ConsensusConfig::default()).await;
    let member = cluster.member(1);
    let started = Instant::now();
    for n in 0..20 {
        must_put(&member, &format!("single/{n}")).await;
    }
    println!("a single put takes {:?}", started.elapsed() / 20);

    let committed = || async {
        let committed = member.inner.raft.with_raft_state(|state| state.committed).await.unwrap();
        committed.unwrap().index
    };
    let before = committed().await;
    let started = Instant::now();
    let puts: Vec<_> = (0..COMMANDS)
        .map(|n| {
            let member = member.clone();
            tokio::spawn(async move { must_put(&member, &format!("many/{n}")).await })
        })
        .collect();
    for put in puts {
        put.await.unwrap();
    }
    let seconds = started.elapsed().as_secs_f64();
    // Whoever received an outcome reads its effect.
    assert_eq!(member.state().borrow().file_count(), 20 + COMMANDS);
    let entries = committed().await - before;
    println!("{COMMANDS} puts in {entries} entries, {:.0} puts/s", COMMANDS as f64 / seconds);
    assert!(entries <= COMMANDS / 20, "{entries} entries");
    for id in [2, 3] {
        until(cluster.member(id).state(), "all puts are applied", |s| s.file_count() == 20 + COMMANDS).await;
        assert_eq!(*cluster.member(id).state().borrow().clone(), *member.state().borrow().clone());
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_all_members_loses_nothing() {
    let mut cluster = Cluster::of([1, 2, 3], ConsensusConfig::default()).await;
    for n in 0..30 {
        must_put(&cluster.member(1), &format!("t/{n}")).await;
    }
    cluster.stop_all().await;
    for id in [1, 2, 3] {
        cluster.start(NodeId(id)).await;
    }
    cluster.member(1).may_stand(true);
    cluster.leads(NodeId(1)).await;
    let member = cluster.member(1);
    member.barrier(DEADLINE).await.unwrap();
    assert_eq!(member.state().borrow().file_count(), 30);
    must_put(&member, "t/after").await;
    for id in [2, 3] {
        cluster.sees(id, "t/after").await;
        assert_eq!(*cluster.member(id).state().borrow().clone(), *member.state().borrow().clone());
    }
    assert_eq!(member.leadership().borrow().voters, BTreeSet::from([1, 2, 3].map(NodeId)));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_is_recoverable_at_any_moment() {
    let cluster = Cluster::of(
        [1],
        ConsensusConfig { snapshot_log_bytes_min: 2_000, entries_kept: 5, ..ConsensusConfig::default() },
    );
    let cluster = cluster.await;
    let member = cluster.member(1);
    for n in 0..70 {
        must_put(&member, &format!("t/{n}")).await;
    }
    // What a killed process leaves: a file that was never closed.
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(cluster.dirs[&NodeId(1)].path().join(STORE_FILE), copy.path().join(STORE_FILE)).unwrap();
    let again = Cluster::new(cluster.config);
    again.start_in(NodeId(1), copy.path()).await;
    again.leads(NodeId(1)).await;
    again.sees(1, "t/69").await;
    assert_eq!(*again.member(1).state().borrow().clone(), *member.state().borrow().clone());
    must_put(&again.member(1), "t/again").await;
    again.stop_all().await;
    cluster.stop_all().await;
}
