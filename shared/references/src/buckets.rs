//! Objects in buckets.
//!
//! The client of a bucket is made once and kept: it holds the connections, and the credentials until they expire.
//! Bounds: [`CLIENTS_MAX`] buckets are kept.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use idunno_shared::ids::Digest;
use idunno_shared::wire::references::{ObjectReference, ReferenceSource};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{
    Attribute, BackoffConfig, Error as StoreError, GetOptions, GetRange, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMode, PutOptions, RetryConfig,
};
use reqwest::Client;

use crate::error::{ListError, ReadError, WriteError};
use crate::http::{Connector, options, with_causes};
use crate::place::Service;
use crate::{Created, Listing};

/// Where objects keep the BLAKE3 digest of their content.
const DIGEST: Attribute = Attribute::Metadata(Cow::Borrowed("idunno-blake3"));
const CLIENTS_MAX: usize = 64;
/// How long an answer such as 503 is tried again before the batch is.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
const RETRIES_MAX: usize = 6;
/// The host of a storage account of Azure, after its name.
const AZURE_HOST: &str = ".blob.core.windows.net";

/// Which bucket is reached, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    service: Service,
    bucket: String,
    endpoint: Option<String>,
    region: Option<String>,
    signs: bool,
}

/// The clients of buckets.
#[derive(Debug)]
pub(crate) struct Buckets {
    /// Signs requests with the credentials of this process, and goes anywhere.
    open: Client,
    /// Signs nothing, and goes to public addresses only.
    guarded: Client,
    metadata: Client,
    clients: Mutex<HashMap<Key, Arc<dyn ObjectStore>>>,
}

/// How a bucket may be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    /// Whether it may be anywhere.
    pub(crate) anywhere: bool,
    /// Whether requests are signed.
    pub(crate) signs: bool,
}

impl Buckets {
    pub(crate) fn new(open: Client, guarded: Client, metadata: Client) -> Self {
        Self { open, guarded, metadata, clients: Mutex::new(HashMap::new()) }
    }

    /// The client of a bucket.
    pub(crate) fn client(
        &self,
        (service, bucket): (Service, &str),
        source: &ReferenceSource,
        access: Access,
    ) -> object_store::Result<Bucket> {
        let (endpoint, region) = (source.endpoint.clone(), source.region.clone());
        let key = Key { service, bucket: bucket.to_owned(), endpoint, region, signs: access.signs };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = clients.get(&key) {
            return Ok(Bucket(Arc::clone(known)));
        }
        let objects = if access.anywhere { &self.open } else { &self.guarded }.clone();
        let connector = Connector { objects, metadata: self.metadata.clone() };
        let made: Arc<dyn ObjectStore> = match service {
            Service::S3 => Arc::new(s3(&key).with_http_connector(connector).build()?),
            Service::GoogleCloud => Arc::new(google(&key).with_http_connector(connector).build()?),
            Service::Azure => Arc::new(azure(&key).with_http_connector(connector).build()?),
        };
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        clients.insert(key, Arc::clone(&made));
        Ok(Bucket(made))
    }
}

fn retries() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: RETRIES_MAX, retry_timeout: RETRY_TIMEOUT }
}

fn s3(key: &Key) -> AmazonS3Builder {
    let builder = if key.signs { AmazonS3Builder::from_env() } else { AmazonS3Builder::new() };
    let mut builder = builder.with_skip_signature(!key.signs).with_bucket_name(&key.bucket);
    if let Some(endpoint) = &key.endpoint {
        // The environment may name another one for S3, which would count for more.
        builder = builder
            .with_config(AmazonS3ConfigKey::S3Endpoint, endpoint)
            .with_virtual_hosted_style_request(false);
    }
    if let Some(region) = &key.region {
        builder = builder.with_region(region);
    }
    builder.with_client_options(options()).with_retry(retries())
}

fn google(key: &Key) -> GoogleCloudStorageBuilder {
    let builder =
        if key.signs { GoogleCloudStorageBuilder::from_env() } else { GoogleCloudStorageBuilder::new() };
    let mut builder = builder.with_skip_signature(!key.signs).with_bucket_name(&key.bucket);
    if let Some(endpoint) = &key.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    builder.with_client_options(options()).with_retry(retries())
}

/// The account is the endpoint's, or the environment's.
fn azure(key: &Key) -> MicrosoftAzureBuilder {
    let builder = if key.signs { MicrosoftAzureBuilder::from_env() } else { MicrosoftAzureBuilder::new() };
    let mut builder = builder.with_skip_signature(!key.signs).with_container_name(&key.bucket);
    if let Some(endpoint) = &key.endpoint {
        let host = endpoint.split_once("://").map_or(endpoint.as_str(), |(_, host)| host);
        builder = match host.trim_end_matches('/').strip_suffix(AZURE_HOST) {
            Some(account) => builder.with_account(account),
            None => builder.with_endpoint(endpoint.clone()),
        };
    }
    builder.with_client_options(options()).with_retry(retries())
}

/// A bucket.
#[derive(Clone, Debug)]
pub(crate) struct Bucket(Arc<dyn ObjectStore>);

impl Bucket {
    /// Reads an object, whole or a part of it, if it is still the one that was listed.
    pub(crate) async fn read(
        &self,
        key: &str,
        object: &ObjectReference,
        part: Option<Range<u64>>,
    ) -> Result<Bytes, ReadError> {
        let url = || object.url.clone();
        let path = Path::parse(key).map_err(|error| ReadError::Url { url: url(), why: error.to_string() })?;
        let range = part.map(GetRange::Bounded);
        let options = GetOptions { if_match: object.etag.clone(), range, ..GetOptions::default() };
        let fault = |error: StoreError| {
            let why = with_causes(&error);
            match error {
                StoreError::NotFound { .. } => ReadError::Gone { url: url() },
                StoreError::Precondition { .. } => {
                    ReadError::Changed { url: url(), what: String::from("it has another ETag") }
                }
                StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
                    ReadError::Denied { url: url(), why }
                }
                _ => ReadError::Failed { url: url(), why },
            }
        };
        let found = self.0.get_opts(&path, options).await.map_err(fault)?;
        let ObjectMeta { size, e_tag, last_modified, .. } = &found.meta;
        check(object, *size, e_tag.as_deref(), u64::try_from(last_modified.timestamp_millis()).ok())?;
        found.bytes().await.map_err(fault)
    }

    /// Writes an object, unless one with the same content is there. Its metadata has the digest of the content.
    pub(crate) async fn create(&self, url: &str, key: &str, content: Bytes) -> Result<Created, WriteError> {
        let failed = |error: StoreError| WriteError::Failed { url: url.to_owned(), why: with_causes(&error) };
        let path = Path::parse(key)
            .map_err(|error| WriteError::Url { url: url.to_owned(), why: error.to_string() })?;
        let (size, digest) = (content.len() as u64, Digest::of(&content).to_string());
        let mut options = PutOptions::from(PutMode::Create);
        options.attributes.insert(DIGEST, digest.clone().into());
        match self.0.put_opts(&path, content.into(), options).await {
            Ok(_) => return Ok(Created::Written),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
        let head = GetOptions { head: true, ..GetOptions::default() };
        let found = self.0.get_opts(&path, head).await.map_err(failed)?;
        let is_same = found.meta.size == size
            && found.attributes.get(&DIGEST).is_some_and(|found| found.as_ref() == digest);
        if is_same { Ok(Created::Found) } else { Err(WriteError::Differs { url: url.to_owned() }) }
    }

    /// The objects of a key: itself, or all below it.
    pub(crate) async fn list(&self, url: &str, key: &str) -> Result<Listing, ListError> {
        let failed = |error: StoreError| match error {
            StoreError::InvalidPath { source } => {
                ListError::Name { url: url.to_owned(), why: source.to_string() }
            }
            error => ListError::Failed { url: url.to_owned(), why: with_causes(&error) },
        };
        let path = Path::parse(key).map_err(|error| failed(error.into()))?;
        let root = url.strip_suffix(key).unwrap_or(url);
        let root = if root.ends_with('/') { root.to_owned() } else { format!("{root}/") };
        if !key.is_empty() && !key.ends_with('/') {
            match self.0.head(&path).await {
                Ok(meta) => {
                    return Ok(Listing { objects: vec![reference(&root, meta)?], folders: Vec::new() });
                }
                // Who may list a bucket may not be allowed to ask for one object of it.
                Err(StoreError::NotFound { .. } | StoreError::PermissionDenied { .. }) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let prefix = (!key.is_empty()).then_some(&path);
        let mut metas: Vec<ObjectMeta> = self.0.list(prefix).try_collect().await.map_err(failed)?;
        metas.sort_unstable_by(|a, b| a.location.as_ref().cmp(b.location.as_ref()));
        let is_folder: Vec<bool> =
            metas.iter().map(|meta| meta.size == 0 && has_below(&metas, meta)).collect();
        let (mut objects, mut folders) = (Vec::with_capacity(metas.len()), Vec::new());
        for (meta, is_folder) in metas.into_iter().zip(is_folder) {
            if is_folder {
                folders.push(format!("{root}{}/", meta.location));
            } else {
                objects.push(reference(&root, meta)?);
            }
        }
        Ok(Listing { objects, folders })
    }
}

/// Whether others are below an object's name: without bytes it then is what tools make so that a folder is shown.
fn has_below(sorted: &[ObjectMeta], folder: &ObjectMeta) -> bool {
    let below = format!("{}/", folder.location);
    let next = sorted.partition_point(|meta| meta.location.as_ref() < below.as_str());
    sorted.get(next).is_some_and(|meta| meta.location.as_ref().starts_with(&below))
}

fn reference(root: &str, meta: ObjectMeta) -> Result<ObjectReference, ListError> {
    let url = format!("{root}{}", meta.location);
    let etag = meta.e_tag.filter(|etag| !etag.starts_with("W/"));
    let modified_ms = u64::try_from(meta.last_modified.timestamp_millis()).ok().map(|ms| ms + 1);
    if etag.is_none() && modified_ms.is_none() {
        return Err(ListError::Unversioned { url });
    }
    let modified_ms = modified_ms.filter(|_| etag.is_none());
    Ok(ObjectReference { url, size: meta.size, etag, modified_ms })
}

/// Fails if what is there is not what was listed.
pub(crate) fn check(
    object: &ObjectReference,
    size: u64,
    etag: Option<&str>,
    modified_ms: Option<u64>,
) -> Result<(), ReadError> {
    let changed = |what: String| Err(ReadError::Changed { url: object.url.clone(), what });
    if size != object.size {
        return changed(format!("it has {size} bytes in place of {}", object.size));
    }
    match (&object.etag, etag) {
        // Not every service heeds the condition of the request.
        (Some(listed), Some(found)) if listed != found => changed(String::from("it has another ETag")),
        (None, _) if modified_ms > object.modified_ms => changed(String::from("it was written again")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use object_store::PutPayload;
    use object_store::memory::InMemory;

    use super::*;

    async fn bucket(objects: &[(&str, &'static str)]) -> Bucket {
        let store = InMemory::new();
        for &(key, content) in objects {
            store.put(&Path::parse(key).unwrap(), PutPayload::from_static(content.as_bytes())).await.unwrap();
        }
        Bucket(Arc::new(store))
    }

    fn urls(listing: &Listing) -> Vec<&str> {
        listing.objects.iter().map(|object| object.url.as_str()).collect()
    }

    #[tokio::test]
    async fn a_key_is_an_object_or_all_below_it_in_order() {
        let bucket = bucket(&[("p/b", "1"), ("p/a/c", "22"), ("p-1", "3"), ("p/a", ""), ("q", "")]).await;
        let folder = bucket.list("s3://b/p/", "p/").await.unwrap();
        assert_eq!(urls(&folder), ["s3://b/p/a/c", "s3://b/p/b"]);
        assert_eq!(folder.folders, ["s3://b/p/a/"]);
        assert_eq!(bucket.list("s3://b/p", "p").await.unwrap(), folder);
        assert_eq!(urls(&bucket.list("s3://b/p-1", "p-1").await.unwrap()), ["s3://b/p-1"]);
        let all = bucket.list("s3://b", "").await.unwrap();
        assert_eq!(urls(&all), ["s3://b/p-1", "s3://b/p/a/c", "s3://b/p/b", "s3://b/q"]);
        assert_eq!(urls(&bucket.list("s3://b/none", "none").await.unwrap()), Vec::<&str>::new());
        let error = bucket.list("s3://b/a//b", "a//b").await.unwrap_err().to_string();
        assert!(error.contains("a//b"), "{error}");
    }

    #[tokio::test]
    async fn an_object_is_read_as_it_was_listed_or_not_at_all() {
        let bucket = bucket(&[("p/a", "one"), ("p/b", "two")]).await;
        let listed = bucket.list("s3://b/p/", "p/").await.unwrap().objects;
        assert_eq!(bucket.read("p/a", &listed[0], None).await.unwrap(), "one");
        let put = |content: &'static str| async {
            bucket.0.put(&Path::from("p/a"), PutPayload::from_static(content.as_bytes())).await.unwrap();
        };
        put("ONE").await;
        let error = bucket.read("p/a", &listed[0], None).await.unwrap_err();
        assert!(matches!(&error, ReadError::Changed { .. }), "{error}");
        assert!(error.to_string().starts_with("s3://b/p/a has changed since it was listed"), "{error}");
        put("longer").await;
        assert!(matches!(bucket.read("p/a", &listed[0], None).await, Err(ReadError::Changed { .. })));
        bucket.0.delete(&Path::from("p/b")).await.unwrap();
        let gone = ReadError::Gone { url: String::from("s3://b/p/b") };
        assert_eq!(bucket.read("p/b", &listed[1], None).await, Err(gone));
    }

    #[tokio::test]
    async fn an_object_is_created_once_and_never_replaced() {
        let bucket = bucket(&[("p/other", "one")]).await;
        let create = |key: &'static str, content: &'static str| {
            let bucket = bucket.clone();
            async move {
                bucket.create(&format!("s3://b/{key}"), key, Bytes::from_static(content.as_bytes())).await
            }
        };
        assert_eq!(create("p/a", "one").await, Ok(Created::Written));
        assert_eq!(create("p/a", "one").await, Ok(Created::Found), "a run that is repeated");
        let differs = |key: &str| Err(WriteError::Differs { url: format!("s3://b/{key}") });
        assert_eq!(create("p/a", "two").await, differs("p/a"));
        assert_eq!(create("p/other", "one").await, differs("p/other"), "nothing says what it holds");
        let listed = bucket.list("s3://b/p/a", "p/a").await.unwrap().objects.remove(0);
        assert_eq!(bucket.read("p/a", &listed, None).await.unwrap(), "one");
    }

    #[test]
    fn without_an_etag_the_time_of_the_last_change_counts() {
        let object = |etag: Option<&str>| ObjectReference {
            url: String::from("s3://b/k"),
            size: 3,
            etag: etag.map(str::to_owned),
            modified_ms: Some(1_000),
        };
        assert_eq!(check(&object(None), 3, None, Some(1_000)), Ok(()));
        assert_eq!(check(&object(None), 3, Some("\"x\""), None), Ok(()));
        assert!(check(&object(None), 3, None, Some(1_001)).is_err());
        assert!(check(&object(None), 4, None, Some(1_000)).is_err());
        assert_eq!(check(&object(Some("\"x\"")), 3, Some("\"x\""), Some(9_000)), Ok(()));
        assert!(check(&object(Some("\"x\"")), 3, Some("\"y\""), Some(1_000)).is_err());
    }
}
