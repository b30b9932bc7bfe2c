//! Proposals of workers and the scheduler to the log: rows, models, dead letters, pauses.
//!
//! Proposals run beside the task and come back to it as inputs, so that a slow log does not hold up reports. Those of the
//! scheduler are repeated; those of workers are not, because the worker repeats them.

use std::sync::Arc;

use idunno_core::metadata::{Action, Applied, DeadLetterRecord};
use idunno_core::ranges::RangeSet;
use idunno_core::scheduler::{Committed, CompletedBatch, DeadQuery, SchedulerEvent};
use idunno_shared::ids::{JobId, NodeId, UploadId};
use idunno_shared::names::ModelName;
use idunno_shared::wire::blobs::PlacedBlob;
use idunno_shared::wire::control::JobState;
use idunno_shared::wire::jobs::{BatchOutcome, JobReply, SegmentCommit};
use idunno_shared::wire::refusal::Refusal;
use tracing::{info, warn};

use super::super::LeaderTerm;
use super::task::SchedulerTask;
use super::{Answer, Input, Trained};
use crate::runtime::driver::Turn;

impl SchedulerTask {
    pub(super) fn commit(&self, commit: SegmentCommit, reply: Answer<JobReply>) {
        let holders = commit.segment.holders.iter().map(|holder| holder.node).collect();
        let action = Action::CommitSegment {
            worker: commit.worker,
            job: commit.job,
            segment: (commit.segment.blob, holders),
            batches: commit.batches.clone(),
        };
        self.propose(commit.upload, action, move |outcome| Input::Committed(commit, outcome, reply));
    }

    pub(super) fn committed(
        &self,
        commit: &SegmentCommit,
        outcome: Result<Applied, Refusal>,
        reply: Answer<JobReply>,
        turn: &mut Turn<Self>,
    ) {
        let answer = outcome.map(|applied| {
            let answered = commit.batches.iter().flat_map(|batch| batch.answered.iter());
            let mut answered: RangeSet = answered.map(|range| range.queries()).collect();
            let state = self.state();
            let job = state.job(commit.job);
            if let Some(job) = job {
                // Queries that are pending now were dead letters and are to be retried: this commit did not answer them.
                answered = job.decided(&answered);
            }
            turn.event(SchedulerEvent::Committed(Committed {
                worker: commit.worker,
                job: commit.job,
                batches: commit.batches.iter().map(completed).collect(),
                ranges: answered.queries().collect(),
            }));
            if job.is_some_and(|job| job.state == JobState::Done) {
                turn.input(Input::Refresh);
            }
            match applied {
                Applied::Committed { accepted, duplicates, .. } => {
                    JobReply::Committed { accepted, duplicates }
                }
                Applied::Changed(_) | Applied::Done => JobReply::Noted,
            }
        });
        // The worker may have gone meanwhile; the log has its rows.
        let _ = reply.send(answer);
    }

    pub(super) fn trained(
        &self,
        worker: NodeId,
        model: ModelName,
        Trained { upload, artefact, training, metrics, report, package }: Trained,
        reply: Answer<()>,
    ) {
        if self.state().model(&model).is_none_or(|model| model.training.is_none()) {
            // Another worker has trained it already.
            let _ = reply.send(Ok(()));
            return;
        }
        info!(%worker, %model, version = %artefact.version, "a model was trained");
        let held = |placed: &PlacedBlob| {
            (placed.blob, placed.holders.iter().map(|holder| holder.node).collect::<Vec<_>>())
        };
        let action = Action::ModelTrained {
            model,
            version: artefact.version,
            size: artefact.extents.iter().map(|placed| placed.blob.size).sum(),
            extents: artefact.extents.iter().map(held).collect(),
            training,
            metrics,
            report: report.as_ref().map(held),
            package,
        };
        self.propose(upload, action, move |outcome| {
            // The worker may have gone meanwhile; the log has the model.
            let _ = reply.send(outcome.map(drop));
            Input::Refresh
        });
    }

    /// Runs a worker's proposal in the background; `then` turns its outcome into an input.
    fn propose(
        &self,
        upload: UploadId,
        action: Action,
        then: impl FnOnce(Result<Applied, Refusal>) -> Input + Send + 'static,
    ) {
        self.in_background(
            |leader_term| async move { then(leader_term.propose_stored(upload, action).await) },
        );
    }

    /// The same for a proposal of the scheduler, which is repeated as long as its outcome is unknown.
    pub(super) fn propose_surely(
        &self,
        action: Action,
        then: impl FnOnce(Result<(), Refusal>) -> Input + Send + 'static,
    ) {
        self.in_background(|leader_term| async move {
            let outcome = leader_term.propose_surely(action).await.map(drop);
            if let Err(refusal) = &outcome {
                warn!(%refusal, "the log refused a decision of the scheduler");
            }
            then(outcome)
        });
    }

    fn in_background<F>(&self, work: impl FnOnce(Arc<LeaderTerm>) -> F)
    where
        F: Future<Output = Input> + Send + 'static,
    {
        let Some(leader_term) = self.leader_term.upgrade() else { return };
        let (inputs, work) = (self.inputs.clone(), work(leader_term));
        tokio::spawn(async move {
            // When the term is over, the next coordinator reads the log.
            let _ = inputs.send(work.await).await;
        });
    }

    pub(super) fn mark_dead(&self, job: JobId, dead: Vec<DeadQuery>) {
        let mut queries = RangeSet::new();
        for dead_letter in &dead {
            warn!(%job, query = dead_letter.index, reason = %dead_letter.reason, "a query failed permanently and is a dead letter");
            queries.insert(dead_letter.index..dead_letter.index + 1);
        }
        let dead_letter = |dead: DeadQuery| DeadLetterRecord {
            index: dead.index,
            reason: dead.reason,
            worker: dead.worker,
            attempts: dead.attempts,
            name: None,
            identity: dead.identity,
        };
        let dead_letters = dead.into_iter().map(dead_letter).collect();
        let queries = queries.queries().collect();
        self.propose_surely(Action::DeadLetters { job, dead_letters }, move |outcome| {
            Input::MarkedDead(job, queries, outcome)
        });
    }
}

fn completed(batch: &BatchOutcome) -> CompletedBatch {
    CompletedBatch {
        lease: batch.lease,
        inferred: batch.inferred(),
        inference_us: batch.inference_us,
        refused: batch.refused,
    }
}
