//! A worker that answers without inference.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use idunno_shared::client::cluster::Cluster;
use idunno_shared::client::files::Files;
use idunno_shared::ids::{Digest, JobId, NodeId};
use idunno_shared::wire::control::Change;
use idunno_shared::wire::jobs::{
    BatchOutcome, JobReply, JobRequest, LEASES_HELD_MAX, Lease, ModelArtefact, ModelState, ReportReply,
    SEGMENT_BATCHES, SegmentCommit, ServerState, TokenCount, Training, WorkerReport,
};
use idunno_shared::wire::resources::WorkerResources;
use tokio::task::JoinHandle;

/// A predefined name, so that the cluster knows it.
pub(crate) const MODEL: &str = "mnist-mlp";
/// Above that of any member's own worker.
const GENERATION: u64 = 1 << 40;
const WAIT_MS: u32 = 1_000;

pub(crate) struct NoOpWorker {
    node: NodeId,
    files: Files,
    number: u64,
    version: Option<Digest>,
}

/// A segment on its way, and the leases in it.
type Commit = (Vec<Lease>, JoinHandle<anyhow::Result<()>>);

impl NoOpWorker {
    pub(crate) fn new(node: NodeId, files: Files) -> Self {
        Self { node, files, number: 0, version: None }
    }

    fn report(&mut self, leases: Vec<Lease>, wanted: usize) -> anyhow::Result<WorkerReport> {
        self.number += 1;
        let model = MODEL.parse()?;
        Ok(WorkerReport {
            worker: self.node,
            generation: GENERATION,
            server: ServerState::Ready,
            models: self.version.map(|version| (model, ModelState::Ready(version))).into_iter().collect(),
            awaiting_commit: u16::try_from(leases.len())?,
            leases,
            wanted: u8::try_from(wanted)?,
            wait_ms: WAIT_MS,
            draining: false,
            offers: Some(vec![MODEL.parse()?]),
            running_ms: None,
            number: self.number,
            trainings: Vec::new(),
            resources: WorkerResources::default(),
        })
    }

    async fn pull(&mut self, leases: Vec<Lease>, wanted: usize) -> anyhow::Result<ReportReply> {
        let report = self.report(leases, wanted)?;
        match self.files.cluster().jobs(JobRequest::Report(report)).await? {
            JobReply::Report(orders) => Ok(orders),
            other => bail!("a report was answered with {other:?}"),
        }
    }

    /// Runs batches of a job, `wanted` a pull, until `most` pulls have brought some, or none comes any more. The times
    /// of the pulls that did.
    pub(crate) async fn run(
        &mut self,
        job: JobId,
        wanted: usize,
        most: usize,
    ) -> anyhow::Result<Vec<Duration>> {
        let (mut filling, mut committing): (Vec<Lease>, Option<Commit>) = (Vec::new(), None);
        let mut pulls = Vec::new();
        loop {
            let held: Vec<Lease> =
                committing.iter().flat_map(|(leases, _)| leases).chain(&filling).copied().collect();
            let asked = Instant::now();
            let room = LEASES_HELD_MAX - held.len();
            let wanted_now = if pulls.len() < most { wanted.min(room) } else { 0 };
            let orders = self.pull(held, wanted_now).await?;
            let granted: Vec<Lease> =
                orders.grants.iter().map(|grant| grant.lease).filter(|lease| lease.job == job).collect();
            let is_over = granted.is_empty();
            if !is_over {
                pulls.push(asked.elapsed());
            }
            filling.extend(granted);
            if committing.as_ref().is_some_and(|(_, task)| is_over || task.is_finished())
                && let Some((_, task)) = committing.take()
            {
                task.await??;
            }
            if committing.is_none() && (filling.len() >= SEGMENT_BATCHES || (is_over && !filling.is_empty()))
            {
                let leases = std::mem::take(&mut filling);
                let commit = commit(self.files.clone(), self.node, job, leases.clone());
                committing = Some((leases, tokio::spawn(commit)));
            } else if is_over && committing.is_none() {
                return Ok(pulls);
            }
        }
    }
}

/// Stores the rows of some batches and makes them count.
async fn commit(files: Files, worker: NodeId, job: JobId, leases: Vec<Lease>) -> anyhow::Result<()> {
    let row = |lease: &Lease| format!("{{\"query\":{},\"worker\":\"{worker}\"}}\n", lease.range.first);
    let rows: String = leases.iter().map(row).collect();
    let mut stored = files.store_blobs(vec![Bytes::from(rows)]).await?;
    let outcome = |lease: &Lease| BatchOutcome {
        lease: *lease,
        answered: vec![lease.range],
        inference_us: 1,
        labelled: 0,
        correct: 0,
        local: 0,
        refused: 0,
        tokens: TokenCount::default(),
    };
    let commit = SegmentCommit {
        worker,
        job,
        upload: stored.upload,
        segment: stored.blobs.pop().context("no blob was stored")?,
        batches: leases.iter().map(outcome).collect(),
    };
    match files.cluster().jobs(JobRequest::Commit(commit)).await? {
        JobReply::Committed { .. } | JobReply::Noted => Ok(()),
        JobReply::Report(_) => bail!("a commit was answered with orders"),
    }
}

/// Trains the model at the worker that the coordinator chooses, with a few bytes as the artefact.
pub(crate) async fn train(cluster: &Cluster, workers: &mut [NoOpWorker]) -> anyhow::Result<()> {
    for worker in workers.iter_mut() {
        worker.pull(Vec::new(), 0).await?;
    }
    let models = vec![MODEL.parse()?];
    let training = Training { seed: 1, ..Training::default() };
    cluster.change(Change::TrainStart { models, training: training.clone() }).await?;
    let trainer = loop {
        let mut found = None;
        for (place, worker) in workers.iter_mut().enumerate() {
            let orders = worker.pull(Vec::new(), 0).await?;
            found = found.or_else(|| (!orders.train.is_empty()).then_some(place));
        }
        if let Some(place) = found {
            break place;
        }
    };
    let (files, node) = (workers[trainer].files.clone(), workers[trainer].node);
    let artefact = Bytes::from_static(b"nothing to do");
    let version = Digest::of(&artefact);
    let stored = files.store_blobs(vec![artefact]).await?;
    let artefact = ModelArtefact { model: MODEL.parse()?, version, extents: stored.blobs, is_package: false };
    let result = Ok((stored.upload, artefact));
    cluster
        .jobs(JobRequest::Trained {
            worker: node,
            model: MODEL.parse()?,
            training,
            result,
            metrics: Vec::new(),
            report: None,
            package: None,
        })
        .await?;
    workers.iter_mut().for_each(|worker| worker.version = Some(version));
    Ok(())
}
