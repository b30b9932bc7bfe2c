//! A job's rows as they are committed, until the job is done.
//!
//! Each answered query's row is given once, in the order of its commit; a dead letter's when it is seen, so that one that
//! was run again may be followed by an answer. A cluster without a coordinator is waited out, and so is a segment that no
//! holder sends: it may have been copied elsewhere, or its rows are in a file of merged results.
//!
//! Bounds: [`segments_at_once`] segments are in memory, and the numbers of the dead letters seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, sleep};

use super::dead_letters::dead_letters;
use super::{dead_row, query_of};
use crate::client::cluster::ClusterError;
use crate::client::files::Files;
use crate::ids::{Digest, JobId};
use crate::wire::blobs::PlacedBlob;
use crate::wire::control::{
    ControlReply, ControlRequest, DeadLetter, ITEMS_PER_REQUEST_MAX, JobState, JobView, SegmentView,
};
use crate::wire::jobs::QueryRange;
use crate::wire::refusal::Refusal;

/// Most segments that are fetched concurrently.
const SEGMENTS_IN_FLIGHT: usize = 16;
/// Most bytes of segments that are fetched concurrently, unless it is one: merged results have larger ones.
const BYTES_IN_FLIGHT: u64 = 64 << 20;
/// The pause between two looks at a job without news.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// Why no further rows of a job are given.
#[derive(Debug, Error)]
pub enum RowsError {
    /// The coordinator refused: there is no such job, for example.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A segment has a line that is no row.
    #[error("segment {digest}: {reason}")]
    Malformed {
        /// The segment's blob.
        digest: Digest,
        /// What is wrong with the line.
        reason: String,
    },
    /// The job is stopped, paused or cancelled: it commits nothing until a person starts it again.
    #[error("{} goes on only if it is started again", .0.id)]
    Halted(Box<JobView>),
    /// Nothing came for as long as was allowed: what was waited for.
    #[error("{0}")]
    Silent(String),
}

/// How many of these segments are fetched concurrently: at least one.
pub fn segments_at_once(segments: &[SegmentView]) -> usize {
    let mut bytes = 0;
    let fits = segments.iter().take(SEGMENTS_IN_FLIGHT).take_while(|view| {
        bytes += view.segment.blob.size;
        bytes <= BYTES_IN_FLIGHT
    });
    fits.count().max(1)
}

/// Which list of segments a job has. It grows while the job runs; results that are merged become another one.
#[derive(Debug, PartialEq, Eq)]
pub struct SegmentList {
    is_merged: bool,
    /// Differs between a job's ends, if dead queries were retried.
    finished_ms: Option<u64>,
}

impl SegmentList {
    /// The list that a job has in this view.
    pub fn of(view: &JobView) -> Self {
        let details = &view.details;
        let is_merged = details.results.is_some();
        Self { is_merged, finished_ms: details.finished_ms.filter(|_| is_merged) }
    }
}

/// The rows of one job.
pub struct RowStream {
    files: Files,
    job: JobId,
    only_failed: bool,
    silence_max: Option<Duration>,
    view: Option<JobView>,
    listed: Option<SegmentList>,
    /// Segments of the list that were read.
    skip: u64,
    /// Segments that follow them, as far as they are known.
    next: VecDeque<SegmentView>,
    given: QuerySet,
    dead: BTreeSet<u64>,
    last_news: Instant,
}

/// What a look at the job found.
enum Look {
    /// Rows of dead letters, or segments: perhaps none yet.
    News(Vec<String>),
    /// The job is done, and all rows were given.
    End,
    /// Nothing, and what is waited for.
    Nothing(String),
}

impl RowStream {
    /// The rows of a job, from its first.
    pub fn new(files: Files, job: JobId) -> Self {
        Self {
            files,
            job,
            only_failed: false,
            silence_max: None,
            view: None,
            listed: None,
            skip: 0,
            next: VecDeque::new(),
            given: QuerySet::default(),
            dead: BTreeSet::new(),
            last_news: Instant::now(),
        }
    }

    /// The same stream, of queries that failed permanently only.
    #[must_use]
    pub fn only_failed(mut self, only_failed: bool) -> Self {
        self.only_failed = only_failed;
        self
    }

    /// The same stream, which fails once nothing has come for so long.
    #[must_use]
    pub fn silence_max(mut self, limit: Option<Duration>) -> Self {
        self.silence_max = limit;
        self
    }

    /// The job as it was last seen. It is known when the first rows are.
    pub fn view(&self) -> Option<&JobView> {
        self.view.as_ref()
    }

    /// The next rows, as they are stored and without line ends; never none of them. `None` once the job is done and all
    /// were given.
    pub async fn next(&mut self) -> Result<Option<Vec<String>>, RowsError> {
        loop {
            let awaited = if self.next.is_empty() {
                match self.look().await? {
                    Look::End => return Ok(None),
                    Look::News(rows) if rows.is_empty() => continue,
                    Look::News(rows) => return Ok(Some(rows)),
                    Look::Nothing(awaited) => awaited,
                }
            } else {
                let read = self.read().await?;
                if !read.rows.is_empty() {
                    return Ok(Some(read.rows));
                }
                match read.missing {
                    None => continue,
                    Some(missing) => {
                        // Located again.
                        self.next.clear();
                        missing
                    }
                }
            };
            if self.silence_max.is_some_and(|limit| self.last_news.elapsed() >= limit) {
                return Err(RowsError::Silent(awaited));
            }
            sleep(LOOK_PERIOD).await;
        }
    }

    async fn look(&mut self) -> Result<Look, RowsError> {
        let request = ControlRequest::Results { job: self.job, skip: self.skip, limit: page_limit() };
        let (segments, more, view) = match self.files.cluster().control(request).await {
            Ok(ControlReply::Results { segments, more, job }) => (segments, more, job),
            Ok(_) => return Err(unexpected().into()),
            Err(error) if error.is_unreachable() => return Ok(Look::Nothing(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        let list = SegmentList::of(&view);
        if self.listed.as_ref() != Some(&list) {
            self.listed = Some(list);
            if self.skip > 0 {
                // Other segments have the same rows.
                self.skip = 0;
                return Ok(Look::News(Vec::new()));
            }
        }
        let is_last = segments.is_empty() && !more;
        self.next = segments.into();
        self.view = Some(view.clone());
        let dead_letters = match self.new_dead_letters(&view).await {
            Ok(dead_letters) => dead_letters,
            Err(error) if error.is_unreachable() => return Ok(Look::Nothing(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        if !dead_letters.is_empty() {
            self.last_news = Instant::now();
            self.dead.extend(dead_letters.iter().map(|dead_letter| dead_letter.index));
            return Ok(Look::News(dead_letters.iter().map(dead_row).collect()));
        }
        if !is_last {
            return Ok(Look::News(Vec::new()));
        }
        match view.state {
            JobState::Done => Ok(Look::End),
            JobState::Stopped | JobState::Paused(_) | JobState::Cancelled => {
                Err(RowsError::Halted(Box::new(view)))
            }
            _ => Ok(Look::Nothing(format!("{} committed no further rows", self.job))),
        }
    }

    /// Dead letters that were not given yet.
    async fn new_dead_letters(&self, view: &JobView) -> Result<Vec<DeadLetter>, ClusterError> {
        if view.dead == self.dead.len() as u64 {
            return Ok(Vec::new());
        }
        let mut found = dead_letters(self.files.cluster(), self.job).await?;
        found.retain(|dead_letter| !self.dead.contains(&dead_letter.index));
        Ok(found)
    }

    /// Reads segments in their order, up to the first that no holder sends.
    async fn read(&mut self) -> Result<Read, RowsError> {
        let wanted = segments_at_once(self.next.make_contiguous());
        let group: Vec<SegmentView> = self.next.iter().take(wanted).cloned().collect();
        let is_wanted = |segment: &&SegmentView| {
            !self.only_failed && !segment.ranges.iter().all(|range| self.given.has_all(range))
        };
        let placed: Vec<PlacedBlob> =
            group.iter().filter(is_wanted).map(|segment| segment.segment.clone()).collect();
        let read: Vec<bool> = group.iter().map(|segment| is_wanted(&segment)).collect();
        let mut fetched = self.files.fetch_segments(&placed).await.into_iter();
        let mut rows = Vec::new();
        for (segment, is_read) in group.iter().zip(read) {
            if is_read {
                match fetched.next() {
                    Some(Ok(bytes)) => rows.extend(self.new_rows(&bytes, segment)?),
                    Some(Err(error)) => return Ok(Read { rows, missing: Some(error.to_string()) }),
                    None => break,
                }
                segment.ranges.iter().for_each(|range| self.given.insert(range));
            }
            self.next.pop_front();
            self.skip += 1;
            self.last_news = Instant::now();
        }
        Ok(Read { rows, missing: None })
    }

    /// The rows of a segment that lie within its ranges and were not given.
    fn new_rows(&self, bytes: &[u8], segment: &SegmentView) -> Result<Vec<String>, RowsError> {
        let is_new = |query: u64| {
            !self.given.contains(query) && segment.ranges.iter().any(|range| range.queries().contains(&query))
        };
        let wrong = |reason: String| RowsError::Malformed { digest: segment.segment.blob.digest, reason };
        let mut rows = Vec::new();
        for line in bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            if is_new(query_of(line).map_err(|error| wrong(error.to_string()))?) {
                rows.push(String::from_utf8(line.to_vec()).map_err(|error| wrong(error.to_string()))?);
            }
        }
        Ok(rows)
    }
}

struct Read {
    rows: Vec<String>,
    /// Why the next segment could not be fetched.
    missing: Option<String>,
}

fn page_limit() -> u32 {
    u32::try_from(ITEMS_PER_REQUEST_MAX).unwrap_or(u32::MAX)
}

fn unexpected() -> ClusterError {
    Refusal::internal("unexpected reply of the coordinator to a request for results").into()
}

/// The queries whose rows were given, as the ends of disjoint ranges by their first query.
#[derive(Debug, Default)]
struct QuerySet(BTreeMap<u64, u64>);

impl QuerySet {
    fn end_of(&self, query: u64) -> Option<u64> {
        self.0.range(..=query).next_back().map(|(_, &end)| end).filter(|end| *end > query)
    }

    fn contains(&self, query: u64) -> bool {
        self.end_of(query).is_some()
    }

    fn has_all(&self, range: &QueryRange) -> bool {
        self.end_of(range.first).is_some_and(|end| end >= range.end())
    }

    /// Adds a range, and joins it with those that it meets.
    fn insert(&mut self, range: &QueryRange) {
        let (mut first, mut end) = (range.first, range.end());
        while let Some((&met, &met_end)) =
            self.0.range(..=end).next_back().filter(|(_, met_end)| **met_end >= first)
        {
            self.0.remove(&met);
            (first, end) = (first.min(met), end.max(met_end));
        }
        self.0.insert(first, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_given_rows_are_joined() {
        let mut given = QuerySet::default();
        let range = |first, count| QueryRange { first, count };
        for (first, count) in [(10, 5), (0, 3), (20, 1), (15, 5), (3, 7)] {
            assert!(!given.has_all(&range(first, count)));
            given.insert(&range(first, count));
            assert!(given.has_all(&range(first, count)));
        }
        assert_eq!(given.0, BTreeMap::from([(0, 21)]));
        assert!(given.contains(20) && !given.contains(21) && !given.has_all(&range(19, 3)));
        given.insert(&range(5, 4));
        assert_eq!(given.0, BTreeMap::from([(0, 21)]), "what was there already");
    }
}
