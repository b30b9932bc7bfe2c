//! Confirmation dialogs and forms.

use ratatui::Frame;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::overlay::framed;
use crate::console::completion_names;
use crate::console::form::{command_text, completions};
use crate::console::layout::centred;
use crate::console::operations::consequences;
use crate::console::state::{ConfirmAction, ConfirmDialog, Form, State};
use crate::console::theme::Tone;

/// Lines of a form besides its fields: border, help, hint, command.
const FORM_OTHER_LINES: usize = 7;

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
    let labels: Vec<&str> =
        form.entry.fields.iter().map(|field| field.flag.as_deref().unwrap_or(&field.value)).collect();
    let widest = labels.iter().map(|label| label.width()).max().unwrap_or(0);
    let mut lines = vec![Line::styled(form.entry.help.clone(), theme.style(Tone::Dim)), Line::raw("")];
    // Where not all fields fit, those up to the focused one are shown.
    let room = usize::from(area.height).saturating_sub(FORM_OTHER_LINES).max(1);
    let first = (form.focus + 1).saturating_sub(room);
    let fields = form.entry.fields.iter().zip(&form.inputs).enumerate();
    for (index, (field, input)) in fields.skip(first).take(room) {
        let is_focused = index == form.focus;
        let value = match (field.takes_value, input.is_empty()) {
            (false, true) => "[ ]",
            (false, false) => "[x]",
            (true, true) if !is_focused && !field.required => "-",
            (true, _) => input.text(),
        };
        let tone = if is_focused { Tone::Selected } else { Tone::Plain };
        let required = if field.required && input.is_empty() { " required:" } else { "" };
        lines.push(Line::from(vec![
            Span::styled(format!("{:<widest$} ", labels[index]), theme.style(Tone::Key)),
            Span::styled(format!(" {value:<30} "), theme.style(tone)),
            Span::styled(format!("{required} {}", field.help), theme.style(Tone::Dim)),
        ]));
    }
    let takes_value = form.entry.fields[form.focus].takes_value;
    lines.push(Line::raw(""));
    lines.push(Line::styled(form_hint(state, form), theme.style(Tone::Dim)));
    lines.push(Line::styled(format!(":{}", command_text(form)), theme.style(Tone::Title)));
    let title = format!(" {} ", form.entry.name);
    let area = boxed(&title, lines, state, frame, area);
    if takes_value {
        let x = usize::from(area.x) + 1 + widest + 2 + form.inputs[form.focus].before_cursor().width();
        let y = usize::from(area.y) + 3 + form.focus - first;
        frame.set_cursor_position(Position { x: inside(x, area.right()), y: inside(y, area.bottom()) });
    }
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
fn inside(value: usize, end: u16) -> u16 {
    u16::try_from(value).unwrap_or(end).min(end.saturating_sub(2))
}
