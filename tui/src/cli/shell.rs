//! `idunno shell`: reads commands, one per line, and runs each as the command line would.
//!
//! A failed command does not end the shell. Ctrl-C ends the running command; `quit` or the end of the input ends the shell.
//! Bound: a line has at most [`LINE_BYTES_MAX`] bytes.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use tokio::task::spawn_blocking;

use super::output::{report, write};
use super::{DONE, asked_to_stop, run_command};
use crate::answer::{Exit, Failure};
use crate::command::alias::{self, Aliases};
use crate::command::line::{self, Line};
use crate::command::{MemberRef, Output};
use crate::session::Session;

const PROMPT: &str = "idunno> ";
const LINE_BYTES_MAX: u64 = 64 << 10;

/// Runs until the input ends. The exit code is that of the first failed command, or 0 at a terminal, where the person has
/// seen the failure.
pub(super) async fn run(
    mut session: Session,
    member: Option<MemberRef>,
    aliases: &Aliases,
    output: Output,
) -> u8 {
    session.own_member = member.or_else(|| session.default_member());
    let is_terminal = io::stdin().is_terminal();
    let mut first_failure = DONE;
    loop {
        let code = match next_line(is_terminal).await {
            Ok(Some(text)) => match text.trim() {
                "quit" | "exit" => break,
                text => run_line(&session, &alias::line(aliases, text), output).await,
            },
            Ok(None) => {
                if is_terminal {
                    end_line();
                }
                break;
            }
            Err(failure) if failure.exit == Exit::Terminated => return report(&failure, output),
            Err(failure) => {
                first_failure = report(&failure, output);
                break;
            }
        };
        if code == Exit::Terminated as u8 {
            return code;
        }
        if first_failure == DONE {
            first_failure = code;
        }
    }
    if is_terminal { DONE } else { first_failure }
}

/// Runs one line. Blank lines and comments do nothing.
async fn run_line(session: &Session, text: &str, output: Output) -> u8 {
    let text = text.strip_prefix("idunno ").unwrap_or(text);
    if text.is_empty() || text.starts_with('#') {
        return DONE;
    }
    match line::read(text, output, "'help' lists the commands") {
        Line::Verb { verb, output } => run_command(session, *verb, output, false).await,
        Line::Show(help) => write(&help).map_or_else(|failure| report(&failure, output), |()| DONE),
        Line::Invalid(reason) => report(&Failure::new(Exit::Usage, reason), output),
    }
}

/// Reads the next line, or `None` at the end of the input.
async fn next_line(is_terminal: bool) -> Result<Option<String>, Failure> {
    prompt(is_terminal);
    let mut reading = spawn_blocking(read_line);
    loop {
        tokio::select! {
            line = &mut reading => {
                return line.unwrap_or_else(|error| Err(Failure::error(error.to_string())));
            }
            exit = asked_to_stop() => {
                if !is_terminal || exit == Exit::Terminated {
                    return Err(Failure::new(exit, exit.word()));
                }
                // The terminal has discarded the unfinished line.
                end_line();
                prompt(is_terminal);
            }
        }
    }
}

fn prompt(is_terminal: bool) {
    if is_terminal {
        // A terminal that has gone away shows no prompt.
        let _ = write!(io::stderr(), "{PROMPT}").and_then(|()| io::stderr().flush());
    }
}

fn end_line() {
    let _ = writeln!(io::stderr());
}

fn read_line() -> Result<Option<String>, Failure> {
    let wrong = |what: &str| Failure::error(format!("cannot read a command from stdin: {what}"));
    let mut bytes = Vec::new();
    let mut input = io::stdin().lock().take(LINE_BYTES_MAX);
    let count = input.read_until(b'\n', &mut bytes).map_err(|error| wrong(&error.to_string()))?;
    if bytes.len() as u64 == LINE_BYTES_MAX {
        return Err(wrong(&format!("the line has more than {LINE_BYTES_MAX} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|error| wrong(&error.to_string()))?;
    Ok((count > 0).then_some(text))
}
