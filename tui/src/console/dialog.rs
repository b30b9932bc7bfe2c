//! The question before something is destroyed. What it is about was bound when it was asked.

use crossterm::event::{KeyCode, KeyEvent};

use super::input::Input;
use super::operations::begin;
use super::state::{Asked, Confirm, Effect, Mode, State};

/// Keys pressed this soon after a question appeared were meant for something else.
const GRACE_MS: u64 = 150;

/// Asks.
pub fn ask(state: &mut State, asked: Asked, target: Option<String>, word: Option<String>, now_ms: u64) {
    let typed = Input::default();
    state.mode =
        Mode::Confirm(Box::new(Confirm { asked, target, word, typed, yes: false, opened_ms: now_ms }));
}

/// The answer was yes, or none was needed.
pub fn confirmed(state: &mut State, asked: Asked, now_ms: u64) -> Vec<Effect> {
    match asked {
        Asked::Quit => vec![Effect::Quit],
        Asked::Command { title, verb, output } => vec![begin(state, title, verb, output, now_ms)],
    }
}

/// Takes a key.
pub fn key(state: &mut State, key: KeyEvent, mut confirm: Box<Confirm>, now_ms: u64) -> Vec<Effect> {
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
