//! A million files: bytes a file in memory before and after a restart, and the steps of what looks at all of them.

use std::collections::BTreeSet;
use std::io::{BufReader, BufWriter, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use idunno_core::machine::Machine;
use idunno_core::metadata::{
    Action, CHECKPOINT_BYTES_MAX, CHECKPOINTS_MAX, Inputs, STORED_VISITED_MAX, Snapshot, State,
};
use idunno_core::placement::{
    COUNTED_PER_STEP_MAX, Members, ReplicationConfig, ReplicationEvent, ReplicationPlanner, StoreSnapshot,
};
use idunno_core::time::Instant as VirtualInstant;
use idunno_shared::ids::NodeId;
use idunno_shared::wire::control::{Change, Changed, ITEMS_PER_REQUEST_MAX, StartOptions};

use crate::ALLOCATED;
use crate::harness::heavy;
use crate::metadata::{
    MEMBERS, add_job, candidates, change, command, commit, file_name, small_file, train, with_files,
};
use crate::process_figures::resident_bytes;
use crate::size::{figure, percentiles, sized};

const FILES: (u64, u64) = (20_000, 1_000_000);
/// What a small file may take in the memory of a voter. The design allows 350 B, which leaves room for longer names.
const BYTES_PER_FILE_MAX: f64 = 320.0;
/// Entries of the log while a member is away.
const ENTRIES: u64 = 1_000;
/// What a step may allocate whatever the number of files.
const STEP_BYTES_MAX: usize = 64 << 10;
/// What the writer of a snapshot may allocate whatever its size.
const SNAPSHOT_BYTES_MAX: usize = 1 << 20;

/// Bytes that `step` allocated at most at a time.
fn peak_of<T>(step: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    let outcome = step();
    (outcome, ALLOCATED.peak_usage().saturating_sub(before))
}

/// Writes a snapshot as a voter does, and reads it again after everything in memory is gone.
fn restarted(state: State) -> State {
    let mut file = tempfile::tempfile().unwrap();
    let started = Instant::now();
    let (written, peak) = peak_of(|| {
        let mut rows = BufWriter::new(&file);
        rmp_serde::encode::write(&mut rows, &Snapshot::from(state)).unwrap();
        rows.flush()
    });
    written.unwrap();
    let bytes = file.metadata().unwrap().len();
    figure(
        "snapshot: bytes, time to write, bytes allocated for it",
        format!("{bytes}, {:.1?}, {peak}", started.elapsed()),
    );
    assert!(peak <= SNAPSHOT_BYTES_MAX, "{peak} bytes");
    std::io::Seek::rewind(&mut file).unwrap();
    let started = Instant::now();
    let snapshot: Snapshot = rmp_serde::from_read(BufReader::new(file)).unwrap();
    let state = State::from(snapshot);
    figure("snapshot: time to read", format!("{:.1?}", started.elapsed()));
    state
}

#[tokio::test]
async fn a_file_takes_as_little_memory_after_a_restart_as_before() {
    let _turn = heavy().await;
    let files = sized(FILES.0, FILES.1);
    let per_file = |bytes: usize| bytes as f64 / files as f64;
    let (before, resident_before) = (ALLOCATED.current_usage(), resident_bytes());
    let state = with_files(files);
    let fresh = per_file(ALLOCATED.current_usage() - before);
    let resident = per_file(resident_bytes().saturating_sub(resident_before));
    figure("files", files);
    figure("bytes a file, as committed: allocated, resident", format!("{fresh:.0}, {resident:.0}"));
    let state = restarted(state);
    let again = per_file(ALLOCATED.current_usage() - before);
    figure("bytes a file, after a restart: allocated", format!("{again:.0}"));
    assert_eq!(state.file_count(), files);
    assert!(fresh <= BYTES_PER_FILE_MAX, "{fresh:.0} bytes a file");
    assert!(again <= fresh, "{again:.0} bytes a file after a restart, {fresh:.0} before");
}

#[tokio::test]
async fn a_job_over_all_files_starts_in_constant_time_while_others_commit() {
    let _turn = heavy().await;
    let files = sized(FILES.0, FILES.1);
    let mut state = with_files(files);
    train(&mut state);
    let job = add_job(&mut state, "photos");
    let started = Instant::now();
    let (pinned, pin_bytes) = peak_of(|| state.apply(&command(Action::PinFolder { job })));
    pinned.unwrap();
    figure("start-job: to pin the folder", format!("{:.1?}", started.elapsed()));
    assert!(pin_bytes <= STEP_BYTES_MAX, "{pin_bytes} bytes");

    let (snapshot, record) = (state.clone(), state.job(job).unwrap().clone());
    let indexing = std::thread::spawn(move || (snapshot.index_folder(&record), Instant::now()));
    let (mut applied, mut times) = (0, Vec::new());
    while !indexing.is_finished() || times.len() < 1_000 {
        let overwritten = commit(vec![small_file(&file_name(applied % files), 1 + applied)]);
        let at = Instant::now();
        state.apply(&overwritten).unwrap();
        times.push(at.elapsed());
        applied += 1;
    }
    let (index, indexed_at) = indexing.join().unwrap();
    let index = index.unwrap();
    figure("start-job: to count the files, beside the log", format!("{:.1?}", indexed_at - started));
    figure("start-job: a file committed meanwhile, p50 / p99 / max", percentiles(times));
    assert_eq!(index.count, files);
    assert!(index.checkpoints.len() as u64 <= CHECKPOINTS_MAX);
    let moment = state.job(job).unwrap().folder.as_ref().unwrap().moment;
    let start = command(Action::StartJob {
        job,
        inputs: Inputs::Folder { moment, index },
        options: StartOptions::default(),
    });
    let bytes = rmp_serde::to_vec(&start).unwrap().len();
    assert!(bytes <= 2 * CHECKPOINT_BYTES_MAX, "{bytes} bytes of log");
    let started = Instant::now();
    state.apply(&start).unwrap();
    figure("start-job: to start: time, bytes of log", format!("{:.1?}, {bytes}", started.elapsed()));
    // The job sees the files as they were: the first one's content before it was overwritten.
    let record = state.job(job).unwrap();
    assert_eq!(record.submitted, files);
    for query in [0, files / 2, files - 1] {
        let part = state.folder_part(record, query).unwrap();
        let found = &part.files[usize::try_from(query - part.first).unwrap()];
        let expected = small_file(&file_name(query), 0);
        assert_eq!((&*found.name, found.extents[0].digest), (&expected.name, expected.digest));
    }
    let started = Instant::now();
    let (ended, end_bytes) = peak_of(|| change(&mut state, Change::CancelJob { job }));
    assert_eq!(ended, Changed::Done);
    figure("start-job: to cancel it", format!("{:.1?}", started.elapsed()));
    assert!(end_bytes <= STEP_BYTES_MAX, "{end_bytes} bytes");
}

#[tokio::test]
async fn a_members_files_are_listed_in_bounded_pages() {
    let _turn = heavy().await;
    let files = sized(FILES.0, FILES.1);
    let state = with_files(files);
    let (mut listed, mut visited, mut pages) = (0, 0, 0);
    let (mut after, mut slowest) = (None, Duration::ZERO);
    loop {
        let at = Instant::now();
        let page = state.stored(NodeId(1), after.as_ref(), u32::MAX);
        slowest = slowest.max(at.elapsed());
        assert!(page.visited <= STORED_VISITED_MAX && page.files.len() <= ITEMS_PER_REQUEST_MAX);
        assert!(page.files.iter().all(|file| file.holders.contains(&NodeId(1))));
        (listed, visited, pages) = (listed + page.files.len(), visited + page.visited as u64, pages + 1);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    figure("store MEMBER: pages, files, slowest page", format!("{pages}, {listed}, {slowest:.1?}"));
    assert_eq!(visited, files, "each file is looked at once");
    let share = listed as f64 / files as f64;
    let wanted = 4.0 / MEMBERS as f64;
    assert!((share - wanted).abs() < 0.05, "{share:.2} of the files, {wanted:.2} expected");
    let pages_max = 2 + listed / ITEMS_PER_REQUEST_MAX + usize::try_from(files).unwrap() / STORED_VISITED_MAX;
    assert!(pages <= pages_max, "{pages} pages");
    let names: BTreeSet<_> =
        state.stored(NodeId(2), None, 10).files.into_iter().map(|file| file.name).collect();
    assert_eq!(names.len(), 10);
}

/// Hands the planner the metadata and the members until it has counted all blobs. Returns the number of steps.
fn observe(
    planner: &mut ReplicationPlanner,
    state: &Arc<State>,
    members: &Members,
    steps: &mut Vec<Duration>,
) -> usize {
    let before = steps.len();
    loop {
        let (counted, at) = (planner.statistics().counted, Instant::now());
        let snapshot = StoreSnapshot { state: Arc::clone(state), members: members.clone() };
        planner.handle(ReplicationEvent::Observed(snapshot), VirtualInstant::START);
        steps.push(at.elapsed());
        assert_eq!(planner.poll_effect(), None, "nothing is to be copied yet");
        let counted = planner.statistics().counted - counted;
        // Counted out and in again.
        assert!(counted <= 2 * COUNTED_PER_STEP_MAX as u64, "{counted} blobs in one step");
        if planner.next_deadline().is_none() {
            return steps.len() - before;
        }
    }
}

#[tokio::test]
async fn members_that_flap_and_entries_of_the_log_cost_repair_bounded_steps() {
    let _turn = heavy().await;
    let files = sized(FILES.0, FILES.1);
    let mut state = Arc::new(with_files(files));
    let all: Members = Members {
        live: candidates().into_iter().map(|it| (it.node, it.free_bytes)).collect(),
        ..Members::default()
    };
    let mut fewer = all.clone();
    fewer.live.remove(&NodeId(MEMBERS));
    fewer.absent.insert(NodeId(MEMBERS), VirtualInstant::START);
    let mut planner = ReplicationPlanner::new(ReplicationConfig::default(), 1);
    let (mut steps, mut of_entries) = (Vec::new(), Vec::new());
    observe(&mut planner, &state, &all, &mut steps);
    assert_eq!((planner.figures().blobs, planner.figures().under_replicated), (files, 0));
    let share = state.blobs().values().filter(|blob| blob.holders.contains(&NodeId(MEMBERS))).count() as u64;
    for _ in 0..3 {
        let counted = planner.statistics().counted;
        for (members, short) in [(&fewer, share), (&all, 0)] {
            let needed = observe(&mut planner, &state, members, &mut steps);
            assert!(needed as u64 <= files.div_ceil(COUNTED_PER_STEP_MAX as u64));
            assert_eq!(planner.figures().under_replicated, short);
        }
        assert_eq!(planner.statistics().counted - counted, 4 * files);
    }
    figure("liveness flaps: steps of repair, p50 / p99 / max", percentiles(steps));
    // A member is away, so that blobs are short of copies and wait for it, and the log goes on.
    settle(&mut planner, &state, &fewer);
    observe(&mut planner, &state, &fewer, &mut Vec::new());
    let before = planner.statistics();
    assert!(before.examined > 0, "blobs are short of copies");
    for number in 0..ENTRIES {
        let mut file = small_file(&file_name(number % files), number + 1);
        file.extents[0].1 = fewer.live.keys().copied().take(4).collect();
        Arc::make_mut(&mut state).apply(&commit(vec![file])).unwrap();
        observe(&mut planner, &state, &fewer, &mut of_entries);
    }
    let after = planner.statistics();
    figure("log entries: steps of repair, p50 / p99 / max", percentiles(of_entries));
    let (counted, examined) = (after.counted - before.counted, after.examined - before.examined);
    figure(
        "log entries: number, blobs counted, blobs examined for copies",
        format!("{ENTRIES}, {counted}, {examined}"),
    );
    assert!(counted <= 3 * ENTRIES, "{counted} blobs were counted");
    assert_eq!(examined, 0, "no entry changed which blobs are short of copies");
}

/// Reads a page of each member's inventory, one that shows nothing: from then on it may get copies.
fn settle(planner: &mut ReplicationPlanner, state: &Arc<State>, members: &Members) {
    for &node in members.live.keys() {
        let asked = ReplicationEvent::InventoryDue { state: Arc::clone(state), node, after: None };
        let snapshot = StoreSnapshot { state: Arc::clone(state), members: members.clone() };
        let digests = Vec::new();
        let read = ReplicationEvent::InventoryRead { snapshot, node, digests, after: None, last: false };
        for event in [asked, read] {
            planner.handle(event, VirtualInstant::START);
            while planner.poll_effect().is_some() {}
        }
    }
}
