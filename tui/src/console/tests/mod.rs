//! The console's states, driven by messages and drawn without a terminal.

mod dialogs;
pub(in crate::console) mod fixtures;
mod forms;
mod hour;
mod pages;
mod random;
mod snapshots;
mod themes;
mod workflows;

use crossterm::event::{KeyCode, KeyEvent};
use idunno_shared::wire::control::ClusterView;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::state::{Effect, Msg, NetEvent, Page, State};
use super::update::update;
use super::view::view;
use fixtures::fixture;

/// A console on the members page of the small cluster.
fn live() -> State {
    let mut state = State::new("local dir".into());
    state.page = Page::Members;
    push(&mut state, fixture(), 1000);
    state
}

fn push(state: &mut State, view: ClusterView, now_ms: u64) -> Vec<Effect> {
    update(state, Msg::Net(NetEvent::View(Box::new(view))), now_ms)
}

fn press(state: &mut State, code: KeyCode) -> Vec<Effect> {
    update(state, Msg::Key(KeyEvent::from(code)), 2000)
}

fn enter(state: &mut State, text: &str) -> Vec<Effect> {
    for c in text.chars() {
        press(state, KeyCode::Char(c));
    }
    press(state, KeyCode::Enter)
}

fn screen(state: &State, width: u16, height: u16, now_ms: u64) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view(state, frame, now_ms)).unwrap();
    terminal.backend().to_string()
}

fn shows(screen: &str, texts: &[&str]) {
    for text in texts {
        assert!(screen.contains(text), "{text:?} is not on\n{screen}");
    }
}
