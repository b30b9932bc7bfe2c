//! The store alone: durability in order, recovery, pins against collection, faults of the disk.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, mpsc as std_mpsc};

use tempfile::TempDir;

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

fn count(directory: &TempDir, name: &str) -> usize {
    fs::read_dir(directory.path().join(name)).unwrap().count()
}

/// A disk whose faults and flushes a test controls.
#[derive(Clone, Default)]
struct TestDisk(Arc<TestDiskState>);

#[derive(Default)]
struct TestDiskState {
    file_flushes: AtomicUsize,
    system_flushes: AtomicUsize,
    /// Whoever flushes must pass here, and says so first.
    gate_closed: Mutex<bool>,
    gate_opened: Condvar,
    entered: Mutex<Option<std_mpsc::Sender<()>>>,
    full: AtomicBool,
    broken: AtomicBool,
}

impl TestDiskState {
    fn flush(&self) -> io::Result<()> {
        if let Some(entered) = self.entered.lock().unwrap().take() {
            entered.send(()).unwrap();
        }
        let closed = self.gate_closed.lock().unwrap();
        drop(self.gate_opened.wait_while(closed, |closed| *closed).unwrap());
        // Only the first flush fails: a store that repeats it would take the second one's word.
        if self.broken.swap(false, Ordering::Relaxed) { Err(io::Error::other("injected")) } else { Ok(()) }
    }
}

impl Disk for TestDisk {
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        if self.0.full.load(Ordering::Relaxed) {
            RealDisk.write(file, &bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        RealDisk.write(file, bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.0.file_flushes.fetch_add(1, Ordering::Relaxed);
        self.0.flush()?;
        RealDisk.sync(file)
    }

    fn sync_file_system(&self, handle: &File) -> io::Result<()> {
        self.0.system_flushes.fetch_add(1, Ordering::Relaxed);
        self.0.flush()?;
        RealDisk.sync_file_system(handle)
    }
}

#[tokio::test]
async fn what_is_stored_is_there_after_a_restart() {
    let directory = TempDir::new().unwrap();
    let store = BlobStore::open(directory.path()).unwrap();
    let mut blobs = Vec::new();
    for length in [0, 1, 20_000, 1 << 20] {
        blobs.push(put(&store, None, &vec![7; length]).await.unwrap());
    }
    let large: Vec<u8> = (0..3_000_123_u32).map(|n| (n % 251) as u8).collect();
    put_large(&store, blob_of(&large), &large).await.unwrap();
    blobs.push(blob_of(&large));
    drop(store);
    let store = BlobStore::open(directory.path()).unwrap();
    for blob in &blobs {
        assert_eq!(blob_of(&store.read(blob.digest).unwrap()), *blob);
    }
    assert_eq!(store.totals(), (5, blobs.iter().map(|blob| blob.size).sum()));
    assert_eq!(count(&directory, "incoming"), 0);
    let (first, more) = store.inventory(None, 3);
    let (rest, end) = store.inventory(first.last().copied(), 3);
    assert_eq!((first.len(), more, rest.len(), end), (3, true, 2, false));
    assert!(first.iter().chain(&rest).is_sorted());
    store.shared.index().check();
}

#[tokio::test]
async fn blobs_that_queue_up_share_one_flush_and_are_renamed_behind_it() {
    let directory = TempDir::new().unwrap();
    let disk = TestDisk::default();
    let store = BlobStore::open_on(directory.path(), Box::new(disk.clone())).unwrap();
    let (entered, reached) = std_mpsc::channel();
    *disk.0.entered.lock().unwrap() = Some(entered);
    *disk.0.gate_closed.lock().unwrap() = true;
    let bytes = |n: usize| n.to_string().into_bytes();
    let start = async |n: usize| store.start_put(blob_of(&bytes(n)), None, bytes(n).into()).await.unwrap();
    let mut pending = vec![start(0).await];
    // The first is alone at its flush; the others queue up behind it.
    reached.recv().unwrap();
    for n in 1..=GROUP_BLOBS_MAX {
        pending.push(start(n).await);
    }
    assert_eq!(store.totals().0, 0, "nothing is in place before it is flushed");
    *disk.0.gate_closed.lock().unwrap() = false;
    disk.0.gate_opened.notify_all();
    for put in pending {
        put.done().await.unwrap();
    }
    assert_eq!(disk.0.file_flushes.load(Ordering::Relaxed), 2, "one file and its directory entry");
    assert_eq!(disk.0.system_flushes.load(Ordering::Relaxed), 1, "all others together");
    assert_eq!(store.totals().0, 1 + GROUP_BLOBS_MAX as u64);
}

#[tokio::test]
async fn start_up_finishes_what_was_flushed_and_drops_the_rest() {
    let directory = TempDir::new().unwrap();
    drop(BlobStore::open(directory.path()).unwrap());
    let incoming = directory.path().join("incoming");
    let whole = blob_of(b"whole");
    fs::write(incoming.join(format!("{}.3", whole.digest)), b"whole").unwrap();
    fs::write(incoming.join(format!("{}.4", Digest::of(b"torn blob"))), b"torn").unwrap();
    fs::write(incoming.join("stray"), b"?").unwrap();
    fs::write(directory.path().join("blobs/00/not-a-blob"), b"?").unwrap();
    let store = BlobStore::open(directory.path()).unwrap();
    assert_eq!(store.read(whole.digest).unwrap(), &b"whole"[..]);
    assert_eq!(store.totals(), (1, 5));
    assert_eq!(count(&directory, "incoming"), 0);
}

#[tokio::test]
async fn wrong_bytes_are_not_stored() {
    let directory = TempDir::new().unwrap();
    let store = BlobStore::open(directory.path()).unwrap();
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
async fn a_failed_flush_fails_the_blob_and_is_never_repeated() {
    let directory = TempDir::new().unwrap();
    let disk = TestDisk::default();
    let store = BlobStore::open_on(directory.path(), Box::new(disk.clone())).unwrap();
    let before = put(&store, None, b"before").await.unwrap();
    disk.0.broken.store(true, Ordering::Relaxed);
    assert!(matches!(put(&store, None, b"unlucky").await, Err(StoreError::Io { .. })));
    assert_eq!(disk.0.file_flushes.load(Ordering::Relaxed), 3);
    assert!(store.unhealthy().unwrap().contains("injected"));
    assert!(matches!(put(&store, None, b"later").await, Err(StoreError::Unhealthy(_))));
    assert!(matches!(put_large(&store, before, b"before").await, Err(StoreError::Unhealthy(_))));
    assert_eq!(count(&directory, "incoming"), 0);
    assert_eq!(store.read(before.digest).unwrap(), &b"before"[..], "reads go on");
}

#[tokio::test]
async fn a_full_disk_is_named_and_leaves_nothing_behind() {
    let directory = TempDir::new().unwrap();
    let disk = TestDisk::default();
    let store = BlobStore::open_on(directory.path(), Box::new(disk.clone())).unwrap();
    disk.0.full.store(true, Ordering::Relaxed);
    let large = vec![3; 2 << 20];
    assert!(matches!(put(&store, None, b"small").await, Err(StoreError::Full { .. })));
    assert!(matches!(put_large(&store, blob_of(&large), &large).await, Err(StoreError::Full { .. })));
    assert_eq!(count(&directory, "incoming"), 0);
    disk.0.full.store(false, Ordering::Relaxed);
    put(&store, None, b"small").await.unwrap();
    assert_eq!(store.unhealthy(), None, "a full disk is no broken one");
}

#[tokio::test]
async fn collection_spares_what_an_open_upload_touched() {
    let directory = TempDir::new().unwrap();
    let store = BlobStore::open(directory.path()).unwrap();
    let old = put(&store, Some(upload(1)), b"old").await.unwrap().digest;
    let young = put(&store, Some(upload(2)), b"young").await.unwrap().digest;
    // Touched again: the bytes are there already, only the pin moves.
    let touched = put(&store, Some(upload(1)), b"touched").await.unwrap().digest;
    put(&store, Some(upload(3)), b"touched").await.unwrap();
    let absent = Digest::of(b"absent");
    let all = vec![old, young, touched, absent];
    assert_eq!(store.collect(Term(1), upload(2), all.clone()), Ok(vec![old, absent]));
    assert!(!store.contains(old) && store.contains(young) && store.contains(touched));
    store.observe_term(Term(4));
    let stale = StaleTerm { ordered: Term(3), seen: Term(4) };
    assert_eq!(store.collect(Term(3), upload(9), all.clone()), Err(stale));
    let newer = UploadId { term: Term(4), number: 1 };
    assert_eq!(store.collect(Term(4), newer, all.clone()), Ok(all));
    assert_eq!(store.totals(), (0, 0));
    store.shared.index().check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_never_loses_to_a_collection_below_it() {
    let directory = TempDir::new().unwrap();
    let store = BlobStore::open(directory.path()).unwrap();
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
                let gone = store.collect(Term(1), below, vec![digest]).unwrap();
                deleted += usize::from(was_there && !gone.is_empty());
            }
            deleted
        })
    };
    for round in 1..=100 {
        watermark.store(round, Ordering::SeqCst);
        put(&store, Some(upload(round)), b"contended").await.unwrap();
        assert!(store.read(digest).is_ok(), "round {round}");
        // Its upload is over: from here on it may go.
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
async fn a_damaged_blob_is_moved_aside() {
    let directory = TempDir::new().unwrap();
    let store = BlobStore::open(directory.path()).unwrap();
    let digest = put(&store, None, b"precious").await.unwrap().digest;
    fs::write(store.shared.layout.blob(digest), b"precioux").unwrap();
    assert!(matches!(store.read(digest), Err(StoreError::Corrupt(_))));
    assert!(matches!(store.read(digest), Err(StoreError::Missing(_))));
    assert_eq!((store.totals(), count(&directory, "corrupt")), ((0, 0), 1));
    put(&store, None, b"precious").await.unwrap();
    assert_eq!(store.read(digest).unwrap(), &b"precious"[..], "it can be stored anew");
}
