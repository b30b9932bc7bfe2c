//! A daemon process that can be started, signalled, killed, and restarted at the same address.

use std::fs::{self, OpenOptions};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use idunno_shared::ids::NodeId;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::sandbox::links::Endpoint;
use crate::sandbox::network::command_within;
use crate::wait::eventually;

const PORT: u16 = 7401;
const START_LIMIT: Duration = Duration::from_secs(30);

/// The contents of `runtime.json` as far as they are used here.
#[derive(Deserialize)]
struct Runtime {
    pid: u32,
    node: Option<String>,
}

/// A daemon, and everything needed to restart it.
pub(crate) struct Daemon {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) data_dir: PathBuf,
    program: PathBuf,
    arguments: Vec<String>,
    /// The network namespace it runs in; `None` for the driver's.
    within: Option<Endpoint>,
    faults_dir: PathBuf,
    stderr: PathBuf,
    child: Option<Child>,
}

/// How to start a daemon.
pub(crate) struct DaemonSpec<'a> {
    pub(crate) name: &'a str,
    pub(crate) program: &'a Path,
    pub(crate) arguments: Vec<String>,
    pub(crate) endpoint: Endpoint,
    /// Whether each daemon has its own network namespace.
    pub(crate) has_network: bool,
    pub(crate) data_dir: PathBuf,
    /// Where it looks for faults that it is to show.
    pub(crate) faults_dir: PathBuf,
    pub(crate) stderr: PathBuf,
}

impl Daemon {
    /// Chooses the address; does not start the process.
    pub(crate) fn new(spec: DaemonSpec<'_>) -> anyhow::Result<Self> {
        let DaemonSpec { name, program, arguments, endpoint, has_network, data_dir, faults_dir, stderr } =
            spec;
        let address = if has_network {
            SocketAddr::new(IpAddr::V4(endpoint.address()), PORT)
        } else {
            // The port is free now. The system hands it out again only after all other ports.
            TcpListener::bind("127.0.0.1:0")?.local_addr()?
        };
        let (name, program) = (name.to_owned(), program.to_owned());
        let within = has_network.then_some(endpoint);
        Ok(Self { name, address, data_dir, program, arguments, within, faults_dir, stderr, child: None })
    }

    /// Starts the process and does not wait for it.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.data_dir)?;
        let stderr = OpenOptions::new().create(true).append(true).open(&self.stderr)?;
        let mut command = match self.within {
            Some(endpoint) => command_within(endpoint, &self.program),
            None => Command::new(&self.program),
        };
        command.args(&self.arguments[..1]).args(["--listen", &self.address.to_string()]);
        command.arg("--data-dir").arg(&self.data_dir).args(&self.arguments[1..]);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("IDUNNO_") {
                command.env_remove(variable);
            }
        }
        command.env("IDUNNO_FAULTS_DIR", &self.faults_dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        self.child = Some(command.spawn().with_context(|| format!("{} cannot be started", self.name))?);
        Ok(())
    }

    /// Waits until it listens; returns the member's id, or `None` for the introducer.
    pub(crate) async fn listening(&mut self) -> anyhow::Result<Option<NodeId>> {
        let name = self.name.clone();
        let started = eventually(START_LIMIT, async || match (self.runtime(), self.exit_status()?) {
            (Some(runtime), _) => Ok(Ok(runtime.node)),
            (None, Some(status)) => Ok(Err(status)),
            (None, None) => Err(String::from("it does not listen")),
        });
        let node = match started.await {
            Ok(Ok(node)) => node,
            Ok(Err(status)) => bail!("{name} ended at once ({status}): {}", self.last_error_line()),
            Err(missing) => bail!("{name} did not start: {missing}: {}", self.last_error_line()),
        };
        node.map(|node| Ok(NodeId(u64::from_str_radix(&node, 16)?))).transpose()
    }

    /// The runtime file, if this very process wrote it.
    fn runtime(&self) -> Option<Runtime> {
        let text = fs::read(self.data_dir.join("runtime.json")).ok()?;
        let runtime: Runtime = serde_json::from_slice(&text).ok()?;
        (Some(runtime.pid) == self.child.as_ref().map(Child::id)).then_some(runtime)
    }

    /// The exit status, if the process has ended by itself.
    pub(crate) fn exit_status(&mut self) -> Result<Option<ExitStatus>, String> {
        let Some(child) = self.child.as_mut() else { return Ok(None) };
        child.try_wait().map_err(|error| error.to_string())
    }

    /// Sends a signal, if it runs.
    pub(crate) fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        if self.exit_status().map_err(anyhow::Error::msg)?.is_none()
            && let Some(pid) = self.pid()
        {
            kill_process(pid, signal)?;
        }
        Ok(())
    }

    /// Has its renames of blobs hang, or ends that.
    pub(crate) fn hang_renames(&self, hang: bool) -> anyhow::Result<()> {
        let file = self.faults_dir.join("hang-rename");
        if hang {
            fs::create_dir_all(&self.faults_dir)?;
            fs::write(&file, "").context("renames cannot be made to hang")
        } else {
            fs::remove_file(&file).context("renames hang for ever")
        }
    }

    /// Sets its wall clock ahead, or behind; 0 sets it right.
    pub(crate) fn set_clock_ahead_s(&self, ahead_s: i64) -> anyhow::Result<()> {
        fs::create_dir_all(&self.faults_dir)?;
        let new = self.faults_dir.join("new");
        fs::write(&new, ahead_s.to_string())?;
        fs::rename(&new, self.faults_dir.join("clock-ahead-s")).context("a clock cannot be set off")
    }

    /// Kills its model server, if there is one at this moment.
    pub(crate) fn kill_model_server(&self) -> anyhow::Result<()> {
        let Some(daemon) = self.pid() else { return Ok(()) };
        for child in children(daemon)? {
            // It may have ended by itself.
            let _ = kill_process(child, Signal::KILL);
        }
        Ok(())
    }

    fn pid(&self) -> Option<Pid> {
        self.child.as_ref().and_then(|child| Pid::from_raw(i32::try_from(child.id()).ok()?))
    }

    /// Kills the process if it still runs, and waits for its end.
    pub(crate) fn reap(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            child.wait()?;
        }
        Ok(())
    }

    /// The last line that it wrote to standard error.
    pub(crate) fn last_error_line(&self) -> String {
        let text = fs::read(&self.stderr).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().last().unwrap_or("no error output").to_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Nothing can be done about a failure here.
        let _ = self.reap();
    }
}

/// The child processes of `parent`.
fn children(parent: Pid) -> anyhow::Result<Vec<Pid>> {
    let wanted = parent.as_raw_nonzero().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end after it was listed.
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let is_child = |line: &str| line.strip_prefix("PPid:").is_some_and(|pid| pid.trim() == wanted);
        if status.lines().any(is_child) {
            found.extend(Pid::from_raw(pid));
        }
    }
    Ok(found)
}
