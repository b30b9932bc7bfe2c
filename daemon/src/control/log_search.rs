//! Searches a member's own log, here, so that only what is found goes over the network.
//!
//! Lines are looked at from the oldest on. A line without a timestamp, as of a backtrace, belongs to the one before it.
//! Bounds: an answer is made of at most [`SCAN_BYTES_MAX`] of log, and holds [`LOG_PAGE_BYTES_MAX`] and a line; a line
//! counts up to [`LINE_BYTES_MAX`]; patterns run in linear time.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use idunno_shared::wire::logs::LogLevel;
use idunno_shared::wire::logs::{
    LOG_PAGE_BYTES_MAX, LOG_PATTERN_BYTES_MAX, LogFound, LogPlace, LogSearch, stamp_of,
};
use idunno_shared::wire::refusal::Refusal;
use regex::{Regex, RegexBuilder};

use crate::runtime::log_files::{LOG_PREFIX, names};

/// Log that is looked at for one answer, in bytes.
const SCAN_BYTES_MAX: u64 = 8 << 20;
/// A longer line is looked at in pieces.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// What a compiled pattern may take.
const PATTERN_MEMORY_BYTES_MAX: usize = 1 << 20;

/// What is found behind the place that the search names.
pub(super) fn search(dir: &Path, search: &LogSearch) -> Result<LogFound, Refusal> {
    let unreadable = |error: io::Error| Refusal::internal(format!("cannot read the log: {error}"));
    let mut filter = Filter::new(search)?;
    let names = names(dir).map_err(unreadable)?;
    let Some(newest) = names.last() else { return Err(Refusal::not_found("this member has no log yet")) };
    let since = search.since.as_deref().unwrap_or_default();
    let place = search.after.as_ref().filter(|place| place.file.starts_with(LOG_PREFIX));
    let first = place.map_or_else(|| first_file(&names, since), |place| place.file.as_str());
    let mut found =
        LogFound { lines: Vec::new(), end: LogPlace { file: newest.clone(), offset: 0 }, more: false };
    let mut budget = SCAN_BYTES_MAX;
    for name in names.iter().filter(|name| name.as_str() >= first) {
        let offset = place.filter(|place| place.file == *name).map_or(0, |place| place.offset);
        let (end, is_whole) =
            scan(dir, name, offset, &mut budget, &mut filter, &mut found.lines).map_err(unreadable)?;
        found.end = LogPlace { file: name.clone(), offset: end };
        if !is_whole {
            found.more = true;
            break;
        }
    }
    Ok(found)
}

/// The oldest file that may have lines of that moment: it is named by its day.
fn first_file<'a>(names: &'a [String], since: &str) -> &'a str {
    let day = since.get(..10).unwrap_or_default();
    let is_late = |name: &&String| {
        name.strip_prefix(LOG_PREFIX).is_some_and(|rest| rest.trim_start_matches('.') >= day)
    };
    names.iter().find(is_late).or_else(|| names.last()).map_or("", String::as_str)
}

/// Looks at a file from a place on. Returns where it stopped, and whether the file had no more whole lines.
fn scan(
    dir: &Path,
    name: &str,
    offset: u64,
    budget: &mut u64,
    filter: &mut Filter,
    lines: &mut Vec<u8>,
) -> io::Result<(u64, bool)> {
    let mut file = match File::open(dir.join(name)) {
        // Its room was wanted since its name was read.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((offset, true)),
        opened => opened?,
    };
    // One that shrank is begun again.
    let mut at = if file.metadata()?.len() < offset { 0 } else { offset };
    file.seek(SeekFrom::Start(at))?;
    let (mut reader, mut line) = (BufReader::new(file), Vec::new());
    loop {
        if *budget == 0 || lines.len() as u64 >= LOG_PAGE_BYTES_MAX {
            return Ok((at, false));
        }
        line.clear();
        let length = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? as u64;
        if length < LINE_BYTES_MAX && line.last() != Some(&b'\n') {
            return Ok((at, true));
        }
        at += length;
        *budget = budget.saturating_sub(length);
        if filter.takes(&String::from_utf8_lossy(&line)) {
            lines.extend_from_slice(&line);
        }
    }
}

struct Filter {
    pattern: Option<Regex>,
    level: LogLevel,
    since: String,
    /// Whether the newest line with a timestamp matters enough and is late enough; and whether it was taken.
    counts: bool,
    taken: bool,
}

impl Filter {
    fn new(search: &LogSearch) -> Result<Self, Refusal> {
        let compile = |pattern: &String| {
            if pattern.len() > LOG_PATTERN_BYTES_MAX {
                let message = format!("a pattern has at most {LOG_PATTERN_BYTES_MAX} bytes");
                return Err(Refusal::invalid(message));
            }
            let built = RegexBuilder::new(pattern).size_limit(PATTERN_MEMORY_BYTES_MAX).build();
            built.map_err(|error| Refusal::invalid(format!("'{pattern}' is no pattern: {error}")))
        };
        Ok(Self {
            pattern: search.pattern.as_ref().map(compile).transpose()?,
            level: search.level,
            since: search.since.clone().unwrap_or_default(),
            counts: true,
            taken: false,
        })
    }

    fn takes(&mut self, line: &str) -> bool {
        let stamp = stamp_of(line);
        if let Some(stamp) = stamp {
            let matters = LogLevel::of(line).is_none_or(|level| level >= self.level);
            self.counts = matters && stamp >= self.since.as_str();
        }
        let matches = self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(line.trim_end()));
        let belongs = stamp.is_none() && self.taken;
        self.taken = self.counts && (matches || belongs);
        self.taken
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
        let LogFound { lines, end, more } = search(dir.path(), wanted).unwrap();
        assert_eq!((end.file.as_str(), more), ("idunnod.2026-01-02", false));
        let rest = search(dir.path(), &LogSearch { after: Some(end), ..wanted.clone() }).unwrap();
        assert!(rest.lines.is_empty(), "the unfinished line waits for its end");
        let last_word = |line: &str| line.split_whitespace().last().unwrap_or_default().to_owned();
        String::from_utf8(lines).unwrap().lines().map(last_word).collect()
    }

    #[test]
    fn a_search_is_by_pattern_level_and_time() {
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
    fn a_search_goes_on_behind_a_file_that_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in
            [("2026-01-01", "long ago\n"), ("2026-01-02.000003", "one\n"), ("2026-01-02.000004", "two\n")]
        {
            fs::write(dir.path().join(format!("{LOG_PREFIX}.{name}")), text).unwrap();
        }
        let after = Some(LogPlace { file: String::from("idunnod.2026-01-02"), offset: 500 });
        let found = search(dir.path(), &LogSearch { after, ..LogSearch::default() }).unwrap();
        assert_eq!(
            (&found.lines[..], found.end.file.as_str()),
            (&b"one\ntwo\n"[..], "idunnod.2026-01-02.000004")
        );
    }

    #[test]
    fn a_long_log_is_searched_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        let line = |n: usize| format!("2026-01-01T10:00:00.{n:06}Z  INFO a: {}\n", "x".repeat(1000));
        let text: String = (0..200).map(line).collect();
        fs::write(dir.path().join("idunnod.2026-01-01"), &text).unwrap();
        let (mut all, mut wanted) = (Vec::new(), LogSearch::default());
        loop {
            let part = search(dir.path(), &wanted).unwrap();
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
    fn a_bad_pattern_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for pattern in ["(", "(a{1000}){1000}", &"x".repeat(300)] {
            let wanted = LogSearch { pattern: Some(pattern.to_owned()), ..LogSearch::default() };
            assert!(search(dir.path(), &wanted).unwrap_err().message.contains("pattern"), "{pattern}");
        }
    }
}
