//! A coordinator that hands out what a test puts in and keeps what it is told.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use idunno_shared::client::cluster::ClusterError;
use idunno_shared::client::link::BoxFuture;
use idunno_shared::ids::{Term, UploadId};
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{
    Fault, Grant, JobReply, JobRequest, Lease, ModelArtefact, ModelState, ReportReply, SegmentCommit,
    Training, WorkerReport,
};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::super::traits::CoordinatorClient;

/// The outcome of a training, as it is told.
pub(in super::super) type Outcome = Result<(UploadId, ModelArtefact), String>;

/// What a commit is to be answered with.
pub(in super::super) enum Fate {
    Unreachable,
    Refused(RefusalCode),
    Held,
}

#[derive(Default)]
pub(in super::super) struct Book {
    pub(in super::super) term: u64,
    /// Given out as they are wanted.
    pub(in super::super) grants: VecDeque<Grant>,
    /// Ordered until the report shows them.
    pub(in super::super) load: Vec<ModelArtefact>,
    /// Ordered until an outcome is told.
    pub(in super::super) train: Vec<(ModelName, Training)>,
    /// Given with the next answer.
    pub(in super::super) cancelled: Vec<Lease>,
    /// Given with the next answer.
    pub(in super::super) restart: Option<String>,
    /// Given with the next answer.
    pub(in super::super) stop_training: Vec<ModelName>,
    /// For the next commits, in order; then they are taken.
    pub(in super::super) fates: VecDeque<Fate>,

    pub(in super::super) granted: Vec<Lease>,
    pub(in super::super) reports: Vec<WorkerReport>,
    /// Every commit asked for, whatever became of it.
    pub(in super::super) commits_asked: Vec<SegmentCommit>,
    pub(in super::super) commits: Vec<SegmentCommit>,
    pub(in super::super) failed: Vec<(Lease, Vec<Fault>)>,
    pub(in super::super) trained: Vec<(ModelName, Outcome)>,
    /// "failed" and "commit" in the order they came.
    pub(in super::super) order: Vec<&'static str>,
}

#[derive(Default)]
pub(in super::super) struct FakeCoordinator {
    book: Mutex<Book>,
    changed: Notify,
}

impl FakeCoordinator {
    pub(in super::super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    pub(in super::super) fn set(&self, change: impl FnOnce(&mut Book)) {
        change(&mut self.book());
        self.changed.notify_waiters();
    }

    async fn report(&self, report: WorkerReport) -> JobReply {
        let deadline = Instant::now() + Duration::from_millis(u64::from(report.wait_ms));
        self.book().reports.push(report.clone());
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let orders = self.book().orders(&report);
            let empty = orders.grants.is_empty() && orders.cancelled.is_empty();
            if !empty || timeout_at(deadline, changed).await.is_err() {
                return JobReply::Report(orders);
            }
        }
    }

    fn commit(&self, commit: SegmentCommit) -> Option<Result<JobReply, ClusterError>> {
        let mut book = self.book();
        book.commits_asked.push(commit.clone());
        Some(match book.fates.pop_front() {
            Some(Fate::Held) => return None,
            Some(Fate::Unreachable) => {
                let (asked, last) = (String::new(), "nobody".to_owned());
                Err(ClusterError::Unreachable { waited: Duration::ZERO, asked, last })
            }
            Some(Fate::Refused(code)) => Err(Refusal::new(code, "as the test says").into()),
            None => {
                let accepted = commit.batches.iter().flat_map(|batch| &batch.answered);
                let accepted = accepted.map(|range| u64::from(range.count)).sum();
                book.order.push("commit");
                book.commits.push(commit);
                Ok(JobReply::Committed { accepted, duplicates: 0 })
            }
        })
    }
}

impl Book {
    fn orders(&mut self, report: &WorkerReport) -> ReportReply {
        let wanted = usize::from(report.wanted).min(self.grants.len());
        let grants: Vec<Grant> = self.grants.drain(..wanted).collect();
        self.granted.extend(grants.iter().map(|grant| grant.lease));
        let shown = |artefact: &&ModelArtefact| {
            !report.models.contains(&(artefact.model.clone(), ModelState::Ready(artefact.version)))
        };
        let load = self.load.iter().filter(shown).cloned().collect();
        let cancelled = std::mem::take(&mut self.cancelled);
        let (train, restart) = (self.train.clone(), self.restart.take());
        let stop_training = std::mem::take(&mut self.stop_training);
        ReportReply { term: Term(self.term), grants, cancelled, load, train, restart, stop_training }
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
                    self.set(|book| {
                        book.order.push("failed");
                        book.failed.push((lease, faults));
                    });
                    Ok(JobReply::Noted)
                }
                JobRequest::Trained { model, result, .. } => {
                    self.set(|book| {
                        book.train.retain(|(ordered, _)| *ordered != model);
                        book.trained.push((model, result));
                    });
                    Ok(JobReply::Noted)
                }
            }
        })
    }
}
