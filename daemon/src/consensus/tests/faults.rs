//! Leaders that die or are cut off.

use std::time::Instant;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_allowed_to_stand_takes_over_from_a_dead_leader() {
    let cluster = Cluster::of([1, 2, 3], Settings::default()).await;
    must_put(&cluster.member(1), "t/before").await;
    let error = cluster.member(2).propose(put("t/wrong")).await.unwrap_err();
    assert_eq!(error, ProposeError::NotLeader { leader: Some(NodeId(1)) });
    assert_eq!(
        cluster.member(2).barrier(DEADLINE).await,
        Err(BarrierError::NotLeader { leader: Some(NodeId(1)) })
    );

    let killed = Instant::now();
    cluster.stop(1).await;
    cluster.member(3).may_stand(true);
    let term = cluster.leads(NodeId(3)).await.term;
    println!("a new leader {:?} after the old one died, in term {term}", killed.elapsed());
    let member = cluster.member(3);
    member.barrier(DEADLINE).await.unwrap();
    assert!(has(&member.state().borrow(), "t/before"));
    must_put(&member, "t/after").await;
    println!("writes again {:?} after the old one died", killed.elapsed());
    cluster.sees(2, "t/after").await;
    let error = cluster.member(2).propose(put("t/wrong")).await.unwrap_err();
    assert_eq!(error, ProposeError::NotLeader { leader: Some(NodeId(3)) });
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_takes_over_unless_allowed() {
    let cluster = Cluster::of([1, 2, 3], Settings::default()).await;
    let term = cluster.leads(NodeId(1)).await.term;
    cluster.stop(1).await;
    // There is nothing to wait for: nothing is to happen, for several times the longest that an election takes.
    let mut second = cluster.member(2).leadership();
    let changed = second.wait_for(|leadership| leadership.term > term);
    tokio::time::timeout(Duration::from_secs(3), changed).await.unwrap_err();
    cluster.member(2).may_stand(true);
    cluster.leads(NodeId(2)).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_says_so_and_commits_nothing() {
    let settings = Settings { change_timeout_ms: 2_000, ..Settings::default() };
    let cluster = Cluster::of([1, 2, 3], settings).await;
    let old = cluster.member(1);
    must_put(&old, "t/before").await;
    cluster.cut(1);
    let cut = Instant::now();
    // Before it knows: proposed, and never confirmed.
    let proposer = old.clone();
    let unknown = tokio::spawn(async move { proposer.propose(put("t/unknown")).await });
    until(old.leadership(), "it knows that it is alone", |l| l.is_leader && !l.has_quorum).await;
    println!("the leader knew {:?} after the cut that it is alone", cut.elapsed());
    assert!(old.leadership().borrow().quorum_ack_age_ms().unwrap() >= 500);
    assert_eq!(old.propose(put("t/refused")).await, Err(ProposeError::NoQuorum));
    assert_eq!(old.barrier(Duration::from_millis(300)).await, Err(BarrierError::NoQuorum));
    assert_eq!(unknown.await.unwrap(), Err(ProposeError::Unknown));
    assert!(!has(&old.state().borrow(), "t/unknown"));

    cluster.member(2).may_stand(true);
    cluster.leads(NodeId(2)).await;
    must_put(&cluster.member(2), "t/new").await;
    assert!(old.leadership().borrow().is_leader, "it cannot know");
    cluster.mend(1);
    cluster.sees(1, "t/new").await;
    let seen = until(old.leadership(), "it follows", |l| !l.is_leader && l.leader == Some(NodeId(2))).await;
    assert!(!seen.has_quorum && seen.quorum_ack_age_ms().is_none());
    assert_eq!(old.propose(put("t/x")).await, Err(ProposeError::NotLeader { leader: Some(NodeId(2)) }));
    assert_eq!(*old.state().borrow().clone(), *cluster.member(2).state().borrow().clone());
    assert!(!has(&old.state().borrow(), "t/unknown"));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_never_lost_while_leaders_change() {
    let settings = Settings { snapshot_every_entries: 25, entries_kept: 5, ..Settings::default() };
    let mut cluster = Cluster::of([1, 2, 3], settings).await;
    let mut leader = 1;
    let mut answered = Vec::new();
    for round in 0..3 {
        let member = cluster.member(leader);
        for n in 0..40 {
            let name = format!("t/{round}-{n}");
            must_put(&member, &name).await;
            answered.push(name);
        }
        drop(member);
        cluster.stop(leader).await;
        let next = leader % 3 + 1;
        cluster.member(next).may_stand(true);
        cluster.leads(NodeId(next)).await;
        cluster.member(next).may_stand(false);
        cluster.start(NodeId(leader)).await;
        leader = next;
    }
    cluster.member(leader).barrier(DEADLINE).await.unwrap();
    let state = cluster.member(leader).state().borrow().clone();
    assert!(answered.iter().all(|name| has(&state, name)));
    for id in [1, 2, 3] {
        until(cluster.member(id).state(), "the same everywhere", |other| **other == *state).await;
    }
    state.check().unwrap();
    cluster.stop_all().await;
}
