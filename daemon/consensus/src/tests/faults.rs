//! Leaders that die or are partitioned.

use std::time::Instant;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_allowed_candidate_takes_over_from_a_dead_leader() {
    let cluster = Cluster::of([1, 2, 3], ConsensusConfig::default()).await;
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
async fn a_restarted_leader_commits_what_its_log_holds() {
    let mut cluster = Cluster::of([1, 2, 3], ConsensusConfig::default()).await;
    let old = cluster.member(1);
    let taken_over = old.take_over(DEADLINE).await.unwrap();
    let term = old.leadership().borrow().term;
    cluster.disconnect(1);
    let proposer = old.clone();
    // Durable on this member only.
    let proposed = tokio::spawn(async move { proposer.propose(put("t/tail")).await });
    let last = old.leadership().borrow().last_log;
    until(old.leadership(), "it is in the log", |leadership| leadership.last_log > last).await;
    proposed.abort();
    drop(old);
    cluster.stop(1).await;
    cluster.reconnect(1);
    let again = cluster.start(NodeId(1)).await;
    cluster.leads(NodeId(1)).await;
    let taken_over_again = again.take_over(DEADLINE).await.unwrap();
    assert_eq!(again.leadership().borrow().term, term, "it leads its old term");
    assert!(taken_over_again > taken_over, "{taken_over_again} after {taken_over}");
    assert!(has(&again.state().borrow(), "t/tail"), "otherwise its blobs would be collected as garbage");
    assert_eq!(
        cluster.member(2).take_over(DEADLINE).await,
        Err(BarrierError::NotLeader { leader: Some(NodeId(1)) })
    );
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_notice_a_silent_leader() {
    let cluster = Cluster::of([1, 2, 3], ConsensusConfig::default()).await;
    let follower = cluster.member(2);
    let lease = Duration::from_millis(ConsensusConfig::default().election_max_ms);
    let contact = follower.last_leader_contact();
    until(follower.leadership(), "it follows", |l| l.leader == Some(NodeId(1))).await;
    while follower.last_leader_contact() == contact {
        tokio::task::yield_now().await;
    }
    cluster.disconnect(1);
    for member in [follower, cluster.member(1)] {
        let silent = async {
            while member.last_leader_contact().elapsed() < 4 * lease {
                tokio::time::sleep(lease).await;
            }
        };
        tokio::time::timeout(DEADLINE, silent).await.unwrap();
        assert!(!member.leadership().borrow().holds_lease());
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_the_log_follows_the_highest_announced_term() {
    let cluster = Cluster::of([1, 2, 3], ConsensusConfig::default()).await;
    let spare = Cluster::new(ConsensusConfig::default()).start(NodeId(9)).await;
    let announcement = |term: u64| LeaderAnnouncement {
        term: Term(term),
        voters: [1, 2, 3].map(NodeId).into(),
        revoked: Vec::new(),
    };
    spare.observe_coordinator(NodeId(2), announcement(7));
    spare.observe_coordinator(NodeId(1), announcement(6));
    let seen = until(spare.leadership(), "it saw the announcement", |l| l.term == Term(7)).await;
    assert_eq!((seen.leader, seen.voters), (Some(NodeId(2)), announcement(7).voters));

    // A member that receives the log trusts it, unless a later term is announced.
    let (voter, term) = (cluster.member(3), cluster.leads(NodeId(1)).await.term);
    voter.observe_coordinator(
        NodeId(2),
        LeaderAnnouncement { term, voters: BTreeSet::new(), revoked: Vec::new() },
    );
    must_put(&cluster.member(1), "t/a").await;
    cluster.sees(3, "t/a").await;
    assert_eq!(voter.leadership().borrow().leader, Some(NodeId(1)));
    voter.observe_coordinator(NodeId(2), announcement(term.0 + 1));
    until(voter.leadership(), "it saw the announcement", |l| l.leader == Some(NodeId(2))).await;
    spare.shutdown().await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_member_stands_unless_allowed() {
    let cluster = Cluster::of([1, 2, 3], ConsensusConfig::default()).await;
    let term = cluster.leads(NodeId(1)).await.term;
    cluster.stop(1).await;
    // Nothing must happen for several times the longest election.
    let mut second = cluster.member(2).leadership();
    let changed = second.wait_for(|leadership| leadership.term > term);
    tokio::time::timeout(Duration::from_secs(3), changed).await.unwrap_err();
    cluster.member(2).may_stand(true);
    cluster.leads(NodeId(2)).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partitioned_leader_loses_its_lease_and_commits_nothing() {
    let config = ConsensusConfig { change_timeout_ms: 2_000, ..ConsensusConfig::default() };
    let cluster = Cluster::of([1, 2, 3], config).await;
    let old = cluster.member(1);
    must_put(&old, "t/before").await;
    cluster.disconnect(1);
    let partitioned = Instant::now();
    // Proposed before its lease ran out, and never confirmed.
    let proposer = old.clone();
    let unknown = tokio::spawn(async move { proposer.propose(put("t/unknown")).await });
    until(old.leadership(), "its lease runs out", |l| l.is_leader && !l.has_quorum).await;
    println!("the leader lost its lease {:?} after the partition", partitioned.elapsed());
    assert!(old.leadership().borrow().quorum_ack_age_ms().unwrap() >= config.election_max_ms);
    assert_eq!(old.propose(put("t/refused")).await, Err(ProposeError::NoQuorum));
    assert_eq!(old.barrier(Duration::from_millis(300)).await, Err(BarrierError::NoQuorum));
    assert_eq!(unknown.await.unwrap(), Err(ProposeError::Unknown));
    assert!(!has(&old.state().borrow(), "t/unknown"));

    cluster.member(2).may_stand(true);
    cluster.leads(NodeId(2)).await;
    must_put(&cluster.member(2), "t/new").await;
    assert!(old.leadership().borrow().is_leader, "it cannot know of the new leader");
    cluster.reconnect(1);
    cluster.sees(1, "t/new").await;
    let seen = until(old.leadership(), "it follows", |l| !l.is_leader && l.leader == Some(NodeId(2))).await;
    assert!(!seen.has_quorum && seen.quorum_ack_age_ms().is_none());
    assert_eq!(old.propose(put("t/x")).await, Err(ProposeError::NotLeader { leader: Some(NodeId(2)) }));
    assert_eq!(*old.state().borrow().clone(), *cluster.member(2).state().borrow().clone());
    assert!(!has(&old.state().borrow(), "t/unknown"));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_puts_survive_leader_changes() {
    let config =
        ConsensusConfig { snapshot_log_bytes_min: 2_000, entries_kept: 5, ..ConsensusConfig::default() };
    let mut cluster = Cluster::of([1, 2, 3], config).await;
    let mut leader = 1;
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let member = cluster.member(leader);
        for n in 0..40 {
            let name = format!("t/{round}-{n}");
            must_put(&member, &name).await;
            acknowledged.push(name);
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
    assert!(acknowledged.iter().all(|name| has(&state, name)));
    for id in [1, 2, 3] {
        until(cluster.member(id).state(), "all members have the same state", |other| **other == *state).await;
    }
    state.check().unwrap();
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_gives_way_is_replaced_although_its_clients_go_on_asking() {
    let cluster = Cluster::of([1, 2, 3], ConsensusConfig::default()).await;
    let old = cluster.member(1);
    must_put(&old, "t/before").await;
    old.give_way(true);
    old.may_lead(false);
    cluster.member(2).may_stand(true);
    // Whatever it still sent to its followers would keep them from electing another.
    let asking = {
        let old = old.clone();
        tokio::spawn(async move {
            loop {
                assert!(old.propose(put("t/refused")).await.is_err());
                assert!(old.barrier(DEADLINE).await.is_err());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    };
    cluster.leads(NodeId(2)).await;
    assert!(!asking.is_finished());
    asking.abort();
    must_put(&cluster.member(2), "t/after").await;
    cluster.sees(1, "t/after").await;
    assert!(!has(&cluster.member(2).state().borrow(), "t/refused"));
    cluster.stop_all().await;
}
