//! Draws a state. Pure: the same state, size and moment give the same screen.

mod chrome;
mod detail_tab;
mod dialogs;
mod figures;
mod help;
mod log;
mod overlay;
mod overview;
mod table;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Wrap};

use super::layout::{HEIGHT_MIN, WIDTH_MIN, parts};
use super::state::{Mode, Page, State};

pub use chrome::tab_text;
pub use help::help_lines;
pub use table::column_at;

/// Draws the whole screen.
pub fn view(state: &State, frame: &mut Frame<'_>, now_ms: u64) {
    let area = frame.area();
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        too_small(frame, area);
        return;
    }
    let parts = parts(area);
    chrome::header(state, frame, parts.header, now_ms);
    chrome::tabs(state, frame, parts.tabs);
    body(state, frame, parts.body);
    let live_anyway = state.reads_log() || (state.page == Page::Events && state.details.is_empty());
    if !state.is_current(now_ms) && state.view.is_some() && !live_anyway {
        // Old, and shown as such; the header says how old.
        frame.buffer_mut().set_style(parts.body, Style::new().add_modifier(Modifier::DIM));
    }
    match &state.mode {
        Mode::Help { input, line } => help::draw(state, input, *line, frame, parts.body),
        Mode::Palette { input, chosen } => help::palette(state, input, *chosen, frame, parts.body),
        Mode::Pane(pane) => overlay::pane(state, *pane, frame, parts.body, now_ms),
        Mode::Confirm(confirm) => dialogs::confirm(state, confirm, frame, parts.body, now_ms),
        Mode::Form(form) => dialogs::form(state, form, frame, parts.body),
        Mode::Line { offers, .. } if !offers.is_empty() => overlay::offers(state, offers, frame, parts.body),
        Mode::Line { input, .. } => overlay::typed_help(state, &input.text(), frame, parts.body),
        Mode::Page if !state.pressed.is_empty() => overlay::following(state, frame, parts.body),
        Mode::Page | Mode::Filter { .. } => {}
    }
    chrome::status(state, frame, parts.status);
}

fn body(state: &State, frame: &mut Frame<'_>, area: Rect) {
    if let Some(detail) = state.details.last() {
        detail_tab::draw(state, detail, frame, area);
        return;
    }
    match state.page {
        Page::Overview => overview::draw(state, frame, area),
        Page::Logs => log::draw(state, frame, area),
        _ => table::draw(state, frame, area),
    }
}

/// Where the table that is shown stands, its titles first.
pub fn table_area(state: &State, body: Rect) -> Option<Rect> {
    match state.details.last() {
        Some(detail) => Some(detail_tab::areas(detail, body).1),
        None if matches!(state.page, Page::Overview | Page::Logs) => None,
        None => Some(body),
    }
}

fn too_small(frame: &mut Frame<'_>, area: Rect) {
    let text = format!("too small: {}x{}, {WIDTH_MIN}x{HEIGHT_MIN} needed", area.width, area.height);
    frame.render_widget(Paragraph::new(Line::raw(text)).wrap(Wrap { trim: true }), area);
}
