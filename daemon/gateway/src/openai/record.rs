//! A batch: what is stored of it, and how it is shown with its job.
//!
//! The record has what the job does not: which file and endpoint, metadata, what was wrong with lines. All that changes while the job runs is the
//! job's. So any gateway shows a batch, whichever created it.

use std::collections::BTreeMap;

use idunno_shared::ids::JobId;
use idunno_shared::wire::control::{JobState, JobView};
use serde::{Deserialize, Serialize};

use super::ids::{BatchId, FileId, Part};
use super::validation::{LineError, Shape};

/// When a result's file is to end. It is kept with the batch; a job's results stay until the job is deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiresAfter {
    /// `created_at`.
    pub anchor: String,
    /// Seconds after it.
    pub seconds: u64,
}

/// What a program asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The file with the lines.
    pub input_file_id: String,
    /// The endpoint's path.
    pub endpoint: String,
    /// `24h`.
    pub completion_window: String,
    /// The program's own.
    pub metadata: Option<BTreeMap<String, String>>,
    /// When the results' files end.
    pub output_expires_after: Option<ExpiresAfter>,
}

/// What is stored of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What was asked for.
    pub wanted: Wanted,
    /// The model, once the lines were checked.
    pub model: Option<String>,
    /// How the model answers.
    pub shape: Option<Shape>,
    /// The lines, once they were checked.
    pub lines: u64,
    /// The number of the job, once it was started.
    pub job: Option<u64>,
    /// What is wrong with the lines: then there is no job.
    pub errors: Vec<LineError>,
    /// When that was found, in seconds since the epoch.
    pub failed_at: Option<u64>,
    /// When the batch was to be cancelled, in seconds since the epoch.
    pub cancelling_at: Option<u64>,
    /// Whether the files of results were deleted.
    pub deleted: Deleted,
}

/// Which files of results were deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// The answers.
    pub output: bool,
    /// The lines that failed.
    pub errors: bool,
}

impl Record {
    /// A batch that was asked for.
    pub fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            model: None,
            shape: None,
            lines: 0,
            job: None,
            errors: Vec::new(),
            failed_at: None,
            cancelling_at: None,
            deleted: Deleted::default(),
        }
    }

    /// Whether its lines are still to be checked, and its job to be started.
    pub fn is_pending(&self) -> bool {
        self.job.is_none() && self.errors.is_empty() && self.cancelling_at.is_none()
    }

    /// Whether it failed before it had a job, or was cancelled: asked for again, it is another one.
    pub fn is_void(&self) -> bool {
        !self.errors.is_empty() || self.cancelling_at.is_some()
    }

    /// Its job.
    pub fn job_id(&self) -> Option<JobId> {
        self.job.map(JobId)
    }

    /// What it is doing.
    pub fn status(&self, job: Option<&JobView>) -> Status {
        match (self.job, job) {
            _ if !self.errors.is_empty() => Status::Failed,
            (None, _) if self.cancelling_at.is_some() => Status::Cancelled,
            (None, _) => Status::Validating,
            // Somebody deleted the job, and its results.
            (Some(_), None) => Status::Expired,
            (Some(_), Some(job)) => match job.state {
                JobState::Done => Status::Completed,
                JobState::Cancelled => Status::Cancelled,
                _ if self.cancelling_at.is_some() => Status::Cancelling,
                _ if job.submitted > 0 && job.done + job.dead >= job.submitted => Status::Finalizing,
                _ => Status::InProgress,
            },
        }
    }

    /// The id of a file of results, if there is one.
    pub fn result(&self, id: &BatchId, job: Option<&JobView>, part: Part) -> Option<FileId> {
        let job = job.filter(|_| matches!(self.status(job), Status::Completed | Status::Cancelled))?;
        let (rows, is_deleted) = match part {
            Part::Output => (job.done, self.deleted.output),
            Part::Errors => (job.dead, self.deleted.errors),
        };
        (rows > 0 && !is_deleted).then(|| FileId::Result(id.clone(), part))
    }
}

/// What a batch is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its lines are being checked.
    Validating,
    /// Its lines are wrong.
    Failed,
    /// Its job runs, or waits for workers.
    InProgress,
    /// All lines have an outcome that is being recorded.
    Finalizing,
    /// All lines have an outcome.
    Completed,
    /// Its results are gone.
    Expired,
    /// Its job is being cancelled.
    Cancelling,
    /// Its job was cancelled; the answers so far are kept.
    Cancelled,
}

impl Status {
    /// Whether it is not over.
    pub const fn goes_on(self) -> bool {
        matches!(self, Self::Validating | Self::InProgress | Self::Finalizing | Self::Cancelling)
    }
}

/// A batch as the API shows it. Times are in seconds since the epoch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Batch {
    id: String,
    object: &'static str,
    endpoint: String,
    model: Option<String>,
    errors: Option<Errors>,
    input_file_id: String,
    completion_window: String,
    status: Status,
    output_file_id: Option<String>,
    error_file_id: Option<String>,
    created_at: u64,
    in_progress_at: Option<u64>,
    expires_at: Option<u64>,
    finalizing_at: Option<u64>,
    completed_at: Option<u64>,
    failed_at: Option<u64>,
    expired_at: Option<u64>,
    cancelling_at: Option<u64>,
    cancelled_at: Option<u64>,
    request_counts: Counts,
    usage: Option<()>,
    metadata: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Errors {
    object: &'static str,
    data: Vec<LineError>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Counts {
    total: u64,
    completed: u64,
    failed: u64,
}

impl Batch {
    /// A batch with its job.
    pub fn new(id: &BatchId, record: &Record, job: Option<&JobView>) -> Self {
        let status = record.status(job);
        let errors =
            (!record.errors.is_empty()).then(|| Errors { object: "list", data: record.errors.clone() });
        let result = |part| record.result(id, job, part).map(|file| file.to_string());
        let finished = job.and_then(|job| job.details.finished_ms).map(|ms| ms / 1_000);
        let when = |wanted: &[Status], at: Option<u64>| at.filter(|_| wanted.contains(&status));
        let wanted = record.wanted.clone();
        Self {
            id: id.to_string(),
            object: "batch",
            endpoint: wanted.endpoint,
            model: record.model.clone(),
            errors,
            input_file_id: wanted.input_file_id,
            completion_window: wanted.completion_window,
            status,
            output_file_id: result(Part::Output),
            error_file_id: result(Part::Errors),
            created_at: id.0.created_ms() / 1_000,
            in_progress_at: job.and_then(|job| job.details.started_ms).map(|ms| ms / 1_000),
            expires_at: None,
            finalizing_at: when(&[Status::Completed], finished),
            completed_at: when(&[Status::Completed], finished),
            failed_at: record.failed_at,
            expired_at: None,
            cancelling_at: record.cancelling_at,
            cancelled_at: when(&[Status::Cancelled], finished.or(record.cancelling_at)),
            request_counts: Counts {
                total: job.map_or(record.lines, |job| job.submitted.max(record.lines)),
                completed: job.map_or(0, |job| job.done),
                failed: job.map_or(0, |job| job.dead),
            },
            usage: None,
            metadata: wanted.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use idunno_shared::wire::control::JobDetails;

    use super::super::ids::Token;
    use super::*;

    fn record() -> Record {
        let wanted = Wanted {
            input_file_id: "file-x".into(),
            endpoint: "/v1/embeddings".into(),
            completion_window: "24h".into(),
            metadata: Some([("a".to_owned(), "b".to_owned())].into()),
            output_expires_after: None,
        };
        Record { job: Some(7), lines: 10, ..Record::new(wanted) }
    }

    fn job(state: JobState, done: u64, dead: u64) -> JobView {
        let (model, dataset) = ("m".parse().unwrap(), "d.jsonl".parse().unwrap());
        let details = JobDetails {
            started_ms: Some(1_000_500),
            finished_ms: matches!(state, JobState::Done | JobState::Cancelled).then_some(2_000_500),
            ..JobDetails::default()
        };
        JobView {
            state,
            submitted: 10,
            done,
            dead,
            details,
            ..JobView::added(JobId(7), model, dataset, 1.into())
        }
    }

    #[test]
    fn a_status_is_the_jobs_or_that_of_what_comes_before_it() {
        let pending = Record { job: None, ..record() };
        assert!(pending.is_pending() && !pending.is_void());
        assert_eq!(pending.status(None), Status::Validating);
        let stopped = Record { cancelling_at: Some(5), ..pending.clone() };
        assert_eq!((stopped.status(None), stopped.is_pending()), (Status::Cancelled, false));
        let failed = Record { errors: vec![LineError::of_file("empty_file", "x")], ..pending };
        assert_eq!((failed.status(None), failed.is_void()), (Status::Failed, true));
        assert_eq!(record().status(None), Status::Expired);
        let of = |record: &Record, state, done| record.status(Some(&job(state, done, 0)));
        for (state, done, status) in [
            (JobState::Added, 0, Status::InProgress),
            (JobState::Running, 9, Status::InProgress),
            (JobState::Running, 10, Status::Finalizing),
            (JobState::Paused("x".into()), 0, Status::InProgress),
            (JobState::Done, 10, Status::Completed),
            (JobState::Cancelled, 3, Status::Cancelled),
        ] {
            assert_eq!(of(&record(), state, done), status);
        }
        let cancelling = Record { cancelling_at: Some(5), ..record() };
        assert_eq!(of(&cancelling, JobState::Running, 3), Status::Cancelling);
        assert_eq!(of(&cancelling, JobState::Done, 10), Status::Completed, "it was over before");
    }

    #[test]
    fn files_of_results_are_there_when_they_have_rows() {
        let id = BatchId(Token::new().unwrap());
        let shown = |record: &Record, job: JobView| {
            let batch = Batch::new(&id, record, Some(&job));
            (batch.output_file_id.is_some(), batch.error_file_id.is_some())
        };
        assert_eq!(shown(&record(), job(JobState::Running, 9, 0)), (false, false));
        assert_eq!(shown(&record(), job(JobState::Done, 9, 1)), (true, true));
        assert_eq!(
            shown(&record(), job(JobState::Done, 0, 10)),
            (false, true),
            "completed, although all failed"
        );
        assert_eq!(shown(&record(), job(JobState::Cancelled, 3, 0)), (true, false));
        let deleted = Record { deleted: Deleted { output: true, errors: false }, ..record() };
        assert_eq!(shown(&deleted, job(JobState::Done, 9, 1)), (false, true));
    }

    #[test]
    fn a_batch_has_the_fields_of_the_api() {
        let id = BatchId(Token::new().unwrap());
        let batch =
            serde_json::to_value(Batch::new(&id, &record(), Some(&job(JobState::Done, 8, 2)))).unwrap();
        assert_eq!(batch["status"], "completed");
        assert_eq!(batch["request_counts"], serde_json::json!({"total": 10, "completed": 8, "failed": 2}));
        assert_eq!(
            (batch["in_progress_at"].as_u64(), batch["completed_at"].as_u64()),
            (Some(1_000), Some(2_000))
        );
        assert_eq!(batch["metadata"]["a"], "b");
        assert!(
            batch["errors"].is_null() && batch["expires_at"].is_null() && batch["cancelled_at"].is_null()
        );
        let stored = serde_json::to_vec(&record()).unwrap();
        assert_eq!(serde_json::from_slice::<Record>(&stored).unwrap(), record());
    }
}
