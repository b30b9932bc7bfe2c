//! Follows the daily log files of daemons.
//!
//! Decides which bytes of which file are new lines. Files are named `idunnod.YYYY-MM-DD`, with a number appended on busy
//! days; the greatest name is the current file. A file is read to its end before the next one; a file that shrank is read
//! from its beginning. An unfinished last line is held back. Bounds: the first poll reads the last [`FIRST_BYTES`] of the
//! newest file, each poll at most [`POLL_BYTES_MAX`]; a line is cut at [`LINE_BYTES_MAX`].

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use idunno_shared::text::visible;
use idunno_shared::wire::logs::stamp_of;

/// The prefix of log files' names.
const PREFIX: &str = "idunnod.";
/// How much of an existing file is shown at first.
pub const FIRST_BYTES: u64 = 64 << 10;
/// The most that one poll reads.
pub const POLL_BYTES_MAX: u64 = 256 << 10;
/// The longest line; the rest is cut off.
pub const LINE_BYTES_MAX: usize = 16 << 10;

/// A line of a daemon's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// The member whose log it is.
    pub source: String,
    pub text: String,
}

/// The current log file in `dir`.
pub fn newest_log(dir: &Path) -> Option<PathBuf> {
    logs(dir).pop().map(|name| dir.join(name))
}

/// Names of log files, oldest first.
fn logs(dir: &Path) -> Vec<String> {
    let entries = dir.read_dir().into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(PREFIX))
        .collect();
    names.sort();
    names
}

/// Splits bytes into lines, holding back an unfinished last line.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
    cut: bool,
}

impl Lines {
    /// The next bytes start in the middle of a line, whose rest is dropped.
    pub fn cut(&mut self) {
        self.partial.clear();
        self.cut = true;
    }

    /// Takes bytes and appends the completed lines.
    pub fn take(&mut self, bytes: &[u8], lines: &mut Vec<String>) {
        for &byte in bytes {
            if byte == b'\n' {
                self.flush(lines);
            } else if self.partial.len() < LINE_BYTES_MAX {
                self.partial.push(byte);
            }
        }
    }

    fn flush(&mut self, lines: &mut Vec<String>) {
        let line = std::mem::take(&mut self.partial);
        let cut = std::mem::take(&mut self.cut);
        if !cut && !line.is_empty() {
            lines.push(printable(&String::from_utf8_lossy(&line)));
        }
    }
}

/// Follows the logs in one directory.
#[derive(Debug)]
pub struct Follower {
    dir: PathBuf,
    file: Option<(String, u64)>,
    held: Lines,
}

impl Follower {
    /// Follows `dir`, which need not exist yet.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, file: None, held: Lines::default() }
    }

    /// Returns the lines logged since the last poll. It reads the disk, so the task that draws must not call it.
    pub fn poll(&mut self) -> Vec<String> {
        let names = logs(&self.dir);
        let mut lines = Vec::new();
        if self.file.is_none() {
            let Some(newest) = names.last() else { return lines };
            let length = self.dir.join(newest).metadata().map_or(0, |metadata| metadata.len());
            let start = length.saturating_sub(FIRST_BYTES);
            // Most likely the middle of a line, whose rest is dropped.
            self.held.cut = start > 0;
            self.file = Some((newest.clone(), start));
        }
        let mut budget = POLL_BYTES_MAX;
        while let Some((name, offset)) = self.file.clone() {
            let (read, ended) = self.read(&name, offset, budget, &mut lines).unwrap_or((0, true));
            budget -= read.min(budget);
            let next = names.iter().find(|other| **other > name);
            match next {
                Some(next) if ended && budget > 0 => {
                    self.held.flush(&mut lines);
                    self.file = Some((next.clone(), 0));
                }
                _ => break,
            }
        }
        lines
    }

    /// Reads a file from `offset`. Returns how many bytes it read, and whether it reached the end.
    fn read(
        &mut self,
        name: &str,
        offset: u64,
        budget: u64,
        lines: &mut Vec<String>,
    ) -> io::Result<(u64, bool)> {
        let mut file = File::open(self.dir.join(name))?;
        let length = file.metadata()?.len();
        let offset = if length < offset {
            self.held = Lines::default();
            0
        } else {
            offset
        };
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(budget).read_to_end(&mut bytes)?;
        let read = bytes.len() as u64;
        self.file = Some((name.to_owned(), offset + read));
        self.held.take(&bytes, lines);
        Ok((read, offset + read >= length))
    }
}

/// A line as the terminal may get it: blanks for tabs, and escapes for what it would obey or not show.
pub fn printable(line: &str) -> String {
    visible(&line.replace('\t', "    ")).into_owned()
}

/// Merges the lines of several logs by time stamp; a line without one stays after the line before it.
pub fn merged(lines: Vec<LogLine>) -> Vec<LogLine> {
    let mut stamp = String::new();
    let mut stamped: Vec<(String, LogLine)> = Vec::with_capacity(lines.len());
    for line in lines {
        if let Some(start) = stamp_of(&line.text) {
            start.clone_into(&mut stamp);
        }
        stamped.push((stamp.clone(), line));
    }
    stamped.sort_by(|a, b| a.0.cmp(&b.0));
    stamped.into_iter().map(|(_, line)| line).collect()
}
