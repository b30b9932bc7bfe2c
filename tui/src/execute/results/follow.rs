//! `get-job-results --follow`: rows as they are committed, until the job is over.
//!
//! Each answered query's row is given once, in the order of its commit; a dead letter's when it is seen, so that one that
//! was run again may be followed by an answer. Bound: the numbers of the dead letters seen are in memory.

use std::collections::BTreeSet;

use idunno_shared::client::results::{dead_row, query_of};
use idunno_shared::ids::JobId;
use idunno_shared::wire::control::{ControlReply, ControlRequest, JobView, SegmentView};
use tokio::time::Instant;

use super::csv;
use super::fetch::Wanted;
use crate::answer::{Answer, Failure};
use crate::command::JobRef;
use crate::command::values::RowFormat;
use crate::execute::dead_letters;
use crate::execute::jobs::{halted, page_limit, resolve};
use crate::execute::wait::{answered, pause};
use crate::session::Session;

/// Gives rows to `print`, lines with their ends. The answer has only what a person should know beside them.
pub async fn follow(
    session: &Session,
    job: &JobRef,
    wanted: Wanted,
    print: impl Fn(&str) -> Result<(), Failure>,
) -> Result<Answer, Failure> {
    let found = resolve(session, job).await?;
    let job = found.id;
    if wanted.format == RowFormat::Csv {
        print(&format!("{}\n", csv::headline()?))?;
    }
    let give = |row: &str| match wanted.format {
        RowFormat::Jsonl => print(&format!("{row}\n")),
        RowFormat::Csv => print(&format!("{}\n", csv::row(row)?)),
    };
    let (mut skip, mut dead, mut started) = (0, BTreeSet::new(), Instant::now());
    loop {
        let late = match answered(look(session, job, skip).await)? {
            Err(unreachable) => unreachable,
            Ok((segments, more, view)) => {
                for dead_letter in letters_since(session, &view, &dead).await? {
                    dead.insert(dead_letter.0);
                    give(&dead_letter.1)?;
                }
                for segment in &segments {
                    if !wanted.failed {
                        rows(session, segment).await?.iter().try_for_each(|row| give(row))?;
                    }
                    (skip, started) = (skip + 1, Instant::now());
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
                format!("{job} gave no further row")
            }
        };
        pause(session, started, &late).await?;
    }
}

async fn look(
    session: &Session,
    job: JobId,
    skip: u64,
) -> Result<(Vec<SegmentView>, bool, JobView), Failure> {
    let request = ControlRequest::Results { job, skip, limit: page_limit() };
    match session.cluster().control(request).await? {
        ControlReply::Results { segments, more, job } => Ok((segments, more, job)),
        _ => Err(Failure::unexpected()),
    }
}

/// Dead letters that were not seen yet, with their rows.
async fn letters_since(
    session: &Session,
    view: &JobView,
    seen: &BTreeSet<u64>,
) -> Result<Vec<(u64, String)>, Failure> {
    if view.dead == seen.len() as u64 {
        return Ok(Vec::new());
    }
    let dead_letters = dead_letters::all(session, view.id).await?;
    let new = dead_letters.iter().filter(|dead_letter| !seen.contains(&dead_letter.index));
    Ok(new.map(|dead_letter| (dead_letter.index, dead_row(dead_letter))).collect())
}

/// A segment's rows that count.
async fn rows(session: &Session, segment: &SegmentView) -> Result<Vec<String>, Failure> {
    let bytes = session.files().fetch_blob(&segment.segment).await?;
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
