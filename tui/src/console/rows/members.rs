//! The members page.

use std::collections::BTreeMap;

use idunno_shared::ids::NodeId;
use idunno_shared::names::ModelName;
use idunno_shared::wire::control::{ClusterView, Liveness, LoadView, LogRole, MemberView, WorkerView};
use idunno_shared::wire::jobs::{ModelState, ServerState};
use idunno_shared::wire::resources::{Device, Runner};

use crate::answer::text;
use crate::console::rate_history::{RateHistory, current_rate};
use crate::console::table::{Cell, Column, DataRow, Mark, RowWindow, TableContent};
use crate::console::theme::Tone;
use crate::execute::members::natural;

/// Steps of a member's sparkline: one minute.
const SPARKLINE_STEPS: usize = 12;

pub(super) fn content(view: &ClusterView, rates: &RateHistory, window: &RowWindow) -> TableContent {
    let columns = vec![
        Column::text("NAME", 0),
        Column::text("STATE", 0),
        Column::text("ROLE", 2),
        Column::text("MODEL SERVER", 3),
        Column::number("Q/S", 1),
        Column::number("LEASED", 5),
        Column::number("BLOBS", 8),
        Column::number("STORED", 4),
        Column::text("ADDRESS", 6),
        Column::text("SINCE UTC", 7),
        Column::text("DEVICES", 9),
        Column::number("RUNNERS", 10),
        Column::text("MODELS", 11),
        Column::number("STARTS", 12),
        Column::number("INCARNATION", 13),
        Column::text("ID", 14),
    ];
    let workers: BTreeMap<NodeId, &WorkerView> = view.workers.iter().map(|it| (it.node, it)).collect();
    let loads: BTreeMap<NodeId, &LoadView> = view.loads.iter().map(|it| (it.node, it)).collect();
    let mut members: Vec<&MemberView> = view.members.iter().collect();
    members.sort_by_cached_key(|member| natural(member.name.as_str()));
    // All sparklines share one scale, so that a slow member stands out.
    let top = rates.members.values().map(|series| series.top(SPARKLINE_STEPS)).fold(0.0, f64::max);
    let rows = members.into_iter().enumerate().map(|(line, member)| {
        if !window.contains(line) {
            return DataRow { key: member.name.to_string(), cells: Vec::new() };
        }
        let series = rates.members.get(&member.id);
        let rate = series.map(|series| rate_cell(series.last(SPARKLINE_STEPS), top));
        row(member, workers.get(&member.id).copied(), loads.get(&member.id).copied(), rate)
    });
    TableContent::new(columns, rows.collect())
}

fn row(
    member: &MemberView,
    worker: Option<&WorkerView>,
    load: Option<&LoadView>,
    rate: Option<Cell>,
) -> DataRow {
    let tone = if member.role == LogRole::Coordinator { Tone::Title } else { Tone::Plain };
    DataRow {
        key: member.name.to_string(),
        cells: vec![
            Cell::plain(member.name.to_string()),
            liveness(member),
            Cell::with_tone(tone, text::role(member.role)),
            worker.map_or_else(Cell::dash, |worker| server(&worker.server)),
            rate.filter(|_| worker.is_some()).unwrap_or_else(Cell::dash),
            load.filter(|_| worker.is_some()).map_or_else(Cell::dash, |load| Cell::count(load.queries)),
            load.map_or_else(Cell::dash, |load| Cell::count(load.blobs)),
            load.map_or_else(Cell::dash, |load| Cell::number(load.bytes as f64, text::bytes(load.bytes))),
            Cell::plain(member.address.to_string()),
            Cell::number(member.since_ms as f64, text::moment(member.since_ms)),
            worker.map_or_else(Cell::dash, |worker| devices(&worker.resources.devices)),
            worker.map_or_else(Cell::dash, |worker| memory(&worker.resources.runners)),
            models(worker.map_or(&[], |worker| &worker.models)),
            Cell::count(member.generation),
            Cell::count(member.incarnation),
            Cell::with_tone(Tone::Dim, member.id.to_string()),
        ],
    }
}

/// A member's current rate with a sparkline; a dash if it is unknown.
fn rate_cell(values: Vec<f64>, top: f64) -> Cell {
    let rate = current_rate(&values);
    let text = rate.map_or_else(|| String::from("-"), |rate| format!("{rate:.1}"));
    Cell { mark: Mark::Sparkline { values, top }, value: rate, ..Cell::plain(format!("{text:>5}")) }
}

/// A member's liveness as glyph and word.
pub fn liveness(member: &MemberView) -> Cell {
    let tone = match member.liveness {
        Liveness::Alive if member.disk_hung() => Tone::Bad,
        Liveness::Alive => Tone::Good,
        Liveness::Suspect => Tone::Warn,
        Liveness::Dead => Tone::Bad,
        Liveness::Left => Tone::Dim,
    };
    let blocked = if member.udp_blocked { " UDP blocked" } else { "" };
    let hung = if member.disk_hung() { " disk hangs" } else { "" };
    Cell::state(tone, format!("{}{blocked}{hung}", text::liveness(member.liveness)))
}

/// The state of a model server as glyph and word.
pub(super) fn server(server: &ServerState) -> Cell {
    let (word, reason) = text::server_state(server);
    let tone = match server {
        ServerState::Ready => Tone::Good,
        ServerState::Starting => Tone::Warn,
        ServerState::Down(_) => Tone::Bad,
    };
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    Cell::state(tone, format!("{word}{reason}"))
}

/// The GPUs, of which one that models cannot use is marked.
fn devices(devices: &[Device]) -> Cell {
    if devices.is_empty() {
        return Cell::dash();
    }
    let tone = if devices.iter().all(|device| device.reason.is_empty()) { Tone::Plain } else { Tone::Warn };
    Cell::with_tone(tone, text::devices(devices))
}

/// The memory of all processes that run models.
fn memory(runners: &[Runner]) -> Cell {
    if runners.is_empty() {
        return Cell::dash();
    }
    let memory_mib: u64 = runners.iter().map(|runner| runner.memory_mib).sum();
    Cell::number(memory_mib as f64, text::bytes(memory_mib << 20))
}

fn models(models: &[(ModelName, ModelState)]) -> Cell {
    let mut tone = Tone::Plain;
    let mut described = Vec::new();
    for (model, state) in models {
        let (word, reason) = text::model_state(state);
        let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        described.push(format!("{model} {word}{reason}"));
        if matches!(state, ModelState::Failed(_)) {
            tone = Tone::Bad;
        }
    }
    Cell::with_tone(tone, described.join(", "))
}

/// Names by id, for tables that look up a name per row.
pub(super) struct MemberNames<'a>(BTreeMap<NodeId, &'a str>);

impl<'a> MemberNames<'a> {
    pub(super) fn of(view: &'a ClusterView) -> Self {
        Self(view.members.iter().map(|member| (member.id, member.name.as_str())).collect())
    }

    /// The member's name, or its id if it is not in the list.
    pub(super) fn get(&self, node: NodeId) -> String {
        self.0.get(&node).map_or_else(|| node.to_string(), |name| (*name).to_owned())
    }
}
