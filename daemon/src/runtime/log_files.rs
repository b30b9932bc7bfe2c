//! Log files, bounded in count and size; the newest lines are always kept.
//!
//! A day starts with the file `idunnod.2026-11-26`. When a file reaches half of the day's limit, the next one is
//! `idunnod.2026-11-26.000001`, and so on. Names never change and sort by age, so that a position in a log stays valid
//! while it is being read. The newest [`PARTS_MAX`] files of each day are kept, and the newest days: a flood of lines
//! replaces older lines of its own day and of no other. Files from earlier processes count.
//!
//! Bounds: the number of days times the bytes of a day. A single line longer than a file's limit is still written. A line
//! that cannot be written is lost and counted; standard error reports that at once, and the log as soon as it can.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use tracing::error;

/// The prefix of a log file's name; the date follows.
pub const LOG_PREFIX: &str = "idunnod";
/// Files of one day.
const PARTS_MAX: usize = 2;
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Names of log files in a directory, oldest first.
pub fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in dir.read_dir()? {
        names.extend(entry?.file_name().into_string().ok());
    }
    names.retain(|name| name.starts_with(LOG_PREFIX));
    names.sort();
    Ok(names)
}

/// A log file's name, parsed. The order is that of the names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    /// `YYYY-MM-DD`.
    day: String,
    number: u32,
}

impl Part {
    fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_prefix(LOG_PREFIX)?.strip_prefix('.')?;
        let (day, number) = match rest.split_once('.') {
            Some((day, number)) => (day, number.parse().ok()?),
            None => (rest, 0),
        };
        Some(Self { day: day.to_owned(), number })
    }

    fn name(&self) -> String {
        match self.number {
            0 => format!("{LOG_PREFIX}.{}", self.day),
            number => format!("{LOG_PREFIX}.{}.{number:06}", self.day),
        }
    }

    fn next(&self) -> Self {
        Self { day: self.day.clone(), number: self.number + 1 }
    }
}

/// Writes a log into a directory. Each write is one line; nothing is buffered.
#[derive(Debug)]
pub struct LogFiles {
    dir: PathBuf,
    days: usize,
    part_bytes: u64,
    open: Option<Open>,
    lost: u64,
    /// Whether the file ends in the middle of a line.
    is_torn: bool,
}

#[derive(Debug)]
struct Open {
    part: Part,
    file: File,
    bytes: u64,
}

impl LogFiles {
    /// Logs into `dir`, which must exist, and keeps the newest `days` days with at most `day_bytes` each. Fails if the
    /// first file cannot be opened.
    pub fn open(dir: &Path, days: usize, day_bytes: u64) -> io::Result<Self> {
        let part_bytes = day_bytes / PARTS_MAX as u64;
        let mut files = Self { dir: dir.to_owned(), days, part_bytes, open: None, lost: 0, is_torn: false };
        files.make_room(&today(), 0)?;
        Ok(files)
    }

    fn write_on(&mut self, day: &str, line: &[u8]) -> io::Result<()> {
        let was_torn = self.is_torn;
        let torn: &[u8] = if was_torn { b"\n" } else { b"" };
        let open = self.make_room(day, line.len() as u64)?;
        let before = open.bytes;
        let written = open.file.write_all(torn).and_then(|()| open.file.write_all(line));
        // A disk that fills up may take only the beginning of a line.
        open.bytes = open.file.metadata().map_or(before, |metadata| metadata.len());
        self.is_torn = written.is_err() && (was_torn || open.bytes > before);
        written
    }

    /// Returns the file for a line of `line_bytes`. Old files are removed first, because the disk may be full.
    fn make_room(&mut self, day: &str, line_bytes: u64) -> io::Result<&mut Open> {
        let open = match self.open.take() {
            Some(open) => open,
            None => self.append(self.newest()?.filter(|part| *part.day >= *day), day)?,
        };
        let is_full = open.bytes > 0 && open.bytes + line_bytes > self.part_bytes;
        let next = match &open.part {
            // After the clock was set back, lines go on in the newest file.
            part if *part.day < *day => Some(Part { day: day.to_owned(), number: 0 }),
            part => is_full.then(|| part.next()),
        };
        let open = match next {
            Some(next) => self.append(Some(next), day)?,
            None => open,
        };
        Ok(self.open.insert(open))
    }

    /// Opens `part`, or the day's first file, for appending.
    fn append(&self, part: Option<Part>, day: &str) -> io::Result<Open> {
        let part = part.unwrap_or_else(|| Part { day: day.to_owned(), number: 0 });
        self.prune(&part)?;
        let file = OpenOptions::new().create(true).append(true).open(self.dir.join(part.name()))?;
        let bytes = file.metadata()?.len();
        Ok(Open { part, file, bytes })
    }

    fn newest(&self) -> io::Result<Option<Part>> {
        Ok(names(&self.dir)?.iter().filter_map(|name| Part::parse(name)).max())
    }

    /// Removes what exceeds the bounds once `part` exists.
    fn prune(&self, part: &Part) -> io::Result<()> {
        let mut parts: Vec<Part> = names(&self.dir)?.iter().filter_map(|name| Part::parse(name)).collect();
        parts.push(part.clone());
        parts.sort_by(|one, other| other.cmp(one));
        parts.dedup();
        let (mut days, mut of_day) = (0, 0);
        for (index, part) in parts.iter().enumerate() {
            if index == 0 || parts[index - 1].day != part.day {
                (days, of_day) = (days + 1, 0);
            }
            of_day += 1;
            if days > self.days || of_day > PARTS_MAX {
                fs::remove_file(self.dir.join(part.name()))?;
            }
        }
        Ok(())
    }
}

impl Write for LogFiles {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = self.write_on(&today(), line);
        // These events come back through the same writer as lines of their own, after those already queued.
        match &written {
            Ok(()) if self.lost > 0 => {
                let lines = std::mem::take(&mut self.lost);
                error!(lines, "log lines before this one were lost: they could not be written");
            }
            Ok(()) => {}
            Err(error) => {
                self.lost += 1;
                if self.lost == 1 {
                    error!(dir = %self.dir.display(), %error, "cannot write the log: lines are lost until this succeeds");
                }
            }
        }
        written.map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Today's date in UTC, like the lines' time stamps.
fn today() -> String {
    let days = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
        / DAY.as_secs();
    let seconds = i64::try_from(days * DAY.as_secs()).unwrap_or_default();
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH).date().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = b"0123456789012345678901234567890123456789012345678901234567890123456789012345678\n";
    const DAY_BYTES: u64 = 4_000;

    fn open(dir: &Path) -> LogFiles {
        let (days, part_bytes) = (3, DAY_BYTES / PARTS_MAX as u64);
        LogFiles { dir: dir.to_owned(), days, part_bytes, open: None, lost: 0, is_torn: false }
    }

    fn whole(dir: &Path) -> String {
        let read = |name: &String| fs::read_to_string(dir.join(name)).unwrap();
        names(dir).unwrap().iter().map(read).collect()
    }

    #[test]
    fn a_flood_replaces_only_older_lines_of_its_own_day() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = open(dir.path());
        for day in ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"] {
            let count = if day == "2026-01-03" { 10_000 } else { 3 };
            for number in 0..count {
                files.write_on(day, format!("{day} line {number:06}\n").as_bytes()).unwrap();
            }
            let bytes: u64 = names(dir.path())
                .unwrap()
                .iter()
                .map(|name| dir.path().join(name).metadata().unwrap().len())
                .sum();
            assert!(bytes <= 3 * DAY_BYTES, "{bytes} bytes");
        }
        let log = whole(dir.path());
        assert!(
            !log.contains("2026-01-01") && log.starts_with("2026-01-02 line 000000"),
            "three days are kept"
        );
        assert!(
            log.contains("2026-01-03 line 009999\n2026-01-04 line 000000") && log.ends_with("line 000002\n")
        );
        let lines: Vec<&str> = log.lines().collect();
        assert!(lines.is_sorted() && lines.len() > 80, "{} lines, or not in order", lines.len());
    }

    #[test]
    fn a_restart_continues_the_log_and_counts_existing_files() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..1_000 {
            let mut files = open(dir.path());
            files.write_on("2026-01-01", LINE).unwrap();
            files.write_on("2026-01-01", LINE).unwrap();
        }
        let names = names(dir.path()).unwrap();
        assert_eq!(names.len(), PARTS_MAX, "{names:?}");
        let log = whole(dir.path());
        assert!(log.len() as u64 <= DAY_BYTES && log.len() as u64 > DAY_BYTES / 2, "{} bytes", log.len());
        // A clock that is set back does not mix new lines with old ones.
        open(dir.path()).write_on("2025-12-31", b"the newest\n").unwrap();
        assert!(whole(dir.path()).ends_with("the newest\n"));
    }

    #[test]
    fn a_full_disk_loses_lines_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = open(dir.path());
        files.write_on(&today(), b"before\n").unwrap();
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let good = std::mem::replace(&mut files.open.as_mut().unwrap().file, full);
        for _ in 0..3 {
            assert!(files.write(LINE).is_err());
        }
        assert_eq!(files.lost, 3);
        // The first half of a line was written before the disk was full.
        (&good).write_all(b"half a li").unwrap();
        files.is_torn = true;
        files.open.as_mut().unwrap().file = good;
        assert_eq!(files.write(b"after\n").unwrap(), 6);
        assert_eq!((files.lost, whole(dir.path()).as_str()), (0, "before\nhalf a li\nafter\n"));
    }
}
