//! Failures of queries, inputs and the model server.

use idunno_shared::ids::Digest;
use idunno_shared::wire::blobs::{BlobRef, PlacedBlob};
use idunno_shared::wire::jobs::{FaultKind, Grant, ModelState, QueryRange, ServerState};

use super::super::testing::fake_coordinator::CoordinatorState;
use super::{Harness, MEASURED, committed, lease};

#[tokio::test]
async fn a_bad_row_is_reported_before_the_rest_is_committed() {
    let harness = Harness::new().await;
    let grant = harness.grant(10, &["x", "bad", "x", "x"]);
    harness.coordinator.set(|state| state.grants.push_back(grant));
    harness.until("the rest is committed", |state| committed(state) == 1).await;
    let answered = [QueryRange { first: 10, count: 1 }, QueryRange { first: 12, count: 2 }];
    {
        let state = harness.coordinator.state();
        assert_eq!(state.order, ["failed", "commit"]);
        assert_eq!(state.commits[0].batches[0].answered, answered);
        let (failed, faults) = &state.failed[0];
        assert_eq!((*failed, faults.len()), (lease(10, 4), 1));
        assert_eq!(faults[0].ranges, [QueryRange { first: 11, count: 1 }]);
        assert_eq!((faults[0].kind, faults[0].reason.as_str()), (FaultKind::BadInput, "not an image"));
    }
    assert_eq!(harness.queries(), [10, 12, 13]);
    harness.stop().await;
}

#[tokio::test]
async fn a_refused_call_is_halved_down_to_the_query_at_fault() {
    let harness = Harness::new().await;
    let calls = harness.measured().await;
    let grant = harness.grant(0, &["x", "x", "x", "x", "x", "poison", "x", "x"]);
    harness.coordinator.set(|state| state.grants.push_back(grant));
    harness.until("the rest is committed", |state| committed(state) == 2).await;
    assert_eq!(harness.queries(), [0, 1, 2, 3, 4, 6, 7, MEASURED]);
    assert_eq!(harness.coordinator.state().failed[0].1[0].ranges, [QueryRange { first: 5, count: 1 }]);
    assert_eq!(harness.server.calls("/infer") - calls, 7, "the first call and two per halving");
    assert_eq!(harness.coordinator.state().commits[1].batches[0].refused, 0, "the call was not too large");
    harness.stop().await;
}

#[tokio::test]
async fn the_tokens_of_answered_queries_are_committed() {
    let harness = Harness::new().await;
    harness.server.set(|state| state.counts_tokens = true);
    harness.measured().await;
    let grant = harness.grant(0, &["x", "bad", "xxx"]);
    harness.coordinator.set(|state| state.grants.push_back(grant));
    harness.until("the good ones are committed", |state| committed(state) == 2).await;
    let tokens = harness.coordinator.state().commits[1].batches[0].tokens;
    assert_eq!((tokens.prompt, tokens.completion), (4, 2));
    harness.stop().await;
}

#[tokio::test]
async fn a_call_that_is_too_large_is_halved_and_counted() {
    let harness = Harness::new().await;
    harness.server.set(|state| state.inputs_max = 2);
    harness.measured().await;
    let grant = harness.grant(0, &["x"; 8]);
    harness.coordinator.set(|state| state.grants.push_back(grant));
    harness.until("all is committed", |state| committed(state) == 2).await;
    {
        let state = harness.coordinator.state();
        assert!(state.failed.is_empty(), "{:?}", state.failed);
        let batch = &state.commits[1].batches[0];
        assert_eq!((batch.refused, batch.local), (8, 8), "the memory store counts as local");
    }
    harness.stop().await;
}

#[tokio::test]
async fn answers_that_are_too_long_together_are_halved_at_once_and_the_rest_is_given_back() {
    let harness = Harness::new().await;
    let calls = harness.measured().await;
    harness.server.set(|state| state.padding = 9 << 20);
    let grant = harness.grant(0, &["x"; 8]);
    harness.coordinator.set(|state| state.grants.push_back(grant));
    harness.until("what fits is committed", |state| committed(state) == 2).await;
    assert_eq!(harness.queries(), [0, 1, 2, MEASURED], "a batch of 32 MiB");
    assert_eq!(harness.server.calls("/infer") - calls, 4, "of 8, 4, and twice 2");
    {
        let state = harness.coordinator.state();
        assert!(state.failed.is_empty(), "no query is at fault: {:?}", state.failed);
        assert_eq!(state.commits[1].batches[0].refused, 8, "the next batch is smaller");
    }
    harness.until("the lease has ended", |state| state.reports.last().unwrap().leases.is_empty()).await;
    harness.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_too_long_by_itself_is_bad_at_the_first_try() {
    let harness = Harness::new().await;
    harness.server.set(|state| state.padding = 33 << 20);
    let grant = harness.grant(0, &["x"]);
    harness.coordinator.set(|state| state.grants.push_back(grant));
    harness.until("it is reported", |state| state.failed.len() == 1).await;
    {
        let state = harness.coordinator.state();
        let fault = &state.failed[0].1[0];
        assert_eq!(fault.kind, FaultKind::BadInput);
        assert!(fault.reason.contains("33554432"), "{}", fault.reason);
    }
    let ready = ModelState::Ready(Digest::of(super::WEIGHTS));
    assert_eq!(harness.view.borrow().models, [("m".parse().unwrap(), ready)], "the model is not at fault");
    harness.stop().await;
}

#[tokio::test]
async fn a_server_that_turns_calls_away_pauses_the_worker_and_blames_no_query() {
    for status in [401, 403] {
        let harness = Harness::new().await;
        harness.server.set(|state| state.infer_status = status);
        let grants = [harness.grant(0, &["x", "x"]), harness.grant(2, &["x", "x"])];
        harness.coordinator.set(|state| state.grants.extend(grants));
        harness.until("both are given back", |state| state.failed.len() == 2).await;
        harness
            .until("the reason is reported", |state| {
                let models = &state.reports.last().unwrap().models;
                matches!(models.first(), Some((_, ModelState::Failed(why))) if why.contains(&status.to_string()))
            })
            .await;
        {
            let state = harness.coordinator.state();
            let kinds = state.failed.iter().flat_map(|(_, faults)| faults).map(|fault| fault.kind);
            assert!(kinds.clone().all(|kind| kind == FaultKind::Worker), "{:?}", kinds.collect::<Vec<_>>());
        }
        harness.server.set(|state| state.infer_status = 200);
        let again = harness.grant(0, &["x", "x"]);
        harness.coordinator.set(|state| state.grants.push_back(again));
        harness.until("work continues", |state| committed(state) == 1).await;
        harness.stop().await;
    }
}

#[tokio::test]
async fn no_row_is_written_without_the_label_that_its_table_has() {
    let harness = Harness::new().await;
    let table = b"file,label\n0.jpg,1\n";
    let blob = PlacedBlob {
        blob: BlobRef { digest: Digest::of(table), size: table.len() as u64 },
        holders: Vec::new(),
    };
    let grant = Grant { labels: Some(vec![blob]), ..harness.grant(0, &["x"]) };
    let again = grant.clone();
    harness.coordinator.set(|state| state.grants.push_back(grant));
    harness.until("the batch is to be retried", |state| state.failed.len() == 1).await;
    {
        let state = harness.coordinator.state();
        let fault = &state.failed[0].1[0];
        assert_eq!(fault.kind, FaultKind::Fetch);
        assert!(fault.reason.contains("label table"), "{}", fault.reason);
        assert!(state.commit_attempts.is_empty());
    }
    harness.store.add(table);
    harness.coordinator.set(|state| state.grants.push_back(again));
    harness.until("the row is committed", |state| committed(state) == 1).await;
    assert_eq!(harness.rows()[0]["label"], "1");
    harness.stop().await;
}

#[tokio::test]
async fn a_failing_model_is_reported_and_nothing_is_committed() {
    let harness = Harness::new().await;
    harness.server.set(|state| state.infer_status = 500);
    let grant = harness.grant(0, &["x", "x"]);
    harness.coordinator.set(|state| state.grants.push_back(grant));
    harness.until("the failure is reported", |state| state.failed.len() == 1).await;
    harness.until("the lease has ended", |state| state.reports.last().unwrap().leases.is_empty()).await;
    {
        let state = harness.coordinator.state();
        let fault = &state.failed[0].1[0];
        assert_eq!(
            (fault.kind, &fault.ranges[..]),
            (FaultKind::Inference, &[QueryRange { first: 0, count: 2 }][..])
        );
        assert!(
            fault.reason.contains("500") && fault.reason.contains("as the test says"),
            "{}",
            fault.reason
        );
        assert!(state.commit_attempts.is_empty());
    }
    harness.stop().await;
}

#[tokio::test]
async fn a_large_batch_is_sent_in_several_calls_and_fails_partially() {
    let harness = Harness::new().await;
    let calls = harness.measured().await;
    let half = "x".repeat(20);
    let mut grant = harness.grant(0, &[&half, &half, &half, "bad", &"x".repeat(41), &half, &half]);
    grant.inputs[5].extents[0].blob.digest = Digest::of(b"never stored");
    harness.coordinator.set(|state| state.grants.push_back(grant));
    harness.until("the rest is committed", |state| committed(state) == 2).await;
    assert_eq!(harness.queries(), [0, 1, 2, 4, 6, MEASURED]);
    assert_eq!(harness.server.calls("/infer") - calls, 4, "0 to 1, 2 to 3, 4 alone, 5 to 6");
    let faults = harness.coordinator.state().failed[0].1.clone();
    let faults: Vec<_> = faults.iter().map(|fault| (fault.kind, fault.ranges[0].first)).collect();
    assert_eq!(faults, [(FaultKind::BadInput, 3), (FaultKind::Fetch, 5)]);
    harness.stop().await;
}

#[tokio::test]
async fn an_input_that_cannot_be_read_fails_alone() {
    let harness = Harness::new().await;
    let mut grant = harness.grant(0, &["x", "x"]);
    grant.inputs[0].extents[0].blob.digest = Digest::of(b"never stored");
    harness.coordinator.set(|state| state.grants.push_back(grant));
    harness.until("the rest is committed", |state| committed(state) == 1).await;
    assert_eq!(harness.queries(), [1]);
    assert_eq!(harness.coordinator.state().failed[0].1[0].kind, FaultKind::Fetch);
    harness.stop().await;
}

#[tokio::test]
async fn a_crashed_server_is_the_workers_fault_and_gets_its_models_back() {
    let mut harness = Harness::new().await;
    let first = harness.grant(0, &["x"]);
    harness.coordinator.set(|state| state.grants.push_back(first));
    harness.until("a batch is committed", |state| committed(state) == 1).await;
    harness.server.hold(true);
    let grants = [harness.grant(1, &["x"]), harness.grant(2, &["x"])];
    harness.coordinator.set(|state| state.grants.extend(grants));
    harness.until_called("/infer", 2).await;
    harness.until("one is prefetched", |state| state.granted.len() == 3).await;
    harness.server.crash().await;
    harness.until("both are given back", |state| state.failed.len() == 2).await;
    harness
        .until("it is reported", |state| {
            let report = state.reports.last().unwrap();
            matches!(report.server, ServerState::Down(_)) && report.wanted == 0 && report.models.is_empty()
        })
        .await;
    let kinds: Vec<_> = harness.coordinator.state().failed.iter().map(|(_, faults)| faults[0].kind).collect();
    assert!(kinds.contains(&FaultKind::Worker), "the one that had not started: {kinds:?}");

    harness.server.hold(false);
    harness.server.listen().await;
    let again = harness.grant(1, &["x"]);
    harness.coordinator.set(|state| state.grants.push_back(again));
    harness.until("work continues", |state| committed(state) == 2).await;
    assert_eq!(harness.queries(), [0, 1]);
    assert_eq!(harness.server.calls("/load"), 2, "loaded again");
    harness.stop().await;
}

#[tokio::test]
async fn a_hanging_server_is_restarted_when_the_coordinator_orders_it() {
    let harness = Harness::new().await;
    harness.server.hold(true);
    let (runs, waits) = (harness.grant(0, &["x", "x"]), harness.grant(2, &["x", "x"]));
    harness.coordinator.set(|state| state.grants.extend([runs, waits]));
    harness
        .until("one runs", |state| state.reports.last().is_some_and(|report| report.running_ms.is_some()))
        .await;
    let readied = harness.server.calls("repository/index");
    harness.coordinator.set(|state| {
        state.cancelled = vec![lease(0, 2)];
        state.restart = Some("it hangs".to_owned());
    });
    harness.until_called("repository/index", readied + 1).await;
    harness.until("nothing is held", |state| state.reports.last().unwrap().leases.is_empty()).await;
    {
        let state = harness.coordinator.state();
        assert!(state.failed.is_empty(), "the one that waited is given back without a fault");
        assert!(state.commit_attempts.is_empty());
    }
    harness.server.hold(false);
    harness.stop().await;
}

/// The last report shows the model as failed, or as loading, while the server is ready.
fn is_without_the_model(state: &CoordinatorState) -> bool {
    let report = state.reports.last().unwrap();
    report.server == ServerState::Ready
        && !report.models.iter().any(|(_, model)| matches!(model, ModelState::Ready(_)))
}

#[tokio::test]
async fn a_process_that_ends_costs_the_rows_that_it_had_and_no_pause() {
    let harness = Harness::new().await;
    let calls = harness.measured().await;
    let load = harness.coordinator.state().load.clone();
    harness.coordinator.set(|state| state.load.clear());
    let crashing = harness.grant(0, &["x", "x", "x", "x", "x", "crash", "x", "x"]);
    let waits = harness.grant(8, &["x", "x"]);
    harness.coordinator.set(|state| state.grants.extend([crashing, waits]));
    harness.until("it is reported", |state| state.failed.len() == 1).await;
    {
        let state = harness.coordinator.state();
        let (failed, faults) = &state.failed[0];
        assert_eq!(*failed, lease(0, 8));
        let crashed: Vec<_> = faults.iter().map(|fault| (fault.kind, &fault.ranges[..])).collect();
        assert_eq!(crashed, [(FaultKind::Crash, &[QueryRange { first: 0, count: 8 }][..])]);
        assert_eq!(faults[0].reason, "it ended with SIGSEGV");
    }
    harness
        .until("the batch that waits is given back without a fault", |state| {
            is_without_the_model(state) && state.reports.last().unwrap().leases.is_empty()
        })
        .await;
    let shown = harness.coordinator.state().reports.last().unwrap().models.clone();
    assert_eq!(
        shown,
        [("m".parse().unwrap(), ModelState::Failed("it ended with SIGSEGV".to_owned()))],
        "it says why"
    );
    assert_eq!(harness.server.calls("/infer") - calls, 1);
    assert_eq!(harness.server.calls("repository/index"), 1, "the server was not restarted");

    // Another model of this worker would go on: the pull is not paused.
    let again = harness.grant(8, &["x", "x"]);
    harness.coordinator.set(|state| {
        state.load = load;
        state.grants.push_back(again);
    });
    harness.until("work continues", |state| committed(state) == 2).await;
    assert_eq!(harness.coordinator.state().failed.len(), 1, "nothing else failed");
    assert_eq!(harness.queries(), [8, 9, MEASURED]);
    harness.stop().await;
}

#[tokio::test]
async fn what_was_not_tried_when_a_process_ended_is_given_back() {
    let harness = Harness::new().await;
    harness.measured().await;
    let half = "x".repeat(20);
    let grant = harness.grant(0, &[&half, &half, &format!("crash{half}"), &half, &half, &half]);
    harness.coordinator.set(|state| state.grants.push_back(grant));
    harness.until("what was answered is committed", |state| committed(state) == 2).await;
    let failed: Vec<u64> = {
        let state = harness.coordinator.state();
        let ranges = state.failed[0].1.iter().flat_map(|fault| &fault.ranges);
        ranges.flat_map(|range| range.queries()).collect()
    };
    assert_eq!(failed.first(), Some(&2), "{failed:?}");
    assert!(failed.len() < 3, "the calls behind it were not made: {failed:?}");
    assert_eq!(harness.queries(), [0, 1, MEASURED]);
    harness.until("the lease has ended", |state| state.reports.last().unwrap().leases.is_empty()).await;
    harness.stop().await;
}

#[tokio::test]
async fn only_the_process_of_a_model_that_hangs_is_restarted_if_it_has_one() {
    let harness = Harness::new().await;
    harness.server.set(|state| state.has_runners = true);
    harness.server.hold(true);
    let runs = harness.grant(0, &["x", "x"]);
    harness.coordinator.set(|state| state.grants.push_back(runs));
    harness
        .until("it runs", |state| state.reports.last().is_some_and(|report| report.running_ms.is_some()))
        .await;
    harness.coordinator.set(|state| {
        state.cancelled = vec![lease(0, 2)];
        state.restart = Some("it hangs".to_owned());
    });
    harness.until_called("/restart", 1).await;
    harness.server.hold(false);
    let again = harness.grant(0, &["x", "x"]);
    harness.coordinator.set(|state| state.grants.push_back(again));
    harness.until("work continues", |state| committed(state) == 1).await;
    assert_eq!(harness.server.calls("repository/index"), 1, "the server was not restarted");
    assert_eq!(harness.server.calls("/load"), 2, "the model was waited for");
    assert!(harness.coordinator.state().failed.is_empty(), "no query is at fault");
    harness.stop().await;
}
