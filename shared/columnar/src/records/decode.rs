//! Rows of row groups whose bytes are in memory.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::DataType;
use bytes::buf::Reader;
use bytes::{Buf, Bytes};
use idunno_shared::names::ColumnName;
use idunno_shared::wire::records::ParquetLayout;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{ChunkReader, Length};

use super::Row;
use super::columns::{Column, has_media};
use super::footer::{Footer, GroupRows};
use super::json::{Json, bytes_of, time, uuid};
use crate::error::{ROWS_BYTES_MAX, RowError};
use crate::parts::FileParts;

/// Bytes of rows that are columns and records at once, and rows.
const STEP_BYTES: u64 = 16 << 20;
const STEP_ROWS_MAX: u64 = 1024;

impl Length for FileParts {
    fn len(&self) -> u64 {
        self.file_bytes()
    }
}

impl ChunkReader for FileParts {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> ParquetResult<Reader<Bytes>> {
        Ok(self.from(start).ok_or_else(|| missing(start))?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let mut bytes =
            self.from(start).filter(|bytes| bytes.len() >= length).ok_or_else(|| missing(start))?;
        bytes.truncate(length);
        Ok(bytes)
    }
}

fn missing(start: u64) -> ParquetError {
    ParquetError::EOF(format!("a page at byte {start} lies outside of its column chunk"))
}

impl Footer {
    /// These rows, each as a record: as many as were asked for. `file` has the [`Footer::chunks`] of the rows, which are
    /// in order.
    pub fn rows(&self, layout: &ParquetLayout, rows: &[u64], file: &FileParts) -> Vec<Row> {
        let mut found = Vec::with_capacity(rows.len());
        let mut bytes = 0;
        for wanted in self.by_group(rows) {
            let before = found.len();
            let read = self.rows_of_group(layout, &wanted, file, &mut found, &mut bytes);
            let why = read.err().map_or_else(
                || String::from("it has fewer rows than its footer says"),
                |error| error.to_string(),
            );
            for row in wanted.rows.iter().skip(found.len() - before) {
                let row = wanted.first + *row as u64 + 1;
                found.push(unread(RowError::Group { row, group: wanted.group + 1, why: why.clone() }));
            }
        }
        let beyond = rows.iter().skip(found.len());
        let beyond: Vec<Row> = beyond.map(|row| unread(RowError::Missing { row: row + 1 })).collect();
        found.extend(beyond);
        found
    }

    fn rows_of_group(
        &self,
        layout: &ParquetLayout,
        wanted: &GroupRows,
        file: &FileParts,
        found: &mut Vec<Row>,
        bytes: &mut usize,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let group = self.metadata.metadata().row_group(wanted.group);
        let total = usize::try_from(group.num_rows()).unwrap_or(0);
        let selection = RowSelection::from_consecutive_ranges(consecutive(&wanted.rows).into_iter(), total);
        let step = (STEP_BYTES / layout.row_bytes.max(1)).clamp(1, STEP_ROWS_MAX);
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), self.columns.roots(layout));
        let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(file.clone(), self.metadata.clone())
            .with_row_groups(vec![wanted.group])
            .with_projection(mask)
            .with_row_selection(selection)
            .with_batch_size(usize::try_from(step).unwrap_or(1))
            .build()?;
        let mut numbers = wanted.rows.iter().map(|row| wanted.first + *row as u64 + 1);
        for batch in batches {
            let batch = BatchColumns::of(self, layout, &batch?);
            for (row, number) in (0..batch.rows).zip(numbers.by_ref()) {
                if *bytes > ROWS_BYTES_MAX {
                    found.push(unread(RowError::Large { row: number }));
                    continue;
                }
                let row = batch.row(row, number);
                *bytes += row_bytes(&row);
                found.push(row);
            }
        }
        Ok(())
    }
}

fn unread(error: RowError) -> Row {
    Row { input: Err(error), label: None, id: None, fields: None }
}

fn row_bytes(row: &Row) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    row.input.as_ref().map_or(0, Bytes::len) + text(&row.label) + text(&row.id) + text(&row.fields)
}

/// Ascending numbers as ranges.
fn consecutive(numbers: &[usize]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some(last) if last.end == number => last.end += 1,
            _ => ranges.push(number..number + 1),
        }
    }
    ranges
}

/// The columns of some rows.
struct BatchColumns<'a> {
    rows: usize,
    input: Option<(&'a Column, ArrayRef)>,
    label: Option<(&'a Column, ArrayRef)>,
    id: Option<(&'a Column, ArrayRef)>,
    kept: Vec<(&'a Column, ArrayRef)>,
}

impl<'a> BatchColumns<'a> {
    fn of(footer: &'a Footer, layout: &ParquetLayout, batch: &RecordBatch) -> Self {
        let column = |name: &ColumnName| {
            let array = batch.column_by_name(name.as_str())?;
            Some((footer.columns.named(name)?, Arc::clone(array)))
        };
        Self {
            rows: batch.num_rows(),
            input: layout.columns.input.as_ref().and_then(column),
            label: layout.columns.label.as_ref().and_then(column),
            id: layout.columns.id.as_ref().and_then(column),
            kept: layout.keep.iter().filter_map(column).collect(),
        }
    }

    /// The record of a row of these. `number` is its number in the file, from 1.
    fn row(&self, row: usize, number: u64) -> Row {
        let given = |of: &Option<(&Column, ArrayRef)>| {
            let (column, array) = of.as_ref()?;
            (!array.is_null(row)).then(|| json(column, array, row).text)
        };
        let fields = (!self.kept.is_empty()).then(|| {
            let fields = self.kept.iter().map(|(column, array)| {
                format!(
                    "{}:{}",
                    serde_json::Value::from(column.field.name().as_str()),
                    json(column, array, row).text
                )
            });
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        });
        Row { input: self.input(row, number), label: given(&self.label), id: given(&self.id), fields }
    }

    fn input(&self, row: usize, number: u64) -> Result<Bytes, RowError> {
        let Some((column, array)) = &self.input else { return Err(RowError::Missing { row: number }) };
        let name = || column.field.name().clone();
        let null = || RowError::Null { row: number, column: name() };
        if array.is_null(row) {
            return Err(null());
        }
        if has_media(array.data_type()) {
            let bytes = array.as_struct().column_by_name("bytes").ok_or_else(null)?;
            let bytes = (!bytes.is_null(row)).then(|| bytes_of(bytes, row)).flatten();
            return bytes.map(Bytes::copy_from_slice).ok_or_else(null);
        }
        if let Some(bytes) = bytes_of(array, row) {
            let text = if column.is_uuid { uuid(bytes) } else { None };
            return Ok(text.map_or_else(|| Bytes::copy_from_slice(bytes), Bytes::from));
        }
        if let Some(time) = time(array, row) {
            return Ok(time.into());
        }
        let Json { text, has_gaps } = Json::of(array, row);
        if has_gaps { Err(RowError::NotFinite { row: number, column: name() }) } else { Ok(text.into()) }
    }
}

fn json(column: &Column, array: &ArrayRef, row: usize) -> Json {
    let is_uuid =
        column.is_uuid && matches!(array.data_type(), DataType::FixedSizeBinary(16)) && !array.is_null(row);
    match is_uuid.then(|| bytes_of(array, row).and_then(uuid)).flatten() {
        Some(uuid) => Json { text: format!("\"{uuid}\""), has_gaps: false },
        None => Json::of(array, row),
    }
}
