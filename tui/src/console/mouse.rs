//! What the mouse does while it is the console's: what keys do, too.

use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::{Position, Rect};
use unicode_width::UnicodeWidthStr;

use super::actions;
use super::layout::parts;
use super::state::{Effect, Mode, Page, State};
use super::view;

/// Lines that a turn of the wheel moves.
const WHEEL_LINES: i64 = 3;

/// Takes a mouse event.
pub fn act(state: &mut State, event: MouseEvent) -> Vec<Effect> {
    if !matches!(state.mode, Mode::Page) {
        return Vec::new();
    }
    match event.kind {
        MouseEventKind::ScrollDown => actions::move_by(state, WHEEL_LINES),
        MouseEventKind::ScrollUp => actions::move_by(state, -WHEEL_LINES),
        MouseEventKind::Down(MouseButton::Left) => press(state, Position { x: event.column, y: event.row }),
        _ => {}
    }
    Vec::new()
}

fn press(state: &mut State, at: Position) {
    let parts = parts(Rect::new(0, 0, state.size.0, state.size.1));
    state.dirty = true;
    if parts.tabs.contains(at) {
        if let Some(page) = tab(state, at.x) {
            actions::show(state, page);
        }
        return;
    }
    let Some(area) = view::table_area(state, parts.body).filter(|area| area.contains(at)) else { return };
    if at.y == area.y {
        if let Some(column) = view::column_at(state, area, at.x) {
            state.table_mut().sort_by(column);
        }
        return;
    }
    let height = usize::from(area.height).saturating_sub(1);
    let table = state.table_mut();
    let line = table.first(height) + usize::from(at.y - area.y - 1);
    table.select(line);
}

/// Which page's name stands there.
fn tab(state: &State, x: u16) -> Option<Page> {
    let mut end = 0;
    Page::ALL.into_iter().find(|page| {
        end += view::tab_text(*page, state.size.0).width();
        usize::from(x) < end
    })
}
