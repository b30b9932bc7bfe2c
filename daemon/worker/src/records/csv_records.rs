//! Records that are rows of CSV.

use std::io::Read;

use ::csv::{ByteRecord, ReaderBuilder};
use bytes::Bytes;
use idunno_shared::wire::records::{CsvLayout, Quote};

use super::{LineCounter, Record, RecordError, Span};
use crate::json_text::JsonText;

/// What stands where in a row. Columns are counted from 0.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a> {
    pub(super) input: u32,
    pub(super) label: Option<u32>,
    pub(super) id: Option<u32>,
    pub(super) layout: &'a CsvLayout,
}

/// A reader of a dialect, in which rows may have any number of columns.
pub(super) fn builder(delimiter: u8, quote: Quote) -> ReaderBuilder {
    let mut builder = ReaderBuilder::new();
    builder.has_headers(false).flexible(true).delimiter(delimiter);
    match quote {
        Quote::Double => {}
        Quote::Single => _ = builder.quote(b'\''),
        Quote::None => _ = builder.quoting(false),
    }
    builder
}

/// Reads the records of a span.
pub(super) fn read(columns: Columns<'_>, bytes: &Bytes, span: Span) -> Vec<Record> {
    // A CSV reader drops a byte order mark at its beginning. The index knows such bytes as part of a record; behind an
    // empty line, which is skipped, the reader does, too.
    let prefixed = b"\n".chain(&bytes[..]);
    let mut reader = builder(columns.layout.delimiter, columns.layout.quote).from_reader(prefixed);
    let mut counter = LineCounter::new(bytes, span.line);
    let rows = reader.byte_records().skip(span.skip).take(span.count);
    rows.map(|row| columns.record(row, bytes, &mut counter)).collect()
}

impl Columns<'_> {
    fn record(
        self,
        row: Result<ByteRecord, ::csv::Error>,
        bytes: &[u8],
        counter: &mut LineCounter<'_>,
    ) -> Record {
        let row = match row {
            Ok(row) => row,
            Err(error) => {
                let line = super::Line(0);
                let input = Err(RecordError::Csv { line, why: error.to_string() });
                return Record { input, label: None, id: None, fields: None };
            }
        };
        let field = |column: u32| row.get(usize::try_from(column).unwrap_or(usize::MAX));
        let text =
            |column: u32| field(column).map(|field| JsonText::of_text(&String::from_utf8_lossy(field)));
        let given = |column: Option<u32>| text(column?).filter(|text| text.as_str() != "\"\"");
        let fields = (!self.layout.keep.is_empty()).then(|| {
            let kept =
                self.layout.keep.iter().filter_map(|column| Some((&column.name, text(column.number)?)));
            JsonText::object(kept.map(|(name, text)| (name.as_str(), text)))
        });
        Record {
            input: self.input(&row).map_err(|fault| fault(line(&row, bytes, counter))),
            label: given(self.label),
            id: given(self.id),
            fields,
        }
    }

    /// The input, or what is wrong with the row.
    fn input(self, row: &ByteRecord) -> Result<Bytes, impl FnOnce(super::Line) -> RecordError> {
        let (columns, expected, input) = (row.len(), self.layout.columns, self.input);
        let columns_max =
            if expected == 0 { usize::MAX } else { usize::try_from(expected).unwrap_or(usize::MAX) };
        // Some programs end each line with a delimiter.
        let is_long = row.iter().skip(columns_max).any(|field| !field.is_empty());
        let found = row.get(usize::try_from(input).unwrap_or(usize::MAX)).filter(|_| !is_long);
        found.map(Bytes::copy_from_slice).ok_or(move |line| {
            if is_long {
                RecordError::TooManyColumns { line, columns, expected }
            } else {
                RecordError::NoInputColumn { line, columns, input: input + 1 }
            }
        })
    }
}

/// The line in which a row starts.
fn line(row: &ByteRecord, bytes: &[u8], counter: &mut LineCounter<'_>) -> super::Line {
    // Without the line break in front of the bytes, and behind the empty lines before the row.
    let at = row.position().map_or(0, |position| position.byte().saturating_sub(1));
    let at = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    let empty = bytes[at..].iter().take_while(|byte| b"\r\n".contains(byte)).count();
    counter.line_of(at + empty)
}

#[cfg(test)]
mod tests {
    use idunno_shared::wire::records::Column;

    use super::*;

    fn shown(record: &Record) -> String {
        match &record.input {
            Ok(input) => String::from_utf8(input.to_vec()).unwrap(),
            Err(error) => error.to_string(),
        }
    }

    fn read_text(layout: &CsvLayout, text: &str) -> Vec<Record> {
        let columns = Columns { input: 1, label: None, id: Some(0), layout };
        read(columns, &Bytes::copy_from_slice(text.as_bytes()), Span { line: 2, skip: 0, count: usize::MAX })
    }

    #[test]
    fn rows_of_any_dialect_are_read_and_kept_columns_come_back() {
        let keep = vec![
            Column { number: 2, name: "city".parse().unwrap() },
            Column { number: 3, name: "price \"€\"".parse().unwrap() },
        ];
        let layout =
            CsvLayout { delimiter: b';', quote: Quote::Single, columns: 4, keep, ..CsvLayout::default() };
        let records = read_text(&layout, "1;'a;''b''';Köln;1.10\n2;\"c\"\n");
        assert_eq!((shown(&records[0]), shown(&records[1])), ("a;'b'".into(), "\"c\"".into()));
        let fields = |at: usize| records[at].fields.as_ref().unwrap().as_str();
        assert_eq!(fields(0), "{\"city\":\"Köln\",\"price \\\"€\\\"\":\"1.10\"}");
        assert_eq!(fields(1), "{}", "a short row lacks its last columns");
        let unquoted = CsvLayout { quote: Quote::None, delimiter: b'\t', ..CsvLayout::default() };
        assert_eq!(shown(&read_text(&unquoted, "1\t\"a\n2\tb\"\n")[0]), "\"a");
    }

    #[test]
    fn a_ragged_row_names_its_line_and_keeps_its_id() {
        let layout = CsvLayout { columns: 2, ..CsvLayout::default() };
        let records = read_text(&layout, "1,\"a\nb\"\n\n\r\n2,c,d\n3\n4,e,,\n");
        let shown: Vec<String> = records.iter().map(shown).collect();
        assert_eq!(
            shown,
            [
                "a\nb",
                "line 6 has 3 columns, but the file has 2",
                "line 7 has 1 columns, the input is column 2",
                "e"
            ]
        );
        assert_eq!(records[1].id, Some(JsonText::of_text("2")));
    }
}
