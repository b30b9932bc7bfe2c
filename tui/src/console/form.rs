//! A form for a command's arguments, prefilled from the selection. It produces the text of a `:` line, so that a form can
//! do no more and no less.

use crossterm::event::{KeyCode, KeyEvent};

use super::detail::DetailTarget;
use super::state::{Effect, Form, Mode, Page, State};
use super::text_field::TextField;
use super::{completion_names, operations};
use crate::command::line::{CompletionNames, candidates_of};
use crate::command::registry::{CommandInfo, Field};

/// Opens a command's form; a command without arguments runs at once.
pub fn open(state: &mut State, entry: &CommandInfo, now_ms: u64) -> Vec<Effect> {
    if entry.fields.is_empty() {
        return operations::submit(state, &entry.name, now_ms);
    }
    let inputs: Vec<TextField> =
        entry.fields.iter().map(|field| TextField::preset(&preset(state, field))).collect();
    let mut form = Form { entry: Box::new(entry.clone()), inputs, focus: 0, error: None };
    form.focus = first_missing(&form).unwrap_or(0);
    state.mode = Mode::Form(Box::new(form));
    Vec::new()
}

/// The initial text of a field: the selection if it is of the field's kind, else the default.
fn preset(state: &State, field: &Field) -> String {
    let target = state.details.first().map(|detail| &detail.target);
    let selected = || state.selected().filter(|_| target.is_none());
    let preset = match (field.value.as_str(), target, state.page) {
        ("JOB", Some(DetailTarget::Job(id)), _) => Some(id.to_string()),
        ("MEMBER", Some(DetailTarget::Member { name, .. }), _) => Some(name.clone()),
        ("JOB", None, Page::Jobs) | ("MEMBER", None, Page::Members | Page::Assignments) => selected(),
        ("SDFS", Some(DetailTarget::File(name)), _) => Some(name.to_string()),
        ("SDFS", None, Page::Files) => selected().filter(|key| !key.ends_with('/')),
        ("MODEL", None, Page::Models) => return selected().unwrap_or_default(),
        _ => None,
    };
    preset.unwrap_or_else(|| field.default.clone())
}

fn first_missing(form: &Form) -> Option<usize> {
    let mut fields = form.entry.fields.iter().zip(&form.inputs);
    fields.position(|(field, input)| field.required && input.is_empty())
}

pub fn press(state: &mut State, key: KeyEvent, mut form: Box<Form>, now_ms: u64) -> Vec<Effect> {
    let count = form.inputs.len();
    let focus = form.focus;
    let takes_value = form.entry.fields[focus].takes_value;
    match key.code {
        KeyCode::Esc => return Vec::new(),
        KeyCode::Tab | KeyCode::Down => form.focus = (focus + 1) % count,
        KeyCode::BackTab | KeyCode::Up => form.focus = (focus + count - 1) % count,
        KeyCode::Enter => return submit(state, form, now_ms),
        KeyCode::Right if form.inputs[focus].cursor_at_end() => {
            match completions(&form, &completion_names::of(state)).first() {
                Some(first) => form.inputs[focus] = TextField::new(first),
                None => form.inputs[focus].press(key),
            }
        }
        KeyCode::Char(' ') if !takes_value => {
            let is_set = !form.inputs[focus].is_empty();
            form.inputs[focus] = TextField::new(if is_set { "" } else { "yes" });
        }
        _ if takes_value => form.inputs[focus].press(key),
        _ => {}
    }
    state.mode = Mode::Form(form);
    Vec::new()
}

/// Completions of the focused field, best first.
pub fn completions(form: &Form, known: &CompletionNames) -> Vec<String> {
    let input = &form.inputs[form.focus];
    // What was put there beforehand restricts nothing: typing replaces it.
    let typed = if input.is_preset() { "" } else { input.text() };
    let mut names = candidates_of(&form.entry.fields[form.focus], known);
    names.retain(|name| name.starts_with(typed) && *name != input.text());
    names
}

fn submit(state: &mut State, mut form: Box<Form>, now_ms: u64) -> Vec<Effect> {
    if let Some(missing) = first_missing(&form) {
        let field = &form.entry.fields[missing];
        form.error = Some(format!("{} is required: {}", field.value, field.help));
        form.focus = missing;
        state.mode = Mode::Form(form);
        return Vec::new();
    }
    form.error = None;
    let text = command_text(&form);
    operations::submit_form(state, &text, form, now_ms)
}

/// The command as it would be typed.
pub fn command_text(form: &Form) -> String {
    let mut words = vec![form.entry.name.clone()];
    for (field, input) in form.entry.fields.iter().zip(&form.inputs) {
        let text = input.text();
        if text.is_empty() || (text == field.default && field.flag.is_some()) {
            continue;
        }
        match &field.flag {
            Some(flag) if !field.takes_value => words.push(flag.clone()),
            Some(flag) => words.extend([flag.clone(), quoted(text)]),
            // Several names are separated by blanks, as on the line.
            None if field.many => words.extend(text.split_whitespace().map(quoted)),
            None => words.push(quoted(text)),
        }
    }
    words.join(" ")
}

fn quoted(text: &str) -> String {
    shell_words::quote(text).into_owned()
}
