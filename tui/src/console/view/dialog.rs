//! Confirmation dialogs and forms.

use ratatui::Frame;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::overlay::framed;
use super::table::cut;
use crate::command::registry::Field;
use crate::console::completion_names;
use crate::console::form::{command_text, completions};
use crate::console::layout::centred;
use crate::console::operations::consequences;
use crate::console::state::{ConfirmAction, ConfirmDialog, Form, State};
use crate::console::text_field::TextField;
use crate::console::theme::{Theme, Tone};
use crate::console::wrap::wrapped_words;

/// The widest form, without its border.
const FORM_WIDTH_MAX: usize = 118;
/// What the value of a field takes at least, where there is room.
const VALUE_WIDTH: usize = 30;
/// Completions of a field that are listed at once.
const COMPLETIONS_MAX: usize = 5;

pub(super) fn confirm(state: &State, dialog: &ConfirmDialog, frame: &mut Frame<'_>, area: Rect, now_ms: u64) {
    let theme = state.theme;
    let mut lines = Vec::new();
    match &dialog.action {
        ConfirmAction::Quit => lines.push(Line::raw("Quit? Commands that are still running are abandoned.")),
        ConfirmAction::Command { title, verb, .. } => {
            lines.push(Line::styled(title.clone(), theme.style(Tone::Title)));
            lines.extend(consequences(verb).into_iter().map(Line::raw));
            lines.push(Line::styled(format!("cluster: {}", state.label), theme.style(Tone::Dim)));
            lines.extend(dialog.member.iter().map(|member| Line::raw(member.clone())));
            if !state.is_current(now_ms) {
                let text = "not connected: the command waits for a coordinator";
                lines.push(Line::styled(text, theme.style(Tone::Warn)));
            }
        }
    }
    lines.push(Line::raw(""));
    if let Some(word) = &dialog.word {
        lines.push(Line::raw("This cannot be undone."));
        lines.push(Line::raw(format!("Type {word} and press Enter to confirm:")));
        lines.push(Line::styled(format!("> {}", dialog.typed.text()), theme.style(Tone::Key)));
    } else {
        let tone = |is_selected: bool| if is_selected { Tone::Selected } else { Tone::Plain };
        lines.push(Line::from(vec![
            Span::styled(" cancel ", theme.style(tone(!dialog.yes))),
            Span::raw("  "),
            Span::styled(" yes (y) ", theme.style(tone(dialog.yes))),
        ]));
    }
    boxed(" confirm ", lines, state, frame, area);
}

fn boxed(title: &str, lines: Vec<Line<'_>>, state: &State, frame: &mut Frame<'_>, area: Rect) -> Rect {
    let widest = lines.iter().map(Line::width).max().unwrap_or(0).max(title.width());
    let width = u16::try_from(widest + 2).unwrap_or(u16::MAX);
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX);
    let area = centred(area, width, height);
    framed(title.to_owned(), lines, 0, state.theme, frame, area);
    area
}

pub(super) fn form(state: &State, form: &Form, frame: &mut Frame<'_>, area: Rect) {
    let theme = state.theme;
    let inside = usize::from(area.width.saturating_sub(2)).clamp(1, FORM_WIDTH_MAX);
    let whole = |text: &str, tone: Tone| -> Vec<Line<'static>> {
        wrapped_words(text, inside).into_iter().map(|line| Line::styled(line, theme.style(tone))).collect()
    };
    let focused = &form.entry.fields[form.focus];
    let mut lines = whole(&form.entry.help, Tone::Dim);
    lines.push(Line::raw(""));
    let above = lines.len();
    let mut below = vec![Line::raw("")];
    below.extend(whole(&field_help(focused, focused.required), Tone::Plain));
    below.extend(whole(&form_hint(state, form), Tone::Dim));
    below.extend(whole(&format!(":{}", command_text(form)), Tone::Title));
    below.extend(form.error.iter().flat_map(|error| whole(error, Tone::Bad)));
    // Where not all fields fit, those up to the focused one are shown.
    let room = usize::from(area.height).saturating_sub(2 + above + below.len()).max(1);
    let first = (form.focus + 1).saturating_sub(room);
    let widest = form.entry.fields.iter().map(|field| label(field).width()).max().unwrap_or(0);
    let fields = form.entry.fields.iter().zip(&form.inputs).enumerate().skip(first).take(room);
    lines.extend(fields.map(|(index, (field, input))| {
        let is_focused = index == form.focus;
        field_line(field, input, is_focused, widest, inside, theme)
    }));
    lines.extend(below);
    let title = format!(" {} ", form.entry.name);
    let area = boxed(&title, lines, state, frame, area);
    if focused.takes_value {
        let x = usize::from(area.x) + 1 + widest + 2 + form.inputs[form.focus].before_cursor().width();
        let y = usize::from(area.y) + 1 + above + form.focus - first;
        frame.set_cursor_position(Position {
            x: inside_box(x, area.right()),
            y: inside_box(y, area.bottom()),
        });
    }
}

fn label(field: &Field) -> &str {
    field.flag.as_deref().unwrap_or(&field.value)
}

fn field_help(field: &Field, is_missing: bool) -> String {
    if is_missing { format!("required: {}", field.help) } else { field.help.clone() }
}

/// A field: its name, its value, and as much of its help as fits.
fn field_line(
    field: &Field,
    input: &TextField,
    is_focused: bool,
    widest: usize,
    width: usize,
    theme: Theme,
) -> Line<'static> {
    let value = match (field.takes_value, input.is_empty()) {
        (false, true) => "[ ]",
        (false, false) => "[x]",
        (true, true) if !is_focused && !field.required => "-",
        (true, _) => input.text(),
    };
    let tone = if is_focused { Tone::Selected } else { Tone::Plain };
    let value_width = VALUE_WIDTH.min(width.saturating_sub(widest + 3));
    let room = width.saturating_sub(widest + 4 + value.width().max(value_width));
    let help = cut(field_help(field, field.required && input.is_empty()), room);
    Line::from(vec![
        Span::styled(format!("{:<widest$} ", label(field)), theme.style(Tone::Key)),
        Span::styled(format!(" {value:<value_width$} "), theme.style(tone)),
        Span::styled(format!(" {help}"), theme.style(Tone::Dim)),
    ])
}

fn form_hint(state: &State, form: &Form) -> String {
    if !form.entry.fields[form.focus].takes_value {
        return String::from("Space toggles");
    }
    let names = completions(form, &completion_names::of(state));
    let listed: Vec<&str> = names.iter().take(COMPLETIONS_MAX).map(String::as_str).collect();
    if listed.is_empty() { String::new() } else { format!("suggestions: {}", listed.join("  ")) }
}

/// A coordinate within a box that ends at `end`, border excluded.
fn inside_box(value: usize, end: u16) -> u16 {
    u16::try_from(value).unwrap_or(end).min(end.saturating_sub(2))
}
