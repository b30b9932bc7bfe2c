//! Result rows on their way to the store: what has run, cut into segments.
//!
//! Decides when rows become a segment: after [`AGE_MAX`], at [`SEGMENT_BYTES`] or [`SEGMENT_BATCHES`], or at once when
//! nothing else is to be waited for. Source: the design, section 8 (segments).
//!
//! Invariants: a segment holds one job's rows; one segment a job is on its way at a time, the next fills meanwhile; a
//! batch is in exactly one place until its segment is answered or the batch is dropped.
//! Bounds: a segment is smaller than [`SEGMENT_BYTES`] and one batch more, and has no more batches than are held, for what
//! came while the one before was stored goes with it; the caller stops pulling at
//! [`BUFFERED_BYTES_MAX`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use idunno_shared::ids::JobId;
use idunno_shared::wire::jobs::{BatchOutcome, Lease, SEGMENT_BATCHES};
use tokio::time::Instant;

/// How long rows wait for company.
pub const AGE_MAX: Duration = Duration::from_secs(1);
/// A segment of this size goes at once, in bytes.
pub const SEGMENT_BYTES: usize = 4 << 20;
/// Rows that may wait in all: beyond, no further batch is wanted. In bytes.
pub const BUFFERED_BYTES_MAX: usize = 32 << 20;

/// Rows to store and commit together.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The job.
    pub job: JobId,
    /// The rows of all batches.
    pub rows: Bytes,
    /// The batches.
    pub batches: Vec<BatchOutcome>,
}

#[derive(Default)]
struct Buffer {
    waiting: VecDeque<(BatchOutcome, Vec<u8>)>,
    bytes: usize,
    since: Option<Instant>,
    on_its_way: bool,
}

impl Buffer {
    fn due_at(&self) -> Option<Instant> {
        let since = self.since.filter(|_| !self.on_its_way)?;
        let is_full = self.bytes >= SEGMENT_BYTES || self.waiting.len() >= SEGMENT_BATCHES;
        Some(if is_full { since } else { since + AGE_MAX })
    }
}

/// All rows without a commit that are not on their way.
#[derive(Default)]
pub struct Segments {
    jobs: BTreeMap<JobId, Buffer>,
}

impl Segments {
    /// Adds a batch that ran.
    pub fn add(&mut self, outcome: BatchOutcome, rows: Vec<u8>, now: Instant) {
        let buffer = self.jobs.entry(outcome.lease.job).or_default();
        buffer.bytes += rows.len();
        buffer.since.get_or_insert(now);
        buffer.waiting.push_back((outcome, rows));
    }

    /// Cuts the next segment that is due; with `flush`, any rows are due. It counts as on its way until
    /// [`Segments::answered`].
    pub fn cut(&mut self, flush: bool, now: Instant) -> Option<Segment> {
        let due = |buffer: &Buffer| buffer.due_at().is_some_and(|at| flush || at <= now);
        let (job, buffer) = self.jobs.iter_mut().find(|(_, buffer)| due(buffer))?;
        let (mut rows, mut batches) = (Vec::with_capacity(buffer.bytes.min(SEGMENT_BYTES)), Vec::new());
        while rows.len() < SEGMENT_BYTES {
            let Some((outcome, batch)) = buffer.waiting.pop_front() else { break };
            rows.extend_from_slice(&batch);
            batches.push(outcome);
        }
        buffer.bytes -= rows.len();
        buffer.since = (!buffer.waiting.is_empty()).then_some(now);
        buffer.on_its_way = true;
        Some(Segment { job: *job, rows: rows.into(), batches })
    }

    /// A job's segment has its answer, or was given up: the next may go.
    pub fn answered(&mut self, job: JobId) {
        if let Some(buffer) = self.jobs.get_mut(&job) {
            buffer.on_its_way = false;
        }
        self.jobs.retain(|_, buffer| buffer.on_its_way || !buffer.waiting.is_empty());
    }

    /// Drops batches' rows, if they are not on their way.
    pub fn cancel(&mut self, leases: &BTreeSet<Lease>) {
        if leases.is_empty() {
            return;
        }
        for buffer in self.jobs.values_mut() {
            buffer.waiting.retain(|(outcome, _)| !leases.contains(&outcome.lease));
            buffer.bytes = buffer.waiting.iter().map(|(_, rows)| rows.len()).sum();
            if buffer.waiting.is_empty() {
                buffer.since = None;
            }
        }
        self.jobs.retain(|_, buffer| buffer.on_its_way || !buffer.waiting.is_empty());
    }

    /// When the next segment is due without a flush.
    pub fn next_due(&self) -> Option<Instant> {
        self.jobs.values().filter_map(Buffer::due_at).min()
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.jobs.values().map(|buffer| buffer.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use idunno_shared::ids::Term;
    use idunno_shared::wire::jobs::QueryRange;

    use super::*;

    fn outcome(job: u64, first: u64) -> BatchOutcome {
        let range = QueryRange { first, count: 1 };
        let lease = Lease { job: JobId(job), range, attempt: 1, term: Term(1) };
        BatchOutcome {
            lease,
            answered: vec![range],
            inference_us: 1,
            labelled: 0,
            correct: 0,
            local: 0,
            refused: 0,
        }
    }

    #[test]
    fn rows_go_by_age_size_number_or_flush() {
        let now = Instant::now();
        let mut segments = Segments::default();
        segments.add(outcome(1, 0), b"a\n".to_vec(), now);
        assert!(segments.cut(false, now).is_none());
        assert_eq!(segments.next_due(), Some(now + AGE_MAX));
        segments.add(outcome(1, 1), b"b\n".to_vec(), now + AGE_MAX / 2);
        let segment = segments.cut(false, now + AGE_MAX).unwrap();
        assert_eq!((&segment.rows[..], segment.batches.len()), (&b"a\nb\n"[..], 2));
        segments.answered(JobId(1));
        segments.add(outcome(2, 0), vec![b'\n'; SEGMENT_BYTES], now);
        assert!(segments.cut(false, now).is_some(), "large enough");
        segments.answered(JobId(2));
        for first in 0..SEGMENT_BATCHES as u64 {
            assert!(segments.cut(false, now).is_none());
            segments.add(outcome(3, first), b"d\n".to_vec(), now);
        }
        assert_eq!(segments.cut(false, now).unwrap().batches.len(), SEGMENT_BATCHES, "of enough batches");
        segments.answered(JobId(3));
        segments.add(outcome(1, 2), b"c\n".to_vec(), now);
        assert!(segments.cut(true, now).is_some(), "flushed");
        assert!(segments.cut(true, now).is_none(), "nothing left");
    }

    #[test]
    fn one_segment_a_job_is_on_its_way_and_the_next_fills() {
        let now = Instant::now();
        let mut segments = Segments::default();
        for first in 0..3 {
            segments.add(outcome(1, first), vec![b'\n'; SEGMENT_BYTES], now);
        }
        segments.add(outcome(2, 0), b"x\n".to_vec(), now);
        assert_eq!(segments.cut(true, now).unwrap().batches.len(), 1, "not all at once");
        assert_eq!(segments.cut(true, now).unwrap().job, JobId(2), "another job's");
        assert!(segments.cut(true, now).is_none());
        segments.answered(JobId(1));
        assert_eq!(segments.cut(true, now).unwrap().batches[0].lease.range.first, 1);
        assert_eq!(segments.bytes(), SEGMENT_BYTES);
    }

    #[test]
    fn cancelled_rows_are_dropped() {
        let now = Instant::now();
        let mut segments = Segments::default();
        segments.add(outcome(1, 0), b"a\n".to_vec(), now);
        segments.add(outcome(1, 1), b"b\n".to_vec(), now);
        segments.cancel(&[outcome(1, 0).lease].into());
        assert_eq!(&segments.cut(true, now).unwrap().rows[..], b"b\n");
        segments.answered(JobId(1));
        segments.add(outcome(1, 2), b"c\n".to_vec(), now);
        segments.cancel(&[outcome(1, 2).lease].into());
        assert_eq!((segments.next_due(), segments.bytes()), (None, 0));
    }
}
