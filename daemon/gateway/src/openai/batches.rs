//! Batches: created once, shown with their job, cancelled, listed.
//!
//! A client repeats a request whose answer was lost, and has no key to tell it by. So the same caller, file, endpoint and metadata within
//! [`SAME_MS`] are the first batch again: a file named by a digest of them holds the batch's id, and the log decides who writes it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{StreamExt, TryStreamExt, iter};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use idunno_shared::client::cluster::ClusterError;
use idunno_shared::wire::control::{
    Attributes, Change, ControlReply, ControlRequest, Expected, FileVersion, JobView,
};
use idunno_shared::wire::refusal::RefusalCode;
use s3s::{Body, S3ErrorCode};
use serde::Deserialize;
use tokio::time::timeout;

use super::door::{Caller, Door};
use super::error::{ApiError, ApiResult, json};
use super::ids::{BatchId, FileId, Token, no_batch, no_file, now_ms};
use super::query::{ListQuery, Page};
use super::record::{Batch, ExpiresAfter, Record, Wanted};
use super::validation::Endpoint;
use crate::errors::{of_cluster, unexpected};

/// For how long an equal request is the same batch, in milliseconds.
pub const SAME_MS: u64 = 600_000;
/// Most rows of a page, and how many there are unless a program says otherwise.
const PAGE_MAX: usize = 100;
const PAGE_DEFAULT: usize = 20;
/// The longest request to create a batch: its metadata has at most 37 KB.
const REQUEST_BYTES_MAX: usize = 128 << 10;
/// Metadata: pairs, and characters of a name and a value.
const PAIRS_MAX: usize = 16;
const NAME_CHARACTERS_MAX: usize = 64;
const VALUE_CHARACTERS_MAX: usize = 512;
/// The one window of the API.
const WINDOW: &str = "24h";
/// How long a program waits for its batch to become a job before it is answered that the lines are being checked.
const ADMISSION_PATIENCE: Duration = Duration::from_mins(1);
/// How often a record is read and written again that others change at the same time.
const UPDATES_MAX: usize = 16;
/// Batches that are read at once for a list.
const READS_IN_FLIGHT: usize = 4;
/// The attribute with the batch's id.
const BATCH: &str = "batch";

#[derive(Deserialize)]
struct Request {
    input_file_id: Option<String>,
    endpoint: Option<String>,
    completion_window: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
    output_expires_after: Option<ExpiresAfter>,
}

/// Checks what a program asks for.
fn checked(request: Request) -> ApiResult<(Wanted, Token)> {
    let Request { input_file_id, endpoint, completion_window, metadata, output_expires_after } = request;
    let input_file_id = input_file_id.ok_or_else(|| ApiError::missing("input_file_id"))?;
    let FileId::Uploaded(token) = input_file_id.parse()? else {
        return Err(no_file(&input_file_id));
    };
    let endpoint = endpoint.ok_or_else(|| ApiError::missing("endpoint"))?;
    if Endpoint::of(&endpoint).is_none() {
        let known = Endpoint::ALL.map(Endpoint::path).join(", ");
        return Err(ApiError::invalid("endpoint", format!("the endpoint is none of {known}")));
    }
    let completion_window = completion_window.ok_or_else(|| ApiError::missing("completion_window"))?;
    if completion_window != WINDOW {
        return Err(ApiError::invalid("completion_window", "the completion window is '24h'"));
    }
    let is_long = |(name, value): (&String, &String)| {
        name.chars().count() > NAME_CHARACTERS_MAX || value.chars().count() > VALUE_CHARACTERS_MAX
    };
    if metadata.as_ref().is_some_and(|pairs| pairs.len() > PAIRS_MAX || pairs.iter().any(is_long)) {
        let message = "metadata has at most 16 pairs, of names of 64 and values of 512 characters";
        return Err(ApiError::invalid("metadata", message));
    }
    let wanted = Wanted { input_file_id, endpoint, completion_window, metadata, output_expires_after };
    Ok((wanted, token))
}

/// What equal requests of one caller have in common.
fn digest_of(caller: &str, wanted: &Wanted) -> String {
    let text = serde_json::to_vec(&(caller, wanted)).unwrap_or_default();
    blake3::hash(&text).to_hex().to_string()
}

fn bytes_of(record: &Record) -> Bytes {
    // It has nothing that JSON lacks.
    serde_json::to_vec(record).unwrap_or_default().into()
}

fn expected(version: &FileVersion) -> Expected {
    Expected::Version { number: version.version, digest: version.digest }
}

impl Door {
    pub(super) async fn create(&self, caller: &Caller, body: Incoming) -> ApiResult<Response<Body>> {
        let body = Limited::new(body, REQUEST_BYTES_MAX).collect().await;
        let body =
            body.map_err(|why| ApiError::invalid("body", format!("the body cannot be read: {why}")))?;
        let request = serde_json::from_slice(&body.to_bytes())
            .map_err(|why| ApiError::invalid("body", format!("the body is no request: {why}")))?;
        let (wanted, file) = checked(request)?;
        self.uploaded(caller, &file).await?;
        let id = self.claim(caller, &wanted).await?;
        let record = match self.record(caller, &id).await? {
            Some((record, _)) => record,
            None => self.begin(caller, &id, wanted).await?,
        };
        if record.is_pending()
            && let Some(admission) = self.admit(caller, &id)
        {
            // It goes on if this takes too long, or the program goes away.
            if let Ok(Ok(Err(failed))) = timeout(ADMISSION_PATIENCE, admission).await {
                return Err(failed);
            }
        }
        self.batch(caller, &id).await
    }

    /// The id of the batch for such a request: a new one, or that of the same request a moment ago.
    async fn claim(&self, caller: &Caller, wanted: &Wanted) -> ApiResult<BatchId> {
        let name = caller.home.creation(&digest_of(&caller.name, wanted))?;
        for _ in 0..UPDATES_MAX {
            let before = caller.store.locate(&name, None).await?;
            let first =
                before.as_ref().and_then(|before| before.attributes.get(BATCH)?.parse::<BatchId>().ok());
            if let Some(first) = first
                && now_ms().saturating_sub(first.0.created_ms()) < SAME_MS
                && !self.record(caller, &first).await?.is_some_and(|(record, _)| record.is_void())
            {
                return Ok(first);
            }
            let id = BatchId(Token::new()?);
            let attributes = Attributes::from([(BATCH.to_owned(), id.to_string())]);
            let terms = before.as_ref().map_or(Expected::NoFile, expected);
            match caller.store.commit_record(name.clone(), attributes, Some(terms)).await {
                Ok(()) => return Ok(id),
                // Another was first.
                Err(lost) if *lost.code() == S3ErrorCode::PreconditionFailed => {}
                Err(failed) => return Err(failed.into()),
            }
        }
        Err(ApiError::internal("the same batch is created by too many at the same time"))
    }

    async fn begin(&self, caller: &Caller, id: &BatchId, wanted: Wanted) -> ApiResult<Record> {
        let record = Record::new(wanted);
        let begun = caller
            .store
            .commit_bytes(caller.home.batch(id)?, bytes_of(&record), Some(Expected::NoFile))
            .await;
        match begun {
            Err(failed) if *failed.code() != S3ErrorCode::PreconditionFailed => Err(failed.into()),
            _ => Ok(record),
        }
    }

    /// What is stored of a batch, and in which version.
    pub(super) async fn record(
        &self,
        caller: &Caller,
        id: &BatchId,
    ) -> ApiResult<Option<(Record, FileVersion)>> {
        let Some(version) = caller.store.locate(&caller.home.batch(id)?, None).await? else {
            return Ok(None);
        };
        let size = version.size;
        let pieces = self.delivery.stream(caller.store.clone(), version.clone(), 0..size);
        let lost = |why: s3s::StdError| ApiError::from(crate::errors::slow_down(why.to_string()));
        let bytes: Vec<Bytes> = pieces.map_err(lost).try_collect().await?;
        let record = serde_json::from_slice(&bytes.concat());
        let record =
            record.map_err(|why| ApiError::internal(format!("the record of {id} cannot be read: {why}")))?;
        Ok(Some((record, version)))
    }

    /// Changes what is stored of a batch, whoever else does at the same time.
    pub(super) async fn update(
        &self,
        caller: &Caller,
        id: &BatchId,
        change: impl Fn(&mut Record),
    ) -> ApiResult<Record> {
        for _ in 0..UPDATES_MAX {
            let (mut record, version) =
                self.record(caller, id).await?.ok_or_else(|| no_batch(&id.to_string()))?;
            let before = record.clone();
            change(&mut record);
            if record == before {
                return Ok(record);
            }
            let name = caller.home.batch(id)?;
            match caller.store.commit_bytes(name, bytes_of(&record), Some(expected(&version))).await {
                Ok(()) => return Ok(record),
                Err(lost) if *lost.code() == S3ErrorCode::PreconditionFailed => {}
                Err(failed) => return Err(failed.into()),
            }
        }
        Err(ApiError::internal(format!("{id} is changed by too many at the same time")))
    }

    /// The job of a batch, if it is still there.
    pub(super) async fn job(&self, caller: &Caller, record: &Record) -> ApiResult<Option<JobView>> {
        let Some(job) = record.job_id() else { return Ok(None) };
        match caller.store.files.cluster().control(ControlRequest::Jobs(Some(job))).await {
            Ok(ControlReply::Jobs(mut jobs)) => Ok(jobs.pop()),
            Ok(_) => Err(unexpected().into()),
            Err(ClusterError::Refused(refusal)) if refusal.code == RefusalCode::NotFound => Ok(None),
            Err(failed) => Err(of_cluster(failed).into()),
        }
    }

    async fn shown(&self, caller: &Caller, id: &BatchId) -> ApiResult<Batch> {
        let (record, _) = self.record(caller, id).await?.ok_or_else(|| no_batch(&id.to_string()))?;
        if record.is_pending() {
            // Whoever began it may have died.
            drop(self.admit(caller, id));
        }
        let job = self.job(caller, &record).await?;
        Ok(Batch::new(id, &record, job.as_ref()))
    }

    pub(super) async fn batch(&self, caller: &Caller, id: &BatchId) -> ApiResult<Response<Body>> {
        Ok(json(StatusCode::OK, &self.shown(caller, id).await?))
    }

    pub(super) async fn cancel(&self, caller: &Caller, id: &BatchId) -> ApiResult<Response<Body>> {
        let (record, _) = self.record(caller, id).await?.ok_or_else(|| no_batch(&id.to_string()))?;
        let job = self.job(caller, &record).await?;
        let status = record.status(job.as_ref());
        if !status.goes_on() {
            return Err(ApiError::invalid(
                "batch_id",
                format!("{id} is over: it cannot be cancelled any more"),
            ));
        }
        let record = self
            .update(caller, id, |record| {
                if record.errors.is_empty() && record.cancelling_at.is_none() {
                    record.cancelling_at = Some(now_ms() / 1_000);
                }
            })
            .await?;
        self.cancel_job(caller, &record).await?;
        self.batch(caller, id).await
    }

    /// Cancels the job of a batch, if it runs.
    pub(super) async fn cancel_job(&self, caller: &Caller, record: &Record) -> ApiResult<()> {
        let Some(job) = record.job_id() else { return Ok(()) };
        match caller.store.files.cluster().change(Change::CancelJob { job }).await {
            Ok(_) => Ok(()),
            // It is over.
            Err(ClusterError::Refused(refusal))
                if matches!(refusal.code, RefusalCode::Conflict | RefusalCode::NotFound) =>
            {
                Ok(())
            }
            Err(failed) => Err(of_cluster(failed).into()),
        }
    }

    pub(super) async fn list_batches(&self, caller: &Caller, query: &ListQuery) -> ApiResult<Response<Body>> {
        let limit = query.limit.unwrap_or(PAGE_DEFAULT);
        if limit > PAGE_MAX {
            return Err(ApiError::invalid("limit", format!("a page has at most {PAGE_MAX} batches")));
        }
        let after = query.after.as_deref().map(|id| caller.home.batch(&id.parse()?)).transpose()?;
        let most = u32::try_from(limit).unwrap_or(u32::MAX);
        let (files, more) = caller.store.list(&caller.home.batches(), after, most).await?;
        let ids: Vec<BatchId> = files.iter().filter_map(|file| caller.home.batch_of(&file.name)).collect();
        // Made first, not within the stream: a closure there is not general enough for a future that is Send.
        let reads: Vec<_> = ids.iter().map(|id| self.shown(caller, id)).collect();
        let batches: Vec<Batch> = iter(reads).buffered(READS_IN_FLIGHT).try_collect().await?;
        let rows = ids.iter().map(ToString::to_string).zip(batches).collect();
        Ok(json(StatusCode::OK, &Page::new(rows, more)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> ApiResult<(Wanted, Token)> {
        checked(serde_json::from_str(text).unwrap())
    }

    fn with(more: &str) -> String {
        let file = FileId::Uploaded(Token::new().unwrap());
        format!(r#"{{"input_file_id":"{file}","endpoint":"/v1/embeddings","completion_window":"24h"{more}}}"#)
    }

    #[test]
    fn a_request_is_checked_before_anything_is_stored() {
        assert!(request(&with("")).is_ok());
        let good =
            r#","metadata":{"a":"é"},"output_expires_after":{"anchor":"created_at","seconds":3600},"x":1"#;
        let (wanted, _) = request(&with(good)).unwrap();
        assert_eq!(
            (wanted.metadata.unwrap()["a"].as_str(), wanted.output_expires_after.unwrap().seconds),
            ("é", 3600)
        );
        let param = |text: &str| request(text).unwrap_err().param;
        assert_eq!(param("{}"), Some("input_file_id"));
        assert_eq!(param(&with("").replace("embeddings", "images")), Some("endpoint"));
        assert_eq!(param(&with("").replace("24h", "1h")), Some("completion_window"));
        let pairs: Vec<String> = (0..17).map(|n| format!("\"{n}\":\"x\"")).collect();
        for metadata in [
            pairs.join(","),
            format!("\"{}\":\"\"", "n".repeat(65)),
            format!("\"n\":\"{}\"", "é".repeat(513)),
        ] {
            assert_eq!(param(&with(&format!(",\"metadata\":{{{metadata}}}"))), Some("metadata"));
        }
        let long = format!("\"{}\":\"{}\"", "é".repeat(64), "é".repeat(512));
        assert!(request(&with(&format!(",\"metadata\":{{{long}}}"))).is_ok());
    }

    #[test]
    fn equal_requests_of_one_caller_have_one_digest() {
        let (wanted, _) = request(&with(r#","metadata":{"a":"1","b":"2"}"#)).unwrap();
        let digest = digest_of("anna", &wanted);
        assert_eq!(digest, digest_of("anna", &wanted.clone()));
        assert_ne!(digest, digest_of("ben", &wanted));
        let other = Wanted { metadata: Some([("a".to_owned(), "2".to_owned())].into()), ..wanted };
        assert_ne!(digest, digest_of("anna", &other));
    }
}
