//! Why a file of records, or a list of names, cannot be read.

use idunno_core::metadata::{QUERIES_PER_JOB_MAX, RECORD_BYTES_MAX};
use idunno_shared::wire::records::{KEPT_COLUMNS_MAX, KEPT_NAMES_BYTES_MAX};
use thiserror::Error;

/// A file is not a dataset. Single malformed records are not detected here but by the workers that read them. Lines and
/// columns are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordIndexError {
    #[error(
        "the record that begins in line {line} is longer than {RECORD_BYTES_MAX} bytes; in CSV, a quote that is not \
         closed is a possible cause"
    )]
    TooLong { line: u64 },
    #[error(
        "the record that begins in line {line} has a quote that is never closed: close it, or pass --quote none"
    )]
    OpenQuote { line: u64 },
    #[error("it has more than {QUERIES_PER_JOB_MAX} records: split it into several datasets")]
    TooMany,
    #[error("{0}")]
    NotText(&'static str),
    #[error(transparent)]
    Parquet(#[from] idunno_columnar::ReadError),
    #[error(
        "line {line} begins a JSON document of several lines: write one value a line, for example with jq -c '.[]'"
    )]
    SeveralLines { line: u64 },
    #[error("none of its {count} records can be read: {first}")]
    Unreadable { count: u64, first: String },
    #[error(
        "none of its records has an input: line {line} has {columns} columns, the input is column {input}"
    )]
    NoInput { line: u64, columns: usize, input: u32 },
    #[error(
        "its first line has no column '{name}'; its columns, separated by '{delimiter}', are: {found}. \
         --input-column names the input, --delimiter another separator, --no-header says that they are a record"
    )]
    NoColumn { name: String, delimiter: String, found: String },
    #[error(
        "it has no header, and {count} columns separated by '{delimiter}', but not '{name}': name columns by their \
         numbers from 1, as in --input-column 1"
    )]
    Number { name: String, delimiter: String, count: usize },
    #[error(
        "its only column '{heading}' looks like several: --delimiter says what separates them, --input-column with this \
         name that it is one"
    )]
    OneColumn { heading: String },
    #[error("its first line has several columns '{name}': rename all but one")]
    Duplicate { name: String },
    #[error(
        "the heading of column {column} is too long to come back in the rows: name the columns to --keep"
    )]
    LongName { column: u32 },
    #[error(
        "at most {KEPT_COLUMNS_MAX} columns, with {KEPT_NAMES_BYTES_MAX} bytes of names, can come back in the rows: name \
         them with --keep"
    )]
    ManyKept,
    #[error("it is not CSV, so it has no delimiter, quotes or header to choose")]
    NotCsv,
    #[error("it is a list of names, which has no columns to choose or to keep")]
    ListOptions,
    #[error("its records are references to objects, which have no columns to choose or to keep")]
    ReferenceOptions,
    #[error(
        "its first line is no header of references: {why}. 'idunno reference-data' makes such files; by hand, begin with \
         {{\"references\":{{}}}}"
    )]
    NoReferencesHeader { why: String },
    #[error("line {line}: {reason}")]
    Name { line: usize, reason: String },
    #[error("a list may have at most {bytes_max} bytes: split it")]
    LongList { bytes_max: usize },
}
