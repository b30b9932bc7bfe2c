//! `start-job --wait --on-end COMMAND`: what a person wants done on this machine when the jobs have ended.

use tokio::process::Command;

use crate::answer::{Answer, Exit, Failure};

/// Has the shell run `command`, if there is one, after the wait for jobs, whatever their end is. `IDUNNO_EXIT` in its environment
/// is the exit code that this program would have. Its output goes to standard error: standard output has the answer.
pub(super) async fn run(ended: Result<Answer, Failure>, command: Option<String>) -> Result<Answer, Failure> {
    let Some(command) = command else { return ended };
    let code = match &ended {
        Ok(answer) => answer.incomplete.as_ref().map_or(0, |_| Exit::Partial as u8),
        Err(failure) if matches!(failure.exit, Exit::Partial | Exit::Timeout) => failure.exit as u8,
        // Nothing has begun.
        Err(_) => return ended,
    };
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &command]).env("IDUNNO_EXIT", code.to_string()).stdout(std::io::stderr());
    let failed =
        |reason: String| Failure::new(Exit::Partial, format!("the command of --on-end {reason}: {command}"));
    let status = shell.status().await.map_err(|error| failed(format!("cannot be run ({error})")))?;
    match ended {
        Ok(_) if !status.success() => Err(failed(format!("ended with {status}"))),
        ended => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ran(ended: Result<Answer, Failure>, command: &str) -> (Result<Answer, Failure>, Option<String>) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("code");
        let command = format!("printf %s \"$IDUNNO_EXIT\" >'{}'; {command}", file.display());
        let done = run(ended, Some(command)).await;
        (done, std::fs::read_to_string(file).ok())
    }

    #[tokio::test]
    async fn the_command_runs_whatever_the_end_is_and_only_if_something_began() {
        let (done, code) = ran(Ok(Answer::default()), "true").await;
        assert!(done.is_ok() && code.as_deref() == Some("0"));
        let (done, code) = ran(Ok(Answer::default().incomplete("all failed")), "true").await;
        assert!(done.is_ok() && code.as_deref() == Some("7"));
        let paused = || Err(Failure::new(Exit::Partial, "job-1 is paused"));
        let (done, code) = ran(paused(), "true").await;
        assert_eq!((done.err(), code.as_deref()), (paused().err(), Some("7")));
        let (done, code) = ran(Err(Failure::new(Exit::NotFound, "no job")), "true").await;
        assert!(done.is_err() && code.is_none());
        let (done, _) = ran(Ok(Answer::default()), "exit 3").await;
        assert!(done.unwrap_err().message.contains("exit status: 3"));
    }
}
