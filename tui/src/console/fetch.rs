//! Fetches file lists and the contents of detail tabs from the cluster. Lists are fetched whole up to [`ROWS_MAX`] rows;
//! previews are bounded.

use std::collections::BTreeMap;

use idunno_shared::client::results::{query_of, segments_at_once};
use idunno_shared::ids::JobId;
use idunno_shared::names::FileName;
use idunno_shared::wire::blobs::PlacedBlob;
use idunno_shared::wire::control::{
    ControlReply, ControlRequest, DeadLetter, JobView, SegmentView, VERSIONS_KEPT,
};

use super::query::{DetailData, DetailQuery, FILES_PER_PAGE, FilesPage, FilesQuery, Gathered, QueryError};
use crate::execute::files::held_by;
use crate::execute::pages::page_limit;
use crate::session::Session;

/// The most rows of a tab. What is sorted on it are these.
pub const ROWS_MAX: usize = 5000;
/// The most jobs that are fetched beside those of the view.
pub const OLD_JOBS_MAX: usize = 20_000;
/// The most bytes of segments that are fetched for a tab of results.
const RESULT_BYTES_MAX: u64 = 8 << 20;
/// Lines of a preview.
const LINES_MAX: usize = 200;
/// The largest extent that is fetched for a preview, in bytes.
const PREVIEW_BYTES_MAX: u64 = 8 << 20;
/// Bytes that decide whether a file is text.
const SNIFFED_BYTES: usize = 4096;
/// Bytes in a line of a hexadecimal preview.
const HEX_BYTES: usize = 16;

pub async fn files(session: &Session, query: &FilesQuery) -> Result<FilesPage, QueryError> {
    let FilesQuery { prefix, flat, order, first } = query.clone();
    let request = ControlRequest::SortedFiles { prefix, flat, order, first, limit: FILES_PER_PAGE };
    match ask(session, request).await? {
        ControlReply::SortedFiles { first, total, entries } => Ok(FilesPage { entries, first, total }),
        _ => Err(QueryError::UnexpectedReply),
    }
}

pub async fn detail(session: &Session, query: &DetailQuery) -> Result<DetailData, QueryError> {
    let request = match query {
        DetailQuery::Results(job) => return results(session, *job).await.map(DetailData::Results),
        DetailQuery::Preview(name) => return preview(session, name).await.map(DetailData::Lines),
        DetailQuery::DeadLetters(job) => {
            return dead_letters(session, *job).await.map(DetailData::DeadLetters);
        }
        DetailQuery::Stored(member) => {
            let held = held_by(&session.cluster(), *member, ROWS_MAX).await?;
            return Ok(DetailData::Files(Gathered { rows: held.files, more: held.more }));
        }
        DetailQuery::Versions(name) => {
            let limit = u32::try_from(VERSIONS_KEPT).unwrap_or(u32::MAX);
            ControlRequest::Versions { name: name.clone(), limit }
        }
        DetailQuery::Leases { job, worker } => ControlRequest::Leases { job: *job, worker: *worker },
    };
    match (query, ask(session, request).await?) {
        (DetailQuery::Versions(_), ControlReply::Versions(versions)) => Ok(DetailData::Versions(versions)),
        (DetailQuery::Leases { .. }, ControlReply::Leases { leases: rows, more }) => {
            Ok(DetailData::Leases(Gathered { rows, more }))
        }
        _ => Err(QueryError::UnexpectedReply),
    }
}

/// The first `count` jobs: those that a view leaves out are the oldest.
pub async fn old_jobs(session: &Session, count: u64) -> Result<Vec<JobView>, QueryError> {
    let wanted = usize::try_from(count).unwrap_or(usize::MAX).min(OLD_JOBS_MAX);
    let mut jobs: Vec<JobView> = Vec::new();
    loop {
        let after = jobs.last().map(|job| job.id);
        let request = ControlRequest::JobPage { after, limit: page_limit() };
        let ControlReply::JobPage { jobs: page, more } = ask(session, request).await? else {
            return Err(QueryError::UnexpectedReply);
        };
        let more = more && !page.is_empty();
        jobs.extend(page);
        if !more || jobs.len() >= wanted {
            return Ok(jobs);
        }
    }
}

async fn ask(session: &Session, request: ControlRequest) -> Result<ControlReply, QueryError> {
    Ok(session.cluster().control(request).await?)
}

async fn dead_letters(session: &Session, job: JobId) -> Result<Gathered<DeadLetter>, QueryError> {
    let mut rows: Vec<DeadLetter> = Vec::new();
    loop {
        let from = rows.last().map_or(0, |last| last.index + 1);
        let request = ControlRequest::DeadLetters { job, from, limit: page_limit() };
        let ControlReply::DeadLetters { dead_letters, more } = ask(session, request).await? else {
            return Err(QueryError::UnexpectedReply);
        };
        let more = more && !dead_letters.is_empty();
        rows.extend(dead_letters);
        if !more || rows.len() >= ROWS_MAX {
            let more = more || rows.len() > ROWS_MAX;
            rows.truncate(ROWS_MAX);
            return Ok(Gathered { rows, more });
        }
    }
}

/// The rows of the segments that were committed first, in query order. Rows that do not count are left out.
async fn results(session: &Session, job: JobId) -> Result<Gathered<String>, QueryError> {
    let request = ControlRequest::Results { job, skip: 0, limit: page_limit() };
    let ControlReply::Results { segments, more, .. } = ask(session, request).await? else {
        return Err(QueryError::UnexpectedReply);
    };
    let (mut rows, mut rest, mut bytes) = (BTreeMap::new(), &segments[..], 0);
    while !rest.is_empty() && rows.len() < ROWS_MAX && bytes < RESULT_BYTES_MAX {
        let (group, later) = rest.split_at(segments_at_once(rest));
        rest = later;
        let placed: Vec<PlacedBlob> = group.iter().map(|view| view.segment.clone()).collect();
        for (segment, fetched) in group.iter().zip(session.files().fetch_segments(&placed).await) {
            bytes += segment.segment.blob.size;
            rows.extend(counted_rows(segment, &fetched?));
        }
    }
    let more = more || !rest.is_empty() || rows.len() > ROWS_MAX;
    Ok(Gathered { rows: rows.into_values().take(ROWS_MAX).collect(), more })
}

/// The rows of a segment that count, by their queries.
fn counted_rows(segment: &SegmentView, bytes: &[u8]) -> Vec<(u64, String)> {
    let text = String::from_utf8_lossy(bytes);
    let numbered = text.lines().filter_map(|row| Some((query_of(row.as_bytes()).ok()?, row.to_owned())));
    let counts = |query: &u64| segment.ranges.iter().any(|range| range.queries().contains(query));
    numbered.filter(|(query, _)| counts(query)).collect()
}

/// The beginning of a file.
async fn preview(session: &Session, name: &FileName) -> Result<Vec<String>, QueryError> {
    let request = ControlRequest::Locate { names: vec![name.clone()], version: None };
    let ControlReply::Located(mut located) = ask(session, request).await? else {
        return Err(QueryError::UnexpectedReply);
    };
    let Some(version) = located.pop().flatten() else { return Err(QueryError::NoFile(name.clone())) };
    let Some(first) = version.extents.first() else { return Ok(Vec::new()) };
    if first.blob.size > PREVIEW_BYTES_MAX {
        return Err(QueryError::TooLarge);
    }
    let bytes = session.files().fetch_blob(first).await?;
    Ok(if is_text(&bytes) { text_lines(&bytes) } else { hex_lines(&bytes) })
}

fn is_text(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(SNIFFED_BYTES)];
    // The last character of the head may be incomplete. No text contains a NUL.
    !head.contains(&0) && !String::from_utf8_lossy(head).trim_end_matches('\u{fffd}').contains('\u{fffd}')
}

fn text_lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().take(LINES_MAX).map(str::to_owned).collect()
}

fn hex_lines(bytes: &[u8]) -> Vec<String> {
    let line = |(number, bytes): (usize, &[u8])| {
        let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String =
            bytes.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' }).collect();
        format!("{:08x}  {:<47}  {text}", number * HEX_BYTES, digits.join(" "))
    };
    bytes.chunks(HEX_BYTES).enumerate().take(LINES_MAX).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_previewed_as_text_and_anything_else_as_hexadecimal() {
        let text = "naïve\nsecond\n".as_bytes();
        assert!(is_text(text));
        assert_eq!(text_lines(text), ["naïve", "second"]);
        let image = b"\xff\xd8\0JFIF";
        assert!(!is_text(image));
        let digits = "ff d8 00 4a 46 49 46";
        assert_eq!(hex_lines(image), [format!("00000000  {digits:<47}  ...JFIF")]);
    }
}
