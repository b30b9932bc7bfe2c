//! The rows of what is looked into.

use std::collections::BTreeMap;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::control::{ClusterView, DeadLetter, FileVersion, LeaseStage, LeaseView};

use super::super::detail::{Detail, Target};
use super::super::msg::Facts;
use super::super::table::{Cell, Content, Mark, Row, column};
use super::super::theme::Role;
use super::{files, members};
use crate::answer::text;
use crate::execute::{leases, members::natural};

pub(super) fn content(detail: &Detail, view: &ClusterView) -> Content {
    match (&detail.target, detail.part, &detail.facts) {
        (Target::Job(id), 0, _) => vms(*id, view),
        (Target::Member(id, _), 1, _) => models(*id, view),
        (Target::File(_), 1, Some(Facts::Versions(versions))) => kept(versions),
        (Target::File(_), 0, Some(Facts::Versions(versions))) => extents(versions, view),
        (_, _, Some(Facts::Letters(dead_letters, _))) => dead(dead_letters, view),
        (_, _, Some(Facts::Files(found, _))) => stored(found, view),
        (_, _, Some(Facts::Lines(lines))) => text_lines(lines),
        (_, _, Some(Facts::Leases(views))) => batches(views),
        _ => Content::default(),
    }
}

fn vms(job: idunno_shared::ids::JobId, view: &ClusterView) -> Content {
    let columns = vec![column("VM", false, 0), column("SHARE OF 60 S", false, 1), column("NOW", false, 0)];
    let row = |it: &idunno_shared::wire::control::AssignmentView| {
        let share = it.shares.iter().find(|(id, _)| *id == job).map_or(0.0, |(_, share)| *share);
        let works = it.current.contains(&job);
        let now = match (works, it.current.is_empty()) {
            (true, _) => Cell::state(Role::Good, "works on it"),
            (false, true) => Cell::state(Role::Dim, "idle"),
            (false, false) => Cell::state(Role::Dim, "works for others"),
        };
        let text = format!("{:>3.0} %", share * 100.0);
        let share = Cell { mark: Mark::Share(share), ..Cell::figure(share, text) };
        Row { key: it.name.clone(), cells: vec![Cell::plain(it.name.clone()), share, now] }
    };
    let mut rows: Vec<Row> = view.assignments.iter().map(row).collect();
    rows.sort_by(|a, b| natural(&a.key).cmp(&natural(&b.key)));
    (columns, rows)
}

fn models(node: NodeId, view: &ClusterView) -> Content {
    let columns = vec![column("MODEL", false, 0), column("STATE", false, 0), column("WHY", false, 1)];
    let worker = view.workers.iter().find(|worker| worker.node == node);
    let mut rows: Vec<Row> = Vec::new();
    if let Some(worker) = worker {
        rows.push(Row {
            key: String::from("model server"),
            cells: vec![
                Cell::of(Role::Title, "model server"),
                members::server(&worker.server),
                Cell::default(),
            ],
        });
    }
    rows.extend(worker.into_iter().flat_map(|worker| &worker.models).map(|(model, state)| {
        let (word, why) = text::model_state(state);
        let role = match word {
            "ready" => Role::Good,
            "failed" => Role::Bad,
            _ => Role::Warn,
        };
        let cells =
            vec![Cell::plain(model.to_string()), Cell::state(role, word), Cell::plain(why.unwrap_or(""))];
        Row { key: model.to_string(), cells }
    }));
    (columns, rows)
}

fn batches(views: &[LeaseView]) -> Content {
    let columns = vec![
        column("VM", false, 0),
        column("NOW", false, 0),
        column("JOB", false, 1),
        column("QUERIES", true, 2),
        column("COUNT", true, 3),
        column("TRY", true, 4),
        column("TERM", true, 5),
    ];
    let row = |view: &LeaseView| {
        let (lease, first) = (&view.lease, view.lease.range.first);
        let role = if view.stage == LeaseStage::Waiting { Role::Dim } else { Role::Good };
        Row {
            key: format!("{} {} {} {}", view.name, lease.job, first, lease.attempt),
            cells: vec![
                Cell::plain(view.name.clone()),
                Cell::state(role, leases::stage(view.stage)),
                Cell::plain(lease.job.to_string()),
                Cell::figure(first as f64, leases::queries(view)),
                Cell::count(lease.range.count.into()),
                Cell::count(lease.attempt.into()),
                Cell::count(lease.term.0),
            ],
        }
    };
    let mut rows: Vec<Row> = views.iter().map(row).collect();
    // A worker's stay in the order in which it runs them.
    rows.sort_by(|a, b| natural(first_word(&a.key)).cmp(&natural(first_word(&b.key))));
    (columns, rows)
}

fn dead(dead_letters: &[DeadLetter], view: &ClusterView) -> Content {
    let columns = vec![
        column("QUERY", true, 0),
        column("WHY", false, 0),
        column("FILE", false, 1),
        column("TRIES", true, 3),
        column("WORKER", false, 2),
    ];
    let names = members::names(view);
    let row = |dead_letter: &DeadLetter| Row {
        key: dead_letter.index.to_string(),
        cells: vec![
            Cell::count(dead_letter.index),
            Cell::state(Role::Bad, crate::tail::printable(&dead_letter.reason)),
            Cell::plain(crate::tail::printable(dead_letter.name.as_str())),
            Cell::count(dead_letter.attempts.into()),
            Cell::plain(name(&names, dead_letter.worker)),
        ],
    };
    (columns, dead_letters.iter().map(row).collect())
}

fn stored(found: &[idunno_shared::wire::control::FileSummary], view: &ClusterView) -> Content {
    (files::columns(), found.iter().map(|file| files::file_row(file, "", view)).collect())
}

fn kept(versions: &[FileVersion]) -> Content {
    let columns = vec![
        column("VERSION", true, 0),
        column("SIZE", true, 1),
        column("CREATED UTC", false, 2),
        column("EXTENTS", true, 3),
        column("DIGEST", false, 4),
    ];
    let row = |version: &FileVersion| Row {
        key: version.version.to_string(),
        cells: vec![
            Cell::count(version.version),
            Cell::figure(version.size as f64, text::bytes(version.size)),
            Cell::figure(version.created_ms as f64, text::moment(version.created_ms)),
            Cell::count(version.extents.len() as u64),
            Cell::of(Role::Dim, version.digest.to_string()),
        ],
    };
    (columns, versions.iter().map(row).collect())
}

/// The newest version's extents, and who holds them.
fn extents(versions: &[FileVersion], view: &ClusterView) -> Content {
    let columns = vec![
        column("EXTENT", true, 0),
        column("SIZE", true, 2),
        column("COPIES", true, 1),
        column("HOLDERS", false, 0),
        column("DIGEST", false, 3),
    ];
    let names = members::names(view);
    let placed = versions.first().into_iter().flat_map(|version| &version.extents).enumerate();
    let rows = placed.map(|(number, placed)| {
        let mut holders: Vec<String> =
            placed.holders.iter().map(|holder| name(&names, holder.node)).collect();
        holders.sort_by(|a, b| natural(a).cmp(&natural(b)));
        Row {
            key: number.to_string(),
            cells: vec![
                Cell::count(number as u64),
                Cell::figure(placed.blob.size as f64, text::bytes(placed.blob.size)),
                files::copies(placed.holders.len(), placed.blob.size, view),
                Cell::plain(holders.join(" ")),
                Cell::of(Role::Dim, placed.blob.digest.to_string()),
            ],
        }
    });
    (columns, rows.collect())
}

fn text_lines(lines: &[String]) -> Content {
    let row = |(number, line): (usize, &String)| Row {
        key: number.to_string(),
        cells: vec![Cell::of(Role::Dim, format!("{number:>4}")), Cell::plain(crate::tail::printable(line))],
    };
    let columns = vec![column("", true, 0), column("TEXT", false, 0)];
    (columns, (1..).zip(lines).map(row).collect())
}

fn name(names: &BTreeMap<NodeId, &str>, node: NodeId) -> String {
    names.get(&node).map_or_else(|| node.to_string(), |name| (*name).to_owned())
}

fn first_word(key: &str) -> &str {
    key.split(' ').next().unwrap_or_default()
}
