//! The task that has the results of finished jobs merged into one file each, by workers. The bytes do not pass through here.
//!
//! One job at a time. `core::result_merge` decides which job and which worker; a worker that dies, or whose file is refused,
//! costs a pause and then another worker's try.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use idunno_core::metadata::{Action, State};
use idunno_core::result_merge::{ResultMerge, ResultMergeEffect, ResultMergeEvent};
use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::blobs::PlacedBlob;
use idunno_shared::wire::control::JobState;
use idunno_shared::wire::jobs::{MergedResults, WorkReply, WorkRequest};
use idunno_shared::wire::refusal::Refusal;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::dataset_freeze::WorkerCallError;
use super::{Deps, LeaderTerm};
use crate::runtime::driver::{Driver, Shell, Turn};

/// The least time between two looks at the jobs: every entry of the log is a change of the state.
const OBSERVE_PERIOD: Duration = Duration::from_millis(100);
/// How long a worker may take for one job.
const MERGE_TIMEOUT: Duration = Duration::from_secs(1800);

/// The log's jobs may have changed.
pub(super) struct Observe;

/// Finds the jobs whose results are to be merged, and asks workers to do it.
pub(super) struct ResultMergeTask {
    leader_term: Weak<LeaderTerm>,
    state: watch::Receiver<Arc<State>>,
}

impl ResultMergeTask {
    /// Starts the task of a term.
    pub(super) fn spawn(leader_term: Weak<LeaderTerm>, deps: &Deps, closed: &CancellationToken) {
        let shell = Self { leader_term, state: deps.consensus.state().clone() };
        let (_, inputs) = mpsc::channel(1);
        let driver = Driver { machine: ResultMerge::default(), shell, clock: deps.clock, inputs };
        driver.spawn("result merge", &deps.monitor, closed);
    }
}

impl Shell for ResultMergeTask {
    type Machine = ResultMerge;
    type Input = Observe;

    fn begin(&mut self, turn: &mut Turn<Self>) {
        turn.input(Observe);
    }

    async fn next_input(&mut self) -> Option<Observe> {
        self.state.changed().await.ok().map(|()| Observe)
    }

    fn on_deadline(&mut self, turn: &mut Turn<Self>) {
        turn.input(Observe);
    }

    async fn translate(&mut self, Observe: Observe, turn: &mut Turn<Self>) {
        tokio::time::sleep(OBSERVE_PERIOD).await;
        let state = Arc::clone(&self.state.borrow_and_update());
        let due = state.jobs().filter(|job| job.state == JobState::Done && !job.filed);
        turn.event(ResultMergeEvent::Due(due.map(|job| job.id).collect()));
    }

    async fn carry_out(&mut self, effect: ResultMergeEffect, turn: &mut Turn<Self>) {
        let Some(leader_term) = self.leader_term.upgrade() else { return };
        let (job, outcome) = match effect {
            ResultMergeEffect::FindWorkers(job) => {
                let leases = leader_term.leases_by_worker().await;
                (job, leases.map(|leases| ResultMergeEvent::Workers { job, leases }))
            }
            ResultMergeEffect::Merge { job, worker } => {
                let merged = leader_term.merge_results(job, worker).await;
                (job, merged.map(|()| ResultMergeEvent::Merged(job)))
            }
        };
        let event = outcome.unwrap_or_else(|error| {
            warn!(%job, %error, "the results are not merged yet");
            ResultMergeEvent::Failed(job)
        });
        let has_ended = !matches!(event, ResultMergeEvent::Workers { .. });
        turn.event(event);
        if has_ended {
            turn.input(Observe);
        }
    }
}

impl LeaderTerm {
    /// Has a worker merge a job's results into a file, and enters it into the log.
    async fn merge_results(&self, job: JobId, worker: NodeId) -> Result<(), ResultMergeError> {
        let reply = self.ask_worker(worker, WorkRequest::MergeResults { job }, MERGE_TIMEOUT).await?;
        let WorkReply::ResultsMerged(results) = reply else { return Err(ResultMergeError::UnexpectedReply) };
        let MergedResults { upload, size, digest, extents, finished_ms } = results;
        self.uploads.touch(upload).await?;
        let holders =
            |placed: PlacedBlob| (placed.blob, placed.holders.iter().map(|holder| holder.node).collect());
        let extents = extents.into_iter().map(holders).collect();
        let action = Action::FileResults { job, finished_ms, size, digest, extents };
        let filed = self.propose_stored(upload, action).await;
        self.uploads.end(upload).await;
        filed?;
        info!(%job, size, "the results are merged into a file");
        Ok(())
    }

    /// The leases of each live member that has reported, while a majority lets this coordinator decide.
    async fn leases_by_worker(&self) -> Result<BTreeMap<NodeId, usize>, ResultMergeError> {
        self.may_decide()?;
        let view = self.deps.membership.current();
        let reports = self.scheduler.view().await?.reports;
        let live = reports.into_iter().filter(|(worker, report)| view.is_live(*worker) && !report.draining);
        let leases: BTreeMap<_, _> = live.map(|(worker, report)| (worker, report.leases.len())).collect();
        if leases.is_empty() { Err(ResultMergeError::NoWorker) } else { Ok(leases) }
    }
}

/// A job's results were not merged; the merge is tried again.
#[derive(Debug, Error)]
enum ResultMergeError {
    #[error("no worker is available")]
    NoWorker,
    #[error("unexpected reply of the worker")]
    UnexpectedReply,
    #[error(transparent)]
    Worker(#[from] WorkerCallError),
    #[error(transparent)]
    Refused(#[from] Refusal),
}
