//! What a worker does when queries, inputs or its model server fail.

use idunno_shared::ids::Digest;
use idunno_shared::wire::jobs::{FaultKind, QueryRange, ServerState};

use super::{Scene, committed, lease};

#[tokio::test]
async fn a_bad_row_is_reported_before_the_rest_is_committed() {
    let scene = Scene::new().await;
    let grant = scene.grant(10, &["x", "bad", "x", "x"]);
    scene.coordinator.set(|book| book.grants.push_back(grant));
    scene.until("the rest is committed", |book| committed(book) == 1).await;
    let answered = [QueryRange { first: 10, count: 1 }, QueryRange { first: 12, count: 2 }];
    {
        let book = scene.coordinator.book();
        assert_eq!(book.order, ["failed", "commit"]);
        assert_eq!(book.commits[0].batches[0].answered, answered);
        let (failed, faults) = &book.failed[0];
        assert_eq!((*failed, faults.len()), (lease(10, 4), 1));
        assert_eq!(faults[0].ranges, [QueryRange { first: 11, count: 1 }]);
        assert_eq!((faults[0].kind, faults[0].reason.as_str()), (FaultKind::BadInput, "not an image"));
    }
    assert_eq!(scene.queries(), [10, 12, 13]);
    scene.stop().await;
}

#[tokio::test]
async fn a_refused_call_is_split_down_to_the_query_at_fault() {
    let scene = Scene::new().await;
    let grant = scene.grant(0, &["x", "x", "x", "x", "x", "poison", "x", "x"]);
    scene.coordinator.set(|book| book.grants.push_back(grant));
    scene.until("the rest is committed", |book| committed(book) == 1).await;
    assert_eq!(scene.queries(), [0, 1, 2, 3, 4, 6, 7]);
    assert_eq!(scene.coordinator.book().failed[0].1[0].ranges, [QueryRange { first: 5, count: 1 }]);
    assert_eq!(scene.server.calls("/infer"), 7, "two calls a halving and the first");
    assert_eq!(scene.coordinator.book().commits[0].batches[0].refused, 0, "it was not too much");
    scene.stop().await;
}

#[tokio::test]
async fn what_is_too_much_at_once_is_halved_and_told() {
    let scene = Scene::new().await;
    scene.server.set(|script| script.inputs_max = 2);
    let grant = scene.grant(0, &["x"; 8]);
    scene.coordinator.set(|book| book.grants.push_back(grant));
    scene.until("all is committed", |book| committed(book) == 1).await;
    {
        let book = scene.coordinator.book();
        assert!(book.failed.is_empty(), "{:?}", book.failed);
        let batch = &book.commits[0].batches[0];
        assert_eq!((batch.refused, batch.local), (8, 8), "the memory's blobs are at hand");
    }
    scene.stop().await;
}

#[tokio::test]
async fn a_failing_model_is_reported_as_such_and_nothing_is_committed() {
    let scene = Scene::new().await;
    scene.server.set(|script| script.infer_status = 500);
    let grant = scene.grant(0, &["x", "x"]);
    scene.coordinator.set(|book| book.grants.push_back(grant));
    scene.until("the failure is told", |book| book.failed.len() == 1).await;
    scene.until("the lease is over", |book| book.reports.last().unwrap().leases.is_empty()).await;
    {
        let book = scene.coordinator.book();
        let fault = &book.failed[0].1[0];
        assert_eq!(
            (fault.kind, &fault.ranges[..]),
            (FaultKind::Inference, &[QueryRange { first: 0, count: 2 }][..])
        );
        assert!(
            fault.reason.contains("500") && fault.reason.contains("as the test says"),
            "{}",
            fault.reason
        );
        assert!(book.commits_asked.is_empty());
    }
    scene.stop().await;
}

#[tokio::test]
async fn a_large_batch_goes_in_several_calls_and_fails_in_parts() {
    let scene = Scene::new().await;
    let half = "x".repeat(20);
    let mut grant = scene.grant(0, &[&half, &half, &half, "bad", &"x".repeat(41), &half, &half]);
    grant.inputs[5].extents[0].blob.digest = Digest::of(b"never stored");
    scene.coordinator.set(|book| book.grants.push_back(grant));
    scene.until("the rest is committed", |book| committed(book) == 1).await;
    assert_eq!(scene.queries(), [0, 1, 2, 4, 6]);
    assert_eq!(scene.server.calls("/infer"), 4, "0 to 1, 2 to 3, 4 alone, 5 to 6");
    let faults = scene.coordinator.book().failed[0].1.clone();
    let faults: Vec<_> = faults.iter().map(|fault| (fault.kind, fault.ranges[0].first)).collect();
    assert_eq!(faults, [(FaultKind::BadInput, 3), (FaultKind::Fetch, 5)]);
    scene.stop().await;
}

#[tokio::test]
async fn an_input_that_cannot_be_read_fails_alone() {
    let scene = Scene::new().await;
    let mut grant = scene.grant(0, &["x", "x"]);
    grant.inputs[0].extents[0].blob.digest = Digest::of(b"never stored");
    scene.coordinator.set(|book| book.grants.push_back(grant));
    scene.until("the rest is committed", |book| committed(book) == 1).await;
    assert_eq!(scene.queries(), [1]);
    assert_eq!(scene.coordinator.book().failed[0].1[0].kind, FaultKind::Fetch);
    scene.stop().await;
}

#[tokio::test]
async fn a_server_that_goes_away_is_the_workers_fault_and_comes_back_with_its_models() {
    let mut scene = Scene::new().await;
    let first = scene.grant(0, &["x"]);
    scene.coordinator.set(|book| book.grants.push_back(first));
    scene.until("a batch is committed", |book| committed(book) == 1).await;
    scene.server.hold(true);
    let grants = [scene.grant(1, &["x"]), scene.grant(2, &["x"])];
    scene.coordinator.set(|book| book.grants.extend(grants));
    scene.until_called("/infer", 2).await;
    scene.until("one is prefetched", |book| book.granted.len() == 3).await;
    scene.server.crash().await;
    scene.until("both are given back", |book| book.failed.len() == 2).await;
    scene
        .until("it is told", |book| {
            let report = book.reports.last().unwrap();
            matches!(report.server, ServerState::Down(_)) && report.wanted == 0 && report.models.is_empty()
        })
        .await;
    let kinds: Vec<_> = scene.coordinator.book().failed.iter().map(|(_, faults)| faults[0].kind).collect();
    assert!(kinds.contains(&FaultKind::Worker), "the one that had not begun: {kinds:?}");

    scene.server.hold(false);
    scene.server.listen().await;
    let again = scene.grant(1, &["x"]);
    scene.coordinator.set(|book| book.grants.push_back(again));
    scene.until("work goes on", |book| committed(book) == 2).await;
    assert_eq!(scene.queries(), [0, 1]);
    assert_eq!(scene.server.calls("/load"), 2, "loaded again");
    scene.stop().await;
}

#[tokio::test]
async fn a_server_that_hangs_is_taken_anew_when_the_coordinator_says_so() {
    let scene = Scene::new().await;
    scene.server.hold(true);
    let (runs, waits) = (scene.grant(0, &["x", "x"]), scene.grant(2, &["x", "x"]));
    scene.coordinator.set(|book| book.grants.extend([runs, waits]));
    scene
        .until("one runs", |book| book.reports.last().is_some_and(|report| report.running_ms.is_some()))
        .await;
    let readied = scene.server.calls("repository/index");
    scene.coordinator.set(|book| {
        book.cancelled = vec![lease(0, 2)];
        book.restart = Some("it hangs".to_owned());
    });
    scene.until("the one that waits is given back", |book| book.failed.len() == 1).await;
    scene.until_called("repository/index", readied + 1).await;
    scene.until("nothing is held", |book| book.reports.last().unwrap().leases.is_empty()).await;
    {
        let book = scene.coordinator.book();
        let (given_back, faults) = &book.failed[0];
        assert_eq!((*given_back, faults[0].kind), (lease(2, 2), FaultKind::Worker));
        assert_eq!(faults[0].reason, "it hangs");
        assert!(book.commits_asked.is_empty());
    }
    scene.server.hold(false);
    scene.stop().await;
}
