//! Label tables: the true label of each file of a dataset.
//!
//! A table is CSV, in any dialect that is found, with the columns `file` and `label` (a class's number or name). File names are relative to the dataset; a
//! file's label is the one of the longest suffix of its path, cut at slashes, that the table lists. Names are compared in
//! the composed form of Unicode (NFC).
//!
//! Invariant: a row lacks its label only if the table lacks it. A table that cannot be read fails the batch, which is
//! retried like one whose inputs cannot be read.
//! Bounds: a table of at most [`TABLE_BYTES_MAX`] bytes, which the start of a job checks; [`TABLES_CACHED`] tables are
//! cached, and none by an idle worker.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use idunno_shared::ids::Digest;
use idunno_shared::names::FileName;
use idunno_shared::wire::blobs::PlacedBlob;
use lru::LruCache;
use thiserror::Error;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tracing::warn;
use unicode_normalization::UnicodeNormalization;

use super::records;
use super::traits::{FileStore, FileStoreError};

pub use idunno_core::metadata::LABELS_BYTES_MAX as TABLE_BYTES_MAX;
pub const TABLES_CACHED: NonZeroUsize = match NonZeroUsize::new(4) {
    Some(tables) => tables,
    None => NonZeroUsize::MIN,
};

/// The labels of a batch are not known now.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LabelsError {
    #[error("cannot read the label table: {0}")]
    Store(#[from] FileStoreError),
    /// A job of a release that did not check it at the start.
    #[error("the label table has {bytes} bytes, but it may have {TABLE_BYTES_MAX}: split the dataset")]
    TooLarge { bytes: u64 },
}

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
        let mut reader = records::table_reader(table);
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
                (Some(file), Some(label)) => _ = labels.by_file.insert(composed(file).into(), label.into()),
                _ => labels.malformed += 1,
            }
        }
        labels
    }

    /// The true label of a file, if the table lists it.
    pub fn of(&self, name: &FileName) -> Option<&str> {
        let name = composed(name.as_str());
        let mut suffix = &*name;
        loop {
            if let Some(label) = self.by_file.get(suffix) {
                return Some(label);
            }
            suffix = suffix.split_once('/')?.1;
        }
    }
}

/// A name in the form in which it is compared: the same letters may be composed of others, as macOS has them.
fn composed(name: &str) -> Cow<'_, str> {
    if name.is_ascii() { Cow::Borrowed(name) } else { Cow::Owned(name.nfc().collect()) }
}

type Tables = LruCache<Vec<Digest>, Arc<OnceCell<Arc<Labels>>>>;

/// A cache of tables, by the digests of their extents.
pub struct LabelCache {
    /// A cell is filled by the first batch that needs its table; the others wait for that.
    tables: Mutex<Tables>,
}

impl Default for LabelCache {
    fn default() -> Self {
        Self { tables: Mutex::new(LruCache::new(TABLES_CACHED)) }
    }
}

impl LabelCache {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn clear(&self) {
        self.lock().clear();
    }

    /// The table in `extents`. The time that other batches read it does not count towards `limit`.
    pub async fn get(
        &self,
        store: &dyn FileStore,
        extents: &[PlacedBlob],
        limit: Duration,
    ) -> Result<Arc<Labels>, LabelsError> {
        let key: Vec<Digest> = extents.iter().map(|extent| extent.blob.digest).collect();
        let cell = Arc::clone(self.lock().get_or_insert(key, Arc::default));
        let read = || async {
            let read = timeout(limit, read_table(store, extents)).await;
            let labels = read.unwrap_or_else(|_| Err(FileStoreError::timed_out(limit).into()))?;
            if labels.malformed > 0 {
                warn!(lines = labels.malformed, "ignoring malformed lines of the label table");
            }
            Ok(Arc::new(labels))
        };
        cell.get_or_try_init(read).await.map(Arc::clone)
    }
}

async fn read_table(store: &dyn FileStore, extents: &[PlacedBlob]) -> Result<Labels, LabelsError> {
    let bytes: u64 = extents.iter().map(|extent| extent.blob.size).sum();
    if bytes > TABLE_BYTES_MAX {
        return Err(LabelsError::TooLarge { bytes });
    }
    let fetched = store.fetch(extents).await;
    if fetched.len() != extents.len() {
        return Err(FileStoreError::NoBlob.into());
    }
    let mut table = Vec::new();
    for extent in fetched {
        table.extend_from_slice(&extent?.bytes);
    }
    Ok(Labels::parse(&String::from_utf8_lossy(&table)))
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

    /// The model server's tests hold training to the same cases.
    #[test]
    fn a_label_table_means_the_same_in_jobs() {
        let cases: serde_json::Value = serde_json::from_str(include_str!("records/cases.json")).unwrap();
        for case in cases["labels"].as_array().unwrap() {
            let labels = Labels::parse(case["text"].as_str().unwrap());
            let expected = case["labels"].as_object().unwrap().iter();
            let expected: BTreeMap<Box<str>, Box<str>> = expected
                .map(|(file, label)| (file.as_str().into(), label.as_str().unwrap().into()))
                .collect();
            assert_eq!(labels, Labels { by_file: expected, malformed: 0 }, "{}", case["why"]);
        }
    }

    #[test]
    fn names_are_compared_in_one_form_of_unicode() {
        for (table, file) in [("caf\u{e9}", "cafe\u{301}"), ("cafe\u{301}", "caf\u{e9}")] {
            let labels = Labels::parse(&format!("file,label\n{table}.jpg,1\n"));
            assert_eq!(of(&labels, &format!("set/{file}.jpg")), Some("1"), "{table}");
        }
    }

    #[test]
    fn a_table_without_a_header_keeps_its_first_line() {
        assert_eq!(of(&Labels::parse("\u{feff}a.jpg,1"), "s/a.jpg"), Some("1"));
        assert_eq!(Labels::parse("").malformed, 0);
    }
}
