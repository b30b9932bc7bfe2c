//! A job of 10^8 queries: each is answered once although workers die, at a number of steps and in memory that do not depend
//! on the number of queries.

use std::time::Instant;

use idunno_core::metadata::{
    Action, Block, FOLDED_RELEASED_PER_COMMAND_MAX, Inputs, MergedRows, Snapshot, State,
};
use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::control::{Change, JobState, NewFile, StartOptions};
use idunno_shared::wire::jobs::{BATCH_QUERIES_MAX, BatchSize, RecordFormat};
use idunno_worker::result_merge::RESULT_EXTENT_BYTES;

use crate::ALLOCATED;
use crate::harness::heavy;
use crate::metadata::{add_job, change, command, commit, extent, train};
use crate::no_op_cluster::NoOpCluster;
use crate::size::{figure, sized};

const QUERIES: (u64, u64) = (1_000_000, 100_000_000);
const WORKERS: u64 = 16;
const COMMITS_PER_DEATH: u32 = 20;
/// A report, its answer's event and a commit's share, with room for heartbeats and deadlines.
const EVENTS_PER_BATCH_MAX: f64 = 2.0;
/// Everything but the segments: leases, statistics, queues.
const BYTES_MAX: f64 = 4e6;
/// A segment with the ranges of its batches.
const BYTES_PER_SEGMENT_MAX: f64 = 3_000.0;
/// What is stored of the cluster with one finished job, but for the extents of its results.
const FINISHED_BYTES_MAX: u64 = 10_000;
/// An extent of merged results: in the file, among the job's segments, and as a blob with its holders.
const BYTES_PER_EXTENT_MAX: u64 = 250;
/// A row of results.
const ROW_BYTES: u64 = 200;

/// Starts a job over a file of `count` records.
pub(crate) fn start_over_records(state: &mut State, job: JobId, dataset: &str, count: u64) {
    let extents = vec![extent(dataset, 1 << 20)];
    let digest = extents[0].0.digest;
    let name = dataset.parse().unwrap();
    state.apply(&commit(vec![NewFile { name, size: 1 << 20, digest, extents }])).unwrap();
    let inputs = Inputs::Records {
        digest,
        format: RecordFormat::Jsonl,
        count,
        blocks: vec![Block { first: 0, at: 0, extra_lines: 0 }],
    };
    state.apply(&command(Action::StartJob { job, inputs, options: StartOptions::default() })).unwrap();
}

#[tokio::test]
async fn every_query_of_a_large_job_is_answered_once_in_bounded_memory() {
    let _turn = heavy().await;
    let queries = sized(QUERIES.0, QUERIES.1);
    let mut state = State::new();
    train(&mut state);
    let job = add_job(&mut state, "d.jsonl");
    change(&mut state, Change::SetBatchSize { job, batch_size: BatchSize::from(BATCH_QUERIES_MAX) });
    start_over_records(&mut state, job, "d.jsonl", queries);
    let mut cluster = NoOpCluster::new(state, WORKERS);
    cluster.commits_per_death = COMMITS_PER_DEATH;
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    let started = Instant::now();
    cluster.run(&[job]);
    let took = started.elapsed();
    let bytes = ALLOCATED.peak_usage().saturating_sub(before) as f64;
    let kept = ALLOCATED.current_usage().saturating_sub(before);
    let (cost, record) = (cluster.cost, cluster.state.job(job).unwrap());
    let (batches, segments) = (cost.batches as f64, record.segments.len());
    let compared = cluster.scheduler.statistics().compared as f64;
    let rate = queries as f64 / took.as_secs_f64() / 1e6;
    figure(
        "queries: number, batches, segments, deaths",
        format!("{queries}, {batches}, {segments}, {}", cost.deaths),
    );
    figure("queries: time, millions a second", format!("{took:.1?}, {rate:.1}"));
    figure(
        "queries: events, entries of the log, comparisons a batch",
        format!(
            "{:.2}, {:.3}, {:.2}",
            cost.events as f64 / batches,
            cost.entries as f64 / batches,
            compared / batches
        ),
    );
    figure(
        "queries: bytes at most, bytes kept, and kept a segment",
        format!("{bytes}, {kept}, {}", kept / segments),
    );
    assert_eq!((record.state.clone(), record.done.len()), (JobState::Done, queries));
    assert_eq!(cost.accepted, queries, "each counts once");
    assert!(cost.deaths > 0);
    assert_eq!(record.statistics.count(), queries);
    assert!(cost.events as f64 <= EVENTS_PER_BATCH_MAX * batches, "{cost:?}");
    assert!(compared <= 4.0 * batches, "{compared} comparisons for {batches} batches");
    assert!(
        bytes <= BYTES_MAX + BYTES_PER_SEGMENT_MAX * segments as f64,
        "{bytes} bytes, {segments} segments"
    );
    cluster.state.check().unwrap();
    let segments_bytes = encoded_bytes(&cluster.state);
    let extents = fold(&mut cluster.state, job);
    let folded_bytes = encoded_bytes(&cluster.state);
    figure(
        "queries: bytes of metadata stored, done and with merged results, extents of these",
        format!("{segments_bytes}, {folded_bytes}, {extents}"),
    );
    assert!(
        folded_bytes <= FINISHED_BYTES_MAX + BYTES_PER_EXTENT_MAX * extents,
        "{folded_bytes} bytes, {extents} extents"
    );
    assert_eq!(cluster.state.job(job).unwrap().segments.len() as u64, extents);
    cluster.state.check().unwrap();
}

fn encoded_bytes(state: &State) -> u64 {
    rmp_serde::to_vec(&Snapshot::from(state.clone())).unwrap().len() as u64
}

/// Files the results of a job, has the blobs of its segments deleted, and returns the number of extents of the file.
fn fold(state: &mut State, job: JobId) -> u64 {
    let record = state.job(job).unwrap().clone();
    let count = (record.submitted * ROW_BYTES).div_ceil(RESULT_EXTENT_BYTES as u64);
    let extents: Vec<_> = (0..count).map(|number| extent(&format!("rows {number}"), 1 << 20)).collect();
    let first_queries = (0..count).map(|number| number * (record.submitted / count)).collect();
    let filed = Action::FileResults {
        job,
        finished_ms: record.finished_ms.unwrap(),
        size: count << 20,
        digest: extents[0].0.digest,
        extents,
        rows: Some(MergedRows { worker: NodeId(1), first_queries }),
    };
    let started = Instant::now();
    state.apply(&command(filed)).unwrap();
    figure("queries: entry that files the results", format!("{:.1?}", started.elapsed()));
    let mut entries = 0;
    while state.has_unreleased() {
        state.apply(&command(Action::Forget(Vec::new()))).unwrap();
        entries += 1;
    }
    assert!(entries <= record.segments.len().div_ceil(FOLDED_RELEASED_PER_COMMAND_MAX));
    let deleted = record.segments.iter().map(|segment| segment.blob.digest).collect();
    state.apply(&command(Action::Forget(deleted))).unwrap();
    count
}
