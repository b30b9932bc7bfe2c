//! The log page. Only the lines in sight are touched.

use std::borrow::Cow;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};
use unicode_width::UnicodeWidthChar;

use crate::console::log::{Level, Log, word};
use crate::console::state::State;
use crate::console::theme::{Role, Theme};
use crate::tail::LogLine;

pub(super) fn draw(state: &State, frame: &mut Frame<'_>, area: Rect) {
    let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let theme = state.theme;
    frame.render_widget(Paragraph::new(title(state)), head);
    let lines = state.log.window(usize::from(body.height));
    if lines.is_empty() {
        let text = if state.log.filter().is_empty() {
            "no log lines yet: those of a local cluster are read from its directory, of another asked from its members"
        } else {
            "no line has this text; Esc clears it"
        };
        frame.render_widget(
            Paragraph::new(text).wrap(Wrap { trim: true }).style(theme.style(Role::Dim)),
            body,
        );
        return;
    }
    let widest = lines.iter().map(|(line, _)| line.source.len()).max().unwrap_or(0);
    let mut shown: Vec<Line<'_>> = Vec::new();
    for (line, level) in &lines {
        shown.extend(drawn(&state.log, line, *level, widest, theme, usize::from(body.width)));
    }
    // Wrapped lines take more room than there are: the last ones are those in sight.
    let surplus = shown.len().saturating_sub(usize::from(body.height));
    shown.drain(..surplus);
    frame.render_widget(Paragraph::new(shown), body);
}

fn title(state: &State) -> Line<'static> {
    let (log, theme) = (&state.log, state.theme);
    let key = state.keymap.hint("follow").map(|key| format!(": {key} follows the end")).unwrap_or_default();
    let place = match (log.follows(), log.behind()) {
        (true, _) => Span::styled("following the end", theme.style(Role::Title)),
        (false, 0) => Span::styled(format!("held{key}"), theme.style(Role::Title)),
        (false, new) => Span::styled(format!("held, {new} lines below{key}"), theme.style(Role::Key)),
    };
    let mut spans = vec![place, Span::styled(format!("  {}", word(log.level)), theme.style(Role::Dim))];
    for (on, word) in [(log.wrap, "wrapped"), (log.around, "with what stands around")] {
        if on {
            spans.push(Span::styled(format!("  {word}"), theme.style(Role::Dim)));
        }
    }
    Line::from(spans)
}

/// A line of a log as lines on screen.
fn drawn(
    log: &Log,
    line: &LogLine,
    level: Level,
    widest: usize,
    theme: Theme,
    width: usize,
) -> Vec<Line<'static>> {
    let room = width.saturating_sub(widest + 1).max(1);
    let role = match level {
        Level::Debug => Role::Dim,
        Level::Info => Role::Plain,
        Level::Warn => Role::Warn,
        Level::Error => Role::Bad,
    };
    let text = timed(&line.text);
    let texts = if log.wrap {
        wrapped(&text, room)
    } else {
        vec![text.chars().skip(usize::from(log.column)).take(room).collect()]
    };
    let mut source = line.source.clone();
    let mut lines = Vec::new();
    for text in texts {
        let mut spans = vec![Span::styled(format!("{source:<widest$} "), theme.style(Role::Dim))];
        spans.extend(highlighted(&text, log.filter(), role, theme));
        lines.push(Line::from(spans));
        source.clear();
    }
    lines
}

/// The line with the time of day to the millisecond, and without what all lines of the daemon have: the rest would fill
/// a narrow screen. What is saved has it all.
fn timed(text: &str) -> Cow<'_, str> {
    match text.split_once("Z ") {
        Some((stamp, rest)) if stamp.len() == 26 && stamp.as_bytes()[10] == b'T' && stamp.is_ascii() => {
            let rest = rest.trim_start().replacen(" idunno_daemon::", " ", 1);
            Cow::Owned(format!("{} {rest}", &stamp[11..23]))
        }
        _ => Cow::Borrowed(text),
    }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut taken = 0;
    for c in text.chars() {
        let cells = c.width().unwrap_or(0);
        if taken + cells > width {
            lines.push(String::new());
            taken = 0;
        }
        taken += cells;
        if let Some(last) = lines.last_mut() {
            last.push(c);
        }
    }
    lines
}

/// The text, with what was searched for standing out.
fn highlighted(text: &str, wanted: &str, role: Role, theme: Theme) -> Vec<Span<'static>> {
    let plain = |text: &str| Span::styled(text.to_owned(), theme.style(role));
    // Positions agree only where lower case is as long as the text, which it is in logs.
    let (lower, wanted) = (text.to_ascii_lowercase(), wanted.to_ascii_lowercase());
    if wanted.is_empty() {
        return vec![plain(text)];
    }
    let (mut spans, mut from) = (Vec::new(), 0);
    while let Some(at) = lower[from..].find(&wanted) {
        let (start, end) = (from + at, from + at + wanted.len());
        spans.push(plain(&text[from..start]));
        spans.push(Span::styled(text[start..end].to_owned(), theme.style(Role::Selected)));
        from = end;
    }
    spans.push(plain(&text[from..]));
    spans
}
