//! The types of columns, and files that are written and read again.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::metadata::RowGroupMetaData;

use super::types::ColumnType::{self, Bool, Float, Int, Json, Text};
use super::*;

fn columns(kept: Option<&[&str]>, rows: &[&str]) -> Vec<(String, ColumnType)> {
    let mut types = RowTypes::new(kept.map(|names| names.iter().map(ToString::to_string).collect()));
    rows.iter().for_each(|row| types.observe(row).unwrap());
    types.columns().into_iter().map(|column| (column.name, column.holds)).collect()
}

fn has(columns: &[(String, ColumnType)], name: &str, holds: ColumnType) {
    assert!(columns.contains(&(name.to_owned(), holds)), "{name}: {columns:?}");
}

#[test]
fn columns_have_the_types_of_all_rows() {
    let found = columns(
        Some(&["n", "id", "mixed", "absent"]),
        &[
            r#"{"query":0,"id":7,"label":"x","output":{"label":"a","score":1},"fields":{"n":true,"id":1,"mixed":1}}"#,
            r#"{"query":1,"id":8,"error":"no"}"#,
            r#"{"query":2,"id":9,"label":1,"output":{"score":0.5,"top":[{}]},"fields":{"mixed":"1","id":2}}"#,
        ],
    );
    has(&found, "id", Int);
    has(&found, "label", Json);
    has(&found, "output", Json);
    has(&found, "output.label", Text);
    has(&found, "output.score", Float);
    has(&found, "output.top", Json);
    has(&found, "n", Bool);
    has(&found, "fields.id", Int);
    has(&found, "mixed", Json);
    has(&found, "absent", Text);
}

#[test]
fn answers_have_fields_only_if_all_are_objects_of_few_fields() {
    let found = columns(None, &[r#"{"query":0,"output":{"a":1}}"#, r#"{"query":1,"output":"a"}"#]);
    has(&found, "output", Json);
    has(&found, "fields", Json);
    assert!(!found.iter().any(|(name, _)| name == "output.a"), "{found:?}");
    let many: Vec<String> = (0..=FIELDS_MAX).map(|n| format!("\"f{n}\":1")).collect();
    let many = format!("{{\"query\":0,\"output\":{{{}}}}}", many.join(","));
    assert_eq!(columns(Some(&[]), &[&many]).len(), 10);
    assert!(RowTypes::default().observe("nonsense").is_err());
}

#[test]
fn no_two_columns_have_one_name() {
    let found = columns(
        Some(&["fields.id", "id", "output.a"]),
        &[r#"{"query":0,"output":{"a":1},"fields":{"id":1}}"#],
    );
    let names: BTreeSet<&String> = found.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), found.len(), "{found:?}");
    has(&found, "fields.fields.id", Int);
    has(&found, "fields.output.a", Text);
}

fn written(kept: Option<&[&str]>, rows: &[String]) -> Vec<u8> {
    let mut types = RowTypes::new(kept.map(|names| names.iter().map(ToString::to_string).collect()));
    rows.iter().for_each(|row| types.observe(row).unwrap());
    let mut writer = ResultsWriter::new(Vec::new(), &types).unwrap();
    rows.iter().for_each(|row| writer.write(row).unwrap());
    writer.finish().unwrap()
}

fn batches(bytes: Vec<u8>) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).unwrap();
    reader.with_batch_size(1 << 20).build().unwrap().map(Result::unwrap).collect()
}

#[test]
fn rows_come_back_with_their_types() {
    let rows = [
        r#"{"query":0,"name":"d:1","id":18446744073709551615,"label":"a \"b\"","output":[0.5,-2],"model":"m","version":"v","worker":"w","attempt":1,"fields":{"n":1.5,"deep":{"b":1.10}}}"#,
        r#"{"query":1,"name":"d:2","id":1,"error":"no words"}"#,
        r#"{"query":2,"name":"d:3","id":2,"label":"c","output":[],"model":"m","version":"v","worker":"w","attempt":2,"fields":{"n":2,"deep":null}}"#,
    ]
    .map(String::from);
    let bytes = written(Some(&["n", "deep"]), &rows);
    assert_eq!(bytes, written(Some(&["n", "deep"]), &rows), "equal rows become equal bytes");
    let batch = &batches(bytes)[0];
    let column = |name: &str| Arc::clone(batch.column_by_name(name).unwrap());
    assert_eq!(column("query").as_primitive::<Int64Type>().values(), &[0, 1, 2]);
    assert_eq!(column("id").as_primitive::<UInt64Type>().values(), &[u64::MAX, 1, 2]);
    let label = column("label");
    let label: Vec<Option<&str>> = label.as_string::<i32>().iter().collect();
    assert_eq!(label, [Some("a \"b\""), None, Some("c")]);
    let output = column("output");
    let output = output.as_list::<i32>();
    assert_eq!(output.value(0).as_primitive::<Float32Type>().values(), &[0.5, -2.0]);
    assert!(output.is_null(1) && !output.is_null(2) && output.value(2).is_empty());
    assert_eq!(column("error").as_string::<i32>().value(1), "no words");
    assert!(column("n").is_null(1));
    assert_eq!(column("n").as_primitive::<Float64Type>().value(2).to_bits(), 2.0_f64.to_bits());
    assert_eq!(
        column("deep").as_string::<i32>().value(0),
        "{\"b\":1.10}",
        "what has no type stays as it was"
    );
}

#[test]
fn fields_of_answers_stand_beside_them() {
    let rows = [
        r#"{"query":0,"output":{"label":"a","score":0.25,"ok":true,"vector":[0.1]}}"#,
        r#"{"query":1,"output":{"label":"b","score":1}}"#,
    ]
    .map(String::from);
    let batch = batches(written(None, &rows)).remove(0);
    let column = |name: &str| Arc::clone(batch.column_by_name(name).unwrap());
    assert_eq!(column("output").as_string::<i32>().value(1), r#"{"label":"b","score":1}"#);
    assert_eq!(column("output.label").as_string::<i32>().value(1), "b");
    assert_eq!(column("output.score").as_primitive::<Float64Type>().values(), &[0.25, 1.0]);
    assert!(column("output.ok").as_boolean().value(0) && column("output.ok").is_null(1));
    assert_eq!(
        column("output.vector").as_list::<i32>().value(0).as_primitive::<Float64Type>().values(),
        &[0.1]
    );
}

#[test]
fn many_rows_become_row_groups_that_are_compressed() {
    let row =
        |query: usize| format!("{{\"query\":{query},\"name\":\"d:{query}\",\"output\":\"the same text\"}}");
    let rows: Vec<String> = (0..123_000).map(row).collect();
    let bytes = written(Some(&[]), &rows);
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).unwrap();
    let metadata = reader.metadata();
    let counts: Vec<i64> = metadata.row_groups().iter().map(RowGroupMetaData::num_rows).collect();
    assert_eq!(counts, [122_880, 120]);
    let chunk = metadata.row_group(0).column(4);
    assert!(matches!(chunk.compression(), Compression::ZSTD(_)), "{:?}", chunk.compression());
    assert!(metadata.file_metadata().created_by().unwrap().starts_with("idunno version "));
}

#[test]
fn a_row_that_was_not_observed_is_refused() {
    let mut types = RowTypes::new(None);
    types.observe(r#"{"query":0,"output":1}"#).unwrap();
    let mut writer = ResultsWriter::new(Vec::new(), &types).unwrap();
    let error = writer.write(r#"{"query":0,"output":"text"}"#).unwrap_err().to_string();
    assert!(error.contains("column 'output' has \"text\""), "{error}");
    assert!(writer.write("nonsense").is_err());
}
