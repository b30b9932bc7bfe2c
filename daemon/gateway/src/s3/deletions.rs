//! Deletions: of one object, or of up to 1,000 in one request.

use std::collections::BTreeMap;

use idunno_shared::names::FileName;
use idunno_shared::wire::control::FileVersion;
use s3s::dto::{DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, Error, ObjectIdentifier};
use s3s::{S3Error, S3ErrorCode, S3Result};

use super::gateway::Gateway;
use super::names;
use crate::errors::error;
use crate::store::Store;

/// An object that a deletion deletes.
struct Found {
    name: FileName,
    key: String,
    /// The versions that were named.
    versions: Vec<Option<String>>,
}

impl Gateway {
    pub(crate) async fn remove(
        &self,
        store: &Store,
        bucket: &str,
        key: &str,
        version: Option<&str>,
    ) -> S3Result<()> {
        self.check_bucket(store, bucket).await?;
        let Ok(name) = names::object(bucket, key) else { return Ok(()) };
        let versions = version.into_iter().map(str::to_owned).collect();
        if removes(store, &name, versions).await? { store.delete(&[name]).await } else { Ok(()) }
    }

    pub(crate) async fn remove_many(
        &self,
        store: &Store,
        input: DeleteObjectsInput,
    ) -> S3Result<DeleteObjectsOutput> {
        let bucket = &input.bucket;
        self.check_bucket(store, bucket).await?;
        if input.delete.objects.is_empty() || input.delete.objects.len() > 1_000 {
            return Err(error(S3ErrorCode::MalformedXML, "1 to 1,000 objects are deleted at once"));
        }
        let is_conditional = |object: &ObjectIdentifier| {
            object.e_tag.is_some() || object.size.is_some() || object.last_modified_time.is_some()
        };
        if input.delete.objects.iter().any(is_conditional) {
            return Err(conditional_deletion());
        }
        let (mut found, mut deleted, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for (key, versions) in by_key(input.delete.objects) {
            let Ok(name) = names::object(bucket, &key) else {
                deleted.extend(deleted_rows(&key, &versions));
                continue;
            };
            // Whoever names the key alone means all of it.
            let named = versions.iter().cloned().collect::<Option<Vec<String>>>().unwrap_or_default();
            match removes(store, &name, named).await {
                Ok(true) => found.push(Found { name, key, versions }),
                Ok(false) => deleted.extend(deleted_rows(&key, &versions)),
                Err(wrong) => errors.extend(error_rows(&key, &versions, &wrong)),
            }
        }
        delete_found(store, found, &mut deleted, &mut errors).await?;
        let is_quiet = input.delete.quiet.unwrap_or(false);
        Ok(DeleteObjectsOutput {
            deleted: Some(if is_quiet { Vec::new() } else { deleted }),
            errors: Some(errors),
            ..DeleteObjectsOutput::default()
        })
    }
}

/// Deletes all at once, or one by one where the key may not change some of them.
async fn delete_found(
    store: &Store,
    found: Vec<Found>,
    deleted: &mut Vec<DeletedObject>,
    errors: &mut Vec<Error>,
) -> S3Result<()> {
    let names: Vec<FileName> = found.iter().map(|object| object.name.clone()).collect();
    match store.delete(&names).await {
        Ok(()) => deleted.extend(found.iter().flat_map(|object| deleted_rows(&object.key, &object.versions))),
        Err(refused) if *refused.code() == S3ErrorCode::AccessDenied => {
            for Found { name, key, versions } in found {
                match store.delete(&[name]).await {
                    Ok(()) => deleted.extend(deleted_rows(&key, &versions)),
                    Err(wrong) => errors.extend(error_rows(&key, &versions, &wrong)),
                }
            }
        }
        Err(wrong) => return Err(wrong),
    }
    Ok(())
}

/// The metadata log does not compare on deletion. To compare before it would delete what another writer puts in between, and to ignore the
/// condition what the program wants to keep.
pub(super) fn conditional_deletion() -> S3Error {
    error(S3ErrorCode::NotImplemented, "a deletion has no conditions: delete without one")
}

/// The objects of a deletion by their keys, each with the versions that are named.
fn by_key(objects: Vec<ObjectIdentifier>) -> BTreeMap<String, Vec<Option<String>>> {
    let mut keys: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
    for object in objects {
        keys.entry(object.key).or_default().push(object.version_id);
    }
    keys
}

/// Whether a deletion of these versions deletes the file: none is named, or all that are kept. Without any of them there is nothing to
/// delete. The store does not delete some of a file's versions alone.
async fn removes(store: &Store, name: &FileName, named: Vec<String>) -> S3Result<bool> {
    if named.is_empty() || named.iter().any(|id| id == "null") {
        return Ok(true);
    }
    let kept = store.versions(name).await?;
    let is_named = |version: &FileVersion| {
        let id = names::version_id(version.version, version.digest);
        named.contains(&id)
    };
    match kept.iter().filter(|version| is_named(version)).count() {
        0 => Ok(false),
        count if count == kept.len() => Ok(true),
        count => {
            let text = format!(
                "{count} of {} versions are named: the versions of an object are deleted together",
                kept.len()
            );
            Err(error(S3ErrorCode::NotImplemented, text))
        }
    }
}

fn deleted_rows<'a>(
    key: &'a str,
    versions: &'a [Option<String>],
) -> impl Iterator<Item = DeletedObject> + 'a {
    let row = |version: &Option<String>| DeletedObject {
        key: Some(key.to_owned()),
        version_id: version.clone(),
        ..DeletedObject::default()
    };
    versions.iter().map(row)
}

fn error_rows<'a>(
    key: &'a str,
    versions: &'a [Option<String>],
    wrong: &'a S3Error,
) -> impl Iterator<Item = Error> + 'a {
    let row = |version: &Option<String>| Error {
        code: Some(wrong.code().as_str().to_owned()),
        key: Some(key.to_owned()),
        message: wrong.message().map(str::to_owned),
        version_id: version.clone(),
    };
    versions.iter().map(row)
}
