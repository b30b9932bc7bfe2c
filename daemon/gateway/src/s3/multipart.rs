//! Uploads of parts. The record of an upload and each of its parts are files under a folder that lists leave out, so they are as durable as any
//! file, and any gateway continues what another began. To complete an upload is one commit of the parts' extents: no byte moves, and until
//! then nothing of the object is visible. The parts are deleted afterwards; what is left behind by an end in between belongs to no
//! object, and `DeleteObject`, `AbortMultipartUpload` or a sweep takes it away.
//!
//! Bounds: [`PARTS_MAX`] parts, each but the last of [`PART_BYTES_MIN`].

use std::ops::Range;
use std::sync::PoisonError;

use idunno_shared::ids::Digest;
use idunno_shared::names::FileName;
use idunno_shared::wire::control::{Attributes, ETAG, EXTENTS_PER_FILE_MAX, Expected, FileVersion, NewFile};
use s3s::dto::{
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart, CopyPartResult,
    CreateMultipartUploadInput, CreateMultipartUploadOutput, UploadPartCopyInput, UploadPartCopyOutput,
    UploadPartInput, UploadPartOutput,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result};

use super::attributes::{UPLOAD, headers_of};
use super::conditions::{ReadConditions, expected, strong, tag};
use super::gateway::Gateway;
use super::names::{self, UploadName};
use super::objects::{announced, announced_md5, body_length, copy_source, set_sums, trailer};
use crate::errors::{error, slow_down};
use crate::ingest::{Announced, Received, etag_of_parts, receive};
use crate::store::{NewVersion, Store, unplaced};
use crate::tree::{self, PartHasher, Subtree};

/// Most parts of an object.
pub const PARTS_MAX: u32 = 10_000;
/// The smallest part but the last.
pub const PART_BYTES_MIN: u64 = 5 << 20;
/// The subtrees of a part.
const TREE: &str = "tree";

fn no_such_upload(upload: &UploadName) -> S3Error {
    error(S3ErrorCode::NoSuchUpload, format!("there is no upload '{}' of '{}'", upload.id, upload.key))
}

fn checked_number(number: i32) -> S3Result<u32> {
    let number = u32::try_from(number).ok().filter(|number| (1..=PARTS_MAX).contains(number));
    number.ok_or_else(|| error(S3ErrorCode::InvalidArgument, "the number of a part is from 1 to 10,000"))
}

/// A part that is named in a completion.
struct Named {
    number: u32,
    etag: Option<String>,
}

/// The parts that a completion names, in order.
fn named(parts: Option<Vec<CompletedPart>>) -> S3Result<Vec<Named>> {
    let parts = parts.unwrap_or_default();
    if parts.is_empty() {
        return Err(error(S3ErrorCode::MalformedXML, "the completion names no part"));
    }
    let mut named: Vec<Named> = Vec::with_capacity(parts.len());
    for part in parts {
        let number =
            part.part_number.ok_or_else(|| error(S3ErrorCode::MalformedXML, "a part has no number"))?;
        let number = checked_number(number)
            .map_err(|_| error(S3ErrorCode::InvalidPart, "a part has no valid number"))?;
        if named.last().is_some_and(|last| last.number >= number) {
            return Err(error(
                S3ErrorCode::InvalidPartOrder,
                "the parts are not in the order of their numbers",
            ));
        }
        named.push(Named { number, etag: part.e_tag.map(s3s::dto::ETag::into_value) });
    }
    Ok(named)
}

/// Compares the parts that are there with those that are named.
fn check_parts(named: &[Named], found: Vec<Option<FileVersion>>) -> S3Result<Vec<FileVersion>> {
    let mut parts = Vec::with_capacity(named.len());
    for (named, found) in named.iter().zip(found) {
        let number = named.number;
        let lacks = || {
            error(S3ErrorCode::InvalidPart, format!("part {number} was not uploaded, or has another ETag"))
        };
        let found = found.ok_or_else(lacks)?;
        if named.etag.as_ref().is_some_and(|etag| *etag != tag(&found)) {
            return Err(lacks());
        }
        parts.push(found);
    }
    let small = parts.iter().rev().skip(1).find(|part| part.size < PART_BYTES_MIN);
    match small {
        Some(part) => {
            let text =
                format!("a part has {} bytes; all but the last have at least {PART_BYTES_MIN}", part.size);
            Err(error(S3ErrorCode::EntityTooSmall, text))
        }
        None => Ok(parts),
    }
}

impl Gateway {
    /// Refuses what is asked of an upload that does not exist.
    pub(super) async fn check_upload(&self, store: &Store, upload: &UploadName) -> S3Result<()> {
        store.locate(&upload.record()?, None).await?.map(drop).ok_or_else(|| no_such_upload(upload))
    }

    pub(crate) async fn begin_upload(
        &self,
        store: &Store,
        mut input: CreateMultipartUploadInput,
    ) -> S3Result<CreateMultipartUploadOutput> {
        names::object(&input.bucket, &input.key)?;
        let attributes = headers_of!(input).into_attributes()?;
        self.check_bucket(store, &input.bucket).await?;
        let random = || getrandom::u64().map_err(|_| slow_down("the machine has no randomness"));
        let id = format!("{:016x}{:016x}", random()?, random()?);
        let upload = UploadName::new(&input.bucket, &input.key, &id)?;
        // Names of parts are as long, or a little shorter.
        store.commit_record(upload.record()?, attributes, Some(Expected::NoFile)).await?;
        Ok(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            checksum_algorithm: input.checksum_algorithm,
            checksum_type: input.checksum_type,
            ..CreateMultipartUploadOutput::default()
        })
    }

    /// Where a part will probably be: all parts are as long as the longest so far.
    fn place(&self, upload: &UploadName, number: u32, length: Option<u64>) -> Option<u64> {
        let mut known = self.part_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = length?.max(known.get(&upload.id).copied().unwrap_or(0));
        known.put(upload.id.clone(), longest);
        longest.checked_mul(u64::from(number) - 1)
    }

    pub(crate) async fn put_part(
        &self,
        store: &Store,
        mut request: S3Request<UploadPartInput>,
    ) -> S3Result<UploadPartOutput> {
        let announced = announced!(request);
        let input = &mut request.input;
        let number = checked_number(input.part_number)?;
        let upload = UploadName::new(&input.bucket, &input.key, &input.upload_id)?;
        self.check_upload(store, &upload).await?;
        let announced = Announced { place: self.place(&upload, number, announced.length), ..announced };
        let received = receive(store, &self.receiving, input.body.take(), announced).await?;
        let (etag, sums) = (received.md5.clone(), received.sums.clone());
        commit_part(store, &upload, number, received).await?;
        let mut output = UploadPartOutput { e_tag: Some(strong(etag)), ..UploadPartOutput::default() };
        set_sums!(output, sums);
        Ok(output)
    }

    pub(crate) async fn copy_part(
        &self,
        store: &Store,
        mut input: UploadPartCopyInput,
    ) -> S3Result<UploadPartCopyOutput> {
        let number = checked_number(input.part_number)?;
        let upload = UploadName::new(&input.bucket, &input.key, &input.upload_id)?;
        self.check_upload(store, &upload).await?;
        let (bucket, key, version) = copy_source(&input.copy_source)?;
        let source = self.find(store, &bucket, &key, version.as_deref()).await?;
        let conditions = ReadConditions {
            if_match: input.copy_source_if_match.take(),
            if_none_match: input.copy_source_if_none_match.take(),
            if_modified_since: input.copy_source_if_modified_since.take(),
            if_unmodified_since: input.copy_source_if_unmodified_since.take(),
        };
        conditions.check_source(&source)?;
        let range = match &input.copy_source_range {
            Some(text) => copied_range(text, source.size)?,
            None => 0..source.size,
        };
        let source_version = names::version_id(source.version, source.digest);
        // Its MD5 is needed, so the bytes are read in any case.
        let length = Some(range.end - range.start);
        let body = self.delivery.stream(store.clone(), source, range);
        let announced =
            Announced { length, place: self.place(&upload, number, length), ..Announced::default() };
        let received = receive(store, &self.receiving, Some(body), announced).await?;
        let etag = received.md5.clone();
        commit_part(store, &upload, number, received).await?;
        let result = CopyPartResult {
            e_tag: Some(strong(etag)),
            last_modified: Some(std::time::SystemTime::now().into()),
            ..CopyPartResult::default()
        };
        Ok(UploadPartCopyOutput {
            copy_part_result: Some(result),
            copy_source_version_id: Some(source_version),
            ..UploadPartCopyOutput::default()
        })
    }

    pub(crate) async fn complete_upload(
        &self,
        store: &Store,
        input: CompleteMultipartUploadInput,
    ) -> S3Result<CompleteMultipartUploadOutput> {
        let upload = UploadName::new(&input.bucket, &input.key, &input.upload_id)?;
        let name = names::object(&input.bucket, &input.key)?;
        let newest = store.locate(&name, None).await?;
        let Some(record) = store.locate(&upload.record()?, None).await? else {
            // The answer to the completion may have been lost.
            let made = newest.filter(|newest| newest.attributes.get(UPLOAD) == Some(&upload.id));
            let made = made.ok_or_else(|| no_such_upload(&upload))?;
            return Ok(completed(&upload, made.version, made.digest, tag(&made)));
        };
        let expected = expected(input.if_match.as_ref(), input.if_none_match.as_ref(), newest.as_ref())?;
        let named = named(input.multipart_upload.and_then(|parts| parts.parts))?;
        let files: Vec<FileName> =
            named.iter().map(|part| upload.part(part.number)).collect::<S3Result<_>>()?;
        let parts = check_parts(&named, store.locate_all(&files).await?)?;
        let size: u64 = parts.iter().map(|part| part.size).sum();
        if input.mpu_object_size.is_some_and(|announced| u64::try_from(announced) != Ok(size)) {
            return Err(error(
                S3ErrorCode::InvalidRequest,
                format!("the parts have {size} bytes, others were announced"),
            ));
        }
        let extents: Vec<_> = parts.iter().flat_map(|part| unplaced(&part.extents)).collect();
        if extents.len() > EXTENTS_PER_FILE_MAX {
            return Err(error(
                S3ErrorCode::EntityTooLarge,
                "the object has more extents than a file may have",
            ));
        }
        let tags: Vec<String> = parts.iter().map(tag).collect();
        let etag = etag_of_parts(tags.iter().map(String::as_str))
            .ok_or_else(|| error(S3ErrorCode::InvalidPart, "a part has no MD5"))?;
        let digest = self.digest_of(store, &parts).await?;
        let mut attributes = record.attributes;
        attributes.insert(ETAG.to_owned(), etag.clone());
        attributes.insert(UPLOAD.to_owned(), upload.id.clone());
        let open = store.keep_upload(None).await?;
        let file = NewFile { name, size, digest, extents };
        let version = NewVersion { upload: open, file, attributes, expected, borrows: true };
        let number = store.commit(version).await.map_err(|wrong| match wrong.code() {
            S3ErrorCode::NoSuchKey => no_such_upload(&upload),
            _ => wrong,
        })?;
        if let Err(left) = self.remove_upload(store, &upload).await {
            tracing::warn!(error = ?left, upload = upload.folder(), "the parts of a complete upload are left");
        }
        Ok(completed(&upload, number, digest, etag))
    }

    /// The digest of the parts' bytes: merged from what was noted of each, which is read again where its place was guessed wrong.
    async fn digest_of(&self, store: &Store, parts: &[FileVersion]) -> S3Result<Digest> {
        if let [only] = parts {
            return Ok(only.digest);
        }
        let (mut at, mut subtrees) = (0, Vec::new());
        for part in parts {
            let noted = part.attributes.get(TREE).and_then(|text| tree::decode(text, at, part.size));
            let found = match noted {
                Some(noted) => Some(noted),
                None => self.subtrees_of(store, part, at).await?,
            };
            let Some(found) = found else { return self.read_again(store, parts).await };
            subtrees.extend(found);
            at += part.size;
        }
        match tree::merge(&subtrees) {
            Some(digest) => Ok(digest),
            None => self.read_again(store, parts).await,
        }
    }

    async fn subtrees_of(
        &self,
        store: &Store,
        part: &FileVersion,
        at: u64,
    ) -> S3Result<Option<Vec<Subtree>>> {
        let Some(mut hasher) = PartHasher::new(at, part.size) else { return Ok(None) };
        tracing::debug!(part = %part.name, at, "reads a part again for the digest");
        for extent in &part.extents {
            let _room = self.receiving.take(extent.blob.size).await;
            let bytes = store.files.fetch_blob(extent).await.map_err(|lost| slow_down(lost.to_string()))?;
            hasher.update(&bytes);
        }
        Ok(hasher.finish())
    }

    async fn read_again(&self, store: &Store, parts: &[FileVersion]) -> S3Result<Digest> {
        let mut whole = blake3::Hasher::new();
        for extent in parts.iter().flat_map(|part| &part.extents) {
            let _room = self.receiving.take(extent.blob.size).await;
            let bytes = store.files.fetch_blob(extent).await.map_err(|lost| slow_down(lost.to_string()))?;
            whole.update(&bytes);
        }
        Ok(Digest(*whole.finalize().as_bytes()))
    }

    pub(crate) async fn abort_upload(&self, store: &Store, upload: &UploadName) -> S3Result<()> {
        self.check_upload(store, upload).await?;
        self.remove_upload(store, upload).await
    }

    /// Removes the parts, and the record last: until then the removal can be repeated.
    async fn remove_upload(&self, store: &Store, upload: &UploadName) -> S3Result<()> {
        let record = upload.record()?;
        let files = store.list_all(&upload.folder(), usize::MAX).await?;
        let mut names: Vec<FileName> = files.into_iter().map(|file| file.name).collect();
        names.retain(|name| *name != record);
        names.push(record);
        store.delete(&names).await?;
        self.part_bytes.lock().unwrap_or_else(PoisonError::into_inner).pop(&upload.id);
        Ok(())
    }
}

/// The bytes of a source that are copied. Both ends are named, and unlike in a range that is read the last byte must be there.
fn copied_range(text: &str, size: u64) -> S3Result<Range<u64>> {
    match s3s::dto::Range::parse(text) {
        Ok(s3s::dto::Range::Int { first, last: Some(last) }) if first <= last && last < size => {
            Ok(first..last + 1)
        }
        Ok(s3s::dto::Range::Int { first, last: Some(last) }) if first <= last => {
            Err(error(S3ErrorCode::InvalidRange, format!("the source of the copy has {size} bytes")))
        }
        _ => Err(error(S3ErrorCode::InvalidArgument, "x-amz-copy-source-range is not bytes=FIRST-LAST")),
    }
}

fn completed(
    upload: &UploadName,
    number: u64,
    digest: Digest,
    etag: String,
) -> CompleteMultipartUploadOutput {
    CompleteMultipartUploadOutput {
        bucket: Some(upload.bucket.clone()),
        key: Some(upload.key.clone()),
        location: Some(format!("/{}/{}", upload.bucket, upload.key)),
        e_tag: Some(strong(etag)),
        version_id: Some(names::version_id(number, digest)),
        ..CompleteMultipartUploadOutput::default()
    }
}

async fn commit_part(store: &Store, upload: &UploadName, number: u32, received: Received) -> S3Result<()> {
    let mut attributes = Attributes::from([(ETAG.to_owned(), received.md5)]);
    attributes.extend(received.tree.map(|tree| (TREE.to_owned(), tree)));
    let extents = unplaced(&received.extents);
    let file = NewFile { name: upload.part(number)?, size: received.size, digest: received.digest, extents };
    let version = NewVersion { upload: received.upload, file, attributes, expected: None, borrows: false };
    store.commit(version).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(size: u64, etag: &str) -> FileVersion {
        FileVersion {
            name: "p".parse().unwrap(),
            version: 1,
            size,
            digest: Digest::default(),
            created_ms: 0,
            extents: vec![],
            attributes: Attributes::from([(ETAG.to_owned(), etag.to_owned())]),
        }
    }

    fn completion(numbers: &[i32]) -> Vec<CompletedPart> {
        let part = |number: &i32| CompletedPart {
            part_number: Some(*number),
            e_tag: Some(strong(format!("{number}"))),
            ..CompletedPart::default()
        };
        numbers.iter().map(part).collect()
    }

    #[test]
    fn a_copied_range_is_within_its_source() {
        let code = |text: &str| copied_range(text, 10).map_err(|wrong| wrong.code().clone());
        assert_eq!(code("bytes=0-9"), Ok(0..10));
        assert_eq!(code("bytes=9-9"), Ok(9..10));
        assert_eq!(code("bytes=0-10"), Err(S3ErrorCode::InvalidRange));
        for wrong in ["bytes=5-", "bytes=-5", "bytes=5-4", "0-1", "bytes=a-b"] {
            assert_eq!(code(wrong), Err(S3ErrorCode::InvalidArgument), "{wrong}");
        }
    }

    #[test]
    fn parts_are_named_in_order() {
        let code = |numbers: &[i32]| {
            named(Some(completion(numbers))).map(|it| it.len()).map_err(|it| it.code().clone())
        };
        assert_eq!(code(&[1, 2, 10_000]), Ok(3));
        assert_eq!(code(&[]), Err(S3ErrorCode::MalformedXML));
        assert_eq!(code(&[2, 1]), Err(S3ErrorCode::InvalidPartOrder));
        assert_eq!(code(&[1, 1]), Err(S3ErrorCode::InvalidPartOrder));
        assert_eq!(code(&[0]), Err(S3ErrorCode::InvalidPart));
        assert_eq!(code(&[10_001]), Err(S3ErrorCode::InvalidPart));
    }

    #[test]
    fn parts_are_those_that_were_uploaded_and_large_enough() {
        let named = named(Some(completion(&[1, 2]))).unwrap();
        let code = |found: Vec<Option<FileVersion>>| {
            check_parts(&named, found).map(|it| it.len()).map_err(|it| it.code().clone())
        };
        let large = || Some(part(PART_BYTES_MIN, "1"));
        assert_eq!(code(vec![large(), Some(part(1, "2"))]), Ok(2));
        assert_eq!(code(vec![large(), None]), Err(S3ErrorCode::InvalidPart));
        assert_eq!(code(vec![large(), Some(part(1, "x"))]), Err(S3ErrorCode::InvalidPart));
        assert_eq!(code(vec![Some(part(5, "1")), Some(part(1, "2"))]), Err(S3ErrorCode::EntityTooSmall));
    }
}
