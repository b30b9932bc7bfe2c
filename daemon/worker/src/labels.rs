//! Label tables: which label each file of a data set truly has.
//!
//! A table is CSV with the columns file and label (a class's number or name). File names are relative to the data set; a file's
//! label is looked up by the longest tail of its name, cut at slashes, that the table knows.
//!
//! Bounds: a table of at most [`TABLE_BYTES_MAX`] bytes; [`TABLES_KEPT`] tables are kept. A table that is larger or
//! cannot be read counts as empty: labels are for statistics, they never stop a job.

use std::collections::BTreeMap;
use std::sync::Arc;

use idunno_shared::ids::Digest;
use idunno_shared::names::FileName;
use idunno_shared::wire::blobs::PlacedBlob;
use tokio::sync::Mutex;
use tracing::warn;

use super::traits::FileStore;

/// Largest label table, in bytes.
pub const TABLE_BYTES_MAX: u64 = 64 << 20;
/// Tables kept in memory.
pub const TABLES_KEPT: usize = 4;

/// A label table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    by_file: BTreeMap<Box<str>, Box<str>>,
    /// Lines that are neither a label nor the headline.
    pub malformed: usize,
}

impl Labels {
    /// Reads a table; malformed lines are counted and skipped.
    pub fn parse(table: &str) -> Self {
        let table = table.trim_start_matches('\u{feff}').as_bytes();
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(table);
        let (mut labels, mut columns) = (Self::default(), None);
        for row in reader.records() {
            let Ok(row) = row else {
                labels.malformed += 1;
                continue;
            };
            let named = |name: &str| row.iter().position(|column| column.trim().eq_ignore_ascii_case(name));
            let (file, label) = match (columns, named("file"), named("label")) {
                // The headline is the first line, or there is none.
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

    /// The true label of a file, if the table has it.
    pub fn of(&self, name: &FileName) -> Option<&str> {
        let mut tail = name.as_str();
        loop {
            if let Some(label) = self.by_file.get(tail) {
                return Some(label);
            }
            tail = tail.split_once('/')?.1;
        }
    }
}

/// The tables read last.
#[derive(Default)]
pub struct LabelCache {
    /// Newest last.
    tables: Mutex<Vec<(Vec<Digest>, Arc<Labels>)>>,
}

impl LabelCache {
    /// The table in `extents`: read from the store the first time. `None` while the store does not give it.
    pub async fn get(&self, store: &dyn FileStore, extents: &[PlacedBlob]) -> Option<Arc<Labels>> {
        let key: Vec<Digest> = extents.iter().map(|extent| extent.blob.digest).collect();
        let mut tables = self.tables.lock().await;
        if let Some((_, labels)) = tables.iter().find(|(kept, _)| *kept == key) {
            return Some(Arc::clone(labels));
        }
        let labels = Arc::new(read_table(store, extents).await?);
        if labels.malformed > 0 {
            warn!(lines = labels.malformed, "the label table has malformed lines, they are ignored");
        }
        if tables.len() == TABLES_KEPT {
            tables.remove(0);
        }
        tables.push((key, Arc::clone(&labels)));
        Some(labels)
    }
}

async fn read_table(store: &dyn FileStore, extents: &[PlacedBlob]) -> Option<Labels> {
    let bytes: u64 = extents.iter().map(|extent| extent.blob.size).sum();
    if bytes > TABLE_BYTES_MAX {
        warn!(bytes, limit = TABLE_BYTES_MAX, "the label table is too large, it is ignored");
        return Some(Labels::default());
    }
    let mut table = Vec::new();
    for extent in store.fetch(extents).await {
        match extent {
            Ok(extent) => table.extend_from_slice(&extent.bytes),
            Err(error) => {
                warn!(%error, "the label table cannot be read now, this batch counts as unlabelled");
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
    fn labels_are_found_by_the_longest_known_tail() {
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
    fn a_table_without_headline_loses_no_line() {
        assert_eq!(of(&Labels::parse("\u{feff}a.jpg,1"), "s/a.jpg"), Some("1"));
        assert_eq!(Labels::parse("").malformed, 0);
    }
}
