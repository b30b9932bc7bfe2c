//! `idunno shell`: reads commands, one a line, and has each carried out as on the command line.
//!
//! A command that fails does not end it. Ctrl-C ends the command that runs; `quit` and the end of the input end the
//! shell. Bound: a line has at most [`LINE_BYTES_MAX`] bytes.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use tokio::task::spawn_blocking;

use super::{DONE, carry_out, interrupted, report, write};
use crate::answer::{Exit, Failure};
use crate::command::alias::{self, Aliases};
use crate::command::line::{self, Line};
use crate::command::{MemberRef, Output};
use crate::session::Session;

const PROMPT: &str = "idunno> ";
const LINE_BYTES_MAX: u64 = 64 << 10;

/// Runs until the input ends. The exit code is that of the first command that failed, but for a person at a terminal,
/// who has seen it.
pub(super) async fn run(
    mut session: Session,
    member: Option<MemberRef>,
    aliases: &Aliases,
    output: Output,
) -> u8 {
    session.own_member = member.or_else(|| session.default_member());
    let by_hand = io::stdin().is_terminal();
    let mut first_failure = DONE;
    loop {
        let code = match next_line(by_hand).await {
            Ok(Some(text)) => match text.trim() {
                "quit" | "exit" => break,
                text => give(&session, &alias::line(aliases, text), output).await,
            },
            Ok(None) => {
                if by_hand {
                    eprintln!();
                }
                break;
            }
            Err(failure) => {
                first_failure = report(&failure, output);
                break;
            }
        };
        if first_failure == DONE {
            first_failure = code;
        }
    }
    if by_hand { DONE } else { first_failure }
}

/// Has one line carried out. Blank lines and comments are none.
async fn give(session: &Session, text: &str, output: Output) -> u8 {
    let text = text.strip_prefix("idunno ").unwrap_or(text);
    if text.is_empty() || text.starts_with('#') {
        return DONE;
    }
    match line::read(text, output, "help lists them") {
        Line::Verb { verb, output } => carry_out(session, *verb, output, false).await,
        Line::Show(help) => write(&help).map_or_else(|failure| report(&failure, output), |()| DONE),
        Line::Wrong(reason) => report(&Failure::new(Exit::Usage, reason), output),
    }
}

/// The next line, or none at the end of the input.
async fn next_line(by_hand: bool) -> Result<Option<String>, Failure> {
    prompt(by_hand);
    let mut reading = spawn_blocking(read_line);
    loop {
        tokio::select! {
            line = &mut reading => {
                return line.unwrap_or_else(|error| Err(Failure::error(error.to_string())));
            }
            // The terminal has thrown away what was typed so far.
            () = interrupted() => {
                if !by_hand {
                    return Err(Failure::new(Exit::Interrupted, "interrupted"));
                }
                eprintln!();
                prompt(by_hand);
            }
        }
    }
}

fn prompt(by_hand: bool) {
    if by_hand {
        eprint!("{PROMPT}");
        // A terminal that has gone away shows no prompt.
        let _ = io::stderr().flush();
    }
}

fn read_line() -> Result<Option<String>, Failure> {
    let wrong = |what: &str| Failure::error(format!("cannot read a command from stdin: {what}"));
    let mut bytes = Vec::new();
    let mut input = io::stdin().lock().take(LINE_BYTES_MAX);
    let count = input.read_until(b'\n', &mut bytes).map_err(|error| wrong(&error.to_string()))?;
    if bytes.len() as u64 == LINE_BYTES_MAX {
        return Err(wrong("the line is too long"));
    }
    let text = String::from_utf8(bytes).map_err(|error| wrong(&error.to_string()))?;
    Ok((count > 0).then_some(text))
}
