//! Datasets in one file, operations on jobs over them, and merged result files.

use std::collections::BTreeMap;
use std::time::Duration;

use idunno_shared::client::cluster::ClusterError;
use idunno_shared::client::files::NoProgress;
use idunno_shared::ids::JobId;
use idunno_shared::wire::control::{
    Change, Changed, ControlReply, ControlRequest, JobOptions, JobState, JobView,
};
use idunno_shared::wire::jobs::RecordFormat;
use idunno_shared::wire::records::{ColumnNames, Keep, ReadOptions};
use serde_json::{Value, json};

use crate::harness::{LocalCluster, SOON, SlowServer, assert_refused, light, name, put_text};

const MODEL: &str = "mnist-mlp";
const JOB_LIMIT: Duration = Duration::from_secs(60);

/// The rows of a job's file in the store, which is made soon after the job is done.
async fn filed(cluster: &LocalCluster, job: JobId, version: u64) -> Vec<Value> {
    let path = cluster.scratch("results");
    let file = name(&format!("results/{job}.jsonl"));
    cluster
        .eventually(&format!("{file} has version {version}"), SOON, async || {
            let view = cluster.job(job).await?;
            let results = view.details.results.ok_or("the results are not merged yet")?;
            let got = cluster.files().get_file(&results, None, &path, &NoProgress).await;
            let got = got.map_err(|error| error.to_string())?;
            if got.version == version { Ok(()) } else { Err(format!("version {}", got.version)) }
        })
        .await;
    let text = std::fs::read_to_string(&path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The server answers an input with its length; some labels say so, some do not.
fn lines(count: usize) -> String {
    let line = |n: usize| {
        let (input, label) = ("x".repeat(1 + n % 9), if n.is_multiple_of(10) { 99 } else { 1 + n % 9 });
        format!("{{\"id\":\"r{n}\",\"input\":\"{input}\",\"label\":{label}}}\n")
    };
    let lines: Vec<String> = (0..count)
        .map(|n| if n == 7 { "{\"id\":\"r7\",\"label\":8,\"input\":1e999}\n".to_owned() } else { line(n) })
        .collect();
    lines.concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_is_a_data_set_and_results_become_one_file() {
    let _turn = light().await;
    let server = SlowServer::start(Duration::from_millis(2)).await;
    let cluster = LocalCluster::start_at(3, &server).await;
    put_text(&cluster, "texts.jsonl", &lines(500)).await;
    put_text(&cluster, "texts.csv", "label,input\n3,abc\n4,\"a\nbc\"\n9,x\n").await;
    cluster.train(&[MODEL]).await;

    let options = JobOptions {
        name: Some("nightly".parse().unwrap()),
        weight: Some(3),
        parameters: [("any".parse().unwrap(), String::from("thing"))].into(),
        ..JobOptions::default()
    };
    let job = cluster.add_job_with(MODEL, "texts.jsonl", 33, options.clone()).await;
    assert_eq!(cluster.start_job(job).await, 500);
    let again = cluster.change(Change::start(job)).await;
    assert!(matches!(again, Changed::StartedBefore { submitted: 500, .. }), "{again:?}");
    let view = cluster.finished(job, JOB_LIMIT).await;
    assert_eq!((view.done, view.dead, view.labelled, view.correct), (499, 1, 499, 449), "{view:?}");
    let rows = filed(&cluster, job, 1).await;
    assert!(rows.iter().map(|row| row["query"].as_u64().unwrap()).eq(0..500));
    let row = &rows[123];
    assert_eq!(
        (&row["name"], &row["id"], &row["label"]),
        (&"texts.jsonl:124".into(), &"r123".into(), &7.into())
    );
    assert_eq!(row["output"]["top5"][0]["index"], 7);
    assert!(rows[7]["error"].as_str().unwrap().starts_with("line 8 is not JSON"), "{}", rows[7]);
    assert_eq!((&rows[7]["id"], &rows[7]["label"]), (&"r7".into(), &8.into()), "also in a failed row");
    let committed = cluster.results(job).await;
    for row in rows.iter().filter(|row| row.get("output").is_some()) {
        assert_eq!(committed[&row["query"].as_u64().unwrap()].output, row["output"]);
    }
    assert_refused(
        cluster
            .client()
            .change(Change::AddJob {
                model: MODEL.parse().unwrap(),
                dataset: "x".parse().unwrap(),
                batch_size: 1.into(),
                options,
            })
            .await,
        &idunno_shared::wire::refusal::RefusalCode::Conflict,
        "nightly",
    );

    dead_letters_are_retried_or_dropped(&cluster, job).await;
    other_formats_and_batch_sizes_give_the_same_rows(&cluster, &committed).await;
    jobs_can_be_cancelled_and_deleted(&cluster, job).await;
}

async fn dead_letters_are_retried_or_dropped(cluster: &LocalCluster, job: JobId) {
    let retry = || Change::RetryDeadLetters { job, queries: vec![7] };
    assert_eq!(cluster.change(retry()).await, Changed::Retried { queries: 1 });
    let view = cluster.finished(job, JOB_LIMIT).await;
    assert_eq!((view.done, view.dead), (499, 1), "it is as bad as before");
    assert_eq!(filed(cluster, job, 2).await.len(), 500);
    let dropped = cluster.change(Change::DropDeadLetters { job, queries: vec![7] }).await;
    assert_eq!(dropped, Changed::Dropped { queries: 1 });
    let dead = cluster.dead_letters(job).await;
    assert!(dead.len() == 1 && dead[0].dropped && dead[0].name.as_str() == "texts.jsonl:8", "{dead:?}");
    assert!(matches!(cluster.client().change(retry()).await, Err(ClusterError::Refused(_))));
}

async fn other_formats_and_batch_sizes_give_the_same_rows(
    cluster: &LocalCluster,
    committed: &BTreeMap<u64, impl std::fmt::Debug>,
) {
    let small = cluster.add_job(MODEL, "texts.jsonl", 2).await;
    cluster.start_job(small).await;
    let csv = cluster.add_job(MODEL, "texts.csv", 8).await;
    assert_eq!(cluster.start_job(csv).await, 3);
    put_text(cluster, "two.list", "texts.csv\ntexts.jsonl\n").await;
    let list = cluster.add_job(MODEL, "two.list", 8).await;
    assert_eq!(cluster.start_job(list).await, 2);
    put_text(cluster, "bad.list", "texts.csv\nno/such.file\n").await;
    let bad = cluster.add_job(MODEL, "bad.list", 8).await;
    let refused = cluster.client().change(Change::start(bad)).await;
    assert_refused(refused, &idunno_shared::wire::refusal::RefusalCode::Conflict, "no/such.file");

    let view = cluster.finished(csv, JOB_LIMIT).await;
    assert_eq!((view.done, view.labelled, view.correct), (3, 3, 2), "{view:?}");
    cluster.finished(list, JOB_LIMIT).await;
    let names: Vec<String> = cluster.results(list).await.into_values().map(|row| row.name).collect();
    assert_eq!(names, ["texts.csv", "texts.jsonl"], "in the list's order");
    cluster.finished(small, JOB_LIMIT).await;
    results_outlive_their_segments_and_their_file(cluster, small).await;
    let rows = cluster.results(small).await;
    assert!(rows.keys().eq(committed.keys()));
    for (row, other) in rows.values().zip(committed.values()) {
        assert_eq!(format!("{row:?}"), format!("{other:?}"), "whatever the size of the batches");
    }
}

async fn results_outlive_their_segments_and_their_file(cluster: &LocalCluster, job: JobId) {
    let rows = cluster.results(job).await;
    filed(cluster, job, 1).await;
    let file = name(&format!("results/{job}.jsonl"));
    let request = ControlRequest::Locate { names: vec![file.clone()], version: None };
    let located = match cluster.client().control(request).await {
        Ok(ControlReply::Located(mut found)) => found.pop().flatten().unwrap(),
        other => cluster.fail(&format!("{other:?}")),
    };
    let segments = cluster.segments(job).await.unwrap();
    let extents: Vec<_> = located.extents.iter().map(|placed| placed.blob).collect();
    assert_eq!(segments.iter().map(|view| view.segment.blob).collect::<Vec<_>>(), extents);
    cluster.change(Change::Delete { name: file }).await;
    assert_eq!(cluster.results(job).await, rows, "read from what was the file");
}

async fn jobs_can_be_cancelled_and_deleted(cluster: &LocalCluster, job: JobId) {
    // A model that fails on every batch is no fault of the data.
    put_text(cluster, "break.jsonl", &"\"break\"\n".repeat(400)).await;
    let broken = cluster.add_job(MODEL, "break.jsonl", 2).await;
    cluster.start_job(broken).await;
    let paused = cluster
        .eventually("the job is paused", JOB_LIMIT, async || match cluster.job(broken).await? {
            JobView { state: JobState::Paused(why), .. } => Ok(why),
            view => Err(format!("{view:?}")),
        })
        .await;
    assert!(paused.contains("broken on purpose"), "{paused}");
    cluster.change(Change::CancelJob { job: broken }).await;
    let view = cluster.job(broken).await.unwrap();
    assert!(
        view.state == JobState::Cancelled && view.done == 0 && view.details.finished_ms.is_some(),
        "{view:?}"
    );
    let start = cluster.client().change(Change::start(broken)).await;
    assert_refused(start, &idunno_shared::wire::refusal::RefusalCode::Conflict, "cancelled");

    cluster.change(Change::DeleteJob { job }).await;
    assert!(cluster.job(job).await.unwrap_err().contains("no job-1"));
    let file = name("results/job-1.jsonl");
    let located = cluster.client().control(ControlRequest::Locate { names: vec![file], version: None }).await;
    assert!(matches!(&located, Ok(ControlReply::Located(found)) if found == &[None]), "{located:?}");
}

/// What stands beside the input comes back, whatever the dialect, and what cannot be records is refused at the start.
#[tokio::test(flavor = "multi_thread")]
async fn records_of_any_dialect_come_back_with_their_columns() {
    let _turn = light().await;
    let server = SlowServer::start(Duration::from_millis(2)).await;
    let cluster = LocalCluster::start_at(3, &server).await;
    let reviews = "\u{feff}key;text;stars;city\r\n1;\"a;b\";3;Köln\r\n02;cc;9\r\n3;d;1;Bonn;extra\r\n";
    put_text(&cluster, "Reviews.CSV", reviews).await;
    put_text(&cluster, "pretty.jsonl", "[\n  {\"input\": 1}\n]\n").await;
    cluster.train(&[MODEL]).await;

    let name = |name: &str| Some(name.parse().unwrap());
    let columns = ColumnNames { input: name("text"), label: name("stars"), id: name("key") };
    let reading = ReadOptions { columns, keep: Keep::All, ..ReadOptions::default() };
    let options = JobOptions { reading: reading.clone(), ..JobOptions::default() };
    let job = cluster.add_job_with(MODEL, "Reviews.CSV", 2, options.clone()).await;
    assert_eq!(cluster.start_job(job).await, 3);
    let view = cluster.finished(job, JOB_LIMIT).await;
    assert_eq!((view.done, view.dead, view.labelled, view.correct), (2, 1, 2, 1), "{view:?}");
    let Some(RecordFormat::Csv { layout, .. }) = view.details.records.as_deref() else { panic!("{view:?}") };
    assert_eq!((layout.delimiter, layout.header, layout.columns), (b';', true, 4));
    let rows = filed(&cluster, job, 1).await;
    assert_eq!((&rows[0]["fields"], &rows[0]["id"]), (&json!({"city": "Köln"}), &"1".into()));
    assert_eq!((&rows[1]["fields"], &rows[1]["id"]), (&json!({}), &"02".into()));
    let failed = json!({
        "query": 2, "name": "Reviews.CSV:3", "id": "3", "label": "1",
        "error": "line 4 has 5 columns, but the file has 4",
    });
    assert_eq!(rows[2], failed);

    for (dataset, options, says) in [
        ("Reviews.CSV", JobOptions::default(), "its only column 'key;text;stars;city' looks like several"),
        ("pretty.jsonl", JobOptions::default(), "line 1 begins a JSON document of several lines"),
        (
            "pretty.jsonl",
            JobOptions { reading: ReadOptions { no_header: true, ..reading }, ..options },
            "not CSV",
        ),
    ] {
        let job = cluster.add_job_with(MODEL, dataset, 2, options).await;
        let refused = cluster.client().change(Change::start(job)).await;
        assert_refused(refused, &idunno_shared::wire::refusal::RefusalCode::Conflict, says);
    }
    put_text(&cluster, "photos/1.jpg", "x").await;
    let refuse = async |options: JobOptions, says: &str| {
        let job = cluster.add_job_with(MODEL, "photos", 2, options).await;
        let refused = cluster.client().change(Change::start(job)).await;
        assert_refused(refused, &idunno_shared::wire::refusal::RefusalCode::Invalid, says);
    };
    let keep = ReadOptions { keep: Keep::All, ..ReadOptions::default() };
    refuse(JobOptions { reading: keep, ..JobOptions::default() }, "'photos' is no file of records").await;
    put_text(&cluster, "photos/labels.csv", "f\0i\0l\0e\0,\0").await;
    refuse(JobOptions::default(), "labels.csv: it has NUL bytes").await;
}
