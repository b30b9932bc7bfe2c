//! A power cut that loses everything not flushed to disk.

use std::time::Duration;

use idunno_shared::client::files::{Files, NoProgress, PutItem, PutOptions};
use idunno_shared::ids::Digest;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::harness::disk::{Disk, NoWriteBack, unavailable};
use crate::harness::{
    Daemon, Expected, LocalCluster, SOON, check_copies, content, dataset, heavy, put_dataset,
};

const MEMBERS: usize = 3;
const CUTS: u64 = 2;
const QUERIES: u64 = 1500;

/// Puts batches until the cluster is down or the receiver is dropped; sends each acknowledged batch.
fn keep_putting(
    files: Files,
    batches: Vec<(Expected, Vec<PutItem>)>,
) -> (mpsc::UnboundedReceiver<Expected>, JoinHandle<()>) {
    let (acknowledge, acknowledged) = mpsc::unbounded_channel();
    let putting = tokio::spawn(async move {
        for (batch, items) in batches {
            let Ok(report) = files.put_files(items, PutOptions::default(), &NoProgress).await else { return };
            if acknowledge.is_closed() {
                return;
            }
            // With fewer copies the others may have none.
            if report.copies_min as usize == MEMBERS {
                let _ = acknowledge.send(batch);
            }
        }
    });
    (acknowledged, putting)
}

fn batches(cluster: &LocalCluster, cut: u64) -> Vec<(Expected, Vec<PutItem>)> {
    let batch = |number: u64| {
        let first = number * 7;
        let mut batch = Expected::small(&format!("cut-{cut}"), first + 1..first + 8);
        if number % 10 == 3 {
            batch.add(&format!("cut-{cut}/large-{number}"), content(cut * 1_000_000 + number, 2_500_000));
        }
        let items = batch.write_local(cluster);
        (batch, items)
    };
    (0..200).map(batch).collect()
}

/// Checks that every member's disk has every byte, in place or waiting for its rename.
fn on_disks(members: &[Daemon], expected: &Expected) {
    for member in members {
        let incoming: Vec<_> =
            std::fs::read_dir(member.data_dir.join("incoming")).unwrap().flatten().collect();
        for (file, bytes) in &expected.0 {
            let digest = Digest::of(bytes).to_string();
            let in_place = member.data_dir.join("blobs").join(&digest[..2]).join(&digest[2..]);
            let about_to_be =
                incoming.iter().filter(|entry| entry.file_name().to_str().unwrap().starts_with(&digest));
            let mut paths = about_to_be.map(std::fs::DirEntry::path).chain([in_place]);
            let whole = paths.any(|path| std::fs::read(path).is_ok_and(|found| found == *bytes));
            assert!(whole, "{} has lost the acknowledged '{file}'", member.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_loses_no_acknowledged_file() {
    let _turn = heavy().await;
    if let Some(why) = unavailable() {
        println!("not run: {why}");
        return;
    }
    let _quiet = NoWriteBack::new();
    let mut cluster = LocalCluster::start_on_disks(MEMBERS, true).await;
    put_dataset(&cluster, &dataset("digits", QUERIES).await, "digits").await;
    cluster.train(&["mnist-mlp"]).await;
    let (mut expected, mut jobs, all) = (Expected::default(), Vec::new(), cluster.up());
    for cut in 0..CUTS {
        // Made first: the job lasts no longer than they take to make.
        let batches = batches(&cluster, cut);
        let job = cluster.add_job("mnist-mlp", "digits", 2).await;
        assert_eq!(cluster.start_job(job).await, QUERIES);
        jobs.push(job);
        let (mut acknowledged, _) = keep_putting(cluster.files(), batches);
        let before = cluster.midway(job, 1).await;
        for _ in 0..3 {
            let Some(batch) = acknowledged.recv().await else { cluster.fail("the puts ended by themselves") };
            expected.0.extend(batch.0);
        }
        cluster.kill(&all);
        cluster.disks.iter().for_each(Disk::cut);
        // What was acknowledged by the instant of the cut.
        while let Some(batch) = acknowledged.recv().await {
            expected.0.extend(batch.0);
        }
        on_disks(&cluster.members, &expected);
        cluster.restart(&all).await;
        cluster.ready().await;
        expected.verify(&cluster).await;
        let after = cluster.job(job).await.unwrap();
        assert!(after.done >= before.done, "answers were lost: {} then {}", before.done, after.done);
        println!("cut {cut}: {} files acknowledged, {} answers", expected.0.len(), after.done);
    }
    for job in jobs {
        let end = cluster.finished(job, Duration::from_secs(60)).await;
        assert_eq!((end.done, end.dead), (QUERIES, 0), "{end:?}");
        cluster.all_results(job, QUERIES).await;
    }
}

/// Crash points, and the pass at which the member crashes. Each put passes those of blobs, each commit those of the log.
const CRASHES: [&str; 5] =
    ["blob-written:4", "blob-flushed:4", "blob-in-place:25", "log-written:20", "log-flushed:20"];

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_loses_power_at_any_step_keeps_what_it_acknowledged() {
    let _turn = heavy().await;
    if let Some(why) = unavailable() {
        println!("not run: {why}");
        return;
    }
    let _quiet = NoWriteBack::new();
    let mut cluster = LocalCluster::start_on_disks(MEMBERS, false).await;
    let mut expected = Expected::default();
    for (cut, crash) in (0..).zip(CRASHES) {
        let victim = MEMBERS - 1;
        cluster.kill(&[victim]);
        cluster.members[victim].crash_at = Some(crash.to_owned());
        cluster.restart(&[victim]).await;
        cluster.ready().await;
        let (mut acknowledged, putting) = keep_putting(cluster.files(), batches(&cluster, cut));
        let status = cluster.members[victim].ended(SOON).await;
        assert!(!status.success(), "{crash}: {status}");
        cluster.disks[victim].cut();
        // What has all its copies was acknowledged before the crash.
        let mut kept = Expected::default();
        while let Ok(batch) = acknowledged.try_recv() {
            kept.0.extend(batch.0);
        }
        on_disks(&cluster.members[victim..], &kept);
        acknowledged.close();
        putting.await.unwrap();
        expected.0.extend(kept.0);
        cluster.members[victim].crash_at = None;
        cluster.restart(&[victim]).await;
        cluster.ready().await;
        expected.verify(&cluster).await;
        cluster
            .eventually(
                "all copies are back, so that none are made while it waits to crash",
                SOON,
                async || {
                    let store = cluster.view().await?.store;
                    if store.under_replicated + store.copying > 0 {
                        return Err(format!("{store:?}"));
                    }
                    check_copies(&cluster, &expected.located(&cluster).await?, MEMBERS)
                },
            )
            .await;
        println!("{crash}: {} files acknowledged so far", expected.0.len());
    }
    assert!(!expected.0.is_empty());
}
