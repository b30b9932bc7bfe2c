//! Draws a state. Pure: the same state, size and moment give the same screen.

mod chart;
mod chrome;
mod cluster_map;
mod detail;
mod dialog;
mod empty;
mod figures;
mod help;
mod log;
mod overlay;
mod overview;
mod panel;
mod position;
mod table;
mod timeline;
mod tour;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Wrap};

use super::layout::{HEIGHT_MIN, WIDTH_MIN, screen_layout};
use super::state::{Mode, Page, State};

pub use chrome::tab_text;
pub use help::help_lines;
pub use table::column_at;
pub use tour::TOUR_SCREENS;

/// Draws the whole screen.
pub fn view(state: &State, frame: &mut Frame<'_>, now_ms: u64) {
    let area = frame.area();
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        too_small(frame, area);
        return;
    }
    let layout = screen_layout(area);
    chrome::header(state, frame, layout.header, now_ms);
    chrome::tabs(state, frame, layout.tabs);
    body(state, frame, layout.body);
    let is_own_data = state.shows_log() || (state.page == Page::Events && state.details.is_empty());
    if !state.is_current(now_ms) && state.view.is_some() && !is_own_data {
        // Old data is dimmed; the header shows its age.
        frame.buffer_mut().set_style(layout.body, Style::new().add_modifier(Modifier::DIM));
    }
    match &state.mode {
        Mode::Help { input, line } => help::draw(state, input, *line, frame, layout.body),
        Mode::Tour { screen } => tour::draw(state, *screen, frame, layout.body),
        Mode::Palette { input, selected } => help::palette(state, input, *selected, frame, layout.body),
        Mode::Result(pane) => overlay::result(state, *pane, frame, layout.body, now_ms),
        Mode::Confirm(confirm) => dialog::confirm(state, confirm, frame, layout.body, now_ms),
        Mode::Form(form) => dialog::form(state, form, frame, layout.body),
        Mode::Line(line) if line.completions.is_empty() => {
            overlay::command_help(state, line.input.text(), frame, layout.body);
        }
        Mode::Line(line) => overlay::completions(state, &line.completions, frame, layout.body),
        Mode::Page if !state.pending_keys.is_empty() => overlay::key_menu(state, frame, layout.body),
        Mode::Page | Mode::Filter { .. } => {}
    }
    chrome::status(state, frame, layout.status, position::of(state, layout.body));
}

fn body(state: &State, frame: &mut Frame<'_>, area: Rect) {
    if let Some(detail) = state.details.last() {
        detail::draw(state, detail, frame, area);
        return;
    }
    match state.page {
        Page::Overview => overview::draw(state, frame, area),
        Page::Logs => log::draw(state, frame, area),
        _ => panel::draw_with_table(state, frame, area),
    }
}

/// The area of the table on screen, column titles included.
pub fn table_area(state: &State, body: Rect) -> Option<Rect> {
    match state.details.last() {
        Some(detail) => Some(panel::split(state, detail::areas(detail, body).table).table),
        None if matches!(state.page, Page::Overview | Page::Logs) => None,
        None => Some(panel::split(state, body).table),
    }
}

fn too_small(frame: &mut Frame<'_>, area: Rect) {
    let text = format!("too small: {}x{}, {WIDTH_MIN}x{HEIGHT_MIN} needed", area.width, area.height);
    frame.render_widget(Paragraph::new(Line::raw(text)).wrap(Wrap { trim: true }), area);
}
