//! A member process: starts the parts in the order in which they depend on each other, and stops them at the end.

mod parts;
mod put_claims;
mod service;
mod shutdown;
mod worker;

use tokio::sync::{mpsc, watch};
use tracing::warn;

use self::parts::Parts;
use self::shutdown::{close, wait_for_end};
use self::worker::Worker;
use crate::config::MemberConfig;
use crate::metrics::Metrics;
use crate::recovery::check_startable;
use crate::runtime::process::{self, StopSignals};

/// Runs a member until a stop signal, or until one of its essential tasks ends.
pub async fn run(config: MemberConfig) -> anyhow::Result<()> {
    let (process, listener) = process::prepare(&config.common).await?;
    if let Err(error) = idunno_worker::supervisor::adopt_orphans() {
        warn!(%error, "processes that a model starts may outlive this member");
    }
    let metrics = match config.metrics_listen {
        Some(address) => Some(Metrics::bind(address).await?),
        None => None,
    };
    check_startable(&process.data_dir)?;
    let (acceptor, datagrams) = listener.split()?;
    let parts = Parts::start(&config, &process, datagrams).await?;

    let (rejoin, rejoin_requests) = mpsc::channel(1);
    let (server_status, server) = watch::channel(worker::first_status(&config));
    if let Some(metrics) = metrics {
        parts.serve_metrics(metrics, server.clone());
    }
    let served = parts.serve(acceptor, server, rejoin);
    parts.join_cluster(rejoin_requests);
    let mut signals = StopSignals::listen()?;
    process.announce("member", config.name.as_str(), Some(parts.deps.me))?;
    parts.feed_watchdog();

    let mut worker = Worker::start(&config, &parts, server_status);
    let fault = wait_for_end(&parts, &mut signals, &mut worker).await;
    close(parts, worker, signals, served, fault.as_deref()).await?;
    process.retire();
    match fault {
        None => Ok(()),
        Some(fault) => Err(anyhow::anyhow!("{} stopped: {fault}", config.name)),
    }
}
