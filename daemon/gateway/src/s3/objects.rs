//! Objects: put, get, copy.

use std::ops::Range;

use idunno_shared::wire::control::{Attributes, ETAG, FileVersion, NewFile};
use s3s::dto::{
    Checksum, CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, GetObjectInput,
    GetObjectOutput, HeadObjectInput, HeadObjectOutput, MetadataDirective, PutObjectInput, PutObjectOutput,
    StreamingBlob,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result};

use super::attributes::{CHECKSUM, headers_of, set_headers};
use super::conditions::{ReadConditions, expected, strong, tag, timestamp};
use super::gateway::Gateway;
use super::names;
use crate::errors::error;
use crate::ingest::receive;
use crate::store::{NewVersion, Store, unplaced};

/// The content type of what stands for a folder.
const FOLDER_TYPE: &str = "application/x-directory";

/// The checksum header that a request says to follow its body.
pub(crate) fn trailer<T>(request: &S3Request<T>) -> Option<String> {
    let named = request.headers.get("x-amz-trailer")?.to_str().ok()?;
    named.split(',').map(str::trim).find(|name| name.starts_with("x-amz-checksum-")).map(str::to_owned)
}

/// The length of a request's body without its framing.
pub(crate) fn body_length<T>(request: &S3Request<T>) -> Option<u64> {
    let get = |name: &str| request.headers.get(name)?.to_str().ok()?.parse().ok();
    get("x-amz-decoded-content-length").or_else(|| get("content-length"))
}

/// The MD5 that a request announces of its body. s3s takes an empty header for none.
pub(crate) fn announced_md5<T>(request: &S3Request<T>) -> Option<String> {
    request.headers.get("content-md5").and_then(|md5| md5.to_str().ok()).map(str::to_owned)
}

/// What a request of s3s announces of its body.
macro_rules! announced {
    ($request:expr) => {
        $crate::ingest::Announced {
            length: body_length(&$request),
            md5: announced_md5(&$request),
            sums: s3s::dto::Checksum {
                checksum_crc32: $request.input.checksum_crc32.take(),
                checksum_crc32c: $request.input.checksum_crc32c.take(),
                checksum_crc64nvme: $request.input.checksum_crc64nvme.take(),
                checksum_sha1: $request.input.checksum_sha1.take(),
                checksum_sha256: $request.input.checksum_sha256.take(),
                checksum_type: None,
            },
            trailer: trailer(&$request),
            trailing: $request.trailing_headers.take(),
            place: None,
        }
    };
}
pub(crate) use announced;

/// Fills the checksums of an output of s3s.
macro_rules! set_sums {
    ($output:expr, $sums:expr) => {{
        let sums = $sums;
        $output.checksum_crc32 = sums.checksum_crc32;
        $output.checksum_crc32c = sums.checksum_crc32c;
        $output.checksum_crc64nvme = sums.checksum_crc64nvme;
        $output.checksum_sha1 = sums.checksum_sha1;
        $output.checksum_sha256 = sums.checksum_sha256;
    }};
}
pub(crate) use set_sums;

/// Checksums as attributes.
fn note_sums(attributes: &mut Attributes, sums: &Checksum) {
    let named = [
        ("crc32", &sums.checksum_crc32),
        ("crc32c", &sums.checksum_crc32c),
        ("crc64nvme", &sums.checksum_crc64nvme),
        ("sha1", &sums.checksum_sha1),
        ("sha256", &sums.checksum_sha256),
    ];
    let given = named.into_iter().filter_map(|(name, sum)| Some((format!("{CHECKSUM}{name}"), sum.clone()?)));
    attributes.extend(given);
}

/// The checksums that were noted.
fn noted_sums(attributes: &Attributes) -> Checksum {
    let get = |name: &str| attributes.get(&format!("{CHECKSUM}{name}")).cloned();
    Checksum {
        checksum_crc32: get("crc32"),
        checksum_crc32c: get("crc32c"),
        checksum_crc64nvme: get("crc64nvme"),
        checksum_sha1: get("sha1"),
        checksum_sha256: get("sha256"),
        checksum_type: None,
    }
}

/// What a program wants to read.
struct Asked<'a> {
    bucket: &'a str,
    key: &'a str,
    version: Option<&'a str>,
    conditions: ReadConditions,
    part_number: Option<i32>,
    range: Option<s3s::dto::Range>,
}

/// What is read: the version, and the range if one is wanted.
struct Found {
    version: FileVersion,
    part: Option<Range<u64>>,
}

/// What an input of s3s asks for.
macro_rules! asked {
    ($input:expr) => {
        Asked {
            bucket: &$input.bucket,
            key: &$input.key,
            version: $input.version_id.as_deref(),
            conditions: ReadConditions {
                if_match: $input.if_match,
                if_none_match: $input.if_none_match,
                if_modified_since: $input.if_modified_since,
                if_unmodified_since: $input.if_unmodified_since,
            },
            part_number: $input.part_number,
            range: $input.range,
        }
    };
}

/// Fills the headers of an output of s3s.
macro_rules! describe {
    ($output:expr, $version:expr, $part:expr, $with_sums:expr) => {{
        let size = $part.as_ref().map_or($version.size, |part| part.end - part.start);
        $output.accept_ranges = Some("bytes".to_owned());
        $output.content_length = i64::try_from(size).ok();
        $output.content_range = $part.as_ref().map(|part| content_range(part, $version.size));
        $output.e_tag = Some(strong(tag(&$version)));
        $output.last_modified = Some(timestamp($version.created_ms));
        $output.version_id = Some(names::version_id($version.version, $version.digest));
        set_headers!($output, &$version.attributes);
        // Of a part they would be compared with those of the whole.
        if $with_sums && $part.is_none() {
            set_sums!($output, noted_sums(&$version.attributes));
        }
    }};
}

fn no_such_key(key: &str) -> S3Error {
    error(S3ErrorCode::NoSuchKey, format!("there is no object '{key}'"))
}

/// Where a copy comes from: bucket, key and version.
pub(crate) fn copy_source(source: &CopySource) -> S3Result<(String, String, Option<String>)> {
    match source {
        CopySource::Bucket { bucket, key, version_id } => {
            Ok((bucket.to_string(), key.to_string(), version_id.as_ref().map(ToString::to_string)))
        }
        CopySource::AccessPoint { .. } | CopySource::Outpost { .. } => {
            Err(error(S3ErrorCode::InvalidArgument, "the source of a copy is a bucket and a key"))
        }
    }
}

impl Gateway {
    /// The version of an object that a request names.
    pub(crate) async fn find(
        &self,
        store: &Store,
        bucket: &str,
        key: &str,
        version: Option<&str>,
    ) -> S3Result<FileVersion> {
        let name = names::object(bucket, key)?;
        let no_version =
            |id: &str| error(S3ErrorCode::NoSuchVersion, format!("'{key}' has no version '{id}'"));
        let number = match version {
            None | Some("null") => None,
            Some(id) => Some(names::version_number(id).ok_or_else(|| no_version(id))?),
        };
        let found = store.locate(&name, number).await?;
        match (found, version.filter(|_| number.is_some())) {
            (Some(found), Some(id)) if names::version_id(found.version, found.digest) != id => {
                Err(no_version(id))
            }
            (Some(found), _) => Ok(found),
            (None, Some(id)) => Err(no_version(id)),
            (None, None) => {
                self.check_bucket(store, bucket).await?;
                Err(no_such_key(key))
            }
        }
    }

    pub(crate) async fn put(
        &self,
        store: &Store,
        mut request: S3Request<PutObjectInput>,
    ) -> S3Result<PutObjectOutput> {
        let announced = announced!(request);
        let input = &mut request.input;
        let (bucket, key) = (input.bucket.clone(), input.key.clone());
        if key.ends_with('/') {
            return self.put_folder(store, &bucket, announced.length).await;
        }
        let name = names::object(&bucket, &key)?;
        let mut attributes = headers_of!(input).into_attributes()?;
        self.check_bucket(store, &bucket).await?;
        // Looked at before the body is received, so that nobody sends 5 GiB in vain; the log compares again.
        let (if_match, if_none_match) = (input.if_match.take(), input.if_none_match.take());
        let newest = match (&if_match, &if_none_match) {
            (None, None) => None,
            _ => store.locate(&name, None).await?,
        };
        let expected = expected(if_match.as_ref(), if_none_match.as_ref(), newest.as_ref())?;
        let received = receive(store, &self.receiving, input.body.take(), announced).await?;
        attributes.insert(ETAG.to_owned(), received.md5.clone());
        note_sums(&mut attributes, &received.sums);
        let file = NewFile {
            name,
            size: received.size,
            digest: received.digest,
            extents: unplaced(&received.extents),
        };
        let version = NewVersion { upload: received.upload, file, attributes, expected, borrows: false };
        let number = store.commit(version).await?;
        let mut output = PutObjectOutput {
            e_tag: Some(strong(received.md5)),
            version_id: Some(names::version_id(number, received.digest)),
            ..PutObjectOutput::default()
        };
        set_sums!(output, received.sums);
        Ok(output)
    }

    /// Folders exist while they have files: what some programs put in their place is accepted and not kept.
    async fn put_folder(
        &self,
        store: &Store,
        bucket: &str,
        length: Option<u64>,
    ) -> S3Result<PutObjectOutput> {
        if length.is_some_and(|length| length > 0) {
            return Err(error(
                S3ErrorCode::InvalidArgument,
                "a key that ends with a slash cannot have content",
            ));
        }
        self.check_bucket(store, bucket).await?;
        Ok(PutObjectOutput { e_tag: Some(strong(EMPTY_MD5.to_owned())), ..PutObjectOutput::default() })
    }

    /// Refuses a key that ends with a slash, unless it stands for a folder that has files.
    async fn check_folder(&self, store: &Store, bucket: &str, key: &str) -> S3Result<()> {
        let (files, _) = store.list(&format!("{bucket}/{key}"), None, 1).await?;
        if files.is_empty() { Err(no_such_key(key)) } else { Ok(()) }
    }

    /// The version that a program wants to read, if its conditions hold.
    async fn read(&self, store: &Store, asked: Asked<'_>) -> S3Result<Found> {
        let version = self.find(store, asked.bucket, asked.key, asked.version).await?;
        asked.conditions.check(&version)?;
        check_part(asked.part_number)?;
        let part = part(asked.range, version.size)?;
        Ok(Found { version, part })
    }

    pub(crate) async fn head(&self, store: &Store, input: HeadObjectInput) -> S3Result<HeadObjectOutput> {
        if input.key.ends_with('/') {
            self.check_folder(store, &input.bucket, &input.key).await?;
            return Ok(HeadObjectOutput {
                content_length: Some(0),
                content_type: Some(FOLDER_TYPE.to_owned()),
                e_tag: Some(strong(EMPTY_MD5.to_owned())),
                ..HeadObjectOutput::default()
            });
        }
        let Found { version, part } = self.read(store, asked!(input)).await?;
        let mut output = HeadObjectOutput::default();
        describe!(output, version, part, input.checksum_mode.is_some());
        Ok(output)
    }

    pub(crate) async fn get(&self, store: &Store, input: GetObjectInput) -> S3Result<GetObjectOutput> {
        if input.key.ends_with('/') {
            self.check_folder(store, &input.bucket, &input.key).await?;
            return Ok(GetObjectOutput {
                body: Some(StreamingBlob::from(s3s::Body::empty())),
                content_length: Some(0),
                ..GetObjectOutput::default()
            });
        }
        let Found { version, part } = self.read(store, asked!(input)).await?;
        let mut output = GetObjectOutput::default();
        describe!(output, version, part, input.checksum_mode.is_some());
        let bytes = part.unwrap_or(0..version.size);
        output.body = Some(self.delivery.stream(store.clone(), version, bytes));
        Ok(output)
    }

    pub(crate) async fn copy(&self, store: &Store, mut input: CopyObjectInput) -> S3Result<CopyObjectOutput> {
        let (bucket, key, version) = copy_source(&input.copy_source)?;
        let name = names::object(&input.bucket, &input.key)?;
        let replaces =
            input.metadata_directive.as_ref().is_some_and(|it| it.as_str() == MetadataDirective::REPLACE);
        if (&bucket, &key) == (&input.bucket, &input.key) && version.is_none() && !replaces {
            let text =
                "an object is copied onto itself only with other metadata: x-amz-metadata-directive: REPLACE";
            return Err(error(S3ErrorCode::InvalidRequest, text));
        }
        self.check_bucket(store, &input.bucket).await?;
        let source = self.find(store, &bucket, &key, version.as_deref()).await?;
        let conditions = ReadConditions {
            if_match: input.copy_source_if_match.take(),
            if_none_match: input.copy_source_if_none_match.take(),
            if_modified_since: input.copy_source_if_modified_since.take(),
            if_unmodified_since: input.copy_source_if_unmodified_since.take(),
        };
        conditions.check_source(&source)?;
        let mut attributes =
            if replaces { headers_of!(input).into_attributes()? } else { source.attributes.clone() };
        if replaces {
            let kept =
                source.attributes.iter().filter(|(name, _)| *name == ETAG || name.starts_with(CHECKSUM));
            attributes.extend(kept.map(|(name, value)| (name.clone(), value.clone())));
        }
        let upload = store.keep_upload(None).await?;
        let extents = unplaced(&source.extents);
        let file = NewFile { name, size: source.size, digest: source.digest, extents };
        let version = NewVersion { upload, file, attributes, expected: None, borrows: true };
        let number = store.commit(version).await?;
        let result = CopyObjectResult {
            e_tag: Some(strong(tag(&source))),
            last_modified: Some(std::time::SystemTime::now().into()),
            ..CopyObjectResult::default()
        };
        Ok(CopyObjectOutput {
            copy_object_result: Some(result),
            copy_source_version_id: Some(names::version_id(source.version, source.digest)),
            version_id: Some(names::version_id(number, source.digest)),
            ..CopyObjectOutput::default()
        })
    }
}

/// The MD5 of nothing.
const EMPTY_MD5: &str = "d41d8cd98f00b204e9800998ecf8427e";

fn check_part(number: Option<i32>) -> S3Result<()> {
    match number {
        None | Some(1) => Ok(()),
        Some(_) => {
            Err(error(S3ErrorCode::NotImplemented, "an object's parts are not kept apart: read a range"))
        }
    }
}

fn part(range: Option<s3s::dto::Range>, size: u64) -> S3Result<Option<Range<u64>>> {
    let part = range.map(|range| range.check(size)).transpose();
    let part = part.map_err(|_| error(S3ErrorCode::InvalidRange, format!("the object has {size} bytes")))?;
    // The end of an empty object: there is no range to name.
    Ok(part.filter(|part| part.start < part.end))
}

fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_what_http_says() {
        let of = |text: &str| part(Some(s3s::dto::Range::parse(text).unwrap()), 100);
        assert_eq!(of("bytes=0-9").unwrap(), Some(0..10));
        assert_eq!(of("bytes=90-").unwrap(), Some(90..100));
        assert_eq!(of("bytes=-5").unwrap(), Some(95..100));
        assert_eq!(content_range(&(95..100), 100), "bytes 95-99/100");
        assert_eq!(*of("bytes=100-").unwrap_err().code(), S3ErrorCode::InvalidRange);
        assert_eq!(part(None, 5).unwrap(), None);
    }
}
