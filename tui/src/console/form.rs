//! A form for a command's arguments, filled in from what is selected. It ends as a line that the `:` line understands,
//! so that a form can do no more and no less.

use crossterm::event::{KeyCode, KeyEvent};

use super::command_request::give;
use super::completion_names::known;
use super::detail::Target;
use super::input::Input;
use super::state::{Effect, Form, Mode, Page, State};
use super::theme::Role;
use crate::command::line::{CompletionNames, candidates};
use crate::command::registry::{CommandInfo, Field};

/// Opens a command's form; a command that wants nothing is given at once.
pub fn open(state: &mut State, entry: &CommandInfo, now_ms: u64) -> Vec<Effect> {
    if entry.fields.is_empty() {
        return give(state, &entry.name, now_ms);
    }
    let inputs: Vec<Input> =
        entry.fields.iter().map(|field| Input::new(&preset(state, entry, field))).collect();
    let missing = |(field, input): &(&Field, &Input)| field.required && input.is_empty();
    let at = entry.fields.iter().zip(&inputs).position(|pair| missing(&pair)).unwrap_or(0);
    state.mode = Mode::Form(Box::new(Form { entry: Box::new(entry.clone()), inputs, at }));
    Vec::new()
}

/// What a field is filled in with: what is selected, where it is of the field's kind, else its default.
fn preset(state: &State, entry: &CommandInfo, field: &Field) -> String {
    let selected = state.selected();
    let looked_into = state.details.first().map(|detail| &detail.target);
    let (job, member, file) = match (looked_into, state.page) {
        (Some(Target::Job(id)), _) => (Some(id.to_string()), None, None),
        (Some(Target::Member(_, name)), _) => (None, Some(name.clone()), None),
        (Some(Target::File(name)), _) => (None, None, Some(name.to_string())),
        (None, Page::Jobs) => (selected, None, None),
        (None, Page::Members | Page::Assignments) => (None, selected, None),
        (None, Page::Files) => (None, None, selected.filter(|key| !key.ends_with('/'))),
        (None, Page::Models) if field.value == "MODEL" => return selected.unwrap_or_default(),
        (None, _) => (None, None, None),
    };
    let found = match field.value.as_str() {
        "JOB" => job,
        "MEMBER" => member,
        "NAME" if entry.name.starts_with("local ") => member,
        "SDFS" => file,
        _ => None,
    };
    found.unwrap_or_else(|| field.default.clone())
}

/// Takes a key.
pub fn key(state: &mut State, key: KeyEvent, mut form: Box<Form>, now_ms: u64) -> Vec<Effect> {
    let count = form.inputs.len();
    match key.code {
        KeyCode::Esc => return Vec::new(),
        KeyCode::Tab | KeyCode::Down => form.at = (form.at + 1) % count,
        KeyCode::BackTab | KeyCode::Up => form.at = (form.at + count - 1) % count,
        KeyCode::Enter => return submit(state, form, now_ms),
        KeyCode::Right if form.inputs[form.at].at_end() => {
            if let Some(first) = offers(&form, &known(state)).first() {
                form.inputs[form.at] = Input::new(first);
            }
        }
        KeyCode::Char(' ') if !form.entry.fields[form.at].takes_value => {
            let said = !form.inputs[form.at].is_empty();
            form.inputs[form.at] = Input::new(if said { "" } else { "yes" });
        }
        _ if form.entry.fields[form.at].takes_value => {
            form.inputs[form.at].key(key);
        }
        _ => {}
    }
    state.mode = Mode::Form(form);
    Vec::new()
}

/// Names that the field may become, best first.
pub fn offers(form: &Form, known: &CompletionNames) -> Vec<String> {
    let typed = form.inputs[form.at].text();
    let mut names = candidates(&form.entry.fields[form.at].value, known);
    names.retain(|name| name.starts_with(&typed) && *name != typed);
    names
}

fn submit(state: &mut State, mut form: Box<Form>, now_ms: u64) -> Vec<Effect> {
    let missing = |at: &usize| form.entry.fields[*at].required && form.inputs[*at].is_empty();
    if let Some(at) = (0..form.inputs.len()).find(missing) {
        let text = format!("{} is needed: {}", form.entry.fields[at].value, form.entry.fields[at].help);
        state.tell(text, Role::Warn, now_ms);
        form.at = at;
        state.mode = Mode::Form(form);
        return Vec::new();
    }
    give(state, &written(&form), now_ms)
}

/// The command as it would be typed.
pub fn written(form: &Form) -> String {
    let mut words = vec![form.entry.name.clone()];
    for (field, input) in form.entry.fields.iter().zip(&form.inputs) {
        let text = input.text();
        let given = !text.is_empty() && (text != field.default || field.flag.is_none());
        match &field.flag {
            _ if !given => {}
            Some(flag) if !field.takes_value => words.push(flag.clone()),
            Some(flag) => words.extend([flag.clone(), quoted(&text)]),
            // Several names are separated by blanks, as on the line.
            None if field.many => words.extend(text.split_whitespace().map(quoted)),
            None => words.push(quoted(&text)),
        }
    }
    words.join(" ")
}

/// A word as the line reads it back.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:,=".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
