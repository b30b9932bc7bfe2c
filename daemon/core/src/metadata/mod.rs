//! The cluster's metadata: files, blobs, jobs and models, as the log's commands make them.
//!
//! Decides what each command does to the state and what it answers. It is the state machine under Raft
//! (Ongaro and Ousterhout 2014, section 2): deterministic, without clock or chance, the same on every voter.
//!
//! Invariants, recomputed by [`State::check`]:
//! - a blob's references are exactly those of file versions, held manifests, segments and models;
//! - of each started job's queries none is both answered and dead, a finished one has none pending, and the accepted
//!   ranges of its segments are disjoint and together the answered queries;
//! - a job keeps the references to its inputs as long as any of them may have to be run, and their names as long as
//!   that, or while any of them is dead;
//! - at most [`VERSIONS_KEPT`](idunno_shared::wire::control::VERSIONS_KEPT) versions a file, in order, never none;
//! - a refused command changes nothing.
//!
//! Bounds: [`JOBS_MAX`] jobs of at most [`QUERIES_PER_JOB_MAX`] queries, [`MODELS_MAX`](models::MODELS_MAX) models,
//! [`OPERATIONS_MAX`] outcomes, [`HOLDERS_PER_BLOB_MAX`](blobs::HOLDERS_PER_BLOB_MAX) holders a blob, reasons of
//! [`REASON_BYTES_MAX`] bytes. The number of files is bounded by memory: about 0.5 KB for a small file. A clone costs
//! O(1) and shares all that later commands leave alone.
//!
//! It does not know who is alive, where members listen, which uploads are open and which batches are leased.

use std::sync::Arc;

use idunno_shared::ids::JobId;
use idunno_shared::names::ModelName;
use idunno_shared::wire::control::{Change, Changed};
use idunno_shared::wire::jobs::{Policy, REASON_BYTES_MAX};
use idunno_shared::wire::refusal::Refusal;
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

mod blobs;
mod check;
mod command;
mod completions;
mod dataset_freeze;
mod files;
mod job_lifecycle;
mod jobs;
mod manifest;
mod models;
mod operations;
mod statistics;
#[cfg(test)]
mod tests;
mod views;

pub use blobs::{Blob, BlobTable, HOLDERS_PER_BLOB_MAX};
pub use command::{Action, Applied, Command, DeadLetterRecord, HolderChange};
pub use completions::{BATCHES_PER_COMMIT_MAX, LETTERS_PER_COMMAND_MAX};
pub use dataset_freeze::{Block, FileKind, Inputs, RECORD_BYTES_MAX, Records, Span};
pub use files::{File, Version};
pub use job_lifecycle::results_file;
pub use jobs::{JOBS_MAX, Job, QUERIES_PER_JOB_MAX, Segment};
pub use manifest::{Manifest, Query};
pub use models::{Artefact, MODELS_MAX, Model, PREDEFINED_MODELS};
pub use operations::{KEPT_MS, OPERATIONS_KEPT, OPERATIONS_MAX, OUTCOME_ITEMS_KEPT};
pub use statistics::{RATE_WINDOW_S, Statistics};

/// The metadata. Its clone is a snapshot of the moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    revision: u64,
    now_ms: u64,
    files: OrdMap<files::Key, Arc<File>>,
    blobs: BlobTable,
    jobs: OrdMap<JobId, Arc<Job>>,
    models: OrdMap<ModelName, Arc<Model>>,
    operations: operations::Operations,
    #[serde(default)]
    policy: Policy,
    /// The highest number that a job ever had: none comes back.
    #[serde(default)]
    last_job: u64,
}

/// The state as it is stored: a version beside it, so that a later program can read what an earlier one wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Snapshot {
    /// The first format.
    V1(State),
}

impl From<State> for Snapshot {
    fn from(state: State) -> Self {
        Self::V1(state)
    }
}

impl From<Snapshot> for State {
    fn from(snapshot: Snapshot) -> Self {
        match snapshot {
            Snapshot::V1(state) => state,
        }
    }
}

impl State {
    /// The state before the first command.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many commands have changed it.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// In what jobs that run at once are equal.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// The time of the last command, in milliseconds since the epoch.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Does what `command` says, or refuses and changes nothing.
    pub fn apply(&mut self, command: &Command) -> Result<Applied, Refusal> {
        if let Some(outcome) = command.op.and_then(|op| self.operations.outcome(op)) {
            return Ok(outcome.clone());
        }
        let before_ms = self.now_ms;
        self.now_ms = before_ms.max(command.at_ms);
        let outcome = self.act(&command.action);
        match &outcome {
            Ok(applied) => {
                self.revision += 1;
                if let Some(op) = command.op {
                    self.operations.keep(op, applied, self.now_ms);
                }
            }
            Err(_) => self.now_ms = before_ms,
        }
        outcome
    }

    /// Every arm checks all of its input before it changes anything.
    fn act(&mut self, action: &Action) -> Result<Applied, Refusal> {
        match action {
            Action::Change(change) => self.change(change).map(Applied::Changed),
            Action::Holders(changes) => Ok(self.change_holders(changes)),
            Action::Forget(digests) => Ok(self.forget(digests)),
            Action::CommitSegment { worker, job, segment, batches } => {
                self.commit_segment(*worker, *job, segment, batches)
            }
            Action::DeadLetters { job, dead_letters } => self.mark_dead(*job, dead_letters),
            Action::PauseJob { job, reason } => self.pause_job(*job, reason),
            Action::ModelTrained { model, version, size, extents, training, metrics, report } => {
                let report = report.as_ref().map(std::slice::from_ref);
                self.model_trained(model, (*version, *size, extents), (training, metrics), report)
            }
            Action::ModelFailed { model, reason } => self.model_failed(model, reason),
            Action::StartJob { job, inputs } => self.start_job(*job, Some(inputs)).map(Applied::Changed),
            Action::FileResults { job, finished_ms, size, digest, extents } => {
                self.file_results(*job, *finished_ms, (*size, *digest), extents)
            }
        }
    }

    fn change(&mut self, change: &Change) -> Result<Changed, Refusal> {
        match change {
            // Whether the upload is still open is the coordinator's to know, before it proposes the commit.
            Change::CommitFiles { upload: _, files } => self.commit_files(files),
            Change::Delete { name } => self.delete(name),
            Change::TrainStart { models, training } => self.start_training(models, training),
            Change::AddJob { model, dataset, batch_size, options } => {
                self.add_job(model, dataset, *batch_size, options)
            }
            Change::SetBatchSize { job, batch_size } => self.set_batch_size(*job, *batch_size),
            Change::StartJob { job } => self.start_job(*job, None),
            Change::StopJob { job } => self.stop_job(*job),
            Change::RetryDeadLetters { job, queries } => self.retry_dead_letters(*job, queries),
            Change::DropDeadLetters { job, queries } => self.drop_dead_letters(*job, queries),
            Change::CancelJob { job } => self.cancel_job(*job),
            Change::DeleteJob { job } => self.delete_job(*job),
            Change::TrainStop { models } => self.stop_training(models),
            Change::SetWeight { job, weight } => self.set_weight(*job, *weight),
            Change::SetPolicy(policy) => {
                self.policy = *policy;
                Ok(Changed::Done)
            }
        }
    }
}

/// At most the first [`REASON_BYTES_MAX`] bytes of a reason, whole characters.
fn cut_reason(reason: &str) -> String {
    let end = (0..=REASON_BYTES_MAX.min(reason.len())).rev().find(|at| reason.is_char_boundary(*at));
    reason[..end.unwrap_or(0)].to_owned()
}
