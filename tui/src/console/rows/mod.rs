//! The rows of the pages, made from the newest view, and only when what they show changed.

mod assignments;
mod details;
mod files;
mod jobs;
mod members;
mod models;

use super::state::{Page, State};
use super::table::{Cell, Content, Made, Row, Table, Window, column};
use crate::answer::text;

pub use jobs::{progress, state as job_state};
pub use members::liveness;

/// Brings the table that is shown up to date.
pub fn refresh(state: &mut State) {
    if state.reads_log() || (state.page == Page::Overview && state.details.is_empty()) {
        return;
    }
    let table = state.table_mut();
    let window = Window::around(table);
    let made = Made { filter: table.filter.clone(), sort: table.sort, window, ..Made::default() };
    let made = Made { shown: state.shown, page: generation(state), ..made };
    if state.table_mut().made.as_ref() == Some(&made) {
        return;
    }
    let (content, prefiltered) = content(state, &made.window);
    let table: &mut Table = state.table_mut();
    table.fill(content.0, content.1, prefiltered);
    table.made = Some(made);
    state.dirty = true;
}

/// The table that is shown with the cells of all its rows.
pub fn whole(state: &State) -> Table {
    let mut table = state.table().cloned().unwrap_or_default();
    let (content, prefiltered) = content(state, &Window::ALL);
    table.fill(content.0, content.1, prefiltered);
    table
}

/// Counts what a table shows beside the view.
fn generation(state: &State) -> u64 {
    match state.details.last() {
        Some(detail) => detail.generation,
        None if state.page == Page::Files => state.files.generation,
        None if state.page == Page::Events => state.events.list.back().map_or(0, |event| event.number),
        None => 0,
    }
}

/// What the table shows, and whether the filter has been applied elsewhere.
fn content(state: &State, window: &Window) -> (Content, bool) {
    if state.page == Page::Events && state.details.is_empty() {
        return (events(state), false);
    }
    let Some(view) = &state.view else { return (Content::default(), false) };
    if let Some(detail) = state.details.last() {
        return (details::content(detail, view), false);
    }
    match state.page {
        Page::Members => (members::content(view, &state.history, window), false),
        Page::Jobs => (jobs::content(view), false),
        Page::Assignments => (assignments::content(view, &state.history, window), false),
        Page::Files => (files::content(&state.files, view), true),
        Page::Models => (models::content(view), false),
        Page::Overview | Page::Logs | Page::Events => (Content::default(), false),
    }
}

fn events(state: &State) -> Content {
    let columns = vec![column("TIME UTC", false, 0), column("KIND", false, 0), column("WHAT", false, 0)];
    let row = |event: &super::events::Event| Row {
        key: event.number.to_string(),
        cells: vec![
            Cell::figure(event.number as f64, text::clock(event.at_ms)),
            Cell::plain(event.kind),
            Cell::state(event.role, event.text.clone()),
        ],
    };
    (columns, state.events.list.iter().rev().map(row).collect())
}
