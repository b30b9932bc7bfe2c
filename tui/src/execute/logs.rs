//! `logs`: members' logs, merged by time. Each member searches its own.

use std::collections::VecDeque;

use futures_util::future::join_all;
use idunno_shared::names::MemberName;
use idunno_shared::wire::control::{
    ControlReply, ControlRequest, Liveness, LogCursor, LogMatches, LogSearch, MemberView,
};

use super::members;
use crate::answer::cluster::LogLine as LogLineJson;
use crate::answer::document::to_json;
use crate::answer::{Answer, Exit, Failure};
use crate::command::{MinLevel, Since};
use crate::session::Session;
use crate::tail::{Lines, LogLine, merged};

/// Which lines are wanted.
pub fn search(pattern: Option<String>, level: MinLevel, since: Option<Since>) -> LogSearch {
    LogSearch { pattern, level: level.into(), since: since.map(|since| since.0), after: None }
}

/// `logs`: the newest `count` of the wanted lines.
pub async fn run(
    session: &Session,
    names: &[MemberName],
    search: &LogSearch,
    count: usize,
) -> Result<Answer, Failure> {
    let wanted = sources(session, names).await?;
    let found = join_all(wanted.iter().map(|member| newest(session, member, search, count))).await;
    let mut lines = Vec::new();
    let mut silent = Vec::new();
    for (found, member) in found.into_iter().zip(&wanted) {
        match found {
            Ok(found) => lines.extend(found),
            Err(failure) if failure.exit == Exit::Refused => return Err(failure),
            Err(failure) => silent.push(format!("{}: {failure}", member.name)),
        }
    }
    let mut lines = merged(lines);
    lines.drain(..lines.len().saturating_sub(count));
    let answer = Answer::list(lines.iter().map(document).collect(), text(&lines));
    Ok(if silent.is_empty() { answer } else { answer.incomplete(silent.join("; ")) })
}

/// Logs that are followed, with the position in each.
pub struct Follow {
    search: LogSearch,
    positions: Vec<(MemberView, Option<LogCursor>)>,
}

impl Follow {
    /// Follows from now on.
    pub async fn start(session: &Session, names: &[MemberName], search: &LogSearch) -> Result<Self, Failure> {
        let mut positions = Vec::new();
        for member in sources(session, names).await? {
            // From the end of the newest page, so that no line is printed twice.
            let end = match page(session, &member).await {
                Ok((_, end)) => Some(end),
                Err(_) => None,
            };
            positions.push((member, end));
        }
        Ok(Self { search: search.clone(), positions })
    }

    /// The lines since the last call, merged by time. A member that does not answer is asked again by the next call.
    pub async fn next(&mut self, session: &Session) -> Result<Vec<LogLine>, Failure> {
        let asked = self.positions.iter().map(|(member, after)| {
            let search = LogSearch { after: after.clone(), ..self.search.clone() };
            ask(session, member, search)
        });
        let mut lines = Vec::new();
        for (answer, (member, position)) in join_all(asked).await.into_iter().zip(&mut self.positions) {
            match answer {
                Ok(found) => {
                    lines.extend(lines_of(member, &found.lines));
                    *position = Some(found.end);
                }
                Err(failure) if failure.exit == Exit::Refused => return Err(failure),
                Err(_) => {}
            }
        }
        Ok(merged(lines))
    }
}

/// A line as a line of JSON.
pub fn row(line: &LogLine) -> String {
    to_json(&document(line))
}

fn document(line: &LogLine) -> LogLineJson {
    LogLineJson { member: line.source.clone(), line: line.text.clone() }
}

/// The lines for people, each after its member's name.
pub fn text(lines: &[LogLine]) -> String {
    let widest = lines.iter().map(|line| line.source.len()).max().unwrap_or(0);
    let rows: Vec<String> =
        lines.iter().map(|line| format!("{:<widest$} {}", line.source, line.text)).collect();
    rows.join("\n")
}

/// The members whose logs are wanted: those named, or all that are up.
async fn sources(session: &Session, names: &[MemberName]) -> Result<Vec<MemberView>, Failure> {
    let all = members::any_list(session).await?;
    if let Some(name) = names.iter().find(|name| !all.iter().any(|member| member.name == **name)) {
        let text = format!("there is no member '{name}': list_mem lists the members");
        return Err(Failure::new(Exit::NotFound, text));
    }
    let is_meant = |member: &MemberView| match names {
        [] => member.liveness == Liveness::Alive,
        names => names.contains(&member.name),
    };
    Ok(all.into_iter().filter(is_meant).collect())
}

/// The newest of the wanted lines of one member.
async fn newest(
    session: &Session,
    member: &MemberView,
    search: &LogSearch,
    count: usize,
) -> Result<Vec<LogLine>, Failure> {
    if *search == LogSearch::default() {
        return page(session, member).await.map(|(lines, _)| lines);
    }
    let mut kept = VecDeque::new();
    let mut search = search.clone();
    loop {
        let LogMatches { lines, end, more } = ask(session, member, search.clone()).await?;
        kept.extend(lines_of(member, &lines));
        kept.drain(..kept.len().saturating_sub(count));
        if !more {
            return Ok(kept.into());
        }
        search.after = Some(end);
    }
}

async fn ask(session: &Session, member: &MemberView, search: LogSearch) -> Result<LogMatches, Failure> {
    match session.cluster().ask_member(member.address, ControlRequest::SearchLog(search)).await? {
        ControlReply::FoundLog(found) => Ok(found),
        _ => Err(Failure::unexpected()),
    }
}

/// The end of a member's log, and its position.
async fn page(session: &Session, member: &MemberView) -> Result<(Vec<LogLine>, LogCursor), Failure> {
    let request = ControlRequest::Log { after: None };
    let ControlReply::Log(page) = session.cluster().ask_member(member.address, request).await? else {
        return Err(Failure::unexpected());
    };
    let mut lines = Lines::default();
    if page.cut {
        lines.cut();
    }
    let mut texts = Vec::new();
    lines.take(&page.bytes, &mut texts);
    Ok((with_source(member, texts), page.end))
}

fn lines_of(member: &MemberView, bytes: &[u8]) -> Vec<LogLine> {
    let mut texts = Vec::new();
    Lines::default().take(bytes, &mut texts);
    with_source(member, texts)
}

fn with_source(member: &MemberView, texts: Vec<String>) -> Vec<LogLine> {
    let source = member.name.to_string();
    texts.into_iter().map(|text| LogLine { source: source.clone(), text }).collect()
}
