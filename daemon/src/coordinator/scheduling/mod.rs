//! The scheduler's task: it owns the scheduler of the term, answers workers' reports and brings their results into the log.
//!
//! A report is a long poll: it waits here until the scheduler has orders for it. One waits for each worker; a newer one
//! replaces it. What the scheduler knows of jobs is compared with the log when a change concerns them, and every
//! [`RECONCILE_PERIOD`]: a change whose outcome was lost must not leave a job waiting for ever.
//! Without a majority no report is answered with orders.
//! Bounds: [`INPUTS_MAX`] inputs queue up, then callers wait. Only live members' reports are kept.

mod results;
mod task;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use idunno_core::metadata::Applied;
use idunno_core::scheduler::Assignment;
use idunno_shared::ids::{JobId, NodeId, UploadId};
use idunno_shared::names::ModelName;
use idunno_shared::wire::blobs::PlacedBlob;
use idunno_shared::wire::control::{RebalanceView, TrainedFrom};
use idunno_shared::wire::jobs::{
    Fault, JobReply, Lease, ModelArtefact, QueryRange, ReportReply, SegmentCommit, Training, WorkerReport,
};
use idunno_shared::wire::refusal::Refusal;
use tokio::sync::{mpsc, oneshot};

pub(super) use self::task::SchedulerTask;
use super::{Deps, not_coordinator};
use crate::runtime::driver::ask;

/// Inputs that may wait for the task.
pub const INPUTS_MAX: usize = 1_024;
/// How often jobs and models are compared with the log, even if no change was reported.
pub const RECONCILE_PERIOD: Duration = Duration::from_secs(2);

/// What the scheduler knows that the log does not.
#[derive(Clone, Debug, Default)]
pub struct SchedulerView {
    /// The newest report of each worker.
    pub reports: BTreeMap<NodeId, Arc<WorkerReport>>,
    /// The workers assigned to each job.
    pub assignments: Vec<Assignment>,
    /// Queries leased, by job.
    pub leased: BTreeMap<JobId, u64>,
    /// Queries of the batch leased last, by job.
    pub batches: BTreeMap<JobId, u32>,
    /// The newest reassignments of workers, oldest first.
    pub rebalances: VecDeque<RebalanceView>,
}

/// The outcome of a training.
pub struct Trained {
    /// The upload under which it was stored.
    pub upload: UploadId,
    /// The model.
    pub artefact: ModelArtefact,
    /// The request that began it.
    pub training: Training,
    /// Its figures.
    pub metrics: Vec<(String, String)>,
    /// Its report, a file.
    pub report: Option<PlacedBlob>,
    /// What the artefact is, if it is a package.
    pub package: Option<TrainedFrom>,
}

type Answer<T> = oneshot::Sender<Result<T, Refusal>>;

pub(super) enum Input {
    Report(WorkerReport, Answer<ReportReply>),
    Commit(SegmentCommit, Answer<JobReply>),
    Committed(SegmentCommit, Result<Applied, Refusal>, Answer<JobReply>),
    Failed(NodeId, Lease, Vec<Fault>),
    Trained(NodeId, ModelName, Result<Trained, String>, Answer<()>),
    MarkedDead(JobId, Vec<QueryRange>, Result<(), Refusal>),
    Paused(JobId),
    /// Jobs or models may have changed in the log.
    Refresh,
    /// The members have changed.
    Members,
    View(oneshot::Sender<SchedulerView>),
}

/// The task's handle.
pub struct SchedulerHandle {
    deps: Deps,
    inputs: mpsc::Sender<Input>,
}

impl SchedulerHandle {
    async fn ask<T>(&self, input: impl FnOnce(oneshot::Sender<T>) -> Input) -> Result<T, Refusal> {
        // The task ends with the term: the next coordinator is to be asked.
        ask(&self.inputs, input).await.ok_or_else(|| not_coordinator(&self.deps))
    }

    /// Waits for the answer to a worker's report.
    pub async fn report(&self, report: WorkerReport) -> Result<ReportReply, Refusal> {
        self.ask(|reply| Input::Report(report, reply)).await?
    }

    /// Brings a segment into the log.
    pub async fn commit(&self, commit: SegmentCommit) -> Result<JobReply, Refusal> {
        self.ask(|reply| Input::Commit(commit, reply)).await?
    }

    /// Notes the queries that a worker could not answer.
    pub async fn failed(&self, worker: NodeId, lease: Lease, faults: Vec<Fault>) -> Result<(), Refusal> {
        let sent = self.inputs.send(Input::Failed(worker, lease, faults)).await;
        sent.map_err(|_| not_coordinator(&self.deps))
    }

    /// Brings the outcome of a training into the log.
    pub async fn trained(
        &self,
        worker: NodeId,
        model: ModelName,
        result: Result<Trained, String>,
    ) -> Result<(), Refusal> {
        self.ask(|reply| Input::Trained(worker, model, result, reply)).await?
    }

    /// Jobs or models changed in the log.
    pub async fn refresh(&self) {
        // When the term is over there is nothing to refresh.
        let _ = self.inputs.send(Input::Refresh).await;
    }

    /// What the scheduler knows that the log does not.
    pub async fn view(&self) -> Result<SchedulerView, Refusal> {
        self.ask(Input::View).await
    }
}
