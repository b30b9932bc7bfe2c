//! Measures the overhead of a batch: workers in one process answer without inference, against a real cluster.
//!
//! They report as members that have no model server, with higher generations, and do everything that a worker does except
//! inference: pull, make a row, store segments on four members, commit. First one worker pulls one batch at a time, to
//! measure the round trip; then all workers pull as many batches as they may hold.
//!
//! Prints `{"batches_s":…,"pull_p50_ms":…,"pull_p99_ms":…,"coordinator_cpu_ms_per_1000_batches":…}`. The cluster is
//! to be fresh, on this machine, and without model servers; `scripts/bench.sh` starts one.

mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use idunno_shared::client::cluster::Cluster;
use idunno_shared::client::files::{Files, NoProgress, PutItem, PutOptions};
use idunno_shared::client::transport::TcpConnector;
use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::security::Credentials;
use idunno_shared::security::secret::Secret;
use idunno_shared::wire::control::{
    Change, Changed, ControlReply, ControlRequest, IdentityView, JobOptions, JobState, JobView,
};
use idunno_shared::wire::jobs::LEASES_PER_WORKER_MAX;
use serde_json::json;

use crate::worker::{MODEL, NoOpWorker};

const DATASET: &str = "no-op";
/// Batches that one worker pulls alone.
const PULLS: usize = 2_000;
const TICKS_PER_S: f64 = 100.0;

#[derive(Parser)]
#[command(name = "no-op")]
struct Arguments {
    /// Members' addresses
    #[arg(required = true)]
    members: Vec<SocketAddr>,
    /// The file of the cluster's secret, if it has one
    #[arg(long)]
    secret: Option<PathBuf>,
    /// Batches of one query each that all workers run together
    #[arg(long, default_value_t = 40_000)]
    batches: u64,
    /// Where a file can be made
    #[arg(long)]
    scratch: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let credentials = match &arguments.secret {
        Some(secret) => Credentials::of_member(Secret::load(secret)?)?,
        None => Credentials::insecure(),
    };
    // Only members report.
    let connector = TcpConnector::of_member(NodeId(u64::MAX), credentials);
    let cluster = Cluster::new(Arc::new(connector), arguments.members.clone());
    let files = Files::new(cluster.clone());
    let mut workers: Vec<NoOpWorker> =
        members(&cluster).await?.into_iter().map(|node| NoOpWorker::new(node, files.clone())).collect();
    put_queries(&files, &arguments).await?;
    worker::train(&cluster, &mut workers).await?;

    let mut pulls = pull_alone(&cluster, &mut workers[0]).await?;
    pulls.sort_unstable();
    let percentile = |percent: usize| pulls[(pulls.len() - 1) * percent / 100].as_secs_f64() * 1e3;

    let job = start(&cluster).await?;
    let pid = coordinator(&cluster).await?.pid;
    let (cpu_before_s, started) = (cpu_s(pid)?, Instant::now());
    let mut running = tokio::task::JoinSet::new();
    for mut worker in workers {
        running.spawn(async move { worker.run(job, LEASES_PER_WORKER_MAX, usize::MAX).await.map(drop) });
    }
    let done = await_done(&cluster, job).await?;
    let elapsed_s = started.elapsed().as_secs_f64();
    let cpu_ms = (cpu_s(pid)? - cpu_before_s) * 1e3;
    while let Some(ended) = running.try_join_next() {
        ended??;
    }
    running.shutdown().await;
    let report = json!({
        "batches_s": (done as f64 / elapsed_s).round(),
        "pull_p50_ms": round(percentile(50)),
        "pull_p99_ms": round(percentile(99)),
        "coordinator_cpu_ms_per_1000_batches": round(cpu_ms * 1e3 / done as f64),
    });
    println!("{report}");
    Ok(())
}

fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

async fn members(cluster: &Cluster) -> anyhow::Result<Vec<NodeId>> {
    match cluster.ask_any(ControlRequest::Members).await?.1 {
        ControlReply::Members(members) => Ok(members.into_iter().map(|member| member.id).collect()),
        other => bail!("asked for members, the answer was {other:?}"),
    }
}

/// All queries have the same few bytes, which are stored once.
async fn put_queries(files: &Files, arguments: &Arguments) -> anyhow::Result<()> {
    let path = arguments.scratch.join("query");
    std::fs::write(&path, b"a query").with_context(|| format!("cannot write {}", path.display()))?;
    let item = |number| -> anyhow::Result<PutItem> {
        Ok(PutItem { name: format!("{DATASET}/{number:06}").parse()?, path: path.clone() })
    };
    let items: anyhow::Result<Vec<_>> = (0..arguments.batches).map(item).collect();
    files.put_files(items?, PutOptions::default(), &NoProgress).await?;
    Ok(())
}

async fn start(cluster: &Cluster) -> anyhow::Result<JobId> {
    let add = Change::AddJob {
        model: MODEL.parse()?,
        dataset: DATASET.parse()?,
        batch_size: 1.into(),
        options: JobOptions::default(),
    };
    let Changed::JobAdded(job) = cluster.change(add).await? else { bail!("no job was added") };
    cluster.change(Change::start(job)).await?;
    Ok(job)
}

/// One worker pulls one batch at a time; the times of the pulls that brought one.
async fn pull_alone(cluster: &Cluster, worker: &mut NoOpWorker) -> anyhow::Result<Vec<Duration>> {
    let job = start(cluster).await?;
    let pulls = worker.run(job, 1, PULLS).await?;
    cluster.change(Change::StopJob { job }).await?;
    Ok(pulls)
}

async fn job_view(cluster: &Cluster, job: JobId) -> anyhow::Result<JobView> {
    match cluster.control(ControlRequest::Jobs(Some(job))).await? {
        ControlReply::Jobs(mut jobs) if jobs.len() == 1 => Ok(jobs.remove(0)),
        other => bail!("asked for {job}, the answer was {other:?}"),
    }
}

async fn await_done(cluster: &Cluster, job: JobId) -> anyhow::Result<u64> {
    loop {
        let view = job_view(cluster, job).await?;
        if view.state == JobState::Done {
            return Ok(view.done);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn coordinator(cluster: &Cluster) -> anyhow::Result<IdentityView> {
    let address = cluster.coordinator().await?;
    match cluster.ask_member(address, ControlRequest::Identity).await? {
        ControlReply::Identity(identity) => Ok(identity),
        other => bail!("asked {address} who it is, the answer was {other:?}"),
    }
}

/// Processor time that a process has used.
fn cpu_s(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks =
        |place: usize| -> anyhow::Result<f64> { Ok(fields.get(place).context("a short stat")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_S)
}
