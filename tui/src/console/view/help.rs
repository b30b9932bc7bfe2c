//! Help and the palette: the registry as a searchable list.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::overlay::framed;
use crate::command::registry::Danger;
use crate::console::layout::centred;
use crate::console::palette::matches;
use crate::console::registry::{Item, ItemKind, items};
use crate::console::state::State;
use crate::console::text_field::TextField;
use crate::console::theme::Tone;

/// Keys that the keymap cannot change: in lines, forms, dialogs and results.
const FIXED: [(&str, &str); 4] = [
    ("ctrl-c", "quit at once; the cluster keeps running"),
    ("ctrl-a e u k w", "edit a line as in a shell"),
    ("tab, right", "in a line: complete; in a form: next field, accept the suggestion"),
    ("esc", "close what is open"),
];

/// The number of lines of help that match a search.
pub fn help_lines(state: &State, search: &str) -> usize {
    lines(state, search).len()
}

fn lines(state: &State, search: &str) -> Vec<Line<'static>> {
    let search = search.to_lowercase();
    let mut lines = Vec::new();
    for item in items() {
        let keys = state.keymap.keys(&item.name).join(", ");
        let text = format!("{} {keys} {}", item.name, item.help).to_lowercase();
        if text.contains(&search) {
            lines.extend(entry(state, item, &keys));
        }
    }
    let fixed = FIXED.iter().filter(|(key, help)| format!("{key} {help}").contains(&search));
    lines.extend(fixed.map(|(key, help)| row(state, key, "", (*help).to_owned())));
    if lines.is_empty() {
        lines.push(Line::styled("no match; Backspace widens the search", state.theme.style(Tone::Dim)));
    }
    lines
}

fn entry(state: &State, item: &Item, keys: &str) -> Vec<Line<'static>> {
    let asks = match item.danger() {
        Danger::None => "",
        Danger::Disruptive => " (asks first)",
        Danger::Irreversible => " (asks first, cannot be undone)",
    };
    let refused = if state.read_only && item.changes() { " (refused: read-only)" } else { "" };
    let help = format!("{}{asks}{refused}", item.help);
    match &item.kind {
        ItemKind::Action(_) => vec![row(state, keys, &item.name, help)],
        ItemKind::Command(command) => vec![
            row(state, keys, &format!(":{} ", item.name), command.arguments.clone()),
            row(state, "", "", help),
        ],
    }
}

fn row(state: &State, keys: &str, name: &str, help: String) -> Line<'static> {
    let theme = state.theme;
    Line::from(vec![
        Span::styled(format!("{keys:<16} "), theme.style(Tone::Key)),
        Span::styled(
            if name.is_empty() { String::new() } else { format!("{name:<18} ") },
            theme.style(Tone::Title),
        ),
        Span::raw(help),
    ])
}

pub(super) fn draw(state: &State, input: &TextField, line: usize, frame: &mut Frame<'_>, area: Rect) {
    let mut lines = lines(state, input.text());
    let inside = usize::from(area.height.saturating_sub(2));
    let first = line.min(lines.len().saturating_sub(inside));
    framed(String::from(" help: type to search "), lines.split_off(first), 0, state.theme, frame, area);
}

pub(super) fn palette(state: &State, input: &TextField, selected: usize, frame: &mut Frame<'_>, area: Rect) {
    let theme = state.theme;
    let matches = matches(state, input.text());
    let area = centred(area, area.width.min(100), area.height);
    let inside = usize::from(area.height.saturating_sub(2));
    let first = (selected + 1).saturating_sub(inside);
    let mut lines: Vec<Line<'_>> = Vec::new();
    for (number, item) in matches.iter().enumerate().skip(first).take(inside) {
        let keys = state.keymap.hint(&item.name).unwrap_or_default();
        let line = Line::from(vec![
            Span::raw(format!(" {:<22} ", item.name)),
            Span::styled(format!("{keys:<10} "), theme.style(Tone::Key)),
            Span::raw(item.help.clone()),
        ]);
        let style = theme.style(if number == selected { Tone::Selected } else { Tone::Plain });
        lines.push(line.style(style));
    }
    if lines.is_empty() {
        lines.push(Line::styled(" no match", theme.style(Tone::Dim)));
    }
    framed(String::from(" palette: type to search "), lines, 0, theme, frame, area);
}
