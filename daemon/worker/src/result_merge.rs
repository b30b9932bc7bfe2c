//! Puts a finished job's results into one file: a row a query, in their order.
//!
//! [`Plan`] decides what stands where; the rest reads segments and stores extents while it goes. Nothing is committed
//! here: the coordinator does that.
//!
//! Invariant: the file has exactly one row for each of the job's queries, or there is no file.
//! Bounds: [`SEGMENT_BYTES_MAX`] of segments in memory, or a single larger one, and two extents of
//! [`RESULT_EXTENT_BYTES`] and a row.

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
use idunno_shared::wire::jobs::MergedResults;
use thiserror::Error;

/// Segments that are kept in memory, in bytes.
pub const SEGMENT_BYTES_MAX: usize = 64 << 20;
/// An extent of the file is stored from this size on, in bytes.
pub const RESULT_EXTENT_BYTES: usize = 16 << 20;

/// Why there is no file of results.
#[derive(Debug, Error)]
pub enum MergeError {
    /// The coordinator cannot be asked.
    #[error("cannot read the results of {job}: {source}")]
    Cluster {
        /// The job.
        job: JobId,
        /// Why.
        source: ClusterError,
    },
    /// A segment cannot be read.
    #[error("cannot read the results of {job}: {source}")]
    Segment {
        /// The job.
        job: JobId,
        /// Why.
        source: Unavailable,
    },
    /// The file cannot be stored.
    #[error("cannot store the results of {job}: {source}")]
    FileStore {
        /// The job.
        job: JobId,
        /// Why.
        source: PutError,
    },
    /// The job runs.
    #[error("{job} is not done: it has no results to be put into one file")]
    NotDone {
        /// The job.
        job: JobId,
    },
    /// What was read does not fit together.
    #[error("the results of {job}: {what}")]
    Wrong {
        /// The job.
        job: JobId,
        /// What is wrong.
        what: String,
    },
}

/// Which segment has which queries.
#[derive(Debug, PartialEq, Eq)]
struct Plan(Vec<(Range<u64>, usize)>);

impl Plan {
    /// In the queries' order; refused where a query is in two segments.
    fn new(segments: &[SegmentView]) -> Result<Self, String> {
        let ranges = segments.iter().enumerate().flat_map(|(place, segment)| {
            segment.ranges.iter().map(move |range| (range.first..range.end(), place))
        });
        let mut pieces: Vec<_> = ranges.collect();
        pieces.sort_unstable_by_key(|(range, _)| range.start);
        match pieces.windows(2).find(|pair| pair[0].0.end > pair[1].0.start) {
            Some(pair) => Err(format!("query {} is in two segments", pair[1].0.start)),
            None => Ok(Self(pieces)),
        }
    }
}

/// A segment's rows by query.
struct Rows {
    bytes: Bytes,
    places: BTreeMap<u64, Range<usize>>,
}

impl Rows {
    fn read(bytes: Bytes) -> Result<Self, String> {
        let (mut places, mut start) = (BTreeMap::new(), 0);
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            let end = start + line.len();
            let query = query_of(line).map_err(|error| format!("a row is none: {error}"))?;
            places.insert(query, start..end);
            start = end;
        }
        Ok(Self { bytes, places })
    }

    fn row(&self, query: u64) -> Option<&[u8]> {
        self.places.get(&query).map(|place| &self.bytes[place.clone()])
    }
}

/// Makes the file and stores it.
pub async fn merge_results(files: &Files, job: JobId) -> Result<MergedResults, MergeError> {
    let (view, segments) = segments(files, job).await?;
    let finished_ms = view.details.finished_ms.filter(|_| view.state == JobState::Done);
    let finished_ms = finished_ms.ok_or(MergeError::NotDone { job })?;
    let wrong = |what: String| MergeError::Wrong { job, what };
    let plan = Plan::new(&segments).map_err(wrong)?;
    let mut dead_letters = DeadLetters { files, job, page: VecDeque::new(), from: 0, more: true };
    let mut reader = Reader { files, job, segments: &segments, kept: VecDeque::new() };
    let mut file = File {
        files,
        job,
        hasher: blake3::Hasher::new(),
        bytes: BytesMut::new(),
        size: 0,
        upload: None,
        extents: Vec::new(),
    };
    let mut next = 0;
    for (range, place) in plan.0 {
        for query in next..range.start {
            file.add(dead_row(&dead_letters.dead_letter(query).await?).as_bytes()).await?;
        }
        next = range.end;
        let rows = reader.rows(place).await?;
        for query in range {
            let row = rows.row(query).ok_or_else(|| wrong(format!("query {query} has no row")))?;
            file.add(row.strip_suffix(b"\n").unwrap_or(row)).await?;
        }
    }
    for query in next..view.submitted {
        file.add(dead_row(&dead_letters.dead_letter(query).await?).as_bytes()).await?;
    }
    file.finish(finished_ms).await
}

async fn segments(files: &Files, job: JobId) -> Result<(JobView, Vec<SegmentView>), MergeError> {
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
            _ => return Err(out_of_turn(job)),
        }
    }
}

fn page_limit() -> u32 {
    u32::try_from(ITEMS_PER_REQUEST_MAX).unwrap_or(u32::MAX)
}

fn out_of_turn(job: JobId) -> MergeError {
    MergeError::Wrong { job, what: String::from("the coordinator answered out of turn") }
}

/// The dead letters in query order, a page at a time.
struct DeadLetters<'a> {
    files: &'a Files,
    job: JobId,
    page: VecDeque<DeadLetter>,
    from: u64,
    more: bool,
}

impl DeadLetters<'_> {
    /// The dead letter of a query; queries are asked for in order.
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
                _ => return Err(out_of_turn(job)),
            }
        }
        let found = self.page.pop_front().filter(|dead_letter| dead_letter.index == query);
        found.ok_or_else(|| MergeError::Wrong {
            job,
            what: format!("query {query} is neither answered nor dead"),
        })
    }
}

/// Segments as they are needed. The next one is mostly the last one or a new one, for workers take turns.
struct Reader<'a> {
    files: &'a Files,
    job: JobId,
    segments: &'a [SegmentView],
    /// The one used last behind.
    kept: VecDeque<(usize, Rows)>,
}

impl Reader<'_> {
    async fn rows(&mut self, place: usize) -> Result<&Rows, MergeError> {
        let job = self.job;
        let known = self.kept.iter().position(|(kept, _)| *kept == place);
        let rows = if let Some((_, rows)) = known.and_then(|at| self.kept.remove(at)) {
            rows
        } else {
            let bytes = self.files.fetch_blob(&self.segments[place].segment).await;
            let rows = Rows::read(bytes.map_err(|source| MergeError::Segment { job, source })?);
            rows.map_err(|what| MergeError::Wrong { job, what })?
        };
        self.kept.push_back((place, rows));
        while self.kept.len() > 1
            && self.kept.iter().map(|(_, rows)| rows.bytes.len()).sum::<usize>() > SEGMENT_BYTES_MAX
        {
            self.kept.pop_front();
        }
        let (_, rows) = self.kept.back().ok_or_else(|| out_of_turn(job))?;
        Ok(rows)
    }
}

/// The file while it is being made.
struct File<'a> {
    files: &'a Files,
    job: JobId,
    hasher: blake3::Hasher,
    bytes: BytesMut,
    size: u64,
    upload: Option<UploadId>,
    extents: Vec<PlacedBlob>,
}

impl File<'_> {
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

    async fn finish(mut self, finished_ms: u64) -> Result<MergedResults, MergeError> {
        if !self.bytes.is_empty() {
            self.store().await?;
        }
        let digest = Digest(*self.hasher.finalize().as_bytes());
        let Self { job, size, upload, extents, .. } = self;
        let upload =
            upload.ok_or_else(|| MergeError::Wrong { job, what: String::from("there are no rows") })?;
        Ok(MergedResults { upload, size, digest, extents, finished_ms })
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
    fn pieces_are_in_the_order_of_the_queries_whoever_wrote_them() {
        let plan = Plan::new(&[segment(&[(4, 2), (8, 1)]), segment(&[(0, 4), (6, 2)])]).unwrap();
        assert_eq!(plan.0, [(0..4, 1), (4..6, 0), (6..8, 1), (8..9, 0)]);
        let twice = Plan::new(&[segment(&[(0, 4)]), segment(&[(3, 1)])]).unwrap_err();
        assert!(twice.contains("query 3"), "{twice}");
    }

    #[test]
    fn rows_are_found_by_their_query() {
        let rows = Rows::read(Bytes::from_static(b"{\"query\":7,\"a\":1}\n{\"query\":3}\n")).unwrap();
        assert_eq!(rows.row(3), Some(&b"{\"query\":3}\n"[..]));
        assert_eq!(rows.row(4), None);
        assert!(Rows::read(Bytes::from_static(b"nonsense\n")).is_err());
    }
}
