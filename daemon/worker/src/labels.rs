//! Label tables: the true label of each file of a dataset.
//!
//! A table is CSV with the columns `file` and `label` (a class's number or name). File names are relative to the dataset; a
//! file's label is the one of the longest suffix of its path, cut at slashes, that the table lists.
//!
//! Bounds: a table of at most [`TABLE_BYTES_MAX`] bytes; [`TABLES_CACHED`] tables are cached. A larger table counts as
//! empty, and one that cannot be read is skipped for the batch: labels serve statistics and never stop a job.

use std::collections::BTreeMap;
use std::sync::Arc;

use idunno_shared::ids::Digest;
use idunno_shared::names::FileName;
use idunno_shared::wire::blobs::PlacedBlob;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::Mutex;
use tracing::warn;

use super::traits::FileStore;

pub const TABLE_BYTES_MAX: u64 = 64 << 20;
pub const TABLES_CACHED: u64 = 4;

/// A label table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    by_file: BTreeMap<Box<str>, Box<str>>,
    /// Number of lines that are neither a label nor the header.
    pub malformed: usize,
}

impl Labels {
    /// Parses a table. Malformed lines are counted and skipped.
    pub fn parse(table: &str) -> Self {
        let table = table.trim_start_matches('\u{feff}').as_bytes();
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(table);
        let mut labels = Self::default();
        let mut columns = None;
        for row in reader.records() {
            let Ok(row) = row else {
                labels.malformed += 1;
                continue;
            };
            let named = |name: &str| row.iter().position(|column| column.trim().eq_ignore_ascii_case(name));
            let (file, label) = match (columns, named("file"), named("label")) {
                // A header can only be the first line.
                (None, Some(file), Some(label)) => {
                    columns = Some((file, label));
                    continue;
                }
                (known, ..) => *columns.insert(known.unwrap_or((0, 1))),
            };
            let field = |column: usize| row.get(column).map(str::trim).filter(|text| !text.is_empty());
            match (field(file), field(label)) {
                (Some(file), Some(label)) => _ = labels.by_file.insert(file.into(), label.into()),
                _ => labels.malformed += 1,
            }
        }
        labels
    }

    /// The true label of a file, if the table lists it.
    pub fn of(&self, name: &FileName) -> Option<&str> {
        let mut suffix = name.as_str();
        loop {
            if let Some(label) = self.by_file.get(suffix) {
                return Some(label);
            }
            suffix = suffix.split_once('/')?.1;
        }
    }
}

/// A cache of tables, by the digests of their extents.
pub struct LabelCache {
    tables: Cache<Vec<Digest>, Arc<Labels>>,
    /// Held while a table is read: concurrent batches need the same one.
    reading: Mutex<()>,
}

impl Default for LabelCache {
    fn default() -> Self {
        let tables =
            Cache::builder().max_capacity(TABLES_CACHED).eviction_policy(EvictionPolicy::lru()).build();
        Self { tables, reading: Mutex::default() }
    }
}

impl LabelCache {
    /// The table in `extents`, or `None` if the store cannot read it now.
    pub async fn get(&self, store: &dyn FileStore, extents: &[PlacedBlob]) -> Option<Arc<Labels>> {
        let key: Vec<Digest> = extents.iter().map(|extent| extent.blob.digest).collect();
        let _reading = self.reading.lock().await;
        if let Some(labels) = self.tables.get(&key) {
            return Some(labels);
        }
        let labels = Arc::new(read_table(store, extents).await?);
        if labels.malformed > 0 {
            warn!(lines = labels.malformed, "ignoring malformed lines of the label table");
        }
        self.tables.insert(key, Arc::clone(&labels));
        // moka evicts lazily; tables may be large, so the bound must hold at once.
        self.tables.run_pending_tasks();
        Some(labels)
    }
}

async fn read_table(store: &dyn FileStore, extents: &[PlacedBlob]) -> Option<Labels> {
    let bytes: u64 = extents.iter().map(|extent| extent.blob.size).sum();
    if bytes > TABLE_BYTES_MAX {
        warn!(bytes, limit = TABLE_BYTES_MAX, "ignoring the label table: it is too large");
        return Some(Labels::default());
    }
    let mut table = Vec::new();
    for extent in store.fetch(extents).await {
        match extent {
            Ok(extent) => table.extend_from_slice(&extent.bytes),
            Err(error) => {
                warn!(%error, "cannot read the label table, so this batch counts as unlabelled");
                return None;
            }
        }
    }
    Some(Labels::parse(&String::from_utf8_lossy(&table)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(labels: &'a Labels, name: &str) -> Option<&'a str> {
        labels.of(&name.parse().unwrap())
    }

    #[test]
    fn labels_are_found_by_the_longest_listed_suffix() {
        let labels = Labels::parse(
            "file,label\r\na.jpg,1\r\nx/a.jpg,2\r\n\"b, c.jpg\",3\n\nbroken\n,4\nd.jpg,tabby cat\n",
        );
        assert_eq!(labels.malformed, 2);
        assert_eq!(of(&labels, "test-data/a.jpg"), Some("1"));
        assert_eq!(of(&labels, "deep/set/x/a.jpg"), Some("2"));
        assert_eq!(of(&labels, "set/b, c.jpg"), Some("3"));
        assert_eq!(of(&labels, "set/d.jpg"), Some("tabby cat"));
        assert_eq!(of(&labels, "ba.jpg"), None);
        assert_eq!(of(&Labels::parse("label,file\ncat,a.jpg\n"), "s/a.jpg"), Some("cat"));
    }

    #[test]
    fn a_table_without_a_header_keeps_its_first_line() {
        assert_eq!(of(&Labels::parse("\u{feff}a.jpg,1"), "s/a.jpg"), Some("1"));
        assert_eq!(Labels::parse("").malformed, 0);
    }
}
