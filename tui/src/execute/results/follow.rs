//! `get-job-results --follow`: rows as they are committed, until the job is over.
//!
//! Each answered query's row is given once, in the order of its commit; a dead letter's when it is seen, so that one that
//! was run again may be followed by an answer. Bound: the numbers of the dead letters seen are in memory.

use std::collections::BTreeSet;

use idunno_shared::client::results::{dead_row, query_of};
use idunno_shared::ids::JobId;
use idunno_shared::wire::control::{
    ControlReply, ControlRequest, DeadLetter, JobState, JobView, SegmentView,
};
use tokio::time::Instant;

use super::csv;
use super::fetch::Wanted;
use crate::answer::{Answer, Failure};
use crate::command::JobRef;
use crate::command::values::RowFormat;
use crate::execute::dead_letters;
use crate::execute::jobs::{halted, page_limit, resolve};
use crate::execute::wait::{Look, look, pause};
use crate::session::Session;

/// Passes rows to `print`, with their line ends. The answer has only remarks.
pub async fn follow(
    session: &Session,
    job: &JobRef,
    wanted: Wanted,
    print: impl Fn(&str) -> Result<(), Failure>,
) -> Result<Answer, Failure> {
    let found = resolve(session, job).await?;
    let job = found.id;
    // Known once the job is started.
    let mut columns: Option<csv::Columns> = None;
    let mut skip = 0;
    let mut seen = BTreeSet::new();
    let mut started = Instant::now();
    loop {
        let late = match look(page(session, job, skip).await)? {
            Look::Unreachable(reason) => reason,
            Look::Found(Page { segments, more, view }) => {
                if columns.is_none() && view.state != JobState::Added {
                    let found = csv::Columns::of(&view);
                    if wanted.format == RowFormat::Csv {
                        print(&format!("{}\n", found.header()?))?;
                    }
                    columns = Some(found);
                }
                let columns = columns.clone().unwrap_or_default();
                let give = |row: &str| match wanted.format {
                    RowFormat::Jsonl => print(&format!("{row}\n")),
                    RowFormat::Csv => print(&format!("{}\n", columns.row(row)?)),
                };
                for dead_letter in new_dead_letters(session, &view, &seen).await? {
                    seen.insert(dead_letter.index);
                    give(&dead_row(&dead_letter))?;
                }
                for segment in &segments {
                    if !wanted.failed {
                        rows(session, segment).await?.iter().try_for_each(|row| give(row))?;
                    }
                    skip += 1;
                    started = Instant::now();
                }
                if more {
                    continue;
                }
                if view.state.is_over() && segments.is_empty() {
                    return halted(&view).map_or_else(|| Ok(Answer::default().noted(found.note)), Err);
                }
                if let Some(halted) = halted(&view) {
                    return Err(halted);
                }
                format!("{job} committed no further rows")
            }
        };
        pause(session, started, &late).await?;
    }
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

/// Dead letters that were not printed yet.
async fn new_dead_letters(
    session: &Session,
    view: &JobView,
    seen: &BTreeSet<u64>,
) -> Result<Vec<DeadLetter>, Failure> {
    if view.dead == seen.len() as u64 {
        return Ok(Vec::new());
    }
    let mut dead_letters = dead_letters::all(session, view.id).await?;
    dead_letters.retain(|dead_letter| !seen.contains(&dead_letter.index));
    Ok(dead_letters)
}

/// The rows of a segment that lie within its ranges.
async fn rows(session: &Session, segment: &SegmentView) -> Result<Vec<String>, Failure> {
    let bytes = session.files().fetch_segment(&segment.segment).await?;
    let counts = |query: u64| segment.ranges.iter().any(|range| (range.first..range.end()).contains(&query));
    let mut rows = Vec::new();
    for line in bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let wrong = |why: String| Failure::error(format!("segment {}: {why}", segment.segment.blob.digest));
        if counts(query_of(line).map_err(|error| wrong(error.to_string()))?) {
            rows.push(String::from_utf8(line.to_vec()).map_err(|error| wrong(error.to_string()))?);
        }
    }
    Ok(rows)
}
