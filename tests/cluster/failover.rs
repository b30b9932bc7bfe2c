//! Coordinators that die, hang or fault, in clusters of up to ten members: seven vote, three are spares.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use idunno_shared::client::cluster::Cluster;
use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::control::{ControlReply, ControlRequest, Liveness, LogRole, MemberView};

use crate::harness::{Expected, LocalCluster, SOON, SlowServer, heavy, with_liveness};

const JOB_LIMIT: Duration = Duration::from_secs(90);
const MODEL: &str = "mnist-mlp";

/// A cluster whose workers share `server`, with a dataset of `queries` files and a trained model.
pub(crate) async fn working_cluster(members: usize, server: &SlowServer, queries: u64) -> LocalCluster {
    let cluster = LocalCluster::start_at(members, server).await;
    Expected::small("inputs", 0..queries).put(&cluster).await;
    cluster.train(&[MODEL]).await;
    cluster
}

/// A job of one query a batch, started.
pub(crate) async fn start(cluster: &LocalCluster) -> JobId {
    let job = cluster.add_job(MODEL, "inputs", 1).await;
    cluster.start_job(job).await;
    job
}

/// Waits until all members that are up have committed rows of the job.
async fn all_work_for(cluster: &LocalCluster, job: JobId) {
    let up: BTreeSet<NodeId> = cluster.up().into_iter().map(|index| cluster.node(index)).collect();
    cluster
        .eventually("every member commits rows", SOON, async || {
            let assigned = match cluster.client().control(ControlRequest::Assignments(Some(job))).await {
                Ok(ControlReply::Assignments(assigned)) => assigned,
                other => return Err(format!("{other:?}")),
            };
            let working = assigned
                .iter()
                .filter(|view| view.shares.iter().any(|(id, share)| *id == job && *share > 0.0));
            let working: BTreeSet<NodeId> = working.map(|view| view.node).collect();
            if working == up { Ok(()) } else { Err(format!("{} of {} do", working.len(), up.len())) }
        })
        .await;
}

/// Whether people find the coordinator through each member alone, as a command line does.
async fn every_member_names_the_coordinator(cluster: &LocalCluster) {
    for index in cluster.up() {
        let seed = vec![cluster.members[index].address()];
        let client =
            Cluster::new(std::sync::Arc::new(cluster.door()), seed).with_deadline(Duration::from_secs(5));
        if let Err(error) = client.control(ControlRequest::Models).await {
            cluster.fail(&format!("through {}: {error}", cluster.members[index].name));
        }
    }
}

fn in_role(list: &[MemberView], role: LogRole) -> Vec<NodeId> {
    list.iter().filter(|member| member.role == role).map(|member| member.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn spares_work_and_name_the_coordinator_before_and_after_a_failover() {
    let _turn = heavy().await;
    let server = SlowServer::start(Duration::from_millis(100)).await;
    let mut cluster = working_cluster(10, &server, 600).await;
    let (coordinator, term) = cluster.coordinator().await;
    let list = cluster.list_of(coordinator).await.unwrap();
    assert_eq!(in_role(&list, LogRole::Voter).len(), 6, "{list:?}");
    every_member_names_the_coordinator(&cluster).await;
    let first = start(&cluster).await;
    all_work_for(&cluster, first).await;

    cluster.kill(&[coordinator]);
    let killed = Instant::now();
    every_member_names_the_coordinator(&cluster).await;
    println!("every member led to the new coordinator {:?} after the old one's death", killed.elapsed());
    let second = start(&cluster).await;
    all_work_for(&cluster, second).await;
    assert!(cluster.coordinator().await.1 > term);

    // The old voter is replaced while it is down, and returns with an outdated log.
    cluster
        .eventually("the dead voter is replaced", SOON, async || {
            let list = cluster.list_of(cluster.coordinator().await.0).await?;
            let voting = in_role(&list, LogRole::Voter);
            let live: BTreeSet<NodeId> = with_liveness(&list, Liveness::Alive).collect();
            if voting.len() == 6 && voting.iter().all(|id| live.contains(id)) {
                Ok(())
            } else {
                Err(format!("{voting:?}"))
            }
        })
        .await;
    cluster.restart(&[coordinator]).await;
    cluster.ready().await;
    every_member_names_the_coordinator(&cluster).await;
    let third = start(&cluster).await;
    all_work_for(&cluster, third).await;
    for job in [first, second, third] {
        let view = cluster.finished(job, JOB_LIMIT).await;
        assert_eq!((view.done, view.dead), (600, 0), "{view:?}");
        cluster.all_results(job, 600).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_coordinator_and_its_two_likeliest_successors_are_killed_at_once() {
    let _turn = heavy().await;
    let server = SlowServer::start(Duration::from_millis(100)).await;
    let mut cluster = working_cluster(10, &server, 400).await;
    let clean = start(&cluster).await;
    cluster.finished(clean, JOB_LIMIT).await;
    let job = start(&cluster).await;
    cluster.midway(job, 20).await;
    let (coordinator, term) = cluster.coordinator().await;
    // With equal logs the greatest identities win the round.
    let mut successors = in_role(&cluster.list_of(coordinator).await.unwrap(), LogRole::Voter);
    successors.sort_unstable();
    let successors = successors.iter().rev().take(2).map(|&id| cluster.index_of(id));
    let killed: Vec<usize> = [coordinator].into_iter().chain(successors).collect();
    cluster.kill(&killed);
    let died = Instant::now();
    let (next, later) = cluster.coordinator().await;
    println!("a new coordinator answered {:?} after the deaths", died.elapsed());
    assert!(!killed.contains(&next) && later > term, "term {term} then {later}");
    let view = cluster.finished(job, JOB_LIMIT).await;
    assert_eq!((view.done, view.dead), (400, 0), "{view:?}");
    assert_eq!(cluster.all_results(job, 400).await, cluster.all_results(clean, 400).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_members_are_killed_one_by_one_and_the_last_two_still_accept_work() {
    let _turn = heavy().await;
    let mut cluster = LocalCluster::start(10, false).await;
    let mut last = Expected::small("at-10", 0..5);
    last.put(&cluster).await;
    for left in (2..10).rev() {
        // Alternately the coordinator and another member.
        let (coordinator, _) = cluster.coordinator().await;
        let other = cluster.up().into_iter().find(|&index| index != coordinator).unwrap();
        cluster.kill(&[if left % 2 == 1 { coordinator } else { other }]);
        let died = Instant::now();
        let next = Expected::small(&format!("at-{left}"), 0..5);
        next.put(&cluster).await;
        println!("{left} members took files again {:?} after the death", died.elapsed());
        last.verify(&cluster).await;
        last = next;
        let up: BTreeSet<NodeId> = cluster.up().into_iter().map(|index| cluster.node(index)).collect();
        cluster
            .eventually("all voters are live members", SOON, async || {
                let list = cluster.list_of(cluster.coordinator().await.0).await?;
                let voting = [in_role(&list, LogRole::Coordinator), in_role(&list, LogRole::Voter)].concat();
                let is_done = voting.len() == left.min(7) && voting.iter().all(|id| up.contains(id));
                if is_done { Ok(()) } else { Err(format!("{voting:?} of {up:?}")) }
            })
            .await;
    }
    last.verify(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_all_ten_members_yields_the_rows_of_a_clean_run() {
    let _turn = heavy().await;
    let server = SlowServer::start(Duration::from_millis(100)).await;
    let mut cluster = working_cluster(10, &server, 400).await;
    let clean = start(&cluster).await;
    cluster.finished(clean, JOB_LIMIT).await;
    let job = start(&cluster).await;
    let before = cluster.midway(job, 20).await;
    let all = cluster.up();
    cluster.kill(&all);
    cluster.restart(&all).await;
    let view = cluster.finished(job, JOB_LIMIT).await;
    assert!(view.done >= before.done);
    assert_eq!((view.done, view.dead), (400, 0), "{view:?}");
    assert_eq!(cluster.all_results(job, 400).await, cluster.all_results(clean, 400).await);
}

/// The file that makes the disk of a member's log fail in this way.
fn disk_fault(cluster: &LocalCluster, member: usize, fault: &str) -> std::path::PathBuf {
    cluster.members[member].data_dir.join(format!("metadata.redb.{fault}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_with_a_hung_disk_is_replaced_although_it_answers_probes() {
    let _turn = heavy().await;
    let cluster = LocalCluster::start(5, false).await;
    let before = Expected::small("before", 0..5);
    before.put(&cluster).await;
    let (old, term) = cluster.coordinator().await;
    let hang = disk_fault(&cluster, old, "hang");
    std::fs::write(&hang, b"").unwrap();
    let hung = Instant::now();
    let meanwhile = Expected::small("meanwhile", 10..15);
    meanwhile.put(&cluster).await;
    println!("files were put {:?} after the disk began to hang", hung.elapsed());
    let (new, next) = cluster.coordinator().await;
    assert!(new != old && next > term, "m{} leads term {next} after {term}", new + 1);
    let list = cluster.list_of(new).await.unwrap();
    assert_eq!(with_liveness(&list, Liveness::Alive).count(), 5, "membership sees it all the time: {list:?}");

    std::fs::remove_file(&hang).unwrap();
    cluster.ready().await;
    let deciding = cluster.who_coordinates(&cluster.up()).await;
    assert_eq!(deciding.len(), 1, "{deciding:?}");
    for files in [before, meanwhile] {
        files.verify(&cluster).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_with_a_failed_disk_stops_at_once_even_with_a_busy_worker() {
    let _turn = heavy().await;
    // Longer than the failover may take, so that a drain would hold it up.
    let server = SlowServer::start(Duration::from_secs(8)).await;
    let mut cluster = working_cluster(4, &server, 40).await;
    start(&cluster).await;
    cluster
        .eventually("all workers are busy", SOON, async || {
            match cluster.client().control(ControlRequest::Assignments(None)).await {
                Ok(ControlReply::Assignments(all))
                    if all.iter().filter(|view| !view.current.is_empty()).count() == 4 =>
                {
                    Ok(())
                }
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    let (old, term) = cluster.coordinator().await;
    std::fs::write(disk_fault(&cluster, old, "fail"), b"").unwrap();
    let failed = Instant::now();
    Expected::small("meanwhile", 100..103).put(&cluster).await;
    let waited = failed.elapsed();
    println!("files were put {waited:?} after the disk began to fail");
    assert!(waited < Duration::from_secs(7), "{waited:?}");
    assert!(cluster.coordinator().await.1 > term);
    let status = cluster.members[old].ended(Duration::from_secs(15)).await;
    assert_eq!(status.code(), Some(1), "{}", cluster.members[old].log_tail());
}
