//! What people are told of the sharing.

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::jobs::{Lease, Policy};

use super::speculation::commit_after;
use super::{Bench, Event, JOB, JobSpec, spec};

const OTHER: JobId = JobId(2);

#[test]
fn every_change_of_the_shares_is_said_with_its_reason() {
    let mut bench = Bench::new(100, 2);
    let lease = bench.pull_one(1);
    commit_after(&mut bench, 1, lease, 1_000);
    bench.tell(Event::Job(spec(2, 100)));
    assert_eq!(bench.shared, ("job-2 runs".to_owned(), vec![(JOB, Some(100)), (OTHER, None)]));
    let leases: Vec<Lease> = [1, 2].map(|node| bench.pull_one(node)).into();
    let (node, lease) = (1..).zip(leases).find(|(_, lease)| lease.job == OTHER).unwrap();
    commit_after(&mut bench, node, lease, 3_000);
    bench.tell(Event::WorkerDead(NodeId(2)));
    assert_eq!(
        bench.shared,
        (format!("worker {} is gone", NodeId(2)), vec![(JOB, Some(25)), (OTHER, Some(75))])
    );
    bench.tell(Event::Job(JobSpec { weight: 3, ..spec(1, 100) }));
    assert_eq!(bench.shared.1, [(JOB, Some(50)), (OTHER, Some(50))]);
    bench.tell(Event::Policy(Policy::Time));
    assert_eq!(bench.shared, ("the policy is Time".to_owned(), vec![(JOB, Some(75)), (OTHER, Some(25))]));
    bench.tell(Event::Policy(Policy::Fifo));
    assert_eq!(bench.shared.1, [(JOB, Some(100)), (OTHER, Some(0))]);
    bench.tell(Event::Policy(Policy::Rate));
    bench.tell(Event::JobEnded(JOB));
    assert_eq!(bench.shared, ("job-1 is done".to_owned(), vec![(OTHER, Some(100))]));
    bench.tell(Event::Job(JobSpec { running: false, ..spec(2, 100) }));
    assert_eq!(bench.shared, ("job-2 does not run".to_owned(), vec![]));
}

#[test]
fn a_model_that_was_never_measured_is_probed_with_small_batches() {
    let mut bench = Bench::new(1_000, 1);
    bench.tell(Event::Job(JobSpec { batch_size: 64, ..spec(1, 1_000) }));
    let probe = bench.pull_one(1);
    assert_eq!(probe.range.count, 16);
    commit_after(&mut bench, 1, probe, 100);
    assert_eq!(bench.pull_one(1).range.count, 64);
}
