//! A client that trains a model once, and then runs one job after another over the same dataset.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use idunno_shared::client::cluster::Cluster;
use idunno_shared::client::files::{Files, NoProgress, PutItem, PutOptions};
use idunno_shared::client::results::query_of;
use idunno_shared::ids::JobId;
use idunno_shared::wire::control::{
    Change, Changed, ControlReply, ControlRequest, JobOptions, JobState, JobView,
};
use idunno_shared::wire::jobs::{QueryRange, Training};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::sleep;

use super::ClientContext;
use crate::check::jobs::{Finished, Observation, Row, Segment};
use crate::cluster::views;
use crate::wait::eventually;

const MODEL: &str = "mnist-mlp";
const DATASET: &str = "digits";
/// Queries of a job: enough for many batches, and for a fault in the middle.
const QUERIES: u32 = 240;
const TRAINING_LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(400);
const PAUSE_MAX_MS: u64 = 2_000;
const JOBS_PER_PAGE: u32 = 500;

/// Makes the dataset, puts it, and has the model trained.
pub(crate) async fn prepare(context: &ClientContext, python: &Path) -> anyhow::Result<()> {
    let dir = context.scratch.join(DATASET);
    let made = Command::new(python)
        .args(["-m", "idunno_model_server.make_dataset", DATASET])
        .arg(&dir)
        .args(["--images", &QUERIES.to_string()])
        .output()
        .with_context(|| format!("{} cannot be run", python.display()))?;
    if !made.status.success() {
        bail!("no dataset: {}", String::from_utf8_lossy(&made.stderr));
    }
    let mut items = Vec::new();
    for entry in std::fs::read_dir(&dir)? {
        let path = entry?.path();
        let name = path.file_name().context("a file without a name")?.to_string_lossy().into_owned();
        items.push(PutItem { name: format!("{DATASET}/{name}").parse()?, path });
    }
    let client = context.client();
    Files::new(client.clone()).put_files(items, PutOptions::default(), &NoProgress).await?;
    client
        .change(Change::TrainStart {
            models: vec![MODEL.parse()?],
            training: Training { seed: 1, ..Training::default() },
        })
        .await?;
    let trained = eventually(TRAINING_LIMIT, async || match client.control(ControlRequest::Models).await {
        Ok(ControlReply::Models(models)) if models.iter().any(|model| model.version.is_some()) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    trained.await.map_err(anyhow::Error::msg)
}

/// The client.
pub(crate) struct Client {
    context: ClientContext,
    cluster: Cluster,
    rng: ChaCha8Rng,
    observed: Vec<Observation>,
}

impl Client {
    pub(crate) fn new(context: ClientContext) -> Self {
        let cluster = context.client();
        let rng = ChaCha8Rng::seed_from_u64(context.seed.wrapping_add(1 << 32));
        Self { context, cluster, rng, observed: Vec::new() }
    }

    /// Runs one job after another until stopped; returns the observations. A change without a reply is repeated under a new
    /// operation id, as a person would, so a job whose reply was lost exists as well.
    pub(crate) async fn run(mut self) -> anyhow::Result<Vec<Observation>> {
        while self.context.is_running() {
            if let Err(error) = self.one_job().await {
                println!("            the job client continues after: {error:#}");
            }
            sleep(Duration::from_millis(self.rng.random_range(0..PAUSE_MAX_MS))).await;
        }
        Ok(self.observed)
    }

    /// Runs a job to its end; returns its number.
    pub(crate) async fn one_job(&mut self) -> anyhow::Result<JobId> {
        let batch_size: u32 = self.rng.random_range(0..=16);
        let add = Change::AddJob {
            model: MODEL.parse()?,
            dataset: DATASET.parse()?,
            batch_size: batch_size.into(),
            options: JobOptions::default(),
        };
        let job = match self.cluster.change(add).await? {
            Changed::JobAdded(job) => job,
            other => bail!("{other:?}"),
        };
        self.observed.push(Observation::Added(job.0));
        self.start(job).await?;
        while self.context.is_running() {
            // Requests may fail while faults last.
            if let Ok(view) = view(&self.cluster, job).await {
                self.observed.push(Observation::Progress { job: job.0, done: view.done });
                match view.state {
                    JobState::Done | JobState::Cancelled => return Ok(job),
                    JobState::Stopped | JobState::Paused(_) | JobState::Added | JobState::Waiting(_) => {
                        self.start(job).await?;
                    }
                    JobState::Running => self.meddle(job).await?,
                }
            }
            sleep(POLL).await;
        }
        Ok(job)
    }

    async fn start(&mut self, job: JobId) -> anyhow::Result<()> {
        match self.cluster.change(Change::start(job)).await? {
            Changed::JobStarted { submitted } | Changed::StartedBefore { submitted, .. } => {
                self.observed.push(Observation::Started { job: job.0, submitted });
            }
            other => bail!("{other:?}"),
        }
        Ok(())
    }

    /// What a person may do to a job that runs.
    async fn meddle(&mut self, job: JobId) -> anyhow::Result<()> {
        let change = match self.rng.random_range(0..20) {
            0 => Change::SetBatchSize { job, batch_size: self.rng.random_range(0..=16_u32).into() },
            1 => Change::StopJob { job },
            _ => return Ok(()),
        };
        // It may have ended meanwhile, which is refused.
        let _ = self.cluster.change(change).await;
        Ok(())
    }
}

/// Sees every job that was ever started to its end, and reads its results; the error is what is missing.
pub(crate) async fn finish(cluster: &Cluster, limit: Duration) -> Result<Vec<Finished>, String> {
    eventually(limit, async || {
        for job in all(cluster).await?.iter().filter(|job| job.submitted > 0) {
            if matches!(job.state, JobState::Stopped | JobState::Paused(_)) {
                let started = cluster.change(Change::start(job.id)).await;
                started.map_err(|error| error.to_string())?;
            }
            if job.state != JobState::Done {
                return Err(format!("{job:?}"));
            }
        }
        Ok(())
    })
    .await?;
    let files = Files::new(cluster.clone());
    let mut finished = Vec::new();
    for job in all(cluster).await?.into_iter().filter(|job| job.submitted > 0) {
        // Segments may be replaced by merged results while they are read.
        finished.push(eventually(limit, async || results(&files, &job).await).await?);
    }
    Ok(finished)
}

/// An hour makes more jobs than one answer has room for.
async fn all(cluster: &Cluster) -> Result<Vec<JobView>, String> {
    let mut all: Vec<JobView> = Vec::new();
    loop {
        let after = all.last().map(|job| job.id);
        let page = ControlRequest::JobPage { after, limit: JOBS_PER_PAGE };
        match cluster.control(page).await {
            Ok(ControlReply::JobPage { jobs, more }) => {
                all.extend(jobs);
                if !more {
                    return Ok(all);
                }
            }
            other => return Err(format!("{other:?}")),
        }
    }
}

async fn view(cluster: &Cluster, job: JobId) -> Result<JobView, String> {
    match cluster.control(ControlRequest::Jobs(Some(job))).await {
        Ok(ControlReply::Jobs(mut jobs)) if jobs.len() == 1 => Ok(jobs.remove(0)),
        other => Err(format!("{other:?}")),
    }
}

/// A job's segments with their rows.
async fn results(files: &Files, job: &JobView) -> Result<Finished, String> {
    let views = views::segments(files.cluster(), job.id).await?;
    let placed: Vec<_> = views.iter().map(|view| view.segment.clone()).collect();
    let mut segments = Vec::new();
    for (view, bytes) in views.into_iter().zip(files.fetch_segments(&placed).await) {
        let bytes = bytes.map_err(|error| format!("a segment of {}: {error}", job.id))?;
        let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        // Merged results have rows of failed queries, too, which do not count.
        let counts = |line: &&[u8]| {
            let query = query_of(line).ok();
            let is_in = |range: &QueryRange, query| range.queries().contains(&query);
            query.is_none_or(|query| view.ranges.iter().any(|range| is_in(range, query)))
        };
        let rows: Result<Vec<Row>, _> = lines.filter(counts).map(serde_json::from_slice).collect();
        let rows = rows.map_err(|error| format!("a row of {}: {error}", job.id))?;
        segments.push(Segment { counted: view.ranges, rows });
    }
    let is_done = job.state == JobState::Done;
    let JobView { submitted, done, dead, .. } = *job;
    Ok(Finished { job: job.id.0, is_done, submitted, done, dead, segments })
}
