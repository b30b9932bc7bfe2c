//! What lies over the page: help, results, questions, completions.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};

use crate::command::registry::{Danger, entries};
use crate::console::keys::HELP;
use crate::console::state::{Asked, Confirm, Pane, State};
use crate::console::theme::{Role, Theme};
use crate::execute::text;

fn framed(title: String, lines: Vec<Line<'_>>, column: u16, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let border = if theme.unicode { ratatui::symbols::border::PLAIN } else { ASCII };
    let block = Block::bordered().border_set(border).title(Span::styled(title, theme.style(Role::Title)));
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).scroll((0, column)).block(block), area);
}

const ASCII: ratatui::symbols::border::Set<'static> = ratatui::symbols::border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

pub(super) fn help_text(theme: Theme) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'_>> = HELP
        .iter()
        .map(|(key, does)| {
            Line::from(vec![Span::styled(format!("{key:<20} "), theme.style(Role::Key)), Span::raw(*does)])
        })
        .collect();
    lines.push(Line::raw(""));
    for entry in entries() {
        let asks = match entry.danger {
            Danger::None => "",
            Danger::Disruptive => " (asks first)",
            Danger::Irreversible => " (asks first, cannot be undone)",
        };
        lines.push(Line::from(vec![
            Span::styled(format!(":{} ", entry.name), theme.style(Role::Key)),
            Span::raw(entry.arguments),
        ]));
        lines.push(Line::styled(format!("    {}{asks}", entry.help), theme.style(Role::Dim)));
    }
    lines
}

pub(super) fn help(line: usize, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let mut lines = help_text(theme);
    let inside = usize::from(area.height.saturating_sub(2));
    let first = line.min(lines.len().saturating_sub(inside));
    framed(String::from(" help "), lines.split_off(first), 0, theme, frame, area);
}

pub(super) fn pane(state: &State, pane: Pane, theme: Theme, frame: &mut Frame<'_>, area: Rect, now_ms: u64) {
    let Some(operation) = state.operations.iter().find(|operation| operation.id == pane.operation) else {
        return;
    };
    let inside = usize::from(area.height.saturating_sub(2));
    let (title, lines) = match &operation.result {
        None => {
            let seconds = text::seconds(now_ms.saturating_sub(operation.started_ms) as f64 / 1000.0);
            let (files, bytes) = operation.progress;
            let done = format!(": {files} done, {}", text::bytes(bytes));
            let line = format!("running for {seconds}{}", if files + bytes > 0 { &done } else { "" });
            let hint = Line::styled("Esc leaves it running; o shows it again", theme.style(Role::Dim));
            (format!(" {} ", operation.title), vec![Line::raw(line), hint])
        }
        Some(shown) => {
            let first = pane.line.min(shown.lines.len().saturating_sub(inside));
            let lines =
                shown.lines[first..].iter().take(inside).map(|line| Line::raw(line.as_str())).collect();
            (format!(" {} {} ", theme.glyph(shown.role), operation.title), lines)
        }
    };
    framed(title, lines, pane.column, theme, frame, area);
}

pub(super) fn confirm(state: &State, confirm: &Confirm, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let mut lines = match &confirm.asked {
        Asked::Quit => vec![Line::raw("Commands are still running and would be given up. Quit?")],
        Asked::Command { title, .. } => {
            vec![Line::raw(title.clone()), Line::raw(format!("on cluster {}", state.label))]
        }
    };
    lines.extend(confirm.target.iter().map(|target| Line::raw(target.clone())));
    lines.push(Line::raw(""));
    if let Some(word) = &confirm.word {
        lines.push(Line::raw(format!("This cannot be undone. Type {word} and press Enter:")));
        lines.push(Line::styled(format!("> {}", confirm.typed.text()), theme.style(Role::Key)));
    } else {
        let role = |chosen: bool| if chosen { Role::Selected } else { Role::Plain };
        lines.push(Line::from(vec![
            Span::styled(" cancel ", theme.style(role(!confirm.yes))),
            Span::raw("  "),
            Span::styled(" yes (y) ", theme.style(role(confirm.yes))),
        ]));
    }
    let widest = lines.iter().map(Line::width).max().unwrap_or(0);
    let width = u16::try_from(widest + 2).unwrap_or(u16::MAX);
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX);
    framed(String::from(" sure? "), lines, 0, theme, frame, middle(area, width, height));
}

/// A rectangle in the middle of `area`, never beyond it.
fn middle(area: Rect, width: u16, height: u16) -> Rect {
    let (width, height) = (width.min(area.width), height.min(area.height));
    Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height }
}

pub(super) fn offers(offers: &[String], theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let height = u16::try_from(offers.len()).unwrap_or(u16::MAX).min(area.height).min(10);
    let widest = offers.iter().map(|offer| Span::raw(offer.as_str()).width()).max().unwrap_or(0);
    let width = u16::try_from(widest + 2).unwrap_or(u16::MAX).min(area.width);
    let area = Rect { y: area.y + area.height - height, width, height, ..area };
    let lines: Vec<Line<'_>> =
        offers.iter().take(usize::from(height)).map(|offer| Line::raw(format!(" {offer}"))).collect();
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).style(theme.style(Role::Selected)), area);
}
