//! The rows of the members page.

use std::collections::BTreeMap;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::control::{ClusterView, Liveness, LoadView, LogRole, MemberView, WorkerView};
use idunno_shared::wire::jobs::{ModelState, ServerState};

use super::super::history::History;
use super::super::table::{Cell, Mark, Row};
use super::super::theme::Role;
use super::{Content, Window, column};
use crate::execute::{members::natural, text};

/// Seconds that the small chart of a member's load goes back.
const COURSE_S: usize = 10;

pub(super) fn content(view: &ClusterView, history: &History, window: &Window) -> Content {
    let columns = vec![
        column("NAME", false, 0),
        column("STATE", false, 0),
        column("ROLE", false, 2),
        column("MODEL SERVER", false, 3),
        column("IN HAND", true, 1),
        column("BLOBS", true, 7),
        column("HELD", true, 4),
        column("ADDRESS", false, 5),
        column("SINCE UTC", false, 6),
        column("MODELS", false, 8),
        column("INC", true, 9),
        column("GEN", true, 10),
        column("ID", false, 11),
    ];
    let workers: BTreeMap<NodeId, &WorkerView> = view.workers.iter().map(|it| (it.node, it)).collect();
    let loads: BTreeMap<NodeId, &LoadView> = view.loads.iter().map(|it| (it.node, it)).collect();
    let mut members: Vec<&MemberView> = view.members.iter().collect();
    members.sort_by_cached_key(|member| natural(member.name.as_str()));
    let rows = members
        .into_iter()
        .enumerate()
        .map(|(line, member)| {
            if !window.has(line) {
                return Row { key: member.name.to_string(), cells: Vec::new() };
            }
            let load = loads.get(&member.id).copied();
            let course = history.loads.get(&member.id).map(|curve| curve.last(COURSE_S));
            row(member, workers.get(&member.id).copied(), load, course)
        })
        .collect();
    (columns, rows)
}

fn row(
    member: &MemberView,
    worker: Option<&WorkerView>,
    load: Option<&LoadView>,
    course: Option<Vec<f64>>,
) -> Row {
    let none = || Cell::of(Role::Dim, "-");
    let coordinates = if member.role == LogRole::Coordinator { Role::Title } else { Role::Plain };
    let in_hand = |load: &LoadView| Cell {
        mark: course.map_or(Mark::None, Mark::Course),
        ..Cell::figure(load.queries as f64, format!("{:>4}", load.queries))
    };
    Row {
        key: member.name.to_string(),
        cells: vec![
            Cell::plain(member.name.to_string()),
            liveness(member),
            Cell::of(coordinates, text::role(member.role)),
            worker.map_or_else(none, |worker| server(&worker.server)),
            load.filter(|_| worker.is_some()).map_or_else(none, in_hand),
            load.map_or_else(none, |load| Cell::count(load.blobs)),
            load.map_or_else(none, |load| Cell::figure(load.bytes as f64, text::bytes(load.bytes))),
            Cell::plain(member.address.to_string()),
            Cell::figure(member.since_ms as f64, text::moment(member.since_ms)),
            models(worker.map_or(&[], |worker| &worker.models)),
            Cell::count(member.incarnation),
            Cell::count(member.generation),
            Cell::of(Role::Dim, member.id.to_string()),
        ],
    }
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
