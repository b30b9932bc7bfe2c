//! Recipes by which others were broken, by their names: those of Jepsen's analysis of NATS 2.12.1 (power cut of all members;
//! single bits flipped in the files of a minority, or these cut short; power cut of one member while another is paused) and
//! Tarantool's remount-ro. Each time nothing that was acknowledged may be lost, and the member with the damage names it or
//! stops voting. The power cut of all members is `power_cut::a_power_cut_loses_no_acknowledged_file`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use idunno_shared::ids::Digest;
use rustix::process::Signal;

use crate::harness::disk::{NoWriteBack, unavailable};
use crate::harness::{Expected, LocalCluster, SOON, check_copies, content, heavy};
use crate::recovery::recover;

/// The exit status for damaged data.
const DATA: i32 = 65;
const STORE: &str = "metadata.redb";

fn some_files(prefix: &str) -> Expected {
    let mut expected = Expected::small(prefix, 1..30);
    expected.add(&format!("{prefix}/large"), content(7, 3_000_000));
    expected
}

/// All blobs of a member. Their names are their digests.
fn blobs(data_dir: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(data_dir.join("blobs")).unwrap().map(|entry| entry.unwrap().path());
    folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path())).collect()
}

/// The digest that is a blob's name.
fn digest_of(blob: &Path) -> String {
    let folder = blob.parent().and_then(Path::file_name).unwrap();
    format!("{}{}", folder.to_str().unwrap(), blob.file_name().unwrap().to_str().unwrap())
}

/// What happens to a file.
#[derive(Clone, Copy)]
enum Damage {
    OneBitFlipped,
    Truncated,
}

impl Damage {
    fn inflict(self, file: &Path) {
        let mut bytes = fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        match self {
            Self::OneBitFlipped => bytes[middle] ^= 1,
            Self::Truncated => bytes.truncate(middle),
        }
        fs::write(file, bytes).unwrap();
    }
}

/// Waits until each file has four copies.
async fn four_copies(cluster: &LocalCluster, expected: &Expected) {
    cluster
        .eventually("every blob has four copies", SOON, async || {
            check_copies(cluster, &expected.located(cluster).await?, 4)
        })
        .await;
}

/// Starts members with damaged logs: each starts, or names the file, and then takes the way out.
async fn start_or_take_the_way_out(cluster: &mut LocalCluster, members: &[usize]) -> usize {
    let mut refused = 0;
    for &index in members {
        let member = &mut cluster.members[index];
        member.spawn();
        let Some(status) = member.started_or_ended().await else { continue };
        let errors = member.errors();
        assert_eq!(status.code(), Some(DATA), "{errors}");
        assert!(errors.contains(STORE) && errors.contains("recover --forget-log"), "{errors}");
        recover(&member.data_dir, &["--forget-log", "--yes"]).unwrap();
        refused += 1;
        cluster.restart(&[index]).await;
    }
    refused
}

/// Damages every blob and the log of two of five members, the coordinator among them. Returns how many logs were refused.
async fn damage_the_files_of_a_minority(damage: Damage) -> usize {
    let mut cluster = LocalCluster::start_with(5, &["--scrub-period-s", "2"]).await;
    let mut expected = some_files("before");
    expected.put(&cluster).await;
    let (coordinator, _) = cluster.coordinator().await;
    let minority = [coordinator, (coordinator + 2) % 5];
    cluster.kill(&minority);
    let damaged = minority.map(|index| blobs(&cluster.members[index].data_dir));
    damaged.iter().flatten().for_each(|blob| damage.inflict(blob));
    for index in minority {
        damage.inflict(&cluster.members[index].data_dir.join(STORE));
    }
    cluster.ready_with(&cluster.up()).await;
    let meanwhile = some_files("meanwhile");
    meanwhile.put(&cluster).await;
    expected.0.extend(meanwhile.0);
    expected.verify(&cluster).await;

    let refused = start_or_take_the_way_out(&mut cluster, &minority).await;
    cluster.ready().await;
    expected.verify(&cluster).await;
    for (index, damaged) in minority.into_iter().zip(&damaged) {
        cluster
            .eventually("each damaged blob is named, or deleted as a surplus copy", SOON, async || {
                let log = cluster.members[index].log();
                let is_settled = |blob: &&PathBuf| {
                    let digest = digest_of(blob);
                    let is_named = |line: &str| line.contains("a blob is damaged") && line.contains(&digest);
                    let is_whole = |bytes: Vec<u8>| Digest::of(&bytes).to_string() == digest;
                    log.lines().any(is_named) || fs::read(blob).ok().is_none_or(is_whole)
                };
                let left = damaged.iter().filter(|blob| !is_settled(blob)).count();
                if left == 0 { Ok(()) } else { Err(format!("{left} of {} are not", damaged.len())) }
            })
            .await;
    }
    four_copies(&cluster, &expected).await;
    expected.verify(&cluster).await;
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn jepsen_nats_one_flipped_bit_in_each_file_of_a_minority() {
    let _turn = heavy().await;
    // Most pages of a log are free: a bit in one of those costs nothing.
    let refused = damage_the_files_of_a_minority(Damage::OneBitFlipped).await;
    println!("{refused} of 2 logs were refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn jepsen_nats_truncated_files_of_a_minority() {
    let _turn = heavy().await;
    assert_eq!(
        damage_the_files_of_a_minority(Damage::Truncated).await,
        2,
        "a log that lacks its end is refused"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn jepsen_nats_power_cut_of_one_member_while_another_is_paused() {
    let _turn = heavy().await;
    if let Some(why) = unavailable() {
        println!("NOT RUN: {why}");
        return;
    }
    let _quiet = NoWriteBack::new();
    let mut cluster = LocalCluster::start_on_disks(3, false).await;
    let mut expected = some_files("before");
    expected.put(&cluster).await;
    for victim in 0..3 {
        // With the paused member the victim had the majority that acknowledged; with the third it has to keep it.
        let (paused, third) = ((victim + 1) % 3, (victim + 2) % 3);
        cluster.members[paused].signal(Signal::STOP);
        cluster.kill(&[victim]);
        cluster.disks[victim].cut();
        cluster.restart(&[victim]).await;
        cluster
            .eventually("the victim and the third have a coordinator", SOON, async || {
                let found = cluster.who_coordinates(&[victim, third]).await;
                if found.len() == 1 { Ok(()) } else { Err(format!("{found:?}")) }
            })
            .await;
        let meanwhile = some_files(&format!("meanwhile-{victim}"));
        meanwhile.put(&cluster).await;
        expected.0.extend(meanwhile.0);
        expected.verify(&cluster).await;
        cluster.members[paused].signal(Signal::CONT);
        cluster.ready().await;
        cluster
            .eventually("three copies", SOON, async || {
                check_copies(&cluster, &expected.located(&cluster).await?, 3)
            })
            .await;
        expected.verify(&cluster).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tarantool_remount_ro_of_a_minority() {
    let _turn = heavy().await;
    if let Some(why) = unavailable() {
        println!("NOT RUN: {why}");
        return;
    }
    let mut cluster = LocalCluster::start_on_disks(5, false).await;
    let mut expected = some_files("before");
    expected.put(&cluster).await;
    let (coordinator, term) = cluster.coordinator().await;
    let minority = [coordinator, (coordinator + 1) % 5];
    minority.iter().for_each(|&index| cluster.disks[index].fail());
    let meanwhile = some_files("meanwhile");
    meanwhile.put(&cluster).await;
    expected.0.extend(meanwhile.0);
    assert!(cluster.coordinator().await.1 > term, "the old coordinator cannot write its log");
    for index in minority {
        // It cannot vote any more, so it ends. Its own log is on the same disk: standard error has the reason.
        let status = cluster.members[index].ended(Duration::from_secs(60)).await;
        assert_eq!(status.code(), Some(1), "{}", cluster.members[index].log_tail());
    }
    expected.verify(&cluster).await;
    minority.iter().for_each(|&index| cluster.disks[index].repair());
    cluster.restart(&minority).await;
    cluster.ready().await;
    four_copies(&cluster, &expected).await;
    expected.verify(&cluster).await;
}
