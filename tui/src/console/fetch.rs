//! Fetches file lists and the contents of detail tabs from the cluster. Previews and result rows are bounded.

use idunno_shared::ids::JobId;
use idunno_shared::names::FileName;
use idunno_shared::wire::control::{ControlReply, ControlRequest, FolderEntry, VERSIONS_KEPT};

use super::query::{DetailData, DetailQuery, FILES_PER_PAGE, FilesPage, FilesQuery, QueryError};
use crate::execute::files::held_by;
use crate::session::Session;

/// Rows of a tab.
const ROWS_MAX: u32 = 500;
/// Lines of a preview.
const LINES_MAX: usize = 200;
/// The largest extent that is fetched for a preview, in bytes.
const PREVIEW_BYTES_MAX: u64 = 8 << 20;
/// Bytes that decide whether a file is text.
const SNIFFED_BYTES: usize = 4096;
/// Bytes in a line of a hexadecimal preview.
const HEX_BYTES: usize = 16;

pub async fn files(session: &Session, query: &FilesQuery) -> Result<FilesPage, QueryError> {
    let prefix = query.prefix.clone();
    let request = if query.flat {
        let after = match &query.after {
            Some(FolderEntry::File(file)) => Some(file.name.clone()),
            _ => None,
        };
        ControlRequest::List { prefix, after, limit: FILES_PER_PAGE }
    } else {
        ControlRequest::Folder { prefix, after: query.after.clone(), limit: FILES_PER_PAGE }
    };
    match ask(session, request).await? {
        ControlReply::Files { files, more } => {
            Ok(FilesPage { entries: files.into_iter().map(FolderEntry::File).collect(), more })
        }
        ControlReply::Folder { entries, more } => Ok(FilesPage { entries, more }),
        _ => Err(QueryError::UnexpectedReply),
    }
}

pub async fn detail(session: &Session, query: &DetailQuery) -> Result<DetailData, QueryError> {
    let request = match query {
        DetailQuery::Results(job) => return results(session, *job).await.map(DetailData::Lines),
        DetailQuery::Preview(name) => return preview(session, name).await.map(DetailData::Lines),
        DetailQuery::DeadLetters(job) => ControlRequest::DeadLetters { job: *job, from: 0, limit: ROWS_MAX },
        DetailQuery::Stored(member) => {
            let held = held_by(&session.cluster(), *member, ROWS_MAX as usize).await?;
            return Ok(DetailData::Files(held.files));
        }
        DetailQuery::Versions(name) => {
            let limit = u32::try_from(VERSIONS_KEPT).unwrap_or(u32::MAX);
            ControlRequest::Versions { name: name.clone(), limit }
        }
        DetailQuery::Leases { job, worker } => ControlRequest::Leases { job: *job, worker: *worker },
    };
    match (query, ask(session, request).await?) {
        (DetailQuery::DeadLetters(_), ControlReply::DeadLetters { dead_letters, .. }) => {
            Ok(DetailData::DeadLetters(dead_letters))
        }
        (DetailQuery::Versions(_), ControlReply::Versions(versions)) => Ok(DetailData::Versions(versions)),
        (DetailQuery::Leases { .. }, ControlReply::Leases { leases, .. }) => Ok(DetailData::Leases(leases)),
        _ => Err(QueryError::UnexpectedReply),
    }
}

async fn ask(session: &Session, request: ControlRequest) -> Result<ControlReply, QueryError> {
    Ok(session.cluster().control(request).await?)
}

/// The first rows of the first segment that was committed.
async fn results(session: &Session, job: JobId) -> Result<Vec<String>, QueryError> {
    let request = ControlRequest::Results { job, skip: 0, limit: 1 };
    let ControlReply::Results { segments, .. } = ask(session, request).await? else {
        return Err(QueryError::UnexpectedReply);
    };
    let Some(first) = segments.first() else { return Ok(Vec::new()) };
    let bytes = session.files().fetch_segment(&first.segment).await?;
    Ok(text_lines(&bytes))
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
