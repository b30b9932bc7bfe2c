//! What keys do. No bare key changes the cluster; Ctrl-C always ends the console and nothing else.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::input::Input;
use super::rows;
use super::state::{Asked, Confirm, Effect, Mode, NOTICE_MS, Page, Pane, State};
use super::target;
use super::theme::Role;
use super::update::{begin, show_text, turn_files};
use crate::command::line::{self, Known, Line};
use crate::command::registry::Danger;

/// Keys pressed this soon after a question appeared were meant for something else.
const GRACE_MS: u64 = 150;
const HISTORY_MAX: usize = 100;

/// The keys of the pages, for help: key, and what it does.
pub const HELP: [(&str, &str); 16] = [
    ("1-5, Tab, Shift-Tab", "change page"),
    ("j k, arrows", "select, or scroll"),
    ("PgUp PgDn, g G", "a screen up or down, first, last"),
    ("left right", "scroll sideways (log, results)"),
    ("Enter", "describe what is selected"),
    (":", "give a command; Tab completes, up and down recall"),
    ("/", "filter the page; on the files page: names that start so"),
    ("n p", "next or previous page of files"),
    ("f, End", "follow the log's end"),
    ("o", "show the last command's result again"),
    ("r", "connect now instead of waiting"),
    ("Esc", "close; clear the filter"),
    ("?", "this help"),
    ("q", "quit; the cluster goes on"),
    ("Ctrl-C", "quit at once; the cluster goes on"),
    ("Ctrl-A E U K W", "edit a line as in a shell"),
];

/// Takes a key.
pub fn press(state: &mut State, key: KeyEvent, now_ms: u64) -> Vec<Effect> {
    if key.kind == KeyEventKind::Release {
        return Vec::new();
    }
    if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
        return vec![Effect::Quit];
    }
    match std::mem::take(&mut state.mode) {
        Mode::Page => page(state, key, now_ms),
        Mode::Line { input, recalled, offers } => typed_line(state, key, (input, recalled, offers), now_ms),
        Mode::Filter { input, before } => {
            filter(state, key, input, before);
            Vec::new()
        }
        Mode::Help { line } => {
            let last = super::view::help_lines().saturating_sub(state.pane_height());
            let scrolled = scrolled(key, line, state.pane_height());
            state.mode = scrolled.map_or(Mode::Page, |line| Mode::Help { line: line.min(last) });
            Vec::new()
        }
        Mode::Pane(pane) => {
            pane_key(state, key, pane);
            Vec::new()
        }
        Mode::Confirm(confirm) => confirm_key(state, key, confirm, now_ms),
    }
}

/// The new first line after a scroll key; `None` closes what is scrolled.
fn scrolled(key: KeyEvent, line: usize, height: usize) -> Option<usize> {
    match key.code {
        KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q' | '?') => None,
        KeyCode::Down | KeyCode::Char('j') => Some(line.saturating_add(1)),
        KeyCode::Up | KeyCode::Char('k') => Some(line.saturating_sub(1)),
        KeyCode::PageDown | KeyCode::Char(' ') => Some(line.saturating_add(height)),
        KeyCode::PageUp => Some(line.saturating_sub(height)),
        KeyCode::Home | KeyCode::Char('g') => Some(0),
        KeyCode::End | KeyCode::Char('G') => Some(usize::MAX),
        _ => Some(line),
    }
}

fn page(state: &mut State, key: KeyEvent, now_ms: u64) -> Vec<Effect> {
    let step = i64::try_from(state.height.max(1)).unwrap_or(i64::MAX);
    match key.code {
        KeyCode::Char('q') if state.running() == 0 => return vec![Effect::Quit],
        KeyCode::Char('q') => ask(state, Asked::Quit, None, None, now_ms),
        KeyCode::Tab => state.page = state.page.step(1),
        KeyCode::BackTab => state.page = state.page.step(Page::ALL.len() - 1),
        KeyCode::Char(digit @ '1'..='5') => state.page = Page::ALL[digit as usize - '1' as usize],
        KeyCode::Char(':') => state.mode = empty_line(),
        KeyCode::Char('/') => {
            let before = state.filter().to_owned();
            state.mode = Mode::Filter { input: Input::new(&before), before };
        }
        KeyCode::Char('?') => state.mode = Mode::Help { line: 0 },
        KeyCode::Char('r') => return vec![Effect::RetryNow],
        KeyCode::Char('o') => {
            if let Some(operation) = state.operations.back() {
                state.mode = Mode::Pane(Pane { operation: operation.id, ..Pane::default() });
            }
        }
        KeyCode::Char('f') if state.page == Page::Log => {
            if state.log.follows() {
                state.log.hold();
            } else {
                state.log.follow();
            }
        }
        KeyCode::Left => state.log.column = state.log.column.saturating_sub(40),
        KeyCode::Right => state.log.column = state.log.column.saturating_add(40).min(8000),
        KeyCode::Char('n') if state.page == Page::Files => turn_files(state, true),
        KeyCode::Char('p') if state.page == Page::Files => turn_files(state, false),
        KeyCode::Down | KeyCode::Char('j') => rows::move_by(state, 1),
        KeyCode::Up | KeyCode::Char('k') => rows::move_by(state, -1),
        KeyCode::PageDown | KeyCode::Char(' ') => rows::move_by(state, step),
        KeyCode::PageUp => rows::move_by(state, -step),
        KeyCode::Home | KeyCode::Char('g') => rows::move_by(state, i64::MIN / 2),
        KeyCode::End | KeyCode::Char('G') => rows::move_by(state, i64::MAX / 2),
        KeyCode::Enter => return describe(state, now_ms),
        KeyCode::Esc => {
            state.filters.remove(&state.page);
            state.notice = None;
        }
        _ => {}
    }
    Vec::new()
}

/// Enter looks; it never changes anything.
fn describe(state: &mut State, now_ms: u64) -> Vec<Effect> {
    let Some(key) = state.cursors.get(&state.page).and_then(|cursor| cursor.key.clone()) else {
        return Vec::new();
    };
    let quoted = format!("'{}'", key.replace('\'', r"'\''"));
    let text = match state.page {
        Page::Members | Page::Vms => format!("list_self --member {quoted}"),
        Page::Jobs => format!("get-job-stats {quoted}"),
        Page::Files => format!("ls {quoted}"),
        Page::Log => return Vec::new(),
    };
    give(state, &text, now_ms)
}

fn empty_line() -> Mode {
    Mode::Line { input: Input::default(), recalled: None, offers: Vec::new() }
}

fn typed_line(
    state: &mut State,
    key: KeyEvent,
    (mut input, recalled, mut offers): (Input, Option<usize>, Vec<String>),
    now_ms: u64,
) -> Vec<Effect> {
    let mut shown = None;
    match key.code {
        KeyCode::Esc => return Vec::new(),
        KeyCode::Backspace if input.is_empty() => return Vec::new(),
        KeyCode::Enter => {
            let text = input.text().trim().to_owned();
            if text.is_empty() {
                return Vec::new();
            }
            if state.history.last() != Some(&text) {
                state.history.push(text.clone());
                let surplus = state.history.len().saturating_sub(HISTORY_MAX);
                state.history.drain(..surplus);
            }
            return give(state, &text, now_ms);
        }
        KeyCode::Up => shown = recalled.unwrap_or(state.history.len()).checked_sub(1).or(recalled),
        KeyCode::Down => shown = recalled.map(|at| at + 1).filter(|at| *at < state.history.len()),
        KeyCode::Tab => (input, offers) = completed(state, &input),
        _ => {
            input.key(key);
            offers.clear();
            shown = recalled;
        }
    }
    if matches!(key.code, KeyCode::Up | KeyCode::Down) {
        input = Input::new(shown.and_then(|at| state.history.get(at)).map_or("", String::as_str));
    }
    state.mode = Mode::Line { input, recalled: shown, offers };
    Vec::new()
}

/// Completes the word before the cursor as far as all candidates agree; offers them if there are several.
fn completed(state: &State, input: &Input) -> (Input, Vec<String>) {
    let before = input.before();
    let rest: String = input.text().chars().skip(before.chars().count()).collect();
    let candidates = line::complete(&before, &known(state));
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

fn known(state: &State) -> Known {
    let files = state.files.rows.iter().map(|file| file.name.to_string()).collect();
    let Some(view) = &state.view else { return Known { files, ..Known::default() } };
    Known {
        jobs: view.jobs.iter().map(|job| job.id.to_string()).collect(),
        models: view.models.iter().map(|model| model.model.to_string()).collect(),
        members: view.members.iter().map(|member| member.name.to_string()).collect(),
        files,
    }
}

/// Gives a command as typed: at once, or behind a question.
fn give(state: &mut State, text: &str, now_ms: u64) -> Vec<Effect> {
    let text = text.strip_prefix("idunno ").unwrap_or(text);
    match text {
        "q" | "quit" | "exit" => return page(state, KeyEvent::from(KeyCode::Char('q')), now_ms),
        "help" | "?" => {
            state.mode = Mode::Help { line: 0 };
            return Vec::new();
        }
        _ => {}
    }
    match line::parse(text) {
        Line::Verb { mut verb, output } => {
            let target = match target::bind(state, &mut verb) {
                Ok(target) => target,
                Err(reason) => {
                    mend(state, text, reason, now_ms);
                    return Vec::new();
                }
            };
            let (danger, word) = verb.danger();
            let asked = Asked::Command { title: text.to_owned(), verb, output };
            match danger {
                Danger::None => return confirmed(state, asked, now_ms),
                Danger::Disruptive => ask(state, asked, target, None, now_ms),
                Danger::Irreversible => ask(state, asked, target, Some(word), now_ms),
            }
        }
        Line::Show(help) => show_text(state, text.to_owned(), &help, now_ms),
        Line::Wrong(reason) => mend(state, text, &reason, now_ms),
    }
    Vec::new()
}

/// Leaves a wrong line to be mended, and says what is wrong.
fn mend(state: &mut State, text: &str, reason: &str, now_ms: u64) {
    let first = reason.lines().next().unwrap_or_default();
    state.notice = Some((crate::tail::printable(first), Role::Bad, now_ms + NOTICE_MS));
    state.mode = Mode::Line { input: Input::new(text), recalled: None, offers: Vec::new() };
}

fn ask(state: &mut State, asked: Asked, target: Option<String>, word: Option<String>, now_ms: u64) {
    let typed = Input::default();
    state.mode =
        Mode::Confirm(Box::new(Confirm { asked, target, word, typed, yes: false, opened_ms: now_ms }));
}

fn confirmed(state: &mut State, asked: Asked, now_ms: u64) -> Vec<Effect> {
    match asked {
        Asked::Quit => vec![Effect::Quit],
        Asked::Command { title, verb, output } => vec![begin(state, title, verb, output, now_ms)],
    }
}

fn confirm_key(state: &mut State, key: KeyEvent, mut confirm: Box<Confirm>, now_ms: u64) -> Vec<Effect> {
    if now_ms.saturating_sub(confirm.opened_ms) < GRACE_MS {
        state.mode = Mode::Confirm(confirm);
        return Vec::new();
    }
    match (&confirm.word, key.code) {
        (_, KeyCode::Esc) => return Vec::new(),
        (Some(word), KeyCode::Enter) => {
            if confirm.typed.text() == *word {
                return confirmed(state, confirm.asked, now_ms);
            }
        }
        (Some(_), _) => {
            confirm.typed.key(key);
        }
        (None, KeyCode::Enter) if confirm.yes => return confirmed(state, confirm.asked, now_ms),
        (None, KeyCode::Enter | KeyCode::Char('n' | 'q')) => return Vec::new(),
        (None, KeyCode::Char('y')) => return confirmed(state, confirm.asked, now_ms),
        (None, KeyCode::Tab | KeyCode::BackTab | KeyCode::Left | KeyCode::Right) => {
            confirm.yes = !confirm.yes;
        }
        (None, _) => {}
    }
    state.mode = Mode::Confirm(confirm);
    Vec::new()
}

fn filter(state: &mut State, key: KeyEvent, mut input: Input, before: String) {
    match key.code {
        KeyCode::Enter => return,
        KeyCode::Esc => {
            state.filters.insert(state.page, before);
            return;
        }
        _ => {
            input.key(key);
        }
    }
    state.filters.insert(state.page, input.text());
    state.mode = Mode::Filter { input, before };
}

fn pane_key(state: &mut State, key: KeyEvent, mut pane: Pane) {
    let lines = state.operations.iter().find(|operation| operation.id == pane.operation);
    let lines = lines.and_then(|operation| operation.result.as_ref()).map_or(0, |shown| shown.lines.len());
    let last = lines.saturating_sub(state.pane_height());
    match key.code {
        KeyCode::Left => pane.column = pane.column.saturating_sub(40),
        KeyCode::Right => pane.column = pane.column.saturating_add(40).min(8000),
        KeyCode::Char(':') => {
            state.mode = empty_line();
            return;
        }
        _ => match scrolled(key, pane.line, state.pane_height()) {
            Some(line) => pane.line = line.min(last),
            None => return,
        },
    }
    state.mode = Mode::Pane(pane);
}
