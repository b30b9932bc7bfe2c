//! `get-job-results --follow`: rows as they are committed, until the job is over.
//!
//! Each answered query's row is given once, in the order of its commit; a dead letter's when it is seen, so that one that
//! was run again may be followed by an answer. Bound: the numbers of the dead letters seen are in memory.

use std::collections::{BTreeMap, BTreeSet};

use idunno_shared::client::results::{dead_row, query_of};
use idunno_shared::ids::JobId;
use idunno_shared::wire::control::{
    ControlReply, ControlRequest, DeadLetter, JobState, JobView, SegmentView,
};
use idunno_shared::wire::jobs::QueryRange;
use tokio::time::Instant;

use super::csv;
use super::fetch::{SegmentList, Wanted};
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
    let (mut skip, mut listed) = (0, None);
    let mut seen = BTreeSet::new();
    let mut given = Given::default();
    let mut started = Instant::now();
    loop {
        let late = match look(page(session, job, skip).await)? {
            Look::Unreachable(reason) => reason,
            Look::Found(Page { view, .. }) if is_other(&mut listed, &view) && skip > 0 => {
                // Other segments have the same rows.
                skip = 0;
                continue;
            }
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
                let mut missing = None;
                for segment in &segments {
                    if !wanted.failed && !segment.ranges.iter().all(|range| given.has_all(range)) {
                        let bytes = match session.files().fetch_segment(&segment.segment).await {
                            Ok(bytes) => bytes,
                            Err(unavailable) => {
                                missing = Some(unavailable.to_string());
                                break;
                            }
                        };
                        new_rows(&bytes, segment, &given)?.iter().try_for_each(|row| give(row))?;
                        segment.ranges.iter().for_each(|range| given.insert(range));
                    }
                    skip += 1;
                    started = Instant::now();
                }
                if let Some(missing) = missing {
                    // It may have been copied elsewhere, or its rows are in a file of merged results.
                    pause(session, started, &missing).await?;
                    continue;
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

/// Whether the job has another list of segments than at the last look, which this becomes.
fn is_other(listed: &mut Option<SegmentList>, view: &JobView) -> bool {
    let before = listed.replace(SegmentList::of(view));
    before != *listed
}

/// The queries whose rows were given, as the ends of disjoint ranges by their first query.
#[derive(Debug, Default)]
struct Given(BTreeMap<u64, u64>);

impl Given {
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

pub(super) struct Page {
    pub(super) segments: Vec<SegmentView>,
    /// Whether segments follow.
    pub(super) more: bool,
    pub(super) view: JobView,
}

/// The job's segments after the first `skip`.
pub(super) async fn page(session: &Session, job: JobId, skip: u64) -> Result<Page, Failure> {
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

/// The rows of a segment that lie within its ranges and were not given.
fn new_rows(bytes: &[u8], segment: &SegmentView, given: &Given) -> Result<Vec<String>, Failure> {
    let is_new = |query: u64| {
        !given.contains(query)
            && segment.ranges.iter().any(|range| (range.first..range.end()).contains(&query))
    };
    let mut rows = Vec::new();
    for line in bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let wrong = |why: String| Failure::error(format!("segment {}: {why}", segment.segment.blob.digest));
        if is_new(query_of(line).map_err(|error| wrong(error.to_string()))?) {
            rows.push(String::from_utf8(line.to_vec()).map_err(|error| wrong(error.to_string()))?);
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_given_rows_are_joined() {
        let mut given = Given::default();
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
