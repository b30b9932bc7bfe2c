//! The life cycle that the introducer and a member share: start up, announce readiness, wait for a stop signal.

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
use tokio::time::interval;
use tracing::{debug, info, warn};
use tracing_appender::non_blocking::WorkerGuard;

use crate::config::{Common, FILES_MAX};
use crate::net::transport::Listener;
use crate::runtime::data_dir::{DataDir, RUNTIME_FILE, Runtime};
use crate::runtime::secret_file;
use crate::runtime::telemetry;

/// How much longer the service manager is to wait, as long as a start goes on.
const START_EXTENSION: Duration = Duration::from_secs(30);

/// What a daemon process runs on: its locked data directory, its address, its credentials and its logs.
pub struct ProcessContext {
    pub data_dir: Arc<DataDir>,
    /// The address that other processes use.
    pub address: SocketAddr,
    pub credentials: Credentials,
    pub log_dir: PathBuf,
    /// Log lines are written until this is dropped.
    pub logs: WorkerGuard,
}

/// Locks the data directory, starts logging and binds the port.
pub async fn prepare(config: &Common) -> anyhow::Result<(ProcessContext, Listener)> {
    let data_dir = Arc::new(DataDir::open(&config.data_dir)?);
    let logs = telemetry::start(config)?;
    raise_file_limit();
    let credentials = credentials(config)?;
    let listening = Listener::bind(config.listen, &credentials).await?;
    let mut address = config.advertise.unwrap_or_else(|| listening.address());
    if address.port() == 0 {
        address.set_port(listening.address().port());
    }
    Ok((ProcessContext { data_dir, address, credentials, log_dir: config.log_dir.clone(), logs }, listening))
}

/// The credentials from the configured secret; they follow changes of its file.
fn credentials(config: &Common) -> anyhow::Result<Credentials> {
    let Some(path) = config.secret.clone() else {
        warn!("insecure mode: anyone who reaches this port may do everything");
        return Ok(Credentials::insecure());
    };
    let secret = Secret::load(&path)?;
    info!(keys = ?secret.fingerprints(), path = %path.display(), "the cluster's secret: the first key signs");
    let credentials = Credentials::of_member(secret)?;
    tokio::spawn(secret_file::follow(path, credentials.clone()));
    Ok(credentials)
}

/// Many systems allow 1,024 open files by default, fewer than the connections that a daemon serves.
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
    /// Announces that this process is ready: in the runtime file, the log, and to the service manager.
    pub fn announce(&self, program: &str, name: &str, node: Option<NodeId>) -> anyhow::Result<()> {
        let runtime = Runtime {
            pid: std::process::id(),
            address: self.address,
            node: node.map(|node| node.to_string()),
            program: program.to_owned(),
            name: name.to_owned(),
            log_dir: self.log_dir.clone(),
        };
        self.data_dir.write_json(RUNTIME_FILE, &runtime).context("cannot write the runtime file")?;
        info!(%program, %name, address = %self.address, pid = runtime.pid, version = env!("CARGO_PKG_VERSION"), "ready");
        notify(&[NotifyState::Ready]);
        Ok(())
    }

    /// Removes the runtime file: this process is about to end.
    pub fn retire(&self) {
        if let Err(error) = self.data_dir.remove(RUNTIME_FILE) {
            debug!(%error, "cannot remove the runtime file");
        }
        info!("stopped");
    }
}

/// The signals that ask this process to stop.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Handles SIGTERM and SIGINT from now on: they no longer end the process by themselves.
    pub fn listen() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        Ok(Self { terminate, interrupt })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        info!("received a stop signal");
        notify(&[NotifyState::Stopping]);
    }
}

/// The service manager's watchdog time-out, if it has one for this process.
pub fn watchdog_limit() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

pub fn feed_watchdog() {
    notify(&[NotifyState::Watchdog]);
}

/// Waits for a part of the start that takes as long as the disk takes, and keeps the service manager from giving up on it.
pub async fn during_start<T>(part: impl Future<Output = T>) -> T {
    extending(part, START_EXTENSION, |extension| {
        let extension_us = u32::try_from(extension.as_micros()).unwrap_or(u32::MAX);
        notify(&[NotifyState::ExtendTimeoutUsec(extension_us)]);
    })
    .await
}

/// Asks for `extension` again and again, each time well before the last one is over.
async fn extending<T>(part: impl Future<Output = T>, extension: Duration, extend: impl Fn(Duration)) -> T {
    let mut part = std::pin::pin!(part);
    let mut ticks = interval(extension / 3);
    loop {
        tokio::select! {
            done = &mut part => return done,
            _ = ticks.tick() => extend(extension),
        }
    }
}

/// A missing service manager is no error.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "cannot notify the service manager");
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;

    #[tokio::test]
    async fn a_long_start_extends_its_time_out_until_it_ends() {
        let (extensions, mut extended) = watch::channel(0);
        // A scan that takes as long as three extensions.
        let scan = async move { extended.wait_for(|extensions| *extensions >= 3).await.map(|_| "done") };
        let started = extending(scan, Duration::from_millis(3), |extension| {
            assert_eq!(extension, Duration::from_millis(3));
            extensions.send_modify(|extensions| *extensions += 1);
        });
        let started = tokio::time::timeout(Duration::from_secs(20), started).await;
        assert_eq!(started.expect("the extensions go on").unwrap(), "done");
    }
}
