//! Files whose records are queries: JSON lines, CSV, and Parquet.
//!
//! [`record_index`] finds the dialect and locates the records once, when a job starts; a worker then reads the records of a
//! batch from the bytes around them. Both split a file in the same way.
//!
//! If a JSON line is an object with `input`, that is the input: a string as text, anything else byte for byte; `label` and
//! `id` are optional, and come back in the rows as they stand here. A line that is no strict JSON has no input. If it is a
//! string, that text is the input. Otherwise the whole line is. In CSV the columns `input`, `label` and `id` mean the same,
//! and a single column is the input. Other names, and columns that come back in the rows, can be asked for. Empty lines are
//! skipped.
//!
//! A reference to an object outside the cluster is a JSON line, whose `input` says where the object is ([`references`]).
//! Of Parquet only the footer is indexed ([`parquet_index`]); `idunno_columnar` says what its columns mean.

mod blocks;
mod csv_index;
mod csv_records;
mod dialect;
mod encoding;
mod index_error;
mod json_records;
mod jsonl_index;
mod name_list;
pub mod parquet_index;
pub mod record_index;
pub mod references;

pub use encoding::not_text;

use bytes::Bytes;
use idunno_core::metadata::FileKind;
use idunno_shared::wire::jobs::RecordFormat;
use idunno_shared::wire::records::{ColumnNames, Keep, ReadOptions, RecordIdentity};
use memchr::memchr_iter;
use thiserror::Error;

use crate::json_text::JsonText;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub input: Result<Bytes, RecordError>,
    /// As it was written; a label of CSV is a text.
    pub label: Option<JsonText>,
    /// As it was written; an id of CSV is a text.
    pub id: Option<JsonText>,
    /// The columns that come back in the row, as an object; `None` unless some are asked for.
    pub fields: Option<JsonText>,
}

impl Record {
    /// What it says of itself.
    pub fn identity(&self) -> RecordIdentity {
        let text = |json: &Option<JsonText>| json.as_ref().map(|json| json.as_str().to_owned());
        RecordIdentity { id: text(&self.id), label: text(&self.label) }
    }
}

/// A line of a file, from 1; 0 if it is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line(pub u64);

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => f.write_str("the line"),
            line => write!(f, "line {line}"),
        }
    }
}

/// A record has no input.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    #[error("{line} is not JSON: {why}")]
    Json { line: Line, why: String },
    #[error("{line} is not CSV: {why}")]
    Csv { line: Line, why: String },
    #[error("{line} has no field '{field}'")]
    NoField { line: Line, field: String },
    /// Columns are counted from 1.
    #[error("{line} has {columns} columns, the input is column {input}")]
    NoInputColumn { line: Line, columns: usize, input: u32 },
    #[error("{line} has {columns} columns, but the file has {expected}")]
    TooManyColumns { line: Line, columns: usize, expected: u32 },
    #[error(transparent)]
    Parquet(#[from] idunno_columnar::RowError),
    #[error("the input of {line} is no reference to an object: {why}")]
    Reference { line: Line, why: String },
}

/// Where records lie in the bytes around them.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The line in which the bytes start, from 1; 0 if it is unknown.
    pub line: u64,
    /// Records before the first wanted one.
    pub skip: usize,
    /// Records to read.
    pub count: usize,
}

/// Reads the records of a span, or as many as there are. `bytes` must hold whole records.
pub fn read(format: &RecordFormat, bytes: &Bytes, span: Span) -> Vec<Record> {
    match format {
        // The input of a reference is what it refers to, by which the object is read.
        RecordFormat::Jsonl | RecordFormat::References(_) => {
            json_records::read(&ColumnNames::default(), &Keep::Nothing, bytes, span)
        }
        RecordFormat::JsonFields { columns, keep } => json_records::read(columns, keep, bytes, span),
        // Its rows are read by row groups, from several parts of the file.
        RecordFormat::Parquet(_) => Vec::new(),
        RecordFormat::Csv { input, label, id, layout } => csv_records::read(
            csv_records::Columns { input: *input, label: *label, id: *id, layout },
            bytes,
            span,
        ),
    }
}

/// Reads a table of labels in the dialect in which it is written.
pub(crate) fn table_reader(table: &[u8]) -> ::csv::Reader<&[u8]> {
    let columns = ColumnNames { input: "file".parse().ok(), ..ColumnNames::default() };
    let options = ReadOptions { columns, ..ReadOptions::default() };
    let sample = &table[..table.len().min(dialect::SAMPLE_BYTES)];
    let goes_on = table.len() > sample.len();
    let found = dialect::find(FileKind::Csv, &options, sample, goes_on);
    csv_records::builder(found.delimiter, found.quote).from_reader(&table[found.skipped..])
}

/// Counts the lines before places in some bytes. Places must be asked for in order.
struct LineCounter<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u64,
}

impl<'a> LineCounter<'a> {
    fn new(bytes: &'a [u8], first_line: u64) -> Self {
        Self { bytes, at: 0, line: first_line }
    }

    fn line_of(&mut self, at: usize) -> Line {
        if self.line > 0 {
            let passed = self.bytes.get(self.at..at).unwrap_or_default();
            self.line += line_ends(passed);
            self.at = at;
        }
        Line(self.line)
    }
}

/// How many lines end in some bytes.
fn line_ends(bytes: &[u8]) -> u64 {
    memchr_iter(b'\n', bytes).count() as u64
}

#[cfg(test)]
mod tests {
    use idunno_shared::wire::records::CsvLayout;

    use super::*;

    fn inputs(format: &RecordFormat, text: &str, skip: usize, count: usize) -> Vec<String> {
        let records = read(format, &Bytes::copy_from_slice(text.as_bytes()), Span { line: 0, skip, count });
        let shown = |record: Record| match record.input {
            Ok(input) => String::from_utf8(input.to_vec()).unwrap(),
            Err(error) => format!("error: {error}"),
        };
        records.into_iter().map(shown).collect()
    }

    #[test]
    fn a_json_line_is_a_string_an_object_with_input_or_its_own_input() {
        let text = "\"one\"\n\n{\"input\": \"two\", \"label\": 7, \"id\": \"x\"}\r\n{\"input\":[1, 2]}\n {\"a\":1} \n[3]\nnone";
        let read_all = inputs(&RecordFormat::Jsonl, text, 0, 9);
        assert_eq!(read_all[..5], ["one", "two", "[1, 2]", "{\"a\":1}", "[3]"]);
        assert!(read_all[5].starts_with("error: the line is not JSON"), "{read_all:?}");
        assert_eq!(inputs(&RecordFormat::Jsonl, text, 1, 2), ["two", "[1, 2]"]);
        let records = read(&RecordFormat::Jsonl, &Bytes::from(text), Span { line: 0, skip: 1, count: 1 });
        let json =
            |text: &Option<JsonText>| text.as_ref().map(|text| text.as_str().to_owned()).unwrap_or_default();
        assert_eq!((json(&records[0].label), json(&records[0].id)), ("7".into(), "\"x\"".into()));
    }

    #[test]
    fn csv_fields_may_hold_quotes_and_line_breaks() {
        let layout = CsvLayout::default();
        let format = RecordFormat::Csv { input: 1, label: Some(0), id: None, layout };
        let text = "good,\"warm, and \"\"clever\"\"\nfilm\"\r\n\nbad,dull\nlonely\n";
        let rows = inputs(&format, text, 0, 9);
        assert_eq!(
            rows,
            ["warm, and \"clever\"\nfilm", "dull", "error: the line has 1 columns, the input is column 2"]
        );
        let records = read(&format, &Bytes::from(text), Span { line: 0, skip: 1, count: 1 });
        assert_eq!(records[0].label, Some(JsonText::of_text("bad")));
    }

    /// Found by the fuzzer: a block that begins with a byte order mark had one record fewer than the index counted.
    #[test]
    fn a_byte_order_mark_inside_a_csv_file_is_part_of_its_record() {
        let layout = CsvLayout::default();
        let format = RecordFormat::Csv { input: 0, label: None, id: None, layout };
        assert_eq!(inputs(&format, "\u{feff}\rtwo", 0, 9), ["\u{feff}", "two"]);
    }
}
