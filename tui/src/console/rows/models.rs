//! The rows of the models page: the state of each model, in the cluster and on each VM.

use idunno_shared::wire::control::{ClusterView, ModelView};
use idunno_shared::wire::jobs::ModelState;

use super::super::table::{Cell, Column, Content, Row, column};
use super::super::theme::Role;
use super::members;
use crate::answer::text;
use crate::execute::{members::natural, models::model_summary};

/// Up to so many workers have a column each.
const COLUMNS_MAX: usize = 12;

pub(super) fn content(view: &ClusterView) -> Content {
    let mut columns = vec![
        column("MODEL", false, 0),
        column("STATE", false, 1),
        column("READY", true, 2),
        column("VERSION", false, 30),
        // Why one failed is read before what another measured.
        column("LAST TRAINING", false, if view.models.iter().any(failed) { 2 } else { 31 }),
    ];
    let names = members::names(view);
    let mut workers: Vec<_> = view.workers.iter().map(|worker| worker.node).collect();
    workers.sort_by_cached_key(|node| natural(names.get(node).copied().unwrap_or_default()));
    if workers.len() > COLUMNS_MAX {
        workers.clear();
    }
    columns.extend(workers.iter().enumerate().map(|(place, node)| Column {
        title: names.get(node).map_or_else(|| node.to_string(), |name| name.to_uppercase()),
        right: false,
        rank: u8::try_from(place + 3).unwrap_or(u8::MAX),
    }));
    let row = |model: &ModelView| {
        let mut cells = vec![
            Cell::plain(model.model.to_string()),
            summary(model),
            ready(model, view.workers.len()),
            Cell::of(Role::Dim, model.version.as_ref().map_or_else(|| String::from("-"), text::short)),
            last_training(model),
        ];
        cells.extend(workers.iter().map(|node| {
            let state = model.workers.iter().find(|(worker, _)| worker == node);
            let progress = model.progress.iter().find(|(worker, _)| worker == node);
            match (state, progress) {
                (Some((_, ModelState::Training)), Some((_, progress))) => {
                    Cell::state(Role::Warn, format!("training {} %", progress.permille / 10))
                }
                (Some((_, state)), _) => at_worker(state),
                (None, _) => Cell::of(Role::Dim, "-"),
            }
        }));
        Row { key: model.model.to_string(), cells }
    };
    (columns, view.models.iter().map(row).collect())
}

/// At how many workers it is ready, and at how many it failed.
fn ready(model: &ModelView, workers: usize) -> Cell {
    let count = |wanted: fn(&ModelState) -> bool| model.workers.iter().filter(|(_, it)| wanted(it)).count();
    let ready = count(|state| matches!(state, ModelState::Ready(_)));
    let failed = count(|state| matches!(state, ModelState::Failed(_)));
    let (role, note) =
        if failed > 0 { (Role::Bad, format!(", {failed} failed")) } else { (Role::Plain, String::new()) };
    Cell { role, ..Cell::figure(ready as f64, format!("{ready} of {workers}{note}")) }
}

/// Whether the last training failed, and no other runs.
fn failed(model: &ModelView) -> bool {
    model.failure.is_some() && !model.training
}

/// Why the last training failed, or what it measured.
fn last_training(model: &ModelView) -> Cell {
    if let Some(reason) = model.failure.as_ref().filter(|_| failed(model)) {
        return Cell::of(Role::Bad, crate::tail::printable(reason));
    }
    let metrics: Vec<String> = model.metrics.iter().map(|(name, value)| format!("{name} {value}")).collect();
    Cell::of(Role::Dim, if metrics.is_empty() { String::from("-") } else { metrics.join(", ") })
}

fn summary(model: &ModelView) -> Cell {
    let role = match (&model.failure, model.training, &model.version) {
        (_, true, _) => Role::Warn,
        (Some(_), ..) => Role::Bad,
        (None, false, Some(_)) => Role::Good,
        (None, false, None) => Role::Dim,
    };
    let word = match role {
        Role::Bad => String::from("failed"),
        Role::Good => String::from("trained"),
        _ => model_summary(model),
    };
    Cell::state(role, word)
}

fn at_worker(state: &ModelState) -> Cell {
    let role = match state {
        ModelState::Training | ModelState::Loading => Role::Warn,
        ModelState::Ready(_) => Role::Good,
        ModelState::Failed(_) => Role::Bad,
    };
    Cell::state(role, text::model_state(state).0)
}
