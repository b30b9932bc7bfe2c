//! The log page. Only the lines in sight are touched; long ones are scrolled sideways, not wrapped.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use crate::console::state::State;
use crate::console::theme::{Role, Theme};

pub(super) fn draw(state: &State, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let lines = state.log.window(state.filter(), usize::from(body.height));
    let title = match (state.log.follows(), state.log.behind()) {
        (true, _) => Line::styled("following the end", theme.style(Role::Title)),
        (false, 0) => Line::styled("held: f follows the end", theme.style(Role::Title)),
        (false, new) => {
            Line::styled(format!("held: {new} lines below, f follows the end"), theme.style(Role::Key))
        }
    };
    frame.render_widget(Paragraph::new(title), head);
    if lines.is_empty() {
        let text = "no log lines: a local cluster's are in its directory, or name one with --log-dir";
        frame.render_widget(Paragraph::new(text).style(theme.style(Role::Dim)), body);
        return;
    }
    let skip = usize::from(state.log.column);
    let width = usize::from(body.width);
    let widest = lines.iter().map(|line| line.source.len()).max().unwrap_or(0);
    let shown: Vec<Line<'_>> = lines
        .iter()
        .map(|line| {
            let text: String = line.text.chars().skip(skip).take(width).collect();
            Line::from(vec![
                Span::styled(format!("{:<widest$} ", line.source), theme.style(Role::Dim)),
                Span::styled(text, theme.style(level(&line.text))),
            ])
        })
        .collect();
    frame.render_widget(Paragraph::new(shown), body);
}

/// What a line means, by the level near its beginning; human or JSON form.
fn level(text: &str) -> Role {
    let head: String = text.chars().take(80).collect();
    let says = |word: &str| head.split(|c: char| !c.is_ascii_alphabetic()).any(|part| part == word);
    if says("ERROR") {
        Role::Bad
    } else if says("WARN") {
        Role::Warn
    } else if says("DEBUG") || says("TRACE") {
        Role::Dim
    } else {
        Role::Plain
    }
}
