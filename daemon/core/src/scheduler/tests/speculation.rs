//! Second leases of slow batches.

use idunno_shared::ids::NodeId;
use idunno_shared::wire::jobs::{FaultKind, Lease, WorkerReport};

use super::{
    Bench, Committed, JOB, JobSpec, OrdersPlan, RanBatch, RangeSet, SchedulerEvent, dead, orders, range,
    report, spec,
};

/// `queries` in batches of 10, of which one was run by worker 1 in `usual_ms`; worker 1 has the rest.
pub(super) fn bench(queries: u64, workers: u64, usual_ms: u64) -> (Bench, Vec<Lease>) {
    let mut bench = Bench::new(queries, workers);
    let first = bench.pull_one(1);
    commit_after(&mut bench, 1, first, usual_ms);
    let held = (10..queries).step_by(10).map(|_| bench.pull_one(1)).collect();
    (bench, held)
}

pub(super) fn commit_after(bench: &mut Bench, node: u64, lease: Lease, ms: u64) {
    let batches = vec![RanBatch { lease, inference_us: ms * 1000, refused: 0 }];
    let committed = Committed { worker: NodeId(node), job: lease.job, batches, ranges: vec![lease.range] };
    bench.tell(SchedulerEvent::Committed(committed));
}

/// The worker has been running the first of its leases for so long.
pub(super) fn running(bench: &mut Bench, node: u64, leases: &[Lease], ms: u32) -> OrdersPlan {
    let report = WorkerReport { wanted: 0, leases: leases.to_vec(), running_ms: Some(ms), ..report(node) };
    orders(node, bench.hear(report))
}

#[test]
fn a_batch_that_takes_twice_the_usual_is_leased_once_more_to_an_idle_worker() {
    let (mut bench, held) = bench(20, 3, 1_500);
    running(&mut bench, 1, &held, 2_900);
    assert_eq!(bench.pull(2, 1, &[]).grants, [], "not yet late");
    running(&mut bench, 1, &held, 3_100);
    let copy = bench.pull_one(2);
    assert_eq!((copy.range, copy.attempt), (held[0].range, 2));
    assert_eq!((bench.scheduler.leased(JOB), bench.scheduler.pending(JOB)), (10, 0));
    assert_eq!(bench.pull(3, 1, &[]).grants, [], "one copy of a batch");
    bench.commit(2, copy);
    assert_eq!(running(&mut bench, 1, &held, 4_000).cancelled, held, "the first commit wins");
    assert_eq!(bench.scheduler.statistics().copies_won, 1);
}

#[test]
fn the_copy_is_cancelled_when_the_first_worker_answers() {
    let (mut bench, held) = bench(20, 2, 100);
    running(&mut bench, 1, &held, 1_900);
    assert_eq!(bench.pull(2, 1, &[]).grants, [], "less than the floor");
    running(&mut bench, 1, &held, 2_100);
    let copy = bench.pull_one(2);
    bench.commit(1, held[0]);
    assert_eq!(bench.pull(2, 0, &[copy]).cancelled, [copy]);
}

#[test]
fn nothing_is_copied_while_there_is_something_else_to_do_or_nothing_to_compare_with() {
    let (mut waits, held) = bench(30, 2, 100);
    waits.tell(SchedulerEvent::Job(JobSpec { pending: RangeSet::from(10..40), ..spec(1, 0) }));
    running(&mut waits, 1, &held, 20_000);
    assert_eq!(waits.pull_one(2).range, range(30, 10));
    let mut unmeasured = Bench::new(10, 2);
    let only = unmeasured.pull_one(1);
    running(&mut unmeasured, 1, &[only], 60_000);
    assert_eq!(unmeasured.pull(2, 1, &[]).grants, []);
}

#[test]
fn what_waits_at_a_worker_measured_to_be_slow_is_copied_at_once() {
    let mut bench = Bench::new(40, 2);
    let (slow, fast) = (bench.pull_one(1), bench.pull_one(2));
    commit_after(&mut bench, 1, slow, 10_000);
    commit_after(&mut bench, 2, fast, 1_000);
    let held = [bench.pull_one(1), bench.pull_one(1)];
    running(&mut bench, 1, &held, 100);
    let copy = bench.pull_one(2);
    assert_eq!(copy.range, held[1].range, "what would end last");
    assert_eq!(bench.pull(2, 1, &[copy]).grants, [], "not idle");
    let next = orders(2, bench.commit(2, copy)).grants;
    assert_eq!(next[0].range, held[0].range);
}

#[test]
fn a_slow_worker_copies_nothing() {
    let mut bench = Bench::new(40, 2);
    let (fast, slow) = (bench.pull_one(1), bench.pull_one(2));
    commit_after(&mut bench, 1, fast, 1_000);
    for _ in 0..20 {
        commit_after(&mut bench, 1, fast, 1_000);
    }
    commit_after(&mut bench, 2, slow, 10_000);
    let held = [bench.pull_one(1), bench.pull_one(1)];
    running(&mut bench, 1, &held, 2_500);
    assert_eq!(bench.pull(2, 1, &[]).grants, []);
}

#[test]
fn a_tenth_of_the_workers_may_run_copies() {
    let copies = |workers: u64| {
        let mut bench = Bench::new(110, workers + 10);
        let first = bench.pull_one(1);
        bench.commit(1, first);
        for node in 1..=10 {
            let lease = bench.pull_one(node);
            running(&mut bench, node, &[lease], 10_000);
        }
        let idle = (11..=workers).map(|node| bench.pull(node, 1, &[]).grants.len());
        idle.sum::<usize>()
    };
    assert_eq!((copies(20), copies(29), copies(30)), (3, 3, 4));
}

#[test]
fn the_copy_takes_the_place_of_a_lease_that_is_lost() {
    let (mut bench, held) = bench(20, 3, 100);
    running(&mut bench, 1, &held, 3_000);
    let copy = bench.pull_one(2);
    bench.tell(SchedulerEvent::WorkerDead(NodeId(1)));
    assert_eq!((bench.scheduler.leased(JOB), bench.scheduler.statistics().promoted), (10, 1));
    assert_eq!(bench.pull(3, 1, &[]).grants, [], "it is leased to the second");
    let third = orders(3, bench.tell(SchedulerEvent::WorkerDead(NodeId(2)))).grants[0];
    assert_eq!((third.range, third.attempt), (copy.range, 3));
}

#[test]
fn a_copy_that_fails_or_is_lost_changes_nothing() {
    let (mut bench, held) = bench(20, 3, 100);
    running(&mut bench, 1, &held, 3_000);
    let copy = bench.pull_one(2);
    assert_eq!(dead(&bench.fail(2, copy, FaultKind::BadInput)), []);
    assert_eq!(bench.pull(3, 1, &[]).grants, [], "one copy in the life of a lease");
    assert_eq!((bench.scheduler.leased(JOB), bench.scheduler.pending(JOB)), (10, 0));
    assert_eq!(bench.pull(2, 0, &[copy]).cancelled, [copy]);
}

#[test]
fn what_fails_at_the_first_worker_is_taken_from_the_copy() {
    let (mut bench, held) = bench(20, 2, 100);
    running(&mut bench, 1, &held, 3_000);
    let copy = bench.pull_one(2);
    bench.fail(1, held[0], FaultKind::Inference);
    assert_eq!((bench.scheduler.leased(JOB), bench.scheduler.pending(JOB)), (0, 10));
    assert_eq!(bench.pull(2, 0, &[copy]).cancelled, [copy]);
    bench.pass(500);
    assert_eq!(bench.pull_one(2).attempt, 3);
}

#[test]
fn a_copy_is_charged_to_nobody() {
    let (mut bench, held) = bench(20, 2, 100);
    bench.tell(SchedulerEvent::Job(JobSpec { pending: RangeSet::new(), ..spec(2, 0) }));
    running(&mut bench, 1, &held, 3_000);
    let time = |bench: &Bench| format!("{:?}", bench.scheduler.jobs[&JOB].service);
    let before = time(&bench);
    let copy = bench.pull_one(2);
    assert_eq!(time(&bench), before);
    bench.tell(SchedulerEvent::WorkerDead(NodeId(1)));
    assert_eq!(time(&bench), before, "nor when it takes the first's place");
    assert_eq!(bench.scheduler.leases(NodeId(2)).collect::<Vec<_>>(), [copy]);
}

#[test]
fn a_failed_batch_does_not_wait_for_a_worker_that_is_stuck() {
    let (mut bench, held) = bench(30, 2, 100);
    let at_other = {
        bench.fail(1, held[1], FaultKind::Worker);
        bench.pull_one(2)
    };
    bench.fail(1, held[0], FaultKind::Inference);
    bench.pass(2_000);
    running(&mut bench, 2, &[at_other], 1_500);
    assert_eq!(bench.pull(1, 1, &[]).grants, [], "the other may do better, and soon");
    let granted = orders(1, bench.pass(1_000)).grants;
    assert_eq!(granted[0].range, held[0].range);
}
