//! The process of a supervised model server, and what it leaves behind.
//!
//! The process is the server's guard (`idunno_model_server.guard`), which kills everything below it when the server or this
//! process ends. Here is what remains to be done if the guard itself is killed: its process group dies with it, and so do
//! the orphans of another group, which the kernel hands to this process if that has asked for them ([`adopt_orphans`]).
//!
//! Bound: [`KILL_MAX`] to kill orphans; one that is stuck in the kernel is abandoned.

use std::io;
use std::process::ExitStatus;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitOptions, child_subreaper, getpid, kill_process, kill_process_group, set_child_subreaper,
    waitpid,
};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use tracing::warn;

const KILL_MAX: Duration = Duration::from_secs(10);
const KILL_ROUND: Duration = Duration::from_millis(20);

/// The children that this process had before it was this program: what a wrapper started that then executed it.
static STRANGERS: OnceLock<Vec<Pid>> = OnceLock::new();

/// Makes this process the parent of every descendant whose own parent ends. It must start no process but model servers:
/// when a server has ended, all children are killed but those that it has now.
pub fn adopt_orphans() -> io::Result<()> {
    STRANGERS.get_or_init(children);
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// A server's guard, in a process group of its own. Dropped, it kills the group.
pub(super) struct ServerProcess {
    child: Child,
    group: Option<Pid>,
}

impl ServerProcess {
    pub(super) fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command.process_group(0).kill_on_drop(true).spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self { child, group })
    }

    /// Waits for the end of the guard, and of all that it guards unless it was killed.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    pub(super) fn terminate(&self) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(id) = id
            && let Err(error) = kill_process(id, Signal::TERM)
        {
            warn!(%error, "cannot terminate the model server");
        }
    }

    /// Kills what is left of the server.
    pub(super) async fn kill(&mut self) {
        self.kill_group();
        if let Err(error) = self.child.kill().await {
            warn!(%error, "cannot kill the model server");
        }
        if child_subreaper().is_ok_and(|adopts| adopts.is_some())
            && timeout(KILL_MAX, kill_children()).await.is_err()
        {
            warn!(children = ?children(), "cannot kill what the model server left behind");
        }
    }

    /// A group that has no process left is no error, and no other process gets its number while it has one.
    fn kill_group(&mut self) {
        if let Some(group) = self.group.take() {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// Kills and reaps all children of this process, which are orphans that it adopted, and then their orphans.
async fn kill_children() {
    loop {
        let mut children = children();
        children.retain(|child| STRANGERS.get().is_none_or(|strangers| !strangers.contains(child)));
        if children.is_empty() {
            return;
        }
        for child in children {
            // It may have ended by itself.
            let _ = kill_process(child, Signal::KILL);
            let _ = waitpid(Some(child), WaitOptions::NOHANG);
        }
        sleep(KILL_ROUND).await;
    }
}

/// From `/proc`: the kernel may lack the file that lists a task's children.
fn children() -> Vec<Pid> {
    let me = getpid();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent(*pid) == Some(me)).filter_map(Pid::from_raw).collect()
}

/// The parent stands behind the command's name, which may contain anything, and the state (proc(5)).
fn parent(pid: i32) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Pid::from_raw(stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()?)
}
