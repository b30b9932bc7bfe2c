//! What the command line writes: data to standard output, everything else to standard error.
//!
//! What cannot be written to standard error is lost: a command must not fail, after its work is done, because nobody
//! reads its remarks.

use std::io::{self, IsTerminal, Write};

use idunno_shared::text::{visible_json, visible_lines};

use super::DONE;
use crate::answer::{Answer, Data, Exit, Failure};
use crate::command::Output;

/// Writes to standard output.
pub(super) fn write(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::pipe_closed(),
        _ => Failure::error(format!("cannot write to stdout: {error}")),
    })
}

/// The columns of the terminal that standard output is, if it is one.
pub(super) fn terminal_width() -> Option<usize> {
    let size = crossterm::terminal::size().ok().filter(|_| io::stdout().is_terminal());
    size.map(|(width, _)| usize::from(width)).filter(|width| *width > 0)
}

/// Writes rows of results. A terminal gets escapes in place of what it would obey, and a program the rows as they are.
pub(super) fn write_rows(rows: &str) -> Result<(), Failure> {
    if io::stdout().is_terminal() { write(&visible_json(rows)) } else { write(rows) }
}

/// Writes a line to standard error.
pub(super) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{}", visible_lines(line));
}

/// Writes an answer, and returns the exit code.
pub(super) fn print(answer: &Answer, output: Output) -> u8 {
    let text = answer.rendered_within(output, terminal_width());
    let written = if answer.data == Data::Lines { write_rows(&text) } else { write(&text) };
    if let Err(failure) = written {
        return if failure == Failure::pipe_closed() { DONE } else { report(&failure, output) };
    }
    if let Some(note) = answer.note.as_deref().filter(|_| !output.is_json()) {
        say(&format!("note: {note}"));
    }
    match &answer.incomplete {
        None => DONE,
        Some(why) => {
            note(why, output);
            Exit::Partial as u8
        }
    }
}

/// Writes a failure to standard error, and returns its exit code.
pub(super) fn report(failure: &Failure, output: Output) -> u8 {
    if output.is_json() {
        say(&failure.json());
    } else {
        say(&format!("error: {failure}"));
    }
    failure.exit as u8
}

/// Writes a remark to standard error.
pub(super) fn note(why: &str, output: Output) {
    if output.is_json() {
        say(&Failure::new(Exit::Partial, why).json());
    } else {
        say(&format!("note: {why}"));
    }
}
