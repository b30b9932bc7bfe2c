//! Lists the parts of an upload, and the uploads of a bucket.

use idunno_shared::folders::S3_UPLOADS;
use idunno_shared::wire::control::FileSummary;
use s3s::S3Result;
use s3s::dto::{
    ListMultipartUploadsInput, ListMultipartUploadsOutput, ListPartsInput, ListPartsOutput, MultipartUpload,
    Part, StorageClass,
};

use super::conditions::{strong, timestamp};
use super::gateway::{Gateway, owner};
use super::listing::page;
use super::names::{self, UploadName};
use crate::store::Store;

/// Parts in a page, and uploads in one.
const ROWS_MAX: usize = 1_000;

/// The rows that a page has at most.
fn limit(asked: Option<i32>) -> usize {
    asked.map_or(ROWS_MAX, |asked| usize::try_from(asked).unwrap_or(0)).min(ROWS_MAX)
}

impl Gateway {
    pub(super) async fn parts(&self, store: &Store, input: ListPartsInput) -> S3Result<ListPartsOutput> {
        let upload = UploadName::new(&input.bucket, &input.key, &input.upload_id)?;
        self.check_upload(store, &upload).await?;
        let limit = limit(input.max_parts);
        let after = input.part_number_marker.unwrap_or(0);
        // Of files in the folder, the record comes after all parts.
        let last_listed = u32::try_from(after).ok().filter(|&number| number > 0);
        let last_listed = last_listed.map(|number| upload.part(number)).transpose()?;
        let most = u32::try_from(limit + 2).unwrap_or(u32::MAX);
        let folder = upload.folder();
        let (files, _) = store.list(&folder, last_listed, most).await?;
        let parts = files.iter().filter_map(|file| part_row(&folder, file));
        let (page, more) = page(parts, limit);
        Ok(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            part_number_marker: Some(after),
            next_part_number_marker: page.last().and_then(|last| last.part_number).or(Some(after)),
            max_parts: i32::try_from(limit).ok(),
            is_truncated: Some(more),
            parts: Some(page),
            owner: Some(owner()),
            storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
            ..ListPartsOutput::default()
        })
    }

    /// All uploads are read for each page: S3 has them in the order of keys, the store in that of names, in which `a-b/` comes
    /// before `a/`.
    pub(super) async fn uploads(
        &self,
        store: &Store,
        input: ListMultipartUploadsInput,
    ) -> S3Result<ListMultipartUploadsOutput> {
        self.check_bucket(store, &input.bucket).await?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let limit = limit(input.max_uploads);
        let files = store.list_all(&format!("{S3_UPLOADS}{}/{prefix}", input.bucket), usize::MAX).await?;
        let mut uploads: Vec<(UploadName, u64)> = files
            .iter()
            .filter_map(|file| Some((UploadName::of_record(&input.bucket, &file.name)?, file.created_ms)))
            .collect();
        uploads.sort_by(|(a, _), (b, _)| (&a.key, &a.id).cmp(&(&b.key, &b.id)));
        let key_marker = input.key_marker.clone().unwrap_or_default();
        let id_marker = input.upload_id_marker.clone().unwrap_or_default();
        // Without an id, all uploads of the marker's key were listed.
        let is_after = |upload: &UploadName| {
            upload.key > key_marker
                || (upload.key == key_marker && !id_marker.is_empty() && upload.id > id_marker)
        };
        let rest = uploads.into_iter().filter(|(upload, _)| key_marker.is_empty() || is_after(upload));
        let (page, more) = page(rest.map(|(upload, at_ms)| upload_row(upload, at_ms)), limit);
        let last = page.last().filter(|_| more);
        Ok(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            key_marker: Some(key_marker),
            upload_id_marker: Some(id_marker),
            next_key_marker: last.and_then(|last| last.key.clone()),
            next_upload_id_marker: last.and_then(|last| last.upload_id.clone()),
            max_uploads: i32::try_from(limit).ok(),
            is_truncated: Some(more),
            uploads: Some(page),
            ..ListMultipartUploadsOutput::default()
        })
    }
}

/// The row of a file in an upload's folder; `None` if it is no part.
fn part_row(folder: &str, file: &FileSummary) -> Option<Part> {
    let number = names::part_number(file.name.as_str().strip_prefix(folder)?)?;
    Some(Part {
        part_number: i32::try_from(number).ok(),
        e_tag: Some(strong(names::etag_or(file.etag.clone(), file.digest))),
        last_modified: Some(timestamp(file.created_ms)),
        size: i64::try_from(file.size).ok(),
        ..Part::default()
    })
}

fn upload_row(upload: UploadName, at_ms: u64) -> MultipartUpload {
    MultipartUpload {
        key: Some(upload.key),
        upload_id: Some(upload.id),
        initiated: Some(timestamp(at_ms)),
        owner: Some(owner()),
        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
        ..MultipartUpload::default()
    }
}
