//! Processes of the operating system, told apart from later ones that were given the same number.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::Stdio;

use serde::{Deserialize, Serialize};

/// A process: its number and, where the system tells it, when it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number.
    pub pid: u32,
    /// Ticks from the boot to its start; `None` where the system does not tell.
    pub started: Option<u64>,
}

/// How to end a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: end in good order.
    Terminate,
    /// SIGKILL: now.
    Kill,
}

impl Identity {
    /// The process that has this number now.
    pub fn of(pid: u32) -> Self {
        Self { pid, started: stat(pid).map(|(_, started)| started) }
    }

    /// Whether it lives. A zombie does not, nor does another process under its number.
    pub fn is_alive(&self) -> bool {
        match (stat(self.pid), self.started) {
            (Some((zombie, started)), Some(known)) => !zombie && started == known,
            (Some((zombie, _)), None) => !zombie,
            (None, Some(_)) => false,
            (None, None) => exists(self.pid),
        }
    }

    /// Sends a signal, if it lives; returns whether it did.
    pub fn signal(&self, signal: Signal) -> bool {
        self.is_alive() && send(self.pid, signal)
    }
}

/// Whether the process is a zombie, and when it started, as Linux tells it: after the command's name in parentheses,
/// which may hold anything, the state is the first field and the start the twentieth (proc(5), fields 3 and 22).
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

/// Starts a program in the background, in a process group of its own, so that it outlives this program and does not
/// get the terminal's Ctrl-C. Settings in this program's environment are another cluster's, and are kept from it. Its
/// output is appended to `log`. The runtime reaps it while this program runs.
pub fn spawn(program: &Path, arguments: &[String], log: &Path) -> io::Result<tokio::process::Child> {
    let out = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_setting(name)) {
        command.env_remove(name);
    }
    #[cfg(unix)]
    command.process_group(0);
    command.spawn()
}

/// Whether a variable of the environment sets something of the daemon's, or of this program's. The folder of models is
/// the person's, not a cluster's.
fn is_setting(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"IDUNNO_") && name != "IDUNNO_MODELS_DIR"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_its_number_alone_proves_nothing() {
        let this = Identity::of(std::process::id());
        assert!(this.is_alive());
        if let Some(started) = this.started {
            let earlier = Identity { started: Some(started - 1), ..this };
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
        let identity = Identity::of(child.id().unwrap());
        assert!(identity.is_alive());
        assert!(identity.signal(Signal::Kill));
        child.wait().await.unwrap();
        assert!(!identity.is_alive());
        assert!(!identity.signal(Signal::Terminate));
    }
}
