//! Copies of slow batches, and batches that hang.

use super::*;

/// A job of `queries` in batches of 10: worker 1 has committed one that took `typical_ms`, and holds the others.
fn measured(queries: u64, workers: u64, typical_ms: u64) -> (Harness, Vec<Lease>) {
    let mut harness = Harness::new(queries, workers);
    let first = harness.pull_one(1);
    harness.commit_measured(1, first, typical_ms * 1_000);
    let held = (10..queries).step_by(10).map(|_| harness.pull_one(1)).collect();
    (harness, held)
}

#[test]
fn a_batch_twice_as_slow_as_others_is_copied_to_an_idle_worker() {
    let (mut harness, held) = measured(20, 3, 1_500);
    harness.report_running(1, &held, 2_900);
    assert_eq!(harness.pull(2, 1, &[]).grants, [], "not yet late");
    harness.report_running(1, &held, 3_100);
    let copy = harness.pull_one(2);
    assert_eq!((copy.range, copy.attempt), (held[0].range, 2));
    assert_eq!((harness.scheduler.leased(JOB), harness.scheduler.pending(JOB)), (10, 0));
    assert_eq!(harness.pull(3, 1, &[]).grants, [], "one copy of a batch");
    harness.commit(2, copy);
    assert_eq!(harness.report_running(1, &held, 4_000).cancelled, held, "the first commit wins");
    assert_eq!(harness.scheduler.statistics().copies_won, 1);
}

#[test]
fn a_copy_is_cancelled_when_the_first_worker_answers() {
    let (mut harness, held) = measured(20, 2, 100);
    harness.report_running(1, &held, 1_900);
    assert_eq!(harness.pull(2, 1, &[]).grants, [], "below the minimum");
    harness.report_running(1, &held, 2_100);
    let copy = harness.pull_one(2);
    harness.commit(1, held[0]);
    assert_eq!(harness.pull(2, 0, &[copy]).cancelled, [copy]);
}

#[test]
fn nothing_is_copied_while_there_is_other_work_or_no_measurement() {
    let (mut waits, held) = measured(30, 2, 100);
    waits.handle(SchedulerEvent::Job(JobSpec { pending: RangeSet::from(10..40), ..spec(1, 0) }));
    waits.report_running(1, &held, 20_000);
    assert_eq!(waits.pull_one(2).range, range(30, 10));
    let mut unmeasured = Harness::new(10, 2);
    let only = unmeasured.pull_one(1);
    unmeasured.report_running(1, &[only], 60_000);
    assert_eq!(unmeasured.pull(2, 1, &[]).grants, []);
}

#[test]
fn batches_queued_at_a_slow_worker_are_copied_at_once() {
    let mut harness = Harness::new(40, 2);
    let (slow, fast) = (harness.pull_one(1), harness.pull_one(2));
    harness.commit_measured(1, slow, 10_000_000);
    harness.commit_measured(2, fast, 1_000_000);
    let held = [harness.pull_one(1), harness.pull_one(1)];
    harness.report_running(1, &held, 100);
    let copy = harness.pull_one(2);
    assert_eq!(copy.range, held[1].range, "the one that would end last");
    assert_eq!(harness.pull(2, 1, &[copy]).grants, [], "not idle");
    let next = reply_to(2, harness.commit(2, copy)).grants;
    assert_eq!(next[0].range, held[0].range);
}

#[test]
fn a_slow_worker_gets_no_copies() {
    let mut harness = Harness::new(40, 2);
    let (fast, slow) = (harness.pull_one(1), harness.pull_one(2));
    harness.commit_measured(1, fast, 1_000_000);
    for _ in 0..20 {
        harness.commit_measured(1, fast, 1_000_000);
    }
    harness.commit_measured(2, slow, 10_000_000);
    let held = [harness.pull_one(1), harness.pull_one(1)];
    harness.report_running(1, &held, 2_500);
    assert_eq!(harness.pull(2, 1, &[]).grants, []);
}

#[test]
fn a_tenth_of_the_workers_may_run_copies() {
    let copies = |workers: u64| {
        let mut harness = Harness::new(110, workers + 10);
        let first = harness.pull_one(1);
        harness.commit(1, first);
        for node in 1..=10 {
            let lease = harness.pull_one(node);
            harness.report_running(node, &[lease], 10_000);
        }
        let idle = (11..=workers).map(|node| harness.pull(node, 1, &[]).grants.len());
        idle.sum::<usize>()
    };
    assert_eq!((copies(20), copies(29), copies(30)), (3, 3, 4));
}

#[test]
fn a_copy_replaces_a_lost_first_lease() {
    let (mut harness, held) = measured(20, 3, 100);
    harness.report_running(1, &held, 3_000);
    let copy = harness.pull_one(2);
    harness.handle(SchedulerEvent::WorkerDead(NodeId(1)));
    assert_eq!((harness.scheduler.leased(JOB), harness.scheduler.statistics().promoted), (10, 1));
    assert_eq!(harness.pull(3, 1, &[]).grants, [], "worker 2 has the lease");
    let third = reply_to(3, harness.handle(SchedulerEvent::WorkerDead(NodeId(2)))).grants[0];
    assert_eq!((third.range, third.attempt), (copy.range, 3));
}

#[test]
fn a_failed_or_lost_copy_changes_nothing() {
    let (mut harness, held) = measured(20, 3, 100);
    harness.report_running(1, &held, 3_000);
    let copy = harness.pull_one(2);
    assert_eq!(dead(&harness.fail(2, copy, FaultKind::BadInput)), []);
    assert_eq!(harness.pull(3, 1, &[]).grants, [], "a lease is copied once");
    assert_eq!((harness.scheduler.leased(JOB), harness.scheduler.pending(JOB)), (10, 0));
    assert_eq!(harness.pull(2, 0, &[copy]).cancelled, [copy]);
}

#[test]
fn queries_that_fail_in_the_first_lease_are_removed_from_the_copy() {
    let (mut harness, held) = measured(20, 2, 100);
    harness.report_running(1, &held, 3_000);
    let copy = harness.pull_one(2);
    harness.fail(1, held[0], FaultKind::Inference);
    assert_eq!((harness.scheduler.leased(JOB), harness.scheduler.pending(JOB)), (0, 10));
    assert_eq!(harness.pull(2, 0, &[copy]).cancelled, [copy]);
    harness.advance(500);
    assert_eq!(harness.pull_one(2).attempt, 3);
}

#[test]
fn a_copy_is_charged_to_no_job() {
    let (mut harness, held) = measured(20, 2, 100);
    harness.handle(SchedulerEvent::Job(JobSpec { pending: RangeSet::new(), ..spec(2, 0) }));
    harness.report_running(1, &held, 3_000);
    let time = |harness: &Harness| format!("{:?}", harness.scheduler.jobs[&JOB].service);
    let before = time(&harness);
    let copy = harness.pull_one(2);
    assert_eq!(time(&harness), before);
    harness.handle(SchedulerEvent::WorkerDead(NodeId(1)));
    assert_eq!(time(&harness), before, "nor when it is promoted");
    assert_eq!(harness.leases(2), [copy]);
}

#[test]
fn a_failed_batch_does_not_wait_for_a_late_worker() {
    let (mut harness, held) = measured(30, 2, 100);
    let at_other = {
        harness.fail(1, held[1], FaultKind::Worker);
        harness.pull_one(2)
    };
    harness.fail(1, held[0], FaultKind::Inference);
    harness.advance(2_000);
    harness.report_running(2, &[at_other], 1_500);
    assert_eq!(harness.pull(1, 1, &[]).grants, [], "worker 2 may do better, and soon");
    let granted = reply_to(1, harness.advance(1_000)).grants;
    assert_eq!(granted[0].range, held[0].range);
}

/// The worker runs its only batch until it hangs, and is told to restart its model server.
fn hang(harness: &mut Harness, node: u64, lease: Lease) {
    let reply = harness.report_running(node, &[lease], 31_000);
    assert_eq!(reply.cancelled, [lease]);
    assert!(reply.restart.is_some_and(|reason| reason.contains("10 queries have been running for 31 s")));
}

#[test]
fn a_hung_batch_is_revoked_and_its_model_server_restarted() {
    let (mut harness, held) = measured(20, 4, 100);
    assert_eq!(harness.report_running(1, &held, 29_000).restart, None, "below the minimum");
    hang(&mut harness, 1, held[0]);
    let again = harness.pull_one(2);
    assert_eq!((again.range, again.attempt), (held[0].range, 2), "at once, without a fault");
    hang(&mut harness, 2, again);
    assert_eq!(harness.pull(3, 1, &[]).grants, [], "the batch is at fault now");
    let third = reply_to(3, harness.advance(200)).grants[0];
    assert_eq!(third.attempt, 3);
    assert_eq!(harness.scheduler.statistics().hung, 2);
}

#[test]
fn a_batch_of_a_slow_model_does_not_hang() {
    let (mut harness, held) = measured(20, 1, 5_000);
    assert_eq!(harness.report_running(1, &held, 49_000).restart, None);
    assert!(harness.report_running(1, &held, 51_000).restart.is_some());
}

#[test]
fn a_copy_replaces_a_hung_first_lease() {
    let (mut harness, held) = measured(20, 3, 100);
    harness.report_running(1, &held, 3_000);
    let copy = harness.pull_one(2);
    hang(&mut harness, 1, held[0]);
    assert_eq!((harness.scheduler.leased(JOB), harness.scheduler.pending(JOB)), (10, 0));
    assert_eq!(harness.leases(2), [copy]);
    harness.handle(SchedulerEvent::WorkerDead(NodeId(1)));
    harness.fail(2, copy, FaultKind::Worker);
    assert_eq!(harness.scheduler.pending(JOB), 10);
}
