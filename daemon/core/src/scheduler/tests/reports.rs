//! When reports are answered, and which are ignored.

use super::*;

#[test]
fn a_report_is_answered_when_there_is_work_or_its_wait_is_over() {
    let mut harness = Harness::new(0, 2);
    assert_eq!(harness.receive(report(1)), Vec::new());
    let granted = reply_to(1, harness.handle(SchedulerEvent::Job(spec(1, 15))));
    assert_eq!(granted.grants[0].range, range(0, 10));
    assert_eq!(harness.pull(2, 1, &[]).grants[0].range, range(10, 5));
    assert_eq!(harness.receive(WorkerReport { worker: NodeId(3), ..report(3) }), Vec::new());
    let answered = harness.advance(WAIT_MS.into());
    assert!(answered.contains(&SchedulerEffect::Answer { worker: NodeId(3), reply: ReplyPlan::default() }));
    let heartbeat = WorkerReport { wait_ms: 0, ..report(3) };
    assert_eq!(harness.receive(heartbeat).len(), 1);
}

#[test]
fn completed_batches_do_not_count_against_the_lease_limit() {
    let mut harness = Harness::new(100, 1);
    let held = [harness.pull_one(1), harness.pull_one(1)];
    assert_eq!(harness.pull(1, 1, &held), ReplyPlan::default(), "two are uncompleted");
    let ran = WorkerReport { wanted: 1, leases: held.to_vec(), awaiting_commit: 1, ..report(1) };
    let granted = reply_to(1, harness.receive(ran)).grants;
    assert_eq!(granted.len(), 1, "one of the two is completed");
}

#[test]
fn an_overtaken_report_is_ignored() {
    let mut harness = Harness::in_claim_grace(30);
    let old = Lease { job: JOB, range: range(0, 10), attempt: 1, term: Term(1) };
    let given_up = WorkerReport { number: 2, wanted: 0, ..report(1) };
    let overtaken = WorkerReport { number: 1, wanted: 2, leases: vec![old], ..report(1) };
    harness.receive(given_up.clone());
    let answer = reply_to(1, harness.receive(overtaken.clone()));
    assert_eq!((answer, harness.leases(1).len()), (ReplyPlan::default(), 0));
    let rebooted = WorkerReport { generation: 2, ..overtaken };
    harness.receive(rebooted);
    assert_eq!(harness.leases(1), [old], "a new boot restarts the numbers");
    harness.receive(given_up);
    assert_eq!(harness.leases(1).len(), 1, "a report of an earlier boot");
}

#[test]
fn an_event_looks_only_at_the_workers_that_it_concerns() {
    const WORKERS: u64 = 400;
    let mut harness = Harness::new(100_000, WORKERS);
    let leases: Vec<Lease> = (1..=WORKERS).map(|node| harness.pull_one(node)).collect();
    let looked = |harness: &mut Harness, event: &dyn Fn(&mut Harness)| {
        let before = harness.scheduler.workers.settled;
        event(harness);
        harness.scheduler.workers.settled - before
    };
    let report = looked(&mut harness, &|harness| drop(harness.pull(7, 0, &[leases[6]])));
    let commit = looked(&mut harness, &|harness| drop(harness.commit(7, leases[6])));
    let fault = looked(&mut harness, &|harness| drop(harness.fail(8, leases[7], FaultKind::Worker)));
    assert!(report.max(commit).max(fault) <= 3, "{report}, {commit} and {fault} of {WORKERS} workers");
    // One wait is over, and one worker is answered.
    harness.receive(WorkerReport { wanted: 0, wait_ms: 200, leases: vec![leases[8]], ..super::report(9) });
    let waited = looked(&mut harness, &|harness| drop(harness.advance(200)));
    assert!(waited <= 3, "{waited} of {WORKERS} workers");
}

#[test]
fn work_that_nobody_can_get_is_looked_for_once_and_not_once_a_worker() {
    const WORKERS: u64 = 400;
    let mut harness = Harness::new(10, WORKERS);
    let only = harness.pull_one(1);
    for node in 2..=WORKERS {
        assert_eq!(harness.receive(report(node)), []);
    }
    let before = harness.scheduler.statistics().compared;
    harness.handle(SchedulerEvent::WorkerDead(NodeId(WORKERS)));
    let compared = harness.scheduler.statistics().compared - before;
    assert!(compared <= 2 * WORKERS, "{compared} comparisons for {WORKERS} workers");
    harness.fail(1, only, FaultKind::Worker);
    assert_eq!((2..WORKERS).map(|node| harness.leases(node).len()).sum::<usize>(), 1, "they do wait");
}
