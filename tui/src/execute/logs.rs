//! `logs`: the end of members' logs, as they tell it themselves.

use futures_util::future::join_all;
use idunno_shared::names::MemberName;
use idunno_shared::wire::control::{ControlReply, ControlRequest, Liveness, MemberView};
use serde_json::json;

use super::{Answer, Exit, Failure, Session, members};
use crate::console::feed::merged;
use crate::console::log::LogLine;
use crate::tail::Lines;

/// `logs`.
pub async fn run(session: &Session, names: &[MemberName], count: usize) -> Result<Answer, Failure> {
    let all = members::any_list(session).await?;
    if let Some(name) = names.iter().find(|name| !all.iter().any(|member| member.name == **name)) {
        let text = format!("there is no member '{name}': list_mem shows those there are");
        return Err(Failure::new(Exit::NotFound, text));
    }
    let wanted: Vec<&MemberView> = all
        .iter()
        .filter(|member| {
            if names.is_empty() { member.liveness == Liveness::Alive } else { names.contains(&member.name) }
        })
        .collect();
    let pages = join_all(wanted.iter().map(|member| page(session, member))).await;
    let (mut lines, mut silent) = (Vec::new(), Vec::new());
    for (page, member) in pages.into_iter().zip(&wanted) {
        match page {
            Ok(page) => lines.extend(page),
            Err(failure) => silent.push(format!("{}: {failure}", member.name)),
        }
    }
    let mut lines = merged(lines);
    lines.drain(..lines.len().saturating_sub(count));
    let widest = lines.iter().map(|line| line.source.len()).max().unwrap_or(0);
    let text: Vec<String> =
        lines.iter().map(|line| format!("{:<widest$} {}", line.source, line.text)).collect();
    let rows = lines.iter().map(|line| json!({"member": line.source, "line": line.text})).collect();
    let answer = Answer::new(rows, text.join("\n"));
    Ok(if silent.is_empty() { answer } else { answer.incomplete(silent.join("; ")) })
}

async fn page(session: &Session, member: &MemberView) -> Result<Vec<LogLine>, Failure> {
    let request = ControlRequest::Log { after: None };
    let ControlReply::Log(page) = session.cluster().ask_member(member.address, request).await? else {
        return Err(Failure::unexpected());
    };
    let (mut lines, mut texts) = (Lines::default(), Vec::new());
    if page.cut {
        lines.cut();
    }
    lines.take(&page.bytes, &mut texts);
    let source = member.name.to_string();
    Ok(texts.into_iter().map(|text| LogLine { source: source.clone(), text }).collect())
}
