//! Overlays: results, completions, and the menu of keys that may follow.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::symbols::border;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};
use unicode_width::UnicodeWidthStr;

use super::table::cut;
use crate::answer::text;
use crate::command::registry::Danger;
use crate::console::layout::bottom;
use crate::console::registry::{Item, ItemKind, items};
use crate::console::state::{ResultPane, State, TransferProgress};
use crate::console::theme::{Theme, Tone};

/// Commands that are listed above an incomplete one.
const MATCHES_MAX: usize = 8;
/// From this width on a column of the key menu has room for help.
const HELP_MIN: usize = 50;
/// Completions that are listed.
const COMPLETIONS_MAX: usize = 12;

pub(super) fn framed(
    title: String,
    lines: Vec<Line<'_>>,
    column: u16,
    theme: Theme,
    frame: &mut Frame<'_>,
    area: Rect,
) {
    let border = if theme.unicode { border::ROUNDED } else { ASCII };
    let block = Block::bordered()
        .border_set(border)
        .border_style(theme.style(Tone::Dim))
        .title(Span::styled(title, theme.style(Tone::Title)));
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).scroll((0, column)).block(block), area);
}

const ASCII: border::Set<'static> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

pub(super) fn result(state: &State, pane: ResultPane, frame: &mut Frame<'_>, area: Rect, now_ms: u64) {
    let theme = state.theme;
    let Some(operation) = state.operations.iter().find(|operation| operation.id == pane.operation) else {
        return;
    };
    let inside = usize::from(area.height.saturating_sub(2));
    let (title, lines) = match &operation.result {
        None => {
            let seconds = text::seconds(now_ms.saturating_sub(operation.started_ms) as f64 / 1000.0);
            let TransferProgress { files, bytes } = operation.progress;
            let transferred = if files + bytes > 0 {
                format!(": {}, {}", text::count(files, "file"), text::bytes(bytes))
            } else {
                String::new()
            };
            let key = state.keymap.hint("last-result").unwrap_or_default();
            let hint = format!("Esc keeps it running in the background; {key} shows it again");
            let lines = vec![
                Line::raw(format!("pending for {seconds}{transferred}")),
                Line::styled(hint, theme.style(Tone::Dim)),
            ];
            (format!(" {} ", operation.title), lines)
        }
        Some(result) => {
            let shown = result.shown(usize::from(area.width.saturating_sub(2)));
            let first = pane.line.min(shown.len().saturating_sub(inside));
            let lines = shown[first..].iter().take(inside).map(|line| Line::raw(line.clone())).collect();
            let tone = result.outcome.tone();
            (format!(" {} {}: {} ", theme.glyph(tone), result.outcome.word(), operation.title), lines)
        }
    };
    // A short result leaves the page visible.
    let area = bottom(area, lines.len() + 2);
    framed(title, lines, pane.column, theme, frame, area);
}

/// Help on the `:` line while it is typed: the commands and actions that match, then the command's arguments.
pub(super) fn command_help(state: &State, typed: &str, frame: &mut Frame<'_>, area: Rect) {
    let theme = state.theme;
    let mut lines = if typed.is_empty() {
        let text = " a command, such as add-job: Tab completes, Up recalls, Esc closes ";
        vec![Line::styled(text, theme.style(Tone::Dim))]
    } else {
        match lookup(state, typed) {
            Lookup::Complete(item) => complete_help(item, theme),
            Lookup::Candidates(items) => candidates_help(&items, theme),
        }
    };
    if lines.is_empty() {
        return;
    }
    let rule = if theme.unicode { "─" } else { "-" };
    lines.insert(0, Line::styled(rule.repeat(usize::from(area.width)), theme.style(Tone::Dim)));
    let area = bottom(area, lines.len());
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines), area);
}

/// What a text on the `:` line stands for.
enum Lookup {
    /// The name is complete; arguments may follow.
    Complete(&'static Item),
    /// The items whose names start with the text.
    Candidates(Vec<&'static Item>),
}

fn lookup(state: &State, typed: &str) -> Lookup {
    let allowed = || items().iter().filter(|item| !(state.read_only && item.changes()));
    let is_complete = |item: &&Item| {
        typed.strip_prefix(&item.name).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    let is_longer = |item: &&Item| item.name.starts_with(typed) && item.name != typed;
    // `get` is a command and the beginning of others: without a blank it is not complete yet.
    if (typed.contains(' ') || !allowed().any(|item| is_longer(&item)))
        && let Some(item) = allowed().find(is_complete)
    {
        return Lookup::Complete(item);
    }
    let complete = allowed().filter(is_complete);
    Lookup::Candidates(complete.chain(allowed().filter(is_longer)).collect())
}

fn complete_help(item: &Item, theme: Theme) -> Vec<Line<'static>> {
    let arguments = match &item.kind {
        ItemKind::Command(entry) => entry.arguments.as_str(),
        ItemKind::Action(_) => "",
    };
    vec![
        Line::raw(format!(" {} {arguments} ", item.name)),
        Line::styled(format!(" {} ", item.help), theme.style(Tone::Dim)),
    ]
}

fn candidates_help(items: &[&'static Item], theme: Theme) -> Vec<Line<'static>> {
    let shown = &items[..items.len().min(MATCHES_MAX)];
    let widest = shown.iter().map(|item| item.name.width()).max().unwrap_or(0);
    let mut lines: Vec<Line<'_>> = shown
        .iter()
        .map(|item| {
            Line::from(vec![
                Span::raw(format!(" {:<widest$}  ", item.name)),
                Span::styled(format!("{} ", item.help), theme.style(Tone::Dim)),
            ])
        })
        .collect();
    if items.len() > shown.len() {
        let text = format!(" and {} more: Tab lists them ", items.len() - shown.len());
        lines.push(Line::styled(text, theme.style(Tone::Dim)));
    }
    lines
}

/// The completions listed by Tab, just above the line.
pub(super) fn completions(state: &State, completions: &[String], frame: &mut Frame<'_>, area: Rect) {
    let shown = &completions[..completions.len().min(COMPLETIONS_MAX).min(usize::from(area.height))];
    let lines: Vec<Line<'_>> = shown.iter().map(|completion| Line::raw(format!(" {completion} "))).collect();
    let widest = completions.iter().map(|completion| completion.width() + 2).max().unwrap_or(0);
    let width = u16::try_from(widest).unwrap_or(u16::MAX).min(area.width);
    let area = Rect { width, ..bottom(area, lines.len()) };
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).style(state.theme.style(Tone::Selected)), area);
}

/// The keys that may follow those pressed so far. Where they do not fit below one another they stand side by side, without
/// help.
pub(super) fn key_menu(state: &State, frame: &mut Frame<'_>, area: Rect) {
    let theme = state.theme;
    let following = state.keymap.following(&state.pending_keys, state.page);
    let rows: Vec<(String, &Item)> =
        following.into_iter().filter(|(_, item)| !(state.read_only && item.changes())).collect();
    let inside = usize::from(area.height.saturating_sub(2)).max(1);
    let columns = rows.len().div_ceil(inside).max(1);
    let width = usize::from(area.width.saturating_sub(2)) / columns;
    let height = rows.len().div_ceil(columns);
    let lines = (0..height).map(|line| {
        let cells = rows.iter().skip(line).step_by(height.max(1));
        let spans = cells.flat_map(|(keys, item)| {
            let text = cut(menu_text(item, columns, width), width.saturating_sub(5));
            let padding = " ".repeat(width.saturating_sub(5 + text.width()));
            [Span::styled(format!(" {keys:<3} "), theme.style(Tone::Key)), Span::raw(text + &padding)]
        });
        Line::from(spans.collect::<Vec<_>>())
    });
    let lines: Vec<Line<'_>> = lines.collect();
    let pressed: Vec<String> = state.pending_keys.iter().map(ToString::to_string).collect();
    let area = bottom(area, lines.len() + 2);
    framed(format!(" {} then ", pressed.join(" ")), lines, 0, theme, frame, area);
}

fn menu_text(item: &Item, columns: usize, width: usize) -> String {
    let asks = item.danger() > Danger::None;
    match (asks, width < HELP_MIN, columns) {
        (true, true, _) => format!("{} (asks first)", item.name),
        (false, true, _) => item.name.clone(),
        (true, false, 1) => format!("{:<22} {} (asks first)", item.name, item.help),
        (true, false, _) => format!("{:<22} asks first", item.name),
        (false, false, _) => format!("{:<22} {}", item.name, item.help),
    }
}
