//! What people are told of the sharing.

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::jobs::{Lease, Policy, ServerState, WorkerReport};

use super::speculation::commit_after;
use super::{Bench, JOB, JobSpec, SchedulerEvent, SharedBecause, report, spec};

const OTHER: JobId = JobId(2);

#[test]
fn every_change_of_the_shares_is_said_with_its_reason() {
    let mut bench = Bench::new(100, 2);
    let lease = bench.pull_one(1);
    commit_after(&mut bench, 1, lease, 1_000);
    bench.tell(SchedulerEvent::Job(spec(2, 100)));
    let said = |because, shares: &[(JobId, Option<u32>)]| Some((because, shares.to_vec()));
    assert_eq!(bench.shared, said(SharedBecause::JobRuns(OTHER), &[(JOB, Some(100)), (OTHER, None)]));
    let leases: Vec<Lease> = [1, 2].map(|node| bench.pull_one(node)).into();
    let (node, lease) = (1..).zip(leases).find(|(_, lease)| lease.job == OTHER).unwrap();
    commit_after(&mut bench, node, lease, 3_000);
    bench.pass(1_000);
    assert_eq!(bench.shared, said(SharedBecause::RatesMoved, &[(JOB, Some(25)), (OTHER, Some(75))]));
    bench.tell(SchedulerEvent::WorkerDead(NodeId(2)));
    assert_eq!(bench.shared.take().unwrap().0, SharedBecause::WorkerGoes(NodeId(2)));
    bench.tell(SchedulerEvent::Job(JobSpec { weight: 3, ..spec(1, 100) }));
    assert_eq!(bench.shared, said(SharedBecause::JobRuns(JOB), &[(JOB, Some(50)), (OTHER, Some(50))]));
    bench.tell(SchedulerEvent::Policy(Policy::Time));
    let because = SharedBecause::Policy(Policy::Time);
    assert_eq!(bench.shared, said(because, &[(JOB, Some(75)), (OTHER, Some(25))]));
    bench.tell(SchedulerEvent::Policy(Policy::Fifo));
    assert_eq!(bench.shared.take().unwrap().1, [(JOB, Some(100)), (OTHER, Some(0))]);
    bench.tell(SchedulerEvent::Policy(Policy::Rate));
    bench.tell(SchedulerEvent::JobEnded(JOB));
    assert_eq!(bench.shared, said(SharedBecause::JobEnds(JOB), &[(OTHER, Some(100))]));
    bench.tell(SchedulerEvent::Job(JobSpec { running: false, ..spec(2, 100) }));
    assert_eq!(bench.shared, said(SharedBecause::JobStops(OTHER), &[]));
}

#[test]
fn workers_leave_the_line_when_they_can_run_nothing_and_come_back() {
    let mut bench = Bench::new(100, 2);
    let due = |bench: &Bench, node| {
        let assignments = bench.scheduler.assignments();
        assignments.into_iter().find(|row| row.worker == NodeId(node)).unwrap().due
    };
    assert_eq!(due(&bench, 1), [(JOB, 1.0)]);
    bench.hear(WorkerReport { server: ServerState::Down("gone".into()), wanted: 0, ..report(1) });
    assert_eq!(bench.shared.take().unwrap().0, SharedBecause::WorkerGoes(NodeId(1)));
    assert_eq!(due(&bench, 1), []);
    bench.hear(WorkerReport { wanted: 0, ..report(1) });
    assert_eq!(bench.shared.take().unwrap().0, SharedBecause::WorkerComes(NodeId(1)));
    bench.pass(5_000);
    assert_eq!((due(&bench, 1), due(&bench, 2)), (vec![], vec![]), "both are silent");
}

#[test]
fn a_model_that_was_never_measured_is_probed_with_small_batches() {
    let mut bench = Bench::new(1_000, 1);
    bench.tell(SchedulerEvent::Job(JobSpec { batch_size: 64.into(), ..spec(1, 1_000) }));
    let probe = bench.pull_one(1);
    assert_eq!(probe.range.count, 16);
    commit_after(&mut bench, 1, probe, 100);
    assert_eq!(bench.pull_one(1).range.count, 64);
}
