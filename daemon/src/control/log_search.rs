//! Searches a member's own log at the member, so that only matching lines cross the network.
//!
//! Lines are read from the oldest on. A line without a time stamp, such as one of a backtrace, belongs to the line before.
//! Bounds: one answer scans at most [`SCAN_BYTES_MAX`] of log, for at most [`SEARCH_TIME_MAX`] and one line, and holds at
//! most [`LOG_PAGE_BYTES_MAX`] and one line; a line longer than [`LINE_BYTES_MAX`] is searched in pieces. A pattern's cost is
//! linear in the line and in the size of its automaton, which [`PATTERN_MEMORY_BYTES_MAX`] keeps small. [`SEARCHES_MAX`]
//! searches run at once.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use idunno_shared::wire::logs::LogLevel;
use idunno_shared::wire::logs::{
    LOG_PAGE_BYTES_MAX, LOG_PATTERN_BYTES_MAX, LogCursor, LogMatches, LogSearch, stamp_of,
};
use idunno_shared::wire::refusal::Refusal;
use regex::bytes::{Regex, RegexBuilder};

use crate::runtime::log_files::{LOG_PREFIX, names};

/// The log scanned for one answer.
const SCAN_BYTES_MAX: u64 = 8 << 20;
/// A longer line is searched in pieces.
const LINE_BYTES_MAX: u64 = 16 << 10;
/// The memory limit of a compiled pattern: each byte of a line may cost a step through all its states.
const PATTERN_MEMORY_BYTES_MAX: usize = 128 << 10;
/// The memory limit of a pattern's cache of states.
const PATTERN_CACHE_BYTES_MAX: usize = 1 << 20;
/// How long one answer searches; the client continues from where it stopped.
pub(super) const SEARCH_TIME_MAX: Duration = Duration::from_secs(2);
/// Searches that run at once at a member: each occupies a processor.
pub(super) const SEARCHES_MAX: usize = 2;
/// Of these, searches of one identity.
pub(super) const IDENTITY_SEARCHES_MAX: usize = 1;

/// Returns the matching lines after the search's position, as far as it gets in `time_max`.
pub fn search(dir: &Path, search: &LogSearch, time_max: Duration) -> Result<LogMatches, Refusal> {
    let unreadable = |error: io::Error| Refusal::internal(format!("cannot read the log: {error}"));
    let mut filter = Filter::new(search)?;
    let names = names(dir).map_err(unreadable)?;
    let Some(newest) = names.last() else { return Err(Refusal::not_found("this member has no log yet")) };
    let since = search.since.as_deref().unwrap_or_default();
    let start = search.after.as_ref().filter(|position| position.file.starts_with(LOG_PREFIX));
    let first = start.map_or_else(|| first_file(&names, since), |position| position.file.as_str());
    let mut found =
        LogMatches { lines: Vec::new(), end: LogCursor { file: newest.clone(), offset: 0 }, more: false };
    let mut budget = ScanBudget { bytes: SCAN_BYTES_MAX, until: Instant::now() + time_max };
    for name in names.iter().filter(|name| name.as_str() >= first) {
        let offset = start.filter(|position| position.file == *name).map_or(0, |position| position.offset);
        let (end, is_whole) =
            scan(dir, name, offset, &mut budget, &mut filter, &mut found.lines).map_err(unreadable)?;
        found.end = LogCursor { file: name.clone(), offset: end };
        if !is_whole {
            found.more = true;
            break;
        }
    }
    Ok(found)
}

/// The oldest file that may contain lines from `since` on; files are named by their day.
fn first_file<'a>(names: &'a [String], since: &str) -> &'a str {
    let day = since.get(..10).unwrap_or_default();
    let is_late = |name: &&String| {
        name.strip_prefix(LOG_PREFIX).is_some_and(|rest| rest.trim_start_matches('.') >= day)
    };
    names.iter().find(is_late).or_else(|| names.last()).map_or("", String::as_str)
}

/// What one answer may still cost.
struct ScanBudget {
    bytes: u64,
    until: Instant,
}

/// Scans a file from an offset, at least one line. Returns where it stopped, and whether it read all complete lines.
fn scan(
    dir: &Path,
    name: &str,
    offset: u64,
    budget: &mut ScanBudget,
    filter: &mut Filter,
    lines: &mut Vec<u8>,
) -> io::Result<(u64, bool)> {
    let mut file = match File::open(dir.join(name)) {
        // It was pruned since its name was listed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((offset, true)),
        opened => opened?,
    };
    // A file that shrank is read again from its beginning.
    let mut at = if file.metadata()?.len() < offset { 0 } else { offset };
    file.seek(SeekFrom::Start(at))?;
    let (mut reader, mut line) = (BufReader::new(file), Vec::new());
    loop {
        if budget.bytes == 0 || lines.len() as u64 >= LOG_PAGE_BYTES_MAX {
            return Ok((at, false));
        }
        line.clear();
        let length = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? as u64;
        if length < LINE_BYTES_MAX && line.last() != Some(&b'\n') {
            return Ok((at, true));
        }
        at += length;
        budget.bytes = budget.bytes.saturating_sub(length);
        if Instant::now() >= budget.until {
            // This line is the last one, so that every answer gets further than the one before.
            budget.bytes = 0;
        }
        if filter.selects(&String::from_utf8_lossy(&line)) {
            lines.extend_from_slice(&line);
        }
    }
}

struct Filter {
    pattern: Option<Regex>,
    level: LogLevel,
    since: String,
    /// Whether the newest line with a time stamp passes the level and time limits.
    in_range: bool,
    /// Whether that line was selected.
    selected: bool,
}

impl Filter {
    fn new(search: &LogSearch) -> Result<Self, Refusal> {
        let compile = |pattern: &String| {
            if pattern.len() > LOG_PATTERN_BYTES_MAX {
                let message = format!("a pattern has at most {LOG_PATTERN_BYTES_MAX} bytes");
                return Err(Refusal::invalid(message));
            }
            let built = RegexBuilder::new(pattern)
                // The automata of Unicode's classes are large; `(?u)` in the pattern asks for them.
                .unicode(false)
                .size_limit(PATTERN_MEMORY_BYTES_MAX)
                .dfa_size_limit(PATTERN_CACHE_BYTES_MAX)
                .build();
            built.map_err(|error| Refusal::invalid(format!("'{pattern}' is not a valid pattern: {error}")))
        };
        Ok(Self {
            pattern: search.pattern.as_ref().map(compile).transpose()?,
            level: search.level,
            since: search.since.clone().unwrap_or_default(),
            in_range: true,
            selected: false,
        })
    }

    fn selects(&mut self, line: &str) -> bool {
        let stamp = stamp_of(line);
        if let Some(stamp) = stamp {
            let has_level = LogLevel::of(line).is_none_or(|level| level >= self.level);
            self.in_range = has_level && stamp >= self.since.as_str();
        }
        let matches =
            self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(line.trim_end().as_bytes()));
        let continues = stamp.is_none() && self.selected;
        self.selected = self.in_range && (matches || continues);
        self.selected
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const FIRST: &str = "2026-01-01T10:00:00.000000Z  INFO a: one\n2026-01-01T11:00:00.000000Z ERROR a: two\n  \
                         backtrace\n2026-01-01T12:00:00.000000Z  WARN b: three\n";
    const SECOND: &str =
        "2026-01-02T10:00:00.000000Z  INFO b: four\n2026-01-02T11:00:00.000000Z  INFO unfinished";

    fn found(wanted: &LogSearch) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("idunnod.2026-01-01"), FIRST).unwrap();
        fs::write(dir.path().join("idunnod.2026-01-02"), SECOND).unwrap();
        let LogMatches { lines, end, more } = search(dir.path(), wanted, SEARCH_TIME_MAX).unwrap();
        assert_eq!((end.file.as_str(), more), ("idunnod.2026-01-02", false));
        let rest =
            search(dir.path(), &LogSearch { after: Some(end), ..wanted.clone() }, SEARCH_TIME_MAX).unwrap();
        assert!(rest.lines.is_empty(), "an unfinished line is not returned yet");
        let last_word = |line: &str| line.split_whitespace().last().unwrap_or_default().to_owned();
        String::from_utf8(lines).unwrap().lines().map(last_word).collect()
    }

    #[test]
    fn a_search_filters_by_pattern_level_and_time() {
        assert_eq!(found(&LogSearch::default()), ["one", "two", "backtrace", "three", "four"]);
        let pattern = |text: &str| LogSearch { pattern: Some(text.to_owned()), ..LogSearch::default() };
        assert_eq!(found(&pattern("b: |two$")), ["two", "backtrace", "three", "four"]);
        assert_eq!(found(&LogSearch { level: LogLevel::Warn, ..pattern("") }), ["two", "backtrace", "three"]);
        let since = |at: &str| LogSearch { since: Some(at.to_owned()), ..LogSearch::default() };
        assert_eq!(found(&since("2026-01-01T11:30")), ["three", "four"]);
        assert_eq!(found(&since("2026-01-02")), ["four"]);
        assert_eq!(found(&since("2027-01-01")), [""; 0]);
    }

    #[test]
    fn a_search_continues_after_a_pruned_file() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in
            [("2026-01-01", "long ago\n"), ("2026-01-02.000003", "one\n"), ("2026-01-02.000004", "two\n")]
        {
            fs::write(dir.path().join(format!("{LOG_PREFIX}.{name}")), text).unwrap();
        }
        let after = Some(LogCursor { file: String::from("idunnod.2026-01-02"), offset: 500 });
        let found =
            search(dir.path(), &LogSearch { after, ..LogSearch::default() }, SEARCH_TIME_MAX).unwrap();
        assert_eq!(
            (&found.lines[..], found.end.file.as_str()),
            (&b"one\ntwo\n"[..], "idunnod.2026-01-02.000004")
        );
    }

    #[test]
    fn a_long_log_is_searched_in_pages() {
        let dir = tempfile::tempdir().unwrap();
        let line = |n: usize| format!("2026-01-01T10:00:00.{n:06}Z  INFO a: {}\n", "x".repeat(1000));
        let text: String = (0..200).map(line).collect();
        fs::write(dir.path().join("idunnod.2026-01-01"), &text).unwrap();
        let (mut all, mut wanted) = (Vec::new(), LogSearch::default());
        loop {
            let part = search(dir.path(), &wanted, SEARCH_TIME_MAX).unwrap();
            assert!(part.lines.len() as u64 <= LOG_PAGE_BYTES_MAX + 2000);
            all.extend(part.lines);
            wanted.after = Some(part.end);
            if !part.more {
                break;
            }
        }
        assert_eq!(String::from_utf8(all).unwrap(), text);
    }

    #[test]
    fn an_invalid_pattern_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        // The last ones are valid, and their automata are large: each byte of the log would cost thousands of steps.
        let large = [r"(?u)\w{64}", r"(?u)(\pL|\pN){99}[^\pM]", "(a?){250}{250}", r"([ab]*a[ab]{99}){199}"];
        for pattern in ["(", "(a{1000}){1000}", &"x".repeat(300)].into_iter().chain(large) {
            let wanted = LogSearch { pattern: Some(pattern.to_owned()), ..LogSearch::default() };
            assert!(
                search(dir.path(), &wanted, SEARCH_TIME_MAX).unwrap_err().message.contains("pattern"),
                "{pattern}"
            );
        }
    }

    #[test]
    fn patterns_that_people_use_are_accepted() {
        for pattern in [
            "audit: .*operator anna",
            r"\b(took|elapsed)=\d+(\.\d+)?(ms|s)\b",
            r"(?i)error|warn(ing)?\s+\w+",
            r"job-3:\d+-\d+:1:2",
            r"^\S+\s+\w+ \w+::\w+: [^=]+=\w{1,8}",
            r"receiving .*\w{64}",
            "photos/été\\.jpg",
            r"(?u)photos/\w+\.jpg",
        ] {
            let wanted = LogSearch { pattern: Some(pattern.to_owned()), ..LogSearch::default() };
            Filter::new(&wanted).unwrap_or_else(|refusal| panic!("{pattern}: {refusal}"));
        }
    }

    #[test]
    fn a_search_that_has_used_up_its_time_continues_where_it_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let line = |n: usize| format!("2026-01-01T10:00:00.{n:06}Z  INFO a: {n}\n");
        let lines: Vec<String> = (0..20).map(line).collect();
        fs::write(dir.path().join("idunnod.2026-01-01"), lines[..9].concat()).unwrap();
        fs::write(dir.path().join("idunnod.2026-01-02"), lines[9..].concat()).unwrap();
        let (mut all, mut answers, mut wanted) = (Vec::new(), 0, LogSearch::default());
        loop {
            let part = search(dir.path(), &wanted, Duration::ZERO).unwrap();
            assert!(part.lines.len() <= lines[0].len() + 1, "one answer goes on without time");
            answers += 1;
            all.extend(part.lines);
            wanted.after = Some(part.end);
            if !part.more {
                break;
            }
            assert!(answers < 50, "no progress");
        }
        assert_eq!(String::from_utf8(all).unwrap(), lines.concat());
    }
}
