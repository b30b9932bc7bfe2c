//! Files of the store: [`upload`], [`download`], and here those that list and delete.

pub mod download;
pub mod upload;

use idunno_shared::names::FileName;
use idunno_shared::wire::control::{Change, Changed, ControlReply, ControlRequest, FileSummary, MemberView};

use super::jobs::page_limit;
use super::members;
use crate::answer::files::{DeletedFile, File, FileList};
use crate::answer::table::Table;
use crate::answer::{Answer, Exit, Failure, text};
use crate::command::values::MemberRef;
use crate::session::Session;

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
    let request = |after| ControlRequest::Stored { member: id, after, limit: page_limit() };
    let page = pages(session, request, all).await?;
    let members = members::any_list(session).await.unwrap_or_default();
    Ok(listing(&page, &members))
}

/// Files in name order.
struct Page {
    files: Vec<FileSummary>,
    /// Whether files follow.
    more: bool,
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
    let mut table = Table::new("NAME >VERSION >KEPT >SIZE CREATED HOLDERS");
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
    let mut text = if items.is_empty() { String::from("no files") } else { table.render() };
    if page.more {
        text.push_str("\nmore files follow: --all lists them");
    }
    Answer::new(&FileList { items, more: page.more }, text)
}
