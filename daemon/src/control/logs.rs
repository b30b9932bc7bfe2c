//! A member's own log in pages, for consoles on other machines.
//!
//! File names sort by age, so the greatest name is the newest. A file is read to its end before the next one; a file that
//! was pruned is followed by the next one. Bounds: a page has [`LOG_PAGE_BYTES_MAX`]; only log files are opened.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use idunno_shared::wire::control::{LogCursor, LogPage};
use idunno_shared::wire::logs::LOG_PAGE_BYTES_MAX;
use idunno_shared::wire::refusal::Refusal;

use crate::runtime::log_files::{LOG_PREFIX, names};

/// The page of the log after a position; without one, the end of the newest file.
pub(super) fn page(dir: &Path, after: Option<LogCursor>) -> Result<LogPage, Refusal> {
    let unreadable = |error: io::Error| Refusal::internal(format!("cannot read the log: {error}"));
    let names = names(dir).map_err(unreadable)?;
    let Some(newest) = names.last() else { return Err(Refusal::not_found("this member has no log yet")) };
    let cursor = after.filter(|cursor| cursor.file.starts_with(LOG_PREFIX));
    let Some(LogCursor { file, offset }) = cursor else {
        let length = dir.join(newest).metadata().map_err(unreadable)?.len();
        let start = length.saturating_sub(LOG_PAGE_BYTES_MAX);
        return read(dir, newest, start, start > 0).map_err(unreadable);
    };
    let page = if names.contains(&file) {
        read(dir, &file, offset, false).map_err(unreadable)?
    } else {
        empty(&file, offset)
    };
    let next = names.iter().find(|name| **name > page.end.file);
    match next {
        Some(next) if page.bytes.is_empty() => read(dir, next, 0, false).map_err(unreadable),
        _ => Ok(page),
    }
}

fn empty(name: &str, offset: u64) -> LogPage {
    LogPage { end: LogCursor { file: name.to_owned(), offset }, cut: false, bytes: Vec::new() }
}

/// Reads a page from an offset; a file that shrank is read from its beginning.
fn read(dir: &Path, name: &str, offset: u64, cut: bool) -> io::Result<LogPage> {
    let mut file = match File::open(dir.join(name)) {
        // It was pruned since its name was listed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(empty(name, offset)),
        opened => opened?,
    };
    let offset = if file.metadata()?.len() < offset { 0 } else { offset };
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(LOG_PAGE_BYTES_MAX).read_to_end(&mut bytes)?;
    let end = LogCursor { file: name.to_owned(), offset: offset + bytes.len() as u64 };
    Ok(LogPage { end, cut, bytes })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn pages_continue_past_midnight() {
        let dir = tempfile::tempdir().unwrap();
        assert!(page(dir.path(), None).is_err());
        fs::write(dir.path().join("idunnod.2026-01-01"), "one\n").unwrap();
        let first = page(dir.path(), None).unwrap();
        assert_eq!((&first.bytes[..], first.cut), (&b"one\n"[..], false));
        fs::write(dir.path().join("idunnod.2026-01-01"), "one\ntwo\n").unwrap();
        fs::write(dir.path().join("idunnod.2026-01-02"), "three\n").unwrap();
        let second = page(dir.path(), Some(first.end)).unwrap();
        assert_eq!(&second.bytes[..], b"two\n");
        let third = page(dir.path(), Some(second.end)).unwrap();
        assert_eq!(&third.bytes[..], b"three\n");
        assert!(page(dir.path(), Some(third.end.clone())).unwrap().bytes.is_empty());
        // A flood of lines: the file read last was pruned, and two others were written.
        fs::remove_file(dir.path().join("idunnod.2026-01-02")).unwrap();
        fs::write(dir.path().join("idunnod.2026-01-02.000009"), "four\n").unwrap();
        fs::write(dir.path().join("idunnod.2026-01-02.000010"), "five\n").unwrap();
        let fourth = page(dir.path(), Some(third.end)).unwrap();
        assert_eq!(&fourth.bytes[..], b"four\n");
        assert_eq!(&page(dir.path(), Some(fourth.end)).unwrap().bytes[..], b"five\n");
    }

    #[test]
    fn a_long_file_starts_near_its_end_and_other_files_are_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let long = vec![b'x'; 2 * usize::try_from(LOG_PAGE_BYTES_MAX).unwrap()];
        fs::write(dir.path().join("idunnod.2026-01-01"), &long).unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        let cursor = LogCursor { file: String::from("../logs/secret"), offset: 0 };
        let page = page(dir.path(), Some(cursor)).unwrap();
        assert!(
            page.cut
                && page.bytes.len() as u64 == LOG_PAGE_BYTES_MAX
                && page.end.file.starts_with(LOG_PREFIX)
        );
    }
}
