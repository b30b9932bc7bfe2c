//! The `:` line: commands, actions, and the words that only this line has.

use crossterm::event::{KeyCode, KeyEvent};

use super::registry::{self, Item, ItemKind, items};
use super::state::{CommandLine, Effect, Mode, State};
use super::text_field::TextField;
use super::{actions, completion_names, operations, rows};
use crate::command::alias;
use crate::command::line;

/// Lines that are kept for recall.
const HISTORY_MAX: usize = 100;

/// Words that only the `:` line has, because they take an argument.
const CONSOLE_WORDS: [&str; 3] = ["save", "sort", "context"];

pub fn press(state: &mut State, key: KeyEvent, mut line: CommandLine, now_ms: u64) -> Vec<Effect> {
    match key.code {
        KeyCode::Esc => return Vec::new(),
        KeyCode::Backspace if line.input.is_empty() => return Vec::new(),
        KeyCode::Enter => {
            let text = line.input.text().trim().to_owned();
            if text.is_empty() {
                return Vec::new();
            }
            remember(state, &text);
            return submit(state, &text, now_ms);
        }
        KeyCode::Up => {
            let current = line.recalled.unwrap_or(state.command_history.len());
            let previous = current.checked_sub(1).or(line.recalled);
            recall(state, &mut line, previous);
        }
        KeyCode::Down => {
            let next = line.recalled.map(|index| index + 1);
            recall(state, &mut line, next.filter(|index| *index < state.command_history.len()));
        }
        KeyCode::Tab => {
            complete(state, &mut line);
            line.recalled = None;
        }
        _ => {
            line.input.press(key);
            line.completions.clear();
        }
    }
    state.mode = Mode::Line(line);
    Vec::new()
}

fn remember(state: &mut State, text: &str) {
    if state.command_history.last().map(String::as_str) != Some(text) {
        state.command_history.push(text.to_owned());
        let surplus = state.command_history.len().saturating_sub(HISTORY_MAX);
        state.command_history.drain(..surplus);
    }
}

fn recall(state: &State, line: &mut CommandLine, index: Option<usize>) {
    let text = index.and_then(|index| state.command_history.get(index));
    line.input = TextField::new(text.map_or("", String::as_str));
    line.recalled = index;
}

/// Completes the word before the cursor as far as all candidates agree, and lists them if there are several.
fn complete(state: &State, line: &mut CommandLine) {
    let before = line.input.before_cursor();
    let mut candidates = line::complete(before, &completion_names::of(state));
    if !before.contains(' ') {
        let actions = items().iter().filter(|item| matches!(item.kind, ItemKind::Action(_)));
        let names = actions.map(|item| item.name.as_str());
        let names = names.chain(state.aliases.keys().map(String::as_str)).chain(CONSOLE_WORDS);
        candidates.extend(names.filter(|name| name.starts_with(before)).map(str::to_owned));
        candidates.sort_unstable();
        candidates.dedup();
    }
    if state.read_only {
        candidates.retain(|name| !registry::find(name).is_some_and(Item::changes));
    }
    if let Some(common) = common_prefix(&candidates).filter(|_| line.input.cursor_at_end()) {
        let word_start = before.rfind(char::is_whitespace).map_or(0, |blank| blank + 1);
        // Behind a folder, a name of what it holds may follow.
        let blank = if candidates.len() == 1 && !common.ends_with('/') { " " } else { "" };
        line.input = TextField::new(&format!("{}{common}{blank}", &before[..word_start]));
    }
    if candidates.len() < 2 {
        candidates.clear();
    }
    line.completions = candidates;
}

fn common_prefix(candidates: &[String]) -> Option<String> {
    let mut common = candidates.first()?.clone();
    for other in &candidates[1..] {
        while !other.starts_with(&common) {
            common.pop();
        }
    }
    Some(common)
}

/// Carries out a line as typed: a console word, an action or a command.
fn submit(state: &mut State, text: &str, now_ms: u64) -> Vec<Effect> {
    let text = alias::line(&state.aliases, text.strip_prefix("idunno ").unwrap_or(text));
    let text = text.as_str();
    let (word, rest) = text.split_once(' ').map_or((text, ""), |(word, rest)| (word, rest.trim()));
    match (word, rest) {
        ("save", "") => {
            operations::reject_line(state, text, "name the file: save FILE", now_ms);
            return Vec::new();
        }
        ("save", path) => return vec![Effect::Save(path.into(), rows::page_as_text(state))],
        ("sort", column) => {
            sort(state, text, column, now_ms);
            return Vec::new();
        }
        ("context", "") => return actions::list_contexts(state, now_ms),
        ("context", name) => return vec![Effect::SwitchCluster(name.to_owned())],
        ("q" | "exit", "") => return submit(state, "quit", now_ms),
        _ => {}
    }
    match registry::find(text).filter(|item| matches!(item.kind, ItemKind::Action(_))) {
        Some(item) => actions::run(state, item, now_ms),
        None => operations::submit(state, text, now_ms),
    }
}

fn sort(state: &mut State, text: &str, column: &str, now_ms: u64) {
    let prefix = column.to_lowercase();
    let table = state.table_mut();
    let found = table.columns.iter().position(|column| column.title.to_lowercase().starts_with(&prefix));
    match found.filter(|_| !prefix.is_empty()) {
        Some(column) => table.sort_by(column),
        None => operations::reject_line(state, text, "name a column: sort COLUMN", now_ms),
    }
}
