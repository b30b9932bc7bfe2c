//! What all operations share: who asks, which buckets exist, room in memory.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use s3s::auth::Credentials;
use s3s::dto::Owner;
use s3s::{S3ErrorCode, S3Result};

use super::names;
use crate::deliver::Delivery;
use crate::errors::error;
use crate::keys::Keys;
use crate::memory::{Extents, Memory};
use crate::store::Store;

/// For how long a bucket is taken to exist without asking again.
const BUCKET_KNOWN: Duration = Duration::from_secs(5);
/// Buckets and uploads that are remembered.
const REMEMBERED_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1_023);
/// Who owns everything: S3 has owners, the store has none.
const OWNER: &str = "idunno";

/// How much memory the gateway uses for bytes of objects.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of bodies that are received.
    pub receive_bytes: u64,
    /// Of bodies that are sent.
    pub send_bytes: u64,
    /// Of extents of which parts were read.
    pub cache_bytes: usize,
}

/// The gateway. Cheap to clone; it keeps nothing that a restart loses.
#[derive(Clone)]
pub struct Gateway {
    pub(crate) keys: Keys,
    pub(crate) receiving: Memory,
    pub(crate) delivery: Delivery,
    buckets: Arc<Mutex<LruCache<String, Instant>>>,
    /// The length of an upload's longest part so far: where its other parts will be.
    pub(crate) part_bytes: Arc<Mutex<LruCache<String, u64>>>,
}

impl Gateway {
    /// A gateway to the cluster of these keys.
    pub fn new(keys: Keys, limits: Limits) -> Self {
        let delivery = Delivery {
            memory: Memory::new(limits.send_bytes),
            extents: Arc::new(Extents::new(limits.cache_bytes)),
        };
        Self {
            keys,
            receiving: Memory::new(limits.receive_bytes),
            delivery,
            buckets: Arc::new(Mutex::new(LruCache::new(REMEMBERED_MAX))),
            part_bytes: Arc::new(Mutex::new(LruCache::new(REMEMBERED_MAX))),
        }
    }

    /// The store, as whoever signed the request may use it.
    pub(crate) fn store(&self, credentials: Option<&Credentials>) -> S3Result<Store> {
        let unsigned = || error(S3ErrorCode::AccessDenied, "the request is not signed");
        let credentials = credentials.ok_or_else(unsigned)?;
        Ok(Store { files: self.keys.files(&credentials.access_key)? })
    }

    /// Whether a bucket exists: it has a file or a record.
    pub(crate) async fn has_bucket(&self, store: &Store, bucket: &str) -> S3Result<bool> {
        let known = || self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if known().get(bucket).is_some_and(|seen| seen.elapsed() < BUCKET_KNOWN) {
            return Ok(true);
        }
        let has_file = !store.list(&format!("{bucket}/"), None, 1).await?.0.is_empty();
        let exists = has_file || store.locate(&names::bucket_record(bucket)?, None).await?.is_some();
        if exists {
            known().put(bucket.to_owned(), Instant::now());
        }
        Ok(exists)
    }

    /// Refuses what is asked of a bucket that does not exist.
    pub(crate) async fn check_bucket(&self, store: &Store, bucket: &str) -> S3Result<()> {
        if self.has_bucket(store, bucket).await? {
            return Ok(());
        }
        Err(error(S3ErrorCode::NoSuchBucket, format!("there is no bucket '{bucket}'")))
    }

    /// Forgets that a bucket exists.
    pub(crate) fn forget_bucket(&self, bucket: &str) {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner).pop(bucket);
    }
}

/// The owner of everything.
pub(crate) fn owner() -> Owner {
    Owner { id: Some(OWNER.to_owned()), display_name: Some(OWNER.to_owned()) }
}
