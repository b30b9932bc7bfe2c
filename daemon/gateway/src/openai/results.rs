//! The output and error files of a batch, as views of its job's results: read from the cluster while they are sent, never held whole.
//!
//! Segments that are merged into one file meanwhile are listed anew, and queries that were sent already are left out. If rows are missing in the
//! end, the connection breaks, so that nobody takes what came for all.
//!
//! Bounds: the rows of one segment, at most 64 MiB, for which room is taken before; a bit for each query.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::poll_fn;
use idunno_shared::ids::JobId;
use idunno_shared::wire::blobs::EXTENT_BYTES_MAX;
use idunno_shared::wire::control::{ControlReply, ControlRequest, JobView, SegmentView};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::error::{ApiError, ApiResult};
use super::ids::Part;
use super::rows::RowWriter;
use crate::errors::{of_cluster, unexpected};
use crate::memory::Memory;
use crate::store::Store;

/// Segments and dead letters in one request.
const PAGE: u32 = 256;
/// About how many bytes are sent at once.
const CHUNK_BYTES: usize = 256 << 10;
/// How long a segment is looked for: longer than any failover.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);
/// How long a program may take nothing.
const SILENCE_MAX: Duration = Duration::from_secs(50);

/// A file of results that is being read.
pub struct Reading {
    /// The cluster.
    pub store: Store,
    /// Room for segments.
    pub memory: Memory,
    /// The batch's job.
    pub job: JobId,
    /// Makes lines of rows.
    pub writer: RowWriter,
    /// Which rows.
    pub part: Part,
}

/// Whoever asked is gone, or the cluster does not answer.
enum Ended {
    Gone,
    Failed(String),
}

impl<E: Into<ApiError>> From<E> for Ended {
    fn from(failed: E) -> Self {
        Self::Failed(failed.into().message)
    }
}

/// How many segments were taken, and why not the next.
struct Taken {
    segments: u64,
    lost: Option<String>,
}

/// Lines on their way.
struct Sending {
    lines: Vec<u8>,
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl Sending {
    async fn send(&mut self, at_least: usize) -> Result<(), Ended> {
        if self.lines.len() < at_least.max(1) {
            return Ok(());
        }
        let lines = std::mem::take(&mut self.lines).into();
        match timeout(SILENCE_MAX, self.sender.send(Ok(lines))).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Ended::Gone),
        }
    }
}

/// Queries that were sent.
struct Sent {
    bits: Vec<u64>,
    count: u64,
}

impl Sent {
    fn new(queries: u64) -> Self {
        let words = usize::try_from(queries.div_ceil(64)).unwrap_or(usize::MAX);
        Self { bits: vec![0; words], count: 0 }
    }

    /// Whether a query is sent for the first time.
    fn is_first(&mut self, query: u64) -> bool {
        let word = usize::try_from(query / 64).ok().and_then(|word| self.bits.get_mut(word));
        let bit = 1 << (query % 64);
        match word {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                self.count += 1;
                true
            }
            _ => false,
        }
    }
}

impl Reading {
    /// The file's bytes as they come.
    pub fn stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
        let (sender, mut receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut sending = Sending { lines: Vec::new(), sender };
            let read = match self.part {
                Part::Output => self.answers(&mut sending).await,
                Part::Errors => self.failures(&mut sending).await,
            };
            if let Err(Ended::Failed(why)) = read {
                tracing::warn!(job = %self.job, why, "the results cannot be read to their end");
                let _ = sending.sender.send(Err(io::Error::other(why))).await;
            }
        });
        poll_fn(move |cx| receiver.poll_recv(cx))
    }

    async fn page(&self, skip: u64) -> ApiResult<(Vec<SegmentView>, bool, JobView)> {
        let request = ControlRequest::Results { job: self.job, skip, limit: PAGE };
        match self.store.files.cluster().control(request).await.map_err(of_cluster)? {
            ControlReply::Results { segments, more, job } => Ok((segments, more, job)),
            _ => Err(unexpected().into()),
        }
    }

    async fn answers(&self, sending: &mut Sending) -> Result<(), Ended> {
        let (mut skip, mut listed) = (0, None);
        let (mut arrived, mut sent) = (Instant::now(), None);
        loop {
            let (segments, more, job) = self.page(skip).await?;
            let sent = sent.get_or_insert_with(|| Sent::new(job.submitted));
            let list = Some((job.details.results.clone(), job.details.finished_ms));
            if skip > 0 && listed != list {
                (skip, listed) = (0, list);
                continue;
            }
            listed = list;
            let before = sent.count;
            let taken = self.take(sending, sent, &segments).await?;
            skip += taken.segments;
            if sent.count > before {
                arrived = Instant::now();
            }
            let is_whole_page = taken.lost.is_none();
            if is_whole_page && !more && sent.count >= job.done {
                return sending.send(1).await;
            }
            if is_whole_page && more && taken.segments > 0 {
                continue;
            }
            // A segment may have been copied elsewhere, or all merged: they are listed again.
            if arrived.elapsed() > PATIENCE {
                let rows = || format!("{} of {} rows are there", sent.count, job.done);
                return Err(Ended::Failed(taken.lost.unwrap_or_else(rows)));
            }
            if is_whole_page {
                skip = 0;
            }
            sleep(PAUSE).await;
        }
    }

    /// Sends the rows of segments, up to the first that no holder sends.
    async fn take(
        &self,
        sending: &mut Sending,
        sent: &mut Sent,
        segments: &[SegmentView],
    ) -> Result<Taken, Ended> {
        let mut taken = 0;
        for segment in segments {
            let _room = self.memory.take(EXTENT_BYTES_MAX).await;
            match self.store.files.fetch_segment(&segment.segment).await {
                Ok(rows) => self.send_rows(sending, sent, segment, &rows).await?,
                Err(lost) => return Ok(Taken { segments: taken, lost: Some(lost.to_string()) }),
            }
            taken += 1;
        }
        Ok(Taken { segments: taken, lost: None })
    }

    async fn send_rows(
        &self,
        sending: &mut Sending,
        sent: &mut Sent,
        segment: &SegmentView,
        rows: &[u8],
    ) -> Result<(), Ended> {
        let is_valid = |query| segment.ranges.iter().any(|range| range.queries().contains(&query));
        for row in rows.split(|byte| *byte == b'\n').filter(|row| !row.is_empty()) {
            self.writer
                .answer(&mut sending.lines, row, |query| is_valid(query) && sent.is_first(query))
                .map_err(|wrong| Ended::Failed(format!("a row is no result: {wrong}")))?;
            sending.send(CHUNK_BYTES).await?;
        }
        Ok(())
    }

    async fn failures(&self, sending: &mut Sending) -> Result<(), Ended> {
        let mut from = 0;
        loop {
            let request = ControlRequest::DeadLetters { job: self.job, from, limit: PAGE };
            let reply = self.store.files.cluster().control(request).await.map_err(of_cluster)?;
            let ControlReply::DeadLetters { dead_letters, more } = reply else {
                return Err(unexpected().into());
            };
            dead_letters.iter().for_each(|dead| self.writer.failure(&mut sending.lines, dead));
            sending.send(CHUNK_BYTES).await?;
            match dead_letters.last() {
                Some(last) if more => from = last.index + 1,
                _ => return sending.send(1).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_sent_once() {
        let mut sent = Sent::new(130);
        assert!([0, 63, 64, 129].into_iter().all(|query| sent.is_first(query)));
        assert!(![0, 63, 64, 129].into_iter().any(|query| sent.is_first(query)));
        assert!(!sent.is_first(1_000), "no query of the job");
        assert_eq!(sent.count, 4);
    }
}
