//! Answers to the console's questions, from the cluster. Bounded: previews and result rows are the first few.

use idunno_shared::ids::JobId;
use idunno_shared::names::FileName;
use idunno_shared::wire::control::{ControlReply, ControlRequest, FolderEntry, VERSIONS_KEPT};

use super::msg::{Facts, FilesQuery, Question};
use super::state::FILES_PER_PAGE;
use crate::answer::Failure;
use crate::session::Session;

/// Rows of a part that is looked into.
const ROWS_MAX: u32 = 500;
/// Lines of a preview.
const LINES_MAX: usize = 200;
/// The largest extent that is fetched for a preview, in bytes.
const PREVIEW_BYTES_MAX: u64 = 8 << 20;
/// Bytes in a line of a preview that is no text.
const HEX_BYTES: usize = 16;

/// A page of files.
pub async fn files(session: &Session, query: &FilesQuery) -> Result<(Vec<FolderEntry>, bool), String> {
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
        ControlReply::Files { files, more } => Ok((files.into_iter().map(FolderEntry::File).collect(), more)),
        ControlReply::Folder { entries, more } => Ok((entries, more)),
        _ => Err(Failure::unexpected().message),
    }
}

/// What is known about one thing.
pub async fn facts(session: &Session, question: &Question) -> Result<Facts, String> {
    match question {
        Question::DeadLetters(job) => {
            let request = ControlRequest::DeadLetters { job: *job, from: 0, limit: ROWS_MAX };
            match ask(session, request).await? {
                ControlReply::DeadLetters { dead_letters, more } => Ok(Facts::Letters(dead_letters, more)),
                _ => Err(Failure::unexpected().message),
            }
        }
        Question::Stored(member) => {
            let request = ControlRequest::Stored { member: *member, after: None, limit: ROWS_MAX };
            match ask(session, request).await? {
                ControlReply::Files { files, more } => Ok(Facts::Files(files, more)),
                _ => Err(Failure::unexpected().message),
            }
        }
        Question::Versions(name) => {
            let limit = u32::try_from(VERSIONS_KEPT).unwrap_or(u32::MAX);
            let request = ControlRequest::Versions { name: name.clone(), limit };
            match ask(session, request).await? {
                ControlReply::Versions(versions) => Ok(Facts::Versions(versions)),
                _ => Err(Failure::unexpected().message),
            }
        }
        &Question::Leases { job, worker } => {
            match ask(session, ControlRequest::Leases { job, worker }).await? {
                ControlReply::Leases { leases, .. } => Ok(Facts::Leases(leases)),
                _ => Err(Failure::unexpected().message),
            }
        }
        Question::Results(job) => results(session, *job).await.map(Facts::Lines),
        Question::Preview(name) => preview(session, name).await.map(Facts::Lines),
    }
}

async fn ask(session: &Session, request: ControlRequest) -> Result<ControlReply, String> {
    session.cluster().control(request).await.map_err(|error| error.to_string())
}

/// The first rows of the first segment that was committed.
async fn results(session: &Session, job: JobId) -> Result<Vec<String>, String> {
    let request = ControlRequest::Results { job, skip: 0, limit: 1 };
    let ControlReply::Results { segments, .. } = ask(session, request).await? else {
        return Err(Failure::unexpected().message);
    };
    let Some(first) = segments.first() else { return Ok(Vec::new()) };
    let bytes = session.files().fetch_blob(&first.segment).await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&bytes).lines().take(LINES_MAX).map(str::to_owned).collect())
}

/// The beginning of a file: lines of text, or bytes.
async fn preview(session: &Session, name: &FileName) -> Result<Vec<String>, String> {
    let request = ControlRequest::Locate { names: vec![name.clone()], version: None };
    let ControlReply::Located(mut located) = ask(session, request).await? else {
        return Err(Failure::unexpected().message);
    };
    let Some(version) = located.pop().flatten() else { return Err(format!("there is no file '{name}'")) };
    let Some(first) = version.extents.first() else { return Ok(Vec::new()) };
    if first.blob.size > PREVIEW_BYTES_MAX {
        return Err(String::from(
            "too large to be fetched for a preview: ':get' writes it into a local file",
        ));
    }
    let bytes = session.files().fetch_blob(first).await.map_err(|error| error.to_string())?;
    Ok(shown(&bytes))
}

fn shown(bytes: &[u8]) -> Vec<String> {
    let head = &bytes[..bytes.len().min(4096)];
    // A character may be cut at the end of the head; zeros are in no text.
    let is_text = !head.contains(&0)
        && !String::from_utf8_lossy(head).trim_end_matches('\u{fffd}').contains('\u{fffd}');
    if is_text {
        return String::from_utf8_lossy(bytes).lines().take(LINES_MAX).map(str::to_owned).collect();
    }
    let hex = |(line, bytes): (usize, &[u8])| {
        let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String =
            bytes.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' }).collect();
        format!("{:08x}  {:<47}  {text}", line * HEX_BYTES, digits.join(" "))
    };
    bytes.chunks(HEX_BYTES).enumerate().take(LINES_MAX).map(hex).collect()
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn text_is_shown_as_text_and_anything_else_as_bytes() {
        assert_eq!(shown("naïve\nsecond\n".as_bytes()), ["naïve", "second"]);
        let bytes = shown(b"\xff\xd8\0JFIF");
        assert_eq!(bytes, [format!("00000000  {:<47}  ...JFIF", "ff d8 00 4a 46 49 46")]);
    }
}
