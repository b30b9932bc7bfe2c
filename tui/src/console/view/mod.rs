//! Draws a state. Pure: the same state, theme, size and moment give the same screen.

mod chrome;
mod log;
mod overlay;
mod table;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect, Size};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::state::{Mode, Page, State};
use super::theme::Theme;

/// The smallest screen that anything is drawn on.
const WIDTH_MIN: u16 = 30;
const HEIGHT_MIN: u16 = 8;
/// Lines around the page: two of header, one of tabs, one of titles, one of status.
const CHROME: u16 = 5;

/// Rows of a page on a screen of this size.
pub fn page_height(size: Size) -> usize {
    usize::from(size.height.saturating_sub(CHROME)).max(1)
}

/// Lines of help.
pub fn help_lines() -> usize {
    overlay::help_text(Theme { colour: false, unicode: false }).len()
}

/// Draws the whole screen.
pub fn view(state: &State, theme: Theme, frame: &mut Frame<'_>, now_ms: u64) {
    let area = frame.area();
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        too_small(frame, area);
        return;
    }
    let rows = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas::<4>(area);
    let [header, tabs, body, status] = rows;
    chrome::header(state, theme, frame, header, now_ms);
    chrome::tabs(state, theme, frame, tabs);
    match state.page {
        Page::Log => log::draw(state, theme, frame, body),
        _ => table::draw(state, theme, frame, body),
    }
    if !state.is_current(now_ms) && state.view.is_some() && state.page != Page::Log {
        // Old, and shown as such; the header says how old.
        frame.buffer_mut().set_style(body, Style::new().add_modifier(Modifier::DIM));
    }
    match &state.mode {
        Mode::Help { line } => overlay::help(*line, theme, frame, body),
        Mode::Pane(pane) => overlay::pane(state, *pane, theme, frame, body, now_ms),
        Mode::Confirm(confirm) => overlay::confirm(state, confirm, theme, frame, body),
        Mode::Line { offers, .. } if !offers.is_empty() => overlay::offers(offers, theme, frame, body),
        _ => {}
    }
    chrome::status(state, theme, frame, status);
}

fn too_small(frame: &mut Frame<'_>, area: Rect) {
    let text = format!("too small: {}x{}, {WIDTH_MIN}x{HEIGHT_MIN} needed", area.width, area.height);
    frame.render_widget(Paragraph::new(Line::raw(text)).wrap(ratatui::widgets::Wrap { trim: true }), area);
}
