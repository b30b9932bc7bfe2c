//! The rows of a job whose results are merged: in query order, and never all of them in memory.
//!
//! Once a job is done its results are merged, and its segments are in the order of the queries. Dead letters are put in
//! where they belong. Every query must have exactly one row. Bounds: the dead letters are in memory, and the segments that
//! are fetched at once.

use std::iter::Peekable;
use std::path::{Path, PathBuf};

use idunno_shared::client::files::atomic_file::GrowingFile;
use idunno_shared::client::results::{SegmentList, dead_letters, dead_row, query_of, segments_at_once};
use idunno_shared::ids::JobId;
use idunno_shared::wire::blobs::PlacedBlob;
use idunno_shared::wire::control::{
    ControlReply, ControlRequest, DeadLetter, JobState, JobView, SegmentView,
};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::{ResultsError, csv};
use crate::answer::Failure;
use crate::command::values::RowFormat;
use crate::execute::pages::page_limit;
use crate::execute::wait::{Look, look, pause};
use crate::session::Session;

/// Whether the job's rows can be read in query order.
pub(super) fn is_merged(view: &JobView) -> bool {
    view.state == JobState::Done && view.details.results.is_some()
}

/// Where rows go, with their line ends.
pub(super) enum Out<F> {
    /// A function that prints them.
    Printed(F),
    /// A local file, and its path.
    File(GrowingFile, PathBuf),
}

impl<F: Fn(&str) -> Result<(), Failure>> Out<F> {
    /// Into the file at `path`.
    pub(super) async fn file(path: &Path) -> Result<Self, Failure> {
        let (path, made) = (path.to_owned(), path.to_owned());
        match spawn_blocking(move || GrowingFile::create(&made)).await.map_err(|error| broken(&error))? {
            Ok(file) => Ok(Self::File(file, path)),
            Err(error) => Err(Failure::target(&path, &error)),
        }
    }

    async fn take(self, text: String) -> Result<Self, Failure> {
        match self {
            Self::Printed(print) => print(&text).map(|()| Self::Printed(print)),
            Self::File(mut file, path) => {
                let write = move || file.append(text.as_bytes()).map(|()| file);
                match spawn_blocking(write).await.map_err(|error| broken(&error))? {
                    Ok(file) => Ok(Self::File(file, path)),
                    Err(error) => Err(Failure::target(&path, &error)),
                }
            }
        }
    }

    async fn finish(self) -> Result<(), Failure> {
        let Self::File(file, path) = self else { return Ok(()) };
        let finished = spawn_blocking(move || file.finish()).await.map_err(|error| broken(&error))?;
        finished.map_err(|error| Failure::target(&path, &error))
    }
}

fn broken(error: &tokio::task::JoinError) -> Failure {
    Failure::error(error.to_string())
}

/// Writes all rows of a job whose results are merged. Fails if they change meanwhile.
pub(super) async fn write<F: Fn(&str) -> Result<(), Failure>>(
    session: &Session,
    view: &JobView,
    format: RowFormat,
    mut out: Out<F>,
) -> Result<(), Failure> {
    let (job, listed) = (view.id, SegmentList::of(view));
    let mut rows = Rows::new(view, dead_letters(&session.cluster(), job).await?, format);
    let (mut skip, mut started) = (0, Instant::now());
    let progress = session.reporter.start("rows", view.submitted, 0);
    out = out.take(rows.header()?).await?;
    loop {
        let late = match look(page(session, job, skip).await)? {
            Look::Unreachable(reason) => reason,
            Look::Found(Page { view, .. }) if SegmentList::of(&view) != listed => {
                return Err(Failure::error(format!("{job} was run again meanwhile: get its results again")));
            }
            Look::Found(Page { segments, more, .. }) => {
                let mut missing = None;
                let mut rest = &segments[..];
                while missing.is_none() && !rest.is_empty() {
                    let (group, later) = rest.split_at(segments_at_once(rest));
                    rest = later;
                    let placed: Vec<PlacedBlob> = group.iter().map(|view| view.segment.clone()).collect();
                    for (fetched, segment) in
                        session.files().fetch_segments(&placed).await.into_iter().zip(group)
                    {
                        let bytes = match fetched {
                            Ok(bytes) => bytes,
                            Err(unavailable) => {
                                missing = Some(unavailable.to_string());
                                break;
                            }
                        };
                        let before = rows.next;
                        out = out.take(rows.of_segment(&bytes, segment)?).await?;
                        (before..rows.next).for_each(|_| progress.file());
                        (skip, started) = (skip + 1, Instant::now());
                    }
                }
                match missing {
                    None if more => continue,
                    None => break,
                    Some(missing) => missing,
                }
            }
        };
        pause(session, started, &late).await?;
    }
    out = out.take(rows.rest()?).await?;
    out.finish().await
}

struct Page {
    segments: Vec<SegmentView>,
    /// Whether segments follow.
    more: bool,
    view: JobView,
}

/// The job's segments after the first `skip`.
async fn page(session: &Session, job: JobId, skip: u64) -> Result<Page, Failure> {
    let request = ControlRequest::Results { job, skip, limit: page_limit() };
    match session.cluster().control(request).await? {
        ControlReply::Results { segments, more, job: view } => Ok(Page { segments, more, view }),
        _ => Err(Failure::unexpected()),
    }
}

/// Rows in query order.
struct Rows {
    job: JobId,
    dead: Peekable<std::vec::IntoIter<DeadLetter>>,
    /// The query whose row comes next.
    next: u64,
    submitted: u64,
    format: RowFormat,
    columns: csv::Columns,
}

impl Rows {
    fn new(view: &JobView, dead: Vec<DeadLetter>, format: RowFormat) -> Self {
        let (job, submitted) = (view.id, view.submitted);
        Self {
            job,
            dead: dead.into_iter().peekable(),
            next: 0,
            submitted,
            format,
            columns: csv::Columns::of(view),
        }
    }

    fn header(&self) -> Result<String, Failure> {
        match self.format {
            RowFormat::Jsonl | RowFormat::Parquet => Ok(String::new()),
            RowFormat::Csv => Ok(self.columns.header()? + "\n"),
        }
    }

    /// The rows of a segment within its ranges, and those of the dead letters before them.
    fn of_segment(&mut self, bytes: &[u8], segment: &SegmentView) -> Result<String, Failure> {
        let mut text = String::with_capacity(bytes.len());
        let wrong = |why: String| Failure::error(format!("segment {}: {why}", segment.segment.blob.digest));
        let mut ranges = segment.ranges.iter().peekable();
        for line in bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let query = query_of(line).map_err(|error| wrong(error.to_string()))?;
            while ranges.next_if(|range| range.end() <= query).is_some() {}
            if ranges.peek().is_none_or(|range| query < range.first) {
                continue;
            }
            self.dead_before(query, &mut text)?;
            self.check(query)?;
            let row = std::str::from_utf8(line).map_err(|error| wrong(error.to_string()))?;
            self.push(row, &mut text)?;
        }
        Ok(text)
    }

    /// The rows of the dead letters after the last segment.
    fn rest(&mut self) -> Result<String, Failure> {
        let mut text = String::new();
        self.dead_before(self.submitted, &mut text)?;
        self.check(self.submitted)?;
        Ok(text)
    }

    fn dead_before(&mut self, query: u64, text: &mut String) -> Result<(), Failure> {
        while let Some(dead_letter) = self.dead.next_if(|dead_letter| dead_letter.index < query) {
            self.check(dead_letter.index)?;
            self.push(&dead_row(&dead_letter), text)?;
        }
        Ok(())
    }

    /// Whether this query's row is the next one.
    fn check(&self, query: u64) -> Result<(), Failure> {
        let wrong =
            |error: ResultsError| Failure::error(format!("the results of {} are wrong: {error}", self.job));
        let named = |query: u64| query.to_string();
        match query.cmp(&self.next) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Less => Err(wrong(ResultsError::Repeated { count: 1, named: named(query) })),
            std::cmp::Ordering::Greater => {
                let count = usize::try_from(query - self.next).unwrap_or(usize::MAX);
                Err(wrong(ResultsError::Missing { count, named: named(self.next) }))
            }
        }
    }

    fn push(&mut self, row: &str, text: &mut String) -> Result<(), Failure> {
        match self.format {
            // What becomes Parquet comes as JSON lines.
            RowFormat::Jsonl | RowFormat::Parquet => text.push_str(row),
            RowFormat::Csv => text.push_str(&self.columns.row(row)?),
        }
        text.push('\n');
        self.next += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use idunno_shared::ids::Digest;
    use idunno_shared::wire::blobs::BlobRef;

    use super::super::tests::{dead_letter, job, range, rows as lines};
    use super::*;

    fn segment(ranges: &[(u64, u32)]) -> SegmentView {
        let ranges = ranges.iter().map(|&(first, count)| range(first, count)).collect();
        let blob = BlobRef { digest: Digest::default(), size: 1 };
        SegmentView { segment: PlacedBlob { blob, holders: vec![] }, ranges }
    }

    fn queries(text: &str) -> Vec<u64> {
        text.lines().map(|line| query_of(line.as_bytes()).unwrap()).collect()
    }

    #[test]
    fn dead_letters_stand_among_the_answers_and_every_query_has_one_row() {
        let view = job(JobState::Done, 6, 3, 3);
        let mut all =
            Rows::new(&view, vec![dead_letter(0), dead_letter(3), dead_letter(5)], RowFormat::Jsonl);
        // The merged file has rows of dead queries, too, which do not count.
        let first = all.of_segment(&lines(&[0, 1, 2]), &segment(&[(1, 2)])).unwrap();
        let second = all.of_segment(&lines(&[3, 4, 5]), &segment(&[(4, 1)])).unwrap();
        let rest = all.rest().unwrap();
        assert_eq!(queries(&format!("{first}{second}{rest}")), [0, 1, 2, 3, 4, 5]);
        assert!(first.starts_with(&dead_row(&dead_letter(0))) && rest.ends_with('\n'), "{first}{rest}");
    }

    #[test]
    fn a_row_that_is_missing_or_repeated_is_named() {
        let view = job(JobState::Done, 4, 4, 0);
        let all = || Rows::new(&view, vec![], RowFormat::Jsonl);
        let missing = all().of_segment(&lines(&[0, 2]), &segment(&[(0, 4)])).unwrap_err().message;
        assert!(missing.contains("1 queries count as answered and have no row: 1"), "{missing}");
        let repeated = all().of_segment(&lines(&[0, 1, 1]), &segment(&[(0, 4)])).unwrap_err().message;
        assert!(repeated.contains("more than one row: 1"), "{repeated}");
        let mut short = all();
        short.of_segment(&lines(&[0, 1, 2]), &segment(&[(0, 4)])).unwrap();
        assert!(short.rest().unwrap_err().message.contains("no row: 3"));
        let mut both = Rows::new(&view, vec![dead_letter(1)], RowFormat::Jsonl);
        assert!(both.of_segment(&lines(&[0, 1, 2, 3]), &segment(&[(0, 4)])).is_err(), "dead and answered");
    }
}
