//! Pulling, running and reporting batches.

use idunno_shared::ids::{Digest, Term};
use idunno_shared::wire::jobs::{Grant, ModelState, QueryRange, RecordFormat, RecordsGrant, ServerState};

use super::super::testing::fake_coordinator::CoordinatorState;
use super::super::testing::fake_server::FakeServer;
use super::super::worker_task::HEARTBEAT;
use super::{Harness, WEIGHTS, committed, lease};

#[tokio::test]
async fn a_busy_worker_reports_its_leases_to_a_new_coordinator_at_once() {
    let harness = Harness::new().await;
    harness.server.hold(true);
    let grants = [harness.grant(0, &["one"]), harness.grant(1, &["two"])];
    harness.coordinator.set(|state| state.grants.extend(grants));
    let is_busy =
        |state: &CoordinatorState| state.reports.last().is_some_and(|report| report.leases.len() == 2);
    harness.until("a report with both leases", is_busy).await;
    let reports = harness.coordinator.state().reports.len();
    let changed = std::time::Instant::now();
    harness.coordinator_term.send_replace(Term(6));
    harness.until("another report", |state| state.reports.len() > reports).await;
    assert!(changed.elapsed() < HEARTBEAT / 2, "reported after {:?}; work waits for it", changed.elapsed());
    assert_eq!(harness.coordinator.state().reports[reports].leases.len(), 2);
}

#[tokio::test]
async fn batches_are_answered_counted_and_committed_once() {
    let harness = Harness::new().await;
    let labels = harness.store.add(b"file,label\n0.jpg,1\n1.jpg,99\nbroken\n5.jpg,3\n");
    let grants: Vec<Grant> = [0, 2, 4]
        .into_iter()
        .map(|first| Grant { labels: Some(vec![labels.clone()]), ..harness.grant(first, &["x", "xxx"]) })
        .collect();
    harness.coordinator.set(|state| state.grants.extend(grants));
    harness.until("all committed", |state| committed(state) == 3).await;
    assert_eq!(harness.queries(), [0, 1, 2, 3, 4, 5]);

    let row = harness.rows().into_iter().find(|row| row["query"] == 5).unwrap();
    assert_eq!(
        (&row["name"], &row["model"], &row["worker"]),
        (&"set/5.jpg".into(), &"m".into(), &"m3".into())
    );
    assert_eq!((&row["output"]["top5"][0]["index"], &row["attempt"]), (&3.into(), &1.into()));
    assert_eq!(row["version"], Digest::of(WEIGHTS).to_string());
    {
        let state = harness.coordinator.state();
        let outcomes: Vec<_> = state.commits.iter().flat_map(|commit| &commit.batches).collect();
        let labelled: u32 = outcomes.iter().map(|batch| batch.labelled).sum();
        let correct: u32 = outcomes.iter().map(|batch| batch.correct).sum();
        assert_eq!((labelled, correct), (3, 2));
        assert!(outcomes.iter().all(|batch| batch.inference_us > 0));
        assert!(state.commits.iter().all(|commit| harness.store.ended(commit.upload)));
        assert!(state.failed.is_empty());
    }
    assert_eq!(harness.server.set(|state| state.artefacts.values().next().unwrap().clone()), WEIGHTS);
    let ready = ModelState::Ready(Digest::of(WEIGHTS));
    assert_eq!(harness.view.borrow().models, [("m".parse().unwrap(), ready)]);
    assert_eq!(harness.view.borrow().server, ServerState::Ready);
    harness
        .until("leases are reported no longer", |state| state.reports.last().unwrap().leases.is_empty())
        .await;
    harness.stop().await;
}

#[tokio::test]
async fn the_first_call_of_an_unknown_model_has_one_query() {
    let harness = Harness::new().await;
    let contents = ["x", "xxx", "bad"];
    let grants = [harness.grant(0, &contents), harness.grant(3, &contents)];
    harness.coordinator.set(|state| state.grants.extend(grants));
    harness.until("both are committed", |state| committed(state) == 2).await;
    assert_eq!(harness.queries(), [0, 1, 3, 4]);
    assert_eq!(
        harness.server.set(|state| state.call_sizes.clone()),
        [1, 2, 3],
        "a failed row is measured, too"
    );
    harness.stop().await;
}

#[tokio::test]
async fn a_batch_is_not_late_while_a_row_takes_as_long_as_its_model_declares() {
    let server = FakeServer::start().await;
    server.set(|state| state.row_timeout_s = Some(600.0));
    let harness = Harness::with(server);
    harness.measured().await;
    let running = |state: &CoordinatorState| state.reports.last().and_then(|report| report.running_ms);
    harness.server.hold(true);
    let grant = harness.grant(0, &["x"]);
    harness.coordinator.set(|state| state.grants.push_back(grant));
    harness.until("it runs", |state| running(state).is_some()).await;
    let reports = harness.coordinator.state().reports.len();
    harness.until("two more reports", |state| state.reports.len() >= reports + 2).await;
    assert_eq!(running(&harness.coordinator.state()), Some(0), "it has run for over a second");
    harness.server.hold(false);
    harness.until("it is committed", |state| committed(state) == 2).await;
    harness.stop().await;
}

#[tokio::test]
async fn while_one_batch_runs_exactly_one_is_prefetched() {
    let harness = Harness::new().await;
    harness.server.hold(true);
    let grants: Vec<Grant> = (0..4).map(|first| harness.grant(first, &["x"])).collect();
    harness.coordinator.set(|state| state.grants.extend(grants));
    harness.until_called("/infer", 1).await;
    harness
        .until("both leases are renewed without another pull", |state| {
            state.reports.last().is_some_and(|report| report.leases.len() == 2 && report.wanted == 0)
        })
        .await;
    assert_eq!(harness.coordinator.state().granted, [lease(0, 1), lease(1, 1)]);
    assert_eq!(harness.server.calls("/infer"), 1, "one at a time");
    harness.server.hold(false);
    harness.until("all committed", |state| committed(state) == 4).await;
    harness.stop().await;
}

#[tokio::test]
async fn a_drain_returns_waiting_batches_and_commits_running_ones() {
    let harness = Harness::new().await;
    harness.server.hold(true);
    let grants = [harness.grant(0, &["x"]), harness.grant(1, &["x"]), harness.grant(2, &["x"])];
    harness.coordinator.set(|state| state.grants.extend(grants));
    harness.until_called("/infer", 1).await;
    harness.until("one is prefetched", |state| state.granted.len() == 2).await;
    harness.shutdown.cancel();
    harness
        .until("the waiting one is returned", |state| {
            let report = state.reports.last().unwrap();
            report.draining && report.wanted == 0 && report.leases == [lease(0, 1)]
        })
        .await;
    assert!(!harness.worker.is_finished());
    harness.server.hold(false);
    harness.until("what ran is committed", |state| committed(state) == 1).await;
    harness.until("the last report", |state| state.reports.last().unwrap().leases.is_empty()).await;
    assert_eq!(harness.queries(), [0]);
    assert_eq!(harness.coordinator.state().granted.len(), 2, "nothing more was granted");
    harness.stop().await;
}

#[tokio::test]
async fn records_of_a_file_are_answered_with_their_labels_and_parameters() {
    let harness = Harness::new().await;
    let text = b"{\"input\":\"a\",\"label\":1,\"id\":\"first\"}\n\"bb\"\n\n{\"input\":\"ccc\",\"label\":9}\n{\"id\":\"x\",\"label\":3,\"input\":1e999}\n";
    let (start, end) = text.split_at(30);
    let extents = vec![harness.store.add(start), harness.store.add(end)];
    let grant = Grant {
        lease: lease(0, 4),
        records: Some(RecordsGrant {
            file: "texts.jsonl".parse().unwrap(),
            format: RecordFormat::Jsonl,
            extents,
            skip_bytes: 0,
            bytes: text.len() as u64,
            skip: 0,
            line: 7,
            numbers: Vec::new(),
        }),
        parameters: [("labels".parse().unwrap(), String::from("2"))].into(),
        ..harness.grant(0, &[])
    };
    harness.coordinator.set(|state| state.grants.push_back(grant));
    harness.until("they are answered", |state| committed(state) == 1).await;
    {
        let state = harness.coordinator.state();
        let outcome = &state.commits[0].batches[0];
        assert_eq!(outcome.answered, [QueryRange { first: 0, count: 3 }]);
        assert_eq!((outcome.labelled, outcome.correct), (2, 1), "the answer is the input's length");
        let fault = &state.failed[0].1[0];
        assert!(fault.reason.starts_with("line 11 is not JSON: number out of range"), "{}", fault.reason);
        let identity = fault.identity(3);
        assert_eq!((identity.id.as_deref(), identity.label.as_deref()), (Some("\"x\""), Some("3")));
    }
    let rows = harness.rows();
    assert_eq!(
        (&rows[0]["name"], &rows[0]["id"], &rows[0]["label"]),
        (&"texts.jsonl:1".into(), &"first".into(), &1.into())
    );
    assert_eq!(
        (&rows[2]["name"], &rows[2]["output"]["top5"][0]["index"]),
        (&"texts.jsonl:3".into(), &3.into())
    );
    assert_eq!(harness.server.set(|state| state.parameters.clone())["labels"], "2");
    harness.stop().await;
}

#[tokio::test]
async fn of_records_with_gaps_between_them_the_batch_answers_its_own() {
    let harness = Harness::new().await;
    let text = b"\"a\"\n\"bb\"\n\"ccc\"\n\"dddd\"\n\"eeeee\"\n";
    let records = RecordsGrant {
        file: "texts.jsonl".parse().unwrap(),
        format: RecordFormat::Jsonl,
        extents: vec![harness.store.add(text)],
        skip_bytes: 0,
        bytes: text.len() as u64,
        skip: 1,
        line: 1,
        numbers: vec![11, 12, 14],
    };
    let grant = Grant { lease: lease(0, 3), records: Some(records), ..harness.grant(0, &[]) };
    harness.coordinator.set(|state| state.grants.push_back(grant));
    harness.until("they are answered", |state| committed(state) == 1).await;
    let rows = harness.rows();
    let row = |row: &serde_json::Value| {
        (row["query"].clone(), row["name"].clone(), row["output"]["top5"][0]["index"].clone())
    };
    let expected = [(0, "texts.jsonl:12", 2), (1, "texts.jsonl:13", 3), (2, "texts.jsonl:15", 5)];
    assert_eq!(
        rows.iter().map(row).collect::<Vec<_>>(),
        expected.map(|(query, name, bytes)| (query.into(), name.into(), bytes.into()))
    );
    harness.stop().await;
}

#[tokio::test]
async fn an_idle_worker_keeps_no_input_in_memory() {
    let harness = Harness::new().await;
    let text = b"\"a\"\n\"bb\"\n";
    let extent = harness.store.add(text);
    let records = RecordsGrant {
        file: "texts.jsonl".parse().unwrap(),
        format: RecordFormat::Jsonl,
        extents: vec![extent.clone()],
        skip_bytes: 0,
        bytes: text.len() as u64,
        skip: 0,
        line: 0,
        numbers: Vec::new(),
    };
    let grant = Grant { lease: lease(0, 2), records: Some(records), ..harness.grant(0, &[]) };
    harness.server.hold(true);
    harness.coordinator.set(|state| state.grants.push_back(grant));
    harness.until_called("/infer", 1).await;
    assert!(!harness.store.is_unique(&extent.blob.digest), "cached for the next batch");
    harness.server.hold(false);
    harness.until("it is answered", |state| committed(state) == 1).await;
    harness.until("the memory is freed", |_| harness.store.is_unique(&extent.blob.digest)).await;
    harness.stop().await;
}

#[tokio::test]
async fn orders_of_an_older_term_are_ignored() {
    let harness = Harness::new().await;
    let first = harness.grant(0, &["x"]);
    harness.coordinator.set(|state| state.grants.push_back(first));
    harness.until("a batch of term 5", |state| committed(state) == 1).await;
    let stale = harness.grant(1, &["x"]);
    harness.coordinator.set(|state| {
        state.term = 4;
        state.grants.push_back(stale);
    });
    harness.until("the stale grant is delivered", |state| state.granted.len() == 2).await;
    let reports = harness.coordinator.state().reports.len();
    harness.until("two more reports", |state| state.reports.len() >= reports + 2).await;
    assert!(harness.coordinator.state().reports.last().unwrap().leases.is_empty(), "not accepted");
    let good = harness.grant(2, &["x"]);
    harness.coordinator.set(|state| {
        state.term = 6;
        state.grants.push_back(good);
    });
    harness.until("a batch of term 6", |state| committed(state) == 2).await;
    assert_eq!(harness.queries(), [0, 2]);
    harness.stop().await;
}
