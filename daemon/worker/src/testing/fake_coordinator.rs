//! A coordinator that grants what a test provides and records what it receives.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use idunno_shared::client::cluster::ClusterError;
use idunno_shared::client::link::BoxFuture;
use idunno_shared::ids::{Digest, Term, UploadId};
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{
    Fault, Grant, JobReply, JobRequest, Lease, ModelArtefact, ModelState, ReportReply, SegmentCommit,
    Training, TrainingAssignment, WorkerReport,
};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::super::traits::CoordinatorClient;

/// The reported outcome of a training.
pub(in super::super) type TrainingOutcome = Result<(UploadId, ModelArtefact), String>;

/// The reply to a commit.
pub(in super::super) enum CommitReply {
    Unreachable,
    Refused(RefusalCode),
    Held,
}

#[derive(Default)]
pub(in super::super) struct CoordinatorState {
    pub(in super::super) term: u64,
    /// Granted as they are pulled.
    pub(in super::super) grants: VecDeque<Grant>,
    /// Ordered until a report shows them loaded.
    pub(in super::super) load: Vec<ModelArtefact>,
    /// Ordered until an outcome is reported.
    pub(in super::super) train: Vec<(ModelName, Training)>,
    /// The packages of those models that are packages.
    pub(in super::super) train_packages: Vec<ModelArtefact>,
    /// Part of the next orders.
    pub(in super::super) cancelled: Vec<Lease>,
    /// Part of the next orders.
    pub(in super::super) restart: Option<String>,
    /// Part of the next orders.
    pub(in super::super) stop_training: Vec<ModelName>,
    /// Ordered as long as they are reported to be loaded.
    pub(in super::super) unload: Vec<(ModelName, Digest)>,
    /// Replies to the next commits, in order; further commits succeed.
    pub(in super::super) commit_replies: VecDeque<CommitReply>,

    pub(in super::super) granted: Vec<Lease>,
    pub(in super::super) reports: Vec<WorkerReport>,
    /// Every commit, whatever its reply.
    pub(in super::super) commit_attempts: Vec<SegmentCommit>,
    pub(in super::super) commits: Vec<SegmentCommit>,
    pub(in super::super) failed: Vec<(Lease, Vec<Fault>)>,
    pub(in super::super) trained: Vec<(ModelName, TrainingOutcome)>,
    /// "failed" and "commit", in the order of their arrival.
    pub(in super::super) order: Vec<&'static str>,
}

#[derive(Default)]
pub(in super::super) struct FakeCoordinator {
    state: Mutex<CoordinatorState>,
    changed: Notify,
}

impl FakeCoordinator {
    pub(in super::super) fn state(&self) -> MutexGuard<'_, CoordinatorState> {
        self.state.lock().unwrap()
    }

    pub(in super::super) fn set(&self, change: impl FnOnce(&mut CoordinatorState)) {
        change(&mut self.state());
        self.changed.notify_waiters();
    }

    async fn report(&self, report: WorkerReport) -> JobReply {
        let deadline = Instant::now() + Duration::from_millis(u64::from(report.wait_ms));
        self.state().reports.push(report.clone());
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let orders = self.state().orders(&report);
            let empty = orders.grants.is_empty() && orders.cancelled.is_empty();
            if !empty || timeout_at(deadline, changed).await.is_err() {
                return JobReply::Report(orders);
            }
        }
    }

    fn commit(&self, commit: SegmentCommit) -> Option<Result<JobReply, ClusterError>> {
        let mut state = self.state();
        state.commit_attempts.push(commit.clone());
        Some(match state.commit_replies.pop_front() {
            Some(CommitReply::Held) => return None,
            Some(CommitReply::Unreachable) => Err(ClusterError::Unreachable {
                waited: Duration::ZERO,
                asked: String::new(),
                last: "nobody".to_owned(),
            }),
            Some(CommitReply::Refused(code)) => Err(Refusal::new(code, "as the test says").into()),
            None => {
                let accepted = commit.batches.iter().flat_map(|batch| &batch.answered);
                let accepted = accepted.map(|range| u64::from(range.count)).sum();
                state.order.push("commit");
                state.commits.push(commit);
                Ok(JobReply::Committed { accepted, duplicates: 0 })
            }
        })
    }
}

impl CoordinatorState {
    fn orders(&mut self, report: &WorkerReport) -> ReportReply {
        let wanted = usize::from(report.wanted).min(self.grants.len());
        let grants: Vec<Grant> = self.grants.drain(..wanted).collect();
        self.granted.extend(grants.iter().map(|grant| grant.lease));
        let not_loaded = |artefact: &&ModelArtefact| {
            !report.models.contains(&(artefact.model.clone(), ModelState::Ready(artefact.version)))
        };
        let load = self.load.iter().filter(not_loaded).cloned().collect();
        let cancelled = std::mem::take(&mut self.cancelled);
        let assignment = |(model, training): &(ModelName, Training)| TrainingAssignment {
            model: model.clone(),
            training: training.clone(),
            package: self.train_packages.iter().find(|package| package.model == *model).cloned(),
        };
        let train = self.train.iter().map(assignment).collect();
        let restart = self.restart.take();
        let stop_training = std::mem::take(&mut self.stop_training);
        let is_loaded = |(model, version): &&(ModelName, Digest)| {
            report.models.contains(&(model.clone(), ModelState::Ready(*version)))
        };
        let unload = self.unload.iter().filter(is_loaded).cloned().collect();
        ReportReply { term: Term(self.term), grants, cancelled, load, train, restart, stop_training, unload }
    }
}

impl CoordinatorClient for FakeCoordinator {
    fn ask(&self, request: JobRequest) -> BoxFuture<'_, Result<JobReply, ClusterError>> {
        Box::pin(async move {
            match request {
                JobRequest::Report(report) => Ok(self.report(report).await),
                JobRequest::Commit(commit) => match self.commit(commit) {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                },
                JobRequest::Failed { lease, faults, .. } => {
                    self.set(|state| {
                        state.order.push("failed");
                        state.failed.push((lease, faults));
                    });
                    Ok(JobReply::Noted)
                }
                JobRequest::Trained { model, result, .. } => {
                    self.set(|state| {
                        state.train.retain(|(ordered, _)| *ordered != model);
                        state.trained.push((model, result));
                    });
                    Ok(JobReply::Noted)
                }
            }
        })
    }
}
