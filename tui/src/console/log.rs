//! The log page's lines: a bounded ring, followed at its end or held at a line.
//!
//! Only the lines in sight are wrapped and searched for what they show; the ring is walked from the place on.

use std::collections::VecDeque;

pub use idunno_shared::wire::control::LogLevel as Level;

use super::registry::Action;
use crate::tail::LogLine;

/// Lines that are kept.
pub const LINES_MAX: usize = 5000;
/// How far the furthest scroll to the side goes, in columns.
const COLUMN_MAX: u16 = 8000;
const COLUMN_STEP: u16 = 40;

/// The next least level that is shown, round and round.
const fn next(level: Level) -> Level {
    match level {
        Level::Debug => Level::Info,
        Level::Info => Level::Warn,
        Level::Warn => Level::Error,
        Level::Error => Level::Debug,
    }
}

/// Words for the least level that is shown.
pub const fn word(level: Level) -> &'static str {
    match level {
        Level::Debug => "all levels",
        Level::Info => "info and above",
        Level::Warn => "warn and above",
        Level::Error => "errors",
    }
}

/// What is kept of the logs.
#[derive(Clone, Debug, Default)]
pub struct Log {
    lines: VecDeque<(LogLine, Level)>,
    /// The number of the first line that is kept: lines have numbers, so that a reader keeps the place.
    first: u64,
    /// The number of the last line shown, while the end is not followed.
    held: Option<u64>,
    filter: String,
    /// Columns to the left that are not shown.
    pub column: u16,
    /// Whether long lines are wrapped.
    pub wrap: bool,
    /// Whether lines without the text that is searched for are shown too.
    pub around: bool,
    /// The least level that is shown.
    pub level: Level,
}

impl Log {
    /// Appends lines; the oldest go. A line without a level is the last one's continuation.
    pub fn append(&mut self, lines: impl IntoIterator<Item = LogLine>) {
        for line in lines {
            let level = Level::of(&line.text);
            let level = level.unwrap_or_else(|| self.lines.back().map_or(Level::Info, |(_, level)| *level));
            self.lines.push_back((line, level));
            if self.lines.len() > LINES_MAX {
                self.lines.pop_front();
                self.first += 1;
            }
        }
    }

    fn end(&self) -> u64 {
        self.first + self.lines.len() as u64
    }

    /// Whether the end is followed.
    pub fn follows(&self) -> bool {
        self.held.is_none()
    }

    /// Lines that came behind the last one shown.
    pub fn behind(&self) -> u64 {
        self.held.map_or(0, |held| self.end().saturating_sub(held + 1))
    }

    /// The text that is searched for.
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// Searches for a text.
    pub fn set_filter(&mut self, text: String) {
        self.filter = text;
    }

    /// Does what a key of the page says.
    pub fn act(&mut self, action: Action) {
        match action {
            Action::Follow if self.follows() => self.scroll(0),
            Action::Follow => self.held = None,
            Action::Wrap => (self.wrap, self.column) = (!self.wrap, 0),
            Action::Level => self.level = next(self.level),
            Action::Around => self.around = !self.around,
            Action::NextFound => self.find(true),
            Action::PrevFound => self.find(false),
            _ => {}
        }
    }

    /// Scrolls to the side.
    pub fn sideways(&mut self, right: bool) {
        self.column = if right {
            (self.column + COLUMN_STEP).min(COLUMN_MAX)
        } else {
            self.column.saturating_sub(COLUMN_STEP)
        };
    }

    /// Moves by so many lines that are shown; upwards stops following, the end resumes it.
    pub fn scroll(&mut self, by: i64) {
        let shown: Vec<u64> = self.shown().map(|(number, ..)| number).collect();
        let Some(last) = shown.len().checked_sub(1) else { return };
        let current =
            self.held.map_or(last, |held| shown.partition_point(|number| *number <= held).max(1) - 1);
        let steps = usize::try_from(by.unsigned_abs()).unwrap_or(usize::MAX);
        let target =
            if by < 0 { current.saturating_sub(steps) } else { current.saturating_add(steps).min(last) };
        self.held = if by > 0 && target == last { None } else { Some(shown[target]) };
    }

    /// Goes to the next line with the text, or the one before.
    fn find(&mut self, on: bool) {
        if self.filter.is_empty() {
            return;
        }
        let wanted = self.filter.to_lowercase();
        let at = self.held.unwrap_or(u64::MAX);
        let mut found =
            self.shown().filter(|(_, line, _)| contains(line, &wanted)).map(|(number, ..)| number);
        let next = if on { found.find(|number| *number > at) } else { found.rfind(|number| *number < at) };
        drop(found);
        self.held = next.or(self.held);
    }

    /// The lines that pass, with their numbers.
    fn shown(&self) -> impl DoubleEndedIterator<Item = (u64, &LogLine, Level)> {
        let wanted = if self.around { String::new() } else { self.filter.to_lowercase() };
        let numbered =
            self.lines.iter().enumerate().map(|(at, (line, level))| (self.first + at as u64, line, *level));
        numbered.filter(move |(_, line, level)| {
            *level >= self.level && (wanted.is_empty() || contains(line, &wanted))
        })
    }

    /// The last lines up to the place, at most `height`, oldest first.
    pub fn window(&self, height: usize) -> Vec<(&LogLine, Level)> {
        let last = self.held.unwrap_or(u64::MAX);
        let before = self.shown().rev().filter(|(number, ..)| *number <= last).take(height);
        let mut lines: Vec<_> = before.map(|(_, line, level)| (line, level)).collect();
        // Near the beginning the page is filled with what follows.
        if lines.len() < height && self.held.is_some() {
            return self.shown().take(height).map(|(_, line, level)| (line, level)).collect();
        }
        lines.reverse();
        lines
    }

    /// All lines that are shown, as text.
    pub fn text(&self) -> String {
        self.shown().flat_map(|(_, line, _)| [line.source.as_str(), " ", line.text.as_str(), "\n"]).collect()
    }
}

fn contains(line: &LogLine, wanted: &str) -> bool {
    line.text.to_lowercase().contains(wanted) || line.source.contains(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(numbers: std::ops::Range<u32>) -> impl Iterator<Item = LogLine> {
        numbers.map(|number| LogLine { source: "m1".into(), text: format!("line {number}") })
    }

    fn shown(log: &Log) -> Vec<&str> {
        log.window(3).iter().map(|(line, _)| line.text.as_str()).collect()
    }

    #[test]
    fn reading_up_keeps_the_place_while_lines_come() {
        let mut log = Log::default();
        log.append(lines(0..10));
        assert_eq!(shown(&log), ["line 7", "line 8", "line 9"]);
        log.scroll(-2);
        assert_eq!(shown(&log), ["line 5", "line 6", "line 7"]);
        log.append(lines(10..20));
        assert_eq!(shown(&log), ["line 5", "line 6", "line 7"]);
        assert_eq!(log.behind(), 12);
        log.scroll(100);
        assert!(log.follows());
        assert_eq!(shown(&log), ["line 17", "line 18", "line 19"]);
        log.scroll(-1000);
        assert_eq!(shown(&log), ["line 0", "line 1", "line 2"]);
    }

    #[test]
    fn the_ring_is_bounded_and_the_filter_hides() {
        let mut log = Log::default();
        log.append(lines(0..6000));
        assert_eq!(log.lines.len(), LINES_MAX);
        log.set_filter("LINE 599".into());
        assert_eq!(log.window(20).len(), 10);
        log.set_filter("nothing like it".into());
        log.scroll(-1);
        assert!(log.follows());
    }

    #[test]
    fn levels_hide_and_what_was_found_is_shown_in_its_place() {
        let mut log = Log::default();
        log.append(
            ["INFO a", "WARN b", "  more of b", "ERROR c", "INFO b again"]
                .map(|text| LogLine { source: "m1".into(), text: text.into() }),
        );
        log.act(Action::Level);
        log.act(Action::Level);
        assert_eq!(shown(&log), ["WARN b", "  more of b", "ERROR c"]);
        log.act(Action::Level);
        assert_eq!(shown(&log), ["ERROR c"]);
        log.act(Action::Level);
        log.set_filter("b".into());
        assert_eq!(shown(&log), ["WARN b", "  more of b", "INFO b again"]);
        log.act(Action::Around);
        assert_eq!(shown(&log), ["  more of b", "ERROR c", "INFO b again"]);
        log.act(Action::PrevFound);
        log.act(Action::PrevFound);
        assert_eq!(shown(&log), ["INFO a", "WARN b", "  more of b"]);
        log.act(Action::NextFound);
        assert_eq!(shown(&log).last(), Some(&"INFO b again"));
    }
}
