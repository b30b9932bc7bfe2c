//! The cluster's metadata: files, blobs, jobs, models and identities, as the commands of the log make them.
//!
//! Decides how each command changes the state and what it returns. This is the state machine of Raft (Ongaro and
//! Ousterhout 2014, section 2): deterministic, without clock or randomness, the same on every voter.
//!
//! Invariants, recomputed by [`State::check`]:
//! - a blob's reference count equals the references from file versions, kept or retired, held inputs, segments, folded ones
//!   included, and models;
//! - no query of a job is both answered and dead, a done job has none pending, and the ranges of its segments are
//!   disjoint and together equal the answered queries;
//! - a job references the inputs of every query that may have to run, and keeps their names for these and for dead
//!   queries;
//! - a file has 1 to [`VERSIONS_KEPT`](idunno_shared::wire::control::VERSIONS_KEPT) versions, in order;
//! - a refused command changes nothing; one that names an upload that is over, or that a revoked identity asked for, is
//!   refused.
//!
//! Bounds: [`JOBS_MAX`] jobs of at most [`QUERIES_PER_JOB_MAX`] queries, [`MODELS_MAX`] models,
//! [`OPERATIONS_MAX`] outcomes, [`HOLDERS_PER_BLOB_MAX`] holders per blob, reasons of
//! [`REASON_BYTES_MAX`] bytes. Memory bounds the number of files: about 350 B for a small one. A clone costs O(1) and
//! shares whatever later commands do not change.
//!
//! **Not here**: liveness and addresses of members, open uploads (but for the watermark below which all are over), leases.

use std::sync::Arc;

use idunno_shared::ids::{JobId, UploadId};
use idunno_shared::names::ModelName;
use idunno_shared::wire::control::{Change, Changed};
use idunno_shared::wire::jobs::{Policy, REASON_BYTES_MAX};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

mod blobs;
mod check;
mod command;
mod compact;
mod completions;
mod copies;
mod dataset_freeze;
mod files;
mod folding;
mod followers;
mod identities;
mod job_lifecycle;
mod jobs;
mod models;
mod one_or_many;
mod operations;
mod pins;
mod records;
mod statistics;
#[cfg(test)]
mod tests;
mod views;
mod webhooks;

pub use blobs::{Blob, BlobTable, HOLDERS_PER_BLOB_MAX};
pub use command::{Action, Applied, AskedBy, Command, DeadLetterRecord, HolderChange};
pub use completions::{BATCHES_PER_COMMIT_MAX, DEAD_LETTERS_PER_COMMAND_MAX};
pub use dataset_freeze::{FileKind, Inputs, LABELS_BYTES_MAX, Manifest, Query};
pub use files::{FileRecord, VersionRecord};
pub use folding::{FOLDED_RELEASED_PER_COMMAND_MAX, MergedRows};
pub use identities::{RevokedNames, revoked_text};
pub use job_lifecycle::results_file;
pub use jobs::{JOBS_MAX, JobRecord, JobTerms, QUERIES_PER_JOB_MAX, Segment};
pub use models::{Artefact, MODELS_MAX, ModelRecord, PREDEFINED_MODELS};
pub use one_or_many::OneOrMany;
pub use operations::{KEPT_MS, OPERATIONS_KEPT, OPERATIONS_MAX, OUTCOME_ITEMS_KEPT};
pub use pins::{
    CHECKPOINT_BYTES_MAX, CHECKPOINTS_MAX, FolderIndex, FolderPart, PinnedFolder, RELEASED_PER_COMMAND_MAX,
};
pub use records::{Block, RECORD_BYTES_MAX, RecordSpan, Records};
pub use statistics::{JobStatistics, RATE_WINDOW_S};
pub use views::{STORED_VISITED_MAX, StoredPage};
pub use webhooks::Webhook;

use files::{CommitTerms, Content};
use models::TrainedContent;

/// The metadata. A clone is a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    revision: u64,
    now_ms: u64,
    #[serde(deserialize_with = "compact::read_table")]
    files: OrdMap<files::FileKey, Arc<FileRecord>>,
    #[serde(deserialize_with = "compact::read_blobs")]
    blobs: BlobTable,
    jobs: OrdMap<JobId, Arc<JobRecord>>,
    models: OrdMap<ModelName, Arc<ModelRecord>>,
    operations: operations::Operations,
    #[serde(default)]
    policy: Policy,
    /// The highest job number ever given: numbers are not reused.
    #[serde(default)]
    last_job: u64,
    /// All uploads below are over.
    #[serde(default)]
    upload_watermark: UploadId,
    #[serde(default)]
    retired: pins::RetiredVersions,
    #[serde(default)]
    identities: identities::Identities,
    /// Segments that are no job's any more, and whose blobs are released by the commands that follow.
    #[serde(default, skip_serializing_if = "folding::FoldedSegments::is_empty")]
    folded: folding::FoldedSegments,
    /// The jobs that are not over, or whose results are yet to be merged into a file.
    #[serde(skip)]
    unsettled: OrdSet<JobId>,
    /// The jobs whose webhooks are yet to be told of an end.
    #[serde(skip)]
    untold: OrdSet<JobId>,
    #[serde(skip)]
    pins: pins::Pins,
    #[serde(skip)]
    holder_lists: compact::HolderLists,
}

/// The stored form of the state, with its format version, so that later releases can read it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Snapshot {
    /// Format 1: jobs over folders list their inputs.
    V1(State),
    /// Format 2: jobs over folders pin them.
    V2(State),
}

impl From<State> for Snapshot {
    fn from(state: State) -> Self {
        Self::V2(state)
    }
}

impl From<Snapshot> for State {
    fn from(snapshot: Snapshot) -> Self {
        let (Snapshot::V1(mut state) | Snapshot::V2(mut state)) = snapshot;
        state.pins = pins::Pins::of(state.jobs.values());
        state.unsettled = state.jobs.values().filter(|job| job.is_unsettled()).map(|job| job.id).collect();
        state.untold =
            state.jobs.values().filter(|job| job.webhook_due_ms().is_some()).map(|job| job.id).collect();
        state.share_with_files();
        state
    }
}

impl State {
    /// The state before the first command.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many commands have been applied.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How workers are shared between running jobs.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// The time of the last command, in milliseconds since the epoch.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// All uploads below this one are over: nothing that was stored under them alone is committed any more.
    pub fn upload_watermark(&self) -> UploadId {
        self.upload_watermark
    }

    /// Applies a command. A refused command changes nothing; one whose operation was applied before returns the outcome of
    /// that time.
    pub fn apply(&mut self, command: &Command) -> Result<Applied, Refusal> {
        if let Some(outcome) = command.op.and_then(|op| self.operations.outcome(op)) {
            return Ok(outcome.clone());
        }
        self.check_asker(command.by.as_ref().map(|by| &by.name))?;
        if command.upload().is_some_and(|upload| upload < self.upload_watermark) {
            let message =
                "the upload has ended, because the coordinator changed or it was idle: plan it again";
            return Err(Refusal::new(RefusalCode::UploadOver, message));
        }
        let before_ms = self.now_ms;
        self.now_ms = before_ms.max(command.at_ms);
        let outcome = self.apply_action(&command.action, command.by.as_ref());
        match &outcome {
            Ok(applied) => {
                self.revision += 1;
                self.release_retired();
                self.release_folded();
                if let Some(op) = command.op {
                    self.operations.keep(op, applied, self.now_ms);
                }
            }
            Err(_) => self.now_ms = before_ms,
        }
        outcome
    }

    /// Each arm validates its whole input before it changes anything.
    fn apply_action(&mut self, action: &Action, by: Option<&AskedBy>) -> Result<Applied, Refusal> {
        match action {
            Action::Change(change) => self.apply_change(change, by).map(Applied::Changed),
            Action::Holders(changes) => Ok(self.change_holders(changes)),
            Action::Forget(digests) => Ok(self.forget(digests)),
            Action::CommitSegment { worker, job, segment, batches } => {
                self.commit_segment(*worker, *job, segment, batches)
            }
            Action::DeadLetters { job, dead_letters } => self.mark_dead(*job, dead_letters),
            Action::PauseJob { job, reason } => self.pause_job(*job, reason),
            Action::ModelTrained { model, version, size, extents, training, metrics, report, package } => {
                let content = Content { size: *size, digest: *version, extents };
                let (report, package) = (report.as_ref().map(std::slice::from_ref), package.as_ref());
                self.model_trained(model, TrainedContent { content, training, metrics, report, package })
            }
            Action::ModelFailed { model, reason } => self.model_failed(model, reason),
            Action::PinFolder { job } => self.pin_folder(*job),
            Action::UnpinFolder { job } => self.unpin_folder(*job),
            Action::StartJob { job, inputs, options } => {
                self.start_job(*job, Some(inputs), *options).map(Applied::Changed)
            }
            Action::FileResults { job, finished_ms, size, digest, extents, rows } => {
                let content = Content { size: *size, digest: *digest, extents };
                self.file_results(*job, *finished_ms, content, rows.as_ref())
            }
            Action::EndWebhook { job, due_ms, failure } => {
                self.end_webhook(*job, *due_ms, failure.as_deref())
            }
            Action::EndUploads(watermark) => {
                self.upload_watermark = self.upload_watermark.max(*watermark);
                Ok(Applied::Done)
            }
            Action::NoteIdentity(issued) => self.note_identity(issued),
        }
    }

    fn apply_change(&mut self, change: &Change, by: Option<&AskedBy>) -> Result<Changed, Refusal> {
        match change {
            Change::CommitFiles { upload: _, files } => {
                self.commit_files(files, by.filter(|by| by.is_confined()))
            }
            Change::CommitFile { upload: _, file, attributes, expected, borrows } => {
                let terms = CommitTerms { attributes, expected: *expected, borrows: *borrows };
                self.commit_file(file, terms, by.filter(|by| by.is_confined()))
            }
            Change::Delete { name } => self.delete(name),
            Change::DeleteFiles { names } => self.delete_files(names),
            Change::CopyFiles { copies, moves, replace } => self.copy_files(copies, *moves, *replace),
            Change::TrainStart { models, training } => self.start_training(models, training),
            Change::AddJob { model, dataset, batch_size, options } => {
                self.add_job(model, dataset, *batch_size, options, by.map(|by| &by.name))
            }
            Change::SetBatchSize { job, batch_size } => self.set_batch_size(*job, *batch_size),
            Change::StartJob { job, options } => self.start_job(*job, None, *options),
            Change::StopJob { job } => self.stop_job(*job),
            Change::RetryDeadLetters { job, queries } => self.retry_dead_letters(*job, queries),
            Change::DropDeadLetters { job, queries } => self.drop_dead_letters(*job, queries),
            Change::CancelJob { job } => self.cancel_job(*job),
            Change::DeleteJob { job } => self.delete_job(*job),
            Change::TrainStop { models } => self.stop_training(models),
            Change::AddModel { upload: _, model, package, unchecked: _ } => {
                self.add_model(model, package, by.filter(|by| by.is_confined()))
            }
            Change::RemoveModel { model, force } => self.remove_model(model, *force),
            Change::SetWebhook { job, url } => self.set_webhook(*job, url.as_ref()),
            Change::SetWeight { job, weight } => self.set_weight(*job, *weight),
            Change::RevokeIdentity { name, unseen } => {
                self.revoke_identity(name, *unseen, by.map(|by| &by.name))
            }
            Change::SetPolicy(policy) => {
                self.policy = *policy;
                Ok(Changed::Done)
            }
        }
    }
}

/// The first [`REASON_BYTES_MAX`] bytes of a reason, without a partial character at the end.
fn truncate_reason(reason: &str) -> String {
    let end = (0..=REASON_BYTES_MAX.min(reason.len())).rev().find(|at| reason.is_char_boundary(*at));
    reason[..end.unwrap_or(0)].to_owned()
}
