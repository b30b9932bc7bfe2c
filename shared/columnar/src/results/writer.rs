//! Writes rows of results as Parquet.

use std::borrow::Cow;
use std::io::Write;
use std::str::FromStr;
use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Float32Builder, Float64Builder, Int64Builder, ListBuilder, StringBuilder, UInt64Builder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use serde_json::value::RawValue;

use super::types::{ColumnType, items};
use super::{Fields, ResultColumn, Row, RowTypes, Source, object};
use crate::error::WriteError;

const ZSTD_LEVEL: i32 = 3;
/// As many as DuckDB gives to a thread.
const GROUP_ROWS_MAX: usize = 122_880;
const GROUP_BYTES_MAX: usize = 64 << 20;
/// Rows, and bytes of their JSON, that become columns at once.
const BATCH_ROWS: usize = 1024;
const BATCH_BYTES: usize = 4 << 20;

/// Writes rows whose types are known. Equal rows become equal bytes.
pub struct ResultsWriter<W: Write + Send> {
    writer: ArrowWriter<W>,
    schema: SchemaRef,
    columns: Vec<(ResultColumn, Cells)>,
    rows: usize,
    bytes: usize,
}

impl<W: Write + Send> ResultsWriter<W> {
    /// Begins a file of rows that all were observed.
    pub fn new(out: W, types: &RowTypes) -> Result<Self, WriteError> {
        let columns = types.columns();
        let fields = columns.iter().map(|column| Field::new(&column.name, data_type(column.holds), true));
        let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let writer = ArrowWriter::try_new(out, Arc::clone(&schema), Some(properties(&columns)?))?;
        let columns = columns.into_iter().map(|column| {
            let cells = Cells::new(column.holds);
            (column, cells)
        });
        Ok(Self { writer, schema, columns: columns.collect(), rows: 0, bytes: 0 })
    }

    /// Writes a row: JSON without its line end.
    pub fn write(&mut self, row: &str) -> Result<(), WriteError> {
        let parsed: Row<'_> = serde_json::from_str(row)?;
        let has_output_fields =
            self.columns.iter().any(|(column, _)| matches!(column.source, Source::OutputField(_)));
        let output = if has_output_fields { parsed.output.and_then(object).transpose()? } else { None };
        let kept = parsed.fields.and_then(object).transpose()?;
        for (column, cells) in &mut self.columns {
            let json = value(&parsed, output.as_ref(), kept.as_ref(), &column.source);
            let json = json.map(RawValue::get).filter(|json| *json != "null");
            if cells.push(json).is_none() {
                let value = json.unwrap_or_default().chars().take(64).collect();
                return Err(WriteError::Changed { column: column.name.clone(), value });
            }
        }
        (self.rows, self.bytes) = (self.rows + 1, self.bytes + row.len());
        if self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES { self.write_batch() } else { Ok(()) }
    }

    fn write_batch(&mut self) -> Result<(), WriteError> {
        (self.rows, self.bytes) = (0, 0);
        let arrays = self.columns.iter_mut().map(|(_, cells)| cells.finish()).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays)
            .map_err(|error| WriteError::Library(error.to_string()))?;
        Ok(self.writer.write(&batch)?)
    }

    /// Ends the file.
    pub fn finish(mut self) -> Result<W, WriteError> {
        self.write_batch()?;
        Ok(self.writer.into_inner()?)
    }
}

fn properties(columns: &[ResultColumn]) -> Result<WriterProperties, WriteError> {
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("idunno version ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_max_row_group_row_count(Some(GROUP_ROWS_MAX))
        .set_max_row_group_bytes(Some(GROUP_BYTES_MAX))
        .set_dictionary_enabled(false);
    // What many rows share.
    let shared =
        [Source::Label, Source::Error, Source::Model, Source::Version, Source::Worker, Source::Attempt];
    for column in columns.iter().filter(|column| shared.contains(&column.source)) {
        let path = ColumnPath::new(vec![column.name.clone()]);
        properties = properties.set_column_dictionary_enabled(path, true);
    }
    Ok(properties.build())
}

fn value<'a>(
    row: &Row<'a>,
    output: Option<&Fields<'a>>,
    kept: Option<&Fields<'a>>,
    source: &Source,
) -> Option<&'a RawValue> {
    match source {
        Source::Query => row.query,
        Source::Name => row.name,
        Source::Id => row.id,
        Source::Label => row.label,
        Source::Output => row.output,
        Source::OutputField(name) => output?.get(name.as_str()).copied(),
        Source::Error => row.error,
        Source::Model => row.model,
        Source::Version => row.version,
        Source::Worker => row.worker,
        Source::Attempt => row.attempt,
        Source::Kept(name) => kept?.get(name.as_str()).copied(),
        Source::Fields => row.fields,
    }
}

fn data_type(holds: ColumnType) -> DataType {
    let list = |items| DataType::List(Arc::new(Field::new_list_field(items, true)));
    match holds {
        ColumnType::Text | ColumnType::Json => DataType::Utf8,
        ColumnType::Bool => DataType::Boolean,
        ColumnType::Int => DataType::Int64,
        ColumnType::UInt => DataType::UInt64,
        ColumnType::Float => DataType::Float64,
        ColumnType::Ints => list(DataType::Int64),
        ColumnType::Floats => list(DataType::Float64),
        ColumnType::Singles => list(DataType::Float32),
    }
}

/// The values of a column that are not written yet.
enum Cells {
    Text(StringBuilder),
    Json(StringBuilder),
    Bool(BooleanBuilder),
    Int(Int64Builder),
    UInt(UInt64Builder),
    Float(Float64Builder),
    Ints(ListBuilder<Int64Builder>),
    Floats(ListBuilder<Float64Builder>),
    Singles(ListBuilder<Float32Builder>),
}

impl Cells {
    fn new(holds: ColumnType) -> Self {
        match holds {
            ColumnType::Text => Self::Text(StringBuilder::new()),
            ColumnType::Json => Self::Json(StringBuilder::new()),
            ColumnType::Bool => Self::Bool(BooleanBuilder::new()),
            ColumnType::Int => Self::Int(Int64Builder::new()),
            ColumnType::UInt => Self::UInt(UInt64Builder::new()),
            ColumnType::Float => Self::Float(Float64Builder::new()),
            ColumnType::Ints => Self::Ints(ListBuilder::new(Int64Builder::new())),
            ColumnType::Floats => Self::Floats(ListBuilder::new(Float64Builder::new())),
            ColumnType::Singles => Self::Singles(ListBuilder::new(Float32Builder::new())),
        }
    }

    /// Adds a value, or nothing. `None` if it has another type.
    fn push(&mut self, json: Option<&str>) -> Option<()> {
        match self {
            Self::Text(texts) => {
                let text: Option<Cow<'_, str>> = json.map(serde_json::from_str).transpose().ok()?;
                texts.append_option(text);
            }
            Self::Json(texts) => texts.append_option(json),
            Self::Bool(flags) => flags.append_option(json.map(str::parse).transpose().ok()?),
            Self::Int(numbers) => numbers.append_option(json.map(str::parse).transpose().ok()?),
            Self::UInt(numbers) => numbers.append_option(json.map(str::parse).transpose().ok()?),
            Self::Float(numbers) => numbers.append_option(json.map(str::parse).transpose().ok()?),
            Self::Ints(lists) => lists.append_option(numbers::<i64>(json)?),
            Self::Floats(lists) => lists.append_option(numbers::<f64>(json)?),
            Self::Singles(lists) => lists.append_option(numbers::<f32>(json)?),
        }
        Some(())
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(cells) | Self::Json(cells) => Arc::new(cells.finish()),
            Self::Bool(cells) => Arc::new(cells.finish()),
            Self::Int(cells) => Arc::new(cells.finish()),
            Self::UInt(cells) => Arc::new(cells.finish()),
            Self::Float(cells) => Arc::new(cells.finish()),
            Self::Ints(cells) => Arc::new(cells.finish()),
            Self::Floats(cells) => Arc::new(cells.finish()),
            Self::Singles(cells) => Arc::new(cells.finish()),
        }
    }
}

/// The numbers of a list, none of no list; `None` if they have another type.
#[expect(clippy::option_option, reason = "an absent list, and one of another type")]
fn numbers<T: FromStr>(json: Option<&str>) -> Option<Option<Vec<Option<T>>>> {
    let Some(json) = json else { return Some(None) };
    let numbers: Option<Vec<_>> = items(json)?.map(|number| number.parse().ok().map(Some)).collect();
    numbers.map(Some)
}

impl From<ParquetError> for WriteError {
    fn from(error: ParquetError) -> Self {
        match error {
            ParquetError::External(source) => match source.downcast::<std::io::Error>() {
                Ok(io) => Self::Io(*io),
                Err(other) => Self::Library(other.to_string()),
            },
            other => Self::Library(other.to_string()),
        }
    }
}
