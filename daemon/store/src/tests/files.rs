//! The client's file operations against real holders and the fake coordinator.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use idunno_shared::client::files::connection::CHUNK_BYTES_MAX;
use idunno_shared::client::files::get::delimiter;
use idunno_shared::client::files::{
    Files, GetError, GetItem, NoProgress, Progress, PutError, PutItem, PutOptions,
};
use idunno_shared::ids::{Digest, NodeId};
use idunno_shared::names::FileName;
use tempfile::TempDir;
use tokio::time::timeout;

use super::{Fault, TestCluster, noise};
use crate::blobs::testing::{DiskCall, TestDisk};

fn name(text: &str) -> FileName {
    text.parse().unwrap()
}

fn item(directory: &TempDir, text: &str, bytes: &[u8]) -> PutItem {
    let path = directory.path().join(text.replace('/', "_"));
    fs::write(&path, bytes).unwrap();
    PutItem { name: name(text), path }
}

async fn put_one(files: &Files, item: &PutItem) -> idunno_shared::client::files::PutReport {
    files.put_files(vec![item.clone()], PutOptions::default(), &NoProgress).await.unwrap()
}

async fn get_bytes(files: &Files, text: &str, directory: &TempDir) -> Result<Vec<u8>, GetError> {
    let target = directory.path().join("got");
    files.get_file(&name(text), None, &target, &NoProgress).await?;
    Ok(fs::read(target).unwrap())
}

#[derive(Default)]
struct Counted(AtomicU64, AtomicU64);

impl Progress for Counted {
    fn bytes(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn file(&self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_all_sizes_round_trip() {
    let (cluster, local) = (TestCluster::new(5), TempDir::new().unwrap());
    let files = cluster.files();
    let sizes = [0, 1, 20_000, (64 << 20) + 5];
    let contents: Vec<Vec<u8>> = sizes.iter().map(|size| noise(*size, *size as u64)).collect();
    let items: Vec<PutItem> =
        contents.iter().enumerate().map(|(n, bytes)| item(&local, &format!("d/{n}"), bytes)).collect();
    let progress = Counted::default();
    let report = files.put_files(items, PutOptions::default(), &progress).await.unwrap();
    let total: u64 = sizes.iter().map(|size| *size as u64).sum();
    assert_eq!((report.files, report.bytes, report.skipped), (4, total, 0));
    assert_eq!((report.copies_min, report.copies_wanted), (4, 4));
    assert_eq!(report.versions, vec![Some(1); 4]);
    assert_eq!((progress.0.into_inner(), progress.1.into_inner()), (total, 4));
    for (n, bytes) in contents.iter().enumerate() {
        let version = cluster.coordinator.newest(&format!("d/{n}"));
        assert_eq!(
            (version.digest, version.extents.len()),
            (Digest::of(bytes), bytes.len().div_ceil(64 << 20))
        );
        assert!(get_bytes(&files, &format!("d/{n}"), &local).await.unwrap() == *bytes, "file {n}");
    }
    assert_eq!(cluster.coordinator.figures().2, 0, "the upload was ended");
    let leftovers = fs::read_dir(local.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains(".part"));
    assert_eq!(leftovers.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_files_are_batched_and_not_sent_twice() {
    let (cluster, local) = (TestCluster::new(4), TempDir::new().unwrap());
    let files = cluster.files();
    let items: Vec<PutItem> =
        (0..600_u64).map(|n| item(&local, &format!("set/{n:04}"), &noise(700, n))).collect();
    let report = files.put_files(items.clone(), PutOptions::default(), &NoProgress).await.unwrap();
    assert_eq!((report.files, report.copies_min), (600, 4));
    let (plans, commits, _) = cluster.coordinator.figures();
    assert!(commits <= 200, "{commits} commits for 600 files");
    // Only the changed file is sent again.
    fs::write(&items[7].path, b"changed").unwrap();
    let options = PutOptions { skip_unchanged: true, ..PutOptions::default() };
    let report = files.put_files(items.clone(), options, &NoProgress).await.unwrap();
    assert_eq!((report.files, report.skipped, report.versions[7]), (1, 599, Some(2)));
    assert_eq!(cluster.coordinator.figures().0, plans + 1);
    let out = TempDir::new().unwrap();
    let target = |item: &PutItem| out.path().join(item.path.file_name().unwrap());
    let gets = items.iter().map(|item| GetItem { name: item.name.clone(), target: target(item) }).collect();
    let got = files.get_files(gets, &NoProgress).await.unwrap();
    assert_eq!((got.files, got.bytes), (600, 599 * 700 + 7));
    assert!(items.iter().all(|item| fs::read(target(item)).unwrap() == fs::read(&item.path).unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_holder_is_replaced_and_missing_copies_are_reported() {
    let (cluster, local) = (TestCluster::new(5), TempDir::new().unwrap());
    let files = cluster.files();
    let bytes = noise(5 << 20, 1);
    let lost = usize::from(Digest::of(&bytes).0[0]) % 5;
    cluster.inject((lost + 1) % 5, Fault::CutTowards(1 << 20));
    let report = put_one(&files, &item(&local, "midway", &bytes)).await;
    assert_eq!((report.copies_min, report.copies_wanted), (4, 4));
    cluster.set_down(0, true);
    let report = put_one(&files, &item(&local, "down", &noise(1000, 2))).await;
    assert_eq!((report.copies_min, report.copies_wanted), (4, 4));
    cluster.set_down(1, true);
    let report = put_one(&files, &item(&local, "fewer", &noise(1000, 3))).await;
    assert_eq!((report.copies_min, report.copies_wanted), (3, 4), "copies 3 of 4");
    for number in 2..5 {
        cluster.set_down(number, true);
    }
    // A new client has no open connections.
    let files = cluster.files();
    let refused = files.put_files(vec![item(&local, "none", b"x")], PutOptions::default(), &NoProgress).await;
    assert!(matches!(refused, Err(PutError::NoHolder { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_has_ended_is_restarted() {
    let (cluster, local) = (TestCluster::new(4), TempDir::new().unwrap());
    let files = cluster.files();
    cluster.coordinator.end_uploads_at_commit(2);
    let one = item(&local, "one", b"one");
    let progress = Counted::default();
    let report = files.put_files(vec![one.clone()], PutOptions::default(), &progress).await.unwrap();
    assert_eq!((report.files, report.versions, progress.0.into_inner()), (1, vec![Some(1)], 3));
    cluster.coordinator.end_uploads_at_commit(100);
    let error = files.put_files(vec![one], PutOptions::default(), &NoProgress).await.unwrap_err();
    assert!(matches!(error, PutError::UploadOver { tries: 5 }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_in_flight_when_its_upload_ends_is_not_repeated() {
    let (cluster, local) = (TestCluster::new(4), TempDir::new().unwrap());
    let items: Vec<PutItem> = (0..40_u64).map(|n| item(&local, &format!("f/{n}"), &noise(700, n))).collect();
    cluster.coordinator.delay_the_next_commit();
    let options = PutOptions { in_flight: 4, ..PutOptions::default() };
    let report = cluster.files().put_files(items, options, &NoProgress).await.unwrap();
    assert_eq!((report.files, report.versions), (40, vec![Some(1); 40]), "each file has one version");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_get_continues_at_the_next_holder() {
    let (cluster, local) = (TestCluster::new(4), TempDir::new().unwrap());
    let bytes = noise(6 << 20, 9);
    put_one(&cluster.files(), &item(&local, "large", &bytes)).await;
    let digest = Digest::of(&bytes);
    let first = NodeId(2);
    // Disconnected mid-stream: only the rest is requested from the second holder.
    cluster.inject(1, Fault::CutFrom(2 << 20));
    assert!(get_bytes(&cluster.files().near(first), "large", &local).await.unwrap() == bytes);
    // Damaged on the first holder's disk and disconnected: the mixed bytes fail verification.
    assert!(cluster.damage(1, digest));
    cluster.inject(1, Fault::CutFrom(5 << 20));
    assert!(get_bytes(&cluster.files().near(first), "large", &local).await.unwrap() == bytes);
    // Damaged only: the blob is read from another holder, and reported to the first.
    assert!(get_bytes(&cluster.files().near(first), "large", &local).await.unwrap() == bytes);
    let reported = Instant::now();
    while cluster.store(1).contains(digest) {
        assert!(reported.elapsed() < Duration::from_secs(20), "the damaged copy is still there");
        tokio::task::yield_now().await;
    }
    let small = noise(20_000, 10);
    put_one(&cluster.files(), &item(&local, "small", &small)).await;
    assert!(cluster.damage(1, Digest::of(&small)));
    assert_eq!(get_bytes(&cluster.files().near(first), "small", &local).await.unwrap(), small);
    assert!(!cluster.store(1).contains(Digest::of(&small)), "the damaged copy was quarantined");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_get_names_extent_and_holders_and_keeps_the_target() {
    let (cluster, local) = (TestCluster::new(4), TempDir::new().unwrap());
    let files = cluster.files().patience(Duration::ZERO);
    put_one(&files, &item(&local, "f", b"content")).await;
    fs::write(local.path().join("got"), b"before").unwrap();
    let error = get_bytes(&files, "g", &local).await.unwrap_err();
    assert!(matches!(error, GetError::NotFound { .. }), "{error}");
    let error =
        files.get_file(&name("f"), Some(4), &local.path().join("got"), &NoProgress).await.unwrap_err();
    assert!(matches!(error, GetError::NoVersion { version: 4, .. }), "{error}");
    (0..4).for_each(|number| cluster.set_down(number, true));
    // A new client has no open connections.
    let text =
        get_bytes(&cluster.files().patience(Duration::ZERO), "f", &local).await.unwrap_err().to_string();
    assert!(text.contains("extent 1 of 1 of 'f' version 1") && text.contains("127.0.0.1:7003"), "{text}");
    assert_eq!(fs::read(local.path().join("got")).unwrap(), b"before");
    // The get succeeds as soon as a holder is back.
    let files = cluster.files();
    let get = get_bytes(&files, "f", &local);
    let back = async { cluster.set_down(2, false) };
    let (got, ()) = tokio::join!(get, back);
    assert_eq!(got.unwrap(), b"content");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_written_newest_first_under_delimiters() {
    let (cluster, local) = (TestCluster::new(4), TempDir::new().unwrap());
    let files = cluster.files();
    for content in ["one\n", "", "three"] {
        put_one(&files, &item(&local, "v", content.as_bytes())).await;
    }
    let target = local.path().join("versions");
    let versions = files.get_versions(&name("v"), 5, &target, &NoProgress).await.unwrap();
    assert_eq!(versions.iter().map(|version| version.version).collect::<Vec<_>>(), [3, 2, 1]);
    let text = fs::read_to_string(&target).unwrap();
    let lines: Vec<String> = versions.iter().map(delimiter).collect();
    assert_eq!(text, format!("{}three\n{}\n{}one\n\n", lines[0], lines[1], lines[2]));
    let digest = Digest::of(b"three");
    assert_eq!(
        lines[0],
        format!("==== v version 3 | 5 bytes | 2026-11-23T01:02:03Z | blake3 {digest} ====\n")
    );
}

#[tokio::test]
async fn unreadable_local_files_are_named() {
    let (cluster, local) = (TestCluster::new(1), TempDir::new().unwrap());
    let files = cluster.files();
    let missing = local.path().join("missing");
    for (path, words) in [(missing, "No such file"), (local.path().to_owned(), "it is a directory")] {
        let item = PutItem { name: name("x"), path: path.clone() };
        let error =
            files.put_files(vec![item], PutOptions::default(), &NoProgress).await.unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains(words), "{error}");
    }
    let good = item(&local, "x", b"x");
    files.put_files(vec![good], PutOptions::default(), &NoProgress).await.unwrap();
    let into: PathBuf = local.path().join("no/such/directory");
    let error = files.get_file(&name("x"), None, &into, &NoProgress).await.unwrap_err().to_string();
    assert!(error.contains("no/such/directory"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_in_memory_round_trip() {
    let cluster = TestCluster::new(7);
    let files = cluster.files().near(NodeId(3));
    let blobs: Vec<Bytes> = (0..300_u64).map(|seed| noise(300, seed).into()).collect();
    let stored = files.store_blobs(blobs.clone()).await.unwrap();
    assert_eq!((stored.blobs.len(), stored.copies_wanted), (300, 4));
    assert!(stored.blobs.iter().all(|placed| placed.holders.len() == 4));
    assert_eq!(cluster.coordinator.figures().2, 1, "one upload, open until it is ended");
    files.end_upload(stored.upload).await;
    assert_eq!(cluster.coordinator.figures().2, 0);
    let fetched = files.fetch_blobs(&stored.blobs).await;
    assert!(fetched.into_iter().map(Result::unwrap).eq(blobs));
}

/// Prints throughput; with `IDUNNO_MEASURE=1` on more data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throughput_of_a_chain_in_one_process() {
    let scale = if std::env::var_os("IDUNNO_MEASURE").is_some() { 8 } else { 1 };
    let (cluster, local) = (TestCluster::new(4), TempDir::new().unwrap());
    let files = cluster.files();
    let small: Vec<PutItem> =
        (0..1000 * scale).map(|n| item(&local, &format!("s/{n}"), &noise(20_000, n))).collect();
    let options = PutOptions { in_flight: 64, ..PutOptions::default() };
    let started = Instant::now();
    let count = small.len();
    let report = files.put_files(small, options, &NoProgress).await.unwrap();
    let rate = count as f64 / started.elapsed().as_secs_f64();
    assert_eq!(report.copies_min, 4);
    let length = (128 << 20) * usize::try_from(scale).unwrap();
    let large = item(&local, "l", &noise(length, 1));
    let started = Instant::now();
    put_one(&files, &large).await;
    let put = length as f64 / 1e6 / started.elapsed().as_secs_f64();
    let mut gets = Vec::new();
    for _ in 0..2 {
        let started = Instant::now();
        files.get_file(&name("l"), None, &local.path().join("out"), &NoProgress).await.unwrap();
        gets.push(length as f64 / 1e6 / started.elapsed().as_secs_f64());
    }
    println!("20 KB files, 64 in flight, 4 copies: {rate:.0}/s");
    println!("{length} bytes: put {put:.0} MB/s, get {:.0} MB/s, again {:.0} MB/s", gets[0], gets[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_does_not_plan_again_where_nobody_failed() {
    let (cluster, local) = (TestCluster::new(3), TempDir::new().unwrap());
    cluster.coordinator.set_full(vec![NodeId(2)]);
    let report = put_one(&cluster.files(), &item(&local, "roomy", &noise(1000, 1))).await;
    assert_eq!((report.copies_min, report.copies_wanted), (2, 3));
    assert_eq!(cluster.coordinator.figures().0, 1, "plans");
}

/// Two holders, and one whose disk hangs in a call.
fn with_a_hung_disk(call: DiskCall, disk_timeout: Duration) -> (Arc<TestCluster>, TestDisk) {
    let (cluster, disk) = (TestCluster::new(2), TestDisk::default());
    cluster.add_on(Box::new(disk.clone()), disk_timeout);
    cluster.coordinator.set_members(cluster.holders());
    disk.0.hang(call);
    (cluster, disk)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_whose_disk_hangs_is_waited_for_once_and_then_refuses_at_once() {
    let (cluster, disk) = with_a_hung_disk(DiskCall::Sync, Duration::from_millis(300));
    let local = TempDir::new().unwrap();
    for number in 1..=3 {
        let report = put_one(&cluster.files(), &item(&local, "file", &noise(1000, number))).await;
        assert_eq!((report.copies_min, report.copies_wanted), (2, 3));
    }
    // Only the first put reached the disk.
    assert_eq!(disk.0.file_flushes.load(Ordering::Relaxed), 0);
    disk.0.release();
    let done = cluster.store(2).clone();
    let limit = Instant::now() + Duration::from_secs(20);
    while done.totals().0 == 0 {
        assert!(Instant::now() < limit, "the first blob is stored after all");
        tokio::task::yield_now().await;
    }
    assert_eq!(done.totals().0, 1);
    let report = put_one(&cluster.files(), &item(&local, "file", &noise(1000, 9))).await;
    assert_eq!((report.copies_min, report.copies_wanted), (3, 3), "it takes blobs again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_put_passes_a_disk_that_hangs_while_it_is_written() {
    let (cluster, disk) = with_a_hung_disk(DiskCall::Write, Duration::from_millis(300));
    let local = TempDir::new().unwrap();
    let files = cluster.files();
    let large = item(&local, "large", &noise(9 * CHUNK_BYTES_MAX, 1));
    let put = timeout(Duration::from_secs(30), put_one(&files, &large));
    let report = put.await.expect("the put waits for the disk for ever");
    assert_eq!((report.copies_min, report.copies_wanted), (2, 3));
    disk.0.release();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_gives_up_after_its_time_limit_without_progress() {
    let (cluster, disk) = with_a_hung_disk(DiskCall::Sync, Duration::from_secs(3_600));
    let local = TempDir::new().unwrap();
    let files = cluster.files().put_limit(Duration::from_millis(500));
    let put =
        files.put_files(vec![item(&local, "file", &noise(1000, 1))], PutOptions::default(), &NoProgress);
    let error = put.await.unwrap_err();
    assert!(matches!(error, PutError::Stalled(_)), "{error}");
    disk.0.release();
    put_one(&files, &item(&local, "file", &noise(1000, 1))).await;
}
