//! The rows of the tables, rebuilt from the newest view only when what they show has changed; and the page as text, for the
//! clipboard and for files.

mod assignments;
mod files;
mod jobs;
mod members;
mod models;

use idunno_shared::wire::control::ClusterView;

use super::detail::{Detail, DetailTab, DetailTarget};
use super::events::Event;
use super::state::{DetailData, Page, State};
use super::table::{Cell, Column, DataRow, DataTable, RowWindow, TableContent, TableInputs};
use super::theme::Tone;
use crate::answer::text;

pub use jobs::{progress, state as job_state};
pub use members::liveness;

/// Brings the table on screen up to date.
pub fn refresh(state: &mut State) {
    if state.shows_log() || (state.page == Page::Overview && state.details.is_empty()) {
        return;
    }
    let page_generation = page_generation(state);
    let view_generation = state.view_generation;
    let table = state.table_mut();
    let inputs = TableInputs {
        view_generation,
        page_generation,
        filter: table.filter.clone(),
        sort: table.sort,
        window: RowWindow::around(table),
    };
    if table.built_from.as_ref() == Some(&inputs) {
        return;
    }
    let content = content(state, &inputs.window);
    let table = state.table_mut();
    table.fill(content);
    table.built_from = Some(inputs);
    state.dirty = true;
}

/// The generation of what the table shows beside the view.
fn page_generation(state: &State) -> u64 {
    match state.details.last() {
        Some(detail) => detail.generation,
        None if state.page == Page::Files => state.files.generation,
        None if state.page == Page::Events => state.events.list.back().map_or(0, |event| event.number),
        None => 0,
    }
}

fn content(state: &State, window: &RowWindow) -> TableContent {
    if state.page == Page::Events && state.details.is_empty() {
        return events(state);
    }
    let Some(view) = &state.view else { return TableContent::default() };
    if let Some(detail) = state.details.last() {
        return detail_content(detail, view);
    }
    match state.page {
        Page::Members => members::content(view, &state.rates, window),
        Page::Jobs => jobs::content(view),
        Page::Assignments => assignments::content(view, &state.rates, window),
        Page::Files => files::content(&state.files, view),
        Page::Models => models::content(view),
        Page::Overview | Page::Logs | Page::Events => TableContent::default(),
    }
}

fn detail_content(detail: &Detail, view: &ClusterView) -> TableContent {
    match (&detail.target, &detail.data) {
        (DetailTarget::Job(id), _) if detail.tab == DetailTab::JobMembers => {
            assignments::job_members(*id, view)
        }
        (DetailTarget::Member { id, .. }, _) if detail.tab == DetailTab::MemberModels => {
            models::member_models(*id, view)
        }
        (_, Some(DetailData::Versions(versions))) if detail.tab == DetailTab::FileVersions => {
            files::versions(versions)
        }
        (_, Some(DetailData::Versions(versions))) => files::extents(versions, view),
        (_, Some(DetailData::DeadLetters(dead_letters))) => jobs::dead_letters(dead_letters, view),
        (_, Some(DetailData::Files(stored))) => files::stored(stored, view),
        (_, Some(DetailData::Leases(leases))) => assignments::batches(leases),
        (_, Some(DetailData::Lines(lines))) => text_lines(lines),
        (_, None) => TableContent::default(),
    }
}

fn events(state: &State) -> TableContent {
    let columns = vec![Column::text("TIME UTC", 0), Column::text("KIND", 0), Column::text("EVENT", 0)];
    TableContent::new(columns, state.events.list.iter().rev().map(event_row).collect())
}

fn event_row(event: &Event) -> DataRow {
    DataRow {
        key: event.number.to_string(),
        cells: vec![
            Cell::number(event.number as f64, text::clock(event.at_ms)),
            Cell::plain(event.kind),
            Cell::state(event.tone, event.text.clone()),
        ],
    }
}

fn text_lines(lines: &[String]) -> TableContent {
    let rows = (1..).zip(lines).map(|(number, line): (usize, _)| DataRow {
        key: number.to_string(),
        cells: vec![Cell::with_tone(Tone::Dim, format!("{number:>4}")), Cell::plain(line.as_str())],
    });
    TableContent::new(vec![Column::number("", 0), Column::text("TEXT", 0)], rows.collect())
}

/// The selected row, its cells separated by tabs.
pub fn selected_row_as_text(state: &State) -> Option<String> {
    let table = state.table()?;
    let key = table.cursor.key.as_ref()?;
    let row = table.rows.iter().find(|row| row.key == *key)?;
    let cells: Vec<&str> = row.cells.iter().map(|cell| cell.text.trim()).collect();
    Some(cells.join("\t"))
}

/// The page as text: all lines of the log that are kept, or all rows of the table.
pub fn page_as_text(state: &State) -> String {
    if state.shows_log() {
        return state.log.text();
    }
    if state.page == Page::Overview && state.details.is_empty() {
        return state.view.as_ref().map(crate::execute::status::summary).unwrap_or_default() + "\n";
    }
    // The table on screen has cells for its visible rows only.
    let mut table = state.table().cloned().unwrap_or_default();
    table.fill(content(state, &RowWindow::ALL));
    table_as_text(&table)
}

fn table_as_text(table: &DataTable) -> String {
    let titles: Vec<String> = table
        .columns
        .iter()
        .map(|column| format!("{}{}", if column.right { ">" } else { "" }, column.title.replace(' ', "_")))
        .collect();
    let mut text = crate::answer::table::Table::new(&titles.join(" "));
    for row in &table.rows {
        text.push(row.cells.iter().map(|cell| cell.text.trim().to_owned()).collect());
    }
    text.render() + "\n"
}
