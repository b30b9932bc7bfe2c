//! Files that are written and read again, and such that cannot be read.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::builder::{Int32Builder, ListBuilder, MapBuilder, StringBuilder};
use arrow_array::types::{Float64Type, Int32Type};
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array,
    Float64Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
    Time64MicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray, UInt64Array,
};
use arrow_schema::{DataType, Field, Fields};
use idunno_shared::names::ColumnName;
use idunno_shared::wire::records::{ColumnNames, Keep, ReadOptions};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::SchemaDescriptor;

use super::*;
use crate::FileParts;

fn name(name: &str) -> ColumnName {
    name.parse().unwrap()
}

fn options(input: Option<&str>, keep: Keep) -> ReadOptions {
    let columns = ColumnNames { input: input.map(name), ..ColumnNames::default() };
    ReadOptions { columns, keep, ..ReadOptions::default() }
}

/// A file of row groups of three rows.
fn file(columns: Vec<(&str, ArrayRef)>, compression: Compression) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    );
    let batch = batch.unwrap();
    let properties =
        WriterProperties::builder().set_max_row_group_row_count(Some(3)).set_compression(compression).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn texts(rows: Range<usize>) -> ArrayRef {
    Arc::new(rows.map(|row| Some(format!("text {row}"))).collect::<StringArray>())
}

fn ints(rows: Range<i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(rows))
}

/// Reads some rows, of the bytes that these need.
fn read(bytes: &[u8], options: &ReadOptions, rows: &[u64]) -> Vec<Row> {
    let footer = Footer::read(bytes).unwrap();
    let layout = footer.layout(options).unwrap();
    let mut parts = FileParts::of_file(bytes.len() as u64);
    for chunk in footer.chunks(&layout, rows) {
        let [start, end] = [chunk.start, chunk.end].map(|at| usize::try_from(at).unwrap());
        parts.add(chunk.start, Bytes::copy_from_slice(&bytes[start..end]));
    }
    footer.rows(&layout, rows, &parts)
}

fn input(row: &Row) -> String {
    match &row.input {
        Ok(input) => String::from_utf8_lossy(input).into_owned(),
        Err(error) => format!("error: {error}"),
    }
}

/// The only row's input, and the same column's JSON where it is kept.
fn value(array: impl arrow_array::Array + 'static) -> (String, String) {
    let array: ArrayRef = Arc::new(array);
    let bytes = file(vec![("x", Arc::clone(&array)), ("input", array)], Compression::SNAPPY);
    let row = read(&bytes, &options(None, Keep::Columns(vec![name("x")])), &[0]).remove(0);
    let fields = row.fields.clone().unwrap();
    serde_json::from_str::<serde_json::Value>(&fields).unwrap();
    let json = fields.strip_prefix("{\"x\":").unwrap().strip_suffix('}').unwrap();
    (input(&row), json.to_owned())
}

fn same(array: impl arrow_array::Array + 'static, json: &str) {
    assert_eq!(value(array), (json.to_owned(), json.to_owned()));
}

fn quoted(array: impl arrow_array::Array + 'static, text: &str) {
    assert_eq!(value(array), (text.to_owned(), format!("\"{text}\"")));
}

#[test]
fn numbers_keep_all_digits() {
    same(Int64Array::from(vec![i64::MIN]), "-9223372036854775808");
    same(UInt64Array::from(vec![u64::MAX]), "18446744073709551615");
    same(Int32Array::from(vec![-7]), "-7");
    same(Float32Array::from(vec![0.1]), "0.1");
    same(Float64Array::from(vec![1e300]), "1e+300");
    same(BooleanArray::from(vec![true]), "true");
    let decimal = |value: i128, scale: i8| {
        Decimal128Array::from(vec![value]).with_precision_and_scale(38, scale).unwrap()
    };
    same(
        decimal(12_345_678_901_234_567_890_123_456_789_012_345_678, 10),
        "1234567890123456789012345678.9012345678",
    );
    same(decimal(-5, 2), "-0.05");
}

#[test]
fn texts_bytes_dates_and_times_are_as_people_write_them() {
    assert_eq!(
        value(StringArray::from(vec!["a \"b\"\n"])),
        ("a \"b\"\n".into(), "\"a \\\"b\\\"\\n\"".into())
    );
    assert_eq!(value(BinaryArray::from_vec(vec![&b"\x00abc"[..]])), ("\0abc".into(), "\"AGFiYw==\"".into()));
    quoted(Date32Array::from(vec![19_844]), "2024-05-01");
    quoted(Time64MicrosecondArray::from(vec![45_296_500_000]), "12:34:56.500");
    quoted(TimestampNanosecondArray::from(vec![1_714_566_896_000_000_001]), "2024-05-01T12:34:56.000000001");
    quoted(
        TimestampMillisecondArray::from(vec![1_714_566_896_000]).with_timezone("UTC"),
        "2024-05-01T12:34:56Z",
    );
}

#[test]
fn lists_structs_and_maps_are_json_in_their_order() {
    same(
        ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None, Some(3)])]),
        "[1,null,3]",
    );
    let inner: ArrayRef = Arc::new(Int32Array::from(vec![Some(1)]));
    let list: ArrayRef =
        Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>([Some(vec![Some(0.5)])]));
    let fields = Fields::from(vec![
        Field::new("z", DataType::Int32, true),
        Field::new("a \"b\"", list.data_type().clone(), true),
    ]);
    same(StructArray::new(fields, vec![inner, list], None), "{\"z\":1,\"a \\\"b\\\"\":[0.5]}");
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    map.keys().append_value("k");
    map.values().append_null();
    map.append(true).unwrap();
    same(map.finish(), "{\"k\":null}");
    let mut nested = ListBuilder::new(ListBuilder::new(Int32Builder::new()));
    nested.values().values().append_value(1);
    nested.values().append(true);
    nested.append(true);
    same(nested.finish(), "[[1]]");
}

#[test]
fn what_json_does_not_have_is_null_and_no_input() {
    let (input, json) = value(Float64Array::from(vec![f64::NAN]));
    assert!(input.contains("row 1 has no input") && input.contains("NaN"), "{input}");
    assert_eq!(json, "null");
    let (input, json) =
        value(ListArray::from_iter_primitive::<Float64Type, _, _>([Some(vec![Some(f64::INFINITY)])]));
    assert!(input.contains("infinity"), "{input}");
    assert_eq!(json, "[null]");
}

#[test]
fn uuids_are_written_as_such() {
    let message =
        "message m { optional fixed_len_byte_array(16) id (UUID); optional binary input (STRING); }";
    let schema = SchemaDescriptor::new(Arc::new(parse_message_type(message).unwrap()));
    let id: Vec<u8> = (0..16).collect();
    let id: ArrayRef = Arc::new(FixedSizeBinaryArray::try_from_iter([id].into_iter()).unwrap());
    let text: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    let columns = [("id", id, true), ("input", text, true)];
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let options = ArrowWriterOptions::new().with_parquet_schema(schema).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), batch.schema(), options).unwrap();
    writer.write(&batch).unwrap();
    let bytes = writer.into_inner().unwrap();
    let rows = read(&bytes, &ReadOptions::default(), &[0]);
    assert_eq!(rows[0].id.as_deref(), Some("\"00010203-0405-0607-0809-0a0b0c0d0e0f\""));
}

#[test]
fn rows_of_several_groups_are_read_by_their_numbers() {
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(parquet::basic::GzipLevel::default()),
        Compression::BROTLI(parquet::basic::BrotliLevel::default()),
        Compression::LZ4_RAW,
        Compression::ZSTD(ZstdLevel::default()),
    ] {
        let labels: ArrayRef = Arc::new((0..10).map(|n| (n % 2 == 0).then_some(n)).collect::<Int64Array>());
        let bytes = file(
            vec![
                ("other", texts(50..60)),
                ("id", ints(100..110)),
                ("label", labels),
                ("input", texts(0..10)),
            ],
            compression,
        );
        let footer = Footer::read(&bytes).unwrap();
        let layout = footer.layout(&ReadOptions::default()).unwrap();
        assert_eq!(layout.columns.id, Some(name("id")));
        assert!(layout.row_bytes > 0 && layout.footer_bytes > 8);
        let groups = footer.groups(&layout, bytes.len() as u64).unwrap();
        let firsts: Vec<u64> = groups.iter().map(|group| group.first).collect();
        assert_eq!((firsts, footer.row_count()), (vec![0, 3, 6, 9], 10));
        assert!(groups.windows(2).all(|pair| pair[0].at < pair[1].at));
        // Only what these rows need is in memory: three columns of two groups.
        assert_eq!(footer.chunks(&layout, &[1, 2, 7]).len(), 6);
        let rows = read(&bytes, &ReadOptions::default(), &[1, 2, 7, 8]);
        let inputs: Vec<String> = rows.iter().map(input).collect();
        assert_eq!(inputs, ["text 1", "text 2", "text 7", "text 8"]);
        let ids: Vec<_> = rows.iter().map(|row| (row.id.as_deref().unwrap(), row.label.as_deref())).collect();
        assert_eq!(ids, [("101", None), ("102", Some("2")), ("107", None), ("108", Some("8"))]);
        assert_eq!(
            read(&bytes, &ReadOptions::default(), &[9, 10])[1].input,
            Err(RowError::Missing { row: 11 })
        );
    }
}

#[test]
fn nulls_are_no_input_and_null_where_they_are_kept() {
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
    let id: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(2)]));
    let bytes = file(vec![("input", Arc::clone(&text)), ("id", id), ("n", text)], Compression::SNAPPY);
    let rows = read(&bytes, &options(None, Keep::All), &[0, 1]);
    assert_eq!(input(&rows[1]), "error: row 2 has no input: its column 'input' is null");
    assert_eq!((rows[1].id.as_deref(), rows[1].fields.as_deref()), (Some("2"), Some("{\"n\":null}")));
}

#[test]
fn the_input_is_what_was_asked_for_or_what_can_only_be_it() {
    let layout = |columns: Vec<(&str, ArrayRef)>, options: &ReadOptions| {
        Footer::read(&file(columns, Compression::SNAPPY)).unwrap().layout(options)
    };
    let found =
        |columns, options: &ReadOptions| layout(columns, options).unwrap().columns.input.unwrap().to_string();
    let two = || vec![("a", texts(0..1)), ("Input", texts(0..1))];
    assert_eq!(found(two(), &ReadOptions::default()), "Input");
    assert_eq!(found(two(), &options(Some("A"), Keep::Nothing)), "a");
    assert_eq!(found(vec![("any", texts(0..1))], &ReadOptions::default()), "any");
    let missing = layout(vec![("a", texts(0..1)), ("b", ints(0..1))], &ReadOptions::default()).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "it has no column 'input'; its columns are: a (Utf8), b (Int64). --input-column names the input"
    );
    let kept = layout(two(), &options(None, Keep::Columns(vec![name("none")]))).unwrap_err();
    assert!(kept.to_string().contains("'none'"), "{kept}");
    let twice = layout(vec![("x", texts(0..1)), ("X", texts(0..1))], &options(Some("X"), Keep::Nothing));
    assert_eq!(twice.unwrap().columns.input, Some(name("X")), "the case decides");
}

#[test]
fn pictures_are_given_to_the_model_as_their_bytes() {
    let bytes: ArrayRef = Arc::new(BinaryArray::from_opt_vec(vec![Some(&b"\xff\xd8"[..]), None]));
    let path: ArrayRef = Arc::new(StringArray::from(vec![Some("a.jpg"), None]));
    let fields = Fields::from(vec![
        Field::new("bytes", DataType::Binary, true),
        Field::new("path", DataType::Utf8, true),
    ]);
    let image: ArrayRef = Arc::new(StructArray::new(fields, vec![bytes, path], None));
    let bytes = file(vec![("image", image), ("label", ints(0..2))], Compression::SNAPPY);
    let rows = read(&bytes, &ReadOptions::default(), &[0, 1]);
    assert_eq!(rows[0].input.as_deref(), Ok(&b"\xff\xd8"[..]));
    assert!(input(&rows[1]).contains("its column 'image' is null"), "{}", input(&rows[1]));
}

fn small(compression: Compression) -> Vec<u8> {
    file(vec![("input", texts(0..6))], compression)
}

#[test]
fn files_that_cannot_be_read_are_refused_in_one_sentence() {
    let good = small(Compression::SNAPPY);
    let refused = |bytes: &[u8]| Footer::read(bytes).map(|_| ()).unwrap_err().to_string();
    assert!(refused(&good[..good.len() - 4]).contains("its end is missing"));
    assert!(refused(b"").contains("its end is missing"));
    let footer = usize::try_from(footer_bytes(&good).unwrap()).unwrap();
    let cut = [&good[good.len() - footer..good.len() - footer / 2], &good[good.len() - 8..]].concat();
    assert!(Footer::read(&cut).is_err());
    let mut zeroed = good.clone();
    let at = good.len() - footer;
    zeroed[at..at + 20].fill(0xff);
    assert!(refused(&zeroed).starts_with("its footer cannot be read: "), "{}", refused(&zeroed));
    let encrypted = [&good[..good.len() - 4], b"PARE"].concat();
    assert!(refused(&encrypted).contains("it is encrypted"));
    let large = [&u32::MAX.to_le_bytes()[..], b"PAR1"].concat();
    assert!(refused(&large).contains("its footer has"), "{}", refused(&large));
}

/// The file with another codec in the metadata of its columns. Codecs are in field 4 of that, before the number of values.
fn with_codec(zigzag: u8) -> Vec<u8> {
    let mut bytes = small(Compression::ZSTD(ZstdLevel::default()));
    let footer = bytes.len() - usize::try_from(footer_bytes(&bytes).unwrap()).unwrap();
    let mut changed = 0;
    for at in footer..bytes.len() - 2 {
        if bytes[at..at + 3] == [0x15, 12, 0x16] {
            bytes[at + 1] = zigzag;
            changed += 1;
        }
    }
    assert_eq!(changed, 2, "one column of two row groups");
    bytes
}

#[test]
fn codecs_that_are_not_read_are_named() {
    let lzo = Footer::read(&with_codec(6)).unwrap().layout(&ReadOptions::default()).unwrap_err().to_string();
    assert!(lzo.contains("its column 'input' is compressed with LZO"), "{lzo}");
    let unknown = Footer::read(&with_codec(40)).unwrap_err().to_string();
    assert!(unknown.starts_with("its footer cannot be read: ") && unknown.contains("20"), "{unknown}");
}

#[test]
fn a_damaged_row_group_costs_its_own_rows_only() {
    let mut bytes = small(Compression::ZSTD(ZstdLevel::default()));
    let footer = Footer::read(&bytes).unwrap();
    let layout = footer.layout(&ReadOptions::default()).unwrap();
    let chunk = footer.chunks(&layout, &[3]).remove(0);
    let [start, end] = [chunk.start, chunk.end].map(|at| usize::try_from(at).unwrap());
    bytes[start..end].fill(0);
    let rows = read(&bytes, &ReadOptions::default(), &[2, 3, 4]);
    assert_eq!(input(&rows[0]), "text 2");
    assert!(input(&rows[1]).starts_with("error: row 4 cannot be read: row group 2: "), "{}", input(&rows[1]));
    assert!(input(&rows[2]).starts_with("error: row 5 cannot be read"), "{}", input(&rows[2]));
    // A file that is shorter than its footer says.
    let outside = footer.groups(&layout, footer_bytes(&bytes).unwrap() + 10).unwrap_err();
    assert!(matches!(outside, ReadError::Outside { group: 1 }), "{outside}");
}
