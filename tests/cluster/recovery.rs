//! A majority of the voters is lost permanently: a survivor is recovered, and returning old voters cannot interfere.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use idunno_shared::wire::control::{Change, ControlReply, ControlRequest};
use rustix::process::Signal;

use crate::failover::working_cluster;
use crate::harness::{Expected, LocalCluster, SOON, SlowServer, heavy, idunnod, name};

const JOB_LIMIT: Duration = Duration::from_secs(60);
const QUERIES: u64 = 40;
const MODEL: &str = "mnist-mlp";

/// Runs `idunnod recover`; returns its output, or its standard error if it fails.
pub(crate) fn recover(data_dir: &Path, further: &[&str]) -> Result<String, String> {
    let mut command = Command::new(idunnod());
    let output = command.arg("recover").arg("--data-dir").arg(data_dir).args(further).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Term and index of the last entry, as an operator reads it.
fn last_entry(data_dir: &Path) -> (u64, u64) {
    let text = recover(data_dir, &[]).unwrap();
    let line = |start: &str| text.lines().find_map(|line| line.strip_prefix(start)).unwrap().trim();
    let files: u64 = line("files").parse().unwrap();
    assert!(files >= QUERIES && line("jobs") == "1" && text.contains("Nothing was changed"), "{text}");
    let (_, pair) = line("last entry").rsplit_once("= (").unwrap();
    let (term, index) = pair.trim_end_matches(')').split_once(", ").unwrap();
    (term.parse().unwrap(), index.parse().unwrap())
}

/// Loses three of five members and stops the other two. Of the lost ones, the first one's data is moved aside, the second
/// only hangs, and the third one's data is deleted.
async fn lose_three(cluster: &mut LocalCluster) -> ([usize; 3], [usize; 2]) {
    let (coordinator, _) = cluster.coordinator().await;
    let after = |step: usize| (coordinator + step) % 5;
    let (lost, left) = ([after(0), after(1), after(3)], [after(2), after(4)]);
    cluster.members[lost[1]].signal(Signal::STOP);
    cluster.kill(&[lost[0], lost[2]]);
    std::fs::rename(&cluster.members[lost[0]].data_dir, cluster.path().join("kept")).unwrap();
    std::fs::remove_dir_all(&cluster.members[lost[2]].data_dir).unwrap();
    let client = cluster.client().with_deadline(Duration::from_secs(4));
    let refused = client.change(Change::Delete { name: name("inputs/0001") }).await;
    assert!(refused.is_err(), "{refused:?}");
    let error = recover(&cluster.members[left[0]].data_dir, &["--yes"]).unwrap_err();
    assert!(error.contains("in use by another daemon"), "{error}");
    cluster.kill(&left);
    (lost, left)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_lost_majority_a_survivor_is_recovered_and_old_voters_are_refused() {
    let _turn = heavy().await;
    let server = SlowServer::start(Duration::from_millis(2)).await;
    let mut cluster = working_cluster(5, &server, QUERIES).await;
    let files = Expected::small("inputs", 0..QUERIES);
    let job = cluster.add_job(MODEL, "inputs", 8).await;
    cluster.start_job(job).await;
    cluster.finished(job, JOB_LIMIT).await;
    let rows = cluster.all_results(job, QUERIES).await;
    healed(&cluster).await;
    let (_, term) = cluster.coordinator().await;

    let (lost, left) = lose_three(&mut cluster).await;
    let newest = left.into_iter().max_by_key(|&index| last_entry(&cluster.members[index].data_dir)).unwrap();
    let other = if newest == left[0] { left[1] } else { left[0] };
    println!("{}", recover(&cluster.members[newest].data_dir, &["--yes"]).unwrap());
    println!("{}", recover(&cluster.members[other].data_dir, &["--forget-log", "--yes"]).unwrap());

    let old_ids = left.map(|index| cluster.node(index));

    cluster.introducer.reap();
    std::fs::remove_file(cluster.introducer.data_dir.join("introducer.json")).unwrap();
    cluster.introducer.spawn();
    cluster.introducer.started().await;
    cluster.restart(&[newest]).await;
    let (_, new_term) = cluster.coordinator().await;
    assert!(new_term > term, "{new_term}, {term} before");
    let introducer = cluster.introducer.address();
    for name in ["m6", "m7"] {
        let member = cluster.new_member(name, introducer, false);
        cluster.members.push(member);
    }
    cluster.restart(&[other, 5, 6]).await;
    cluster.ready_with(&[newest, other, 5, 6]).await;
    assert!(
        left.iter().all(|&index| !old_ids.contains(&cluster.node(index))),
        "recovered members must have new ids"
    );
    an_old_voter_that_hung_is_refused(&mut cluster, lost[1]).await;

    healed(&cluster).await;
    files.verify(&cluster).await;
    holders_are_members(&cluster).await;
    assert_eq!(cluster.all_results(job, QUERIES).await, rows);
    let late = Expected::small("late", 50..60);
    late.put(&cluster).await;
    late.verify(&cluster).await;
    let again = cluster.add_job(MODEL, "inputs", 8).await;
    cluster.start_job(again).await;
    cluster.finished(again, JOB_LIMIT).await;
    assert_eq!(cluster.all_results(again, QUERIES).await, rows);

    an_old_voter_is_refused(&mut cluster, lost[0]).await;
    files.verify(&cluster).await;
    late.verify(&cluster).await;
}

/// Waits until every blob has four copies at members that are up.
async fn healed(cluster: &LocalCluster) {
    cluster
        .eventually("every blob has four copies", JOB_LIMIT, async || {
            let store = cluster.view().await?.store;
            let whole = (store.under_replicated, store.unavailable, store.copying) == (0, 0, 0);
            if whole { Ok(()) } else { Err(format!("{store:?}")) }
        })
        .await;
}

/// No id of the lost cluster is listed as a holder.
async fn holders_are_members(cluster: &LocalCluster) {
    let members: Vec<_> = cluster.up().into_iter().map(|index| cluster.node(index)).collect();
    let all = ControlRequest::List { prefix: String::new(), after: None, limit: 100 };
    let Ok(ControlReply::Files { files, .. }) = cluster.client().control(all).await else {
        cluster.fail("no list of files")
    };
    // An empty file has no blob.
    for file in files.into_iter().filter(|file| file.size > 0) {
        let (name, holders) = (file.name, file.holders);
        assert_eq!(holders.len(), 4, "{name} has the holders {holders:?}");
        assert!(holders.iter().all(|holder| members.contains(holder)), "{name} has the holders {holders:?}");
    }
}

/// Waits until an old voter logs that it was refused, with the remedy.
async fn refused_with_advice(cluster: &LocalCluster, old: usize, by: &str) {
    logged(cluster, old, by, "recover --forget-log").await;
}

/// Waits until a member's log has a line with both.
pub(crate) async fn logged(cluster: &LocalCluster, member: usize, by: &str, what: &str) {
    cluster
        .eventually("the member logs the refusal and the remedy", SOON, async || {
            let log = cluster.members[member].log();
            let is_logged = log.lines().any(|line| line.contains(by) && line.contains(what));
            if is_logged { Ok(()) } else { Err(format!("'{by}' with '{what}' is not in its log")) }
        })
        .await;
}

/// A voter thought lost resumes, with the old membership list in memory.
async fn an_old_voter_that_hung_is_refused(cluster: &mut LocalCluster, old: usize) {
    let before = cluster.coordinator().await;
    let good: Vec<usize> = cluster.up().into_iter().filter(|&index| index != old).collect();
    cluster.members[old].signal(Signal::CONT);
    refused_with_advice(cluster, old, "not introduced").await;
    assert_eq!(cluster.who_coordinates(&cluster.up()).await, [before], "the old voter caused an election");
    cluster.ready_with(&good).await;
    cluster.kill(&[old]);
}

/// An old voter returns with all its data: it is refused with the remedy, changes nothing, and rejoins once that is done.
async fn an_old_voter_is_refused(cluster: &mut LocalCluster, old: usize) {
    let (good, before) = (cluster.up(), cluster.coordinator().await);
    std::fs::rename(cluster.path().join("kept"), &cluster.members[old].data_dir).unwrap();
    cluster.restart(&[old]).await;
    refused_with_advice(cluster, old, "not introduced").await;
    refused_with_advice(cluster, old, "refused").await;
    assert_eq!(cluster.who_coordinates(&cluster.up()).await, [before], "the old voter caused an election");
    cluster.ready_with(&good).await;

    cluster.kill(&[old]);
    println!("{}", recover(&cluster.members[old].data_dir, &["--forget-log", "--yes"]).unwrap());
    cluster.restart(&[old]).await;
    cluster.ready().await;
    assert_eq!(cluster.coordinator().await, before);
}
