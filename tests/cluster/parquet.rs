//! Datasets and results in Parquet. The programs are built with the feature `parquet`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use idunno_shared::client::files::{NoProgress, PutItem, PutOptions};
use idunno_shared::ids::JobId;
use idunno_shared::wire::control::{Change, Changed, JobOptions, Selection, StartOptions};
use idunno_shared::wire::jobs::RecordFormat;
use idunno_shared::wire::records::{ColumnNames, Keep, ReadOptions};
use idunno_shared::wire::refusal::RefusalCode;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;

use crate::backup::idunno;
use crate::harness::{LocalCluster, SlowServer, assert_refused, light, name, put_text};

const MODEL: &str = "mnist-mlp";
const JOB_LIMIT: Duration = Duration::from_secs(60);
const ROWS: i64 = 500;
const GROUP_ROWS: usize = 70;

fn text(row: i64) -> Option<String> {
    // The server answers an input with its length.
    let length = usize::try_from(1 + row % 9).unwrap();
    (row % 100 != 7).then(|| "x".repeat(length))
}

/// A file of several row groups, with a column that nobody reads.
fn write(path: &Path) {
    let columns: [(&str, ArrayRef, bool); 5] = [
        (
            "unread",
            Arc::new(StringArray::from_iter_values((0..ROWS).map(|row| "y".repeat(400) + &row.to_string()))),
            true,
        ),
        ("key", Arc::new(Int64Array::from_iter_values((0..ROWS).map(|row| (1 << 53) + 1 + row))), true),
        ("stars", Arc::new(Int64Array::from_iter_values((0..ROWS).map(|row| 1 + row % 9))), true),
        (
            "price",
            Arc::new((0..ROWS).map(|row| (row % 2 == 0).then_some(0.5)).collect::<Float64Array>()),
            true,
        ),
        ("text", Arc::new((0..ROWS).map(text).collect::<StringArray>()), true),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(GROUP_ROWS)).build();
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// The same records as JSON lines.
fn lines() -> String {
    let line = |row: i64| {
        let price = if row % 2 == 0 { "0.5" } else { "null" };
        let text = text(row).map_or_else(|| String::from("1e999"), |text| format!("\"{text}\""));
        format!(
            "{{\"text\":{text},\"key\":{},\"stars\":{},\"price\":{price}}}\n",
            (1_i64 << 53) + 1 + row,
            1 + row % 9
        )
    };
    (0..ROWS).map(line).collect()
}

/// The results of a job, as the command line writes them.
fn fetch(cluster: &LocalCluster, job: JobId, format: &str) -> PathBuf {
    let path = cluster.scratch(&format!("{job}.{format}"));
    let target = path.to_str().unwrap();
    idunno(cluster, &["get-job-results", &job.to_string(), target, "--format", format]).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parquet_file_is_a_data_set_and_results_are_those_of_json_lines() {
    let _turn = light().await;
    let server = SlowServer::start(Duration::from_millis(2)).await;
    let cluster = LocalCluster::start_at(3, &server).await;
    let path = cluster.scratch("reviews");
    write(&path);
    let item = PutItem { name: name("reviews.parquet"), path };
    cluster.files().put_files(vec![item], PutOptions::default(), &NoProgress).await.unwrap();
    put_text(&cluster, "reviews.jsonl", &lines()).await;
    put_text(&cluster, "cut.parquet", "PAR1 and no end").await;
    cluster.train(&[MODEL]).await;

    let column = |name: &str| Some(name.parse().unwrap());
    let columns = ColumnNames { input: column("text"), label: column("stars"), id: column("key") };
    let keep = Keep::Columns(vec!["price".parse().unwrap()]);
    let reading = ReadOptions { columns, keep, ..ReadOptions::default() };
    let options = JobOptions { reading, ..JobOptions::default() };
    let mut found = Vec::new();
    for dataset in ["reviews.parquet", "reviews.jsonl"] {
        let job = cluster.add_job_with(MODEL, dataset, 32, options.clone()).await;
        assert_eq!(cluster.start_job(job).await, 500);
        let view = cluster.finished(job, JOB_LIMIT).await;
        assert_eq!((view.done, view.dead, view.labelled, view.correct), (495, 5, 495, 495), "{view:?}");
        let text = std::fs::read_to_string(fetch(&cluster, job, "jsonl")).unwrap();
        let mut rows: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        // What differs between any two jobs, and the sentences of what failed.
        for row in rows.iter_mut().filter_map(serde_json::Value::as_object_mut) {
            ["name", "worker", "attempt"].iter().for_each(|key| _ = row.remove(*key));
            row.entry("error").and_modify(|error| *error = "failed".into());
        }
        found.push((job, rows));
    }
    assert_eq!(found[0].1, found[1].1);
    let job = found[0].0;
    let view = cluster.job(job).await.unwrap();
    let Some(RecordFormat::Parquet(layout)) = view.details.records.as_deref() else { panic!("{view:?}") };
    assert_eq!((layout.columns.input.as_ref().unwrap().as_str(), layout.keep.len()), ("text", 1));
    assert!(layout.row_bytes < 100, "the column that nobody reads does not count: {layout:?}");

    let file = File::open(fetch(&cluster, job, "parquet")).unwrap();
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(file).unwrap().with_batch_size(1_000).build().unwrap();
    let batch: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    assert_eq!(batch[0].num_rows(), 500);
    let column = |name: &str| batch[0].column_by_name(name).unwrap();
    for (row, expected) in found[0].1.iter().enumerate() {
        let int = |name: &str| {
            let column = column(name).as_primitive::<Int64Type>();
            (!column.is_null(row)).then(|| column.value(row))
        };
        assert_eq!(int("query"), expected["query"].as_i64());
        assert_eq!(int("id"), expected["id"].as_i64());
        assert_eq!(int("label"), expected["label"].as_i64());
        assert_eq!(column("error").is_null(row), expected.get("error").is_none());
    }

    // A part of it, from all row groups.
    let job = cluster.add_job_with(MODEL, "reviews.parquet", 32, options.clone()).await;
    let sample =
        StartOptions { selection: Selection::Sample(50.try_into().unwrap()), ..StartOptions::default() };
    cluster.change(Change::StartJob { job, options: sample }).await;
    let view = cluster.finished(job, JOB_LIMIT).await;
    assert_eq!(view.done + view.dead, 50, "{view:?}");

    let refused = cluster
        .client()
        .change(Change::start(cluster.add_job_with(MODEL, "cut.parquet", 32, options).await))
        .await;
    assert_refused(
        refused,
        &RefusalCode::Conflict,
        "dataset 'cut.parquet': it is no Parquet file, or its end is missing",
    );
    let refused =
        cluster.client().change(Change::start(cluster.add_job(MODEL, "reviews.parquet", 32).await)).await;
    assert_refused(refused, &RefusalCode::Conflict, "its columns are: unread (Utf8), key (Int64)");
}
