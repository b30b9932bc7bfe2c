//! Jobs that run only what is new.

use std::time::Duration;

use idunno_shared::ids::JobId;
use idunno_shared::wire::control::{Change, JobView, Reuse, StartOptions};
use serde_json::Value;

use crate::backup::idunno;
use crate::harness::{LocalCluster, SlowServer, light, put_text};

const MODEL: &str = "mnist-mlp";
const JOB_LIMIT: Duration = Duration::from_secs(60);

/// Lines of records, each of which the server answers with the length of its input. Number 7 is no JSON.
fn lines(numbers: std::ops::Range<usize>) -> String {
    let line = |n: usize| match n {
        7 => String::from("{\"id\":7,\"input\":1e999}\n"),
        n => format!("{{\"id\":{n},\"input\":\"{}\"}}\n", "x".repeat(n + 1)),
    };
    numbers.map(line).collect()
}

/// Runs a job over a dataset to its end. Returns it with its rows, in the order of the queries.
async fn run(cluster: &LocalCluster, dataset: &str, reuse: Reuse) -> (JobView, Vec<Value>) {
    let job = cluster.add_job(MODEL, dataset, 16).await;
    cluster
        .change(Change::StartJob { job, options: StartOptions { reuse, ..StartOptions::default() } })
        .await;
    let view = cluster.finished(job, JOB_LIMIT).await;
    (view, rows(cluster, job))
}

fn rows(cluster: &LocalCluster, job: JobId) -> Vec<Value> {
    let path = cluster.scratch(&format!("{job}.jsonl"));
    idunno(cluster, &["get-job-results", &job.to_string(), path.to_str().unwrap()]).unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn origin(row: &Value) -> Option<&str> {
    row["reused_from"].as_str()
}

fn length(row: &Value) -> Option<u64> {
    row["output"]["top5"][0]["index"].as_u64()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_answers_what_is_new_and_has_a_row_for_every_query() {
    let _turn = light().await;
    let server = SlowServer::start(Duration::from_millis(2)).await;
    let mut cluster = LocalCluster::start_at(5, &server).await;
    cluster.train(&[MODEL]).await;

    put_text(&cluster, "texts.jsonl", &lines(0..200)).await;
    let (first, _) = run(&cluster, "texts.jsonl", Reuse::On).await;
    assert_eq!((first.done, first.dead, first.tokens.reused), (199, 1, 0));
    assert_eq!(first.details.reuse, Reuse::On);

    // Records that are new before, behind and between those of before; and a machine fails.
    let text = lines(300..310) + &lines(0..100) + &lines(310..330) + &lines(100..200) + &lines(330..340);
    put_text(&cluster, "texts.jsonl", &text).await;
    cluster.kill(&[4]);
    let (second, found) = run(&cluster, "texts.jsonl", Reuse::On).await;
    assert_eq!((second.done, second.dead, second.tokens.reused), (239, 1, 199), "{second:?}");
    assert_eq!(second.details.reuse, Reuse::From(first.id));
    let expected = (300..310).chain(0..100).chain(310..330).chain(100..200).chain(330..340);
    assert!(found.iter().map(|row| row["id"].as_u64().unwrap()).eq(expected));
    let from = first.id.to_string();
    for row in found.iter().filter(|row| row["id"] != 7) {
        let id = row["id"].as_u64().unwrap();
        assert_eq!(length(row), Some(id + 1), "{row}");
        assert_eq!(origin(row), (id < 300).then_some(from.as_str()), "{row}");
    }

    // The next takes over from the second, also what that took over; if it is gone, from the one before.
    let (third, found) = run(&cluster, "texts.jsonl", Reuse::On).await;
    assert_eq!((third.tokens.reused, third.done), (239, 239));
    let from = second.id.to_string();
    assert_eq!(found.iter().filter(|row| origin(row) == Some(&from)).count(), 239);
    for job in [third.id, second.id] {
        cluster.change(Change::DeleteJob { job }).await;
    }
    let (fourth, _) = run(&cluster, "texts.jsonl", Reuse::On).await;
    assert_eq!((fourth.tokens.reused, fourth.done), (199, 239));
    let (plain, found) = run(&cluster, "texts.jsonl", Reuse::Off).await;
    assert_eq!((plain.tokens.reused, plain.done), (0, 239));
    assert!(found.iter().all(|row| row["digest"].is_null()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_renamed_is_not_new_and_one_that_was_changed_is() {
    let _turn = light().await;
    let server = SlowServer::start(Duration::from_millis(2)).await;
    let cluster = LocalCluster::start_at(3, &server).await;
    cluster.train(&[MODEL]).await;
    for (name, text) in [("a", "one"), ("b", "three"), ("c", "fourteen chars")] {
        put_text(&cluster, &format!("set/{name}.txt"), text).await;
    }
    run(&cluster, "set", Reuse::On).await;
    put_text(&cluster, "set/b.txt", "other").await;
    put_text(&cluster, "set/labels.csv", "file,label\nz.txt,3\nb.txt,3\n").await;
    idunno(&cluster, &["mv", "set/a.txt", "set/z.txt"]).unwrap();
    let (view, found) = run(&cluster, "set", Reuse::On).await;
    assert_eq!((view.done, view.tokens.reused, view.labelled, view.correct), (3, 2, 2, 1), "{view:?}");
    let found: Vec<_> =
        found.iter().map(|row| (row["name"].as_str().unwrap(), length(row), origin(row).is_some())).collect();
    assert_eq!(
        found,
        [("set/b.txt", Some(5), false), ("set/c.txt", Some(14), true), ("set/z.txt", Some(3), true)]
    );
}
