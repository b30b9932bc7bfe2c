//! `logs`: members' logs, as they tell them themselves, merged by time; searched at each member.

use std::collections::VecDeque;

use futures_util::future::join_all;
use idunno_shared::names::MemberName;
use idunno_shared::wire::control::{
    ControlReply, ControlRequest, Liveness, LogCursor, LogMatches, LogSearch, MemberView,
};
use serde_json::{Value, json};

use super::members;
use crate::answer::{Answer, Exit, Failure};
use crate::command::{MinLevel, Since};
use crate::session::Session;
use crate::tail::{Lines, LogLine, merged};

/// What is wanted of the logs.
pub fn search(pattern: Option<String>, level: MinLevel, since: Option<Since>) -> LogSearch {
    LogSearch { pattern, level: level.into(), since: since.map(|since| since.0), after: None }
}

/// `logs`: the newest `count` lines of those that are wanted.
pub async fn run(
    session: &Session,
    names: &[MemberName],
    search: &LogSearch,
    count: usize,
) -> Result<Answer, Failure> {
    let wanted = sources(session, names).await?;
    let found = join_all(wanted.iter().map(|member| newest(session, member, search, count))).await;
    let (mut lines, mut silent) = (Vec::new(), Vec::new());
    for (found, member) in found.into_iter().zip(&wanted) {
        match found {
            Ok(found) => lines.extend(found),
            Err(failure) if failure.exit == Exit::Refused => return Err(failure),
            Err(failure) => silent.push(format!("{}: {failure}", member.name)),
        }
    }
    let mut lines = merged(lines);
    lines.drain(..lines.len().saturating_sub(count));
    let answer = Answer::new(lines.iter().map(row).collect(), text(&lines));
    Ok(if silent.is_empty() { answer } else { answer.incomplete(silent.join("; ")) })
}

/// Logs that are read on: each member's place.
pub struct Follow {
    search: LogSearch,
    places: Vec<(MemberView, Option<LogCursor>)>,
}

impl Follow {
    /// From now on.
    pub async fn start(session: &Session, names: &[MemberName], search: &LogSearch) -> Result<Self, Failure> {
        let mut places = Vec::new();
        for member in sources(session, names).await? {
            // A search from the end of the newest page, so that nothing is told twice.
            let end = match page(session, &member).await {
                Ok((_, end)) => Some(end),
                Err(_) => None,
            };
            places.push((member, end));
        }
        Ok(Self { search: search.clone(), places })
    }

    /// What has come since, merged by time. A member that does not answer is asked again the next time.
    pub async fn next(&mut self, session: &Session) -> Result<Vec<LogLine>, Failure> {
        let asked = self.places.iter().map(|(member, after)| {
            let search = LogSearch { after: after.clone(), ..self.search.clone() };
            ask(session, member, search)
        });
        let mut lines = Vec::new();
        for (answer, (member, place)) in join_all(asked).await.into_iter().zip(&mut self.places) {
            match answer {
                Ok(found) => {
                    lines.extend(lines_of(member, &found.lines));
                    *place = Some(found.end);
                }
                Err(failure) if failure.exit == Exit::Refused => return Err(failure),
                Err(_) => {}
            }
        }
        Ok(merged(lines))
    }
}

/// For programs.
pub fn row(line: &LogLine) -> Value {
    json!({"member": line.source, "line": line.text})
}

/// For people: who said it, and what.
pub fn text(lines: &[LogLine]) -> String {
    let widest = lines.iter().map(|line| line.source.len()).max().unwrap_or(0);
    let rows: Vec<String> =
        lines.iter().map(|line| format!("{:<widest$} {}", line.source, line.text)).collect();
    rows.join("\n")
}

/// The members whose logs are meant: those named, or all that are up.
async fn sources(session: &Session, names: &[MemberName]) -> Result<Vec<MemberView>, Failure> {
    let all = members::any_list(session).await?;
    if let Some(name) = names.iter().find(|name| !all.iter().any(|member| member.name == **name)) {
        let text = format!("there is no member '{name}': list_mem shows those there are");
        return Err(Failure::new(Exit::NotFound, text));
    }
    let is_meant = |member: &MemberView| match names {
        [] => member.liveness == Liveness::Alive,
        names => names.contains(&member.name),
    };
    Ok(all.into_iter().filter(is_meant).collect())
}

/// A member's newest lines of those that are wanted.
async fn newest(
    session: &Session,
    member: &MemberView,
    search: &LogSearch,
    count: usize,
) -> Result<Vec<LogLine>, Failure> {
    if *search == LogSearch::default() {
        return page(session, member).await.map(|(lines, _)| lines);
    }
    let (mut kept, mut search) = (VecDeque::new(), search.clone());
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

/// The end of a member's log, and where that is.
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
