//! Where keys go. Ctrl-C always ends the console and nothing else.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::input::Input;
use super::keymap::{Chord, Found};
use super::state::{Effect, Mode, Pane, State};
use super::theme::Role;
use super::{actions, dialog, form, line, palette, view};

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
        Mode::Line { input, recalled, offers } => line::key(state, key, (input, recalled, offers), now_ms),
        Mode::Filter { input, before } => {
            filter(state, key, input, before);
            Vec::new()
        }
        Mode::Help { input, line } => {
            help(state, key, input, line);
            Vec::new()
        }
        Mode::Palette { input, chosen } => palette::key(state, key, input, chosen, now_ms),
        Mode::Form(form) => form::key(state, key, form, now_ms),
        Mode::Pane(pane) => {
            pane_key(state, key, pane);
            Vec::new()
        }
        Mode::Confirm(confirm) => dialog::key(state, key, confirm, now_ms),
    }
}

/// Takes text that was pasted: into the line that is typed, and nowhere else.
pub fn paste(state: &mut State, text: &str) {
    let input = match &mut state.mode {
        Mode::Line { input, .. } | Mode::Filter { input, .. } | Mode::Palette { input, .. } => input,
        Mode::Form(form) => {
            let at = form.at;
            &mut form.inputs[at]
        }
        _ => return,
    };
    input.insert(text);
    state.dirty = true;
}

/// A key on a page: an item of the keymap, or a part of its keys.
fn page(state: &mut State, key: KeyEvent, now_ms: u64) -> Vec<Effect> {
    if !state.pressed.is_empty() && key.code == KeyCode::Esc {
        state.pressed.clear();
        return Vec::new();
    }
    state.pressed.push(Chord::of(key));
    match state.keymap.find(&state.pressed, state.page) {
        Found::Prefix => Vec::new(),
        Found::Item(item) => {
            state.pressed.clear();
            actions::run(state, item, now_ms)
        }
        Found::Nothing => {
            let unknown = state.pressed.len() > 1;
            let keys: Vec<String> = state.pressed.drain(..).map(|chord| chord.to_string()).collect();
            if unknown {
                state.tell(format!("nothing is on {}", keys.join(" ")), Role::Warn, now_ms);
            }
            Vec::new()
        }
    }
}

/// The new first line after a scroll key; `None` if it was none.
fn scrolled(key: KeyEvent, line: usize, height: usize) -> Option<usize> {
    Some(match key.code {
        KeyCode::Down => line.saturating_add(1),
        KeyCode::Up => line.saturating_sub(1),
        KeyCode::PageDown => line.saturating_add(height),
        KeyCode::PageUp => line.saturating_sub(height),
        KeyCode::Home => 0,
        KeyCode::End => usize::MAX,
        _ => return None,
    })
}

fn help(state: &mut State, key: KeyEvent, mut input: Input, line: usize) {
    if matches!(key.code, KeyCode::Esc | KeyCode::Enter) {
        return;
    }
    let line = scrolled(key, line, state.pane_height()).unwrap_or_else(|| {
        input.key(key);
        0
    });
    let last = view::help_lines(state, &input.text()).saturating_sub(state.pane_height());
    state.mode = Mode::Help { input, line: line.min(last) };
}

fn filter(state: &mut State, key: KeyEvent, mut input: Input, before: String) {
    let text = match key.code {
        KeyCode::Enter => return,
        KeyCode::Esc => before,
        _ => {
            input.key(key);
            let text = input.text();
            state.mode = Mode::Filter { input, before };
            text
        }
    };
    actions::set_filter(state, text);
}

fn pane_key(state: &mut State, key: KeyEvent, mut pane: Pane) {
    let lines = state.operations.iter().find(|operation| operation.id == pane.operation);
    let lines = lines.and_then(|operation| operation.result.as_ref()).map_or(0, |shown| shown.lines.len());
    let last = lines.saturating_sub(state.pane_height());
    match key.code {
        KeyCode::Left | KeyCode::Char('h') => pane.column = pane.column.saturating_sub(40),
        KeyCode::Right | KeyCode::Char('l') => pane.column = pane.column.saturating_add(40).min(8000),
        KeyCode::Char(':') => {
            state.mode = Mode::line("");
            return;
        }
        KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q') => return,
        KeyCode::Char('j') => pane.line = pane.line.saturating_add(1).min(last),
        KeyCode::Char('k') => pane.line = pane.line.saturating_sub(1),
        KeyCode::Char('g') => pane.line = 0,
        KeyCode::Char('G') => pane.line = last,
        _ => pane.line = scrolled(key, pane.line, state.pane_height()).unwrap_or(pane.line).min(last),
    }
    state.mode = Mode::Pane(pane);
}
