//! Tables: the columns that fit, the rows around the selected one.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::console::state::{Link, Page, State};
use crate::console::table::{Cell, Column, Mark, Row, Table};
use crate::console::theme::{Role, Theme};

const GAP: usize = 2;
const BAR_CELLS: usize = 10;

pub(super) fn draw(state: &State, frame: &mut Frame<'_>, area: Rect) {
    let theme = state.theme;
    let Some(table) = state.table().filter(|table| !table.rows.is_empty()) else {
        let text = Paragraph::new(empty(state)).style(theme.style(Role::Dim));
        frame.render_widget(text.wrap(Wrap { trim: true }), area);
        return;
    };
    let (shown, widths) = visible(table, theme, area);
    let mut lines = vec![titles(table, &widths, theme)];
    for row in shown {
        let chosen = table.cursor.key.as_deref() == Some(row.key.as_str());
        lines.push(cells(row, table, &widths, theme, chosen));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// The rows in sight and the widths of the columns; 0 for those that do not fit.
fn visible(table: &Table, theme: Theme, area: Rect) -> (&[Row], Vec<usize>) {
    let height = usize::from(area.height).saturating_sub(1);
    let first = table.first(height);
    let shown = &table.rows[first..table.rows.len().min(first + height)];
    (shown, fitted(table, shown, theme, usize::from(area.width)))
}

/// Which column stands at `x`.
pub fn column_at(state: &State, area: Rect, x: u16) -> Option<usize> {
    let table = state.table()?;
    let (_, widths) = visible(table, state.theme, area);
    let mut end = usize::from(area.x);
    widths.iter().position(|width| {
        end += if *width > 0 { width + GAP } else { 0 };
        *width > 0 && usize::from(x) < end
    })
}

/// What an empty page says.
pub(super) fn empty(state: &State) -> String {
    let text = match (&state.view, state.page) {
        (_, Page::Events) => "nothing has happened since the console was opened",
        (None, _) => match &state.link {
            Link::Waiting { .. } => "no coordinator yet; is the cluster up? ':local up' starts one here",
            _ => "looking for the coordinator",
        },
        (Some(_), Page::Files) if state.details.is_empty() => {
            return match (&state.files.error, &state.files.asked) {
                (Some(error), _) => crate::tail::printable(error),
                (None, Some(_)) => String::from("asking"),
                (None, None) if !state.filter().is_empty() => {
                    format!(
                        "no name in {} starts with '{}': names are found by their beginning; Esc clears it",
                        if state.files.folder.is_empty() { "the store" } else { &state.files.folder },
                        state.filter()
                    )
                }
                (None, None) => String::from("no files: ':put LOCAL SDFS' stores one"),
            };
        }
        (Some(_), _) if !state.filter().is_empty() => "nothing passes the filter; Esc clears it",
        (Some(_), Page::Jobs) => "no jobs: ':add-job MODEL' makes one",
        (Some(_), Page::Models) => "no models: ':train-start' trains those that come with it",
        (Some(_), _) => "nobody has reported yet",
    };
    text.to_owned()
}

fn shown_text(cell: &Cell, theme: Theme) -> String {
    match &cell.mark {
        Mark::Share(share) => format!("{} {}", theme.bar(*share, BAR_CELLS), cell.text),
        Mark::State => format!("{} {}", theme.glyph(cell.role), cell.text),
        Mark::Course(values, top) => {
            format!("{} {}", theme.chart(values, values.len(), 1, *top)[0], cell.text)
        }
        Mark::None => cell.text.clone(),
    }
}

/// The highest ranks are dropped first; what is left over is cut.
fn fitted(table: &Table, rows: &[Row], theme: Theme, width: usize) -> Vec<usize> {
    let natural = |(index, column): (usize, &Column)| {
        let cells = rows.iter().filter_map(|row| row.cells.get(index));
        let widest = cells.map(|cell| shown_text(cell, theme).width()).max().unwrap_or(0);
        widest.max(title(table, index, theme).width()).max(column.title.width())
    };
    let columns = &table.columns;
    let mut widths: Vec<usize> = columns.iter().enumerate().map(natural).collect();
    let taken =
        |widths: &[usize]| widths.iter().filter(|width| **width > 0).map(|width| width + GAP).sum::<usize>();
    while taken(&widths) > width + GAP {
        let dropped =
            columns.iter().enumerate().filter(|(index, column)| widths[*index] > 0 && column.rank > 0);
        // The last column that is left is cut rather than dropped.
        let Some((index, _)) = dropped.max_by_key(|(_, column)| column.rank) else { break };
        widths[index] = 0;
    }
    let over = taken(&widths).saturating_sub(width + GAP);
    if over > 0
        && let Some(widest) = widths.iter_mut().max()
    {
        *widest = widest.saturating_sub(over).max(1);
    }
    widths
}

/// A column's title, with an arrow if the rows are sorted by it.
fn title(table: &Table, index: usize, theme: Theme) -> String {
    let title = table.columns.get(index).map_or("", |column| column.title.as_str());
    match table.sort {
        Some((column, down)) if column == index => format!("{title} {}", theme.arrow(down)),
        _ => title.to_owned(),
    }
}

fn titles(table: &Table, widths: &[usize], theme: Theme) -> Line<'static> {
    let texts = (0..table.columns.len()).map(|index| (title(table, index, theme), theme.style(Role::Title)));
    Line::from(aligned(texts, &table.columns, widths))
}

fn cells(row: &Row, table: &Table, widths: &[usize], theme: Theme, chosen: bool) -> Line<'static> {
    // On the selected row one colour stands on the bar; the states keep their glyphs and words.
    let style = |cell: &Cell| if chosen { Style::new() } else { theme.style(cell.role) };
    let texts = row.cells.iter().map(|cell| (shown_text(cell, theme), style(cell)));
    let line = Line::from(aligned(texts, &table.columns, widths));
    if chosen { line.style(theme.style(Role::Selected)) } else { line }
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

/// The text, cut to a width; a cut one ends in `~`.
pub(super) fn cut(text: String, width: usize) -> String {
    if text.width() <= width {
        return text;
    }
    let (mut short, mut taken) = (String::new(), 0);
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
