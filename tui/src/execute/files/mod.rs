//! Files of the store: [`upload`] of local files and of [`remote`] ones, [`download`], [`many`] at once, [`references`] to objects
//! that are not in it, and here those that list and delete.

pub mod download;
pub mod many;
pub mod references;
pub mod remote;
pub mod upload;
pub mod walk;

use idunno_shared::client::cluster::{Cluster, ClusterError};
use idunno_shared::ids::NodeId;
use idunno_shared::names::FileName;
use idunno_shared::wire::control::{Change, Changed, ControlReply, ControlRequest, FileSummary, MemberView};
use idunno_shared::wire::refusal::Refusal;

use super::members;
use super::pages::page_limit;
use crate::answer::files::{DeletedFile, File, FileList};
use crate::answer::shown::Shown;
use crate::answer::table::Table;
use crate::answer::{Answer, Exit, Failure, text};
use crate::command::file_pattern::{FilePatternError, GLOB_CHARACTERS};
use crate::command::values::MemberRef;
use crate::session::Session;

/// What names standard input or output in the place of a local file.
pub const STREAM: &str = "-";

/// `delete`.
pub async fn delete(session: &Session, name: FileName) -> Result<Answer, Failure> {
    let change = Change::Delete { name: name.clone() };
    let Changed::Deleted { versions } = session.cluster().change(change).await? else {
        return Err(Failure::unexpected());
    };
    let text = format!("{name} deleted, {}", text::count(versions.into(), "version"));
    Ok(Answer::new(&DeletedFile { name: name.to_string(), versions }, text))
}

/// `ls`.
pub async fn list(session: &Session, prefix: String, all: bool) -> Result<Answer, Failure> {
    if prefix.contains(GLOB_CHARACTERS) {
        let pattern =
            prefix.parse().map_err(|error: FilePatternError| Failure::new(Exit::Usage, error.to_string()))?;
        let files = many::find(session, &pattern).await?;
        let members = members::any_list(session).await.unwrap_or_default();
        return Ok(listing(&Page { files, more: false }, &members));
    }
    let request = |after| ControlRequest::List { prefix: prefix.clone(), after, limit: page_limit() };
    let mut page = pages(session, request, all).await?;
    // A file whose name is the prefix sorts before all others that start with it.
    let exact = page.files.first().is_some_and(|file| file.name.as_str() == prefix);
    if exact {
        page.files.truncate(1);
        page.more = false;
    } else if page.files.is_empty() && !prefix.is_empty() {
        return Err(Failure::new(Exit::NotFound, format!("no file matches '{prefix}': ls lists all files")));
    }
    let members = members::any_list(session).await.unwrap_or_default();
    Ok(listing(&page, &members))
}

/// `store`.
pub async fn stored(session: &Session, member: Option<MemberRef>, all: bool) -> Result<Answer, Failure> {
    let id = match member.or_else(|| session.own_member.clone()) {
        Some(member) => members::find(session, &member).await?.id,
        None => match session.cluster().ask_any(ControlRequest::Identity).await? {
            (_, ControlReply::Identity(view)) => view.member.id,
            _ => return Err(Failure::unexpected()),
        },
    };
    let rows_max = if all { usize::MAX } else { page_limit() as usize };
    let page = held_by(&session.cluster(), id, rows_max).await?;
    let members = members::any_list(session).await.unwrap_or_default();
    Ok(listing(&page, &members))
}

/// The first `rows_max` files that a member holds. A page may be empty before the last: it ends after a number of files that
/// were looked at.
pub(crate) async fn held_by(
    cluster: &Cluster,
    member: NodeId,
    rows_max: usize,
) -> Result<Page, ClusterError> {
    let (mut files, mut after) = (Vec::new(), None);
    loop {
        let room = rows_max.saturating_sub(files.len());
        let limit = u32::try_from(room).unwrap_or(u32::MAX).min(page_limit());
        let request = ControlRequest::Stored { member, after, limit };
        let ControlReply::Stored { files: page, next } = cluster.control(request).await? else {
            return Err(ClusterError::from(Refusal::internal("unexpected reply to 'store'")));
        };
        files.extend(page);
        after = next;
        if after.is_none() || files.len() >= rows_max {
            return Ok(Page { files, more: after.is_some() });
        }
    }
}

/// Files in name order.
pub(crate) struct Page {
    pub(crate) files: Vec<FileSummary>,
    /// Whether files follow.
    pub(crate) more: bool,
}

/// The first page, or `all` of them as one.
async fn pages(
    session: &Session,
    request: impl Fn(Option<FileName>) -> ControlRequest,
    all: bool,
) -> Result<Page, Failure> {
    let mut files: Vec<FileSummary> = Vec::new();
    loop {
        let after = files.last().map(|file| file.name.clone());
        let reply = session.cluster().control(request(after)).await?;
        let ControlReply::Files { files: page, more } = reply else { return Err(Failure::unexpected()) };
        let empty = page.is_empty();
        files.extend(page);
        if !more || !all || empty {
            return Ok(Page { files, more: more && !empty });
        }
    }
}

/// The names of a file's holders, in natural order.
pub fn holder_names(file: &FileSummary, members: &[MemberView]) -> Vec<String> {
    let mut names: Vec<String> = file.holders.iter().map(|node| text::member_name(members, *node)).collect();
    names.sort_by(|a, b| members::natural(a).cmp(&members::natural(b)));
    names
}

fn listing(page: &Page, members: &[MemberView]) -> Answer {
    let mut table = Table::new("NAME >VERSION +>KEPT >SIZE +CREATED +HOLDERS");
    let mut items = Vec::new();
    for file in &page.files {
        let holders = holder_names(file, members);
        table.row([
            file.name.to_string(),
            file.version.to_string(),
            file.versions.to_string(),
            file.size.to_string(),
            text::moment(file.created_ms),
            holders.join(" "),
        ]);
        items.push(File::new(file, holders));
    }
    let mut text = if items.is_empty() { Shown::from("no files") } else { table.into() };
    if page.more {
        text = text.then("more files follow: --all lists them");
    }
    Answer::new(&FileList { items, more: page.more }, text)
}
