//! The events of a cluster in a file, so that a console that starts again still shows them.
//!
//! One file for each cluster, in the directory of the settings, a line of JSON for each event. Consoles that run side by side
//! add to the same file what each of them saw; of two equal events one is read. Lines that cannot be read are skipped.
//!
//! Bounds: [`EVENTS_MAX`] events are read. A file that has grown to twice as many is written anew when it is read.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use atomic_write_file::AtomicWriteFile;
use serde::{Deserialize, Serialize};

use super::events::{EVENTS_MAX, Event, Repeat};
use super::theme::Tone;

const FOLDER: &str = "events";
/// Of a cluster's name, in the name of its file.
const NAME_CHARACTERS_MAX: usize = 100;
/// A larger file is not one of ours.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// What an event can be of.
const KINDS: [&str; 9] =
    ["election", "member", "worker", "job", "sharing", "model", "store", "command", "console"];

/// An event as a line says it.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    at_ms: u64,
    tone: Tone,
    kind: String,
    text: String,
    repeat: Option<Repeat>,
    amount: u64,
}

impl From<&Event> for Line {
    fn from(event: &Event) -> Self {
        Self {
            at_ms: event.at_ms,
            tone: event.tone,
            kind: event.kind.to_owned(),
            text: event.text.clone(),
            repeat: event.repeat,
            amount: event.amount,
        }
    }
}

impl Line {
    fn event(self) -> Option<Event> {
        let kind = KINDS.into_iter().find(|kind| *kind == self.kind)?;
        let Self { at_ms, tone, text, repeat, amount, .. } = self;
        Some(Event { number: 0, at_ms, tone, kind, text, repeat, amount })
    }
}

/// The file of a cluster, by what it is called on screen.
pub fn file(settings: &Path, label: &str) -> PathBuf {
    let plain = |character: char| if character.is_ascii_alphanumeric() { character } else { '-' };
    let name: String = label.chars().map(plain).take(NAME_CHARACTERS_MAX).collect();
    settings.join(FOLDER).join(format!("{name}.jsonl"))
}

/// The newest events of a file, oldest first; none if there is no such file. Blocks.
pub fn read(file: &Path) -> io::Result<Vec<Event>> {
    let bytes = match fs::metadata(file) {
        Ok(found) if found.len() > FILE_BYTES_MAX => return Ok(Vec::new()),
        Ok(_) => fs::read(file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let newest = &lines[lines.len().saturating_sub(2 * EVENTS_MAX)..];
    let event = |line: &&[u8]| serde_json::from_slice::<Line>(line).ok().and_then(Line::event);
    let mut events: Vec<Event> = newest.iter().filter_map(event).collect();
    // Another console's come between this one's.
    events.sort_by_key(|event| event.at_ms);
    events.dedup_by(|next, event| (next.at_ms, &next.text) == (event.at_ms, &event.text));
    events.drain(..events.len().saturating_sub(EVENTS_MAX));
    if lines.len() >= 2 * EVENTS_MAX {
        let mut written = AtomicWriteFile::open(file)?;
        written.write_all(&encode(&events))?;
        written.commit()?;
    }
    Ok(events)
}

/// Adds events to a file, which is made if there is none. Blocks.
pub fn append(file: &Path, events: &[Event]) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    // One write, so that lines of two consoles do not mix.
    OpenOptions::new().create(true).append(true).open(file)?.write_all(&encode(events))
}

fn encode(events: &[Event]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for event in events {
        // A line can be written as JSON, and memory takes it.
        let _ = serde_json::to_writer(&mut bytes, &Line::from(event));
        bytes.push(b'\n');
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::events::Events;
    use super::*;

    fn events(range: std::ops::Range<u64>) -> Vec<Event> {
        let mut events = Events::default();
        for at_ms in range {
            events.record(at_ms, Tone::Bad, "member", format!("m{at_ms} is dead"));
        }
        events.list.into_iter().collect()
    }

    fn shown(events: &[Event]) -> Vec<&str> {
        events.iter().map(|event| event.text.as_str()).collect()
    }

    #[test]
    fn what_one_console_saw_the_next_one_reads_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path(), "lab [127.0.0.1:70]");
        assert_eq!(file, dir.path().join("events/lab--127-0-0-1-70-.jsonl"));
        assert_eq!(read(&file).unwrap(), []);
        append(&file, &events(3..5)).unwrap();
        append(&file, &events(2..5)).unwrap();
        fs::write(&file, [&fs::read(&file).unwrap()[..], b"{\"at_ms\":1\nno event\n"].concat()).unwrap();
        append(&file, &events(7..8)).unwrap();
        let found = read(&file).unwrap();
        assert_eq!(shown(&found), ["m2 is dead", "m3 is dead", "m4 is dead", "m7 is dead"]);
        assert_eq!((found[0].tone, found[0].kind, found[0].amount), (Tone::Bad, "member", 1));
    }

    #[test]
    fn what_is_read_late_comes_first_and_only_the_rest_is_new() {
        let mut shown_now = Events::default();
        shown_now.record(9, Tone::Good, "member", "m9 is up");
        let last_earlier = shown_now.restore(events(1..4));
        let new: Vec<&str> = shown_now.after(last_earlier).map(|event| event.text.as_str()).collect();
        assert_eq!(new, ["m9 is up"]);
        assert_eq!(shown_now.list[0].text, "m1 is dead");
    }

    #[test]
    fn a_long_file_is_cut_to_its_newest_events() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path(), "lab");
        (0..3).for_each(|hour| append(&file, &events(hour * 1000..(hour + 1) * 1000)).unwrap());
        let newest = || shown(&read(&file).unwrap())[0].to_owned();
        assert_eq!(newest(), "m2000 is dead");
        assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), EVENTS_MAX);
        assert_eq!(newest(), "m2000 is dead");
    }
}
