//! Extents of files of records, read once for many batches.
//!
//! Bounds: the most recently used extents are kept, up to [`CACHE_BYTES_MAX`], and none by an idle worker.

use bytes::BytesMut;
use idunno_shared::ids::Digest;
use idunno_shared::wire::blobs::PlacedBlob;
use idunno_shared::wire::jobs::RecordsGrant;
use thiserror::Error;
use tokio::sync::Mutex;

use super::recent_bytes::RecentBytes;
use super::traits::{FetchedBytes, FileStore, FileStoreError};

pub const CACHE_BYTES_MAX: u64 = 128 << 20;

/// The records of a batch cannot be read.
#[derive(Debug, Error)]
pub enum ReadRecordsError {
    #[error("the store returned no blob for extent {0}")]
    NoBlob(Digest),
    #[error(transparent)]
    Store(#[from] FileStoreError),
    /// The extents are shorter than the grant says.
    #[error("the file ends {missing} bytes before the records do")]
    Truncated { missing: usize },
    #[error("the footer of the file: {0}")]
    Footer(#[from] idunno_columnar::ReadError),
    #[error("reading was aborted: {0}")]
    Aborted(#[from] tokio::task::JoinError),
}

/// A cache of extents.
pub struct ExtentCache {
    /// Locked while an extent is read: concurrent batches often need the same one.
    recent: Mutex<RecentBytes<Digest>>,
}

impl Default for ExtentCache {
    fn default() -> Self {
        Self { recent: Mutex::new(RecentBytes::new(CACHE_BYTES_MAX)) }
    }
}

impl ExtentCache {
    /// Reads the bytes that a grant names.
    pub async fn read(
        &self,
        store: &dyn FileStore,
        granted: &RecordsGrant,
    ) -> Result<FetchedBytes, ReadRecordsError> {
        let mut skip = usize::try_from(granted.skip_bytes).unwrap_or(usize::MAX);
        let mut missing = usize::try_from(granted.bytes).unwrap_or(usize::MAX);
        let mut parts = Vec::with_capacity(granted.extents.len());
        let mut is_local = true;
        for placed in &granted.extents {
            let extent = self.extent(store, placed).await?;
            is_local &= extent.is_local;
            let start = skip.min(extent.bytes.len());
            let end = start + missing.min(extent.bytes.len() - start);
            parts.push(extent.bytes.slice(start..end));
            skip -= start;
            missing -= end - start;
        }
        if missing > 0 {
            return Err(ReadRecordsError::Truncated { missing });
        }
        if parts.len() == 1 {
            return Ok(FetchedBytes { bytes: parts.swap_remove(0), is_local });
        }
        let mut whole = BytesMut::with_capacity(parts.iter().map(bytes::Bytes::len).sum());
        parts.iter().for_each(|part| whole.extend_from_slice(part));
        Ok(FetchedBytes { bytes: whole.freeze(), is_local })
    }

    pub async fn clear(&self) {
        self.recent.lock().await.clear();
    }

    async fn extent(
        &self,
        store: &dyn FileStore,
        placed: &PlacedBlob,
    ) -> Result<FetchedBytes, ReadRecordsError> {
        let digest = placed.blob.digest;
        let mut recent = self.recent.lock().await;
        if let Some(extent) = recent.get(&digest) {
            return Ok(extent);
        }
        let fetched = store.fetch(std::slice::from_ref(placed)).await.pop();
        let extent = fetched.ok_or(ReadRecordsError::NoBlob(digest))??;
        recent.add(digest, extent.clone());
        Ok(extent)
    }
}

#[cfg(test)]
mod tests {
    use idunno_shared::wire::jobs::RecordFormat;

    use super::super::testing::memory_store::MemoryStore;
    use super::*;

    #[tokio::test]
    async fn a_part_may_begin_in_one_extent_and_end_in_another() {
        let store = MemoryStore::default();
        let extents = vec![store.add(b"one\ntw"), store.add(b"o\nthree\n")];
        let granted = |skip_bytes, bytes| RecordsGrant {
            file: "d.jsonl".parse().unwrap(),
            format: RecordFormat::Jsonl,
            extents: extents.clone(),
            skip_bytes,
            bytes,
            skip: 0,
            numbers: Vec::new(),
            line: 0,
        };
        let cache = ExtentCache::default();
        assert_eq!(cache.read(&store, &granted(4, 4)).await.unwrap().bytes, "two\n");
        assert_eq!(cache.read(&store, &granted(0, 14)).await.unwrap().bytes, "one\ntwo\nthree\n");
        let error = cache.read(&store, &granted(4, 11)).await.unwrap_err();
        assert!(error.to_string().contains("1 bytes"), "{error}");
    }
}
