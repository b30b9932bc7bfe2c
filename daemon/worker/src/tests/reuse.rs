//! Answers that are taken over from an earlier job.

use idunno_shared::ids::{Digest, JobId};
use idunno_shared::wire::control::Reuse;
use idunno_shared::wire::jobs::{Grant, QueryRange, RecordFormat, RecordsGrant};
use serde_json::Value;

use super::{Harness, committed, lease};

const EARLIER: JobId = JobId(7);

/// A row of the earlier job: it answered the input with a text that says so.
fn earlier_row(query: u64, input: &str) -> String {
    let digest = Digest::of(input.as_bytes());
    format!(
        "{{\"query\":{query},\"name\":\"x\",\"digest\":\"{digest}\",\"output\":{{\"earlier\": 1.10, \"of\":\"{input}\"}}}}\n"
    )
}

fn range(first: u64, count: u32) -> QueryRange {
    QueryRange { first, count }
}

fn reusing(grant: Grant) -> Grant {
    Grant { reuse: Reuse::From(EARLIER), ..grant }
}

/// The job that each row's answer comes from, in the order of the queries.
fn origins(rows: &[Value]) -> Vec<Option<&str>> {
    rows.iter().map(|row| row["reused_from"].as_str()).collect()
}

#[tokio::test]
async fn only_inputs_that_no_earlier_job_answered_are_given_to_the_model() {
    let harness = Harness::new().await;
    let before = harness.measured().await;
    let rows = [earlier_row(3, "three"), earlier_row(4, "one"), earlier_row(5, "four")].concat();
    let dead = "{\"query\":6,\"name\":\"x\",\"error\":\"bad\"}\n";
    // The last row is of a query that another segment answered.
    harness.store.add_results(EARLIER, (rows + dead).as_bytes(), vec![range(1, 4), range(6, 1)]);
    harness.store.add_results(EARLIER, earlier_row(0, "five").as_bytes(), vec![range(0, 1)]);
    let grant = reusing(harness.grant(0, &["one", "two", "three", "four", "five"]));
    harness.coordinator.set(|state| state.grants.push_back(grant));
    harness.until("it is answered", |state| committed(state) == 2).await;

    let rows = harness.rows().split_off(1);
    let job = Some("job-7");
    assert_eq!(origins(&rows), [job, None, job, None, job]);
    assert_eq!(rows[0]["output"]["of"], "one");
    assert_eq!(rows[1]["output"]["top5"][0]["index"], 3, "the server answers with the length");
    assert_eq!((&rows[4]["name"], &rows[4]["output"]["of"]), (&"set/4.jpg".into(), &"five".into()));
    for (row, input) in rows.iter().zip(["one", "two", "three", "four", "five"]) {
        assert_eq!(row["digest"], Digest::of(input.as_bytes()).to_string());
    }
    let outcome = harness.coordinator.state().commits[1].batches[0].clone();
    assert_eq!((outcome.answered, outcome.tokens.reused, outcome.local), (vec![range(0, 5)], 3, 2));
    let asked = harness.server.set(|state| state.call_sizes[before..].iter().sum::<usize>());
    assert_eq!(asked, 2, "the other inputs are not even read");
    harness.stop().await;
}

#[tokio::test]
async fn records_are_recognised_by_their_inputs_and_keep_their_own_ids_and_labels() {
    let harness = Harness::new().await;
    harness.store.add_results(EARLIER, earlier_row(0, "bb").as_bytes(), vec![range(0, 1)]);
    let text = b"{\"input\":\"a\",\"id\":1}\n{\"input\":\"bb\",\"id\":2,\"label\":9}\n";
    let records = RecordsGrant {
        file: "texts.jsonl".parse().unwrap(),
        format: RecordFormat::Jsonl,
        extents: vec![harness.store.add(text)],
        skip_bytes: 0,
        bytes: text.len() as u64,
        skip: 0,
        line: 1,
        numbers: Vec::new(),
    };
    let grant = Grant { lease: lease(0, 2), records: Some(records), ..harness.grant(0, &[]) };
    harness.coordinator.set(|state| state.grants.push_back(reusing(grant)));
    harness.until("it is answered", |state| committed(state) == 1).await;
    let rows = harness.rows();
    assert_eq!(origins(&rows), [None, Some("job-7")]);
    assert_eq!(
        (&rows[1]["id"], &rows[1]["label"], &rows[1]["output"]["of"]),
        (&2.into(), &9.into(), &"bb".into())
    );
    let outcome = harness.coordinator.state().commits[0].batches[0].clone();
    assert_eq!((outcome.labelled, outcome.correct, outcome.tokens.reused), (1, 0, 1));
    harness.stop().await;
}

#[tokio::test]
async fn the_model_answers_what_can_no_longer_be_read() {
    for is_listed in [false, true] {
        let harness = Harness::new().await;
        if is_listed {
            let segment =
                harness.store.add_results(EARLIER, earlier_row(0, "one").as_bytes(), vec![range(0, 1)]);
            harness.store.lose(&segment);
        }
        let grant = reusing(harness.grant(0, &["one", "two"]));
        harness.coordinator.set(|state| state.grants.push_back(grant));
        harness.until("it is answered", |state| committed(state) == 1).await;
        let rows = harness.rows();
        assert_eq!(origins(&rows), [None, None]);
        assert_eq!(rows[0]["digest"], Digest::of(b"one").to_string(), "a later job may take it over");
        assert!(harness.coordinator.state().failed.is_empty());
        harness.stop().await;
    }
}

#[tokio::test]
async fn rows_have_digests_only_if_they_are_asked_for() {
    let harness = Harness::new().await;
    let with = Grant { reuse: Reuse::On, ..harness.grant(0, &["one"]) };
    let without = harness.grant(1, &["one"]);
    harness.coordinator.set(|state| state.grants.extend([with, without]));
    harness.until("both are answered", |state| committed(state) == 2).await;
    let mut rows = harness.rows();
    rows.sort_by_key(|row| row["query"].as_u64());
    assert_eq!(rows[0]["digest"], Digest::of(b"one").to_string());
    assert_eq!((&rows[1]["digest"], &rows[0]["reused_from"]), (&Value::Null, &Value::Null));
    harness.stop().await;
}

#[tokio::test]
async fn when_the_model_fails_what_needs_no_model_is_answered_all_the_same() {
    let harness = Harness::new().await;
    harness.measured().await;
    let rows = [earlier_row(0, "one"), earlier_row(1, "three")].concat();
    harness.store.add_results(EARLIER, rows.as_bytes(), vec![range(0, 2)]);
    let grant = reusing(harness.grant(0, &["one", "poison", "three"]));
    harness.coordinator.set(|state| state.grants.push_back(grant));
    harness.until("it is answered", |state| committed(state) == 2).await;
    let outcome = harness.coordinator.state().commits[1].batches[0].clone();
    assert_eq!(outcome.answered, [range(0, 1), range(2, 1)]);
    assert_eq!(harness.coordinator.state().failed[0].1[0].ranges, [range(1, 1)]);
    harness.stop().await;
}
