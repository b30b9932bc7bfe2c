//! Members' logs: places in them, pages of them, and searches.
//!
//! A log is files named by date (a day may have several, with numbers), of lines in one of two forms: a timestamp, a level and text, or a JSON object
//! that begins with its timestamp.

use serde::{Deserialize, Serialize};

/// Most bytes of a page, and of the lines of one answer to a search.
pub const LOG_PAGE_BYTES_MAX: u64 = 64 << 10;
/// Longest pattern of a search, in bytes.
pub const LOG_PATTERN_BYTES_MAX: usize = 256;
/// Characters of a line's timestamp, to the microsecond, without the zone's dead_letter.
const STAMP_CHARS: usize = 26;

/// A place in a member's log files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPlace {
    /// The file's name.
    pub file: String,
    /// Bytes before the place.
    pub offset: u64,
}

/// A part of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPage {
    /// Where it ends.
    pub end: LogPlace,
    /// Whether its first line may lack its beginning.
    pub cut: bool,
    /// Its bytes, at most [`LOG_PAGE_BYTES_MAX`].
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// Which lines of a log are wanted. A line without a timestamp belongs to the one before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSearch {
    /// A regular expression that they match; at most [`LOG_PATTERN_BYTES_MAX`].
    pub pattern: Option<String>,
    /// How much they matter at least.
    pub level: LogLevel,
    /// Not before this moment, as a timestamp in UTC begins: `2026-11-25T20:06`.
    pub since: Option<String>,
    /// Behind this place; from the oldest file on without one.
    pub after: Option<LogPlace>,
}

/// A part of what a search finds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFound {
    /// Whole lines.
    #[serde(with = "serde_bytes")]
    pub lines: Vec<u8>,
    /// How far was looked.
    pub end: LogPlace,
    /// Whether there is more to look at.
    pub more: bool,
}

/// How much a line matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LogLevel {
    /// Of interest to developers.
    #[default]
    Debug,
    /// What goes on.
    Info,
    /// What may go wrong.
    Warn,
    /// What went wrong.
    Error,
}

impl LogLevel {
    /// The level that a line names near its beginning.
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

/// A line's timestamp, if it begins with one.
pub fn stamp_of(line: &str) -> Option<&str> {
    let line = line.strip_prefix("{\"timestamp\":\"").unwrap_or(line);
    let stamp = line.get(..STAMP_CHARS)?;
    stamp.starts_with(|c: char| c.is_ascii_digit()).then_some(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_have_a_stamp_and_a_level() {
        let human = "2026-11-26T00:41:10.875719Z  WARN idunno_daemon: late";
        let json = r#"{"timestamp":"2026-11-26T00:41:10.875719Z","level":"ERROR","fields":{}}"#;
        for (line, level) in [(human, LogLevel::Warn), (json, LogLevel::Error)] {
            assert_eq!(stamp_of(line), Some("2026-11-26T00:41:10.875719"));
            assert_eq!(LogLevel::of(line), Some(level));
        }
        assert_eq!((stamp_of("   at src/main.rs"), LogLevel::of("stack backtrace:")), (None, None));
    }
}
