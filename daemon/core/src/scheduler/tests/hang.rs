//! Batches that hang.

use idunno_shared::ids::NodeId;
use idunno_shared::wire::jobs::{FaultKind, Lease};

use super::speculation::{bench, running};
use super::{Bench, JOB, SchedulerEvent, orders};

/// The worker runs the only batch until it hangs; its orders then.
fn hang(bench: &mut Bench, node: u64, lease: Lease) {
    let orders = running(bench, node, &[lease], 31_000);
    assert_eq!(orders.cancelled, [lease]);
    assert!(orders.restart.is_some_and(|reason| reason.contains("10 queries have been running for 31 s")));
}

#[test]
fn a_batch_that_hangs_is_taken_away_and_its_model_server_restarted() {
    let (mut bench, held) = bench(20, 4, 100);
    assert_eq!(running(&mut bench, 1, &held, 29_000).restart, None, "less than the floor");
    hang(&mut bench, 1, held[0]);
    let again = bench.pull_one(2);
    assert_eq!((again.range, again.attempt), (held[0].range, 2), "at once: nobody blames it");
    hang(&mut bench, 2, again);
    assert_eq!(bench.pull(3, 1, &[]).grants, [], "it is to blame now");
    let third = orders(3, bench.pass(200)).grants[0];
    assert_eq!(third.attempt, 3);
    assert_eq!(bench.scheduler.statistics().hung, 2);
}

#[test]
fn what_takes_long_usually_does_not_hang() {
    let (mut bench, held) = bench(20, 1, 5_000);
    assert_eq!(running(&mut bench, 1, &held, 49_000).restart, None);
    assert!(running(&mut bench, 1, &held, 51_000).restart.is_some());
}

#[test]
fn the_copy_of_a_batch_that_hangs_takes_its_place() {
    let (mut bench, held) = bench(20, 3, 100);
    running(&mut bench, 1, &held, 3_000);
    let copy = bench.pull_one(2);
    hang(&mut bench, 1, held[0]);
    assert_eq!((bench.scheduler.leased(JOB), bench.scheduler.pending(JOB)), (10, 0));
    assert_eq!(bench.scheduler.leases(NodeId(2)).collect::<Vec<_>>(), [copy]);
    bench.tell(SchedulerEvent::WorkerDead(NodeId(1)));
    bench.fail(2, copy, FaultKind::Worker);
    assert_eq!(bench.scheduler.pending(JOB), 10);
}
