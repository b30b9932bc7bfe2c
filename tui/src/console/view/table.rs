//! The table pages: the columns that fit, the rows around the selected one.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use crate::console::rows::{Cell, Column, Row, columns, rows};
use crate::console::state::{Link, Page, State};
use crate::console::theme::{Role, Theme};

const GAP: usize = 2;
const BAR_CELLS: usize = 10;

pub(super) fn draw(state: &State, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let rows = rows(state, state.page);
    if rows.is_empty() {
        frame.render_widget(Paragraph::new(empty(state)).style(theme.style(Role::Dim)), area);
        return;
    }
    let height = usize::from(area.height).saturating_sub(1);
    let cursor = state.cursors.get(&state.page);
    let selected = cursor.and_then(|cursor| cursor.key.as_deref());
    let line = cursor.map_or(0, |cursor| cursor.line);
    // The selected row stays in the middle, except near the ends.
    let first = line.saturating_sub(height / 2).min(rows.len().saturating_sub(height));
    let shown = &rows[first..rows.len().min(first + height)];
    let columns = columns(state.page);
    let widths = fitted(columns, shown, theme, usize::from(area.width));
    let mut lines = vec![title(columns, &widths, theme)];
    for row in shown {
        let line = cells(row, columns, &widths, theme);
        let chosen = selected == Some(row.key.as_str());
        lines.push(if chosen { line.style(theme.style(Role::Selected)) } else { line });
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn empty(state: &State) -> String {
    let text = match (&state.view, state.page) {
        (None, _) => match &state.link {
            Link::Waiting { .. } => "no coordinator yet; is the cluster up? ':local up' starts one here",
            _ => "looking for the coordinator",
        },
        (Some(_), Page::Files) => {
            return match (&state.files.error, &state.files.asked) {
                (Some(error), _) => crate::tail::printable(error),
                (None, Some(_)) => String::from("asking"),
                (None, None) => String::from("no files: ':put LOCAL SDFS' stores one"),
            };
        }
        (Some(_), _) if !state.filter().is_empty() => "nothing passes the filter; Esc clears it",
        (Some(_), Page::Jobs) => "no jobs: ':add-job MODEL' makes one",
        (Some(_), _) => "nobody has reported yet",
    };
    text.to_owned()
}

fn shown_text(cell: &Cell, theme: Theme) -> String {
    match (cell.share, cell.glyph) {
        (Some(share), _) => format!("{} {}", theme.bar(share, BAR_CELLS), cell.text),
        (None, true) => format!("{} {}", theme.glyph(cell.role), cell.text),
        (None, false) => cell.text.clone(),
    }
}

/// Each column's width; 0 for those that do not fit. The highest ranks are dropped first; what is left over is cut.
fn fitted(columns: &[Column], rows: &[Row], theme: Theme, width: usize) -> Vec<usize> {
    let natural = |index: usize, column: &Column| {
        let cells = rows.iter().filter_map(|row| row.cells.get(index));
        let widest = cells.map(|cell| Span::raw(shown_text(cell, theme)).width()).max().unwrap_or(0);
        widest.max(column.title.len())
    };
    let mut widths: Vec<usize> =
        columns.iter().enumerate().map(|(index, column)| natural(index, column)).collect();
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

fn title(columns: &[Column], widths: &[usize], theme: Theme) -> Line<'static> {
    let texts = columns.iter().map(|column| (column.title.to_owned(), Role::Title));
    aligned(texts, columns, widths, theme)
}

fn cells(row: &Row, columns: &[Column], widths: &[usize], theme: Theme) -> Line<'static> {
    let texts = row.cells.iter().map(|cell| (shown_text(cell, theme), cell.role));
    aligned(texts, columns, widths, theme)
}

fn aligned(
    texts: impl Iterator<Item = (String, Role)>,
    columns: &[Column],
    widths: &[usize],
    theme: Theme,
) -> Line<'static> {
    let mut spans = Vec::new();
    for (((text, role), column), width) in texts.zip(columns).zip(widths) {
        if *width == 0 {
            continue;
        }
        let text = cut(text, *width);
        let padding = " ".repeat(width.saturating_sub(Span::raw(text.as_str()).width()));
        let styled = Span::styled(text, theme.style(role));
        if column.right {
            spans.extend([Span::raw(padding), styled]);
        } else {
            spans.extend([styled, Span::raw(padding)]);
        }
        spans.push(Span::raw(" ".repeat(GAP)));
    }
    Line::from(spans)
}

/// The text, cut to a width; a cut one ends in `~`.
fn cut(text: String, width: usize) -> String {
    if Span::raw(text.as_str()).width() <= width {
        return text;
    }
    let mut short = String::new();
    for c in text.chars() {
        short.push(c);
        if Span::raw(short.as_str()).width() >= width {
            short.pop();
            break;
        }
    }
    short.push('~');
    short
}
