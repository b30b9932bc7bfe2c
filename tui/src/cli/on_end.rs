//! `start-job --wait --on-end COMMAND`: what a person wants done on this machine when the jobs have ended.

use tokio::process::Command;

use crate::answer::{Answer, Exit, Failure};
use crate::command::Verb;
use crate::execute;
use crate::session::Session;

/// Starts the jobs, waits for their end, and then has the shell run `command`, whatever the end is. `IDUNNO_EXIT` in its
/// environment is the exit code that this program would have. Its output goes to standard error: standard output has the
/// answer.
pub(super) async fn run(session: &Session, verb: Verb, command: &str) -> Result<Answer, Failure> {
    let ended = execute::run(session, verb).await;
    let code = match &ended {
        Ok(answer) => answer.incomplete.as_ref().map_or(0, |_| Exit::Partial as u8),
        Err(failure) if matches!(failure.exit, Exit::Partial | Exit::Timeout) => failure.exit as u8,
        // Nothing has begun.
        Err(_) => return ended,
    };
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).env("IDUNNO_EXIT", code.to_string()).stdout(std::io::stderr());
    let failed =
        |reason: String| Failure::new(Exit::Partial, format!("the command of --on-end {reason}: {command}"));
    let status = shell.status().await.map_err(|error| failed(format!("cannot be run ({error})")))?;
    match ended {
        Ok(_) if !status.success() => Err(failed(format!("ended with {status}"))),
        ended => ended,
    }
}
