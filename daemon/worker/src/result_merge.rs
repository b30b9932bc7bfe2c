//! Merges a finished job's segments into one file with a row per query, in order.
//!
//! `MergePlan` decides the order; the rest reads segments and stores extents as a stream. The coordinator commits the
//! file.
//!
//! Invariant: the file has exactly one row for each of the job's queries, or there is no file.
//! Bounds: [`SEGMENT_BYTES_MAX`] of segments in memory, or a single larger one, and two extents of
//! [`RESULT_EXTENT_BYTES`] plus a row.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use idunno_shared::client::cluster::ClusterError;
use idunno_shared::client::files::{Files, PutError, Unavailable};
use idunno_shared::client::results::{dead_row, query_of};
use idunno_shared::ids::{Digest, JobId, UploadId};
use idunno_shared::wire::blobs::PlacedBlob;
use idunno_shared::wire::control::{
    ControlReply, ControlRequest, DeadLetter, ITEMS_PER_REQUEST_MAX, JobState, JobView, SegmentView,
};
use idunno_shared::wire::jobs::CompactedResults;
use thiserror::Error;

/// Bytes of segments kept in memory.
pub const SEGMENT_BYTES_MAX: usize = 64 << 20;
/// An extent of this size is stored.
pub const RESULT_EXTENT_BYTES: usize = 16 << 20;

/// The results were not merged.
#[derive(Debug, Error)]
pub enum MergeError {
    #[error("cannot read the results of {job}: {source}")]
    Cluster { job: JobId, source: ClusterError },
    #[error("cannot read the results of {job}: {source}")]
    Segment { job: JobId, source: Unavailable },
    #[error("cannot store the results of {job}: {source}")]
    FileStore { job: JobId, source: PutError },
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
struct MergePlan(Vec<PlannedRange>);

#[derive(Debug, PartialEq, Eq)]
struct PlannedRange {
    queries: Range<u64>,
    /// Index of the segment.
    segment: usize,
}

impl MergePlan {
    fn new(segments: &[SegmentView]) -> Result<Self, InconsistentResults> {
        let ranges = segments.iter().enumerate().flat_map(|(segment, view)| {
            view.ranges.iter().map(move |range| PlannedRange { queries: range.first..range.end(), segment })
        });
        let mut ranges: Vec<_> = ranges.collect();
        ranges.sort_unstable_by_key(|range| range.queries.start);
        match ranges.windows(2).find(|pair| pair[0].queries.end > pair[1].queries.start) {
            Some(pair) => Err(InconsistentResults::InTwoSegments(pair[1].queries.start)),
            None => Ok(Self(ranges)),
        }
    }
}

/// A segment's rows by query.
struct SegmentRows {
    bytes: Bytes,
    /// The byte range of each row.
    rows: BTreeMap<u64, Range<usize>>,
}

impl SegmentRows {
    fn read(bytes: Bytes) -> Result<Self, InconsistentResults> {
        let mut rows = BTreeMap::new();
        let mut start = 0;
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            let end = start + line.len();
            let query =
                query_of(line).map_err(|error| InconsistentResults::MalformedRow(error.to_string()))?;
            rows.insert(query, start..end);
            start = end;
        }
        Ok(Self { bytes, rows })
    }

    fn row(&self, query: u64) -> Option<&[u8]> {
        self.rows.get(&query).map(|range| &self.bytes[range.clone()])
    }
}

/// Merges a job's results into a file and stores it.
pub async fn merge_results(files: &Files, job: JobId) -> Result<CompactedResults, MergeError> {
    let (view, segments) = list_segments(files, job).await?;
    let finished_ms = view.about.finished_ms.filter(|_| view.state == JobState::Done);
    let finished_ms = finished_ms.ok_or(MergeError::NotDone { job })?;
    let inconsistent = |source| MergeError::Inconsistent { job, source };
    let plan = MergePlan::new(&segments).map_err(inconsistent)?;
    let mut dead_letters = DeadLetters { files, job, page: VecDeque::new(), from: 0, more: true };
    let mut reader = SegmentReader { files, job, segments: &segments, recent: VecDeque::new() };
    let mut file = ResultFile {
        files,
        job,
        hasher: blake3::Hasher::new(),
        bytes: BytesMut::new(),
        size: 0,
        upload: None,
        extents: Vec::new(),
    };
    let mut next = 0;
    for PlannedRange { queries, segment } in plan.0 {
        for query in next..queries.start {
            file.add(dead_row(&dead_letters.dead_letter(query).await?).as_bytes()).await?;
        }
        next = queries.end;
        let rows = reader.rows(segment).await?;
        for query in queries {
            let row = rows.row(query).ok_or_else(|| inconsistent(InconsistentResults::NoRow(query)))?;
            file.add(row.strip_suffix(b"\n").unwrap_or(row)).await?;
        }
    }
    for query in next..view.submitted {
        file.add(dead_row(&dead_letters.dead_letter(query).await?).as_bytes()).await?;
    }
    file.finish(finished_ms).await
}

async fn list_segments(files: &Files, job: JobId) -> Result<(JobView, Vec<SegmentView>), MergeError> {
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

/// Reads segments on demand and keeps recent ones: workers alternate, so the next one was often used recently.
struct SegmentReader<'a> {
    files: &'a Files,
    job: JobId,
    segments: &'a [SegmentView],
    /// By index, the most recently used last.
    recent: VecDeque<(usize, SegmentRows)>,
}

impl SegmentReader<'_> {
    async fn rows(&mut self, segment: usize) -> Result<&SegmentRows, MergeError> {
        let job = self.job;
        let known = self.recent.iter().position(|(recent, _)| *recent == segment);
        let rows = if let Some((_, rows)) = known.and_then(|at| self.recent.remove(at)) {
            rows
        } else {
            let bytes = self.files.fetch_blob(&self.segments[segment].segment).await;
            let rows = SegmentRows::read(bytes.map_err(|source| MergeError::Segment { job, source })?);
            rows.map_err(|source| MergeError::Inconsistent { job, source })?
        };
        self.recent.push_back((segment, rows));
        while self.recent.len() > 1
            && self.recent.iter().map(|(_, rows)| rows.bytes.len()).sum::<usize>() > SEGMENT_BYTES_MAX
        {
            self.recent.pop_front();
        }
        let (_, rows) = self.recent.back().ok_or(MergeError::UnexpectedReply { job })?;
        Ok(rows)
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
}

impl ResultFile<'_> {
    async fn add(&mut self, row: &[u8]) -> Result<(), MergeError> {
        self.bytes.extend_from_slice(row);
        self.bytes.extend_from_slice(b"\n");
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

    async fn finish(mut self, finished_ms: u64) -> Result<CompactedResults, MergeError> {
        if !self.bytes.is_empty() {
            self.store().await?;
        }
        let digest = Digest(*self.hasher.finalize().as_bytes());
        let Self { job, size, upload, extents, .. } = self;
        let upload = upload.ok_or(MergeError::Inconsistent { job, source: InconsistentResults::Empty })?;
        Ok(CompactedResults { upload, size, digest, extents, finished_ms })
    }
}

#[cfg(test)]
mod tests {
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
        let ranges: Vec<_> = plan.0.into_iter().map(|range| (range.queries, range.segment)).collect();
        assert_eq!(ranges, [(0..4, 1), (4..6, 0), (6..8, 1), (8..9, 0)]);
        let twice = MergePlan::new(&[segment(&[(0, 4)]), segment(&[(3, 1)])]).unwrap_err();
        assert!(twice.to_string().contains("query 3"), "{twice}");
    }

    #[test]
    fn rows_are_found_by_their_query() {
        let rows = SegmentRows::read(Bytes::from_static(b"{\"query\":7,\"a\":1}\n{\"query\":3}\n")).unwrap();
        assert_eq!(rows.row(3), Some(&b"{\"query\":3}\n"[..]));
        assert_eq!(rows.row(4), None);
        assert!(SegmentRows::read(Bytes::from_static(b"nonsense\n")).is_err());
    }
}
