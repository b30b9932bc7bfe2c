//! The rows of the members page.

use std::collections::BTreeMap;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::control::{ClusterView, Liveness, LoadView, LogRole, MemberView, WorkerView};
use idunno_shared::wire::jobs::{ModelState, ServerState};

use super::super::history::{self, History};
use super::super::table::{Cell, Content, Mark, Row, Window, column};
use super::super::theme::Role;
use crate::answer::text;
use crate::execute::members::natural;

/// Steps of the small chart of a member's rate: a minute.
const COURSE_STEPS: usize = 12;

pub(super) fn content(view: &ClusterView, history: &History, window: &Window) -> Content {
    let columns = vec![
        column("NAME", false, 0),
        column("STATE", false, 0),
        column("ROLE", false, 2),
        column("MODEL SERVER", false, 3),
        column("Q/S", true, 1),
        column("IN HAND", true, 5),
        column("BLOBS", true, 8),
        column("HELD", true, 4),
        column("ADDRESS", false, 6),
        column("SINCE UTC", false, 7),
        column("MODELS", false, 9),
        column("STARTS", true, 10),
        column("INCARNATION", true, 11),
        column("ID", false, 12),
    ];
    let workers: BTreeMap<NodeId, &WorkerView> = view.workers.iter().map(|it| (it.node, it)).collect();
    let loads: BTreeMap<NodeId, &LoadView> = view.loads.iter().map(|it| (it.node, it)).collect();
    let mut members: Vec<&MemberView> = view.members.iter().collect();
    members.sort_by_cached_key(|member| natural(member.name.as_str()));
    // One scale for all: who does less than the others is seen at once.
    let top = history.members.values().map(|curve| curve.top(COURSE_STEPS)).fold(0.0, f64::max);
    let rows = members
        .into_iter()
        .enumerate()
        .map(|(line, member)| {
            if !window.has(line) {
                return Row { key: member.name.to_string(), cells: Vec::new() };
            }
            let load = loads.get(&member.id).copied();
            let rate = history.members.get(&member.id).map(|curve| rate(&curve.last(COURSE_STEPS), top));
            row(member, workers.get(&member.id).copied(), load, rate)
        })
        .collect();
    (columns, rows)
}

fn row(member: &MemberView, worker: Option<&WorkerView>, load: Option<&LoadView>, rate: Option<Cell>) -> Row {
    let none = || Cell::of(Role::Dim, "-");
    let coordinates = if member.role == LogRole::Coordinator { Role::Title } else { Role::Plain };
    Row {
        key: member.name.to_string(),
        cells: vec![
            Cell::plain(member.name.to_string()),
            liveness(member),
            Cell::of(coordinates, text::role(member.role)),
            worker.map_or_else(none, |worker| server(&worker.server)),
            rate.filter(|_| worker.is_some()).unwrap_or_else(none),
            load.filter(|_| worker.is_some()).map_or_else(none, |load| Cell::count(load.queries)),
            load.map_or_else(none, |load| Cell::count(load.blobs)),
            load.map_or_else(none, |load| Cell::figure(load.bytes as f64, text::bytes(load.bytes))),
            Cell::plain(member.address.to_string()),
            Cell::figure(member.since_ms as f64, text::moment(member.since_ms)),
            models(worker.map_or(&[], |worker| &worker.models)),
            Cell::count(member.generation),
            Cell::count(member.incarnation),
            Cell::of(Role::Dim, member.id.to_string()),
        ],
    }
}

/// What a member answered, with its last minute; a dash where that is not known.
fn rate(course: &[f64], top: f64) -> Cell {
    let mark = Mark::Course(course.to_vec(), top);
    let rate = history::newest(course);
    let text = rate.map_or_else(|| String::from("-"), |rate| format!("{rate:.1}"));
    Cell { mark, value: rate, ..Cell::plain(format!("{text:>5}")) }
}

/// A member's liveness in glyph and word.
pub fn liveness(member: &MemberView) -> Cell {
    let role = match member.liveness {
        Liveness::Alive => Role::Good,
        Liveness::Suspect => Role::Warn,
        Liveness::Dead => Role::Bad,
        Liveness::Left => Role::Dim,
    };
    let blocked = if member.udp_blocked { " UDP blocked" } else { "" };
    Cell::state(role, format!("{}{blocked}", text::liveness(member.liveness)))
}

pub(super) fn server(server: &ServerState) -> Cell {
    let (word, reason) = text::server_state(server);
    let role = match server {
        ServerState::Ready => Role::Good,
        ServerState::Starting => Role::Warn,
        ServerState::Down(_) => Role::Bad,
    };
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    Cell::state(role, format!("{word}{reason}"))
}

fn models(models: &[(idunno_shared::names::ModelName, ModelState)]) -> Cell {
    let mut role = Role::Plain;
    let mut parts = Vec::new();
    for (model, state) in models {
        let (word, reason) = text::model_state(state);
        let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        parts.push(format!("{model} {word}{reason}"));
        if matches!(state, ModelState::Failed(_)) {
            role = Role::Bad;
        }
    }
    Cell::of(role, parts.join(", "))
}

/// Names of members by id: looked up for every row of large tables.
pub(super) fn names(view: &ClusterView) -> BTreeMap<NodeId, &str> {
    view.members.iter().map(|member| (member.id, member.name.as_str())).collect()
}
