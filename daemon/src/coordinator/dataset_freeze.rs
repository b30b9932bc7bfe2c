//! What a job starts with: checks its parameters with a model server, and indexes its dataset where that is one file.
//!
//! The log freezes the index together with the digest of the file it was made from, and refuses it if the file has changed.
//! Bounds: one dataset is read at a time, an extent of it at a time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use idunno_core::metadata::{
    Action, Applied, AskedBy, FileKind, Inputs, JobRecord, LABELS_BYTES_MAX, State, VersionRecord,
};
use idunno_shared::client::connections::PeerError;
use idunno_shared::client::files::Unavailable;
use idunno_shared::ids::{Digest, JobId, NodeId, OpId};
use idunno_shared::wire::blobs::BlobRef;
use idunno_shared::wire::control::{Change, JobState, LABELS_FILE, Selection, StartOptions};
use idunno_shared::wire::frame::{Reply, Request};
use idunno_shared::wire::jobs::{ModelState, ServerState, WorkReply, WorkRequest};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use thiserror::Error;
use tracing::info;

use super::LeaderTerm;
use super::grants::placed;
use super::long_work::{WorkProgress, WorkSubject};
use idunno_worker::records::record_index::{RecordIndex, RecordIndexError};
use idunno_worker::records::{self, parquet_index};

const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// Workers that are asked about parameters.
const WORKERS_ASKED_MAX: usize = 3;

impl LeaderTerm {
    /// Starts or resumes a job. The first start may read the whole dataset: it goes on when the request ends.
    pub(super) async fn start_job(
        &self,
        op: OpId,
        by: Option<AskedBy>,
        id: JobId,
        options: StartOptions,
    ) -> Result<Applied, Refusal> {
        let state = self.barrier().await?;
        let job = state.job_or_refusal(id)?;
        let trained = state.model(&job.model).is_some_and(|model| model.artefact.is_some());
        if job.state != JobState::Added || !trained {
            return self.propose_asked(op, by, Action::Change(Change::StartJob { job: id, options })).await;
        }
        let this = self.this.upgrade().ok_or_else(|| self.not_coordinator())?;
        let job = Arc::clone(job);
        let first_start = |progress| async move { this.first_start(op, by, &job, options, &progress).await };
        self.long_work.join(op, WorkSubject::Job(id), first_start).await
    }

    /// Reads what a job starts with, and starts it.
    async fn first_start(
        &self,
        op: OpId,
        by: Option<AskedBy>,
        job: &JobRecord,
        options: StartOptions,
        progress: &WorkProgress,
    ) -> Result<Applied, Refusal> {
        self.check_parameters(job).await?;
        let state = self.barrier().await?;
        let inputs = match state.dataset_file(&job.dataset) {
            None => {
                self.check_label_table(&state, job).await?;
                check_reading(job)?;
                self.index_folder(job.id).await?
            }
            Some((kind, version)) => {
                let indexed =
                    self.index_records(&state, job, options.selection, (kind, version), progress).await;
                indexed.map_err(|why| {
                    Refusal::conflict(format!("{} cannot start: dataset '{}': {why}", job.id, job.dataset))
                })?
            }
        };
        let is_pinned = matches!(inputs, Inputs::Folder { .. });
        let started = self.propose_asked(op, by, Action::StartJob { job: job.id, inputs, options }).await;
        if let Err(Refusal {
            code: RefusalCode::Invalid | RefusalCode::Conflict | RefusalCode::Forbidden,
            ..
        }) = &started
            && is_pinned
        {
            // Refused if another start was first, which has a pin of its own.
            let _ = self.propose(None, Action::UnpinFolder { job: job.id }).await;
        }
        started
    }

    /// Pins the folder of a job, and counts its files.
    async fn index_folder(&self, id: JobId) -> Result<Inputs, Refusal> {
        self.propose(None, Action::PinFolder { job: id }).await?;
        let state = self.barrier().await?;
        let count = move || {
            let job = state.job_or_refusal(id)?;
            let pinned_again =
                || Refusal::conflict(format!("{id} has been changed meanwhile: start it again"));
            let moment = job.folder.as_ref().ok_or_else(pinned_again)?.moment;
            let index = state.index_folder(job).ok_or_else(pinned_again)?;
            Ok(Inputs::Folder { moment, index })
        };
        let counted = tokio::task::spawn_blocking(count).await;
        counted.unwrap_or_else(|error| Err(Refusal::internal(format!("counting files was aborted: {error}"))))
    }

    /// Refuses a label table that no worker could read. The log does not: what it once accepted it must always accept.
    async fn check_label_table(&self, state: &State, job: &JobRecord) -> Result<(), Refusal> {
        let Some(table) = state.label_table(&job.dataset) else { return Ok(()) };
        let refused = |why: String| {
            Refusal::invalid(format!("{} cannot start: {}/{LABELS_FILE}: {why}", job.id, job.dataset))
        };
        let bytes = table.size();
        if bytes > LABELS_BYTES_MAX {
            return Err(refused(format!(
                "it has {bytes} bytes, but a label table may have {LABELS_BYTES_MAX}: split the dataset"
            )));
        }
        let Some(&first) = table.extents.first() else { return Ok(()) };
        let placed = placed(state, &self.deps.membership.current(), first);
        let read = self.deps.files.fetch_blob(&placed).await;
        // If it cannot be read now, the batches wait for it.
        let not_text = read.ok().and_then(|bytes| records::not_text(&bytes));
        not_text.map_or(Ok(()), |why| Err(refused(why.to_owned())))
    }

    async fn index_records(
        &self,
        state: &State,
        job: &JobRecord,
        selection: Selection,
        (kind, version): (FileKind, &VersionRecord),
        progress: &WorkProgress,
    ) -> Result<Inputs, IndexError> {
        let _one_at_a_time = self.reading.lock().await;
        if kind == FileKind::Parquet {
            return self.index_parquet(state, job, version, progress).await;
        }
        let mut index = RecordIndex::new(kind, job.terms.reading.clone(), selection);
        let mut read_bytes = 0;
        progress.report(read_bytes, version.size());
        for &extent in &*version.extents {
            if index.is_complete() {
                break;
            }
            index = self.index_extent(state, index, extent).await?;
            read_bytes += extent.size;
            progress.report(read_bytes, version.size());
        }
        let inputs = index.finish(version.digest())?;
        if let Inputs::Records { count, blocks, .. } = &inputs {
            info!(records = count, blocks = blocks.len(), "indexed a dataset");
        }
        Ok(inputs)
    }

    /// Reads the footer only.
    async fn index_parquet(
        &self,
        state: &State,
        job: &JobRecord,
        version: &VersionRecord,
        progress: &WorkProgress,
    ) -> Result<Inputs, IndexError> {
        let file_bytes = version.size();
        let mut end = Bytes::new();
        let mut before = version.extents.iter().rev();
        while parquet_index::missing_bytes(&end, file_bytes)?.is_some() {
            let Some(&extent) = before.next() else { break };
            progress.report(end.len() as u64, file_bytes);
            let placed = placed(state, &self.deps.membership.current(), extent);
            let bytes = self.deps.files.fetch_blob(&placed).await?;
            end = [&bytes[..], &end[..]].concat().into();
        }
        let (options, digest) = (job.terms.reading.clone(), version.digest());
        let index = move || parquet_index::index(&options, &end, file_bytes, digest);
        let inputs = tokio::task::spawn_blocking(index).await??;
        if let Inputs::Records { count, blocks, .. } = &inputs {
            info!(rows = count, row_groups = blocks.len(), "indexed a Parquet file");
        }
        Ok(inputs)
    }

    async fn index_extent(
        &self,
        state: &State,
        mut index: RecordIndex,
        extent: BlobRef,
    ) -> Result<RecordIndex, IndexError> {
        let placed = placed(state, &self.deps.membership.current(), extent);
        let bytes = self.deps.files.fetch_blob(&placed).await?;
        let index = tokio::task::spawn_blocking(move || index.take(&bytes).map(|()| index)).await??;
        Ok(index)
    }

    /// Has a worker's model server check a job's parameters.
    async fn check_parameters(&self, job: &JobRecord) -> Result<(), Refusal> {
        if job.parameters.is_empty() {
            return Ok(());
        }
        let version = self.state().model(&job.model).and_then(|model| Some(model.artefact.as_ref()?.version));
        let request = WorkRequest::CheckParameters {
            model: job.model.clone(),
            parameters: (*job.parameters).clone(),
            version,
        };
        let mut last = String::from("none is ready");
        for worker in self.workers_with(job, version).await?.into_iter().take(WORKERS_ASKED_MAX) {
            match self.ask_worker(worker, request.clone(), CHECK_TIMEOUT).await {
                Ok(WorkReply::Checked(Ok(()))) => return Ok(()),
                Ok(WorkReply::Checked(Err(why))) => {
                    return Err(Refusal::invalid(format!("{} cannot start: {why}", job.id)));
                }
                Ok(WorkReply::ResultsMerged(_)) => last = String::from("unexpected reply"),
                Err(error) => last = error.to_string(),
            }
        }
        let message = format!(
            "{} cannot start: no model server could check its parameters ({last}): try again",
            job.id
        );
        Err(Refusal::conflict(message))
    }

    /// Workers whose model server is ready, those with this version of the job's model first.
    async fn workers_with(&self, job: &JobRecord, version: Option<Digest>) -> Result<Vec<NodeId>, Refusal> {
        let reports = self.scheduler.view().await?.reports;
        let ready = reports.into_values().filter(|report| report.server == ServerState::Ready);
        let has_model = |models: &[(_, ModelState)]| {
            let is_ready =
                |state: &ModelState| matches!(state, ModelState::Ready(ready) if Some(*ready) == version);
            models.iter().any(|(model, state)| *model == job.model && is_ready(state))
        };
        let mut workers: Vec<_> = ready.map(|report| (!has_model(&report.models), report.worker)).collect();
        workers.sort_unstable();
        Ok(workers.into_iter().map(|(_, worker)| worker).collect())
    }

    /// Asks a worker for something besides its batches.
    pub(super) async fn ask_worker(
        &self,
        worker: NodeId,
        request: WorkRequest,
        limit: Duration,
    ) -> Result<WorkReply, WorkerCallError> {
        let view = self.deps.membership.current();
        let worker_name = view.name(worker);
        let Some(address) = view.address(worker) else {
            return Err(WorkerCallError::Gone { worker: worker_name });
        };
        match self.deps.peers.call_member(worker, address, Request::Work(request), limit).await? {
            Reply::Work(reply) => Ok(reply),
            Reply::Refused(source) => Err(WorkerCallError::Refused { worker: worker_name, source }),
            _ => Err(WorkerCallError::UnexpectedReply { worker: worker_name }),
        }
    }
}

/// Refuses options for the columns of files that have none.
fn check_reading(job: &JobRecord) -> Result<(), Refusal> {
    if job.terms.reading.is_default() {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "{} cannot start: dataset '{}' is no file of records, so it has no columns to choose or to keep",
        job.id, job.dataset
    )))
}

/// A file cannot be read as a dataset.
#[derive(Debug, Error)]
enum IndexError {
    #[error(transparent)]
    Fetch(#[from] Unavailable),
    #[error(transparent)]
    Records(#[from] RecordIndexError),
    #[error("reading was aborted: {0}")]
    Aborted(#[from] tokio::task::JoinError),
}

/// A worker did not carry out a request.
#[derive(Debug, Error)]
pub(super) enum WorkerCallError {
    #[error("{worker} is gone")]
    Gone { worker: String },
    #[error("{worker}: {source}")]
    Refused { worker: String, source: Refusal },
    #[error("{worker}: unexpected reply")]
    UnexpectedReply { worker: String },
    #[error(transparent)]
    Call(#[from] PeerError),
}
