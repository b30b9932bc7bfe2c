//! What an operator of a cluster that runs for months relies on: its logs.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use rustix::process::Signal;
use time::OffsetDateTime;

use crate::harness::{Expected, LocalCluster, SOON, light};

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
