//! Files whose records are queries: JSON lines, and CSV with a header.
//!
//! [`record_index`] locates the records once, when a job starts; a worker then reads the records of a batch from the bytes
//! around them. Both split a file in the same way.
//!
//! If a JSON line is an object with `input`, that is the input: a string as text, anything else byte for byte; `label` and
//! `id` are optional, and come back in the rows as they stand here. A line that is no strict JSON has no input. If it is a string, that text is the input. Otherwise the whole line is. In CSV the columns `input`, `label`
//! and `id` mean the same, and a single column is the input. Empty lines are skipped.

pub mod record_index;

use std::fmt;
use std::io::Read;

use bytes::Bytes;
use idunno_shared::wire::jobs::RecordFormat;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::json_text::{self, JsonText};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub input: Result<Bytes, RecordError>,
    /// As it was written; a label of CSV is a text.
    pub label: Option<JsonText>,
    /// As it was written; an id of CSV is a text.
    pub id: Option<JsonText>,
}

/// A record has no input.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    #[error("the line is not JSON: {0}")]
    Json(String),
    #[error("the line is not CSV: {0}")]
    Csv(String),
    /// Columns are counted from 1.
    #[error("the line has {columns} columns, the input is column {input}")]
    NoInputColumn { columns: usize, input: u32 },
}

impl Record {
    fn malformed(error: RecordError) -> Self {
        Self { input: Err(error), label: None, id: None }
    }
}

/// Reads `count` records of `bytes` after the first `skip`, or as many as there are. `bytes` must hold whole records.
pub fn read(format: RecordFormat, bytes: &Bytes, skip: usize, count: usize) -> Vec<Record> {
    match format {
        RecordFormat::Jsonl => {
            let lines = bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
            let records = lines.filter(|line| !line.is_empty()).skip(skip).take(count);
            records.map(|line| json_record(bytes, line)).collect()
        }
        RecordFormat::Csv { input, label, id } => {
            // A CSV reader drops a byte order mark at its beginning. The index knows such bytes as part of a record; behind an
            // empty line, which is skipped, the reader does, too.
            let bytes = b"\n".chain(&bytes[..]);
            let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
            let rows = reader.byte_records().skip(skip).take(count);
            rows.map(|row| csv_record(row, input, label, id)).collect()
        }
    }
}

fn json_record(bytes: &Bytes, line: &[u8]) -> Record {
    let read = || {
        json_text::strict(line, json_text::LEVELS_MAX)?;
        let Entry { input, label, id } = match line.first() {
            Some(b'{') => serde_json::from_slice(line)?,
            // A string, or its own input.
            _ => Entry { input: Some(serde_json::from_slice(line)?), ..Entry::default() },
        };
        let input = match input.map(RawValue::get) {
            Some(text) if text.starts_with('"') => Bytes::from(serde_json::from_str::<String>(text)?),
            Some(json) => bytes.slice_ref(json.as_bytes()),
            None => bytes.slice_ref(line),
        };
        let kept = |raw: Option<&RawValue>| raw.filter(|raw| raw.get() != "null").map(JsonText::verbatim);
        Ok(Record { input: Ok(input), label: kept(label), id: kept(id) })
    };
    read().unwrap_or_else(|error: serde_json::Error| Record::malformed(RecordError::Json(error.to_string())))
}

/// The fields of a line that have a meaning. Of two fields with one name the last counts.
#[derive(Default)]
struct Entry<'a> {
    input: Option<&'a RawValue>,
    label: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Entry<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Entry<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Entry<'de>, A::Error> {
                let mut entry = Entry::default();
                while let Some(name) = fields.next_key::<String>()? {
                    let value = Some(fields.next_value::<&'de RawValue>()?);
                    match name.as_str() {
                        "input" => entry.input = value,
                        "label" => entry.label = value,
                        "id" => entry.id = value,
                        _ => {}
                    }
                }
                Ok(entry)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

fn csv_record(
    row: Result<csv::ByteRecord, csv::Error>,
    input: u32,
    label: Option<u32>,
    id: Option<u32>,
) -> Record {
    let row = match row {
        Ok(row) => row,
        Err(error) => return Record::malformed(RecordError::Csv(error.to_string())),
    };
    let field = |column: u32| row.get(usize::try_from(column).unwrap_or(usize::MAX));
    let text = |column: Option<u32>| {
        let text = String::from_utf8_lossy(field(column?)?);
        Some(JsonText::of_text(&text)).filter(|_| !text.is_empty())
    };
    let missing = || RecordError::NoInputColumn { columns: row.len(), input: input + 1 };
    let input = field(input).map(Bytes::copy_from_slice).ok_or_else(missing);
    Record { input, label: text(label), id: text(id) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(format: RecordFormat, text: &str, skip: usize, count: usize) -> Vec<String> {
        let records = read(format, &Bytes::copy_from_slice(text.as_bytes()), skip, count);
        let shown = |record: Record| match record.input {
            Ok(input) => String::from_utf8(input.to_vec()).unwrap(),
            Err(error) => format!("error: {error}"),
        };
        records.into_iter().map(shown).collect()
    }

    #[test]
    fn a_json_line_is_a_string_an_object_with_input_or_its_own_input() {
        let text = "\"one\"\n\n{\"input\": \"two\", \"label\": 7, \"id\": \"x\"}\r\n{\"input\":[1, 2]}\n {\"a\":1} \n[3]\nnone";
        let read_all = inputs(RecordFormat::Jsonl, text, 0, 9);
        assert_eq!(read_all[..5], ["one", "two", "[1, 2]", "{\"a\":1}", "[3]"]);
        assert!(read_all[5].starts_with("error: the line is not JSON"), "{read_all:?}");
        assert_eq!(inputs(RecordFormat::Jsonl, text, 1, 2), ["two", "[1, 2]"]);
        let records = read(RecordFormat::Jsonl, &Bytes::from(text), 1, 1);
        let json =
            |text: &Option<JsonText>| text.as_ref().map(|text| text.as_str().to_owned()).unwrap_or_default();
        assert_eq!((json(&records[0].label), json(&records[0].id)), ("7".into(), "\"x\"".into()));
    }

    #[test]
    fn csv_fields_may_hold_quotes_and_line_breaks() {
        let format = RecordFormat::Csv { input: 1, label: Some(0), id: None };
        let text = "good,\"warm, and \"\"clever\"\"\nfilm\"\r\n\nbad,dull\nlonely\n";
        let rows = inputs(format, text, 0, 9);
        assert_eq!(
            rows,
            ["warm, and \"clever\"\nfilm", "dull", "error: the line has 1 columns, the input is column 2"]
        );
        let records = read(format, &Bytes::from(text), 1, 1);
        assert_eq!(records[0].label, Some(JsonText::of_text("bad")));
    }

    /// Found by the fuzzer: a block that begins with a byte order mark had one record fewer than the index counted.
    #[test]
    fn a_byte_order_mark_inside_a_csv_file_is_part_of_its_record() {
        let format = RecordFormat::Csv { input: 0, label: None, id: None };
        assert_eq!(inputs(format, "\u{feff}\rtwo", 0, 9), ["\u{feff}", "two"]);
    }
}
