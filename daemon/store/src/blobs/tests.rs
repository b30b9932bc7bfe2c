//! The store alone: order of flush and rename, recovery, pins, disk faults.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc as std_mpsc;

use tempfile::TempDir;

use super::testing::{DiskCall, TestDisk};
use super::*;

fn blob_of(bytes: &[u8]) -> BlobRef {
    BlobRef { digest: Digest::of(bytes), size: bytes.len() as u64 }
}

fn upload(number: u64) -> UploadId {
    UploadId { term: Term(1), number }
}

async fn put(store: &BlobStore, upload: Option<UploadId>, bytes: &[u8]) -> Result<BlobRef, StoreError> {
    let blob = blob_of(bytes);
    store.start_put(blob, upload, Bytes::copy_from_slice(bytes)).await?.done().await.map(|()| blob)
}

async fn put_large(store: &BlobStore, blob: BlobRef, bytes: &[u8]) -> Result<(), StoreError> {
    let stream = store.stream_put(blob, None);
    for chunk in bytes.chunks(700_001) {
        stream.send(Bytes::copy_from_slice(chunk)).await;
    }
    stream.done().await
}

fn order(term: u64, number: u64) -> OrderNumber {
    OrderNumber { term: Term(term), number }
}

fn count(directory: &TempDir, name: &str) -> usize {
    fs::read_dir(directory.path().join(name)).unwrap().count()
}

#[tokio::test]
async fn stored_blobs_survive_a_restart() {
    let directory = TempDir::new().unwrap();
    let store = BlobStore::open(directory.path(), 0).unwrap();
    let mut blobs = Vec::new();
    for length in [0, 1, 20_000, 1 << 20] {
        blobs.push(put(&store, None, &vec![7; length]).await.unwrap());
    }
    let large: Vec<u8> = (0..3_000_123_u32).map(|n| (n % 251) as u8).collect();
    put_large(&store, blob_of(&large), &large).await.unwrap();
    blobs.push(blob_of(&large));
    drop(store);
    let store = BlobStore::open(directory.path(), 0).unwrap();
    for blob in &blobs {
        assert_eq!(blob_of(&store.read(blob.digest).unwrap()), *blob);
    }
    assert_eq!(store.totals(), (5, blobs.iter().map(|blob| blob.size).sum()));
    assert_eq!(count(&directory, "incoming"), 0);
    let (first, more) = store.inventory(order(1, 0), None, 3).unwrap();
    let (rest, end) = store.inventory(order(1, 0), first.last().copied(), 3).unwrap();
    assert_eq!((first.len(), more, rest.len(), end), (3, true, 2, false));
    assert!(first.iter().chain(&rest).is_sorted());
    store.shared.index().check();
}

#[tokio::test]
async fn queued_blobs_share_one_flush_and_are_renamed_after_it() {
    let directory = TempDir::new().unwrap();
    let disk = TestDisk::default();
    let store = BlobStore::open_on(directory.path(), 0, disk.watched()).unwrap();
    let (entered, reached) = std_mpsc::channel();
    *disk.0.entered.lock().unwrap() = Some(entered);
    disk.0.close_gate();
    let bytes = |n: usize| n.to_string().into_bytes();
    let start = async |n: usize| store.start_put(blob_of(&bytes(n)), None, bytes(n).into()).await.unwrap();
    let mut pending = vec![start(0).await];
    // The first is flushed alone; the others queue up meanwhile.
    reached.recv().unwrap();
    for n in 1..=GROUP_BLOBS_MAX {
        pending.push(start(n).await);
    }
    assert_eq!(store.totals().0, 0, "nothing is in place before it is flushed");
    disk.0.open_gate();
    for put in pending {
        put.done().await.unwrap();
    }
    assert_eq!(disk.0.file_flushes.load(Ordering::Relaxed), 2, "one file and its directory entry");
    assert_eq!(disk.0.system_flushes.load(Ordering::Relaxed), 1, "all others together");
    assert_eq!(store.totals().0, 1 + GROUP_BLOBS_MAX as u64);
}

#[tokio::test]
async fn start_up_recovers_complete_files_and_deletes_the_rest() {
    let directory = TempDir::new().unwrap();
    drop(BlobStore::open(directory.path(), 0).unwrap());
    let incoming = directory.path().join("incoming");
    let whole = blob_of(b"whole");
    fs::write(incoming.join(format!("{}.3", whole.digest)), b"whole").unwrap();
    fs::write(incoming.join(format!("{}.4", Digest::of(b"torn blob"))), b"torn").unwrap();
    fs::write(incoming.join("stray"), b"?").unwrap();
    fs::write(directory.path().join("blobs/00/not-a-blob"), b"?").unwrap();
    let store = BlobStore::open(directory.path(), 0).unwrap();
    assert_eq!(store.read(whole.digest).unwrap(), &b"whole"[..]);
    assert_eq!(store.totals(), (1, 5));
    assert_eq!(count(&directory, "incoming"), 0);
}

#[tokio::test]
async fn wrong_bytes_are_not_stored() {
    let directory = TempDir::new().unwrap();
    let store = BlobStore::open(directory.path(), 0).unwrap();
    let small = store.start_put(blob_of(b"right"), None, Bytes::from_static(b"wrong")).await.unwrap();
    assert!(matches!(small.done().await, Err(StoreError::Mismatch(_))));
    let bytes = vec![1; 2 << 20];
    let blob = blob_of(&bytes);
    for wrong in [&bytes[1..], &[&bytes[..], &[1]].concat(), &vec![2; 2 << 20]] {
        assert!(matches!(put_large(&store, blob, wrong).await, Err(StoreError::Mismatch(_))));
    }
    assert_eq!(store.totals(), (0, 0));
    assert_eq!(count(&directory, "incoming"), 0);
}

#[tokio::test]
async fn a_failed_flush_fails_the_blob_and_is_never_retried() {
    let directory = TempDir::new().unwrap();
    let disk = TestDisk::default();
    let store = BlobStore::open_on(directory.path(), 0, disk.watched()).unwrap();
    let before = put(&store, None, b"before").await.unwrap();
    disk.0.failing_flush.store(3, Ordering::Relaxed);
    assert!(matches!(put(&store, None, b"unlucky").await, Err(StoreError::Io { .. })));
    assert_eq!(disk.0.file_flushes.load(Ordering::Relaxed), 3);
    let later = put(&store, None, b"later").await;
    assert!(matches!(&later, Err(StoreError::Unhealthy(reason)) if reason.contains("injected")), "{later:?}");
    assert_eq!(store.usable_bytes(), 0, "the planner sees no space");
    assert!(matches!(put_large(&store, before, b"before").await, Err(StoreError::Unhealthy(_))));
    assert_eq!(count(&directory, "incoming"), 0);
    assert_eq!(store.read(before.digest).unwrap(), &b"before"[..], "reads continue");
}

#[tokio::test]
async fn a_full_disk_is_reported_and_leaves_no_files() {
    let directory = TempDir::new().unwrap();
    let disk = TestDisk::default();
    let store = BlobStore::open_on(directory.path(), 0, disk.watched()).unwrap();
    disk.0.full.store(true, Ordering::Relaxed);
    let large = vec![3; 2 << 20];
    assert!(matches!(put(&store, None, b"small").await, Err(StoreError::Full { .. })));
    assert!(matches!(put_large(&store, blob_of(&large), &large).await, Err(StoreError::Full { .. })));
    assert_eq!(count(&directory, "incoming"), 0);
    disk.0.full.store(false, Ordering::Relaxed);
    put(&store, None, b"small").await.unwrap();
    assert!(store.usable_bytes() > 0, "a full disk is not an unhealthy one");
}

#[tokio::test]
async fn collection_spares_blobs_of_open_uploads() {
    let directory = TempDir::new().unwrap();
    let store = BlobStore::open(directory.path(), 0).unwrap();
    let old = put(&store, Some(upload(1)), b"old").await.unwrap().digest;
    let young = put(&store, Some(upload(2)), b"young").await.unwrap().digest;
    // The second put finds the bytes stored and only moves the pin.
    let touched = put(&store, Some(upload(1)), b"touched").await.unwrap().digest;
    put(&store, Some(upload(3)), b"touched").await.unwrap();
    let absent = Digest::of(b"absent");
    let all = vec![old, young, touched, absent];
    assert_eq!(store.collect(order(1, 1), upload(2), all.clone()), Ok(vec![old, absent]));
    assert!(!store.contains(old) && store.contains(young) && store.contains(touched));
    store.observe_term(Term(4));
    let stale = StaleTerm { ordered: Term(3), seen: Term(4) };
    assert_eq!(store.collect(order(3, 1), upload(9), all.clone()), Err(stale));
    let newer = UploadId { term: Term(4), number: 1 };
    assert_eq!(store.collect(order(4, 1), newer, all.clone()), Ok(all));
    assert_eq!(store.totals(), (0, 0));
    store.shared.index().check();
}

#[tokio::test]
async fn an_inventory_voids_earlier_orders() {
    let directory = TempDir::new().unwrap();
    let store = BlobStore::open(directory.path(), 0).unwrap();
    let digest = put(&store, None, b"listed").await.unwrap().digest;
    assert_eq!(store.inventory(order(2, 7), None, 3), Ok((vec![digest], false)));
    assert_eq!(store.collect(order(2, 6), upload(9), vec![digest]), Ok(Vec::new()), "the order is void");
    let stale = StaleTerm { ordered: Term(1), seen: Term(2) };
    assert_eq!(store.inventory(order(1, 9), None, 3), Err(stale));
    // An inventory with a lower number restores no voided order.
    assert_eq!(store.inventory(order(2, 1), None, 3), Ok((vec![digest], false)));
    assert_eq!(store.collect(order(2, 6), upload(9), vec![digest]), Ok(Vec::new()));
    assert_eq!(store.collect(order(2, 7), upload(9), vec![digest]), Ok(vec![digest]));
    assert_eq!(
        store.collect(order(3, 1), upload(9), vec![digest]),
        Ok(vec![digest]),
        "numbers restart with the term"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_never_loses_to_a_collection_below_its_upload() {
    let directory = TempDir::new().unwrap();
    let store = BlobStore::open(directory.path(), 0).unwrap();
    let watermark = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let digest = Digest::of(b"contended");
    let collector = {
        let (store, watermark, stop) = (store.clone(), Arc::clone(&watermark), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut deleted = 0;
            while !stop.load(Ordering::Relaxed) {
                let below = upload(watermark.load(Ordering::SeqCst));
                let was_there = store.contains(digest);
                let gone = store.collect(order(1, 1), below, vec![digest]).unwrap();
                deleted += usize::from(was_there && !gone.is_empty());
            }
            deleted
        })
    };
    for round in 1..=100 {
        watermark.store(round, Ordering::SeqCst);
        put(&store, Some(upload(round)), b"contended").await.unwrap();
        assert!(store.read(digest).is_ok(), "round {round}");
        // The upload has ended: the blob may be collected.
        watermark.store(round + 1, Ordering::SeqCst);
        if round % 2 == 0 {
            while store.contains(digest) {
                tokio::task::yield_now().await;
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    assert!(collector.join().unwrap() >= 50);
}

#[tokio::test]
async fn a_damaged_blob_is_quarantined() {
    let directory = TempDir::new().unwrap();
    let store = BlobStore::open(directory.path(), 0).unwrap();
    let digest = put(&store, None, b"precious").await.unwrap().digest;
    fs::write(store.shared.layout.blob(digest), b"precioux").unwrap();
    assert!(matches!(store.read(digest), Err(StoreError::Corrupt(_))));
    assert!(matches!(store.read(digest), Err(StoreError::Missing(_))));
    assert_eq!((store.totals(), count(&directory, "corrupt")), ((0, 0), 1));
    put(&store, None, b"precious").await.unwrap();
    assert_eq!(store.read(digest).unwrap(), &b"precious"[..], "it can be stored again");
}

#[tokio::test]
async fn a_blob_that_was_damaged_while_the_member_was_down_is_never_read_as_whole() {
    let whole = [7; 10_000];
    let mut flipped = whole.to_vec();
    flipped[5_000] ^= 1;
    for damaged in [vec![0; whole.len()], Vec::new(), whole[..5_000].to_vec(), flipped] {
        let directory = TempDir::new().unwrap();
        let store = BlobStore::open(directory.path(), 0).unwrap();
        let digest = put(&store, None, &whole).await.unwrap().digest;
        let path = store.shared.layout.blob(digest);
        drop(store);
        fs::write(path, &damaged).unwrap();
        let store = BlobStore::open(directory.path(), 0).unwrap();
        assert!(matches!(store.read(digest), Err(StoreError::Corrupt(_))), "{} bytes", damaged.len());
        assert_eq!((store.totals(), store.damaged(), count(&directory, "corrupt")), ((0, 0), 1, 1));
    }
}

#[tokio::test]
async fn a_large_blob_that_was_damaged_is_never_read_as_whole() {
    let whole: Vec<u8> = (0..3_000_123_u32).map(|n| (n % 251) as u8).collect();
    let mut flipped = whole.clone();
    flipped[2_000_000] ^= 1;
    let longer = [&whole[..], b"x"].concat();
    for damaged in [Vec::new(), whole[..2 << 20].to_vec(), whole[..2_999_999].to_vec(), longer, flipped] {
        let directory = TempDir::new().unwrap();
        let store = BlobStore::open(directory.path(), 0).unwrap();
        put_large(&store, blob_of(&whole), &whole).await.unwrap();
        let digest = Digest::of(&whole);
        fs::write(store.shared.layout.blob(digest), &damaged).unwrap();
        assert!(matches!(store.read(digest), Err(StoreError::Corrupt(_))), "{} bytes", damaged.len());
        assert_eq!((store.damaged(), count(&directory, "corrupt")), (1, 1));
    }
}

#[tokio::test]
async fn a_group_whose_flush_fails_is_stored_nowhere() {
    let directory = TempDir::new().unwrap();
    let disk = TestDisk::default();
    let store = BlobStore::open_on(directory.path(), 0, disk.watched()).unwrap();
    let (entered, reached) = std_mpsc::channel();
    *disk.0.entered.lock().unwrap() = Some(entered);
    disk.0.close_gate();
    // The first blob's file and directory entry, then the group.
    disk.0.failing_flush.store(3, Ordering::Relaxed);
    let bytes = |n: usize| n.to_string().into_bytes();
    let start = async |n: usize| store.start_put(blob_of(&bytes(n)), None, bytes(n).into()).await.unwrap();
    let first = start(0).await;
    reached.recv().unwrap();
    let group = [start(1).await, start(2).await, start(3).await];
    disk.0.open_gate();
    first.done().await.unwrap();
    for put in group {
        assert!(matches!(put.done().await, Err(StoreError::Io { .. })));
    }
    assert_eq!(disk.0.system_flushes.load(Ordering::Relaxed), 1);
    assert_eq!((store.totals(), count(&directory, "incoming")), ((1, 1), 0));
}

#[tokio::test]
async fn a_large_blob_whose_flush_fails_is_stored_nowhere() {
    let directory = TempDir::new().unwrap();
    let disk = TestDisk::default();
    let store = BlobStore::open_on(directory.path(), 0, disk.watched()).unwrap();
    disk.0.failing_flush.store(1, Ordering::Relaxed);
    let large = vec![3; 2 << 20];
    assert!(matches!(put_large(&store, blob_of(&large), &large).await, Err(StoreError::Io { .. })));
    assert_eq!((store.totals(), count(&directory, "incoming")), ((0, 0), 0));
    assert!(matches!(put(&store, None, b"later").await, Err(StoreError::Unhealthy(_))));
}

#[tokio::test]
async fn a_failed_device_accepts_nothing_more() {
    let directory = TempDir::new().unwrap();
    let disk = TestDisk::default();
    let store = BlobStore::open_on(directory.path(), 0, disk.watched()).unwrap();
    disk.0.unwritable.store(true, Ordering::Relaxed);
    assert!(matches!(put(&store, None, b"unlucky").await, Err(StoreError::Io { .. })));
    disk.0.unwritable.store(false, Ordering::Relaxed);
    assert!(matches!(put(&store, None, b"later").await, Err(StoreError::Unhealthy(_))));
    assert_eq!(store.usable_bytes(), 0);
}

#[tokio::test]
async fn blobs_never_use_the_reserve() {
    let directory = TempDir::new().unwrap();
    let disk = TestDisk::default();
    let (mib, disk_bytes) = (1 << 20, 1 << 40);
    let store = BlobStore::open_on(directory.path(), 9 * mib, disk.watched()).unwrap();
    disk.0.used_bytes.store(disk_bytes - 10 * mib, Ordering::Relaxed);
    assert_eq!(store.usable_bytes(), mib);
    put(&store, None, b"fits").await.unwrap();
    let large = vec![3; 2 << 20];
    assert!(matches!(put_large(&store, blob_of(&large), &large).await, Err(StoreError::Full { .. })));
    disk.0.used_bytes.store(disk_bytes - 9 * mib, Ordering::Relaxed);
    assert!(matches!(put(&store, None, b"does not").await, Err(StoreError::Full { .. })));
    put(&store, None, b"fits").await.unwrap();
    assert_eq!((store.usable_bytes(), count(&directory, "incoming")), (0, 0));
}

#[tokio::test]
async fn stored_blobs_are_verified_before_a_repeated_put_is_acknowledged() {
    let directory = TempDir::new().unwrap();
    let store = BlobStore::open(directory.path(), 0).unwrap();
    let large: Vec<u8> = (0..3_000_123_u32).map(|n| (n % 251) as u8).collect();
    let small = put(&store, Some(upload(7)), b"precious").await.unwrap().digest;
    put_large(&store, blob_of(&large), &large).await.unwrap();
    for digest in [small, Digest::of(&large)] {
        let path = store.shared.layout.blob(digest);
        let mut bytes = fs::read(&path).unwrap();
        bytes[3] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    put(&store, None, b"precious").await.unwrap();
    put_large(&store, blob_of(&large), &large).await.unwrap();
    assert_eq!((store.damaged(), count(&directory, "corrupt")), (2, 2));
    assert_eq!(store.read(small).unwrap(), &b"precious"[..]);
    assert_eq!(store.check(Digest::of(&large)).unwrap(), large.len() as u64);
    // The pin of the damaged copy protects the new one.
    assert_eq!(store.collect(order(1, 1), upload(7), vec![small]), Ok(vec![]));
}

#[tokio::test]
async fn checks_find_damaged_unreadable_and_missing_blobs() {
    let directory = TempDir::new().unwrap();
    let disk = TestDisk::default();
    let store = BlobStore::open_on(directory.path(), 0, disk.watched()).unwrap();
    let whole = put(&store, None, b"whole").await.unwrap();
    assert_eq!(store.check(whole.digest).unwrap(), whole.size);
    let cut = put(&store, None, &[5; 9_000]).await.unwrap().digest;
    File::options().write(true).open(store.shared.layout.blob(cut)).unwrap().set_len(8_192).unwrap();
    assert!(matches!(store.check(cut), Err(StoreError::Corrupt(_))));
    let gone = put(&store, None, b"gone").await.unwrap().digest;
    fs::remove_file(store.shared.layout.blob(gone)).unwrap();
    assert!(matches!(store.check(gone), Err(StoreError::Missing(_))));
    disk.0.unreadable.store(true, Ordering::Relaxed);
    assert!(matches!(store.check(whole.digest), Err(StoreError::Corrupt(_))));
    assert_eq!((store.damaged(), store.totals()), (3, (0, 0)));
}

#[tokio::test]
async fn start_up_trusts_only_the_disk() {
    let directory = TempDir::new().unwrap();
    drop(BlobStore::open(directory.path(), 0).unwrap());
    let whole = blob_of(b"whole");
    fs::write(directory.path().join("incoming").join(format!("{}.3", whole.digest)), b"whole").unwrap();
    let disk = TestDisk::default();
    disk.0.unreadable.store(true, Ordering::Relaxed);
    let store = BlobStore::open_on(directory.path(), 0, disk.watched()).unwrap();
    assert_eq!((store.totals(), count(&directory, "incoming")), ((0, 0), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_of_the_disk_is_waited_for_with_the_index_locked() {
    for call in DiskCall::ALL {
        let directory = TempDir::new().unwrap();
        let disk = TestDisk::default();
        let store = BlobStore::open_on(directory.path(), 0, disk.watched()).unwrap();
        let kept = put(&store, None, b"kept").await.unwrap();
        let doomed = put(&store, None, b"doomed").await.unwrap().digest;
        let damaged = put(&store, None, b"damaged").await.unwrap().digest;
        fs::write(store.shared.layout.blob(damaged), b"DAMAGED").unwrap();
        disk.0.hang(call);
        // Everything the store does to its disk.
        let large = vec![3; 2 << 20];
        let put_more = store.start_put(blob_of(b"more"), None, Bytes::from_static(b"more")).await.unwrap();
        let stream = store.stream_put(blob_of(&large), None);
        stream.send(large.into()).await;
        let stream = tokio::spawn(stream.done());
        let other = store.clone();
        let blocking = std::thread::spawn(move || {
            let _ = other.check(damaged);
            let _ = other.collect(order(1, 1), upload(1), vec![doomed]);
            let _ = other.usable_bytes();
            let _ = other.read(kept.digest);
        });
        disk.0.until_hung(call);
        // What async tasks ask for meanwhile.
        let (answer, answered) = std_mpsc::channel();
        let asked = store.clone();
        std::thread::spawn(move || answer.send(asked.size(kept.digest)));
        let size = answered.recv_timeout(Duration::from_secs(20));
        assert_eq!(size, Ok(Some(kept.size)), "{call:?} hangs under the index");
        disk.0.release();
        put_more.done().await.unwrap();
        stream.await.unwrap().unwrap();
        blocking.join().unwrap();
        assert_eq!((store.contains(doomed), store.contains(damaged), store.totals().0), (false, false, 3));
        store.shared.index().check();
    }
}

#[tokio::test]
async fn a_disk_that_hangs_takes_nothing_and_offers_no_space_until_it_answers() {
    let directory = TempDir::new().unwrap();
    let disk = TestDisk::default();
    let watched = WatchedDisk::new(Box::new(disk.clone()), Duration::ZERO);
    let store = BlobStore::open_on(directory.path(), 0, watched).unwrap();
    assert!(store.usable_bytes() > 0 && store.hung_for().is_none());
    let waiting = store.start_put(blob_of(b"waits"), None, Bytes::from_static(b"waits"));
    disk.0.hang(DiskCall::Sync);
    let waiting = waiting.await.unwrap();
    disk.0.until_hung(DiskCall::Sync);
    assert!(store.hung_for().is_some());
    // It is told without asking the disk.
    assert_eq!(store.usable_bytes(), 0);
    let refused = store.start_put(blob_of(b"later"), None, Bytes::from_static(b"later")).await;
    assert!(matches!(refused, Err(StoreError::Hung { .. })));
    let stream = store.stream_put(blob_of(&vec![1; 2 << 20]), None);
    assert!(matches!(stream.done().await, Err(StoreError::Hung { .. })));
    disk.0.release();
    waiting.done().await.unwrap();
    put(&store, None, b"later").await.unwrap();
    assert!(store.usable_bytes() > 0);
}

#[tokio::test]
async fn a_blob_that_cannot_be_deleted_stays_in_the_index() {
    let directory = TempDir::new().unwrap();
    let disk = TestDisk::default();
    let store = BlobStore::open_on(directory.path(), 0, disk.watched()).unwrap();
    let blob = put(&store, None, b"stays").await.unwrap();
    disk.0.fail(DiskCall::Remove);
    assert_eq!(store.collect(order(1, 1), upload(1), vec![blob.digest]), Ok(vec![]));
    assert_eq!((store.size(blob.digest), store.totals()), (Some(blob.size), (1, blob.size)));
    disk.0.release();
    assert_eq!(store.collect(order(1, 2), upload(1), vec![blob.digest]), Ok(vec![blob.digest]));
}
