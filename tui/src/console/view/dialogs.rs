//! Questions and forms.

use ratatui::Frame;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::overlay::framed;
use crate::console::completion_names::known;
use crate::console::form::{offers, written};
use crate::console::layout::middle;
use crate::console::registry::items;
use crate::console::state::{Asked, Confirm, Form, State};
use crate::console::theme::Role;

/// Names that a field offers at once.
const OFFERS_MAX: usize = 5;

pub(super) fn confirm(state: &State, confirm: &Confirm, frame: &mut Frame<'_>, area: Rect, now_ms: u64) {
    let theme = state.theme;
    let mut lines = match &confirm.asked {
        Asked::Quit => vec![Line::raw("Commands are still running and would be given up. Quit?")],
        Asked::Command { title, .. } => {
            let mut lines = vec![Line::styled(title.clone(), theme.style(Role::Title))];
            // What comes of it, a line a part, so that it fits a narrow screen.
            let meaning = items().iter().find(|item| title.starts_with(&item.name));
            let parts = meaning.into_iter().flat_map(|item| item.help.split("; "));
            lines.extend(parts.map(|part| Line::styled(part, theme.style(Role::Dim))));
            lines.push(Line::raw(format!("on cluster {}", state.label)));
            lines
        }
    };
    lines.extend(confirm.target.iter().map(|target| Line::raw(target.clone())));
    if !state.is_current(now_ms) && matches!(confirm.asked, Asked::Command { .. }) {
        let text = "no coordinator is in sight: it waits for one";
        lines.push(Line::styled(text, theme.style(Role::Warn)));
    }
    lines.push(Line::raw(""));
    if let Some(word) = &confirm.word {
        lines.push(Line::raw(format!("This cannot be undone. Type {word} and press Enter:")));
        lines.push(Line::styled(format!("> {}", confirm.typed.text()), theme.style(Role::Key)));
    } else {
        let role = |chosen: bool| if chosen { Role::Selected } else { Role::Plain };
        lines.push(Line::from(vec![
            Span::styled(" cancel ", theme.style(role(!confirm.yes))),
            Span::raw("  "),
            Span::styled(" yes (y) ", theme.style(role(confirm.yes))),
        ]));
    }
    boxed(" sure? ", lines, state, frame, area);
}

fn boxed(title: &str, lines: Vec<Line<'_>>, state: &State, frame: &mut Frame<'_>, area: Rect) -> Rect {
    let widest = lines.iter().map(Line::width).max().unwrap_or(0).max(title.width());
    let width = u16::try_from(widest + 2).unwrap_or(u16::MAX);
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX);
    let area = middle(area, width, height);
    framed(title.to_owned(), lines, 0, state.theme, frame, area);
    area
}

pub(super) fn form(state: &State, form: &Form, frame: &mut Frame<'_>, area: Rect) {
    let theme = state.theme;
    let label = |at: usize| {
        let field = &form.entry.fields[at];
        field.flag.clone().unwrap_or_else(|| field.value.clone())
    };
    let widest = (0..form.inputs.len()).map(|at| label(at).width()).max().unwrap_or(0);
    let mut lines = vec![Line::styled(form.entry.help.clone(), theme.style(Role::Dim)), Line::raw("")];
    for (at, (field, input)) in form.entry.fields.iter().zip(&form.inputs).enumerate() {
        let chosen = at == form.at;
        let value = match (field.takes_value, input.is_empty()) {
            (false, empty) => String::from(if empty { "[ ]" } else { "[x]" }),
            (true, true) if !chosen && !field.required => String::from("-"),
            (true, _) => input.text(),
        };
        let name = Span::styled(format!("{:<widest$} ", label(at)), theme.style(Role::Key));
        let value = Span::styled(
            format!(" {value:<30} "),
            theme.style(if chosen { Role::Selected } else { Role::Plain }),
        );
        let needed = if field.required && input.is_empty() { " needed:" } else { "" };
        let help = Span::styled(format!("{needed} {}", field.help), theme.style(Role::Dim));
        lines.push(Line::from(vec![name, value, help]));
    }
    lines.push(Line::raw(""));
    let known = known(state);
    let names = offers(form, &known);
    let shown = names.iter().take(OFFERS_MAX).cloned().collect::<Vec<_>>().join("  ");
    let hint = match (form.entry.fields[form.at].takes_value, shown.is_empty()) {
        (false, _) => String::from("Space says it or not"),
        (true, true) => String::new(),
        (true, false) => format!("offered: {shown}"),
    };
    lines.push(Line::styled(hint, theme.style(Role::Dim)));
    lines.push(Line::styled(format!(":{}", written(form)), theme.style(Role::Title)));
    let title = format!(" {} ", form.entry.name);
    let area = boxed(&title, lines, state, frame, area);
    if form.entry.fields[form.at].takes_value {
        let before = form.inputs[form.at].before().width();
        let x = usize::from(area.x) + 1 + widest + 2 + before;
        let y = usize::from(area.y) + 3 + form.at;
        let inside = |value: usize, end: u16| u16::try_from(value).unwrap_or(end).min(end.saturating_sub(2));
        frame.set_cursor_position(Position { x: inside(x, area.right()), y: inside(y, area.bottom()) });
    }
}
