//! Finds the dialect of a CSV file in its first bytes, and what its columns mean in its header.
//!
//! The delimiter is, in this order: what is asked for; that of a first line `sep=X`, as Excel writes it; a tab in `.tsv`; of
//! `,` `;` tab and `|` the one whose first row has the input's column, or any other column that has a meaning; the one
//! that splits at least nine of ten rows into as many fields, two or more, as the first row, the one with the most fields;
//! and else a comma. So a file of one column is one whose rows no delimiter splits evenly.
//!
//! Training finds the same (`records.py`), and `cases.json` holds both to it.
//!
//! Bounds: [`SAMPLE_BYTES`] are looked at, a last row that they may cut only if it is the only one.

use idunno_core::metadata::FileKind;
use idunno_shared::names::ColumnName;
use idunno_shared::wire::jobs::RecordFormat;
use idunno_shared::wire::records::{
    Column, ColumnNames, CsvLayout, KEPT_COLUMNS_MAX, KEPT_NAMES_BYTES_MAX, Keep, Quote, ReadOptions,
};

use super::csv_records::builder;
use super::index_error::RecordIndexError;

/// Bytes from the beginning of a file in which its dialect is found.
pub(super) const SAMPLE_BYTES: usize = 64 << 10;
const DELIMITERS: [u8; 4] = *b",;\t|";
/// Of so many rows, nine may have another number of fields than the first.
const EVEN_ROWS: usize = 10;

/// How a CSV file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) delimiter: u8,
    pub(super) quote: Quote,
    /// Bytes of a first line that names the delimiter.
    pub(super) skipped: usize,
    /// Whether somebody or something named the delimiter, so that one column is not an accident.
    is_named: bool,
}

/// Finds the dialect of a file that begins with `sample`, and may go on.
pub(super) fn find(kind: FileKind, options: &ReadOptions, sample: &[u8], goes_on: bool) -> Dialect {
    let quote = options.quote.unwrap_or_default();
    let (named, skipped) = match named_delimiter(sample) {
        Some((delimiter, skipped)) => (Some(delimiter), skipped),
        None => (None, 0),
    };
    let by_ending = (kind == FileKind::Tsv).then_some(b'\t');
    let named = options.delimiter.or(named).or(by_ending);
    let found = || guess(options, quote, &sample[skipped..], goes_on);
    Dialect { delimiter: named.unwrap_or_else(found), quote, skipped, is_named: named.is_some() }
}

/// The delimiter of a first line `sep=X`, and the line's length.
fn named_delimiter(sample: &[u8]) -> Option<(u8, usize)> {
    let end = sample.iter().position(|&byte| byte == b'\n')? + 1;
    let line = &sample[..end - 1];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = line.strip_prefix(b"\"").and_then(|line| line.strip_suffix(b"\"")).unwrap_or(line);
    let (name, delimiter) = line.split_at_checked(4)?;
    match delimiter {
        [delimiter] if name.eq_ignore_ascii_case(b"sep=") && delimiter.is_ascii() => Some((*delimiter, end)),
        _ => None,
    }
}

fn guess(options: &ReadOptions, quote: Quote, sample: &[u8], goes_on: bool) -> u8 {
    let candidates = DELIMITERS.map(|delimiter| (delimiter, rows(delimiter, quote, sample, goes_on)));
    if !options.no_header {
        let ColumnNames { input, label, id } = &options.columns;
        let has = |row: &[String], asked: &Option<ColumnName>, usual: &str| {
            let name = asked.as_ref().map_or(usual, ColumnName::as_str).trim();
            row.iter().any(|heading| heading.trim().eq_ignore_ascii_case(name))
        };
        let known = candidates.iter().map(|(delimiter, rows)| {
            let head = rows.first().map_or(&[][..], |row| &row.head[..]);
            let others = [has(head, label, "label"), has(head, id, "id")];
            let others = others.into_iter().filter(|known| *known).count();
            let input = usize::from(has(head, input, "input"));
            // A single column of that name is split by no delimiter.
            ((input, others, head.len()), *delimiter)
        });
        let best = known.rev().max_by_key(|(known, _)| *known);
        if let Some(((input, others, _), delimiter)) = best
            && input + others > 0
        {
            return delimiter;
        }
    }
    let even = candidates.iter().filter_map(|(delimiter, rows)| {
        let fields = rows.first()?.head.len();
        let others = rows.iter().filter(|row| row.fields != fields).count();
        (fields > 1 && others * EVEN_ROWS <= rows.len()).then_some((fields, *delimiter))
    });
    even.rev().max_by_key(|(fields, _)| *fields).map_or(b',', |(_, delimiter)| delimiter)
}

struct Row {
    fields: usize,
    /// The fields of the first row.
    head: Vec<String>,
}

fn rows(delimiter: u8, quote: Quote, sample: &[u8], goes_on: bool) -> Vec<Row> {
    // A reader drops a byte order mark only at its beginning; it was dropped before.
    let mut reader = builder(delimiter, quote).from_reader(sample);
    let mut rows: Vec<Row> = Vec::new();
    for row in reader.byte_records().map_while(Result::ok) {
        let head = if rows.is_empty() { texts(&row) } else { Vec::new() };
        rows.push(Row { fields: row.len(), head });
    }
    if goes_on && rows.len() > 1 {
        rows.pop();
    }
    rows
}

fn texts(row: &::csv::ByteRecord) -> Vec<String> {
    row.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect()
}

/// What the columns of a file mean whose first row is `first`.
pub(super) fn columns(
    options: &ReadOptions,
    dialect: Dialect,
    first: &[u8],
) -> Result<RecordFormat, RecordIndexError> {
    let mut reader = builder(dialect.delimiter, dialect.quote).from_reader(first);
    let row = reader.byte_records().next().and_then(Result::ok).unwrap_or_default();
    let row = if options.no_header {
        (1..=row.len()).map(|number| number.to_string()).collect()
    } else {
        texts(&row)
    };
    let headings = Headings { row, dialect, no_header: options.no_header };
    let ColumnNames { input, label, id } = &options.columns;
    let input = headings.input(input.as_ref())?;
    let label = headings.other(label.as_ref(), "label")?;
    let id = headings.other(id.as_ref(), "id")?;
    let keep = headings.kept(&options.keep, [Some(input), label, id])?;
    let name = |column: Option<u32>| headings.name(column?);
    let names = ColumnNames { input: name(Some(input)), label: name(label), id: name(id) };
    let layout = CsvLayout {
        delimiter: dialect.delimiter,
        quote: dialect.quote,
        header: !options.no_header,
        columns: number(headings.row.len()),
        names,
        keep,
    };
    Ok(RecordFormat::Csv { input, label, id, layout })
}

fn number(column: usize) -> u32 {
    u32::try_from(column).unwrap_or(u32::MAX)
}

struct Headings {
    row: Vec<String>,
    dialect: Dialect,
    no_header: bool,
}

impl Headings {
    /// The column of a name, in its case if there is one.
    fn find(&self, name: &str) -> Result<Option<u32>, RecordIndexError> {
        let name = name.trim();
        let named = |is_equal: &dyn Fn(&str) -> bool| {
            let found = self.row.iter().enumerate().filter(|(_, heading)| is_equal(heading.trim()));
            found.map(|(column, _)| number(column)).collect::<Vec<_>>()
        };
        let mut found = named(&|heading| heading == name);
        if found.is_empty() {
            found = named(&|heading| heading.eq_ignore_ascii_case(name));
        }
        match found[..] {
            [] => Ok(None),
            [column] => Ok(Some(column)),
            _ => Err(RecordIndexError::Duplicate { name: name.to_owned() }),
        }
    }

    fn asked(&self, name: &ColumnName) -> Result<u32, RecordIndexError> {
        self.find(name.as_str())?.ok_or_else(|| self.missing(name.as_str()))
    }

    fn missing(&self, name: &str) -> RecordIndexError {
        let delimiter = self.dialect.delimiter.escape_ascii().to_string();
        let found = if self.row.is_empty() { String::from("none") } else { self.row.join(", ") };
        if self.no_header {
            let count = self.row.len();
            return RecordIndexError::Number { name: name.to_owned(), delimiter, count };
        }
        RecordIndexError::NoColumn { name: name.to_owned(), delimiter, found }
    }

    fn input(&self, asked: Option<&ColumnName>) -> Result<u32, RecordIndexError> {
        if let Some(name) = asked {
            return self.asked(name);
        }
        let found = if self.no_header { None } else { self.find("input")? };
        match (found, &self.row[..]) {
            (Some(column), _) => Ok(column),
            (None, [heading]) => {
                let looks_like_several = heading.bytes().any(|byte| DELIMITERS.contains(&byte));
                if looks_like_several && !self.dialect.is_named {
                    return Err(RecordIndexError::OneColumn { heading: heading.clone() });
                }
                Ok(0)
            }
            (None, _) => Err(self.missing("input")),
        }
    }

    fn other(&self, asked: Option<&ColumnName>, usual: &str) -> Result<Option<u32>, RecordIndexError> {
        match asked {
            Some(name) => self.asked(name).map(Some),
            None if self.no_header => Ok(None),
            None => self.find(usual),
        }
    }

    fn name(&self, column: u32) -> Option<ColumnName> {
        let heading = self.row.get(usize::try_from(column).ok()?)?;
        let name = if heading.is_empty() { format!("column {}", column + 1) } else { heading.clone() };
        name.parse().ok()
    }

    fn kept(&self, keep: &Keep, meant: [Option<u32>; 3]) -> Result<Vec<Column>, RecordIndexError> {
        let numbers = match keep {
            Keep::Nothing => Vec::new(),
            Keep::All => {
                (0..number(self.row.len())).filter(|column| !meant.contains(&Some(*column))).collect()
            }
            Keep::Columns(names) => names.iter().map(|name| self.asked(name)).collect::<Result<_, _>>()?,
        };
        let mut kept: Vec<Column> = Vec::new();
        let mut bytes = 0;
        for number in numbers {
            let name = self.name(number).ok_or(RecordIndexError::LongName { column: number + 1 })?;
            bytes += name.as_str().len();
            if kept.len() == KEPT_COLUMNS_MAX || bytes > KEPT_NAMES_BYTES_MAX {
                return Err(RecordIndexError::ManyKept);
            }
            if kept.iter().any(|column| column.name == name) {
                return Err(RecordIndexError::Duplicate { name: name.to_string() });
            }
            kept.push(Column { number, name });
        }
        Ok(kept)
    }
}
