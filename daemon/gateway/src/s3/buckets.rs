//! Buckets, and what is in them.

use idunno_shared::folders::S3_UPLOADS;
use idunno_shared::names::FileName;
use idunno_shared::wire::control::{Attributes, FileVersion};
use percent::url_encoded;
use s3s::dto::{
    Bucket, CommonPrefix, CreateBucketOutput, EncodingType, GetBucketAclOutput, Grant, Grantee,
    HeadBucketOutput, ListBucketsInput, ListBucketsOutput, ListObjectVersionsInput, ListObjectVersionsOutput,
    ListObjectsInput, ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output, Object, ObjectStorageClass,
    ObjectVersion, ObjectVersionStorageClass, Permission, Type,
};
use s3s::validation::{AwsNameValidation, NameValidation};
use s3s::{S3ErrorCode, S3Result};

use super::conditions::{strong, tag, timestamp};
use super::gateway::{Gateway, owner};
use super::listing::{ENTRIES_MAX, Entry, Listing, list, page};
use super::names;
use crate::errors::error;
use crate::hex::hex;
use crate::store::Store;

/// The region of all buckets.
pub(crate) const REGION: &str = "us-east-1";

/// Keys of files whose versions are listed at once.
const VERSIONED_MAX: usize = 200;

mod percent {
    use std::fmt::Write;

    /// A text as `encoding-type=url` shows it.
    pub(super) fn url_encoded(text: &str) -> String {
        let mut encoded = String::with_capacity(text.len());
        for byte in text.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                    encoded.push(byte.into());
                }
                // Writing to a string does not fail.
                _ => {
                    let _ = write!(encoded, "%{byte:02X}");
                }
            }
        }
        encoded
    }
}

/// Texts of an answer, encoded if that was asked for.
struct Texts {
    is_url: bool,
}

impl Texts {
    fn of(asked: Option<&EncodingType>) -> S3Result<Self> {
        match asked.map(EncodingType::as_str) {
            None => Ok(Self { is_url: false }),
            Some("url") => Ok(Self { is_url: true }),
            Some(other) => {
                Err(error(S3ErrorCode::InvalidArgument, format!("there is no encoding-type '{other}'")))
            }
        }
    }

    fn text(&self, text: &str) -> String {
        if self.is_url { url_encoded(text) } else { text.to_owned() }
    }

    /// An empty delimiter is none.
    fn delimiter(&self, given: Option<String>) -> Option<String> {
        given.filter(|delimiter| !delimiter.is_empty()).map(|delimiter| self.text(&delimiter))
    }

    fn prefixes(&self, entries: &[Entry]) -> Vec<CommonPrefix> {
        let prefixes = entries.iter().filter_map(|entry| match entry {
            Entry::Prefix(prefix) => Some(CommonPrefix { prefix: Some(self.text(prefix)) }),
            Entry::Object(..) => None,
        });
        prefixes.collect()
    }

    fn objects(&self, entries: &[Entry], with_owner: bool) -> Vec<Object> {
        let objects = entries.iter().filter_map(|entry| match entry {
            Entry::Object(key, file) => Some(Object {
                e_tag: Some(strong(names::etag_or(file.etag.clone(), file.digest))),
                key: Some(self.text(key)),
                last_modified: Some(timestamp(file.created_ms)),
                owner: with_owner.then(owner),
                size: i64::try_from(file.size).ok(),
                storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
                ..Object::default()
            }),
            Entry::Prefix(_) => None,
        });
        objects.collect()
    }
}

/// How many entries were asked for, and how many are given at most.
fn limits(asked: Option<i32>) -> S3Result<(i32, usize)> {
    let asked = asked.unwrap_or(1_000);
    let limit = usize::try_from(asked);
    let limit = limit.map_err(|_| error(S3ErrorCode::InvalidArgument, "max-keys is negative"))?;
    Ok((asked.min(1_000), limit.min(ENTRIES_MAX)))
}

/// A token that programs cannot take for a key.
fn token_of(after: &str) -> String {
    hex(after.as_bytes())
}

fn after_of(token: &str) -> S3Result<String> {
    let pairs = token.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> =
        pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    let text = bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .filter(|text| token_of(text) == token && !text.is_empty());
    text.ok_or_else(|| {
        error(S3ErrorCode::InvalidArgument, "the continuation token is none of this gateway's")
    })
}

impl Gateway {
    pub(crate) async fn buckets(
        &self,
        store: &Store,
        input: ListBucketsInput,
    ) -> S3Result<ListBucketsOutput> {
        let is_bucket = |name: &String| AwsNameValidation::new().validate_bucket_name(name);
        let mut names: Vec<String> = store.top_folders().await?;
        let records = names::bucket_records();
        let recorded = store.list_all(&records, usize::MAX).await?;
        names.extend(
            recorded.iter().filter_map(|file| file.name.as_str().strip_prefix(&records)).map(str::to_owned),
        );
        names.retain(is_bucket);
        names.sort();
        names.dedup();
        let created = |name: &str| {
            recorded
                .iter()
                .find(|file| file.name.as_str().ends_with(&format!("/{name}")))
                .map_or(0, |file| file.created_ms)
        };
        let bucket = |name: String| Bucket {
            creation_date: Some(timestamp(created(&name))),
            bucket_region: Some(REGION.to_owned()),
            name: Some(name),
        };
        let after = match input.continuation_token.as_deref().filter(|token| !token.is_empty()) {
            Some(token) => after_of(token)?,
            None => String::new(),
        };
        let prefix = input.prefix.clone().unwrap_or_default();
        names.retain(|name| name.starts_with(&prefix) && *name > after);
        let limit = input.max_buckets.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
        let (page, more) = page(names.into_iter().map(bucket), limit);
        let last = page.last().filter(|_| more).and_then(|last| last.name.as_deref());
        Ok(ListBucketsOutput {
            continuation_token: last.map(token_of),
            buckets: Some(page),
            owner: Some(owner()),
            prefix: input.prefix,
        })
    }

    pub(crate) async fn make_bucket(&self, store: &Store, bucket: &str) -> S3Result<CreateBucketOutput> {
        names::check_bucket(bucket)?;
        if !self.has_bucket(store, bucket).await? {
            store.commit_record(names::bucket_record(bucket)?, Attributes::new(), None).await?;
        }
        Ok(CreateBucketOutput { location: Some(format!("/{bucket}")) })
    }

    pub(crate) async fn head_of_bucket(&self, store: &Store, bucket: &str) -> S3Result<HeadBucketOutput> {
        self.check_bucket(store, bucket).await?;
        Ok(HeadBucketOutput { bucket_region: Some(REGION.to_owned()), ..HeadBucketOutput::default() })
    }

    pub(crate) async fn remove_bucket(&self, store: &Store, bucket: &str) -> S3Result<()> {
        self.forget_bucket(bucket);
        self.check_bucket(store, bucket).await?;
        self.forget_bucket(bucket);
        if !store.list(&format!("{bucket}/"), None, 1).await?.0.is_empty() {
            return Err(error(S3ErrorCode::BucketNotEmpty, format!("the bucket '{bucket}' has objects")));
        }
        // Unfinished uploads do not keep a bucket, as on AWS: they are aborted.
        let uploads = store.list_all(&format!("{S3_UPLOADS}{bucket}/"), usize::MAX).await?;
        let mut names: Vec<FileName> = uploads.into_iter().map(|file| file.name).collect();
        names.push(names::bucket_record(bucket)?);
        store.delete(&names).await
    }

    pub(crate) async fn list_v1(
        &self,
        store: &Store,
        input: ListObjectsInput,
    ) -> S3Result<ListObjectsOutput> {
        self.check_bucket(store, &input.bucket).await?;
        let texts = Texts::of(input.encoding_type.as_ref())?;
        let (max_keys, limit) = limits(input.max_keys)?;
        let listing = Listing {
            bucket: input.bucket.clone(),
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().unwrap_or_default(),
            after: input.marker.clone().unwrap_or_default(),
            limit,
        };
        let (entries, more) = list(store, &listing).await?;
        // Without a delimiter programs go on after the last key.
        let next = entries.last().filter(|_| more && !listing.delimiter.is_empty());
        Ok(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: Some(texts.text(&listing.prefix)),
            marker: Some(texts.text(&listing.after)),
            max_keys: Some(max_keys),
            is_truncated: Some(more),
            contents: Some(texts.objects(&entries, true)),
            common_prefixes: Some(texts.prefixes(&entries)),
            delimiter: texts.delimiter(input.delimiter),
            next_marker: next.map(|last| texts.text(last.text())),
            encoding_type: input.encoding_type,
            ..ListObjectsOutput::default()
        })
    }

    pub(crate) async fn list_v2(
        &self,
        store: &Store,
        input: ListObjectsV2Input,
    ) -> S3Result<ListObjectsV2Output> {
        self.check_bucket(store, &input.bucket).await?;
        let texts = Texts::of(input.encoding_type.as_ref())?;
        let (max_keys, limit) = limits(input.max_keys)?;
        let after = match input.continuation_token.as_deref().filter(|token| !token.is_empty()) {
            Some(token) => after_of(token)?,
            None => input.start_after.clone().unwrap_or_default(),
        };
        let listing = Listing {
            bucket: input.bucket.clone(),
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().unwrap_or_default(),
            after,
            limit,
        };
        let (entries, more) = list(store, &listing).await?;
        let next = entries.last().filter(|_| more).map(|last| token_of(last.text()));
        Ok(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(texts.text(&listing.prefix)),
            max_keys: Some(max_keys),
            key_count: i32::try_from(entries.len()).ok(),
            continuation_token: input.continuation_token,
            is_truncated: Some(more),
            next_continuation_token: next,
            contents: Some(texts.objects(&entries, input.fetch_owner.unwrap_or(false))),
            common_prefixes: Some(texts.prefixes(&entries)),
            delimiter: texts.delimiter(input.delimiter),
            start_after: input.start_after.map(|after| texts.text(&after)),
            encoding_type: input.encoding_type,
            ..ListObjectsV2Output::default()
        })
    }

    /// Versions are listed by whole keys: a page has all that are kept of each of its keys.
    pub(crate) async fn list_versions(
        &self,
        store: &Store,
        input: ListObjectVersionsInput,
    ) -> S3Result<ListObjectVersionsOutput> {
        self.check_bucket(store, &input.bucket).await?;
        let texts = Texts::of(input.encoding_type.as_ref())?;
        let (max_keys, limit) = limits(input.max_keys)?;
        let listing = Listing {
            bucket: input.bucket.clone(),
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().unwrap_or_default(),
            after: input.key_marker.clone().unwrap_or_default(),
            limit: limit.min(VERSIONED_MAX),
        };
        let (entries, more) = list(store, &listing).await?;
        let mut versions = Vec::new();
        for entry in &entries {
            if let Entry::Object(key, file) = entry {
                let kept = store.versions(&file.name).await?;
                let row = |(place, version): (usize, &FileVersion)| {
                    object_version(&texts.text(key), place == 0, version)
                };
                versions.extend(kept.iter().enumerate().map(row));
            }
        }
        let last = entries.last().filter(|_| more).map(|last| last.text().to_owned());
        Ok(ListObjectVersionsOutput {
            name: Some(input.bucket),
            prefix: Some(texts.text(&listing.prefix)),
            key_marker: Some(texts.text(&listing.after)),
            version_id_marker: input.version_id_marker,
            max_keys: Some(max_keys),
            is_truncated: Some(more),
            next_version_id_marker: versions
                .last()
                .filter(|_| last.is_some())
                .and_then(|last| last.version_id.clone()),
            next_key_marker: last.map(|last| texts.text(&last)),
            versions: Some(versions),
            common_prefixes: Some(texts.prefixes(&entries)),
            delimiter: texts.delimiter(input.delimiter),
            encoding_type: input.encoding_type,
            ..ListObjectVersionsOutput::default()
        })
    }
}

fn object_version(key: &str, is_latest: bool, version: &FileVersion) -> ObjectVersion {
    ObjectVersion {
        e_tag: Some(strong(tag(version))),
        is_latest: Some(is_latest),
        key: Some(key.to_owned()),
        last_modified: Some(timestamp(version.created_ms)),
        owner: Some(owner()),
        size: i64::try_from(version.size).ok(),
        storage_class: Some(ObjectVersionStorageClass::from_static(ObjectVersionStorageClass::STANDARD)),
        version_id: Some(names::version_id(version.version, version.digest)),
        ..ObjectVersion::default()
    }
}

/// Everything is the owner's: what keys may do is said when they are made.
pub(crate) fn full_control() -> Vec<Grant> {
    let owner = owner();
    let grantee = Grantee {
        display_name: owner.display_name,
        email_address: None,
        id: owner.id,
        type_: Type::from_static(Type::CANONICAL_USER),
        uri: None,
    };
    vec![Grant {
        grantee: Some(grantee),
        permission: Some(Permission::from_static(Permission::FULL_CONTROL)),
    }]
}

pub(crate) fn bucket_acl() -> GetBucketAclOutput {
    GetBucketAclOutput { grants: Some(full_control()), owner: Some(owner()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_made() {
        for after in ["k", "a/b c", "é%"] {
            assert_eq!(after_of(&token_of(after)).unwrap(), after);
        }
        for wrong in ["", "k", "zz", "f", "ff"] {
            assert!(after_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn texts_are_encoded_for_urls() {
        assert_eq!(url_encoded("a/b c+é~"), "a/b%20c%2B%C3%A9~");
        assert_eq!(limits(Some(5_000)).unwrap(), (1_000, 1_000));
        assert_eq!((limits(Some(0)).unwrap(), limits(None).unwrap()), ((0, 0), (1_000, 1_000)));
        assert!(limits(Some(-1)).is_err());
    }
}
