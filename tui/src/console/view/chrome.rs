//! What surrounds the page: the header, the tabs, the bottom line.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph};
use unicode_width::UnicodeWidthStr;

use super::figures;
use crate::answer::text;
use crate::console::actions::current_filter;
use crate::console::registry::{self, Item};
use crate::console::state::{ConnectionState, ELECTING_MS, Mode, Page, STALE_AFTER_MS, State};
use crate::console::text_field::TextField;
use crate::console::theme::Tone;
use crate::console::wrap::wrapped_words;

pub(super) fn header(state: &State, frame: &mut Frame<'_>, area: Rect, now_ms: u64) {
    let theme = state.theme;
    let status = connection_status(state, now_ms);
    let mut first = vec![
        Span::styled("idunno ", theme.style(Tone::Title)),
        Span::styled(format!("{} {}", theme.glyph(status.tone), status.text), theme.style(status.tone)),
        Span::raw("  "),
    ];
    if let Some(view) = &state.view {
        let name = text::member_name(&view.members, view.coordinator);
        let address = view.members.iter().find(|member| member.id == view.coordinator);
        let address = address.filter(|_| area.width >= 100).map(|member| format!("@{}", member.address));
        let address = address.unwrap_or_default();
        let (last, tone) = if state.is_outdated() { ("last ", Tone::Dim) } else { ("", Tone::Plain) };
        let text = format!("{last}coordinator {name}{address} term {}  ", view.term);
        first.push(Span::styled(text, theme.style(tone)));
    }
    if let Some(freeze) = &state.frozen {
        let since = text::seconds(now_ms.saturating_sub(freeze.since_ms) as f64 / 1000.0);
        first.push(Span::styled(format!("FROZEN {since}  "), theme.style(Tone::Warn)));
    }
    if state.read_only {
        first.push(Span::styled("READ-ONLY  ", theme.style(Tone::Key)));
    }
    if let Some(grant) = &state.grant {
        first.push(Span::raw(format!("{}  ", grant.describe())));
    }
    first.push(Span::styled(state.label.clone(), theme.style(Tone::Dim)));
    if let Some(reason) = status.reason {
        first.push(Span::styled(format!("  {reason}"), theme.style(Tone::Bad)));
    }
    let mut second = Vec::new();
    if state.running() > 0 {
        let text = format!("{} running  ", text::count(state.running() as u64, "command"));
        second.push(Span::styled(text, theme.style(Tone::Key)));
    }
    second.extend(state.view.iter().flat_map(|view| figures::line(view, theme)));
    frame.render_widget(Paragraph::new(vec![Line::from(first), Line::from(second)]), area);
}

/// The state of the connection in a few words.
struct ConnectionStatus {
    tone: Tone,
    text: String,
    /// Why it was lost.
    reason: Option<String>,
}

fn connection_status(state: &State, now_ms: u64) -> ConnectionStatus {
    let age_ms = now_ms.saturating_sub(state.fresh_ms);
    let age = if state.view.is_some() {
        format!(", as of {} ago", text::seconds(age_ms as f64 / 1000.0))
    } else {
        String::new()
    };
    let status = |tone, text| ConnectionStatus { tone, text, reason: None };
    match &state.connection {
        ConnectionState::Live if age_ms < STALE_AFTER_MS => status(Tone::Good, String::from("LIVE")),
        ConnectionState::Live => status(Tone::Warn, format!("STALE{age}")),
        ConnectionState::Connecting if state.view.is_some() => status(Tone::Warn, format!("ELECTING{age}")),
        ConnectionState::Connecting => status(Tone::Warn, String::from("CONNECTING")),
        ConnectionState::Waiting { until_ms, attempt, reason, member_reachable } => {
            let reason = Some(crate::tail::printable(reason));
            // Members whose coordinator has just failed elect another, whether the console reaches them or not.
            let just_lost = state.lost_ms.is_some_and(|lost_ms| now_ms.saturating_sub(lost_ms) < ELECTING_MS);
            if *member_reachable || (state.view.is_some() && just_lost) {
                return ConnectionStatus {
                    tone: Tone::Warn,
                    text: format!("ELECTING{age}, attempt {attempt}"),
                    reason,
                };
            }
            let wait = until_ms.saturating_sub(now_ms) as f64 / 1000.0;
            let text = format!("RECONNECTING in {wait:.0} s, attempt {attempt}{age}");
            ConnectionStatus { tone: Tone::Bad, text, reason }
        }
    }
}

/// A page's tab: as long as the screen allows.
pub fn tab_text(page: Page, width: u16) -> String {
    const SHORT: [&str; 8] = ["overview", "members", "jobs", "assign", "files", "models", "logs", "events"];
    let index = Page::ALL.iter().position(|other| *other == page).unwrap_or(0);
    let number = index + 1;
    match width {
        0..57 => format!(" {number} "),
        57..72 => format!(" {number} {:.4}", SHORT[index]),
        72..90 => format!(" {number} {}", SHORT[index]),
        _ => format!(" {number} {} ", page.title()),
    }
}

pub(super) fn tabs(state: &State, frame: &mut Frame<'_>, area: Rect) {
    let theme = state.theme;
    let tabs = Page::ALL.into_iter().map(|page| {
        let tone = if page == state.page { Tone::Selected } else { Tone::Plain };
        Span::styled(tab_text(page, area.width), theme.style(tone))
    });
    let mut spans: Vec<Span<'_>> = tabs.collect();
    if area.width < 57 {
        spans.push(Span::styled(format!(" {}", state.page.title()), theme.style(Tone::Title)));
    }
    if state.page == Page::Files && state.details.is_empty() && !state.files.folder.is_empty() {
        spans.push(Span::styled(format!(" {}", state.files.folder), theme.style(Tone::Key)));
    }
    let filter = current_filter(state);
    if !filter.is_empty() {
        spans.push(Span::styled(format!(" /{filter}"), theme.style(Tone::Key)));
        if let Some(table) = state.table().filter(|table| table.total > table.rows.len()) {
            let text = format!(" {} of {}", table.rows.len(), table.total);
            spans.push(Span::styled(text, theme.style(Tone::Dim)));
        }
    }
    frame.render_widget(Paragraph::new(Line::from(spans)), area);
}

/// The bottom line. `position` says where in its list the table is.
pub(super) fn status(state: &State, frame: &mut Frame<'_>, area: Rect, position: Option<String>) {
    let theme = state.theme;
    match &state.mode {
        Mode::Line(line) => {
            notice_above(state, frame, area);
            typed(":", &line.input, frame, area);
        }
        Mode::Filter { input, .. } => typed("/", input, frame, area),
        Mode::Help { input, .. } | Mode::Palette { input, .. } => typed("search: ", input, frame, area),
        Mode::Form(_) => {
            let text = "Tab next field  Right accepts the suggestion  Enter runs  Esc cancels";
            frame.render_widget(Paragraph::new(text).style(theme.style(Tone::Dim)), area);
        }
        Mode::Page | Mode::Result(_) | Mode::Confirm(_) | Mode::Tour { .. } => match &state.notice {
            Some(notice) => {
                let text = format!("{} {}", theme.glyph(notice.tone), notice.text);
                let line = Line::styled(text, theme.style(notice.tone));
                frame.render_widget(Paragraph::new(line), area);
            }
            None => hints_and_position(state, position.unwrap_or_default(), frame, area),
        },
    }
}

/// While a line is typed the notice stands above it, on as many lines as it needs: it says what is wrong with the line.
fn notice_above(state: &State, frame: &mut Frame<'_>, area: Rect) {
    if let Some(notice) = &state.notice {
        let lines = wrapped_words(&notice.text, usize::from(area.width));
        let height = u16::try_from(lines.len()).unwrap_or(u16::MAX).min(area.y);
        let above = Rect { y: area.y - height, height, ..area };
        let lines: Vec<Line<'_>> = lines.into_iter().map(Line::raw).collect();
        frame.render_widget(Clear, above);
        frame.render_widget(Paragraph::new(lines).style(state.theme.style(notice.tone)), above);
    }
}

/// Hints for keys, and at the right the table's position.
fn hints_and_position(state: &State, position: String, frame: &mut Frame<'_>, area: Rect) {
    let width = u16::try_from(position.width()).unwrap_or(u16::MAX).min(area.width);
    let [left, right] = Layout::horizontal([Constraint::Min(0), Constraint::Length(width)]).areas(area);
    frame.render_widget(Paragraph::new(hints(state, usize::from(left.width))), left);
    let position = Paragraph::new(position).style(state.theme.style(Tone::Dim));
    frame.render_widget(position, right);
}

/// A key and what it does.
struct Hint {
    key: String,
    word: &'static str,
}

impl Hint {
    fn width(&self) -> usize {
        self.key.width() + self.word.width() + 3
    }
}

/// The most useful keys, as the keymap has them: as many as fit, always including help and quit.
fn hints(state: &State, width: usize) -> Line<'static> {
    let mut hints = fixed_hints(state);
    if hints.is_empty() {
        let always =
            hints_of(state, &[("line", "command"), ("palette", "find"), ("help", "help"), ("quit", "quit")]);
        let mut room = width.saturating_sub(always.iter().map(Hint::width).sum());
        for hint in hints_of(state, page_hints(state)) {
            if hint.width() <= room {
                room -= hint.width();
                hints.push(hint);
            }
        }
        hints.extend(always);
    }
    let theme = state.theme;
    let spans = hints.into_iter().flat_map(|hint| {
        [
            Span::styled(hint.key, theme.style(Tone::Key)),
            Span::styled(format!(" {}  ", hint.word), theme.style(Tone::Dim)),
        ]
    });
    Line::from(spans.collect::<Vec<_>>())
}

/// Hints for keys that the keymap cannot change.
fn fixed_hints(state: &State) -> Vec<Hint> {
    let fixed: &[(&str, &'static str)] = match &state.mode {
        Mode::Result(_) => &[("Esc", "close"), ("j k", "scroll"), ("h l", "sideways")],
        Mode::Confirm(_) => &[("Esc", "cancel")],
        _ if !state.pending_keys.is_empty() => &[("Esc", "cancel")],
        _ => &[],
    };
    fixed.iter().map(|(key, word)| Hint { key: (*key).to_owned(), word }).collect()
}

/// Items of the page by name, with a word for each.
fn page_hints(state: &State) -> &'static [(&'static str, &'static str)] {
    match (state.details.last(), state.page) {
        (Some(_), _) => &[("back", "back"), ("right", "next tab"), ("open", "details"), ("copy", "copy")],
        (None, Page::Logs) => {
            &[("follow", "follow"), ("level", "level"), ("wrap", "wrap"), ("filter", "search")]
        }
        (None, Page::Files) => &[("open", "open"), ("tree", "tree"), ("filter", "find"), ("put", "put")],
        (None, Page::Jobs) => {
            &[("open", "details"), ("add-job", "add"), ("start-job", "start"), ("stop-job", "stop")]
        }
        (None, Page::Overview) => &[("train-start", "train"), ("add-job", "add job"), ("freeze", "freeze")],
        (None, Page::Models) => &[("train-start", "train"), ("filter", "filter")],
        (None, Page::Members | Page::Assignments | Page::Events) => {
            &[("open", "details"), ("filter", "filter"), ("sort-next", "sort")]
        }
    }
}

/// The hints of items that have a key; read-only mode leaves out those that change the cluster.
fn hints_of(state: &State, names: &[(&'static str, &'static str)]) -> Vec<Hint> {
    let is_allowed = |name: &str| !(state.read_only && registry::find(name).is_some_and(Item::changes));
    let allowed = names.iter().filter(|(name, _)| is_allowed(name));
    allowed.filter_map(|(name, word)| Some(Hint { key: state.keymap.hint(name)?, word })).collect()
}

/// A line being typed, scrolled so that the cursor is visible.
fn typed(prompt: &str, input: &TextField, frame: &mut Frame<'_>, area: Rect) {
    let width = prompt.width() + input.before_cursor().width();
    let hidden = (width + 1).saturating_sub(usize::from(area.width));
    let scroll = u16::try_from(hidden).unwrap_or(u16::MAX);
    let text = format!("{prompt}{}", input.text());
    frame.render_widget(Paragraph::new(text).scroll((0, scroll)), area);
    let column = u16::try_from(width - hidden.min(width)).unwrap_or(0);
    frame.set_cursor_position(Position { x: area.x + column.min(area.width.saturating_sub(1)), y: area.y });
}
