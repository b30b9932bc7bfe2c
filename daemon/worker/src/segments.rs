//! Groups the rows of finished batches into segments.
//!
//! Decides when rows become a segment: after [`AGE_MAX`], at [`SEGMENT_BYTES`] or [`SEGMENT_BATCHES`], or at once when the
//! caller flushes. Source: the design, section 8 (segments).
//!
//! Invariants: a segment holds the rows of one job; per job, one segment is in flight while the next one fills; a batch is
//! in exactly one segment until that is answered or the batch is cancelled.
//! Bounds: a segment exceeds [`SEGMENT_BYTES`] by at most one batch; it may hold more than [`SEGMENT_BATCHES`], because
//! everything that finished while the one before was in flight goes with it; the caller stops pulling at
//! [`BUFFERED_BYTES_MAX`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use idunno_shared::ids::JobId;
use idunno_shared::wire::jobs::{BatchOutcome, Lease, SEGMENT_BATCHES};
use tokio::time::Instant;

/// How long rows wait for more.
pub const AGE_MAX: Duration = Duration::from_secs(1);
/// A segment of this size is due at once.
pub const SEGMENT_BYTES: usize = 4 << 20;
/// Bytes of buffered rows beyond which no further batch is pulled.
pub const BUFFERED_BYTES_MAX: usize = 32 << 20;

/// Rows to store and commit together.
#[derive(Clone, Debug)]
pub struct RowSegment {
    pub job: JobId,
    /// The rows of each batch.
    pub rows: Vec<Vec<u8>>,
    pub batches: Vec<BatchOutcome>,
}

/// The rows of one job.
#[derive(Default)]
struct JobBuffer {
    waiting: VecDeque<FinishedBatch>,
    bytes: usize,
    /// When the oldest waiting batch was added.
    since: Option<Instant>,
    in_flight: bool,
}

struct FinishedBatch {
    outcome: BatchOutcome,
    rows: Vec<u8>,
}

impl JobBuffer {
    fn due_at(&self) -> Option<Instant> {
        let since = self.since.filter(|_| !self.in_flight)?;
        let is_full = self.bytes >= SEGMENT_BYTES || self.waiting.len() >= SEGMENT_BATCHES;
        Some(if is_full { since } else { since + AGE_MAX })
    }
}

/// All uncommitted rows that are not in flight.
#[derive(Default)]
pub struct Segments {
    jobs: BTreeMap<JobId, JobBuffer>,
}

impl Segments {
    pub fn add(&mut self, outcome: BatchOutcome, rows: Vec<u8>, now: Instant) {
        let buffer = self.jobs.entry(outcome.lease.job).or_default();
        buffer.bytes += rows.len();
        buffer.since.get_or_insert(now);
        buffer.waiting.push_back(FinishedBatch { outcome, rows });
    }

    /// Takes the next segment that is due; with `flush`, any rows are due. It is in flight until
    /// [`Segments::answered`].
    pub fn take_due(&mut self, flush: bool, now: Instant) -> Option<RowSegment> {
        let due = |buffer: &JobBuffer| buffer.due_at().is_some_and(|at| flush || at <= now);
        let (job, buffer) = self.jobs.iter_mut().find(|(_, buffer)| due(buffer))?;
        let (mut rows, mut bytes, mut batches) = (Vec::new(), 0, Vec::new());
        while bytes < SEGMENT_BYTES {
            let Some(batch) = buffer.waiting.pop_front() else { break };
            bytes += batch.rows.len();
            rows.push(batch.rows);
            batches.push(batch.outcome);
        }
        buffer.bytes -= bytes;
        buffer.since = (!buffer.waiting.is_empty()).then_some(now);
        buffer.in_flight = true;
        Some(RowSegment { job: *job, rows, batches })
    }

    /// Ends the flight of a job's segment, which was answered or abandoned.
    pub fn answered(&mut self, job: JobId) {
        if let Some(buffer) = self.jobs.get_mut(&job) {
            buffer.in_flight = false;
        }
        self.jobs.retain(|_, buffer| buffer.in_flight || !buffer.waiting.is_empty());
    }

    /// Drops the rows of batches that are not in flight.
    pub fn cancel(&mut self, leases: &BTreeSet<Lease>) {
        if leases.is_empty() {
            return;
        }
        for buffer in self.jobs.values_mut() {
            buffer.waiting.retain(|batch| !leases.contains(&batch.outcome.lease));
            buffer.bytes = buffer.waiting.iter().map(|batch| batch.rows.len()).sum();
            if buffer.waiting.is_empty() {
                buffer.since = None;
            }
        }
        self.jobs.retain(|_, buffer| buffer.in_flight || !buffer.waiting.is_empty());
    }

    /// When the next segment is due without a flush.
    pub fn next_due(&self) -> Option<Instant> {
        self.jobs.values().filter_map(JobBuffer::due_at).min()
    }

    /// Bytes of all buffered rows.
    pub fn bytes(&self) -> usize {
        self.jobs.values().map(|buffer| buffer.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use idunno_shared::ids::Term;
    use idunno_shared::wire::jobs::{QueryRange, TokenCount};

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
            tokens: TokenCount::default(),
        }
    }

    #[test]
    fn rows_are_due_by_age_size_number_or_flush() {
        let now = Instant::now();
        let mut segments = Segments::default();
        segments.add(outcome(1, 0), b"a\n".to_vec(), now);
        assert!(segments.take_due(false, now).is_none());
        assert_eq!(segments.next_due(), Some(now + AGE_MAX));
        segments.add(outcome(1, 1), b"b\n".to_vec(), now + AGE_MAX / 2);
        let segment = segments.take_due(false, now + AGE_MAX).unwrap();
        assert_eq!((segment.rows.concat(), segment.batches.len()), (b"a\nb\n".to_vec(), 2));
        segments.answered(JobId(1));
        segments.add(outcome(2, 0), vec![b'\n'; SEGMENT_BYTES], now);
        assert!(segments.take_due(false, now).is_some(), "large enough");
        segments.answered(JobId(2));
        for first in 0..SEGMENT_BATCHES as u64 {
            assert!(segments.take_due(false, now).is_none());
            segments.add(outcome(3, first), b"d\n".to_vec(), now);
        }
        assert_eq!(
            segments.take_due(false, now).unwrap().batches.len(),
            SEGMENT_BATCHES,
            "of enough batches"
        );
        segments.answered(JobId(3));
        segments.add(outcome(1, 2), b"c\n".to_vec(), now);
        assert!(segments.take_due(true, now).is_some(), "flushed");
        assert!(segments.take_due(true, now).is_none(), "nothing left");
    }

    #[test]
    fn one_segment_per_job_is_in_flight_while_the_next_fills() {
        let now = Instant::now();
        let mut segments = Segments::default();
        for first in 0..3 {
            segments.add(outcome(1, first), vec![b'\n'; SEGMENT_BYTES], now);
        }
        segments.add(outcome(2, 0), b"x\n".to_vec(), now);
        assert_eq!(segments.take_due(true, now).unwrap().batches.len(), 1, "not all at once");
        assert_eq!(segments.take_due(true, now).unwrap().job, JobId(2), "another job's");
        assert!(segments.take_due(true, now).is_none());
        segments.answered(JobId(1));
        assert_eq!(segments.take_due(true, now).unwrap().batches[0].lease.range.first, 1);
        assert_eq!(segments.bytes(), SEGMENT_BYTES);
    }

    #[test]
    fn cancelled_rows_are_dropped() {
        let now = Instant::now();
        let mut segments = Segments::default();
        segments.add(outcome(1, 0), b"a\n".to_vec(), now);
        segments.add(outcome(1, 1), b"b\n".to_vec(), now);
        segments.cancel(&[outcome(1, 0).lease].into());
        assert_eq!(segments.take_due(true, now).unwrap().rows.concat(), b"b\n");
        segments.answered(JobId(1));
        segments.add(outcome(1, 2), b"c\n".to_vec(), now);
        segments.cancel(&[outcome(1, 2).lease].into());
        assert_eq!((segments.next_due(), segments.bytes()), (None, 0));
    }
}
