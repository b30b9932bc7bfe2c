//! Operating system processes, distinguished from later ones with the same pid.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::Stdio;

use serde::{Deserialize, Serialize};

/// A process: its pid and, if the system provides it, its start time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    pub pid: u32,
    /// Clock ticks from boot to the start of the process.
    pub started: Option<u64>,
}

/// How to end a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: shut down gracefully.
    Terminate,
    /// SIGKILL: end at once.
    Kill,
}

impl ProcessIdentity {
    /// The process that has this pid now.
    pub fn of(pid: u32) -> Self {
        Self { pid, started: stat(pid).map(|(_, started)| started) }
    }

    /// Whether the process is alive. A zombie is not, and neither is another process with the same pid.
    pub fn is_alive(&self) -> bool {
        match (stat(self.pid), self.started) {
            (Some((zombie, started)), Some(known)) => !zombie && started == known,
            (Some((zombie, _)), None) => !zombie,
            (None, Some(_)) => false,
            (None, None) => exists(self.pid),
        }
    }

    /// Signals the process if it is alive; returns whether the signal was sent.
    pub fn signal(&self, signal: Signal) -> bool {
        self.is_alive() && send(self.pid, signal)
    }
}

/// Whether the process is a zombie, and when it started, from Linux' `/proc`. After the command's name, which is in
/// parentheses and may contain anything, the state is the first field and the start time the twentieth (proc(5), fields 3
/// and 22).
fn stat(pid: u32) -> Option<(bool, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    Some((matches!(state, "Z" | "X"), started))
}

#[cfg(unix)]
fn exists(pid: u32) -> bool {
    let id = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    id.is_some_and(|id| rustix::process::test_kill_process(id).is_ok())
}

#[cfg(unix)]
fn send(pid: u32, signal: Signal) -> bool {
    let signal = match signal {
        Signal::Terminate => rustix::process::Signal::TERM,
        Signal::Kill => rustix::process::Signal::KILL,
    };
    let id = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    id.is_some_and(|id| rustix::process::kill_process(id, signal).is_ok())
}

#[cfg(not(unix))]
fn exists(_pid: u32) -> bool {
    false
}

#[cfg(not(unix))]
fn send(_pid: u32, _signal: Signal) -> bool {
    false
}

/// Starts a program in the background, in its own process group, so that it outlives this program and does not receive the
/// terminal's Ctrl-C. IDunno's settings in this program's environment may be for another cluster and are not passed on. The
/// output is appended to `log`. The runtime reaps the process while this program runs.
pub fn spawn(program: &Path, arguments: &[String], log: &Path) -> io::Result<tokio::process::Child> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let out = options.open(log)?;
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_setting(name)) {
        command.env_remove(name);
    }
    #[cfg(unix)]
    command.process_group(0);
    command.spawn()
}

/// Whether an environment variable is a setting of the daemon or of this program. The folders of models and of their data
/// belong to the user, not to a cluster.
fn is_setting(name: &OsStr) -> bool {
    let is_users = name == "IDUNNO_MODELS_DIR" || name == "IDUNNO_MODEL_DATA";
    name.as_encoded_bytes().starts_with(b"IDUNNO_") && !is_users
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_alone_does_not_identify_a_process() {
        let this = ProcessIdentity::of(std::process::id());
        assert!(this.is_alive());
        if let Some(started) = this.started {
            let earlier = ProcessIdentity { started: Some(started - 1), ..this };
            assert!(!earlier.is_alive());
            assert!(!earlier.signal(Signal::Kill));
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_killed_process_is_dead_even_before_it_is_reaped() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut child = spawn(Path::new("sleep"), &[String::from("600")], &log).unwrap();
        let identity = ProcessIdentity::of(child.id().unwrap());
        assert!(identity.is_alive());
        assert!(identity.signal(Signal::Kill));
        child.wait().await.unwrap();
        assert!(!identity.is_alive());
        assert!(!identity.signal(Signal::Terminate));
    }
}
