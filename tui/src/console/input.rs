//! Routes keys, pasted text and the mouse. Ctrl-C always ends the console and nothing else.

use crossterm::event::{
    KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};
use ratatui::layout::{Position, Rect};
use unicode_width::UnicodeWidthStr;

use super::keymap::{Chord, KeyMatch};
use super::layout::screen_layout;
use super::state::{Effect, Mode, Page, ResultPane, State};
use super::text_field::TextField;
use super::theme::Tone;
use super::{actions, command_line, form, operations, palette, view};

/// Lines per step of the wheel.
const WHEEL_LINES: i64 = 3;
/// Columns per sideways scroll of a result.
const COLUMN_STEP: u16 = 40;
/// The furthest sideways scroll of a result.
const COLUMN_MAX: u16 = 8000;

pub fn press(state: &mut State, key: KeyEvent, now_ms: u64) -> Vec<Effect> {
    if key.kind == KeyEventKind::Release {
        return Vec::new();
    }
    if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
        return vec![Effect::Quit];
    }
    match std::mem::take(&mut state.mode) {
        Mode::Page => return press_on_page(state, key, now_ms),
        Mode::Line(line) => return command_line::press(state, key, line, now_ms),
        Mode::Palette { input, selected } => return palette::press(state, key, input, selected, now_ms),
        Mode::Form(form) => return form::press(state, key, form, now_ms),
        Mode::Confirm(dialog) => return operations::press_in_dialog(state, key, dialog, now_ms),
        Mode::Filter { input, before } => press_in_filter(state, key, input, before),
        Mode::Help { input, line } => press_in_help(state, key, input, line),
        Mode::Tour { screen } => return press_in_tour(state, key, screen),
        Mode::Result(pane) => press_in_result(state, key, pane),
    }
    Vec::new()
}

/// Pasted text goes into the line being typed and nowhere else.
pub fn paste(state: &mut State, text: &str) {
    let input = match &mut state.mode {
        Mode::Line(line) => &mut line.input,
        Mode::Filter { input, .. } | Mode::Palette { input, .. } => input,
        Mode::Form(form) => {
            let focus = form.focus;
            &mut form.inputs[focus]
        }
        _ => return,
    };
    input.insert(text);
    state.dirty = true;
}

fn press_on_page(state: &mut State, key: KeyEvent, now_ms: u64) -> Vec<Effect> {
    if !state.pending_keys.is_empty() && key.code == KeyCode::Esc {
        state.pending_keys.clear();
        return Vec::new();
    }
    state.pending_keys.push(Chord::of(key));
    match state.keymap.find(&state.pending_keys, state.page) {
        KeyMatch::Prefix => Vec::new(),
        KeyMatch::Item(item) => {
            state.pending_keys.clear();
            actions::run(state, item, now_ms)
        }
        KeyMatch::None => {
            let is_sequence = state.pending_keys.len() > 1;
            let keys: Vec<String> = state.pending_keys.drain(..).map(|chord| chord.to_string()).collect();
            if is_sequence {
                state.notify(format!("{} is not bound", keys.join(" ")), Tone::Warn, now_ms);
            }
            Vec::new()
        }
    }
}

/// The new first line after a scroll key; `None` for any other key.
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

fn press_in_help(state: &mut State, key: KeyEvent, mut input: TextField, line: usize) {
    if matches!(key.code, KeyCode::Esc | KeyCode::Enter) {
        return;
    }
    let height = state.overlay_height();
    let line = scrolled(key, line, height).unwrap_or_else(|| {
        input.press(key);
        0
    });
    let last = view::help_lines(state, input.text()).saturating_sub(height);
    state.mode = Mode::Help { input, line: line.min(last) };
}

fn press_in_tour(state: &mut State, key: KeyEvent, screen: usize) -> Vec<Effect> {
    let next = match key.code {
        KeyCode::Enter | KeyCode::Right | KeyCode::Down | KeyCode::PageDown | KeyCode::Char(' ') => {
            screen + 1
        }
        KeyCode::Left | KeyCode::Up | KeyCode::PageUp => screen.saturating_sub(1),
        KeyCode::Esc | KeyCode::Char('q') => view::TOUR_SCREENS,
        _ => screen,
    };
    if next >= view::TOUR_SCREENS {
        return vec![Effect::EndTour];
    }
    state.mode = Mode::Tour { screen: next };
    Vec::new()
}

fn press_in_filter(state: &mut State, key: KeyEvent, mut input: TextField, before: String) {
    let text = match key.code {
        KeyCode::Enter => return,
        KeyCode::Esc => before,
        _ => {
            input.press(key);
            let text = input.text().to_owned();
            state.mode = Mode::Filter { input, before };
            text
        }
    };
    actions::set_filter(state, text);
}

fn press_in_result(state: &mut State, key: KeyEvent, mut pane: ResultPane) {
    let operation = state.operations.iter().find(|operation| operation.id == pane.operation);
    let result = operation.and_then(|operation| operation.result.as_ref());
    let height = state.overlay_height();
    let width = usize::from(state.size.width.saturating_sub(2));
    let last = result.map_or(0, |result| result.shown(width).len()).saturating_sub(height);
    match key.code {
        KeyCode::Left | KeyCode::Char('h') => pane.column = pane.column.saturating_sub(COLUMN_STEP),
        KeyCode::Right | KeyCode::Char('l') => {
            pane.column = pane.column.saturating_add(COLUMN_STEP).min(COLUMN_MAX);
        }
        KeyCode::Char(':') => {
            state.mode = Mode::line("");
            return;
        }
        KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q') => return,
        KeyCode::Char('j') => pane.line = pane.line.saturating_add(1).min(last),
        KeyCode::Char('k') => pane.line = pane.line.saturating_sub(1),
        KeyCode::Char('g') => pane.line = 0,
        KeyCode::Char('G') => pane.line = last,
        _ => pane.line = scrolled(key, pane.line, height).unwrap_or(pane.line).min(last),
    }
    state.mode = Mode::Result(pane);
}

/// The mouse does what keys do, while no overlay is open.
pub fn mouse(state: &mut State, event: MouseEvent) {
    if !matches!(state.mode, Mode::Page) {
        return;
    }
    match event.kind {
        MouseEventKind::ScrollDown => actions::move_by(state, WHEEL_LINES),
        MouseEventKind::ScrollUp => actions::move_by(state, -WHEEL_LINES),
        MouseEventKind::Down(MouseButton::Left) => click(state, Position { x: event.column, y: event.row }),
        _ => {}
    }
}

fn click(state: &mut State, at: Position) {
    let layout = screen_layout(Rect::from((Position::ORIGIN, state.size)));
    state.dirty = true;
    if layout.tabs.contains(at) {
        if let Some(page) = page_at(state, at.x) {
            actions::show_page(state, page);
        }
        return;
    }
    let Some(area) = view::table_area(state, layout.body).filter(|area| area.contains(at)) else { return };
    if at.y == area.y {
        if let Some(column) = view::column_at(state, area, at.x) {
            state.table_mut().sort_by(column);
        }
        return;
    }
    let height = usize::from(area.height).saturating_sub(1);
    let table = state.table_mut();
    let line = table.first_visible(height) + usize::from(at.y - area.y - 1);
    table.select(line);
}

/// The page whose tab is at column `x`.
fn page_at(state: &State, x: u16) -> Option<Page> {
    let mut end = 0;
    Page::ALL.into_iter().find(|page| {
        end += view::tab_text(*page, state.size.width).width();
        usize::from(x) < end
    })
}
