//! The log page's lines: a bounded ring, followed at its end or held at a line.
//!
//! Only visible lines are wrapped and highlighted.

use std::collections::VecDeque;

use idunno_shared::wire::control::LogLevel;

use crate::tail::LogLine;

/// Lines that are kept.
pub const LINES_MAX: usize = 5000;
/// The furthest sideways scroll, in columns.
const COLUMN_MAX: u16 = 8000;
const COLUMN_STEP: u16 = 40;

/// The next minimum level, wrapping around.
const fn next_level(level: LogLevel) -> LogLevel {
    match level {
        LogLevel::Debug => LogLevel::Info,
        LogLevel::Info => LogLevel::Warn,
        LogLevel::Warn => LogLevel::Error,
        LogLevel::Error => LogLevel::Debug,
    }
}

pub const fn level_words(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "all levels",
        LogLevel::Info => "info and above",
        LogLevel::Warn => "warn and above",
        LogLevel::Error => "errors",
    }
}

#[derive(Clone, Debug, Default)]
pub struct LogBuffer {
    lines: VecDeque<(LogLine, LogLevel)>,
    /// The number of the oldest line: lines are numbered, so that the position survives the removal of old ones.
    first: u64,
    /// The number of the last visible line, unless the end is followed.
    held: Option<u64>,
    filter: String,
    /// The first visible column.
    pub column: u16,
    pub wrap: bool,
    /// Whether lines around matches are shown too.
    pub context: bool,
    /// The minimum level.
    pub level: LogLevel,
    /// The only member whose lines are shown, if it is one.
    pub member: Option<String>,
}

impl LogBuffer {
    /// Appends lines and removes the oldest. A line without a level continues the line before it.
    pub fn append(&mut self, lines: impl IntoIterator<Item = LogLine>) {
        for line in lines {
            let level = LogLevel::of(&line.text);
            let level =
                level.unwrap_or_else(|| self.lines.back().map_or(LogLevel::Info, |(_, level)| *level));
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

    pub fn follows(&self) -> bool {
        self.held.is_none()
    }

    /// The number of lines below the last visible one.
    pub fn lines_below(&self) -> u64 {
        self.held.map_or(0, |held| self.end().saturating_sub(held + 1))
    }

    pub fn filter(&self) -> &str {
        &self.filter
    }

    pub fn set_filter(&mut self, text: String) {
        self.filter = text;
    }

    /// Follows the end, or holds the position.
    pub fn toggle_follow(&mut self) {
        if self.follows() {
            self.scroll(0);
        } else {
            self.held = None;
        }
    }

    pub fn toggle_wrap(&mut self) {
        self.wrap = !self.wrap;
        self.column = 0;
    }

    pub fn next_level(&mut self) {
        self.level = next_level(self.level);
    }

    pub fn scroll_sideways(&mut self, right: bool) {
        self.column = if right {
            (self.column + COLUMN_STEP).min(COLUMN_MAX)
        } else {
            self.column.saturating_sub(COLUMN_STEP)
        };
    }

    /// Scrolls by this many lines. Scrolling up stops following; reaching the end resumes it.
    pub fn scroll(&mut self, by: i64) {
        let shown: Vec<u64> = self.shown().map(|line| line.number).collect();
        let Some(last) = shown.len().checked_sub(1) else { return };
        let current =
            self.held.map_or(last, |held| shown.partition_point(|number| *number <= held).max(1) - 1);
        let steps = usize::try_from(by.unsigned_abs()).unwrap_or(usize::MAX);
        let target =
            if by < 0 { current.saturating_sub(steps) } else { current.saturating_add(steps).min(last) };
        self.held = if by > 0 && target == last { None } else { Some(shown[target]) };
    }

    /// Goes to the next or the previous match of the filter.
    pub fn find_match(&mut self, forward: bool) {
        if self.filter.is_empty() {
            return;
        }
        let needle = self.filter.to_lowercase();
        let current = self.held.unwrap_or(u64::MAX);
        let mut matches =
            self.shown().filter(|shown| contains(shown.line, &needle)).map(|shown| shown.number);
        let found = if forward {
            matches.find(|number| *number > current)
        } else {
            matches.rfind(|number| *number < current)
        };
        drop(matches);
        self.held = found.or(self.held);
    }

    /// The lines that pass the level and the filter.
    fn shown(&self) -> impl DoubleEndedIterator<Item = ShownLine<'_>> {
        let needle = if self.context { String::new() } else { self.filter.to_lowercase() };
        let numbered = self.lines.iter().enumerate().map(|(index, (line, level))| ShownLine {
            number: self.first + index as u64,
            line,
            level: *level,
        });
        numbered.filter(move |shown| {
            shown.level >= self.level
                && self.member.as_ref().is_none_or(|member| shown.line.source == *member)
                && (needle.is_empty() || contains(shown.line, &needle))
        })
    }

    /// The last `height` lines up to the position, oldest first.
    pub fn window(&self, height: usize) -> Vec<ShownLine<'_>> {
        let last = self.held.unwrap_or(u64::MAX);
        let mut lines: Vec<_> =
            self.shown().rev().filter(|shown| shown.number <= last).take(height).collect();
        // Near the beginning the page is filled with the lines that follow.
        if lines.len() < height && self.held.is_some() {
            return self.shown().take(height).collect();
        }
        lines.reverse();
        lines
    }

    /// All lines that pass, as text.
    pub fn text(&self) -> String {
        self.shown()
            .flat_map(|shown| [shown.line.source.as_str(), " ", shown.line.text.as_str(), "\n"])
            .collect()
    }
}

/// A line that passes the level and the filter.
#[derive(Clone, Copy, Debug)]
pub struct ShownLine<'a> {
    number: u64,
    pub line: &'a LogLine,
    pub level: LogLevel,
}

fn contains(line: &LogLine, needle: &str) -> bool {
    line.text.to_lowercase().contains(needle) || line.source.contains(needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(numbers: std::ops::Range<u32>) -> impl Iterator<Item = LogLine> {
        numbers.map(|number| LogLine { source: "m1".into(), text: format!("line {number}") })
    }

    fn shown(log: &LogBuffer) -> Vec<&str> {
        log.window(3).iter().map(|shown| shown.line.text.as_str()).collect()
    }

    #[test]
    fn scrolling_up_holds_the_position_while_lines_arrive() {
        let mut log = LogBuffer::default();
        log.append(lines(0..10));
        assert_eq!(shown(&log), ["line 7", "line 8", "line 9"]);
        log.scroll(-2);
        assert_eq!(shown(&log), ["line 5", "line 6", "line 7"]);
        log.append(lines(10..20));
        assert_eq!(shown(&log), ["line 5", "line 6", "line 7"]);
        assert_eq!(log.lines_below(), 12);
        log.scroll(100);
        assert!(log.follows());
        assert_eq!(shown(&log), ["line 17", "line 18", "line 19"]);
        log.scroll(-1000);
        assert_eq!(shown(&log), ["line 0", "line 1", "line 2"]);
    }

    #[test]
    fn the_buffer_is_bounded_and_the_filter_hides_lines() {
        let mut log = LogBuffer::default();
        log.append(lines(0..6000));
        assert_eq!(log.lines.len(), LINES_MAX);
        log.set_filter("LINE 599".into());
        assert_eq!(log.window(20).len(), 10);
        log.set_filter("nothing like it".into());
        log.scroll(-1);
        assert!(log.follows());
    }

    #[test]
    fn levels_hide_lines_and_matches_are_shown_in_context() {
        let mut log = LogBuffer::default();
        log.append(
            ["INFO a", "WARN b", "  more of b", "ERROR c", "INFO b again"]
                .map(|text| LogLine { source: "m1".into(), text: text.into() }),
        );
        log.next_level();
        log.next_level();
        assert_eq!(shown(&log), ["WARN b", "  more of b", "ERROR c"]);
        log.next_level();
        assert_eq!(shown(&log), ["ERROR c"]);
        log.next_level();
        log.set_filter("b".into());
        assert_eq!(shown(&log), ["WARN b", "  more of b", "INFO b again"]);
        log.context = true;
        assert_eq!(shown(&log), ["  more of b", "ERROR c", "INFO b again"]);
        log.find_match(false);
        log.find_match(false);
        assert_eq!(shown(&log), ["INFO a", "WARN b", "  more of b"]);
        log.find_match(true);
        assert_eq!(shown(&log).last(), Some(&"INFO b again"));
    }
}
