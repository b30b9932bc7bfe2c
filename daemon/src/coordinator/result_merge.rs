//! The task that has the results of finished jobs merged into one file each, by workers. The bytes do not pass through here.
//!
//! One job at a time. `core::result_merge` decides which job and which worker; a worker that dies, or whose file is refused,
//! costs a pause and then another worker's try.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use idunno_core::metadata::{Action, MergedRows, State};
use idunno_core::result_merge::{ResultMerge, ResultMergeEffect, ResultMergeEvent};
use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::blobs::PlacedBlob;
use idunno_shared::wire::control::JobState;
use idunno_shared::wire::jobs::{MergedResults, WorkReply, WorkRequest};
use idunno_shared::wire::refusal::Refusal;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use super::LeaderTerm;
use super::dataset_freeze::WorkerCallError;
use crate::membership::MembershipView;
use crate::runtime::driver::{Driver, Shell, Turn};

/// The least time between two looks at the jobs: every entry of the log is a change of the state.
const OBSERVE_PERIOD: Duration = Duration::from_millis(100);
/// How long a worker may take for one job.
const MERGE_TIMEOUT: Duration = Duration::from_secs(1800);

/// Outcomes that may wait for the task: there is one merge at a time.
const INPUTS_MAX: usize = 1;

pub(super) enum Input {
    /// The log's jobs may have changed.
    Observe,
    /// A job's results are merged, or not.
    Ended(JobId, Result<(), ResultMergeError>),
}

/// Finds the jobs whose results are to be merged, and asks workers to do it.
pub(super) struct ResultMergeTask {
    leader_term: Weak<LeaderTerm>,
    inputs: mpsc::Sender<Input>,
    state: watch::Receiver<Arc<State>>,
}

impl ResultMergeTask {
    /// Starts the task of a term.
    pub(super) fn spawn(leader_term: &Arc<LeaderTerm>) {
        let LeaderTerm { deps, closed, .. } = &**leader_term;
        let (inputs, queued) = mpsc::channel(INPUTS_MAX);
        let state = deps.consensus.state().clone();
        let shell = Self { leader_term: Arc::downgrade(leader_term), inputs, state };
        let driver = Driver { machine: ResultMerge::default(), shell, clock: deps.clock, inputs: queued };
        driver.spawn("result merge", &deps.monitor, closed);
    }
}

impl Shell for ResultMergeTask {
    type Machine = ResultMerge;
    type Input = Input;

    fn begin(&mut self, turn: &mut Turn<Self>) {
        turn.input(Input::Observe);
    }

    async fn next_input(&mut self) -> Option<Input> {
        self.state.changed().await.ok().map(|()| Input::Observe)
    }

    fn on_deadline(&mut self, turn: &mut Turn<Self>) {
        turn.input(Input::Observe);
    }

    async fn translate(&mut self, input: Input, turn: &mut Turn<Self>) {
        match input {
            Input::Observe => self.observe(turn).await,
            Input::Ended(job, outcome) => {
                turn.event(match outcome {
                    Ok(()) => ResultMergeEvent::Merged(job),
                    Err(error) => {
                        warn!(%job, %error, "the results are not merged yet");
                        ResultMergeEvent::Failed(job)
                    }
                });
                turn.input(Input::Observe);
            }
        }
    }

    async fn carry_out(&mut self, effect: ResultMergeEffect, _turn: &mut Turn<Self>) {
        let ResultMergeEffect::Merge { job, worker } = effect;
        // Without a term there is nothing to merge for.
        let Some(leader_term) = self.leader_term.upgrade() else { return };
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let merged = tokio::select! {
                merged = leader_term.merge_results(job, worker) => merged,
                () = leader_term.closed.cancelled() => return,
            };
            // The task ends with the term.
            let _ = inputs.send(Input::Ended(job, merged)).await;
        });
    }
}

impl ResultMergeTask {
    async fn observe(&mut self, turn: &mut Turn<Self>) {
        if turn.machine.is_merging() {
            // What has changed is seen when that job has ended.
            return;
        }
        tokio::time::sleep(OBSERVE_PERIOD).await;
        let state = Arc::clone(&self.state.borrow_and_update());
        let due = state.unsettled_jobs().filter(|job| job.state == JobState::Done);
        let jobs: Vec<JobId> = due.map(|job| job.id).collect();
        let leases = match self.leader_term.upgrade().filter(|_| !jobs.is_empty()) {
            Some(leader_term) => leader_term.leases_by_worker().await.unwrap_or_else(|refusal| {
                debug!(%refusal, "no results can be merged now");
                BTreeMap::new()
            }),
            None => BTreeMap::new(),
        };
        turn.event(ResultMergeEvent::Due { jobs, leases });
    }
}

impl LeaderTerm {
    /// Has a worker merge a job's results into a file, and enters it into the log.
    async fn merge_results(&self, job: JobId, worker: NodeId) -> Result<(), ResultMergeError> {
        let asked = self.ask_worker(worker, WorkRequest::MergeResults { job }, MERGE_TIMEOUT);
        let members = self.deps.membership.view();
        let reply = while_live(members, worker, asked).await.ok_or(ResultMergeError::Gone(worker))??;
        let WorkReply::ResultsMerged(results) = reply else { return Err(ResultMergeError::UnexpectedReply) };
        let MergedResults { upload, size, digest, extents, finished_ms, first_queries } = results;
        self.uploads.touch(upload).await?;
        let holders =
            |placed: PlacedBlob| (placed.blob, placed.holders.iter().map(|holder| holder.node).collect());
        let extents = extents.into_iter().map(holders).collect();
        let rows = (!first_queries.is_empty()).then_some(MergedRows { worker, first_queries });
        let action = Action::FileResults { job, finished_ms, size, digest, extents, rows };
        let filed = self.propose_stored(upload, action).await;
        self.uploads.end(upload).await;
        filed?;
        info!(%job, size, "the results are merged into a file");
        Ok(())
    }

    /// The leases of each live member that has reported, while a majority lets this coordinator decide.
    async fn leases_by_worker(&self) -> Result<BTreeMap<NodeId, usize>, Refusal> {
        self.may_decide()?;
        let view = self.deps.membership.current();
        let reports = self.scheduler.view().await?.reports;
        let live = reports.into_iter().filter(|(worker, report)| view.is_live(*worker) && !report.draining);
        Ok(live.map(|(worker, report)| (worker, report.leases.len())).collect())
    }
}

/// Carries out a call to a worker, but gives it up when the worker's process is dead or another one has taken its place: a
/// host without power does not even reset its connections.
pub(super) async fn while_live<T>(
    mut members: watch::Receiver<Arc<MembershipView>>,
    worker: NodeId,
    call: impl Future<Output = T>,
) -> Option<T> {
    let process = |view: &MembershipView| {
        let record = &view.members.get(&worker)?.record;
        record.state.is_live().then_some(record.generation)
    };
    let asked = process(&members.borrow())?;
    tokio::select! {
        answer = call => Some(answer),
        _ = members.wait_for(|view| process(view) != Some(asked)) => None,
    }
}

/// A job's results were not merged; the merge is tried again.
#[derive(Debug, Error)]
pub(super) enum ResultMergeError {
    #[error("the worker {0} died during the merge")]
    Gone(NodeId),
    #[error("unexpected reply of the worker")]
    UnexpectedReply,
    #[error(transparent)]
    Worker(#[from] WorkerCallError),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use idunno_shared::wire::membership::{Generation, Incarnation, MemberRecord, MemberState};

    use super::*;
    use crate::membership::ListedMember;

    const WORKER: NodeId = NodeId(2);

    fn view(generation: u64, state: MemberState) -> Arc<MembershipView> {
        let record = MemberRecord {
            id: WORKER,
            name: "m2".parse().unwrap(),
            address: "127.0.0.1:7000".parse().unwrap(),
            generation: Generation(generation),
            incarnation: Incarnation(0),
            state,
        };
        let listed = ListedMember { record, udp_blocked: false, since_ms: 0, clock_ahead_s: 0 };
        Arc::new(MembershipView { me: NodeId(1), members: [(WORKER, listed)].into(), joined: true })
    }

    #[tokio::test]
    async fn a_merge_is_given_up_at_once_when_its_host_is_dead_or_has_restarted() {
        for change in [view(1, MemberState::Dead), view(1, MemberState::Left), view(2, MemberState::Alive)] {
            let (changed, members) = watch::channel(view(1, MemberState::Alive));
            let merge = tokio::spawn(while_live(members, WORKER, pending::<()>()));
            changed.send_replace(view(1, MemberState::Suspect));
            tokio::task::yield_now().await;
            assert!(!merge.is_finished(), "a suspect may refute");
            changed.send_replace(change);
            assert_eq!(merge.await.unwrap(), None);
        }
        let (_changed, members) = watch::channel(view(1, MemberState::Suspect));
        assert_eq!(while_live(members, WORKER, ready(7)).await, Some(7));
    }
}
