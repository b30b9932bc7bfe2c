//! What an operator of a cluster that runs for months relies on: its logs, and what they tell of who did what.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::Duration;

use idunno_shared::client::cluster::Cluster;
use idunno_shared::client::files::{Files, NoProgress, PutOptions};
use idunno_shared::client::transport::TcpConnector;
use idunno_shared::ids::OpId;
use idunno_shared::security::secret::Secret;
use idunno_shared::security::{Credentials, Role};
use idunno_shared::wire::control::{Change, ControlReply, ControlRequest, LogSearch};
use idunno_shared::wire::jobs::Policy;
use rustix::process::Signal;
use time::OffsetDateTime;

use crate::harness::{Expected, LocalCluster, SOON, light, name};

const DAY: Duration = Duration::from_secs(24 * 3_600);

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_room_for_the_log_stops_nobody() {
    let _turn = light().await;
    let mut cluster = LocalCluster::launch(0, false).await;
    let introducer = cluster.introducer.address();
    let mut member = cluster.new_member("m1", introducer, false);
    let logs = member.data_dir.join("logs");
    fs::create_dir_all(&logs).unwrap();
    for day in [OffsetDateTime::now_utc(), OffsetDateTime::now_utc() + DAY] {
        symlink("/dev/full", logs.join(format!("idunnod.{}", day.date()))).unwrap();
    }
    member.spawn();
    member.started().await;
    cluster.members.push(member);
    cluster.ready().await;
    let kept = Expected::small("kept", 0..20);
    kept.put(&cluster).await;
    kept.verify(&cluster).await;
    cluster.members[0].signal(Signal::TERM);
    assert!(cluster.members[0].ended(SOON).await.success());
    // What the journal of a service manager gets.
    let told = cluster.members[0].errors();
    for word in ["ready", "the log cannot be written", "asked to stop", "stopped"] {
        assert_eq!(told.matches(word).count(), 1, "'{word}' is not once in: {told}");
    }
}

/// The lines of a member's log that have this in them, as `idunno logs --grep` finds them.
async fn grep(cluster: &LocalCluster, index: usize, pattern: &str) -> Vec<String> {
    let search = LogSearch { pattern: Some(pattern.to_owned()), ..LogSearch::default() };
    let request = ControlRequest::SearchLog(search);
    match cluster.client().ask_member(cluster.members[index].address(), request).await {
        Ok(ControlReply::FoundLog(found)) => {
            String::from_utf8(found.lines).unwrap().lines().map(String::from).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// The one audit line that has this in it; log lines are written a moment later than the answer.
async fn audited(cluster: &LocalCluster, index: usize, pattern: &str) -> String {
    let is_told = async || match &grep(cluster, index, &format!("audit: .*{pattern}")).await[..] {
        [line] => Ok(line.clone()),
        lines => Err(format!("{} lines: {lines:?}", lines.len())),
    };
    cluster.eventually(&format!("there is one audit line with {pattern}"), SOON, is_told).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_told_once_by_who_decides_it_and_followed_by_its_id() {
    let _turn = light().await;
    let cluster = LocalCluster::start_with(3, &["--log", "info,idunno_daemon=debug"]).await;
    let coordinator = cluster.coordinator().await.0;
    let (secret, anna) = (Secret::load(&cluster.secret()).unwrap(), "anna".parse().unwrap());
    let anna = secret.mint_lasting(Role::Operator, Some(&anna), DAY).unwrap();
    let door = Arc::new(TcpConnector::new(Credentials::of(&anna).unwrap()));
    let client = Cluster::new(door, cluster.addresses());

    // A command that fails names its operation.
    let failed = client.change(Change::Delete { name: name("nothing") }).await.unwrap_err().to_string();
    let op = failed.split_once("logs --grep ").unwrap().1.trim_end_matches(['\'', ')']).to_owned();
    assert_eq!(op.len(), 16, "{failed}");
    let line = audited(&cluster, coordinator, &op).await;
    for part in ["by=operator anna at 127.0.0.1:", "asked=delete nothing", "refused: ", "took="] {
        assert!(line.contains(part), "'{part}' is not in: {line}");
    }
    for other in (0..3).filter(|index| *index != coordinator) {
        assert_eq!(grep(&cluster, other, &format!("audit: .*{op}")).await, [""; 0], "it did not decide");
    }

    // Asked once more, as by a client that has not heard, it is not told once more.
    let policy = || ControlRequest::Change { op: OpId(0xabc, 1), change: Change::SetPolicy(Policy::Time) };
    for _ in 0..3 {
        client.control(policy()).await.unwrap();
    }
    let line = audited(&cluster, coordinator, &OpId(0xabc, 1).to_string()).await;
    assert!(line.contains("audit: done") && line.contains("asked=set-policy Time"), "{line}");

    // A put: from the audit to the voters by the operation, to the holders by the upload.
    let kept = Expected::small("kept", 1..2);
    let files = Files::new(client.clone());
    files.put_files(kept.write_local(&cluster), PutOptions::default(), &NoProgress).await.unwrap();
    let line = audited(&cluster, coordinator, "operator anna.*asked=put").await;
    let op = line.split_once("op=").unwrap().1.split(' ').next().unwrap();
    let upload = line.split_once("put (").unwrap().1.split(',').next().unwrap();
    assert!(upload.starts_with("upload-"), "{line}");
    for index in 0..3 {
        let is_told = async || {
            let applied = grep(&cluster, index, &format!("{op}.*applied|applied.*{op}")).await.len();
            let stored = grep(&cluster, index, &format!("receiving a blob.*{upload} ")).await.len();
            if (applied, stored) == (1, 1) { Ok(()) } else { Err(format!("{applied} and {stored}")) }
        };
        cluster.eventually("each member tells of the put, under its ids", SOON, is_told).await;
    }

    // What a member decides itself.
    let leaver = (coordinator + 1) % 3;
    client.ask_member(cluster.members[leaver].address(), ControlRequest::Leave).await.unwrap();
    let line = audited(&cluster, leaver, "operator anna.*asked=leave").await;
    assert!(line.contains("audit: done") && line.contains("op="), "{line}");
}
