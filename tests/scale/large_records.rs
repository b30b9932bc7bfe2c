//! A file of records of 100 GB, whose extents are one blob again and again: what its index takes to build, to commit and to
//! keep.

use std::time::Instant;

use idunno_core::metadata::{Action, FileKind, Inputs, State};
use idunno_shared::wire::blobs::EXTENT_BYTES_MAX;
use idunno_shared::wire::control::{Change, EXTENTS_PER_FILE_MAX, NewFile, Selection, StartOptions};
use idunno_shared::wire::records::ReadOptions;
use idunno_worker::records::record_index::{BLOCKS_MAX, RecordIndex};

use crate::ALLOCATED;
use crate::harness::heavy;
use crate::metadata::{add_job, change, command, commit, extent, train};
use crate::size::{figure, sized};

const EXTENT_BYTES: u64 = 4 << 20;
const FILE_BYTES: (u64, u64) = (1 << 30, 100 << 30);
const RECORD_BYTES: usize = 4 << 10;
/// The index while it is built, without the extent that is read: its blocks, twice while the list grows.
const INDEX_BYTES_MAX: usize = 4 << 20;
/// A command of the log.
const COMMAND_BYTES_MAX: usize = 4 << 20;

/// An extent of lines of one length.
fn lines() -> Vec<u8> {
    let (head, tail) = ("{\"text\":\"", "\"}\n");
    let line = format!("{head}{}{tail}", "x".repeat(RECORD_BYTES - head.len() - tail.len()));
    line.repeat(usize::try_from(EXTENT_BYTES).unwrap() / RECORD_BYTES).into_bytes()
}

#[tokio::test]
async fn a_large_file_of_records_is_indexed_in_bounded_memory() {
    let _turn = heavy().await;
    let bytes = sized(FILE_BYTES.0, FILE_BYTES.1);
    let (content, count) = (lines(), usize::try_from(bytes / EXTENT_BYTES).unwrap());
    assert!(count <= EXTENTS_PER_FILE_MAX && EXTENT_BYTES <= EXTENT_BYTES_MAX);
    let mut state = State::new();
    train(&mut state);
    let job = add_job(&mut state, "large.jsonl");
    let extents = vec![extent("lines", EXTENT_BYTES); count];
    let digest = extents[0].0.digest;
    state
        .apply(&commit(vec![NewFile { name: "large.jsonl".parse().unwrap(), size: bytes, digest, extents }]))
        .unwrap();
    assert_eq!(state.blobs().len(), 2, "the lines, and the model");

    let (before, started) = (ALLOCATED.current_usage(), Instant::now());
    ALLOCATED.reset_peak_usage();
    let mut index = RecordIndex::new(FileKind::Jsonl, ReadOptions::default(), Selection::All);
    for _ in 0..count {
        index.take(&content).unwrap();
    }
    let inputs = index.finish(digest).unwrap();
    let (took, peak) = (started.elapsed(), ALLOCATED.peak_usage() - before);
    let Inputs::Records { count: records, ref blocks, .. } = inputs else { panic!("{inputs:?}") };
    assert_eq!(records, bytes / RECORD_BYTES as u64);
    assert!(blocks.len() <= BLOCKS_MAX && peak <= INDEX_BYTES_MAX, "{} blocks, {peak} bytes", blocks.len());
    let rate = bytes as f64 / took.as_secs_f64() / 1e6;
    figure("records: bytes, records, blocks", format!("{bytes}, {records}, {}", blocks.len()));
    figure("records: to index: time, MB/s, bytes allocated", format!("{took:.1?}, {rate:.0}, {peak}"));

    let start = command(Action::StartJob { job, inputs, options: StartOptions::default() });
    let logged = rmp_serde::to_vec(&start).unwrap().len();
    let started = Instant::now();
    state.apply(&start).unwrap();
    figure("records: to start: time, bytes of log", format!("{:.1?}, {logged}", started.elapsed()));
    assert!(logged <= COMMAND_BYTES_MAX, "{logged} bytes");
    // What a lease reads does not depend on the size of the file, but for the size of a block.
    let record = state.job(job).unwrap().records.clone().unwrap();
    let mut bytes_read = 0;
    for first in [0, records / 2, records - 100] {
        let span = record.span(&(first..first + 100));
        bytes_read = bytes_read.max(span.bytes);
        assert!(span.extents.len() <= 3, "{} extents", span.extents.len());
    }
    let block_bytes = bytes / record.blocks.len() as u64;
    figure(
        "records: bytes read for a batch of 100 records, bytes a block",
        format!("{bytes_read}, {block_bytes}"),
    );
    assert!(
        bytes_read <= 100 * RECORD_BYTES as u64 + 2 * block_bytes + EXTENT_BYTES / 16,
        "{bytes_read} bytes"
    );
    change(&mut state, Change::CancelJob { job });
    state.check().unwrap();
}
