//! Rows of Parquet files: of a file the footer, of a row group the columns that are needed.
//!
//! Bounds: extents are fetched one at a time. What was used last is kept, compressed, up to [`CACHE_BYTES_MAX`], and nothing
//! by an idle worker: the batches of one row group follow each other. What a batch needs is in memory at once, for each
//! row group [`idunno_columnar::GROUP_BYTES_MAX`] at most.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use idunno_columnar::FileParts;
use idunno_columnar::records::{Footer, Row};
use idunno_shared::ids::Digest;
use idunno_shared::wire::blobs::PlacedBlob;
use idunno_shared::wire::jobs::{FooterGrant, RecordsGrant};
use idunno_shared::wire::records::ParquetLayout;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::extents::ReadRecordsError;
use super::recent_bytes::RecentBytes;
use super::traits::{FetchedBytes, FileStore};
use crate::json_text::JsonText;
use crate::records::Record;

pub const CACHE_BYTES_MAX: u64 = 256 << 20;
const FOOTERS_KEPT: usize = 4;

/// The rows of a batch.
#[derive(Debug)]
pub(super) struct RowsRead {
    pub(super) records: Vec<Record>,
    /// Whether all bytes came from the member's own disk.
    pub(super) is_local: bool,
}

/// Parts of files that batches share.
pub struct RowGroupCache {
    /// Locked while parts are read: concurrent batches often need the same ones.
    recent: Mutex<Recent>,
}

struct Recent {
    footers: Vec<(PartKey, Footer)>,
    parts: RecentBytes<PartKey>,
}

/// A part by its content: what it lies in never changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PartKey {
    extents: Vec<Digest>,
    skip_bytes: usize,
    bytes: usize,
}

/// Where a part lies among some extents.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    extents: Range<usize>,
    /// Bytes of the first of them before it.
    skip_bytes: usize,
    bytes: usize,
}

impl Default for RowGroupCache {
    fn default() -> Self {
        let recent = Recent { footers: Vec::new(), parts: RecentBytes::new(CACHE_BYTES_MAX) };
        Self { recent: Mutex::new(recent) }
    }
}

impl RowGroupCache {
    /// Reads the rows with these numbers in the file, which are in order.
    pub(super) async fn read(
        &self,
        store: &dyn FileStore,
        granted: &RecordsGrant,
        layout: &ParquetLayout,
        end: &FooterGrant,
        rows: &[u64],
    ) -> Result<RowsRead, ReadRecordsError> {
        let mut recent = self.recent.lock().await;
        let footer = recent.footer(store, layout, end).await?;
        let chunks = footer.chunks(layout, rows);
        let parts: Vec<Part> =
            chunks.iter().map(|chunk| locate(&granted.extents, end.records_at, chunk)).collect();
        let fetched = recent.fetch(store, &granted.extents, &parts).await?;
        drop(recent);
        let is_local = fetched.iter().all(|part| part.is_local);
        let mut file = FileParts::of_file(end.file_bytes);
        chunks.iter().zip(fetched).for_each(|(chunk, part)| file.add(chunk.start, part.bytes));
        let (layout, rows) = (layout.clone(), rows.to_vec());
        // A library that panics over a damaged file ends this task alone.
        let decode =
            move || -> Vec<Record> { footer.rows(&layout, &rows, &file).into_iter().map(record).collect() };
        let records = spawn_blocking(decode).await?;
        Ok(RowsRead { records, is_local })
    }

    pub async fn clear(&self) {
        let mut recent = self.recent.lock().await;
        recent.footers.clear();
        recent.parts.clear();
    }
}

impl Recent {
    async fn footer(
        &mut self,
        store: &dyn FileStore,
        layout: &ParquetLayout,
        end: &FooterGrant,
    ) -> Result<Footer, ReadRecordsError> {
        let part = Part {
            extents: 0..end.extents.len(),
            skip_bytes: usize::try_from(end.skip_bytes).unwrap_or(usize::MAX),
            bytes: usize::try_from(layout.footer_bytes).unwrap_or(usize::MAX),
        };
        let key = part.key(&end.extents);
        if let Some((_, footer)) = self.footers.iter().find(|(known, _)| *known == key) {
            return Ok(footer.clone());
        }
        let bytes = self.fetch(store, &end.extents, &[part]).await?.pop();
        let footer = Footer::read(bytes.map(|part| part.bytes).as_deref().unwrap_or_default())?;
        self.footers.truncate(FOOTERS_KEPT - 1);
        self.footers.insert(0, (key, footer.clone()));
        Ok(footer)
    }

    /// The bytes of some parts, in their order.
    async fn fetch(
        &mut self,
        store: &dyn FileStore,
        extents: &[PlacedBlob],
        parts: &[Part],
    ) -> Result<Vec<FetchedBytes>, ReadRecordsError> {
        let mut found: Vec<Option<FetchedBytes>> =
            parts.iter().map(|part| self.parts.get(&part.key(extents))).collect();
        let mut missing: Vec<(usize, BytesMut, bool)> = (0..parts.len())
            .filter(|at| found[*at].is_none())
            .map(|at| (at, BytesMut::new(), true))
            .collect();
        for (index, placed) in extents.iter().enumerate() {
            if !missing.iter().any(|(at, ..)| parts[*at].extents.contains(&index)) {
                continue;
            }
            let fetched = store.fetch(std::slice::from_ref(placed)).await.pop();
            let extent = fetched.ok_or(ReadRecordsError::NoBlob(placed.blob.digest))??;
            for (at, bytes, is_local) in &mut missing {
                let part = &parts[*at];
                if part.extents.contains(&index) {
                    bytes.extend_from_slice(part.slice(index, bytes.len(), &extent.bytes));
                    *is_local &= extent.is_local;
                }
            }
        }
        for (at, bytes, is_local) in missing {
            let part = &parts[at];
            if bytes.len() < part.bytes {
                return Err(ReadRecordsError::Truncated { missing: part.bytes - bytes.len() });
            }
            let fetched = FetchedBytes { bytes: bytes.freeze(), is_local };
            self.parts.add(part.key(extents), fetched.clone());
            found[at] = Some(fetched);
        }
        Ok(found.into_iter().flatten().collect())
    }
}

impl Part {
    fn key(&self, extents: &[PlacedBlob]) -> PartKey {
        let extents = extents.get(self.extents.clone()).unwrap_or_default();
        PartKey {
            extents: extents.iter().map(|placed| placed.blob.digest).collect(),
            skip_bytes: self.skip_bytes,
            bytes: self.bytes,
        }
    }

    /// What an extent has of the part, of which so many bytes lie before.
    fn slice<'a>(&self, index: usize, before: usize, extent: &'a Bytes) -> &'a [u8] {
        let start = if index == self.extents.start { self.skip_bytes } else { 0 };
        let start = start.min(extent.len());
        let end = start.saturating_add(self.bytes.saturating_sub(before)).min(extent.len());
        &extent[start..end]
    }
}

/// Where some bytes of a file lie in extents of which the first begins at `at`.
fn locate(extents: &[PlacedBlob], mut at: u64, bytes: &Range<u64>) -> Part {
    let length = usize::try_from(bytes.end.saturating_sub(bytes.start)).unwrap_or(usize::MAX);
    let mut part = Part { extents: 0..0, skip_bytes: 0, bytes: length };
    for (index, placed) in extents.iter().enumerate() {
        let end = at + placed.blob.size;
        if at < bytes.end && end > bytes.start {
            if part.extents.is_empty() {
                part.extents.start = index;
                part.skip_bytes = usize::try_from(bytes.start.saturating_sub(at)).unwrap_or(usize::MAX);
            }
            part.extents.end = index + 1;
        }
        at = end;
    }
    part
}

fn record(row: Row) -> Record {
    Record {
        input: row.input.map_err(Into::into),
        label: row.label.map(JsonText::of_json),
        id: row.id.map(JsonText::of_json),
        fields: row.fields.map(JsonText::of_json),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::memory_store::MemoryStore;
    use super::*;

    #[tokio::test]
    async fn parts_are_read_from_the_extents_in_which_they_lie_and_kept() {
        let store = MemoryStore::default();
        let extents = vec![store.add(b"abcd"), store.add(b"efgh"), store.add(b"ijkl")];
        // The first extent begins at byte 100 of the file.
        let parts: Vec<Part> =
            [102..103, 103..109, 108..112].map(|range| locate(&extents, 100, &range)).to_vec();
        assert_eq!(parts[1], Part { extents: 0..3, skip_bytes: 3, bytes: 6 });
        let cache = RowGroupCache::default();
        let mut recent = cache.recent.lock().await;
        let read = recent.fetch(&store, &extents, &parts).await.unwrap();
        let texts: Vec<&[u8]> = read.iter().map(|part| &part.bytes[..]).collect();
        assert_eq!(texts, [&b"c"[..], b"defghi", b"ijkl"]);
        // What is kept needs no store; another part of the same extents does.
        store.silence(extents[0].blob.digest);
        assert_eq!(recent.fetch(&store, &extents, &parts[..2]).await.unwrap().len(), 2);
        let beyond = [locate(&extents, 100, &(110..114))];
        let error = recent.fetch(&store, &extents, &beyond).await.unwrap_err();
        assert!(error.to_string().contains("2 bytes"), "{error}");
    }
}
