//! Failed queries, and the workers and jobs that fail them.

use super::*;

#[test]
fn a_bad_input_is_retried_on_one_other_worker() {
    let mut harness = Harness::new(1, 3);
    let lease = harness.pull_one(1);
    assert_eq!(dead(&harness.fail(1, lease, FaultKind::BadInput)), []);
    assert_eq!(harness.pull(1, 1, &[]).grants, [], "this worker failed it");
    let lease = harness.pull_one(2);
    assert_eq!(dead(&harness.fail(2, lease, FaultKind::BadInput)), [(0, 2)]);
    harness.handle(SchedulerEvent::DeadLettersCommitted { job: JOB, queries: vec![range(0, 1)] });
    assert_eq!(harness.scheduler.pending(JOB), 0);
    let mut alone = Harness::new(1, 1);
    let lease = alone.pull_one(1);
    assert_eq!(dead(&alone.fail(1, lease, FaultKind::BadInput)), [(0, 1)]);
}

/// One poisonous query in a batch of 8: three workers try each range, then it is halved. No other query dies.
#[test]
fn a_batch_with_a_poisonous_query_is_halved_down_to_it() {
    let mut harness = Harness::new(16, 4);
    harness.handle(SchedulerEvent::Job(JobSpec { batch_size: 8.into(), ..spec(1, 16) }));
    let (mut runs, mut dead_letters) = (0, Vec::new());
    for turn in 0..200u64 {
        let node = turn % 4 + 1;
        harness.advance(500);
        if let Some(lease) = harness.pull(node, 1, &[]).grants.first() {
            if lease.range.queries().contains(&5) {
                runs += 1;
                dead_letters.extend(dead(&harness.fail(node, *lease, FaultKind::Inference)));
            } else {
                harness.commit(node, *lease);
            }
        }
    }
    assert_eq!((runs, dead_letters), (12, vec![(5, 12)]));
}

#[test]
fn a_failed_range_avoids_the_worker_that_failed_it_while_there_is_another() {
    let mut harness = Harness::new(10, 2);
    let lease = harness.pull_one(1);
    harness.fail(1, lease, FaultKind::Inference);
    harness.advance(200);
    assert_eq!(harness.pull(1, 1, &[]).grants, []);
    let granted = reply_to(1, harness.handle(SchedulerEvent::WorkerDead(NodeId(2))));
    assert_eq!(granted.grants[0].range, lease.range);
}

#[test]
fn an_unreadable_input_is_retried_with_growing_delays_until_it_is_dead() {
    let mut harness = Harness::new(1, 1);
    let mut delays = Vec::new();
    let begun = harness.now;
    loop {
        let mut waited = 0;
        let mut reply = harness.pull(1, 1, &[]);
        while reply.grants.is_empty() {
            harness.pull(1, 1, &[]);
            reply = reply_to(1, harness.advance(500));
            waited += 500;
        }
        let lease = reply.grants[0];
        delays.push(waited);
        let dead_letters = dead(&harness.fail(1, lease, FaultKind::Fetch));
        if !dead_letters.is_empty() {
            break;
        }
    }
    assert_eq!(delays[..7], [0, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
    let waited = harness.now.since(begun);
    assert!(
        (600..620).contains(&waited.as_secs()),
        "a restart of the whole cluster takes less than {waited:?}"
    );
}

#[test]
fn an_unreadable_range_is_halved_once_patience_runs_out() {
    let mut harness = Harness::new(10, 1);
    let mut dead_letters = Vec::new();
    while dead_letters.is_empty() {
        let mut reply = harness.pull(1, 1, &[]);
        while reply.grants.is_empty() {
            harness.pull(1, 1, &[]);
            reply = reply_to(1, harness.advance(1_000));
        }
        let lease = reply.grants[0];
        if lease.range.first + u64::from(lease.range.count) == 10 {
            dead_letters.extend(dead(&harness.fail(1, lease, FaultKind::Fetch)));
        } else {
            harness.commit(1, lease);
        }
    }
    assert_eq!(dead_letters.len(), 1, "only the unreadable query is dead: {dead_letters:?}");
    assert_eq!(harness.scheduler.pending(JOB), 1);
}

#[test]
fn a_failure_that_is_reported_twice_counts_once() {
    let mut harness = Harness::new(1, 3);
    let lease = harness.pull_one(1);
    harness.fail(1, lease, FaultKind::BadInput);
    harness.fail(1, lease, FaultKind::BadInput);
    let lease = harness.pull_one(2);
    assert_eq!(dead(&harness.fail(2, lease, FaultKind::BadInput)), [(0, 2)], "two leases failed");
}

#[test]
fn dead_letters_that_the_log_refuses_are_retried() {
    let mut harness = Harness::new(1, 1);
    let lease = harness.pull_one(1);
    harness.fail(1, lease, FaultKind::BadInput);
    assert_eq!(harness.pull(1, 1, &[]).grants, []);
    let effects = harness.handle(SchedulerEvent::DeadLettersRefused { job: JOB, queries: vec![range(0, 1)] });
    assert_eq!(reply_to(1, effects).grants[0].range, range(0, 1));
}

#[test]
fn a_faulty_worker_cools_down_and_the_batch_is_not_blamed() {
    let mut harness = Harness::new(10, 2);
    let lease = harness.pull_one(1);
    harness.fail(1, lease, FaultKind::Worker);
    assert_eq!(harness.pull(1, 1, &[]).grants, [], "it cools down");
    assert_eq!(harness.pull(2, 1, &[]).grants[0].range, lease.range);
    harness.handle(SchedulerEvent::WorkerDead(NodeId(2)));
    let rested = reply_to(1, harness.advance(1_000));
    assert_eq!(rested.grants[0].range, lease.range);
}

#[test]
fn a_job_that_fails_everywhere_is_paused_and_runs_once_resumed() {
    let mut harness = Harness::new(1_000, 3);
    let mut paused = Vec::new();
    for turn in 0..10 {
        let node = turn % 3 + 1;
        let lease = harness.pull_one(node);
        paused.extend(harness.fail(node, lease, FaultKind::Inference));
    }
    assert!(matches!(paused.as_slice(), [SchedulerEffect::PauseJob { job: JOB, .. }]), "{paused:?}");
    assert_eq!(harness.pull(1, 1, &[]).grants, []);
    harness.handle(SchedulerEvent::Job(JobSpec { running: false, ..spec(1, 1_000) }));
    harness.advance(1_000);
    let resumed = harness.handle(SchedulerEvent::Job(spec(1, 1_000)));
    assert!(resumed.is_empty(), "no report is unanswered: {resumed:?}");
    assert_eq!(harness.pull(1, 1, &[]).grants.len(), 1);
}

#[test]
fn uncommitted_answers_keep_a_job_from_being_paused() {
    let mut harness = Harness::new(1_000, 3);
    let answered = harness.pull_one(3);
    harness.receive(WorkerReport { leases: vec![answered], awaiting_commit: 1, wanted: 0, ..report(3) });
    for turn in 0..20 {
        let node = turn % 2 + 1;
        let lease = harness.pull_one(node);
        let effects = harness.fail(node, lease, FaultKind::Inference);
        assert!(
            !effects.iter().any(|effect| matches!(effect, SchedulerEffect::PauseJob { .. })),
            "{effects:?}"
        );
    }
    harness.commit(3, answered);
}

#[test]
fn retried_dead_letters_are_leased_again() {
    let mut harness = Harness::new(1, 1);
    let lease = harness.pull_one(1);
    harness.fail(1, lease, FaultKind::BadInput);
    harness.handle(SchedulerEvent::DeadLettersCommitted { job: JOB, queries: vec![range(0, 1)] });
    harness.handle(SchedulerEvent::JobEnded(JOB));
    harness.handle(SchedulerEvent::Job(spec(1, 1)));
    let again = harness.pull_one(1);
    assert_eq!(again, lease);
    assert_eq!(
        dead(&harness.fail(1, again, FaultKind::BadInput)),
        [(0, 1)],
        "their earlier failures do not count"
    );
}
