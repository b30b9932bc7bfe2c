//! The files of the audit: `audit.000001.jsonl` and so on, the newest last.
//!
//! A file that is full is followed by the next, whose first line continues the chain and says with which line the oldest
//! file that is kept begins. So an old file that is missing without that was removed by somebody else.
//!
//! Bounds: [`FILES_MAX`] files of about [`FILE_BYTES_MAX`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::chain::{Head, Link};
use super::{AuditError, AuditEvent};

/// Files that are kept.
pub(super) const FILES_MAX: usize = 16;
/// A file of this size is followed by another.
pub(super) const FILE_BYTES_MAX: u64 = 8 << 20;
const PREFIX: &str = "audit.";
const SUFFIX: &str = ".jsonl";

/// The audit's files in a directory with their numbers, oldest first.
pub(super) fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in dir.read_dir()? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok());
        found.extend(number.map(|number| (number, path)));
    }
    found.sort();
    Ok(found)
}

/// Appends to the audit.
#[derive(Debug)]
pub(super) struct AuditFiles {
    dir: PathBuf,
    number: u64,
    file: File,
    bytes: u64,
    head: Head,
    /// Events that could not be written since the last one that was.
    lost: u64,
    /// [`FILE_BYTES_MAX`], unless a test makes it smaller.
    pub(super) file_bytes_max: u64,
}

impl AuditFiles {
    pub(super) fn open(dir: &Path) -> Result<Self, AuditError> {
        let failed = |source| AuditError::Open { path: dir.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let newest = list(dir).map_err(failed)?.pop();
        let (number, path) = newest.unwrap_or_else(|| (1, path_of(dir, 1)));
        let file = open(&path).map_err(failed)?;
        let (head, whole) = if file.metadata().map_err(failed)?.len() == 0 {
            (last_of_file_before(dir, number)?, 0)
        } else {
            last(&path)?
        };
        let torn = file.metadata().map_err(failed)?.len() - whole;
        file.set_len(whole).map_err(failed)?;
        sync_directory(dir).map_err(failed)?;
        let (lost, file_bytes_max) = (0, FILE_BYTES_MAX);
        let mut files = Self { dir: dir.to_owned(), number, file, bytes: whole, head, lost, file_bytes_max };
        if torn > 0 {
            files.write(&[&AuditEvent::Repaired { bytes: torn }]).map_err(failed)?;
        }
        Ok(files)
    }

    /// Counts events that never reached these files.
    pub(super) fn add_lost(&mut self, events: u64) {
        self.lost += events;
    }

    /// Writes events, and flushes them. On failure none of them counts as written.
    pub(super) fn write(&mut self, events: &[&AuditEvent]) -> io::Result<()> {
        let written = self.try_write(events);
        match &written {
            Ok(()) => self.lost = 0,
            Err(_) => self.lost += events.len() as u64,
        }
        written
    }

    fn try_write(&mut self, events: &[&AuditEvent]) -> io::Result<()> {
        if self.bytes >= self.file_bytes_max {
            self.rotate()?;
        }
        let lost = (self.lost > 0)
            .then(|| AuditEvent::Lost { events: self.lost, why: String::from("the disk took none") });
        let (mut head, at) = (self.head, now());
        let mut text = String::new();
        for event in lost.iter().chain(events.iter().copied()) {
            text.push_str(&head.append(event, &at)?);
        }
        self.append(&text, head)
    }

    /// Puts a full disk in the file's place, and returns the file.
    #[cfg(test)]
    pub(super) fn fail(&mut self) -> File {
        std::mem::replace(&mut self.file, OpenOptions::new().write(true).open("/dev/full").unwrap())
    }

    #[cfg(test)]
    pub(super) fn restore(&mut self, file: File) {
        self.file = file;
    }

    fn append(&mut self, text: &str, head: Head) -> io::Result<()> {
        // What an earlier attempt left is written over.
        self.file.set_len(self.bytes)?;
        self.file.seek(SeekFrom::Start(self.bytes))?;
        self.file.write_all(text.as_bytes())?;
        self.file.sync_data()?;
        self.bytes += text.len() as u64;
        self.head = head;
        Ok(())
    }

    /// Begins the next file, and removes those that exceed the bound.
    fn rotate(&mut self) -> io::Result<()> {
        let mut kept = list(&self.dir)?;
        let excess = (kept.len() + 1).saturating_sub(FILES_MAX);
        let removed: Vec<PathBuf> = kept.drain(..excess).map(|(_, path)| path).collect();
        let kept_from = kept.first().map_or(Ok(self.head.seq + 1), |(_, path)| first_seq(path))?;
        let (number, mut head) = (self.number + 1, self.head);
        let text = head.append(&AuditEvent::Rotated { kept_from }, &now())?;
        let file = open(&path_of(&self.dir, number))?;
        let before = std::mem::replace(&mut self.file, file);
        let bytes = std::mem::replace(&mut self.bytes, 0);
        if let Err(error) = self.append(&text, head) {
            (self.file, self.bytes) = (before, bytes);
            return Err(error);
        }
        self.number = number;
        sync_directory(&self.dir)?;
        removed.iter().try_for_each(fs::remove_file)
    }
}

fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{number:06}{SUFFIX}"))
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)
}

fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// The chain's end before an empty file, which a crash left as it began.
fn last_of_file_before(dir: &Path, number: u64) -> Result<Head, AuditError> {
    let before = path_of(dir, number.saturating_sub(1));
    if before.exists() { last(&before).map(|(head, _)| head) } else { Ok(Head::default()) }
}

/// The last whole line of a file, and where it ends.
fn last(path: &Path) -> Result<(Head, u64), AuditError> {
    let failed = |source| AuditError::Open { path: path.to_owned(), source };
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let (mut line, mut newest, mut end) = (Vec::new(), Vec::new(), 0);
    while reader.read_until(b'\n', &mut line).map_err(failed)? > 0 && line.last() == Some(&b'\n') {
        end += line.len() as u64;
        line.pop();
        std::mem::swap(&mut newest, &mut line);
        line.clear();
    }
    if newest.is_empty() {
        return last_of_file_before_path(path).map(|head| (head, end));
    }
    match Link::read(&newest) {
        Ok(link) => Ok((Head::after(&link, &newest), end)),
        Err(error) => {
            let why = format!("its last line is no event: {error}");
            Err(AuditError::Damaged { path: path.to_owned(), why })
        }
    }
}

fn last_of_file_before_path(path: &Path) -> Result<Head, AuditError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let number = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX)?.parse().ok());
    last_of_file_before(path.parent().unwrap_or_else(|| Path::new(".")), number.unwrap_or(0))
}

fn first_seq(path: &Path) -> io::Result<u64> {
    let mut line = Vec::new();
    BufReader::new(File::open(path)?).read_until(b'\n', &mut line)?;
    Ok(Link::read(line.trim_ascii_end())?.seq)
}
