//! One daemon as a process: started, signalled, killed, started again with the same address.

use std::fs::{self, OpenOptions};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use idunno_shared::ids::NodeId;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::ground::links::Endpoint;
use crate::ground::network::command_within;
use crate::wait::eventually;

const PORT: u16 = 7401;
const START_LIMIT: Duration = Duration::from_secs(30);

/// What a daemon tells in `runtime.json`.
#[derive(Deserialize)]
struct Runtime {
    pid: u32,
    node: Option<String>,
}

/// A daemon and all that is needed to start it again.
pub(crate) struct Daemon {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) data_dir: PathBuf,
    program: PathBuf,
    arguments: Vec<String>,
    /// Whose network it runs in; `None` for the driver's own.
    within: Option<Endpoint>,
    stderr: PathBuf,
    child: Option<Child>,
}

/// How a daemon is started.
pub(crate) struct Recipe<'a> {
    pub(crate) name: &'a str,
    pub(crate) program: &'a Path,
    pub(crate) arguments: Vec<String>,
    pub(crate) endpoint: Endpoint,
    /// Whether each daemon has a network of its own.
    pub(crate) has_network: bool,
    pub(crate) data_dir: PathBuf,
    pub(crate) stderr: PathBuf,
}

impl Daemon {
    /// Not started yet, its address chosen.
    pub(crate) fn new(recipe: Recipe<'_>) -> anyhow::Result<Self> {
        let Recipe { name, program, arguments, endpoint, has_network, data_dir, stderr } = recipe;
        let address = if has_network {
            SocketAddr::new(IpAddr::V4(endpoint.address()), PORT)
        } else {
            // Free a moment ago, which is good enough: nobody else is given it as long as others are free.
            TcpListener::bind("127.0.0.1:0")?.local_addr()?
        };
        let (name, program) = (name.to_owned(), program.to_owned());
        let within = has_network.then_some(endpoint);
        Ok(Self { name, address, data_dir, program, arguments, within, stderr, child: None })
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
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        self.child = Some(command.spawn().with_context(|| format!("{} cannot be started", self.name))?);
        Ok(())
    }

    /// Waits until it listens; returns its id, which an introducer has none of.
    pub(crate) async fn listening(&mut self) -> anyhow::Result<Option<NodeId>> {
        let name = self.name.clone();
        let started = eventually(START_LIMIT, async || match (self.runtime(), self.exit_status()?) {
            (Some(runtime), _) => Ok(Ok(runtime.node)),
            (None, Some(status)) => Ok(Err(status)),
            (None, None) => Err(String::from("it does not listen")),
        });
        let node = match started.await {
            Ok(Ok(node)) => node,
            Ok(Err(status)) => bail!("{name} ended at once ({status}): {}", self.last_words()),
            Err(missing) => bail!("{name} did not start: {missing}: {}", self.last_words()),
        };
        node.map(|node| Ok(NodeId(u64::from_str_radix(&node, 16)?))).transpose()
    }

    /// The runtime file, if this very process wrote it.
    fn runtime(&self) -> Option<Runtime> {
        let text = fs::read(self.data_dir.join("runtime.json")).ok()?;
        let runtime: Runtime = serde_json::from_slice(&text).ok()?;
        (Some(runtime.pid) == self.child.as_ref().map(Child::id)).then_some(runtime)
    }

    /// How a process that was not taken down has ended, if it has.
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

    /// Waits for the end of a process that was killed, or has ended.
    pub(crate) fn reap(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            child.wait()?;
        }
        Ok(())
    }

    /// The last line that it wrote to standard error.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read(&self.stderr).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().last().unwrap_or("no word").to_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = self.reap();
    }
}

/// The processes whose parent this is.
fn children(parent: Pid) -> anyhow::Result<Vec<Pid>> {
    let wanted = parent.as_raw_nonzero().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end between the listing and the look at it.
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let is_child = |line: &str| line.strip_prefix("PPid:").is_some_and(|pid| pid.trim() == wanted);
        if status.lines().any(is_child) {
            found.extend(Pid::from_raw(pid));
        }
    }
    Ok(found)
}
