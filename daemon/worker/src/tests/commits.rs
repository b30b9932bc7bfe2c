//! Segments on their way to the coordinator: cancellation, failover, refusal.

use idunno_shared::wire::jobs::Grant;
use idunno_shared::wire::refusal::RefusalCode;

use super::super::testing::fake_coordinator::CommitReply;
use super::{Harness, committed, lease};

#[tokio::test]
async fn cancelled_rows_waiting_for_a_commit_are_dropped() {
    let harness = Harness::new().await;
    let mut grants: Vec<Grant> = (0..4).map(|first| harness.grant(first, &["x"])).collect();
    let after = grants.pop();
    let first = grants.remove(0);
    harness.coordinator.set(|state| {
        state.commit_replies.push_back(CommitReply::Held);
        state.grants.push_back(first);
    });
    harness.until("a segment hangs", |state| state.commit_attempts.len() == 1).await;
    harness.coordinator.set(|state| state.grants.extend(grants));
    harness
        .until("the others have run and wait", |state| {
            state.reports.last().is_some_and(|report| report.leases.len() == 3 && report.wanted == 2)
        })
        .await;
    harness.coordinator.set(|state| {
        state.cancelled.extend((0..3).map(|first| lease(first, 1)));
        state.grants.extend(after);
    });
    harness.until("the next is committed", |state| committed(state) == 1).await;
    assert_eq!(harness.queries(), [3]);
    harness.stop().await;
}

#[tokio::test]
async fn a_segment_stays_in_flight_while_one_of_its_batches_is_wanted() {
    let harness = Harness::new().await;
    let grants: Vec<Grant> = (0..3).map(|first| harness.grant(first, &["x"])).collect();
    let [both @ .., after] = &grants[..] else { panic!("three") };
    harness.coordinator.set(|state| {
        state.commit_replies.push_back(CommitReply::Held);
        state.grants.extend(both.to_vec());
    });
    harness.until("both hang", |state| state.commit_attempts.iter().any(|it| it.batches.len() == 2)).await;
    harness.coordinator.set(|state| {
        state.cancelled.push(lease(0, 1));
        state.grants.push_back(after.clone());
    });
    harness
        .until("the last has run and waits", |state| {
            state.reports.last().is_some_and(|it| it.leases == [lease(1, 1), lease(2, 1)] && it.wanted == 2)
        })
        .await;
    assert_eq!(harness.coordinator.state().commit_attempts.len(), 1, "no second commit is in flight");
    harness.coordinator.set(|state| state.cancelled.push(lease(1, 1)));
    harness.until("the last is committed", |state| committed(state) == 1).await;
    assert_eq!(harness.queries(), [2]);
    harness.stop().await;
}

#[tokio::test]
async fn a_commit_survives_a_failover_with_a_new_upload_and_the_same_rows() {
    let harness = Harness::new().await;
    let grant = harness.grant(0, &["x", "x"]);
    harness.coordinator.set(|state| {
        state
            .commit_replies
            .extend([CommitReply::Unreachable, CommitReply::Refused(RefusalCode::UploadOver)]);
        state.grants.push_back(grant);
    });
    harness.until("it is committed", |state| committed(state) == 1).await;
    harness.until("the lease has ended", |state| state.reports.last().unwrap().leases.is_empty()).await;
    {
        let state = harness.coordinator.state();
        let uploads: Vec<_> = state.commit_attempts.iter().map(|commit| commit.upload.number).collect();
        assert_eq!(uploads, [1, 1, 2]);
        let digests: Vec<_> = state.commit_attempts.iter().map(|commit| commit.segment.blob.digest).collect();
        assert!(digests.iter().all(|digest| *digest == digests[0]));
        let held: Vec<_> = state.reports.iter().map(|report| report.leases.len()).collect();
        let reported = held.iter().skip_while(|held| **held == 0).take_while(|held| **held == 1).count();
        assert!(reported >= 1, "reported until the answer: {held:?}");
    }
    assert_eq!(harness.queries(), [0, 1]);
    harness.stop().await;
}

#[tokio::test]
async fn a_refused_commit_gives_its_batches_back() {
    let harness = Harness::new().await;
    let grant = harness.grant(0, &["x"]);
    harness.coordinator.set(|state| {
        state.commit_replies.push_back(CommitReply::Refused(RefusalCode::NotFound));
        state.grants.push_back(grant);
    });
    harness.until("it is refused", |state| state.commit_attempts.len() == 1).await;
    harness.until("the lease has ended", |state| state.reports.last().unwrap().leases.is_empty()).await;
    assert_eq!(committed(&harness.coordinator.state()), 0);
    harness.stop().await;
}

#[tokio::test]
async fn cancelled_batches_stop_and_leave_no_rows() {
    let harness = Harness::new().await;
    harness.server.hold(true);
    let grants = [harness.grant(0, &["x"]), harness.grant(1, &["x"])];
    harness.coordinator.set(|state| state.grants.extend(grants));
    harness.until_called("/infer", 1).await;
    harness.until("both are held", |state| state.granted.len() == 2).await;
    harness.coordinator.set(|state| state.cancelled.push(lease(0, 1)));
    harness.until_called("/infer", 2).await;
    harness.server.hold(false);
    harness.until("the other is committed", |state| committed(state) == 1).await;
    assert_eq!(harness.queries(), [1]);

    // A batch that has run and awaits its commit.
    let held = harness.grant(2, &["x"]);
    harness.coordinator.set(|state| {
        state.commit_replies.push_back(CommitReply::Held);
        state.grants.push_back(held);
    });
    harness.until("its commit is in flight", |state| state.commit_attempts.len() == 2).await;
    let after = harness.grant(3, &["x"]);
    harness.coordinator.set(|state| {
        state.cancelled.push(lease(2, 1));
        state.grants.push_back(after);
    });
    harness.until("the next one is not blocked", |state| committed(state) == 2).await;
    assert_eq!(harness.queries(), [1, 3]);
    harness.stop().await;
}
