//! Disks with corrupt blobs, full disks, and disks that fail.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use idunno_shared::client::files::{GetItem, NoProgress};
use idunno_shared::ids::Digest;

use crate::harness::disk::unavailable;
use crate::harness::{Expected, LocalCluster, SOON, check_copies, content, heavy, name};

impl LocalCluster {
    fn blob(&self, index: usize, digest: Digest) -> PathBuf {
        let digest = digest.to_string();
        self.members[index].data_dir.join("blobs").join(&digest[..2]).join(&digest[2..])
    }

    /// Flips one bit in every blob that a member holds; returns these blobs.
    async fn damage(&self, index: usize, expected: &Expected) -> Vec<Digest> {
        let located = expected.located(self).await.unwrap_or_else(|why| self.fail(&why));
        let extents = located.iter().flat_map(|version| &version.extents);
        let held = extents.filter(|placed| placed.holders.iter().any(|h| h.node == self.node(index)));
        let digests: Vec<Digest> = held.map(|placed| placed.blob.digest).collect();
        for &digest in &digests {
            let mut bytes = std::fs::read(self.blob(index, digest)).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
            std::fs::write(self.blob(index, digest), bytes).unwrap();
        }
        assert!(!digests.is_empty(), "{} holds nothing", self.members[index].name);
        digests
    }

    /// Waits until every blob has four copies and the member's copies of the given blobs are intact.
    async fn healed(&self, index: usize, expected: &Expected, damaged: &[Digest]) {
        self.eventually("the damaged copies are replaced", SOON, async || {
            check_copies(self, &expected.located(self).await?, 4)?;
            let is_bad = |digest: &&Digest| {
                std::fs::read(self.blob(index, **digest)).is_ok_and(|bytes| Digest::of(&bytes) != **digest)
            };
            let bad = damaged.iter().filter(is_bad).count();
            let aside = std::fs::read_dir(self.members[index].data_dir.join("corrupt")).unwrap().count();
            if (bad, aside) == (0, damaged.len()) {
                return Ok(());
            }
            Err(format!("{bad} of {} are damaged yet, {aside} moved aside", damaged.len()))
        })
        .await;
    }
}

fn some_files() -> Expected {
    let mut expected = Expected::small("small", 1..20);
    expected.add("large", content(5, 3_000_000));
    expected
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_copy_found_by_a_reader_is_replaced() {
    let _turn = heavy().await;
    let cluster = LocalCluster::start(5, false).await;
    let expected = some_files();
    expected.put(&cluster).await;
    let damaged = cluster.damage(0, &expected).await;
    let files = cluster.files().near(cluster.node(0));
    for (file, bytes) in &expected.0 {
        let target = cluster.scratch("got");
        let item = vec![GetItem { name: name(file), target: target.clone() }];
        let got = files.get_files(item, &NoProgress).await;
        got.unwrap_or_else(|error| cluster.fail(&format!("get '{file}': {error}")));
        assert!(std::fs::read(&target).unwrap() == *bytes, "'{file}' came back different");
    }
    cluster.healed(0, &expected, &damaged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scrubber_replaces_corrupt_copies_that_nobody_reads() {
    let _turn = heavy().await;
    let cluster = LocalCluster::start_with(5, &["--scrub-period-s", "2"]).await;
    let expected = some_files();
    expected.put(&cluster).await;
    let damaged = cluster.damage(3, &expected).await;
    cluster.healed(3, &expected, &damaged).await;
    expected.verify(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_receives_no_files_and_others_are_unaffected() {
    let _turn = heavy().await;
    let mut cluster = LocalCluster::start(4, false).await;
    // A disk with less free space than its reserve counts as full.
    let introducer = cluster.introducer.address();
    let full = cluster.new_member_with("full", introducer, &["--disk-reserve-mib", "1048576"]);
    cluster.members.push(full);
    cluster.restart(&[4]).await;
    cluster.ready().await;
    let mut expected = Expected::small("roomy", 1..60);
    expected.add("large", content(6, 3_000_000));
    assert_eq!(expected.put(&cluster).await.copies_min, 4);
    check_copies(&cluster, &expected.located(&cluster).await.unwrap(), 4)
        .unwrap_or_else(|why| cluster.fail(&why));
    for folder in std::fs::read_dir(cluster.members[4].data_dir.join("blobs")).unwrap() {
        assert_eq!(
            std::fs::read_dir(folder.unwrap().path()).unwrap().count(),
            0,
            "the full member took a blob"
        );
    }
    cluster
        .eventually("everybody can see that a disk is full", SOON, async || {
            let full = cluster.view().await?.store.full_disks;
            if full == 1 { Ok(()) } else { Err(format!("{full} are said to be full")) }
        })
        .await;
    // With one member fewer there are only three copies, and the put reports it.
    cluster.kill(&[0]);
    cluster.ready_with(&cluster.up()).await;
    let fewer = Expected::small("fewer", 1..5);
    let report = fewer.put(&cluster).await;
    assert_eq!((report.copies_min, report.copies_wanted), (3, 4), "copies 3 of 4");
    fewer.verify(&cluster).await;
    expected.verify(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_with_a_read_only_disk_is_replaced_and_rejoins_after_repair() {
    if let Some(why) = unavailable() {
        println!("NOT RUN: {why}");
        return;
    }
    let _turn = heavy().await;
    let mut cluster = LocalCluster::start_on_disks(5, false).await;
    let before = some_files();
    before.put(&cluster).await;
    let (old, term) = cluster.coordinator().await;
    cluster.disks[old].fail();
    let failed = Instant::now();
    let meanwhile = Expected::small("meanwhile", 100..110);
    assert_eq!(meanwhile.put(&cluster).await.copies_min, 4);
    println!("files were put {:?} after the disk failed", failed.elapsed());
    assert!(cluster.coordinator().await.1 > term);
    let status = cluster.members[old].ended(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(1), "{}", cluster.members[old].log_tail());
    before.verify(&cluster).await;

    cluster.disks[old].repair();
    cluster.restart(&[old]).await;
    cluster.ready().await;
    for files in [before, meanwhile] {
        cluster
            .eventually("four copies", SOON, async || {
                check_copies(&cluster, &files.located(&cluster).await?, 4)
            })
            .await;
        files.verify(&cluster).await;
    }
}
