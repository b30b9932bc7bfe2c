//! A batch becomes a job: its lines are checked, its job is added and started.
//!
//! Each step may be the last of a gateway that dies, and may be done by two gateways at once: the job's name is the batch's id, and the cluster gives
//! a name once. So whoever shows a batch that has no job yet goes on with it.
//!
//! Bounds: one line, ids of lines, and an extent of the file in memory; four batches at once.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{StreamExt, TryStreamExt, iter};
use idunno_shared::client::cluster::ClusterError;
use idunno_shared::ids::JobId;
use idunno_shared::names::{DatasetName, FileName, JobName, ModelName, NameError};
use idunno_shared::wire::control::{
    Attributes, Change, Changed, ControlReply, ControlRequest, FileVersion, ITEMS_PER_REQUEST_MAX,
    JobOptions, NewFile,
};
use idunno_shared::wire::jobs::BatchSize;
use idunno_shared::wire::records::{ColumnNames, ReadOptions};
use idunno_shared::wire::refusal::RefusalCode;
use s3s::dto::StreamingBlob;
use tokio::task::{JoinHandle, block_in_place};

use super::door::{Caller, Door};
use super::error::{ApiError, ApiResult};
use super::ids::{BatchId, FileId, now_ms};
use super::lines::{Line, Lines, TooLong};
use super::record::Record;
use super::validation::{Endpoint, LineError, Shape, Stopped, Summary, Validator, record_of};
use crate::errors::{of_cluster, slow_down, unexpected};
use crate::ingest::{Announced, receive};
use crate::store::{NewVersion, unplaced};

/// How long the cluster may take to find the lines of a file.
const START_DEADLINE: Duration = Duration::from_mins(5);

/// Why a batch has no job.
enum Refused {
    /// For good: the lines are wrong, or the cluster refuses them.
    Lines(Vec<LineError>),
    /// The same may succeed later.
    Failed(ApiError),
}

impl<E: Into<ApiError>> From<E> for Refused {
    fn from(failed: E) -> Self {
        Self::Failed(failed.into())
    }
}

fn refused(code: &str, message: impl Into<String>) -> Refused {
    Refused::Lines(vec![LineError::of_file(code, message)])
}

fn of_name(wrong: &NameError) -> Refused {
    refused("invalid_name", wrong.to_string())
}

/// What the cluster refuses for good is the batch's error.
fn of_job(failed: ClusterError) -> Refused {
    match failed {
        ClusterError::Refused(refusal)
            if matches!(
                refusal.code,
                RefusalCode::Invalid | RefusalCode::Conflict | RefusalCode::NotFound
            ) =>
        {
            refused("job_refused", refusal.message)
        }
        failed => Refused::Failed(of_cluster(failed).into()),
    }
}

impl Door {
    /// Goes on with a batch, unless this gateway does so already. It is done whether it is waited for or not.
    pub(super) fn admit(&self, caller: &Caller, id: &BatchId) -> Option<JoinHandle<ApiResult<()>>> {
        let name = id.to_string();
        let admitted = || self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        if !admitted().insert(name.clone()) {
            return None;
        }
        let (door, caller, id) = (self.clone(), caller.clone(), id.clone());
        Some(tokio::spawn(async move {
            let permit = Arc::clone(&door.admissions).acquire_owned().await;
            let done = door.admit_now(&caller, &id).await;
            drop(permit);
            door.admitted.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            if let Err(failed) = &done {
                tracing::warn!(batch = name, error = failed.message, "a batch has no job yet");
            }
            done
        }))
    }

    async fn admit_now(&self, caller: &Caller, id: &BatchId) -> ApiResult<()> {
        let Some((record, _)) = self.record(caller, id).await?.filter(|(record, _)| record.is_pending())
        else {
            return Ok(());
        };
        let record = match self.start(caller, id, &record).await {
            Ok((summary, job)) => {
                let started = |record: &mut Record| {
                    record.model = Some(summary.model.clone());
                    record.shape = Some(summary.shape);
                    record.lines = summary.lines;
                    record.job = Some(job.0);
                };
                self.update(caller, id, started).await?
            }
            Err(Refused::Failed(failed)) => return Err(failed),
            Err(Refused::Lines(errors)) => {
                let failed = |record: &mut Record| {
                    // Another gateway may have come to another end.
                    if record.is_pending() {
                        record.errors.clone_from(&errors);
                        record.failed_at = Some(now_ms() / 1_000);
                    }
                };
                self.update(caller, id, failed).await?
            }
        };
        if record.cancelling_at.is_some() {
            self.cancel_job(caller, &record).await?;
        }
        Ok(())
    }

    async fn start(
        &self,
        caller: &Caller,
        id: &BatchId,
        record: &Record,
    ) -> Result<(Summary, JobId), Refused> {
        let gone = || refused("file_not_found", format!("the file {} is gone", record.wanted.input_file_id));
        let file = match record.wanted.input_file_id.parse() {
            Ok(FileId::Uploaded(token)) => self.uploaded(caller, &token).await,
            _ => return Err(gone()),
        };
        let file = match file {
            Err(none) if none.status == http::StatusCode::NOT_FOUND => return Err(gone()),
            file => file?,
        };
        let summary = self.check_lines(caller, &file, record).await?;
        let inputs = match summary.shape {
            Shape::Reply => file.name,
            Shape::Vector => self.write_inputs(caller, id, file).await?,
        };
        let job = self.add_job(caller, id, &summary, &inputs).await?;
        let cluster = caller.store.files.cluster().with_deadline(START_DEADLINE);
        match cluster.change(Change::start(job)).await.map_err(of_job)? {
            Changed::JobStarted { .. } | Changed::StartedBefore { .. } => Ok((summary, job)),
            _ => Err(unexpected().into()),
        }
    }

    async fn check_lines(
        &self,
        caller: &Caller,
        file: &FileVersion,
        record: &Record,
    ) -> Result<Summary, Refused> {
        let endpoint =
            Endpoint::of(&record.wanted.endpoint).ok_or_else(|| refused("invalid_endpoint", "unknown"))?;
        let mut validator = Validator::new(endpoint, self.shapes(caller).await?);
        let mut pieces = self.delivery.stream(caller.store.clone(), file.clone(), 0..file.size);
        let mut lines = Lines::default();
        let mut stopped = Ok(());
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|lost| slow_down(lost.to_string()))?;
            stopped = block_in_place(|| lines.take(piece, |line| validator.take(&line).map_err(End::from)));
            if stopped.is_err() {
                break;
            }
        }
        if stopped.is_ok() {
            stopped = lines.finish(|line| validator.take(&line).map_err(End::from));
        }
        if let Err(End::TooLong(line)) = stopped {
            validator.too_long(line);
        }
        validator.finish().map_err(Refused::Lines)
    }

    /// Writes the texts of checked lines, for a model that takes nothing else.
    async fn write_inputs(
        &self,
        caller: &Caller,
        id: &BatchId,
        file: FileVersion,
    ) -> Result<FileName, Refused> {
        let size = file.size;
        let pieces = self.delivery.stream(caller.store.clone(), file, 0..size);
        let mut lines = Lines::default();
        // An empty piece stands for the end, which ends the last line.
        let pieces = pieces.map_ok(Some).chain(iter([Ok(None)])).map(move |piece| {
            let mut records = Vec::new();
            let mut each = |line: Line| -> Result<(), TooLong> {
                records.extend(record_of(&line.bytes).unwrap_or_default());
                Ok(())
            };
            let taken = match piece.map_err(std::io::Error::other)? {
                Some(piece) => lines.take(piece, &mut each),
                None => std::mem::take(&mut lines).finish(&mut each),
            };
            taken.map_err(|TooLong(line)| std::io::Error::other(format!("line {line} is too long")))?;
            Ok::<Bytes, std::io::Error>(records.into())
        });
        let body = Some(StreamingBlob::wrap(pieces));
        let received = receive(&caller.store, &self.receiving, body, Announced::default()).await?;
        let name = caller.home.inputs(id)?;
        let extents = unplaced(&received.extents);
        let version = NewVersion {
            upload: received.upload,
            file: NewFile { name: name.clone(), size: received.size, digest: received.digest, extents },
            attributes: Attributes::new(),
            expected: None,
            borrows: false,
        };
        caller.store.commit(version).await?;
        Ok(name)
    }

    /// Adds the job, or finds the one that was added before.
    async fn add_job(
        &self,
        caller: &Caller,
        id: &BatchId,
        summary: &Summary,
        inputs: &FileName,
    ) -> Result<JobId, Refused> {
        let model: ModelName = summary.model.parse().map_err(|wrong| of_name(&wrong))?;
        let dataset: DatasetName = inputs.as_str().parse().map_err(|wrong| of_name(&wrong))?;
        let name: JobName = id.to_string().parse().map_err(|wrong| of_name(&wrong))?;
        let column = "custom_id".parse().map_err(|wrong| of_name(&wrong))?;
        let columns = ColumnNames { id: Some(column), ..ColumnNames::default() };
        let options = JobOptions {
            name: Some(name.clone()),
            reading: ReadOptions { columns, ..ReadOptions::default() },
            ..JobOptions::default()
        };
        let add = Change::AddJob { model, dataset, batch_size: BatchSize::Auto, options };
        match caller.store.files.cluster().change(add).await {
            Ok(Changed::JobAdded(job)) => Ok(job),
            Ok(_) => Err(unexpected().into()),
            Err(failed) => match self.job_named(caller, &name).await? {
                Some(job) => Ok(job),
                None => Err(of_job(failed)),
            },
        }
    }

    async fn job_named(&self, caller: &Caller, name: &JobName) -> ApiResult<Option<JobId>> {
        let mut after = None;
        loop {
            let limit = u32::try_from(ITEMS_PER_REQUEST_MAX).unwrap_or(u32::MAX);
            let asked = caller.store.files.cluster().control(ControlRequest::JobPage { after, limit }).await;
            let ControlReply::JobPage { jobs, more } = asked.map_err(of_cluster)? else {
                return Err(unexpected().into());
            };
            if let Some(found) = jobs.iter().find(|job| job.details.name.as_ref() == Some(name)) {
                return Ok(Some(found.id));
            }
            match jobs.last() {
                Some(last) if more => after = Some(last.id),
                _ => return Ok(None),
            }
        }
    }
}

/// The rest of a file is not read.
enum End {
    Stopped,
    TooLong(TooLong),
}

impl From<TooLong> for End {
    fn from(line: TooLong) -> Self {
        Self::TooLong(line)
    }
}

impl From<Stopped> for End {
    fn from(Stopped: Stopped) -> Self {
        Self::Stopped
    }
}
