//! The rows of the tables, rebuilt from the newest view only when what they show has changed; and the page as text, for the
//! clipboard and for files.

mod assignments;
mod files;
mod jobs;
mod members;
mod models;
mod results;

use idunno_shared::wire::control::ClusterView;

use super::detail::{Detail, DetailTab, DetailTarget};
use super::event_fold::{self, FoldedEvent};
use super::indented::indented;
use super::state::{DetailData, Page, State};
use super::table::{Cell, Column, DataRow, DataTable, GAP, RowWindow, TableContent, TableInputs};
use super::theme::Tone;
use super::wrap::wrapped;
use crate::answer::text;
use crate::tail::printable;

pub use files::order as file_order;
pub use jobs::{progress, state as job_state};
pub use members::liveness;

/// Columns of the numbers of lines of text.
const LINE_NUMBER_WIDTH: usize = 4;

/// Brings the table on screen up to date.
pub fn refresh(state: &mut State) {
    if state.shows_log() || (state.page == Page::Overview && state.details.is_empty()) {
        return;
    }
    let page_generation = page_generation(state);
    let view_generation = state.view_generation;
    let wrap_width = wrap_width(state);
    let table = state.table_mut();
    let inputs = TableInputs {
        view_generation,
        page_generation,
        filter: table.filter.clone(),
        sort: table.sort,
        window: RowWindow::around(table),
        wrap_width,
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
        None if state.page == Page::Jobs => state.old_jobs.generation,
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
        return detail_content(detail, view, wrap_width(state));
    }
    match state.page {
        Page::Members => members::content(view, &state.rates, window),
        Page::Jobs => jobs::content(state.old_jobs.with_those_of(view)),
        Page::Assignments => assignments::content(view, &state.rates, window),
        Page::Files => files::content(&state.files, view),
        Page::Models => models::content(view),
        Page::Overview | Page::Logs | Page::Events => TableContent::default(),
    }
}

fn detail_content(detail: &Detail, view: &ClusterView, wrap_width: Option<usize>) -> TableContent {
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
        (_, Some(DetailData::DeadLetters(dead_letters))) => jobs::dead_letters(&dead_letters.rows, view),
        (_, Some(DetailData::Files(stored))) => files::stored(&stored.rows, view),
        (_, Some(DetailData::Leases(leases))) => assignments::batches(&leases.rows),
        (_, Some(DetailData::Results(results))) => results::content(&results.rows),
        (DetailTarget::Row { json, .. }, _) => text_lines(&indented(json), wrap_width),
        (_, Some(DetailData::Lines(lines))) => text_lines(lines, wrap_width),
        (_, None) => TableContent::default(),
    }
}

fn events(state: &State) -> TableContent {
    let columns = vec![Column::text("TIME UTC", 0), Column::text("KIND", 0), Column::text("EVENT", 0)];
    let folded = event_fold::fold(&state.events.list);
    let content = TableContent::new(columns, folded.iter().rev().map(event_row).collect());
    // With a selection the newest events, which come above it, would move out of sight.
    TableContent { selects_first: false, ..content }
}

fn event_row(event: &FoldedEvent) -> DataRow {
    DataRow {
        key: event.first.to_string(),
        cells: vec![
            Cell::number(event.number as f64, text::clock(event.at_ms)),
            Cell::plain(event.kind),
            Cell::state(event.tone, event.text.clone()),
        ],
    }
}

/// The columns of text beside its line numbers, if long lines are wrapped.
fn wrap_width(state: &State) -> Option<usize> {
    let is_text = state.details.last().is_some_and(|detail| detail.tab.is_text());
    let width = usize::from(state.size.width).saturating_sub(LINE_NUMBER_WIDTH + GAP);
    (is_text && state.wrap_text).then_some(width.max(1))
}

/// Numbered lines. A line that is wrapped has its number once.
fn text_lines(lines: &[String], wrap_width: Option<usize>) -> TableContent {
    let mut rows = Vec::new();
    for (number, line) in (1_usize..).zip(lines) {
        let line = printable(line);
        let parts = wrap_width.map_or_else(|| vec![line.clone()], |width| wrapped(&line, width));
        for (part, text) in parts.into_iter().enumerate() {
            let shown = if part == 0 { number.to_string() } else { String::new() };
            rows.push(DataRow {
                key: format!("{number}.{part}"),
                cells: vec![
                    Cell::with_tone(Tone::Dim, format!("{shown:>LINE_NUMBER_WIDTH$}")),
                    Cell::plain(text),
                ],
            });
        }
    }
    let content = TableContent::new(vec![Column::number("", 0), Column::text("TEXT", 0)], rows);
    TableContent { selects_first: false, ..content }
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
