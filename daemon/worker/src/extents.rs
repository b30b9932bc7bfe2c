//! Extents of files of records: read once for many batches.
//!
//! Bounds: the extents read last are kept, up to [`KEPT_BYTES_MAX`] in all, or a single larger one.

use bytes::BytesMut;
use idunno_shared::ids::Digest;
use idunno_shared::wire::jobs::RecordsGrant;
use tokio::sync::Mutex;

use super::traits::{Fetched, FileStore};

/// Bytes that are kept.
pub const KEPT_BYTES_MAX: usize = 128 << 20;

/// The extents read last, the newest behind.
#[derive(Default)]
pub struct ExtentCache(Mutex<Vec<(Digest, Fetched)>>);

impl ExtentCache {
    /// The bytes that a grant names; or why they are not to be had.
    pub async fn read(&self, store: &dyn FileStore, granted: &RecordsGrant) -> Result<Fetched, String> {
        let place = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let (mut skip, mut left) = (place(granted.skip_bytes), place(granted.bytes));
        let (mut read, mut is_local) = (Vec::with_capacity(granted.extents.len()), true);
        for extent in &granted.extents {
            let Fetched { bytes: whole, is_local: is_near } = self.extent(store, extent).await?;
            is_local &= is_near;
            let start = skip.min(whole.len());
            let end = start + left.min(whole.len() - start);
            read.push(whole.slice(start..end));
            (skip, left) = (skip - start, left - (end - start));
        }
        if left > 0 {
            return Err(format!("{left} bytes are missing"));
        }
        if read.len() == 1 {
            return Ok(Fetched { bytes: read.swap_remove(0), is_local });
        }
        let mut whole = BytesMut::with_capacity(place(granted.bytes));
        read.iter().for_each(|part| whole.extend_from_slice(part));
        Ok(Fetched { bytes: whole.freeze(), is_local })
    }

    async fn extent(
        &self,
        store: &dyn FileStore,
        extent: &idunno_shared::wire::blobs::PlacedBlob,
    ) -> Result<Fetched, String> {
        let digest = extent.blob.digest;
        // Held while it is read: batches that are prepared side by side want the same.
        let mut kept = self.0.lock().await;
        if let Some(place) = kept.iter().position(|(known, _)| *known == digest) {
            let found = kept.remove(place);
            let fetched = found.1.clone();
            kept.push(found);
            return Ok(fetched);
        }
        let fetched = store.fetch(std::slice::from_ref(extent)).await.pop();
        let fetched = fetched.ok_or_else(|| String::from("the store gave nothing"))?;
        let fetched = fetched.map_err(|error| error.to_string())?;
        kept.push((digest, fetched.clone()));
        let held = |kept: &[(Digest, Fetched)]| kept.iter().map(|(_, kept)| kept.bytes.len()).sum::<usize>();
        while kept.len() > 1 && held(&kept) > KEPT_BYTES_MAX {
            kept.remove(0);
        }
        Ok(fetched)
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
        };
        let cache = ExtentCache::default();
        assert_eq!(cache.read(&store, &granted(4, 4)).await.unwrap().bytes, "two\n");
        assert_eq!(cache.read(&store, &granted(0, 14)).await.unwrap().bytes, "one\ntwo\nthree\n");
        assert!(cache.read(&store, &granted(4, 11)).await.unwrap_err().contains("1 bytes"));
    }
}
