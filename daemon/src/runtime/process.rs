//! What the introducer and a member do alike: start up, say that they are ready, and wait for the end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use idunno_shared::ids::NodeId;
use idunno_shared::security::Credentials;
use idunno_shared::security::secret::Secret;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{debug, info, warn};
use tracing_appender::non_blocking::WorkerGuard;

use crate::config::Common;
use crate::net::transport::Listener;
use crate::runtime::data_dir::{DataDir, Runtime};
use crate::runtime::secret_file;
use crate::runtime::telemetry;

/// Files and connections that a daemon may have open, where the system lets it.
pub const FILES_MAX: u64 = 16_384;
const RUNTIME_FILE: &str = "runtime.json";

/// A daemon's context: its locked directory, its logs, its port.
pub struct ProcessContext {
    /// The directory.
    pub data_dir: Arc<DataDir>,
    /// Where others reach it.
    pub address: SocketAddr,
    /// What it proves itself with.
    pub credentials: Credentials,
    /// Where logs go.
    pub log_dir: PathBuf,
    /// Logs are written until this is dropped.
    pub logs: WorkerGuard,
}

/// Locks the directory, starts logging, and listens.
pub async fn prepare(config: &Common) -> anyhow::Result<(ProcessContext, Listener)> {
    let data_dir = Arc::new(DataDir::open(&config.data_dir)?);
    let logs = telemetry::start(
        &config.log_dir,
        &config.log,
        (config.log_files, config.log_day_bytes),
        config.log_format,
    )?;
    raise_file_limit();
    let credentials = credentials(config)?;
    let listening = Listener::bind(config.listen, &credentials).await?;
    let mut address = config.advertise.unwrap_or_else(|| listening.address());
    if address.port() == 0 {
        address.set_port(listening.address().port());
    }
    Ok((ProcessContext { data_dir, address, credentials, log_dir: config.log_dir.clone(), logs }, listening))
}

/// What the settings' secret gives, and goes on giving as the file changes.
fn credentials(config: &Common) -> anyhow::Result<Credentials> {
    let Some(path) = config.secret.clone() else {
        warn!("insecure: whoever reaches this port may do everything");
        return Ok(Credentials::insecure());
    };
    let secret = Secret::load(&path)?;
    info!(keys = ?secret.fingerprints(), path = %path.display(), "the cluster's secret: the first key signs");
    let credentials = Credentials::of_member(secret)?;
    tokio::spawn(secret_file::follow(path, credentials.clone()));
    Ok(credentials)
}

/// Many systems allow 1,024 unless asked for more: fewer than the connections that are served.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.map_or(FILES_MAX, |maximum| maximum.min(FILES_MAX));
    if limit.current.is_some_and(|current| current < allowed) {
        let raised = Rlimit { current: Some(allowed), maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            warn!(%error, current = ?limit.current, "cannot raise the limit on open files");
        }
    }
}

impl ProcessContext {
    /// Tells whoever started this process that it is there: the runtime file, and the service manager.
    pub fn announce(&self, program: &str, name: &str, node: Option<NodeId>) -> anyhow::Result<()> {
        let runtime = Runtime {
            pid: std::process::id(),
            address: self.address,
            node: node.map(|node| node.to_string()),
            program: program.to_owned(),
            name: name.to_owned(),
            log_dir: self.log_dir.clone(),
        };
        self.data_dir.write_json(RUNTIME_FILE, &runtime).context("cannot say where this daemon listens")?;
        info!(%program, %name, address = %self.address, pid = runtime.pid, version = env!("CARGO_PKG_VERSION"), "ready");
        notify(&[NotifyState::Ready]);
        Ok(())
    }

    /// Tells that this process is about to end.
    pub fn retire(&self) {
        if let Err(error) = self.data_dir.remove(RUNTIME_FILE) {
            debug!(%error, "the runtime file stays");
        }
        info!("stopped");
    }
}

/// Signals that ask this process to stop.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Listens for SIGTERM and SIGINT, which from now on do not end the process by themselves.
    pub fn listen() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        Ok(Self { terminate, interrupt })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        info!("asked to stop");
        notify(&[NotifyState::Stopping]);
    }
}

/// How long the service manager waits for a sign of life before it ends this process and starts it again, if it does.
pub fn watchdog_limit() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// Gives that sign.
pub fn feed_watchdog() {
    notify(&[NotifyState::Watchdog]);
}

/// Without a service manager there is nobody to tell.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "no service manager was told");
    }
}
