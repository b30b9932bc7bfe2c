//! What surrounds the page: the header, the tabs, the bottom line.

use ratatui::Frame;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use idunno_shared::wire::control::{ClusterView, JobState};

use crate::console::input::Input;
use crate::console::state::{Link, Mode, Page, STALE_AFTER_MS, State};
use crate::console::theme::{Role, Theme};
use crate::execute::{status::census, text};

pub(super) fn header(state: &State, theme: Theme, frame: &mut Frame<'_>, area: Rect, now_ms: u64) {
    let (role, words, reason) = link(state, now_ms);
    let mut first = vec![
        Span::styled("idunno ", theme.style(Role::Title)),
        Span::styled(format!("{} {words}", theme.glyph(role)), theme.style(role)),
        Span::raw("  "),
    ];
    if let Some(view) = &state.view {
        let name = text::member_name(&view.members, view.coordinator);
        first.push(Span::raw(format!("coordinator {name} term {}  ", view.term)));
    }
    first.push(Span::styled(state.label.clone(), theme.style(Role::Dim)));
    first.push(Span::styled(reason, theme.style(Role::Bad)));
    let mut second = Vec::new();
    if state.running() > 0 {
        let text = format!("{} running  ", text::count(state.running() as u64, "command"));
        second.push(Span::styled(text, theme.style(Role::Key)));
    }
    second.extend(state.view.iter().flat_map(|view| figures(view, theme)));
    frame.render_widget(Paragraph::new(vec![Line::from(first), Line::from(second)]), area);
}

/// How the connection is: in a few words, and why it is lost.
fn link(state: &State, now_ms: u64) -> (Role, String, String) {
    let age_ms = now_ms.saturating_sub(state.seen_ms);
    let age = if state.view.is_some() {
        format!(", as of {} ago", text::seconds(age_ms as f64 / 1000.0))
    } else {
        String::new()
    };
    let well = |role, words| (role, words, String::new());
    match &state.link {
        Link::Live if age_ms < STALE_AFTER_MS => well(Role::Good, String::from("live")),
        Link::Live => well(Role::Warn, format!("stale{age}")),
        Link::Connecting => well(Role::Warn, format!("connecting{age}")),
        Link::Waiting { until_ms, attempt, reason } => {
            let wait = until_ms.saturating_sub(now_ms) as f64 / 1000.0;
            let words = format!("reconnecting in {wait:.0} s, try {attempt}{age}");
            (Role::Bad, words, format!("  {}", crate::tail::printable(reason)))
        }
    }
}

fn figures(view: &ClusterView, theme: Theme) -> Vec<Span<'static>> {
    let [up, suspect, dead, left] = census(view);
    let tell = |count: usize, word: &str, role: Role| {
        let role = if count > 0 { role } else { Role::Dim };
        Span::styled(format!("{count} {word} "), theme.style(role))
    };
    let running: Vec<_> = view.jobs.iter().filter(|job| job.state == JobState::Running).collect();
    let rate: f64 = running.iter().map(|job| job.rate_10s_qps).fold(0.0, |sum, rate| sum + rate);
    let store = &view.store;
    let mut spans = vec![
        Span::raw("members "),
        tell(up, "up", Role::Good),
        tell(suspect, "suspect", Role::Warn),
        tell(dead, "dead", Role::Bad),
    ];
    if left > 0 {
        spans.push(tell(left, "left", Role::Plain));
    }
    spans.push(Span::raw(format!(" jobs {} running {rate:.1} q/s  files {}", running.len(), store.files)));
    for (count, word, role) in [
        (store.under_replicated, "under-replicated", Role::Warn),
        (store.unavailable, "unavailable", Role::Bad),
    ] {
        if count > 0 {
            spans.push(Span::styled(format!("  {count} {word}"), theme.style(role)));
        }
    }
    spans
}

pub(super) fn tabs(state: &State, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let mut spans = Vec::new();
    for (number, page) in Page::ALL.iter().enumerate() {
        let role = if *page == state.page { Role::Selected } else { Role::Plain };
        spans.push(Span::styled(format!(" {} {} ", number + 1, page.title()), theme.style(role)));
    }
    if !state.filter().is_empty() {
        spans.push(Span::styled(format!("  /{}", state.filter()), theme.style(Role::Key)));
    }
    frame.render_widget(Paragraph::new(Line::from(spans)), area);
}

pub(super) fn status(state: &State, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    match &state.mode {
        Mode::Line { input, .. } => {
            if let Some((notice, role, _)) = &state.notice {
                // What was wrong with the line stays in sight above it.
                let above = Rect { y: area.y.saturating_sub(1), ..area };
                frame.render_widget(ratatui::widgets::Clear, above);
                frame.render_widget(Paragraph::new(notice.as_str()).style(theme.style(*role)), above);
            }
            typed(":", input, frame, area);
        }
        Mode::Filter { input, .. } => typed("/", input, frame, area),
        _ => {
            let line = match &state.notice {
                Some((notice, role, _)) => {
                    Line::styled(format!("{} {notice}", theme.glyph(*role)), theme.style(*role))
                }
                None => Line::styled(hints(state), theme.style(Role::Dim)),
            };
            frame.render_widget(Paragraph::new(line), area);
        }
    }
}

fn hints(state: &State) -> &'static str {
    match (&state.mode, state.page) {
        (Mode::Help { .. } | Mode::Pane(_), _) => "Esc close  j k scroll  left right sideways",
        (Mode::Confirm(_), _) => "Esc cancel",
        (_, Page::Log) => ": command  / filter  ? help  j k scroll  f follow  q quit",
        (_, Page::Files) => ": command  / names that start so  ? help  n p pages  Enter holders  q quit",
        _ => ": command  / filter  ? help  Tab page  Enter describe  q quit",
    }
}

/// A line being typed: its end is in sight, with the cursor.
fn typed(sign: &str, input: &Input, frame: &mut Frame<'_>, area: Rect) {
    let before = format!("{sign}{}", input.before());
    let width = Span::raw(before.as_str()).width();
    let hidden = (width + 1).saturating_sub(usize::from(area.width));
    let scroll = u16::try_from(hidden).unwrap_or(u16::MAX);
    let text = format!("{sign}{}", input.text());
    frame.render_widget(Paragraph::new(text).scroll((0, scroll)), area);
    let column = u16::try_from(width - hidden.min(width)).unwrap_or(0);
    frame.set_cursor_position(Position { x: area.x + column.min(area.width.saturating_sub(1)), y: area.y });
}
