//! What the store reported durable stays: openraft's own suite, restarts, and a killed process.

use std::collections::BTreeSet;
use std::io::{self, BufRead};
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::time::Duration;

use idunno_shared::ids::NodeId;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{CommittedLeaderId, EntryPayload, Membership, RaftLogReader, RaftSnapshotBuilder, Vote};
use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata};
use tempfile::TempDir;

use super::log::LogStore;
use super::log_index;
use super::open::{OpenStore, open, open_apart};
use super::shared::LogStoreInner;
use super::state_machine::StateMachine;
use crate::errors::OpenError;
use crate::file::snapshot_rows::SnapshotData;
use crate::file::tables::{
    LogId, SNAPSHOT_CHUNKS, SnapshotHeader, SnapshotMeta, StoreFault, encode_row, locked,
};
use crate::file::writer;
use crate::tests::put;
use crate::types::{CommandBatch, Entry, StorageError, TypeConfig};

const NODE: NodeId = NodeId(7);

struct SuiteBuilder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for SuiteBuilder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let opened = open(&dir.path().join("metadata.redb"), NODE).unwrap();
        Ok((dir, opened.log, opened.machine))
    }
}

#[test]
fn the_store_passes_openrafts_suite() {
    Suite::test_all(SuiteBuilder).unwrap();
}

/// A snapshot whose rows are in this store: openraft's suite installs one store's snapshot in another.
pub(super) async fn copied_into(
    shared: &LogStoreInner,
    snapshot: SnapshotData,
) -> Result<SnapshotData, StoreFault> {
    if snapshot.is_in(&shared.database) {
        return Ok(snapshot);
    }
    let mut copy = shared.begin_snapshot();
    for number in 0..snapshot.rows() {
        copy.push(snapshot.row(number).await?).await?;
    }
    Ok(copy)
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, NODE.0), index)
}

fn entry(term: u64, index: u64, commands: u64) -> Entry {
    let commands = (0..commands).map(|n| put(&format!("t/{index}-{n}"))).collect();
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(CommandBatch(Arc::new(commands))) }
}

fn indexes(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.log_id.index).collect()
}

async fn reopen(path: &Path, opened: OpenStore) -> OpenStore {
    let OpenStore { log, machine, closed, .. } = opened;
    drop((log, machine));
    closed.await.unwrap();
    open(path, NODE).unwrap()
}

#[tokio::test]
async fn everything_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metadata.redb");
    let mut store = open(&path, NODE).unwrap();
    let voters = Membership::new(vec![[1, 2, 7].into()], ());
    let membership = Entry { log_id: log_id(1, 0), payload: EntryPayload::Membership(voters.clone()) };
    let entries = || std::iter::once(membership.clone()).chain((1..=10).map(|index| entry(1, index, 3)));
    store.log.save_vote(&Vote::new_committed(3, 7)).await.unwrap();
    store.log.blocking_append(entries()).await.unwrap();
    store.log.truncate(log_id(1, 10)).await.unwrap();
    store.log.save_committed(Some(log_id(1, 8))).await.unwrap();
    store.machine.apply(entries().take(7)).await.unwrap();
    let snapshot = store.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    // Whoever holds the data keeps the file open.
    let (meta, bytes) = (snapshot.meta, snapshot.snapshot.bytes());
    drop(snapshot.snapshot);
    store.log.purge(log_id(1, 4)).await.unwrap();
    let before = store.state.borrow().clone();

    let mut store = reopen(&path, store).await;
    assert_eq!(store.log.read_vote().await.unwrap(), Some(Vote::new_committed(3, 7)));
    assert_eq!(store.log.read_committed().await.unwrap(), Some(log_id(1, 8)));
    let log = store.log.get_log_state().await.unwrap();
    assert_eq!((log.last_purged_log_id, log.last_log_id), (Some(log_id(1, 4)), Some(log_id(1, 9))));
    assert_eq!(indexes(&store.log.try_get_log_entries(..).await.unwrap()), [5, 6, 7, 8, 9]);
    let (applied, members) = store.machine.applied_state().await.unwrap();
    assert_eq!(applied, Some(log_id(1, 6)));
    assert_eq!(members.membership(), &voters);
    assert_eq!(*store.state.borrow().clone(), *before);
    let kept = store.machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!((kept.meta, kept.snapshot.bytes()), (meta, bytes));
    assert_eq!(kept.snapshot.state().await.unwrap(), *before);
}

#[tokio::test]
async fn reads_span_file_and_cache_and_stop_at_the_byte_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metadata.redb");
    let mut store = open(&path, NODE).unwrap();
    store.log.blocking_append((0..10).map(|index| entry(1, index, 3))).await.unwrap();
    let mut store = reopen(&path, store).await;
    store.log.blocking_append((10..20).map(|index| entry(1, index, 3))).await.unwrap();
    assert_eq!(locked(&store.log.shared().index).cached(), 10);
    assert_eq!(indexes(&store.log.try_get_log_entries(..).await.unwrap()), (0..20).collect::<Vec<_>>());
    assert_eq!(indexes(&store.log.try_get_log_entries(8..=12).await.unwrap()), [8, 9, 10, 11, 12]);

    let row = encode_row(&entry(1, 15, 3)).unwrap().len();
    let limited = |start, bytes| {
        let log = store.log.clone();
        async move { indexes(&log.read(start, 20, bytes).await.unwrap()) }
    };
    assert_eq!(limited(3, 1).await, [3], "at least one entry");
    assert_eq!(limited(13, 1).await, [13], "at least one entry");
    assert_eq!(limited(8, row * 4).await, [8, 9, 10, 11], "from file and cache");
}

#[tokio::test]
async fn only_the_newest_entries_are_cached() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&dir.path().join("metadata.redb"), NODE).unwrap();
    let row = encode_row(&entry(1, 0, 500)).unwrap().len();
    let count = (log_index::CACHE_BYTES_MAX / row + 50) as u64;
    for index in 0..count {
        store.log.blocking_append([entry(1, index, 500)]).await.unwrap();
    }
    assert!(locked(&store.log.shared().index).cached() * row <= log_index::CACHE_BYTES_MAX);
    assert_eq!(store.log.try_get_log_entries(..).await.unwrap().len() as u64, count);
}

#[tokio::test]
async fn entries_are_purged_only_after_their_snapshot_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let (mut leader, mut follower) = (
        open(&dir.path().join("leader.redb"), NODE).unwrap(),
        open(&dir.path().join("follower.redb"), NODE).unwrap(),
    );
    leader.machine.apply((0..20).map(|index| entry(1, index, 3))).await.unwrap();
    let snapshot = leader.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    follower.log.blocking_append((0..15).map(|index| entry(1, index, 3))).await.unwrap();

    let installing = follower.installs.begin(snapshot.meta.last_log_id);
    let mut log = follower.log.clone();
    let mut purge = tokio::spawn(async move { log.purge(log_id(1, 19)).await });
    // A purge that did not wait would have ended long before.
    tokio::time::timeout(Duration::from_millis(200), &mut purge).await.unwrap_err();
    assert_eq!(follower.log.try_get_log_entries(..).await.unwrap().len(), 15);
    follower.machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
    purge.await.unwrap().unwrap();
    drop(installing);
    let log = follower.log.get_log_state().await.unwrap();
    assert_eq!((log.last_purged_log_id, log.last_log_id), (Some(log_id(1, 19)), Some(log_id(1, 19))));
    assert_eq!(*follower.state.borrow().clone(), *leader.state.borrow().clone());
}

#[tokio::test]
async fn a_snapshot_of_many_chunks_is_complete_and_an_incomplete_one_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metadata.redb");
    let mut store = open(&path, NODE).unwrap();
    store.machine.apply((0..100).map(|index| entry(1, index, 900))).await.unwrap();
    let built = store.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let (bytes, rows) = (built.snapshot.bytes(), built.snapshot.rows());
    assert!(rows > 2);
    drop(built);
    let incomplete = writer::Write::SnapshotChunk { generation: 2, number: 0, bytes: vec![0; 10] };
    store.log.shared().writer.write(incomplete).await.unwrap();

    let mut store = reopen(&path, store).await;
    assert_eq!(store.state.borrow().file_count(), 90_000);
    let kept = store.machine.get_current_snapshot().await.unwrap().unwrap().snapshot;
    assert_eq!((kept.bytes(), kept.rows()), (bytes, rows));
    assert_eq!(generations(&store), BTreeSet::from([1]));
}

/// The snapshots whose rows are in the file.
fn generations(store: &OpenStore) -> BTreeSet<u64> {
    let transaction = store.log.shared().database.begin_read().unwrap();
    let chunks = transaction.open_table(SNAPSHOT_CHUNKS).unwrap();
    chunks.iter().unwrap().map(|row| row.unwrap().0.value().0).collect()
}

/// A state of several rows, with this many entries applied to it.
async fn filled(path: &Path, entries: u64) -> OpenStore {
    let mut store = open(path, NODE).unwrap();
    store.machine.apply((0..entries).map(|index| entry(1, index, 900))).await.unwrap();
    store
}

#[tokio::test]
async fn a_row_of_a_snapshot_fills_its_pages() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = filled(&dir.path().join("metadata.redb"), 40).await;
    let built = store.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let transaction = store.log.shared().database.begin_read().unwrap();
    let pages = transaction.open_table(SNAPSHOT_CHUNKS).unwrap().stats().unwrap();
    let allocated = pages.stored_bytes() + pages.metadata_bytes() + pages.fragmented_bytes();
    // The last row fills less than half of its page at worst.
    let limit = built.snapshot.bytes() * 102 / 100 + (1 << 20);
    assert!(allocated <= limit, "{allocated} bytes for {} of snapshot", built.snapshot.bytes());
}

#[tokio::test]
async fn a_snapshot_is_read_while_the_disk_hangs_under_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metadata.redb");
    let mut store = filled(&path, 2).await;
    store.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    store.machine.apply([entry(1, 2, 3)]).await.unwrap();
    let hang = path.with_extension("redb.hang");
    std::fs::write(&hang, "").unwrap();
    let mut builder = store.machine.get_snapshot_builder().await;
    let mut build = tokio::spawn(async move { builder.build_snapshot().await.map(|built| built.meta) });
    // By then it waits for the disk.
    tokio::time::timeout(Duration::from_millis(200), &mut build).await.unwrap_err();

    let read = tokio::time::timeout(Duration::from_secs(20), store.machine.get_current_snapshot()).await;
    let newest = read.expect("it waits for nothing").unwrap().unwrap();
    assert_eq!(newest.meta.last_log_id, Some(log_id(1, 1)));
    std::fs::remove_file(&hang).unwrap();
    assert_eq!(build.await.unwrap().unwrap().last_log_id, Some(log_id(1, 2)));
    // Who reads the older one still has all of it.
    assert_eq!(newest.snapshot.state().await.unwrap().file_count(), 1_800);
}

#[tokio::test]
async fn an_older_snapshot_is_deleted_after_its_last_reader() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = filled(&dir.path().join("metadata.redb"), 2).await;
    let older = store.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    store.machine.apply([entry(1, 2, 3)]).await.unwrap();
    let newer = store.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    assert_eq!(generations(&store), BTreeSet::from([1, 2]));
    drop((older, newer));
    // The writer works in order: after this it has deleted what it deletes.
    store.log.save_vote(&Vote::new(1, 7)).await.unwrap();
    assert_eq!(generations(&store), BTreeSet::from([2]));
}

#[tokio::test]
async fn a_snapshot_that_was_completed_for_nobody_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metadata.redb");
    let mut store = filled(&path, 2).await;
    // Its builder is dropped between the request and its completion, as at the end of a runtime.
    let data = {
        let mut data = store.log.shared().begin_snapshot();
        data.push_state((**store.state.borrow()).clone()).await.unwrap();
        data
    };
    let meta = SnapshotMeta { last_log_id: Some(log_id(1, 1)), ..SnapshotMeta::default() };
    let header = encode_row(&SnapshotHeader { generation: data.generation(), meta }).unwrap();
    store.log.shared().writer.write(writer::Write::Snapshot { header }).await.unwrap();
    drop(data);
    store.log.save_vote(&Vote::new(1, 7)).await.unwrap();
    let store = reopen(&path, store).await;
    assert_eq!(store.state.borrow().file_count(), 1_800);
}

#[tokio::test]
async fn a_snapshot_is_due_by_bytes_of_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metadata.redb");
    let mut store = open(&path, NODE).unwrap();
    let row = encode_row(&entry(1, 0, 100)).unwrap().len() as u64;
    store.log.blocking_append((0..10).map(|index| entry(1, index, 100))).await.unwrap();
    assert!(store.growth.borrow().is_due(10 * row) && !store.growth.borrow().is_due(10 * row + 200));
    store.machine.apply((0..10).map(|index| entry(1, index, 100))).await.unwrap();
    // What is written behind the snapshot counts, and the snapshot's size is the least.
    let snapshot_bytes = {
        let mut builder = store.machine.get_snapshot_builder().await;
        builder.build_snapshot().await.unwrap().snapshot.bytes()
    };
    assert!(!store.growth.borrow().is_due(0));
    let mut store = reopen(&path, store).await;
    assert!(!store.growth.borrow().is_due(0), "the log that the snapshot covers does not count");
    let entries = snapshot_bytes / row + 1;
    store.log.blocking_append((10..10 + entries).map(|index| entry(1, index, 100))).await.unwrap();
    assert!(store.growth.borrow().is_due(row));
    let store = reopen(&path, store).await;
    assert!(store.growth.borrow().is_due(row), "nor is it forgotten at a restart");
}

#[tokio::test]
async fn a_store_is_opened_by_its_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metadata.redb");
    let OpenStore { log, machine, closed, .. } = open(&path, NODE).unwrap();
    assert!(matches!(open(&path, NODE), Err(OpenError::Store { .. })), "already open");
    drop((log, machine));
    closed.await.unwrap();
    let Err(OpenError::OtherNode { owner, .. }) = open(&path, NodeId(8)) else { panic!("opened") };
    assert_eq!(owner, NODE);
}

const KILLED_STORE: &str = "IDUNNO_TEST_KILLED_STORE";

/// Not a test itself: the process that the next test kills.
#[tokio::test]
async fn appends_until_killed() {
    let Ok(path) = std::env::var(KILLED_STORE) else { return };
    let mut store = open(Path::new(&path), NODE).unwrap();
    for index in 0.. {
        store.log.save_vote(&Vote::<u64>::new(index + 1, 7)).await.unwrap();
        store.log.blocking_append([entry(1, index, 20)]).await.unwrap();
        store.machine.apply([entry(1, index, 20)]).await.unwrap();
        store.log.save_committed(Some(log_id(1, index))).await.unwrap();
        if index % 10 == 9 {
            store.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
            store.log.purge(log_id(1, index - 5)).await.unwrap();
        }
        println!("durable {index}");
    }
}

#[tokio::test]
async fn what_was_reported_durable_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metadata.redb");
    for kills in 1..=3_u64 {
        std::fs::remove_file(&path).ok();
        let mut child = Process::new(std::env::current_exe().unwrap())
            .args(["store::tests::appends_until_killed", "--exact", "--nocapture"])
            .env(KILLED_STORE, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = io::BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut durable = lines.filter_map(|line| line.strip_prefix("durable ")?.parse::<u64>().ok());
        durable.find(|index| *index >= kills * 17).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // Drains what the process printed before it died.
        let durable = durable.last().unwrap_or(kills * 17);

        let mut store = open(&path, NODE).unwrap();
        let log = store.log.get_log_state().await.unwrap();
        let (purged, last) = (log.last_purged_log_id.unwrap().index, log.last_log_id.unwrap().index);
        assert!(last >= durable, "{last} is there, {durable} was durable");
        assert!(store.log.read_vote().await.unwrap().unwrap().leader_id.term > durable);
        let (applied, _) = store.machine.applied_state().await.unwrap();
        assert!(applied.unwrap().index > purged, "the state covers the purged entries");
        let entries = store.log.try_get_log_entries(..).await.unwrap();
        assert_eq!(indexes(&entries), (purged + 1..=last).collect::<Vec<_>>());
        let behind = entries.into_iter().filter(|entry| Some(entry.log_id) > applied);
        store.machine.apply(behind).await.unwrap();
        assert_eq!(store.state.borrow().file_count(), (last + 1) * 20);
        store.state.borrow().check().unwrap();
        reopen(&path, store).await;
    }
}

/// What a store holds, as openraft reads it.
type Content = (Option<Vote<u64>>, Option<LogId>, Vec<u64>, u64);

async fn content(store: &mut OpenStore) -> Content {
    let log = store.log.try_get_log_entries(..).await.unwrap();
    let log = log.iter().map(|entry| entry.log_id.index).collect();
    let vote = store.log.read_vote().await.unwrap();
    (vote, store.machine.applied_state().await.unwrap().0, log, store.state.borrow().file_count())
}

/// A store that was closed, and what it held.
async fn closed_store(path: &Path) -> Content {
    let mut store = open(path, NODE).unwrap();
    store.log.save_vote(&Vote::new_committed(3, 7)).await.unwrap();
    store.log.blocking_append((0..40).map(|index| entry(1, index, 20))).await.unwrap();
    store.machine.apply((0..30).map(|index| entry(1, index, 20))).await.unwrap();
    store.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    store.log.purge(log_id(1, 4)).await.unwrap();
    let mut store = reopen(path, store).await;
    let held = content(&mut store).await;
    let OpenStore { log, machine, closed, .. } = store;
    drop((log, machine));
    closed.await.unwrap();
    held
}

/// How often a file is damaged at places spread over it.
const PLACES: usize = 96;

#[tokio::test]
async fn a_damaged_store_is_refused_by_name_or_holds_all_that_it_held() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metadata.redb");
    let held = closed_store(&path).await;
    let whole = std::fs::read(&path).unwrap();
    let mut refused = 0;
    let damage = |bytes: Vec<u8>, what: String| {
        std::fs::write(&path, bytes).unwrap();
        let (path, held) = (path.clone(), held.clone());
        async move {
            match open_apart(path.clone(), NODE).await {
                Ok(mut store) => {
                    assert_eq!(content(&mut store).await, held, "{what} changed what the store holds");
                    let OpenStore { log, machine, closed, .. } = store;
                    drop((log, machine));
                    closed.await.unwrap();
                    false
                }
                Err(error @ OpenError::Damaged { .. }) => {
                    let text = error.to_string();
                    let names = text.contains(&path.display().to_string()) && text.contains("--forget-log");
                    assert!(names, "{what}: {text}");
                    true
                }
                Err(error) => panic!("{what}: {error}"),
            }
        }
    };
    for place in 0..PLACES {
        let at = whole.len() * place / PLACES;
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (place % 8);
        refused += usize::from(damage(flipped, format!("a flipped bit at {at}")).await);
        let mut zeroed = whole.clone();
        zeroed[at..whole.len().min(at + 4_096)].fill(0);
        refused += usize::from(damage(zeroed, format!("a zeroed page at {at}")).await);
    }
    // The header has no checksum of its own over all of it.
    for at in 0..320 {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        refused += usize::from(damage(flipped, format!("a flipped bit at {at}")).await);
    }
    for (bytes, what) in [
        (vec![0; whole.len()], "zeros"),
        (whole[..whole.len() / 2].to_vec(), "half"),
        (whole[..100].to_vec(), "100 bytes"),
        (whole[..3].to_vec(), "3 bytes"),
    ] {
        assert!(damage(bytes, String::from(what)).await, "{what} was accepted");
    }
    assert!(refused > PLACES / 2, "{refused}: the damage hit nothing that is used");
}
