//! `get-job-results`: fetches and verifies segments, and writes their rows.

use std::path::{Path, PathBuf};
use std::time::Duration;

use idunno_shared::client::files::destination::is_stdout;
use idunno_shared::client::files::{Files, Progress, atomic_file, get};
use idunno_shared::client::results::{SegmentList, dead_letters, dead_row, segments_at_once};
use idunno_shared::ids::JobId;
use idunno_shared::wire::blobs::PlacedBlob;
use idunno_shared::wire::control::{ControlReply, ControlRequest, JobState, JobView, SegmentView};
use idunno_shared::wire::references::ReferenceSource;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::in_order::{self, Out};
use super::parquet::{self, Spool};
use super::{Merge, ResultsError, bucket, csv};
use crate::answer::results::ResultsFile;
use crate::answer::{Answer, Data, Exit, Failure, text};
use crate::command::JobRef;
use crate::command::values::RowFormat;
use crate::command::wanted_rows::WantedRows;
use crate::execute::files::download::check_target;
use crate::execute::job_lookup::{job_views, resolve};
use crate::execute::pages::page_limit;
use crate::session::Session;

/// Attempts to read the rows of a job that changes meanwhile, before a difference counts as an error.
const ATTEMPTS_MAX: u32 = 5;
/// The pause before a segment that no holder sent is located again.
const PAUSE: Duration = Duration::from_millis(500);

/// `get-job-results`.
pub async fn get(
    session: &Session,
    job: &JobRef,
    local: Option<PathBuf>,
    force: bool,
    wanted: WantedRows,
    source: &ReferenceSource,
) -> Result<Answer, Failure> {
    let found = resolve(session, job).await?;
    let job = found.id;
    if let Some(target) = local.as_deref().filter(|target| bucket::is_bucket(target)) {
        if !wanted.is_plain() || wanted.format != RowFormat::Jsonl {
            let text = "results go to a bucket as JSON lines, one row of each query: leave out --raw, --failed and --format";
            return Err(Failure::new(Exit::Usage, text));
        }
        let view = view_of(session, job).await?;
        return bucket::write(session, &view, &target.to_string_lossy(), source).await;
    }
    if *source != ReferenceSource::default() {
        let text = "--endpoint-url, --region and --anonymous are for results that go to a bucket, such as s3://BUCKET/PREFIX/";
        return Err(Failure::new(Exit::Usage, text));
    }
    let local = local.filter(|path| path.as_os_str() != "-" && !is_stdout(path));
    if wanted.format == RowFormat::Parquet {
        parquet::check(local.as_deref())?;
    }
    if let Some(path) = &local {
        check_target(path, force)?;
    }
    if let (Some(path), true) = (&local, wanted.is_plain()) {
        let view = view_of(session, job).await?;
        if in_order::is_merged(&view) {
            write_merged(session, &view, wanted.format, path).await?;
            let text = written_text(&view, view.submitted, path);
            return Ok(Answer::new(&ResultsFile::new(&view, view.submitted, path), text));
        }
    }
    let Fetched { view, rows } = match wanted {
        WantedRows { failed: true, .. } => failed(session, job).await?,
        WantedRows { raw: true, .. } => {
            let (view, merge) = read(session, &session.files(), job).await?;
            Fetched { view, rows: merge.raw() }
        }
        _ => collect(session, job).await?,
    };
    let (state, _) = text::job_state(&view.state);
    let note = format!("{job} is {state}: {} of {} rows", rows.len(), view.submitted);
    let written = match wanted.format {
        RowFormat::Jsonl | RowFormat::Parquet => rows.join("\n"),
        RowFormat::Csv => csv::Columns::of(&view).table(&rows)?,
    };
    let answer = match local {
        None => Answer { data: Data::Lines, text: written.into(), ..Answer::default() }.noted(found.note),
        Some(path) => {
            let count = rows.len() as u64;
            let (document, text) = (ResultsFile::new(&view, count, &path), written_text(&view, count, &path));
            match wanted.format {
                RowFormat::Jsonl | RowFormat::Csv => write(path, written).await?,
                RowFormat::Parquet => {
                    let spool = Spool::create(&path, &view)?;
                    if !written.is_empty() {
                        spool.take(&(written + "\n"))?;
                    }
                    spool.finish().await?;
                }
            }
            Answer::new(&document, text)
        }
    };
    Ok(if view.state == JobState::Done { answer } else { answer.incomplete(note) })
}

/// `get-job-results` to standard output: the rows of a job whose results are merged pass through `print`. `None` for other
/// jobs, whose rows are gathered first.
pub async fn printed(
    session: &Session,
    job: &JobRef,
    wanted: WantedRows,
    print: impl Fn(&str) -> Result<(), Failure>,
) -> Result<Option<Answer>, Failure> {
    if wanted.format == RowFormat::Parquet {
        parquet::check(None)?;
    }
    if !wanted.is_plain() {
        return Ok(None);
    }
    let found = resolve(session, job).await?;
    let view = view_of(session, found.id).await?;
    if !in_order::is_merged(&view) {
        return Ok(None);
    }
    in_order::write(session, &view, wanted.format, Out::Printed(print)).await?;
    Ok(Some(Answer::default().noted(found.note)))
}

/// Writes all rows of a job whose results are merged into a local file.
async fn write_merged(
    session: &Session,
    view: &JobView,
    format: RowFormat,
    path: &Path,
) -> Result<(), Failure> {
    if format != RowFormat::Parquet {
        return in_order::write(session, view, format, Out::<fn(&str) -> _>::file(path).await?).await;
    }
    let spool = Spool::create(path, view)?;
    in_order::write(session, view, format, Out::Printed(|rows: &str| spool.take(rows))).await?;
    spool.finish().await
}

async fn view_of(session: &Session, job: JobId) -> Result<JobView, Failure> {
    job_views(session, Some(job)).await?.pop().ok_or_else(Failure::unexpected)
}

fn written_text(view: &JobView, rows: u64, path: &Path) -> String {
    format!("{}: {rows} rows ({} dead) in {}", view.id, view.dead, path.display())
}

/// A job's rows.
pub(super) struct Fetched {
    view: JobView,
    pub(super) rows: Vec<String>,
}

/// The rows of the queries that failed for good.
async fn failed(session: &Session, job: JobId) -> Result<Fetched, Failure> {
    let rows = dead_letters(&session.cluster(), job).await?.iter().map(dead_row).collect();
    Ok(Fetched { view: view_of(session, job).await?, rows })
}

/// The rows, read again while the job changes.
pub(super) async fn collect(session: &Session, job: JobId) -> Result<Fetched, Failure> {
    let files = session.files();
    let mut attempt = 1;
    loop {
        let (view, merge) = read(session, &files, job).await?;
        match merge.finish(&view) {
            Ok(rows) => return Ok(Fetched { view, rows }),
            // Dead letters and segments are read one after the other: a query may fail or be retried in between.
            Err(
                ResultsError::Figures { .. } | ResultsError::Repeated { .. } | ResultsError::Missing { .. },
            ) if attempt < ATTEMPTS_MAX && !settled(session, &view).await? => {
                attempt += 1;
            }
            Err(error) => return Err(Failure::error(format!("the results of {job} are wrong: {error}"))),
        }
    }
}

/// Whether the job's figures are still those of `view`.
async fn settled(session: &Session, view: &JobView) -> Result<bool, Failure> {
    let now = job_views(session, Some(view.id)).await?;
    Ok(now.iter().any(|job| job.done == view.done && job.dead == view.dead && job.state == view.state))
}

/// Reads all segments and dead letters, again if the segments are replaced by a file of merged results meanwhile.
async fn read(session: &Session, files: &Files, job: JobId) -> Result<(JobView, Merge), Failure> {
    loop {
        if let Some(read) = read_once(session, files, job).await? {
            return Ok(read);
        }
    }
}

/// A segment that no holder sends is located again, because it may have been copied elsewhere meanwhile. Fails once no
/// segment has arrived for as long as a file's get waits. `None` if the segments were replaced.
async fn read_once(
    session: &Session,
    files: &Files,
    job: JobId,
) -> Result<Option<(JobView, Merge)>, Failure> {
    let patience = session.timeout.unwrap_or(get::DEADLINE);
    let mut merge = Merge::default();
    for dead_letter in dead_letters(&session.cluster(), job).await? {
        merge.dead_letter(&dead_letter);
    }
    let mut skip = 0;
    let mut last_arrival = Instant::now();
    let (mut progress, mut listed) = (None, None);
    loop {
        let request = ControlRequest::Results { job, skip, limit: page_limit() };
        let ControlReply::Results { segments, more, job: view } = session.cluster().control(request).await?
        else {
            return Err(Failure::unexpected());
        };
        if *listed.get_or_insert_with(|| SegmentList::of(&view)) != SegmentList::of(&view) {
            return Ok(None);
        }
        let display = progress.get_or_insert_with(|| session.reporter.start("rows", view.done, 0));
        let Taken { segments: taken, missing } = take(files, &segments, &mut merge, display.as_ref()).await?;
        skip += taken;
        if taken > 0 {
            last_arrival = Instant::now();
        }
        match missing {
            None if !more || segments.is_empty() => return Ok(Some((view, merge))),
            None => {}
            Some(missing) if last_arrival.elapsed() >= patience => return Err(missing),
            Some(_) => sleep(PAUSE).await,
        }
    }
}

struct Taken {
    segments: u64,
    /// Why the next segment could not be fetched.
    missing: Option<Failure>,
}

/// Fetches segments in order, up to the first that no holder sends.
async fn take(
    files: &Files,
    segments: &[SegmentView],
    merge: &mut Merge,
    display: &dyn Progress,
) -> Result<Taken, Failure> {
    let mut taken = 0;
    let mut rest = segments;
    while !rest.is_empty() {
        let (group, later) = rest.split_at(segments_at_once(rest));
        rest = later;
        let placed: Vec<PlacedBlob> = group.iter().map(|view| view.segment.clone()).collect();
        for (bytes, segment) in files.fetch_segments(&placed).await.into_iter().zip(group) {
            let bytes = match bytes {
                Ok(bytes) => bytes,
                Err(missing) => return Ok(Taken { segments: taken, missing: Some(missing.into()) }),
            };
            merge.segment(&bytes, &segment.ranges).map_err(|error| {
                Failure::error(format!("segment {}: {error}", segment.segment.blob.digest))
            })?;
            let rows: u64 = segment.ranges.iter().map(|range| u64::from(range.count)).sum();
            (0..rows).for_each(|_| display.file());
            taken += 1;
        }
    }
    Ok(Taken { segments: taken, missing: None })
}

/// Writes the rows beside the target, then renames: the target is whole or as before.
async fn write(path: PathBuf, mut text: String) -> Result<(), Failure> {
    if !text.is_empty() {
        text.push('\n');
    }
    let write = move || {
        atomic_file::write_whole(&path, text.as_bytes()).map_err(|error| Failure::target(&path, &error))
    };
    spawn_blocking(write).await.unwrap_or_else(|error| Err(Failure::error(error.to_string())))
}
