//! Asks on the terminal before a command destroys something. Elsewhere such a command needs its option.

use std::io::{self, BufRead, IsTerminal, Write};

use tokio::task::spawn_blocking;

use crate::answer::{Answer, Exit, Failure};
use crate::command::Verb;
use crate::execute;
use crate::session::Session;

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 1 << 10;

/// Runs a command, once more if it was not confirmed and the person at the terminal confirms it.
pub(super) async fn run(session: &Session, mut verb: Verb) -> Result<Answer, Failure> {
    let unconfirmed = match execute::run(session, verb.clone()).await {
        Err(failure) if failure.confirmed_by.is_some() && is_dialog() => failure,
        done => return done,
    };
    let asked = spawn_blocking(move || ask(&unconfirmed.message)).await;
    if !asked.map_err(io::Error::from).flatten().map_err(|error| Failure::error(error.to_string()))? {
        return Err(Failure::new(Exit::Refused, "not confirmed"));
    }
    verb.confirm();
    execute::run(session, verb).await
}

fn is_dialog() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Whether a person wants to go on.
fn ask(what: &str) -> io::Result<bool> {
    write!(io::stderr(), "{what}: go on? [y/N] ")?;
    io::stderr().flush()?;
    let mut answer = String::new();
    io::Read::take(io::stdin().lock(), ANSWER_BYTES_MAX).read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
