//! What surrounds the page: the header, the tabs, the bottom line.

use ratatui::Frame;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph};
use unicode_width::UnicodeWidthStr;

use super::figures;
use crate::answer::text;
use crate::console::input::Input;
use crate::console::registry::{Item, named as item_named};
use crate::console::state::{ELECTING_MS, Link, Mode, Page, STALE_AFTER_MS, State};
use crate::console::theme::Role;

pub(super) fn header(state: &State, frame: &mut Frame<'_>, area: Rect, now_ms: u64) {
    let theme = state.theme;
    let (role, words, reason) = link(state, now_ms);
    let mut first = vec![
        Span::styled("idunno ", theme.style(Role::Title)),
        Span::styled(format!("{} {words}", theme.glyph(role)), theme.style(role)),
        Span::raw("  "),
    ];
    if let Some(view) = &state.view {
        let name = text::member_name(&view.members, view.coordinator);
        let address = view.members.iter().find(|member| member.id == view.coordinator);
        let address = address.map(|member| format!("@{}", member.address)).unwrap_or_default();
        let address = if area.width < 100 { String::new() } else { address };
        first.push(Span::raw(format!("coordinator {name}{address} term {}  ", view.term)));
    }
    if let Some((_, since_ms)) = &state.frozen {
        let since = text::seconds(now_ms.saturating_sub(*since_ms) as f64 / 1000.0);
        first.push(Span::styled(format!("FROZEN {since}  "), theme.style(Role::Warn)));
    }
    if state.read_only {
        let words = if state.is_viewer { "VIEWER, READ-ONLY  " } else { "READ-ONLY  " };
        first.push(Span::styled(words, theme.style(Role::Key)));
    }
    first.push(Span::styled(state.label.clone(), theme.style(Role::Dim)));
    first.push(Span::styled(reason, theme.style(Role::Bad)));
    let mut second = Vec::new();
    if state.running() > 0 {
        let text = format!("{} running  ", text::count(state.running() as u64, "command"));
        second.push(Span::styled(text, theme.style(Role::Key)));
    }
    second.extend(state.view.iter().flat_map(|view| figures::line(view, theme)));
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
        Link::Live if age_ms < STALE_AFTER_MS => well(Role::Good, String::from("LIVE")),
        Link::Live => well(Role::Warn, format!("STALE{age}")),
        Link::Connecting if state.view.is_some() => well(Role::Warn, format!("ELECTING{age}")),
        Link::Connecting => well(Role::Warn, String::from("CONNECTING")),
        Link::Waiting { until_ms, attempt, reason, answered } => {
            let reason = format!("  {}", crate::tail::printable(reason));
            // Members of a cluster whose coordinator has just died elect another, be they reached at once or not.
            let just_lost = state.lost_ms.is_some_and(|lost| now_ms.saturating_sub(lost) < ELECTING_MS);
            if *answered || (state.view.is_some() && just_lost) {
                return (Role::Warn, format!("ELECTING{age}, try {attempt}"), reason);
            }
            let wait = until_ms.saturating_sub(now_ms) as f64 / 1000.0;
            (Role::Bad, format!("RECONNECTING in {wait:.0} s, try {attempt}{age}"), reason)
        }
    }
}

const SHORT: [&str; 8] = ["overview", "members", "jobs", "assign", "files", "models", "logs", "events"];

/// A page's name in the line of pages: as long as the screen allows.
pub fn tab_text(page: Page, width: u16) -> String {
    let at = Page::ALL.iter().position(|other| *other == page).unwrap_or(0);
    let number = at + 1;
    match width {
        0..57 => format!(" {number} "),
        57..72 => format!(" {number} {:.4}", SHORT[at]),
        72..90 => format!(" {number} {}", SHORT[at]),
        _ => format!(" {number} {} ", page.title()),
    }
}

pub(super) fn tabs(state: &State, frame: &mut Frame<'_>, area: Rect) {
    let theme = state.theme;
    let mut spans = Vec::new();
    for page in Page::ALL {
        let role = if page == state.page { Role::Selected } else { Role::Plain };
        spans.push(Span::styled(tab_text(page, area.width), theme.style(role)));
    }
    let filter = if state.reads_log() { state.log.filter() } else { state.filter() };
    let mut notes = Vec::new();
    if area.width < 57 {
        notes.push(Span::styled(format!(" {}", state.page.title()), theme.style(Role::Title)));
    }
    if state.page == Page::Files && state.details.is_empty() && !state.files.folder.is_empty() {
        notes.push(Span::styled(format!(" {}", state.files.folder), theme.style(Role::Key)));
    }
    if !filter.is_empty() {
        notes.push(Span::styled(format!(" /{filter}"), theme.style(Role::Key)));
    }
    let table = state.table().filter(|table| !filter.is_empty() && table.total > table.rows.len());
    if let Some(table) = table {
        notes.push(Span::styled(format!(" {} of {}", table.rows.len(), table.total), theme.style(Role::Dim)));
    }
    spans.extend(notes);
    frame.render_widget(Paragraph::new(Line::from(spans)), area);
}

pub(super) fn status(state: &State, frame: &mut Frame<'_>, area: Rect) {
    let theme = state.theme;
    match &state.mode {
        Mode::Line { input, .. } => {
            notice_above(state, frame, area);
            typed(":", input, frame, area);
        }
        Mode::Filter { input, .. } => typed("/", input, frame, area),
        Mode::Help { input, .. } | Mode::Palette { input, .. } => typed("search: ", input, frame, area),
        Mode::Form(_) => {
            notice_above(state, frame, area);
            let text = "Tab next field  Right takes what is offered  Enter gives it  Esc cancel";
            frame.render_widget(Paragraph::new(text).style(theme.style(Role::Dim)), area);
        }
        _ => {
            let line = match &state.notice {
                Some((notice, role, _)) => {
                    Line::styled(format!("{} {notice}", theme.glyph(*role)), theme.style(*role))
                }
                None => hints(state, usize::from(area.width)),
            };
            frame.render_widget(Paragraph::new(line), area);
        }
    }
}

/// What was wrong with what is typed stays in sight above it.
fn notice_above(state: &State, frame: &mut Frame<'_>, area: Rect) {
    if let Some((notice, role, _)) = &state.notice {
        let above = Rect { y: area.y.saturating_sub(1), ..area };
        frame.render_widget(Clear, above);
        frame.render_widget(Paragraph::new(notice.as_str()).style(state.theme.style(*role)), above);
    }
}

/// The keys that matter most here, as the keymap has them: as many as fit, help and quit among them.
fn hints(state: &State, width: usize) -> Line<'static> {
    let fixed: &[(&str, &str)] = match &state.mode {
        Mode::Pane(_) => &[("Esc", "close"), ("j k", "scroll"), ("h l", "sideways")],
        Mode::Confirm(_) => &[("Esc", "cancel")],
        _ if !state.pressed.is_empty() => &[("Esc", "cancel")],
        _ => &[],
    };
    let named: &[(&str, &str)] = match (state.details.last(), state.page) {
        _ if !fixed.is_empty() => &[],
        (Some(_), _) => &[("back", "back"), ("right", "next part"), ("open", "look into"), ("copy", "copy")],
        (None, Page::Logs) => {
            &[("follow", "follow"), ("level", "level"), ("wrap", "wrap"), ("filter", "search")]
        }
        (None, Page::Files) => &[("open", "look into"), ("tree", "tree"), ("filter", "find"), ("put", "put")],
        (None, Page::Jobs) => {
            &[("open", "look into"), ("add-job", "add"), ("start-job", "start"), ("stop-job", "stop")]
        }
        (None, Page::Overview) => &[("train-start", "train"), ("add-job", "add job"), ("freeze", "freeze")],
        (None, Page::Models) => &[("train-start", "train"), ("filter", "filter")],
        (None, _) => &[("open", "look into"), ("filter", "filter"), ("sort-next", "sort")],
    };
    let always: &[(&str, &str)] = if fixed.is_empty() {
        &[("line", "command"), ("palette", "find"), ("help", "help"), ("quit", "quit")]
    } else {
        &[]
    };
    let theme = state.theme;
    let keys = |names: &[(&'static str, &'static str)]| -> Vec<(String, &'static str)> {
        let names = names.iter();
        let there =
            names.filter(|(name, _)| !(state.read_only && item_named(name).is_some_and(Item::changes)));
        there.filter_map(|(name, word)| Some((state.keymap.hint(name)?, *word))).collect()
    };
    let mut all: Vec<_> = fixed.iter().map(|(key, word)| ((*key).to_owned(), *word)).collect();
    let (named, always) = (keys(named), keys(always));
    let wide = |(key, word): &(String, &str)| key.width() + word.width() + 3;
    let mut room = width.saturating_sub(always.iter().map(wide).sum());
    for hint in named {
        if wide(&hint) <= room {
            room -= wide(&hint);
            all.push(hint);
        }
    }
    let spans = all.into_iter().chain(always).flat_map(|(key, word)| {
        [
            Span::styled(key, theme.style(Role::Key)),
            Span::styled(format!(" {word}  "), theme.style(Role::Dim)),
        ]
    });
    Line::from(spans.collect::<Vec<_>>())
}

/// A line being typed: its end is in sight, with the cursor.
pub(super) fn typed(sign: &str, input: &Input, frame: &mut Frame<'_>, area: Rect) {
    let width = sign.width() + input.before().width();
    let hidden = (width + 1).saturating_sub(usize::from(area.width));
    let scroll = u16::try_from(hidden).unwrap_or(u16::MAX);
    let text = format!("{sign}{}", input.text());
    frame.render_widget(Paragraph::new(text).scroll((0, scroll)), area);
    let column = u16::try_from(width - hidden.min(width)).unwrap_or(0);
    frame.set_cursor_position(Position { x: area.x + column.min(area.width.saturating_sub(1)), y: area.y });
}
