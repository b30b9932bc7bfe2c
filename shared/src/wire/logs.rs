//! Access to members' logs: pages and searches.
//!
//! A log consists of files named by date; a day may have several, which are numbered. A line is either a timestamp, a level
//! and text, or a JSON object that begins with its timestamp.

use serde::{Deserialize, Serialize};

/// Most bytes in a page, and in one page of a search's matches.
pub const LOG_PAGE_BYTES_MAX: u64 = 64 << 10;
/// Longest pattern of a search, in bytes.
pub const LOG_PATTERN_BYTES_MAX: usize = 256;
/// Length of a line's timestamp: up to the microseconds, without the `Z`.
const TIMESTAMP_CHARS: usize = 26;

/// A position in a member's log files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCursor {
    /// Name of the log file.
    pub file: String,
    /// Bytes of the file before the position.
    pub offset: u64,
}

/// A page of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPage {
    /// Where the page ends, and the next one begins.
    pub end: LogCursor,
    /// Whether the page may start in the middle of a line.
    pub cut: bool,
    /// Bytes of the log, at most [`LOG_PAGE_BYTES_MAX`].
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// A search of a log. A line without a timestamp belongs to the entry before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSearch {
    /// Regular expression that lines must match; at most [`LOG_PATTERN_BYTES_MAX`].
    pub pattern: Option<String>,
    /// Minimum level.
    pub level: LogLevel,
    /// Earliest time, as a prefix of a UTC timestamp: `2026-11-25T20:06`.
    pub since: Option<String>,
    /// Search from here on; `None` starts with the oldest file.
    pub after: Option<LogCursor>,
}

/// A page of a search's matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogMatches {
    /// The matching lines, none of them cut.
    #[serde(with = "serde_bytes")]
    pub lines: Vec<u8>,
    /// How far the search got.
    pub end: LogCursor,
    /// Whether there is more of the log to search.
    pub more: bool,
}

/// Severity of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LogLevel {
    /// Of interest to developers only.
    #[default]
    Debug,
    /// Normal operation.
    Info,
    /// A problem that the process handles.
    Warn,
    /// A failure.
    Error,
}

impl LogLevel {
    /// Parses the level of a line from its first 80 characters.
    pub fn of(line: &str) -> Option<Self> {
        let head = line.char_indices().nth(80).map_or(line, |(end, _)| &line[..end]);
        head.split(|c: char| !c.is_ascii_alphabetic()).find_map(|word| match word {
            "ERROR" => Some(Self::Error),
            "WARN" => Some(Self::Warn),
            "INFO" => Some(Self::Info),
            "DEBUG" | "TRACE" => Some(Self::Debug),
            _ => None,
        })
    }
}

/// The timestamp of a line; `None` if the line does not begin with one.
pub fn stamp_of(line: &str) -> Option<&str> {
    let line = line.strip_prefix("{\"timestamp\":\"").unwrap_or(line);
    let stamp = line.get(..TIMESTAMP_CHARS)?;
    stamp.starts_with(|c: char| c.is_ascii_digit()).then_some(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_and_levels_are_found_in_both_line_formats() {
        let human = "2026-11-26T00:41:10.875719Z  WARN idunno_daemon: late";
        let json = r#"{"timestamp":"2026-11-26T00:41:10.875719Z","level":"ERROR","fields":{}}"#;
        for (line, level) in [(human, LogLevel::Warn), (json, LogLevel::Error)] {
            assert_eq!(stamp_of(line), Some("2026-11-26T00:41:10.875719"));
            assert_eq!(LogLevel::of(line), Some(level));
        }
        assert_eq!((stamp_of("   at src/main.rs"), LogLevel::of("stack backtrace:")), (None, None));
    }
}
