//! Shares of the workers, and what is reported of them.

use super::*;

const OTHER: JobId = JobId(2);

#[test]
fn every_rebalance_is_reported_with_its_reason() {
    let mut harness = Harness::new(100, 2);
    let lease = harness.pull_one(1);
    harness.commit_measured(1, lease, 1_000_000);
    harness.handle(SchedulerEvent::Job(spec(2, 100)));
    let expected = |reason, shares: &[(JobId, Option<u32>)]| Some((reason, shares.to_vec()));
    assert_eq!(
        harness.last_rebalance,
        expected(RebalanceReason::JobStarted(OTHER), &[(JOB, Some(100)), (OTHER, None)])
    );
    let leases: Vec<Lease> = [1, 2].map(|node| harness.pull_one(node)).into();
    let (node, lease) = (1..).zip(leases).find(|(_, lease)| lease.job == OTHER).unwrap();
    harness.commit_measured(node, lease, 3_000_000);
    harness.advance(1_000);
    assert_eq!(
        harness.last_rebalance,
        expected(RebalanceReason::RatesChanged, &[(JOB, Some(25)), (OTHER, Some(75))])
    );
    harness.handle(SchedulerEvent::WorkerDead(NodeId(2)));
    assert_eq!(harness.last_rebalance.take().unwrap().0, RebalanceReason::WorkerLost(NodeId(2)));
    harness.handle(SchedulerEvent::Job(JobSpec { weight: 3, ..spec(1, 100) }));
    assert_eq!(
        harness.last_rebalance,
        expected(RebalanceReason::JobStarted(JOB), &[(JOB, Some(50)), (OTHER, Some(50))])
    );
    harness.handle(SchedulerEvent::Policy(Policy::Time));
    let reason = RebalanceReason::PolicyChanged(Policy::Time);
    assert_eq!(harness.last_rebalance, expected(reason, &[(JOB, Some(75)), (OTHER, Some(25))]));
    harness.handle(SchedulerEvent::Policy(Policy::Fifo));
    assert_eq!(harness.last_rebalance.take().unwrap().1, [(JOB, Some(100)), (OTHER, Some(0))]);
    harness.handle(SchedulerEvent::Policy(Policy::Rate));
    harness.handle(SchedulerEvent::JobEnded(JOB));
    assert_eq!(harness.last_rebalance, expected(RebalanceReason::JobEnded(JOB), &[(OTHER, Some(100))]));
    harness.handle(SchedulerEvent::Job(JobSpec { running: false, ..spec(2, 100) }));
    assert_eq!(harness.last_rebalance, expected(RebalanceReason::JobStopped(OTHER), &[]));
}

#[test]
fn unusable_workers_leave_the_line_and_return_to_it() {
    let mut harness = Harness::new(100, 2);
    let due = |harness: &Harness, node| {
        let assignments = harness.scheduler.assignments();
        assignments.into_iter().find(|row| row.worker == NodeId(node)).unwrap().due
    };
    assert_eq!(due(&harness, 1), [(JOB, 1.0)]);
    harness.receive(WorkerReport { server: ServerState::Down("gone".into()), wanted: 0, ..report(1) });
    assert_eq!(harness.last_rebalance.take().unwrap().0, RebalanceReason::WorkerLost(NodeId(1)));
    assert_eq!(due(&harness, 1), []);
    harness.receive(WorkerReport { wanted: 0, ..report(1) });
    assert_eq!(harness.last_rebalance.take().unwrap().0, RebalanceReason::WorkerJoined(NodeId(1)));
    harness.advance(5_000);
    assert_eq!((due(&harness, 1), due(&harness, 2)), (vec![], vec![]), "both are silent");
}

#[test]
fn an_unmeasured_model_is_probed_with_small_batches() {
    let mut harness = Harness::new(1_000, 1);
    harness.handle(SchedulerEvent::Job(JobSpec { batch_size: 64.into(), ..spec(1, 1_000) }));
    let probe = harness.pull_one(1);
    assert_eq!(probe.range.count, 16);
    harness.commit_measured(1, probe, 100_000);
    assert_eq!(harness.pull_one(1).range.count, 64);
}

#[test]
fn shares_are_fractions_of_the_inference_time() {
    let mut harness = Harness::new(100, 1);
    harness.handle(SchedulerEvent::Job(spec(2, 100)));
    for _ in 0..4 {
        let lease = harness.pull_one(1);
        harness.commit(1, lease);
    }
    let assigned = harness.scheduler.assignments();
    assert_eq!(assigned[0].shares, [(JobId(1), 0.5), (JobId(2), 0.5)]);
    assert_eq!(assigned[0].current, []);
}
