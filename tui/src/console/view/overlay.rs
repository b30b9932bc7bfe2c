//! What lies over the page: results, completions, what keys may follow.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};
use unicode_width::UnicodeWidthStr;

use super::table::cut;
use crate::answer::text;
use crate::console::registry::{Does, Item, items};
use crate::console::state::{Pane, State};
use crate::console::theme::{Role, Theme};

/// Commands that are shown below what they begin with.
const BEGUN_MAX: usize = 8;
/// From this width on a column of the menu has room for what a key means.
const MEANING_MIN: usize = 50;

pub(super) fn framed(
    title: String,
    lines: Vec<Line<'_>>,
    column: u16,
    theme: Theme,
    frame: &mut Frame<'_>,
    area: Rect,
) {
    let border = if theme.unicode { ratatui::symbols::border::ROUNDED } else { ASCII };
    let block = Block::bordered()
        .border_set(border)
        .border_style(theme.style(Role::Dim))
        .title(Span::styled(title, theme.style(Role::Title)));
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).scroll((0, column)).block(block), area);
}

const ASCII: ratatui::symbols::border::Set<'static> = ratatui::symbols::border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

pub(super) fn pane(state: &State, pane: Pane, frame: &mut Frame<'_>, area: Rect, now_ms: u64) {
    let theme = state.theme;
    let Some(operation) = state.operations.iter().find(|operation| operation.id == pane.operation) else {
        return;
    };
    let inside = usize::from(area.height.saturating_sub(2));
    let (title, lines) = match &operation.result {
        None => {
            let seconds = text::seconds(now_ms.saturating_sub(operation.started_ms) as f64 / 1000.0);
            let (files, bytes) = operation.progress;
            let done = format!(": {files} done, {}", text::bytes(bytes));
            let line = format!("pending for {seconds}{}", if files + bytes > 0 { &done } else { "" });
            let key = state.keymap.hint("last-result").unwrap_or_default();
            let hint =
                Line::styled(format!("Esc leaves it running; {key} shows it again"), theme.style(Role::Dim));
            (format!(" {} ", operation.title), vec![Line::raw(line), hint])
        }
        Some(shown) => {
            let first = pane.line.min(shown.lines.len().saturating_sub(inside));
            let lines =
                shown.lines[first..].iter().take(inside).map(|line| Line::raw(line.as_str())).collect();
            let role = shown.outcome.role();
            (format!(" {} {}: {} ", theme.glyph(role), shown.outcome.word(), operation.title), lines)
        }
    };
    // A short answer leaves the page in sight.
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(area.height);
    let area = Rect { y: area.y + area.height - height, height, ..area };
    framed(title, lines, pane.column, theme, frame, area);
}

/// What the line that is typed may become: commands and words that begin so, then the command's arguments.
pub(super) fn typed_help(state: &State, typed: &str, frame: &mut Frame<'_>, area: Rect) {
    let theme = state.theme;
    let dim = |text: String| Line::styled(text, theme.style(Role::Dim));
    let mut lines: Vec<Line<'_>> = Vec::new();
    let known = items().iter().filter(|item| !(state.read_only && item.changes()));
    let (said, begun): (Vec<&Item>, Vec<&Item>) = known
        .filter(|item| item.name.starts_with(typed) || typed.starts_with(&format!("{} ", item.name)))
        .partition(|item| typed.starts_with(&item.name));
    // `get` is a command, and the beginning of others.
    let (said, begun) = if begun.is_empty() || typed.contains(' ') {
        (said, begun)
    } else {
        (Vec::new(), [said, begun].concat())
    };
    match (said.first(), begun.len()) {
        _ if typed.is_empty() => lines.push(dim(String::from(
            " a command, such as add-job: Tab completes or lists, Up recalls, Esc leaves ",
        ))),
        (Some(item), _) => {
            let arguments = match &item.does {
                Does::Command(entry) => entry.arguments.as_str(),
                Does::Act(_) => "",
            };
            lines.push(Line::raw(format!(" {} {arguments} ", item.name)));
            lines.push(dim(format!(" {} ", item.help)));
        }
        (None, found) => {
            let widest = begun.iter().take(BEGUN_MAX).map(|item| item.name.width()).max().unwrap_or(0);
            lines.extend(begun.iter().take(BEGUN_MAX).map(|item| {
                Line::from(vec![
                    Span::raw(format!(" {:<widest$}  ", item.name)),
                    Span::styled(format!("{} ", item.help), theme.style(Role::Dim)),
                ])
            }));
            if found > BEGUN_MAX {
                lines.push(dim(format!(" and {} more: Tab lists them ", found - BEGUN_MAX)));
            }
        }
    }
    if lines.is_empty() {
        return;
    }
    let rule = if theme.unicode { "─" } else { "-" };
    lines.insert(0, dim(rule.repeat(usize::from(area.width))));
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX).min(area.height);
    let area = Rect { y: area.y + area.height - height, height, ..area };
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines), area);
}

/// Names that complete what is typed, just above it.
pub(super) fn offers(state: &State, offers: &[String], frame: &mut Frame<'_>, area: Rect) {
    let lines: Vec<Line<'_>> = offers.iter().map(|offer| Line::raw(format!(" {offer} "))).collect();
    above(lines, state.theme, frame, area);
}

/// What may follow the keys pressed so far.
pub(super) fn following(state: &State, frame: &mut Frame<'_>, area: Rect) {
    let theme = state.theme;
    let rows = state.keymap.following(&state.pressed, state.page);
    let rows = rows.into_iter().filter(|(_, item)| !(state.read_only && item.changes()));
    let rows: Vec<(String, &'static Item)> = rows.collect();
    let inside = usize::from(area.height.saturating_sub(2)).max(1);
    // Where they do not fit below one another they stand side by side, without what they mean.
    let columns = rows.len().div_ceil(inside).max(1);
    let width = usize::from(area.width.saturating_sub(2)) / columns;
    let height = rows.len().div_ceil(columns);
    let cell = |(keys, item): &(String, &'static Item)| {
        let asks = if asks_first(item) { " (asks first)" } else { "" };
        let text = if width < MEANING_MIN {
            format!("{}{asks}", item.name)
        } else if columns == 1 {
            format!("{:<22} {}{asks}", item.name, item.help)
        } else {
            format!("{:<22} {}", item.name, if asks.is_empty() { item.help.as_str() } else { "asks first" })
        };
        let name = cut(text, width.saturating_sub(5));
        let padding = " ".repeat(width.saturating_sub(5 + name.width()));
        [Span::styled(format!(" {keys:<3} "), theme.style(Role::Key)), Span::raw(name + &padding)]
    };
    let line = |at: usize| {
        let spans: Vec<Span<'_>> = rows.iter().skip(at).step_by(height.max(1)).flat_map(cell).collect();
        Line::from(spans)
    };
    let lines: Vec<Line<'_>> = (0..height).map(line).collect();
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(area.height);
    let area = Rect { y: area.y + area.height - height, height, ..area };
    let pressed: Vec<String> = state.pressed.iter().map(ToString::to_string).collect();
    framed(format!(" {} and then ", pressed.join(" ")), lines, 0, theme, frame, area);
}

fn asks_first(item: &Item) -> bool {
    item.danger() > crate::command::registry::Danger::None
}

fn above(lines: Vec<Line<'_>>, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX).min(area.height).min(12);
    let widest = lines.iter().map(|line| line.to_string().width()).max().unwrap_or(0);
    let width = u16::try_from(widest).unwrap_or(u16::MAX).min(area.width);
    let area = Rect { y: area.y + area.height - height, width, height, ..area };
    let shown: Vec<Line<'_>> = lines.into_iter().take(usize::from(height)).collect();
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(shown).style(theme.style(Role::Selected)), area);
}
