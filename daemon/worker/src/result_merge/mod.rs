//! Merges a finished job's segments into one file with a row per query, in order.
//!
//! `MergePlan` decides the order, [`runs`] keeps the segments; the rest reads segments, each once, and stores extents as a
//! stream. The coordinator commits the file.
//!
//! Invariant: the file has exactly one row for each of the job's queries, or there is no file.
//! Bounds: those of [`runs`], and two extents of [`RESULT_EXTENT_BYTES`] plus a row.

mod runs;

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use idunno_shared::client::cluster::ClusterError;
use idunno_shared::client::files::{Files, PutError, SegmentError};
use idunno_shared::client::results::dead_row;
use idunno_shared::ids::{Digest, JobId, UploadId};
use idunno_shared::wire::blobs::PlacedBlob;
use idunno_shared::wire::control::{
    ControlReply, ControlRequest, DeadLetter, ITEMS_PER_REQUEST_MAX, JobState, JobView, SegmentView,
};
use idunno_shared::wire::jobs::MergedResults;
use thiserror::Error;

use self::runs::{RUNS_BYTES_MAX, Runs};
pub use self::runs::{RunError, Scratch};

/// An extent of this size is stored.
pub const RESULT_EXTENT_BYTES: usize = 16 << 20;

/// The results were not merged.
#[derive(Debug, Error)]
pub enum MergeError {
    #[error("cannot read the results of {job}: {source}")]
    Cluster { job: JobId, source: ClusterError },
    #[error("cannot read the results of {job}: {source}")]
    Segment { job: JobId, source: SegmentError },
    #[error("cannot store the results of {job}: {source}")]
    FileStore { job: JobId, source: PutError },
    #[error("cannot keep the results of {job}: {source}")]
    Runs { job: JobId, source: RunError },
    #[error("{job} is not done, so its results cannot be merged yet")]
    NotDone { job: JobId },
    #[error("the results of {job} are inconsistent: {source}")]
    Inconsistent { job: JobId, source: InconsistentResults },
    #[error("cannot read the results of {job}: the coordinator sent an unexpected reply")]
    UnexpectedReply { job: JobId },
}

/// Segments and dead letters do not cover each query exactly once.
#[derive(Debug, Error)]
pub enum InconsistentResults {
    #[error("query {0} is in two segments")]
    InTwoSegments(u64),
    #[error("query {0} has no row in its segment")]
    NoRow(u64),
    #[error("query {0} has neither a row nor a dead letter")]
    Missing(u64),
    #[error("a row is malformed: {0}")]
    MalformedRow(String),
    #[error("there are no rows")]
    Empty,
}

/// The queries of each segment, in the order of the queries.
#[derive(Debug, PartialEq, Eq)]
struct MergePlan {
    ranges: Vec<PlannedRange>,
    by_segment: Vec<Vec<Range<u64>>>,
}

#[derive(Debug, PartialEq, Eq)]
struct PlannedRange {
    queries: Range<u64>,
    /// Index of the segment.
    segment: usize,
}

impl MergePlan {
    fn new(segments: &[SegmentView]) -> Result<Self, InconsistentResults> {
        let ranges = segments.iter().enumerate().flat_map(|(segment, view)| {
            view.ranges.iter().map(move |range| PlannedRange { queries: range.queries(), segment })
        });
        let mut ranges: Vec<_> = ranges.collect();
        ranges.sort_unstable_by_key(|range| range.queries.start);
        let overlap = ranges.windows(2).find(|pair| pair[0].queries.end > pair[1].queries.start);
        if let Some(pair) = overlap {
            return Err(InconsistentResults::InTwoSegments(pair[1].queries.start));
        }
        let mut by_segment = vec![Vec::new(); segments.len()];
        for PlannedRange { queries, segment } in &ranges {
            by_segment[*segment].push(queries.clone());
        }
        Ok(Self { ranges, by_segment })
    }
}

/// Merges a job's results into a file and stores it.
pub async fn merge_results(files: &Files, scratch: Scratch, job: JobId) -> Result<MergedResults, MergeError> {
    let (view, segments) = list_segments(files, job).await?;
    let finished_ms = view.details.finished_ms.filter(|_| view.state == JobState::Done);
    let finished_ms = finished_ms.ok_or(MergeError::NotDone { job })?;
    let plan = MergePlan::new(&segments).map_err(|source| MergeError::Inconsistent { job, source })?;
    let mut transfer = ClusterTransfer {
        segments: &segments,
        dead_letters: DeadLetters { files, job, page: VecDeque::new(), from: 0, more: true },
        file: ResultFile {
            files,
            job,
            hasher: blake3::Hasher::new(),
            bytes: BytesMut::new(),
            size: 0,
            upload: None,
            extents: Vec::new(),
            first_queries: Vec::new(),
        },
    };
    let mut runs = Runs::new(scratch, RUNS_BYTES_MAX);
    merge(&mut transfer, &mut runs, job, plan, view.submitted).await?;
    transfer.file.finish(finished_ms).await
}

/// Hands all rows to the file, in the order of the queries.
async fn merge<T: Transfer>(
    transfer: &mut T,
    runs: &mut Runs,
    job: JobId,
    plan: MergePlan,
    submitted: u64,
) -> Result<(), MergeError> {
    let failed = |source| MergeError::Runs { job, source };
    let mut next = 0;
    for PlannedRange { queries, segment } in plan.ranges {
        for query in next..queries.start {
            transfer.add_dead(query).await?;
        }
        next = queries.end;
        if !runs.is_open(segment) {
            let rows = transfer.segment(segment).await?;
            runs.open(segment, rows, plan.by_segment[segment].clone()).await.map_err(failed)?;
        }
        let rows = runs.next(segment).await.map_err(failed)?;
        let missing = InconsistentResults::NoRow(queries.start);
        let rows = rows.ok_or(MergeError::Inconsistent { job, source: missing })?;
        for (query, row) in queries.zip(rows.split_inclusive(|&byte| byte == b'\n')) {
            transfer.add(query, row).await?;
        }
    }
    for query in next..submitted {
        transfer.add_dead(query).await?;
    }
    Ok(())
}

/// Where the rows come from and go to.
trait Transfer {
    /// Reads a segment.
    async fn segment(&mut self, segment: usize) -> Result<Bytes, MergeError>;
    /// Adds the row of a query, with its line end.
    async fn add(&mut self, query: u64, row: &[u8]) -> Result<(), MergeError>;
    /// Adds the row of a query that failed for good. Queries are asked for in order.
    async fn add_dead(&mut self, query: u64) -> Result<(), MergeError>;
}

struct ClusterTransfer<'a> {
    segments: &'a [SegmentView],
    dead_letters: DeadLetters<'a>,
    file: ResultFile<'a>,
}

impl Transfer for ClusterTransfer<'_> {
    async fn segment(&mut self, segment: usize) -> Result<Bytes, MergeError> {
        let read = self.file.files.fetch_segment(&self.segments[segment].segment).await;
        read.map_err(|source| MergeError::Segment { job: self.file.job, source })
    }

    async fn add(&mut self, query: u64, row: &[u8]) -> Result<(), MergeError> {
        self.file.add(query, row).await
    }

    async fn add_dead(&mut self, query: u64) -> Result<(), MergeError> {
        let row = dead_row(&self.dead_letters.dead_letter(query).await?);
        self.file.add(query, format!("{row}\n").as_bytes()).await
    }
}

/// A job, and the segments of its results in order of commit.
pub(super) async fn list_segments(
    files: &Files,
    job: JobId,
) -> Result<(JobView, Vec<SegmentView>), MergeError> {
    let mut all = Vec::new();
    loop {
        let request = ControlRequest::Results { job, skip: all.len() as u64, limit: page_limit() };
        let reply = files.cluster().control(request).await;
        match reply.map_err(|source| MergeError::Cluster { job, source })? {
            ControlReply::Results { segments, more, job: view } => {
                all.extend(segments);
                if !more {
                    return Ok((view, all));
                }
            }
            _ => return Err(MergeError::UnexpectedReply { job }),
        }
    }
}

fn page_limit() -> u32 {
    u32::try_from(ITEMS_PER_REQUEST_MAX).unwrap_or(u32::MAX)
}

/// Reads dead letters in query order, one page at a time.
struct DeadLetters<'a> {
    files: &'a Files,
    job: JobId,
    page: VecDeque<DeadLetter>,
    from: u64,
    more: bool,
}

impl DeadLetters<'_> {
    /// The dead letter of a query. Queries must be requested in order.
    async fn dead_letter(&mut self, query: u64) -> Result<DeadLetter, MergeError> {
        let job = self.job;
        while self.page.is_empty() && self.more {
            let request = ControlRequest::DeadLetters { job, from: self.from, limit: page_limit() };
            let reply = self.files.cluster().control(request).await;
            match reply.map_err(|source| MergeError::Cluster { job, source })? {
                ControlReply::DeadLetters { dead_letters, more } => {
                    self.more = more && !dead_letters.is_empty();
                    self.from = dead_letters.last().map_or(self.from, |dead_letter| dead_letter.index + 1);
                    self.page.extend(dead_letters);
                }
                _ => return Err(MergeError::UnexpectedReply { job }),
            }
        }
        let found = self.page.pop_front().filter(|dead_letter| dead_letter.index == query);
        found.ok_or(MergeError::Inconsistent { job, source: InconsistentResults::Missing(query) })
    }
}

/// The file while it is being written.
struct ResultFile<'a> {
    files: &'a Files,
    job: JobId,
    hasher: blake3::Hasher,
    bytes: BytesMut,
    size: u64,
    upload: Option<UploadId>,
    extents: Vec<PlacedBlob>,
    /// The query of the first row of each extent, the one that is being filled included.
    first_queries: Vec<u64>,
}

impl ResultFile<'_> {
    /// Adds a row. An extent ends with a row, so that extents can be read as segments.
    async fn add(&mut self, query: u64, row: &[u8]) -> Result<(), MergeError> {
        if self.bytes.is_empty() {
            self.first_queries.push(query);
        }
        self.bytes.extend_from_slice(row);
        if self.bytes.len() >= RESULT_EXTENT_BYTES { self.store().await } else { Ok(()) }
    }

    async fn store(&mut self) -> Result<(), MergeError> {
        let extent = self.bytes.split().freeze();
        self.hasher.update(&extent);
        self.size += extent.len() as u64;
        let stored = self.files.store_more(self.upload, vec![extent]).await;
        let stored = stored.map_err(|source| MergeError::FileStore { job: self.job, source })?;
        self.upload = Some(stored.upload);
        self.extents.extend(stored.blobs);
        Ok(())
    }

    async fn finish(mut self, finished_ms: u64) -> Result<MergedResults, MergeError> {
        if !self.bytes.is_empty() {
            self.store().await?;
        }
        let digest = Digest(*self.hasher.finalize().as_bytes());
        let Self { job, size, upload, extents, first_queries, .. } = self;
        let upload = upload.ok_or(MergeError::Inconsistent { job, source: InconsistentResults::Empty })?;
        Ok(MergedResults { upload, size, digest, extents, finished_ms, first_queries })
    }
}

#[cfg(test)]
mod tests {
    use idunno_shared::client::results::query_of;
    use idunno_shared::wire::blobs::BlobRef;
    use idunno_shared::wire::jobs::QueryRange;

    use super::*;

    fn segment(ranges: &[(u64, u32)]) -> SegmentView {
        let ranges = ranges.iter().map(|&(first, count)| QueryRange { first, count }).collect();
        let blob = BlobRef { digest: Digest::default(), size: 1 };
        SegmentView { segment: PlacedBlob { blob, holders: Vec::new() }, ranges }
    }

    #[test]
    fn ranges_are_ordered_by_query_across_segments() {
        let plan = MergePlan::new(&[segment(&[(4, 2), (8, 1)]), segment(&[(0, 4), (6, 2)])]).unwrap();
        let ranges: Vec<_> = plan.ranges.into_iter().map(|range| (range.queries, range.segment)).collect();
        assert_eq!(ranges, [(0..4, 1), (4..6, 0), (6..8, 1), (8..9, 0)]);
        assert_eq!(plan.by_segment, [vec![4..6, 8..9], vec![0..4, 6..8]]);
        let twice = MergePlan::new(&[segment(&[(0, 4)]), segment(&[(3, 1)])]).unwrap_err();
        assert!(twice.to_string().contains("query 3"), "{twice}");
    }

    /// Segments in memory, and the rows that were added.
    #[derive(Default)]
    struct MemoryTransfer {
        segments: Vec<Bytes>,
        reads: Vec<usize>,
        added: Vec<u64>,
    }

    impl Transfer for MemoryTransfer {
        async fn segment(&mut self, segment: usize) -> Result<Bytes, MergeError> {
            self.reads[segment] += 1;
            Ok(self.segments[segment].clone())
        }

        async fn add(&mut self, query: u64, row: &[u8]) -> Result<(), MergeError> {
            assert_eq!(query_of(row).unwrap(), query);
            self.added.push(query);
            Ok(())
        }

        async fn add_dead(&mut self, query: u64) -> Result<(), MergeError> {
            self.added.push(query);
            Ok(())
        }
    }

    /// 45 workers take batches of 10 in turn, and each fills a segment with 20 of them. The memory holds 5 segments.
    #[tokio::test]
    async fn each_segment_is_read_once_however_many_workers_took_turns() {
        const WORKERS: u64 = 45;
        let batches = |worker: u64, round: u64| {
            (0..20).map(move |batch| QueryRange {
                first: ((round * 20 + batch) * WORKERS + worker) * 10,
                count: 10,
            })
        };
        let of_round =
            |round: u64| (0..WORKERS).map(move |worker| batches(worker, round).collect::<Vec<_>>());
        let mut views: Vec<SegmentView> = Vec::new();
        let mut transfer = MemoryTransfer::default();
        for mut ranges in (0..3).flat_map(of_round) {
            // One query of all has failed for good, and is in no segment.
            if ranges[0].first == 0 {
                ranges[0] = QueryRange { first: 1, count: 9 };
            }
            // A worker's batches end in any order.
            let queries = ranges.iter().rev().flat_map(|range| range.queries());
            let rows: Vec<String> =
                queries.map(|query| format!("{{\"query\":{query},\"output\":\"{:100}\"}}\n", "")).collect();
            transfer.segments.push(rows.concat().into());
            transfer.reads.push(0);
            views.push(SegmentView { ranges, ..segment(&[]) });
        }
        let memory_max = 5 * transfer.segments[0].len();
        let folder = tempfile::tempdir().unwrap();
        let mut runs = Runs::new(Scratch::new(folder.path(), std::sync::Arc::new(|| u64::MAX)), memory_max);
        let submitted = 3 * WORKERS * 200;
        merge(&mut transfer, &mut runs, JobId(1), MergePlan::new(&views).unwrap(), submitted).await.unwrap();
        assert_eq!(transfer.added, (0..submitted).collect::<Vec<_>>());
        assert!(transfer.reads.iter().all(|reads| *reads == 1), "{:?}", transfer.reads);
    }
}
