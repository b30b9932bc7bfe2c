//! Files: those that programs put there, and those that show a batch's results.
//!
//! A file is streamed into the store as it comes, and exists once all of it is there. Its purpose, name and end are kept with it as attributes. A file
//! that has ended is as if it were not there, and whoever meets it takes it away.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyDataStream, StreamBody};
use hyper::body::Incoming;
use idunno_shared::wire::control::{Attributes, Expected, FileVersion, NewFile};
use multer::{Constraints, Field, Multipart, SizeLimit};
use s3s::Body;
use s3s::dto::StreamingBlob;
use serde::Serialize;
use thiserror::Error;

use super::door::{Caller, Door};
use super::error::{ApiError, ApiResult, json};
use super::ids::{BatchId, FileId, Part, Token, no_file, now_ms};
use super::query::{ListQuery, Page};
use super::results::Reading;
use super::rows::RowWriter;
use crate::ingest::{Announced, Received, receive};
use crate::store::{NewVersion, unplaced};

/// The largest file: that of the API's batches.
pub const FILE_BYTES_MAX: u64 = 200 << 20;
/// Files in a page.
const PAGE_MAX: usize = 1_000;
/// The longest field beside the file.
const FIELD_BYTES_MAX: u64 = 1 << 10;
/// The longest name of a file, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// The seconds after which a file may end.
const EXPIRES_S: std::ops::RangeInclusive<u64> = 3_600..=2_592_000;
/// What files are for.
const PURPOSE: &str = "batch";
const RESULT_PURPOSE: &str = "batch_output";
/// The names of attributes.
const FILENAME: &str = "filename";
const EXPIRES_AT: &str = "expires-at";

/// A file as the API shows it. Times are in seconds since the epoch.
#[derive(Debug, Serialize)]
pub struct File {
    id: String,
    object: &'static str,
    bytes: u64,
    created_at: u64,
    expires_at: Option<u64>,
    filename: String,
    purpose: &'static str,
    status: &'static str,
    status_details: Option<()>,
}

#[derive(Serialize)]
struct DeletedFile {
    id: String,
    object: &'static str,
    deleted: bool,
}

/// A file has more bytes than [`FILE_BYTES_MAX`].
#[derive(Debug, Error)]
#[error("the file has more than {FILE_BYTES_MAX} bytes")]
struct TooLarge;

/// What comes beside a file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fields {
    purpose: Option<String>,
    filename: Option<String>,
    anchor: Option<String>,
    seconds: Option<String>,
}

impl Fields {
    fn check_purpose(&self) -> ApiResult<()> {
        match self.purpose.as_deref() {
            Some(PURPOSE) => Ok(()),
            Some(_) => Err(ApiError::invalid("purpose", "the purpose of a file is 'batch' here")),
            None => Err(ApiError::missing("purpose")),
        }
    }

    fn name(&self) -> ApiResult<String> {
        let name = self.filename.as_deref().unwrap_or_default();
        let is_text = name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control);
        let extension = Path::new(name).extension().unwrap_or_default();
        if is_text && extension.eq_ignore_ascii_case("jsonl") {
            return Ok(name.to_owned());
        }
        Err(ApiError::invalid("file", "a batch's file is JSON lines, and its name ends with .jsonl"))
    }

    /// After how many seconds the file ends.
    fn expires_s(&self) -> ApiResult<Option<u64>> {
        match (self.anchor.as_deref(), self.seconds.as_deref()) {
            (None, None) => Ok(None),
            (Some("created_at"), Some(seconds)) => {
                let seconds = seconds.parse().ok().filter(|seconds| EXPIRES_S.contains(seconds));
                let wrong = || {
                    ApiError::invalid("expires_after", "a file ends 3600 to 2592000 seconds after created_at")
                };
                seconds.map(Some).ok_or_else(wrong)
            }
            _ => Err(ApiError::invalid(
                "expires_after",
                "a file ends some seconds after the anchor 'created_at'",
            )),
        }
    }
}

fn of_form(wrong: &multer::Error) -> ApiError {
    match wrong {
        multer::Error::FieldSizeExceeded { .. } | multer::Error::StreamSizeExceeded { .. } => {
            ApiError::too_large(wrong.to_string())
        }
        _ => ApiError::invalid("file", format!("the form cannot be read: {wrong}")),
    }
}

fn file(token: &Token, version: &FileVersion) -> File {
    File {
        id: FileId::Uploaded(token.clone()).to_string(),
        object: "file",
        bytes: version.size,
        created_at: token.created_ms() / 1_000,
        expires_at: expires_at(&version.attributes),
        filename: version.attributes.get(FILENAME).cloned().unwrap_or_default(),
        purpose: PURPOSE,
        status: "processed",
        status_details: None,
    }
}

fn expires_at(attributes: &Attributes) -> Option<u64> {
    attributes.get(EXPIRES_AT)?.parse().ok()
}

fn is_over(attributes: &Attributes) -> bool {
    expires_at(attributes).is_some_and(|at| at <= now_ms() / 1_000)
}

impl Door {
    pub(super) async fn upload(
        &self,
        caller: &Caller,
        request: Request<Incoming>,
    ) -> ApiResult<Response<Body>> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let boundary = multer::parse_boundary(kind.unwrap_or_default()).map_err(|wrong| of_form(&wrong))?;
        // The file has a limit of its own, which is told apart from a broken connection.
        let limits = SizeLimit::new().per_field(FIELD_BYTES_MAX).for_field("file", u64::MAX);
        let limits = limits.whole_stream(FILE_BYTES_MAX + (1 << 20));
        let body = BodyDataStream::new(request.into_body());
        let constraints = Constraints::new().size_limit(limits);
        let mut form = Multipart::with_constraints(body, boundary, constraints);
        let (mut fields, mut received, mut refused) = (Fields::default(), None, None);
        while let Some(field) = form.next_field().await.map_err(|wrong| of_form(&wrong))? {
            let name = field.name().unwrap_or_default().to_owned();
            if name == "file" {
                if received.is_some() {
                    return Err(ApiError::invalid("file", "one file is uploaded at a time"));
                }
                fields.filename = field.file_name().map(str::to_owned);
                match fields.name() {
                    Ok(_) => received = Some(self.receive(caller, field).await?),
                    // The rest is read all the same: a program that still sends might miss the answer.
                    Err(wrong) => refused = Some(wrong),
                }
                continue;
            }
            let value = Some(field.text().await.map_err(|wrong| of_form(&wrong))?);
            match name.as_str() {
                "purpose" => fields.purpose = value,
                "expires_after[anchor]" => fields.anchor = value,
                "expires_after[seconds]" => fields.seconds = value,
                _ => {}
            }
        }
        if let Some(wrong) = refused {
            return Err(wrong);
        }
        let received = received.ok_or_else(|| ApiError::missing("file"))?;
        match self.commit(caller, &fields, &received).await {
            Ok(file) => Ok(json(StatusCode::OK, &file)),
            Err(wrong) => {
                let (files, upload) = (caller.store.files.clone(), received.upload);
                tokio::spawn(async move { files.end_upload(upload).await });
                Err(wrong)
            }
        }
    }

    async fn receive(&self, caller: &Caller, field: Field<'static>) -> ApiResult<Received> {
        let size = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&size);
        let bytes = field.map(move |piece| {
            let piece = piece.map_err(std::io::Error::other)?;
            let before = counted.fetch_add(piece.len() as u64, Ordering::Relaxed);
            if before + piece.len() as u64 > FILE_BYTES_MAX {
                return Err(std::io::Error::other(TooLarge));
            }
            Ok(piece)
        });
        let body = Some(StreamingBlob::wrap(bytes));
        let received = receive(&caller.store, &self.receiving, body, Announced::default()).await;
        match received {
            Err(_) if size.load(Ordering::Relaxed) > FILE_BYTES_MAX => {
                Err(ApiError::too_large(TooLarge.to_string()))
            }
            received => Ok(received?),
        }
    }

    async fn commit(&self, caller: &Caller, fields: &Fields, received: &Received) -> ApiResult<File> {
        fields.check_purpose()?;
        if received.size == 0 {
            return Err(ApiError::invalid("file", "the file is empty"));
        }
        let token = Token::new()?;
        let created_at = token.created_ms() / 1_000;
        let expires_at = fields.expires_s()?.map(|seconds| created_at + seconds);
        let mut attributes = Attributes::from([(FILENAME.to_owned(), fields.name()?)]);
        attributes.extend(expires_at.map(|at| (EXPIRES_AT.to_owned(), at.to_string())));
        let extents = unplaced(&received.extents);
        let name = caller.home.file(&token)?;
        let version = NewVersion {
            upload: received.upload,
            file: NewFile { name: name.clone(), size: received.size, digest: received.digest, extents },
            attributes: attributes.clone(),
            expected: Some(Expected::NoFile),
            borrows: false,
        };
        let number = caller.store.commit(version).await?;
        let (size, digest) = (received.size, received.digest);
        let version = FileVersion {
            name,
            version: number,
            size,
            digest,
            created_ms: 0,
            extents: Vec::new(),
            attributes,
        };
        Ok(file(&token, &version))
    }

    /// An uploaded file that has not ended.
    pub(super) async fn uploaded(&self, caller: &Caller, token: &Token) -> ApiResult<FileVersion> {
        let id = FileId::Uploaded(token.clone()).to_string();
        let name = caller.home.file(token)?;
        let version = caller.store.locate(&name, None).await?.ok_or_else(|| no_file(&id))?;
        if is_over(&version.attributes) {
            // Whoever may only read leaves it to others.
            let _ = caller.store.delete(&[name]).await;
            return Err(no_file(&id));
        }
        Ok(version)
    }

    pub(super) async fn list_files(&self, caller: &Caller, query: &ListQuery) -> ApiResult<Response<Body>> {
        let limit = query.limit.unwrap_or(PAGE_MAX).min(PAGE_MAX);
        let is_other = query.purpose.as_deref().is_some_and(|purpose| purpose != PURPOSE);
        if is_other {
            return Ok(json(StatusCode::OK, &Page::<File>::new(Vec::new(), false)));
        }
        let after = match &query.after {
            Some(id) => match id.parse()? {
                FileId::Uploaded(token) => Some(caller.home.file(&token)?),
                FileId::Result(..) => return Err(no_file(id)),
            },
            None => None,
        };
        let (names, more) = if query.is_ascending {
            // The store lists the newest first.
            let all = caller.store.list_all(&caller.home.files(), usize::MAX).await?;
            let mut names: Vec<_> = all.into_iter().map(|file| file.name).collect();
            names.reverse();
            names.retain(|name| after.as_ref().is_none_or(|after| name < after));
            let more = names.len() > limit;
            names.truncate(limit);
            (names, more)
        } else {
            let most = u32::try_from(limit).unwrap_or(u32::MAX);
            let (files, more) = caller.store.list(&caller.home.files(), after, most).await?;
            (files.into_iter().map(|file| file.name).collect(), more)
        };
        let versions = caller.store.locate_all(&names).await?;
        let rows = names.iter().zip(versions).filter_map(|(name, version)| {
            let (token, version) = (caller.home.file_of(name)?, version?);
            let row = (!is_over(&version.attributes)).then(|| file(&token, &version))?;
            Some((row.id.clone(), row))
        });
        Ok(json(StatusCode::OK, &Page::new(rows.collect(), more)))
    }

    pub(super) async fn file(&self, caller: &Caller, id: &FileId) -> ApiResult<Response<Body>> {
        let found = match id {
            FileId::Uploaded(token) => file(token, &self.uploaded(caller, token).await?),
            FileId::Result(batch, part) => self.result_file(caller, batch, *part).await?,
        };
        Ok(json(StatusCode::OK, &found))
    }

    /// A file of results, whose size is known once it was read.
    async fn result_file(&self, caller: &Caller, batch: &BatchId, part: Part) -> ApiResult<File> {
        let (reading, finished_ms) = self.reading(caller, batch, part).await?;
        let mut lines = std::pin::pin!(reading.stream());
        let mut bytes = 0;
        while let Some(piece) = lines.next().await {
            bytes += piece.map_err(|lost| ApiError::internal(lost.to_string()))?.len() as u64;
        }
        let kind = match part {
            Part::Output => "output",
            Part::Errors => "errors",
        };
        Ok(File {
            id: FileId::Result(batch.clone(), part).to_string(),
            object: "file",
            bytes,
            created_at: finished_ms / 1_000,
            expires_at: None,
            filename: format!("{batch}_{kind}.jsonl"),
            purpose: RESULT_PURPOSE,
            status: "processed",
            status_details: None,
        })
    }

    /// What reads a file of results, and when it came to be, in milliseconds since the epoch.
    async fn reading(&self, caller: &Caller, batch: &BatchId, part: Part) -> ApiResult<(Reading, u64)> {
        let id = FileId::Result(batch.clone(), part);
        let none = || no_file(&id.to_string());
        let (record, _) = self.record(caller, batch).await?.ok_or_else(none)?;
        let job = self.job(caller, &record).await?;
        record.result(batch, job.as_ref(), part).ok_or_else(none)?;
        let (Some(shape), Some(job)) = (record.shape, job) else { return Err(none()) };
        let writer = RowWriter::new(batch, job.model.as_str(), shape);
        let (store, memory) = (caller.store.clone(), self.delivery.memory.clone());
        let finished_ms = job.details.finished_ms.unwrap_or_default();
        Ok((Reading { store, memory, job: job.id, writer, part }, finished_ms))
    }

    pub(super) async fn content(&self, caller: &Caller, id: &FileId) -> ApiResult<Response<Body>> {
        let (body, length) = match id {
            FileId::Uploaded(token) => {
                let version = self.uploaded(caller, token).await?;
                let size = version.size;
                (Body::from(self.delivery.stream(caller.store.clone(), version, 0..size)), Some(size))
            }
            FileId::Result(batch, part) => {
                let (reading, _) = self.reading(caller, batch, *part).await?;
                let frames = reading.stream().map(|piece| piece.map(Frame::data));
                (Body::http_body(StreamBody::new(frames)), None)
            }
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if let Some(length) = length {
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        Ok(response)
    }

    pub(super) async fn delete_file(&self, caller: &Caller, id: &FileId) -> ApiResult<Response<Body>> {
        match id {
            FileId::Uploaded(token) => {
                let version = self.uploaded(caller, token).await?;
                caller.store.delete(&[version.name]).await?;
            }
            FileId::Result(batch, part) => {
                self.reading(caller, batch, *part).await?;
                self.update(caller, batch, |record| match part {
                    Part::Output => record.deleted.output = true,
                    Part::Errors => record.deleted.errors = true,
                })
                .await?;
            }
        }
        Ok(json(StatusCode::OK, &DeletedFile { id: id.to_string(), object: "file", deleted: true }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(purpose: &str, filename: &str, anchor: Option<&str>, seconds: Option<&str>) -> Fields {
        Fields {
            purpose: Some(purpose.to_owned()),
            filename: Some(filename.to_owned()),
            anchor: anchor.map(str::to_owned),
            seconds: seconds.map(str::to_owned),
        }
    }

    #[test]
    fn what_comes_beside_a_file_is_checked() {
        let good = fields("batch", "a b.jsonl", Some("created_at"), Some("3600"));
        assert!(good.check_purpose().is_ok());
        assert_eq!((good.name().unwrap(), good.expires_s().unwrap()), ("a b.jsonl".to_owned(), Some(3_600)));
        assert_eq!(fields("batch", "a.jsonl", None, None).expires_s().unwrap(), None);
        let params = |wrong: Fields| {
            [wrong.check_purpose(), wrong.name().map(drop), wrong.expires_s().map(drop)]
                .map(|checked| checked.err().and_then(|error| error.param))
        };
        let wrong = fields("fine-tune", "a.json", Some("now"), Some("3600"));
        assert_eq!(params(wrong), [Some("purpose"), Some("file"), Some("expires_after")]);
        let wrong = fields("batch", "a\n.jsonl", Some("created_at"), Some("3599"));
        assert_eq!(params(wrong), [None, Some("file"), Some("expires_after")]);
        assert_eq!(params(Fields::default()), [Some("purpose"), Some("file"), None]);
    }

    #[test]
    fn a_file_ends_when_it_was_told_to() {
        let ends = |at: u64| Attributes::from([(EXPIRES_AT.to_owned(), at.to_string())]);
        assert!(is_over(&ends(now_ms() / 1_000 - 1)) && !is_over(&ends(now_ms() / 1_000 + 60)));
        assert!(!is_over(&Attributes::new()));
    }
}
