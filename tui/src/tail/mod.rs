//! Follows the daily log files of daemons.
//!
//! Decides which bytes of which file are new lines. Files are named `idunnod.YYYY-MM-DD`, and with a number behind that
//! on a day with much to tell: the greatest name is the one that is written. An older file is read to its end before the next is begun; a
//! file that shrank is begun again. Bounds: the first look reads the last [`FIRST_BYTES`] of the newest file, every
//! look at most [`LOOK_BYTES_MAX`], a line is cut at [`LINE_BYTES_MAX`]. It holds an unfinished last line back.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anstream::adapter::strip_str;
use idunno_shared::wire::logs::stamp_of;

/// How the names of log files start.
const PREFIX: &str = "idunnod.";
/// How much of a file is shown that was there before.
pub const FIRST_BYTES: u64 = 64 << 10;
/// The most that one look reads of one file.
pub const LOOK_BYTES_MAX: u64 = 256 << 10;
/// The longest line, in bytes; more is cut off.
pub const LINE_BYTES_MAX: usize = 16 << 10;

/// A line of a daemon's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Whose log.
    pub source: String,
    /// What it says.
    pub text: String,
}

/// The log file in `dir` that is written now.
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

/// Makes lines of bytes. It holds an unfinished last line back.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
    cut: bool,
}

impl Lines {
    /// What comes next begins in the middle of a line: what is left of it is not shown.
    pub fn cut(&mut self) {
        self.partial.clear();
        self.cut = true;
    }

    /// Takes bytes; appends the lines that are whole.
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

/// Follows one directory.
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

    /// The lines that have come since the last look. Reads the disk: not for the task that draws.
    pub fn look(&mut self) -> Vec<String> {
        let names = logs(&self.dir);
        let mut lines = Vec::new();
        if self.file.is_none() {
            let Some(newest) = names.last() else { return lines };
            let length = self.dir.join(newest).metadata().map_or(0, |metadata| metadata.len());
            let start = length.saturating_sub(FIRST_BYTES);
            // In the middle of a line, most likely: what is left of it is not shown.
            self.held.cut = start > 0;
            self.file = Some((newest.clone(), start));
        }
        let mut budget = LOOK_BYTES_MAX;
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

    /// Reads on in a file; how many bytes, and whether up to its end.
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

/// A line without escape sequences and control characters, which would change the terminal.
pub fn printable(line: &str) -> String {
    let mut clean = String::with_capacity(line.len());
    for c in strip_str(line).flat_map(str::chars) {
        match c {
            '\t' => clean.push_str("    "),
            c if c.is_control() => {}
            c => clean.push(c),
        }
    }
    clean
}

/// Lines of several logs in the order of their timestamps; lines without one stay behind the line before them.
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
