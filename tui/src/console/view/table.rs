//! Tables: the columns that fit and the rows around the selection.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::empty;
use crate::console::state::{Page, State};
use crate::console::table::{Cell, Column, DataRow, DataTable, GAP, Mark};
use crate::console::theme::{Theme, Tone};

const BAR_CELLS: usize = 10;
/// What a text column needs to be worth its place.
const TEXT_WIDTH: usize = 24;
/// The name and the state of a member: what other members know of it.
const MEMBER_COLUMNS: usize = 2;

pub(super) fn draw(state: &State, frame: &mut Frame<'_>, area: Rect) {
    let theme = state.theme;
    let Some(table) = state.table().filter(|table| !table.rows.is_empty()) else {
        let text = Paragraph::new(empty::page(state)).style(theme.style(Tone::Dim));
        frame.render_widget(text.wrap(Wrap { trim: true }), area);
        return;
    };
    let (shown, widths) = visible(table, theme, area);
    let mut lines = vec![titles(table, &widths, theme)];
    let current = current_columns(state);
    for row in shown {
        let is_selected = table.cursor.key.as_deref() == Some(row.key.as_str());
        lines.push(cells(row, table, &widths, theme, is_selected, current));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// How many columns, from the left, are known to be current. Without a coordinator, only who is up is, if a member has said it.
fn current_columns(state: &State) -> usize {
    let is_members = state.page == Page::Members && state.details.is_empty();
    match (state.is_outdated(), state.members_ms) {
        // The console's own.
        _ if matches!(state.page, Page::Events | Page::Logs) => usize::MAX,
        (false, _) => usize::MAX,
        (true, Some(_)) if is_members => MEMBER_COLUMNS,
        (true, _) => 0,
    }
}

/// The visible rows, and the widths of the columns; 0 for those that do not fit.
fn visible(table: &DataTable, theme: Theme, area: Rect) -> (&[DataRow], Vec<usize>) {
    let height = usize::from(area.height).saturating_sub(1);
    let first = table.first_visible(height);
    let shown = &table.rows[first..table.rows.len().min(first + height)];
    (shown, fitted(table, shown, theme, usize::from(area.width)))
}

/// The column at `x`.
pub fn column_at(state: &State, area: Rect, x: u16) -> Option<usize> {
    let table = state.table()?;
    let (_, widths) = visible(table, state.theme, area);
    let mut end = usize::from(area.x);
    widths.iter().position(|width| {
        end += if *width > 0 { width + GAP } else { 0 };
        *width > 0 && usize::from(x) < end
    })
}

fn shown_text(cell: &Cell, theme: Theme) -> String {
    match &cell.mark {
        Mark::Bar(share) => format!("{} {}", theme.bar(*share, BAR_CELLS), cell.text),
        Mark::State => format!("{} {}", theme.glyph(cell.tone), cell.text),
        Mark::Sparkline { values, top } => {
            format!("{} {}", theme.chart(values, values.len(), 1, *top)[0], cell.text)
        }
        Mark::None => cell.text.clone(),
    }
}

/// The width of each column; 0 for those that do not fit. The columns of the highest rank are dropped until the others fit.
///
/// A long text counts as a shorter one, so that it drops neither its own column nor others: as half of the screen if its
/// column stays, else as a third, else as [`TEXT_WIDTH`]. It takes the room that is left, and the last column is cut.
fn fitted(table: &DataTable, rows: &[DataRow], theme: Theme, width: usize) -> Vec<usize> {
    let natural = |(index, column): (usize, &Column)| {
        let cells = rows.iter().filter_map(|row| row.cells.get(index));
        let widest = cells.map(|cell| shown_text(cell, theme).width()).max().unwrap_or(0);
        widest.max(title(table, index, theme).width()).max(column.title.width())
    };
    let columns = &table.columns;
    let natural: Vec<usize> = columns.iter().enumerate().map(natural).collect();
    let texts =
        [width / 2, width / 3, TEXT_WIDTH].map(|text| shortened(columns, &natural, text.max(TEXT_WIDTH)));
    let candidates = texts.map(|short| (remaining(columns, short.clone(), width), short));
    let keeps_texts = |(kept, short): &&(Vec<usize>, Vec<usize>)| {
        kept.iter().zip(short).zip(&natural).all(|((kept, short), natural)| *kept > 0 || short == natural)
    };
    let chosen = candidates.iter().find(keeps_texts).or_else(|| candidates.last());
    let mut widths = chosen.map_or_else(Vec::new, |(kept, _)| kept.clone());
    let mut room = (width + GAP).saturating_sub(taken(&widths));
    let mut by_rank: Vec<usize> = (0..widths.len()).filter(|&index| widths[index] > 0).collect();
    by_rank.sort_by_key(|&index| columns[index].rank);
    for index in by_rank {
        let more = (natural[index] - widths[index]).min(room);
        (widths[index], room) = (widths[index] + more, room - more);
    }
    let over = taken(&widths).saturating_sub(width + GAP);
    if over > 0
        && let Some(widest) = widths.iter_mut().max()
    {
        *widest = widest.saturating_sub(over).max(1);
    }
    widths
}

/// What columns of these widths take, with the gaps behind them.
fn taken(widths: &[usize]) -> usize {
    widths.iter().filter(|width| **width > 0).map(|width| width + GAP).sum()
}

/// The widths with all texts cut to a limit.
fn shortened(columns: &[Column], natural: &[usize], limit: usize) -> Vec<usize> {
    let short = |(column, width): (&Column, &usize)| {
        if column.right { *width } else { (*width).min(limit.max(column.title.width())) }
    };
    columns.iter().zip(natural).map(short).collect()
}

/// The widths with columns of the highest rank dropped until the others fit.
fn remaining(columns: &[Column], mut widths: Vec<usize>, width: usize) -> Vec<usize> {
    while taken(&widths) > width + GAP {
        let dropped =
            columns.iter().enumerate().filter(|(index, column)| widths[*index] > 0 && column.rank > 0);
        let Some((index, _)) = dropped.max_by_key(|(_, column)| column.rank) else { break };
        widths[index] = 0;
    }
    widths
}

/// A column's title, with an arrow if the table is sorted by it.
fn title(table: &DataTable, index: usize, theme: Theme) -> String {
    let title = table.columns.get(index).map_or("", |column| column.title.as_str());
    match table.sort {
        Some(order) if order.column == index => {
            format!("{title} {}", theme.sort_arrow(order.descending))
        }
        _ => title.to_owned(),
    }
}

fn titles(table: &DataTable, widths: &[usize], theme: Theme) -> Line<'static> {
    let texts = (0..table.columns.len()).map(|index| (title(table, index, theme), theme.style(Tone::Title)));
    Line::from(aligned(texts, &table.columns, widths))
}

fn cells(
    row: &DataRow,
    table: &DataTable,
    widths: &[usize],
    theme: Theme,
    is_selected: bool,
    current: usize,
) -> Line<'static> {
    // The selected row has one colour; its states keep their glyphs and words.
    let style = |index: usize, cell: &Cell| {
        if is_selected {
            return Style::new();
        }
        theme.style(if index < current { cell.tone } else { Tone::Dim })
    };
    let texts =
        row.cells.iter().enumerate().map(|(index, cell)| (shown_text(cell, theme), style(index, cell)));
    let line = Line::from(aligned(texts, &table.columns, widths));
    if is_selected { line.style(theme.style(Tone::Selected)) } else { line }
}

fn aligned(
    texts: impl Iterator<Item = (String, Style)>,
    columns: &[Column],
    widths: &[usize],
) -> Vec<Span<'static>> {
    let mut spans = Vec::new();
    for (((text, style), column), width) in texts.zip(columns).zip(widths) {
        if *width == 0 {
            continue;
        }
        let text = cut(text, *width);
        let padding = " ".repeat(width.saturating_sub(text.width()));
        let styled = Span::styled(text, style);
        if column.right {
            spans.extend([Span::raw(padding), styled]);
        } else {
            spans.extend([styled, Span::raw(padding)]);
        }
        spans.push(Span::raw(" ".repeat(GAP)));
    }
    spans
}

/// Cuts a text to a width; a text that was cut ends in `~`.
pub(super) fn cut(text: String, width: usize) -> String {
    if text.width() <= width {
        return text;
    }
    let mut short = String::new();
    let mut taken = 0;
    for c in text.chars() {
        taken += c.width().unwrap_or(0);
        if taken >= width {
            break;
        }
        short.push(c);
    }
    short.push('~');
    short
}
