//! The log page. Only visible lines are wrapped and highlighted.

use std::borrow::Cow;

use idunno_shared::wire::control::LogLevel;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use crate::console::log_buffer::{LogBuffer, ShownLine, level_words};
use crate::console::state::State;
use crate::console::theme::{Theme, Tone};
use crate::console::wrap::wrapped;

pub(super) fn draw(state: &State, frame: &mut Frame<'_>, area: Rect) {
    let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let theme = state.theme;
    frame.render_widget(Paragraph::new(title(state)), head);
    let lines = state.log.window(usize::from(body.height));
    if lines.is_empty() {
        let text = if state.log.filter().is_empty() {
            "no log lines yet: a local cluster's are read from its directory, any other's are fetched from its members"
        } else {
            "no line contains this text; Esc clears it"
        };
        frame.render_widget(
            Paragraph::new(text).wrap(Wrap { trim: true }).style(theme.style(Tone::Dim)),
            body,
        );
        return;
    }
    let source_width = lines.iter().map(|shown| shown.line.source.len()).max().unwrap_or(0);
    let room = usize::from(body.width).saturating_sub(source_width + 1).max(1);
    let mut drawn: Vec<Line<'_>> = Vec::new();
    for shown in lines {
        drawn.extend(screen_lines(&state.log, shown, source_width, room, theme));
    }
    // Wrapped lines may need more room than there is: the last ones are visible.
    let surplus = drawn.len().saturating_sub(usize::from(body.height));
    drawn.drain(..surplus);
    frame.render_widget(Paragraph::new(drawn), body);
}

fn title(state: &State) -> Line<'static> {
    let log = &state.log;
    let theme = state.theme;
    let key = state.keymap.hint("follow").map(|key| format!(": {key} follows the end")).unwrap_or_default();
    let position = match (log.follows(), log.lines_below()) {
        (true, _) => Span::styled("following the end", theme.style(Tone::Title)),
        (false, 0) => Span::styled(format!("held{key}"), theme.style(Tone::Title)),
        (false, new) => Span::styled(format!("held, {new} lines below{key}"), theme.style(Tone::Key)),
    };
    let level = format!("  {}", level_words(log.level));
    let member = log.member.as_ref().map(|member| format!("  of {member} alone: Esc shows all"));
    let mut spans = vec![position, Span::styled(level, theme.style(Tone::Dim))];
    spans.extend(member.map(|member| Span::styled(member, theme.style(Tone::Key))));
    for (on, word) in [(log.wrap, "wrapped"), (log.context, "with context")] {
        if on {
            spans.push(Span::styled(format!("  {word}"), theme.style(Tone::Dim)));
        }
    }
    Line::from(spans)
}

/// A log line as lines on screen, `room` columns beside the source.
fn screen_lines(
    log: &LogBuffer,
    shown: ShownLine<'_>,
    source_width: usize,
    room: usize,
    theme: Theme,
) -> Vec<Line<'static>> {
    let tone = match shown.level {
        LogLevel::Debug => Tone::Dim,
        LogLevel::Info => Tone::Plain,
        LogLevel::Warn => Tone::Warn,
        LogLevel::Error => Tone::Bad,
    };
    let text = shortened(&shown.line.text);
    let texts = if log.wrap {
        wrapped(&text, room)
    } else {
        vec![text.chars().skip(usize::from(log.column)).take(room).collect()]
    };
    let mut source = shown.line.source.clone();
    let mut lines = Vec::new();
    for text in texts {
        let mut spans = vec![Span::styled(format!("{source:<source_width$} "), theme.style(Tone::Dim))];
        spans.extend(highlighted(&text, log.filter(), tone, theme));
        lines.push(Line::from(spans));
        source.clear();
    }
    lines
}

/// The line with its time of day in milliseconds and without the crate that all of the daemon's lines name, to fit a narrow
/// screen. Saved lines are complete.
fn shortened(text: &str) -> Cow<'_, str> {
    match text.split_once("Z ") {
        Some((stamp, rest)) if stamp.len() == 26 && stamp.as_bytes()[10] == b'T' && stamp.is_ascii() => {
            let rest = rest.trim_start().replacen(" idunno_daemon::", " ", 1);
            Cow::Owned(format!("{} {rest}", &stamp[11..23]))
        }
        _ => Cow::Borrowed(text),
    }
}

/// The text with the matches of the filter highlighted.
fn highlighted(text: &str, filter: &str, tone: Tone, theme: Theme) -> Vec<Span<'static>> {
    let plain = |text: &str| Span::styled(text.to_owned(), theme.style(tone));
    // ASCII lower case keeps every position.
    let lower = text.to_ascii_lowercase();
    let needle = filter.to_ascii_lowercase();
    if needle.is_empty() {
        return vec![plain(text)];
    }
    let mut spans = Vec::new();
    let mut from = 0;
    while let Some(at) = lower[from..].find(&needle) {
        let start = from + at;
        let end = start + needle.len();
        spans.push(plain(&text[from..start]));
        spans.push(Span::styled(text[start..end].to_owned(), theme.style(Tone::Selected)));
        from = end;
    }
    spans.push(plain(&text[from..]));
    spans
}
