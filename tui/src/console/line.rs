//! The `:` line: commands, and the console's own words.

use crossterm::event::{KeyCode, KeyEvent};

use super::command_request::{self, mend};
use super::completion_names::known;
use super::input::Input;
use super::registry::{self, Does, items};
use super::state::{Effect, Mode, State};
use super::{actions, export};
use crate::command::alias;
use crate::command::line;

/// Lines that are recalled.
const GIVEN_MAX: usize = 100;

type Typed = (Input, Option<usize>, Vec<String>);

/// Takes a key.
pub fn key(state: &mut State, key: KeyEvent, typed: Typed, now_ms: u64) -> Vec<Effect> {
    let (mut input, recalled, mut offers) = typed;
    let mut shown = None;
    match key.code {
        KeyCode::Esc => return Vec::new(),
        KeyCode::Backspace if input.is_empty() => return Vec::new(),
        KeyCode::Enter => {
            let text = input.text().trim().to_owned();
            if text.is_empty() {
                return Vec::new();
            }
            remember(state, &text);
            return give(state, &text, now_ms);
        }
        KeyCode::Up => shown = recalled.unwrap_or(state.given.len()).checked_sub(1).or(recalled),
        KeyCode::Down => shown = recalled.map(|at| at + 1).filter(|at| *at < state.given.len()),
        KeyCode::Tab => (input, offers) = completed(state, &input),
        _ => {
            input.key(key);
            offers.clear();
            shown = recalled;
        }
    }
    if matches!(key.code, KeyCode::Up | KeyCode::Down) {
        input = Input::new(shown.and_then(|at| state.given.get(at)).map_or("", String::as_str));
    }
    state.mode = Mode::Line { input, recalled: shown, offers };
    Vec::new()
}

fn remember(state: &mut State, text: &str) {
    if state.given.last().map(String::as_str) != Some(text) {
        state.given.push(text.to_owned());
        let surplus = state.given.len().saturating_sub(GIVEN_MAX);
        state.given.drain(..surplus);
    }
}

/// Completes the word before the cursor as far as all candidates agree; offers them if there are several.
fn completed(state: &State, input: &Input) -> (Input, Vec<String>) {
    let before = input.before();
    let rest: String = input.text().chars().skip(before.chars().count()).collect();
    let mut candidates = line::complete(&before, &known(state));
    if !before.contains(' ') {
        let actions = items().iter().filter(|item| matches!(item.does, Does::Act(_)));
        candidates.extend(actions.map(|item| item.name.clone()).filter(|name| name.starts_with(&before)));
        candidates.extend(state.aliases.keys().filter(|name| name.starts_with(&before)).cloned());
        candidates.extend(OWN.iter().map(|name| (*name).to_owned()).filter(|name| name.starts_with(&before)));
        candidates.sort_unstable();
        candidates.dedup();
    }
    if state.read_only {
        candidates.retain(|name| !registry::named(name).is_some_and(registry::Item::changes));
    }
    let Some(first) = candidates.first() else { return (input.clone(), Vec::new()) };
    let head = before.rfind(char::is_whitespace).map_or(0, |at| at + 1);
    let mut common = first.clone();
    for other in &candidates[1..] {
        while !other.starts_with(&common) {
            common.pop();
        }
    }
    let blank = if candidates.len() == 1 { " " } else { "" };
    let text = format!("{}{common}{blank}", &before[..head]);
    let completed = if rest.is_empty() { Input::new(&text) } else { input.clone() };
    (completed, if candidates.len() > 1 { candidates } else { Vec::new() })
}

/// Words that only the `:` line has, for they take an argument.
const OWN: [&str; 3] = ["save", "sort", "context"];

/// Gives a command as typed: at once, or behind a question.
pub fn give(state: &mut State, text: &str, now_ms: u64) -> Vec<Effect> {
    let text = alias::line(&state.aliases, text.strip_prefix("idunno ").unwrap_or(text));
    let text = text.as_str();
    let (word, rest) = text.split_once(' ').map_or((text, ""), |(word, rest)| (word, rest.trim()));
    match (word, rest) {
        ("save", path) => {
            if path.is_empty() {
                mend(state, text, "say which file: save FILE", now_ms);
                return Vec::new();
            }
            return vec![Effect::Save(path.into(), export::page(state))];
        }
        ("sort", column) => {
            sort(state, text, column, now_ms);
            return Vec::new();
        }
        ("context", "") => return actions::contexts(state, now_ms),
        ("context", name) => return vec![Effect::Switch(name.to_owned())],
        ("q" | "exit", "") => return give(state, "quit", now_ms),
        _ => {}
    }
    let action = registry::named(text).filter(|item| matches!(item.does, Does::Act(_)));
    if let Some(item) = action {
        return actions::run(state, item, now_ms);
    }
    command_request::give(state, text, now_ms)
}

fn sort(state: &mut State, text: &str, column: &str, now_ms: u64) {
    let wanted = column.to_lowercase();
    let table = state.table_mut();
    let found = table.columns.iter().position(|column| column.title.to_lowercase().starts_with(&wanted));
    match found.filter(|_| !wanted.is_empty()) {
        Some(column) => table.sort_by(column),
        None => mend(state, text, "say which column: sort COLUMN", now_ms),
    }
}
