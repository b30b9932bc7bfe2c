//! What the selected row is about.

use idunno_shared::client::results::query_of;
use idunno_shared::wire::control::ClusterView;

use super::detail::{Detail, DetailTab, DetailTarget};
use super::state::{DetailData, Page, State};

/// The member, job or file that the selected row is about.
pub fn target(state: &State) -> Option<DetailTarget> {
    let key = state.selected()?;
    let view = state.view.as_ref()?;
    let Some(detail) = state.details.last() else {
        return match state.page {
            Page::Members | Page::Assignments => member_target(view, &key),
            Page::Jobs => key.parse().ok().map(DetailTarget::Job),
            Page::Files => file_target(&key),
            Page::Overview | Page::Models | Page::Logs | Page::Events => None,
        };
    };
    match detail.tab {
        DetailTab::JobMembers => member_target(view, &key),
        DetailTab::JobBatches => member_target(view, key.split(' ').next()?),
        DetailTab::JobDeadLetters => dead_letter_target(view, detail, &key),
        DetailTab::MemberFiles => file_target(&key),
        DetailTab::JobResults => row_target(detail, &key),
        _ => None,
    }
}

fn member_target(view: &ClusterView, name: &str) -> Option<DetailTarget> {
    let member = view.members.iter().find(|member| member.name.as_str() == name)?;
    Some(DetailTarget::Member { id: member.id, name: name.to_owned() })
}

fn file_target(name: &str) -> Option<DetailTarget> {
    name.parse().ok().map(DetailTarget::File)
}

/// A row of results.
fn row_target(detail: &Detail, key: &str) -> Option<DetailTarget> {
    let Some(DetailData::Results(results)) = &detail.data else { return None };
    let query: u64 = key.parse().ok()?;
    let json = results.rows.iter().find(|row| query_of(row.as_bytes()).ok() == Some(query))?;
    Some(DetailTarget::Row { query, json: json.clone() })
}

/// The file that a dead letter's query comes from. A record's is the file of records.
fn dead_letter_target(view: &ClusterView, detail: &Detail, key: &str) -> Option<DetailTarget> {
    let (DetailTarget::Job(id), Some(DetailData::DeadLetters(dead_letters))) = (&detail.target, &detail.data)
    else {
        return None;
    };
    let dead_letter = dead_letters.rows.iter().find(|dead_letter| dead_letter.index.to_string() == key)?;
    let dataset = view.jobs.iter().find(|job| job.id == *id)?.dataset.as_str();
    let name = dead_letter.name.as_str();
    let is_record = name.strip_prefix(dataset).is_some_and(|rest| rest.starts_with(':'));
    file_target(if is_record { dataset } else { name })
}
