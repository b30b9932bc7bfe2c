//! How a file of records is read: what people ask for, and what is frozen when a job starts.

use serde::{Deserialize, Serialize};

use super::bounded;
use super::references::ReferenceSource;
use super::resources::ReadFeature;
use crate::names::ColumnName;

/// Most columns that come back in the rows.
pub const KEPT_COLUMNS_MAX: usize = 256;
/// Most bytes of their names, together: each lease repeats them.
pub const KEPT_NAMES_BYTES_MAX: usize = 16 << 10;
/// Longest id and label of a query that failed for good, together, in bytes of JSON. Longer ones are left out.
pub const FAILED_IDENTITY_BYTES_MAX: usize = 1024;

/// Endings of the names of files that are datasets by themselves, in lower case.
pub const DATASET_ENDINGS: [&str; 7] = ["jsonl", "ndjson", "csv", "tsv", "parquet", "list", "refs"];

/// The columns that have a meaning, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnNames {
    /// The model's input.
    pub input: Option<ColumnName>,
    /// The true label.
    pub label: Option<ColumnName>,
    /// The record's own id.
    pub id: Option<ColumnName>,
}

/// Which other columns come back in the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keep {
    /// None.
    #[default]
    Nothing,
    /// All that have no meaning of their own.
    All,
    /// These, at most [`KEPT_COLUMNS_MAX`].
    Columns(#[serde(deserialize_with = "bounded::list::<KEPT_COLUMNS_MAX, _, _>")] Vec<ColumnName>),
}

/// What encloses a field of CSV that contains delimiters or line breaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Quote {
    /// `"`.
    #[default]
    Double,
    /// `'`.
    Single,
    /// Nothing: quotes are text.
    None,
}

/// How a file of records is to be read. What is not given is found in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadOptions {
    /// The columns of CSV, or the fields of JSON objects. In CSV without a header, their numbers from 1.
    pub columns: ColumnNames,
    /// Which other columns come back in the rows.
    pub keep: Keep,
    /// What separates the columns of CSV: an ASCII character.
    pub delimiter: Option<u8>,
    /// What encloses fields of CSV.
    pub quote: Option<Quote>,
    /// Whether CSV has no header: its first row is a record.
    pub no_header: bool,
}

impl ReadOptions {
    /// Whether nothing is asked for.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether anything is asked for that only CSV has.
    pub fn is_of_csv(&self) -> bool {
        self.delimiter.is_some() || self.quote.is_some() || self.no_header
    }
}

/// A column of CSV.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its number, from 0.
    pub number: u32,
    /// Its heading, or its number from 1.
    pub name: ColumnName,
}

/// The dialect of a CSV file, and what stands in its columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CsvLayout {
    /// What separates columns.
    pub delimiter: u8,
    /// What encloses fields.
    pub quote: Quote,
    /// Whether the file has a header.
    pub header: bool,
    /// How many columns a record has at most; 0 if unknown.
    pub columns: u32,
    /// The headings of the columns that have a meaning.
    pub names: ColumnNames,
    /// The columns that come back in the rows.
    #[serde(deserialize_with = "bounded::list::<KEPT_COLUMNS_MAX, _, _>")]
    pub keep: Vec<Column>,
}

impl Default for CsvLayout {
    fn default() -> Self {
        Self {
            delimiter: b',',
            quote: Quote::Double,
            header: true,
            columns: 0,
            names: ColumnNames::default(),
            keep: Vec::new(),
        }
    }
}

impl CsvLayout {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What stands in the columns of a Parquet file, and what its readers have to know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParquetLayout {
    /// The columns that have a meaning; the input is always one of them.
    pub columns: ColumnNames,
    /// The columns that come back in the rows.
    #[serde(deserialize_with = "bounded::list::<KEPT_COLUMNS_MAX, _, _>")]
    pub keep: Vec<ColumnName>,
    /// Bytes of the footer, with which the file ends.
    pub footer_bytes: u64,
    /// Bytes of a row's columns that are read, decompressed: the mean of the row group in which they are the most.
    pub row_bytes: u64,
}

/// How a file is split into records, each of which is one query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecordFormat {
    /// One JSON value a line, whose `input`, `label` and `id` have a meaning.
    Jsonl,
    /// CSV. Columns are given by number, from 0.
    Csv {
        /// Column of the input.
        input: u32,
        /// Column of the true label, if the file has one.
        label: Option<u32>,
        /// Column of the record's own id, if the file has one.
        id: Option<u32>,
        /// How it is written.
        #[serde(default, skip_serializing_if = "CsvLayout::is_default")]
        layout: CsvLayout,
    },
    /// One JSON value a line, with fields of other names, or with fields that come back in the rows.
    JsonFields {
        /// The fields that have a meaning; `input`, `label` and `id` where not given.
        columns: ColumnNames,
        /// The fields that come back.
        keep: Keep,
    },
    /// Rows of a Parquet file.
    Parquet(ParquetLayout),
    /// One JSON object a line, whose `input` is a reference to an object outside the cluster. The object is the input.
    References(ReferenceSource),
}

impl RecordFormat {
    /// What a program must be built with to read the records.
    pub const fn needs(&self) -> Option<ReadFeature> {
        match self {
            Self::Parquet(_) => Some(ReadFeature::Parquet),
            Self::References(_) => Some(ReadFeature::References),
            Self::Jsonl | Self::Csv { .. } | Self::JsonFields { .. } => None,
        }
    }

    /// Bytes of all names in it.
    pub fn names_bytes(&self) -> usize {
        let (columns, kept) = match self {
            Self::Jsonl => return 0,
            Self::References(ReferenceSource { endpoint, region, .. }) => {
                return [endpoint, region].into_iter().flatten().map(String::len).sum();
            }
            Self::Csv { layout, .. } => (&layout.names, self.kept()),
            Self::JsonFields { columns, .. } | Self::Parquet(ParquetLayout { columns, .. }) => {
                (columns, self.kept())
            }
        };
        let meant = [&columns.input, &columns.label, &columns.id].into_iter().flatten();
        meant.chain(kept.unwrap_or_default()).map(|name| name.as_str().len()).sum()
    }

    /// The names of the columns that come back in the rows; `None` if they differ from row to row.
    pub fn kept(&self) -> Option<Vec<&ColumnName>> {
        match self {
            Self::Csv { layout, .. } => Some(layout.keep.iter().map(|column| &column.name).collect()),
            Self::JsonFields { keep: Keep::All, .. } => None,
            Self::JsonFields { keep: Keep::Columns(names), .. }
            | Self::Parquet(ParquetLayout { keep: names, .. }) => Some(names.iter().collect()),
            Self::Jsonl | Self::References(_) | Self::JsonFields { keep: Keep::Nothing, .. } => {
                Some(Vec::new())
            }
        }
    }
}

/// What a record says of itself, as JSON texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordIdentity {
    /// Its own id.
    pub id: Option<String>,
    /// Its true label.
    pub label: Option<String>,
}

impl RecordIdentity {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.id.is_none() && self.label.is_none()
    }

    /// The same within [`FAILED_IDENTITY_BYTES_MAX`]: what is beyond is left out, the label first.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let len = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        self.label = self.label.filter(|label| label.len() + len(&self.id) <= FAILED_IDENTITY_BYTES_MAX);
        self.id = self.id.filter(|id| id.len() <= FAILED_IDENTITY_BYTES_MAX);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_bounded_and_never_cut() {
        let identity = |id: usize, label: usize| RecordIdentity {
            id: Some("1".repeat(id)),
            label: Some("2".repeat(label)),
        };
        let lengths = |identity: RecordIdentity| {
            let RecordIdentity { id, label } = identity.bounded();
            (id.map(|id| id.len()), label.map(|label| label.len()))
        };
        assert_eq!(lengths(identity(24, 1000)), (Some(24), Some(1000)));
        assert_eq!(lengths(identity(25, 1000)), (Some(25), None));
        assert_eq!(lengths(identity(1025, 3)), (None, None));
    }
}
