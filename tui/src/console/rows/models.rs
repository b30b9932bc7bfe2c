//! Models: the models page with their state on each member, and the models of one member.

use idunno_shared::ids::NodeId;
use idunno_shared::wire::control::{ClusterView, ModelView};
use idunno_shared::wire::jobs::ModelState;
use idunno_shared::wire::resources::Device;

use super::members::{self, MemberNames};
use crate::answer::text;
use crate::console::table::{Cell, Column, DataRow, TableContent};
use crate::console::theme::Tone;
use crate::execute::members::natural;
use crate::execute::models::model_summary;

/// Above this many workers none has a column.
const COLUMNS_MAX: usize = 12;

pub(super) fn content(view: &ClusterView) -> TableContent {
    let mut columns = vec![
        Column::text("MODEL", 0),
        Column::text("STATE", 1),
        Column::number("READY", 2),
        Column::text("VERSION", 30),
        // The reason of a failure matters more than the metrics of a success.
        Column::text("LAST TRAINING", if view.models.iter().any(has_failed) { 2 } else { 31 }),
    ];
    let names = MemberNames::of(view);
    let mut workers: Vec<NodeId> = if view.workers.len() <= COLUMNS_MAX {
        view.workers.iter().map(|worker| worker.node).collect()
    } else {
        Vec::new()
    };
    workers.sort_by(|a, b| natural(&names.get(*a)).cmp(&natural(&names.get(*b))));
    columns
        .extend((3..).zip(&workers).map(|(rank, node)| Column::text(names.get(*node).to_uppercase(), rank)));
    let rows = view.models.iter().map(|model| row(model, &workers, view.workers.len()));
    TableContent::new(columns, rows.collect())
}

fn row(model: &ModelView, workers: &[NodeId], all_workers: usize) -> DataRow {
    let mut cells = vec![
        Cell::plain(model.model.to_string()),
        summary(model),
        ready(model, all_workers),
        Cell::with_tone(Tone::Dim, model.version.as_ref().map_or_else(|| String::from("-"), text::short)),
        last_training(model),
    ];
    cells.extend(workers.iter().map(|node| state_on_worker(model, *node)));
    DataRow { key: model.model.to_string(), cells }
}

fn state_on_worker(model: &ModelView, node: NodeId) -> Cell {
    let state = model.workers.iter().find(|(worker, _)| *worker == node);
    let progress = model.progress.iter().find(|(worker, _)| *worker == node);
    match (state, progress) {
        (Some((_, ModelState::Training)), Some((_, progress))) => {
            Cell::state(Tone::Warn, format!("training {} %", progress.permille / 10))
        }
        (Some((_, state)), _) => Cell::state(state_tone(state), text::model_state(state).0),
        (None, _) => Cell::dash(),
    }
}

const fn state_tone(state: &ModelState) -> Tone {
    match state {
        ModelState::Training | ModelState::Loading => Tone::Warn,
        ModelState::Ready(_) => Tone::Good,
        ModelState::Failed(_) => Tone::Bad,
    }
}

/// On how many workers the model is ready, and on how many it failed.
fn ready(model: &ModelView, workers: usize) -> Cell {
    let ready = model.workers.iter().filter(|(_, state)| matches!(state, ModelState::Ready(_))).count();
    let failed = model.workers.iter().filter(|(_, state)| matches!(state, ModelState::Failed(_))).count();
    let (tone, note) =
        if failed > 0 { (Tone::Bad, format!(", {failed} failed")) } else { (Tone::Plain, String::new()) };
    Cell { tone, ..Cell::number(ready as f64, format!("{ready} of {workers}{note}")) }
}

/// Whether the last training failed and none is running.
fn has_failed(model: &ModelView) -> bool {
    model.failure.is_some() && !model.training
}

/// Why the last training failed, or the metrics that it reported.
fn last_training(model: &ModelView) -> Cell {
    if let Some(reason) = model.failure.as_ref().filter(|_| has_failed(model)) {
        return Cell::with_tone(Tone::Bad, reason.as_str());
    }
    let metrics: Vec<String> = model.metrics.iter().map(|(name, value)| format!("{name} {value}")).collect();
    Cell::with_tone(Tone::Dim, if metrics.is_empty() { String::from("-") } else { metrics.join(", ") })
}

fn summary(model: &ModelView) -> Cell {
    match (&model.failure, model.training, &model.version) {
        (_, true, _) => Cell::state(Tone::Warn, model_summary(model)),
        (Some(_), ..) => Cell::state(Tone::Bad, "failed"),
        (None, false, Some(_)) => Cell::state(Tone::Good, "trained"),
        (None, false, None) => Cell::state(Tone::Dim, model_summary(model)),
    }
}

/// A member's model server and the models on it.
pub(super) fn member_models(node: NodeId, view: &ClusterView) -> TableContent {
    let columns = vec![
        Column::text("MODEL", 0),
        Column::text("STATE", 0),
        Column::text("MEMORY", 1),
        Column::text("REASON", 2),
    ];
    let Some(worker) = view.workers.iter().find(|worker| worker.node == node) else {
        return TableContent::new(columns, Vec::new());
    };
    let mut rows = vec![DataRow {
        key: String::from("model server"),
        cells: vec![
            Cell::with_tone(Tone::Title, "model server"),
            members::server(&worker.server),
            Cell::default(),
            Cell::default(),
        ],
    }];
    rows.extend(worker.resources.devices.iter().map(device));
    rows.extend(worker.models.iter().map(|(model, state)| {
        let (word, reason) = text::model_state(state);
        let cells = vec![
            Cell::plain(model.to_string()),
            Cell::state(state_tone(state), word),
            Cell::plain(text::runners(worker.resources.runners.iter().filter(|it| it.model == *model))),
            Cell::plain(reason.unwrap_or("")),
        ];
        DataRow { key: model.to_string(), cells }
    }));
    TableContent::new(columns, rows)
}

fn device(device: &Device) -> DataRow {
    let (tone, word) =
        if device.reason.is_empty() { (Tone::Good, "usable") } else { (Tone::Warn, "not usable") };
    DataRow {
        key: device.uuid.clone(),
        cells: vec![
            Cell::with_tone(Tone::Title, device.name.clone()),
            Cell::state(tone, word),
            Cell::plain(format!("{}/{} MiB", device.memory_used_mib, device.memory_mib)),
            Cell::plain(device.reason.clone()),
        ],
    }
}
