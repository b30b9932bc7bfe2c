//! The log page's lines: a bounded ring, followed at its end or held at a line.

use std::collections::VecDeque;

/// Lines that are kept.
pub const LINES_MAX: usize = 5000;

/// A line of a daemon's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Whose log.
    pub source: String,
    /// What it says.
    pub text: String,
}

/// What is kept of the logs.
#[derive(Clone, Debug, Default)]
pub struct Log {
    lines: VecDeque<LogLine>,
    /// The number of the first line that is kept: lines have numbers, so that a reader keeps the place.
    first: u64,
    /// The number of the last line shown, while the end is not followed.
    held: Option<u64>,
    /// Columns to the left that are not shown.
    pub column: u16,
}

impl Log {
    /// Appends lines; the oldest go.
    pub fn append(&mut self, lines: impl IntoIterator<Item = LogLine>) {
        self.lines.extend(lines);
        while self.lines.len() > LINES_MAX {
            self.lines.pop_front();
            self.first += 1;
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

    /// Follows the end again.
    pub fn follow(&mut self) {
        self.held = None;
    }

    /// Holds the page where it is.
    pub fn hold(&mut self) {
        self.scroll(0, "");
    }

    /// Moves by so many lines that pass the filter; upwards stops following, the end resumes it.
    pub fn scroll(&mut self, by: i64, filter: &str) {
        let shown: Vec<u64> = self.passing(filter).map(|(number, _)| number).collect();
        let Some(last) = shown.len().checked_sub(1) else { return };
        let current =
            self.held.map_or(last, |held| shown.partition_point(|number| *number <= held).max(1) - 1);
        let steps = usize::try_from(by.unsigned_abs()).unwrap_or(usize::MAX);
        let target =
            if by < 0 { current.saturating_sub(steps) } else { current.saturating_add(steps).min(last) };
        self.held = if by > 0 && target == last { None } else { Some(shown[target]) };
    }

    fn passing<'a>(&'a self, filter: &'a str) -> impl DoubleEndedIterator<Item = (u64, &'a LogLine)> {
        let wanted = filter.to_lowercase();
        let numbered = (self.first..).zip(self.lines.iter()).collect::<Vec<_>>();
        numbered.into_iter().filter(move |(_, line)| {
            wanted.is_empty() || line.text.to_lowercase().contains(&wanted) || line.source.contains(&wanted)
        })
    }

    /// The last lines up to the place, at most `height`, oldest first.
    pub fn window<'a>(&'a self, filter: &'a str, height: usize) -> Vec<&'a LogLine> {
        let last = self.held.unwrap_or(u64::MAX);
        let mut lines: Vec<&'a LogLine> = self
            .passing(filter)
            .rev()
            .filter(|(number, _)| *number <= last)
            .take(height)
            .map(|(_, line)| line)
            .collect();
        // Near the beginning the page is filled with what follows.
        if lines.len() < height && self.held.is_some() {
            return self.passing(filter).take(height).map(|(_, line)| line).collect();
        }
        lines.reverse();
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(numbers: std::ops::Range<u32>) -> impl Iterator<Item = LogLine> {
        numbers.map(|number| LogLine { source: "m1".into(), text: format!("line {number}") })
    }

    fn shown(log: &Log) -> Vec<&str> {
        log.window("", 3).iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn reading_up_keeps_the_place_while_lines_come() {
        let mut log = Log::default();
        log.append(lines(0..10));
        assert_eq!(shown(&log), ["line 7", "line 8", "line 9"]);
        log.scroll(-2, "");
        assert_eq!(shown(&log), ["line 5", "line 6", "line 7"]);
        log.append(lines(10..20));
        assert_eq!(shown(&log), ["line 5", "line 6", "line 7"]);
        assert_eq!(log.behind(), 12);
        log.scroll(100, "");
        assert!(log.follows());
        assert_eq!(shown(&log), ["line 17", "line 18", "line 19"]);
        log.scroll(-1000, "");
        assert_eq!(shown(&log), ["line 0", "line 1", "line 2"]);
    }

    #[test]
    fn the_ring_is_bounded_and_the_filter_hides() {
        let mut log = Log::default();
        log.append(lines(0..6000));
        assert_eq!(log.lines.len(), LINES_MAX);
        let found = log.window("LINE 599", 20);
        assert_eq!(found.len(), 10);
        log.scroll(-1, "nothing like it");
        assert!(log.follows());
    }
}
