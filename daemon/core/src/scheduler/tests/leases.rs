//! Leases: granted, adopted, renewed, returned, cancelled.

use idunno_shared::wire::resources::ReadFeature;

use super::*;

#[test]
fn leases_of_dead_and_restarted_workers_return_at_once() {
    let mut harness = Harness::new(30, 3);
    let first = harness.pull_one(1);
    harness.handle(SchedulerEvent::WorkerDead(NodeId(1)));
    let again = harness.pull_one(2);
    assert_eq!((again.range, again.attempt), (first.range, 2));
    assert_eq!(harness.lost, [(NodeId(1), first, LossReason::WorkerGone)]);
    harness.receive(WorkerReport { generation: 2, wanted: 0, ..report(2) });
    assert_eq!(harness.pull_one(3).attempt, 3);
    assert_eq!(harness.pull(1, 0, &[first]).cancelled, [first]);
}

#[test]
fn an_unrenewed_lease_expires() {
    let mut harness = Harness::new(10, 1);
    let lease = harness.pull_one(1);
    harness.advance(4_000);
    harness.pull(1, 0, &[lease]);
    harness.advance(4_000);
    assert_eq!(harness.scheduler.leased(JOB), 10);
    harness.advance(1_000);
    assert_eq!((harness.scheduler.leased(JOB), harness.scheduler.statistics().expired), (0, 1));
    assert_eq!(harness.lost, [(NodeId(1), lease, LossReason::Expired)]);
}

#[test]
fn a_report_that_crossed_the_grant_returns_no_lease() {
    let mut harness = Harness::new(10, 1);
    let lease = harness.pull_one(1);
    harness.pull(1, 0, &[]);
    assert_eq!(harness.scheduler.leased(JOB), 10);
    harness.pull(1, 0, &[lease]);
    harness.advance(500);
    harness.pull(1, 0, &[]);
    harness.advance(1_000);
    assert_eq!(harness.scheduler.leased(JOB), 10);
    harness.pull(1, 0, &[]);
    assert_eq!((harness.scheduler.leased(JOB), harness.scheduler.statistics().absent), (0, 1));
    assert_eq!(harness.lost, [(NodeId(1), lease, LossReason::Unlisted)]);
}

#[test]
fn the_first_claimant_of_an_earlier_terms_lease_wins() {
    let mut harness = Harness::in_claim_grace(30);
    harness.handle(SchedulerEvent::ExpectedWorkers((1..=3).map(NodeId).collect::<BTreeSet<_>>()));
    let old = Lease { job: JOB, range: range(10, 10), attempt: 1, term: Term(1) };
    let overlapping = Lease { range: range(5, 10), ..old };
    assert_eq!(harness.pull(1, 1, &[old]), ReplyPlan::default());
    assert_eq!(harness.pull(2, 0, &[overlapping]).cancelled, [overlapping]);
    assert_eq!(harness.leases(1), [old]);
    // The last expected worker ends the grace, and the waiting worker is served.
    let granted = reply_to(1, harness.receive(WorkerReport { wanted: 0, ..report(3) }));
    assert_eq!(granted.grants[0].range, range(0, 10));
    harness.commit(1, old);
    assert_eq!(harness.scheduler.pending(JOB), 10);
}

#[test]
fn a_coordinator_that_resumes_its_term_adopts_its_leases_during_the_grace() {
    let mut harness = Harness::in_claim_grace(30);
    harness.handle(SchedulerEvent::ExpectedWorkers((1..=3).map(NodeId).collect::<BTreeSet<_>>()));
    let granted_before = Lease { job: JOB, range: range(10, 10), attempt: 1, term: Term(2) };
    assert_eq!(harness.pull(1, 0, &[granted_before]), ReplyPlan::default());
    assert_eq!(harness.leases(1), [granted_before]);
    harness.advance(1_000);
    let late = Lease { range: range(0, 10), ..granted_before };
    assert_eq!(harness.pull(2, 0, &[late]).cancelled, [late]);
}

#[test]
fn a_late_commit_ends_the_lease_of_the_batchs_new_holder() {
    let mut harness = Harness::new(10, 2);
    let late = harness.pull_one(1);
    harness.handle(SchedulerEvent::WorkerDead(NodeId(1)));
    let lease = harness.pull_one(2);
    harness.commit(1, late);
    assert_eq!((harness.scheduler.leased(JOB), harness.scheduler.pending(JOB)), (0, 0));
    assert_eq!(harness.pull(2, 0, &[lease]).cancelled, [lease]);
}

#[test]
fn the_rest_of_a_shortened_lease_is_leased_again() {
    let mut harness = Harness::new(10, 2);
    let lease = harness.pull_one(1);
    let left = harness.scheduler.shorten(NodeId(1), lease, 4).unwrap();
    assert_eq!(left.range, range(0, 4));
    harness.scheduler.check().unwrap();
    harness.advance(10);
    let rest = harness.pull_one(2);
    assert_eq!((rest.range, rest.attempt), (range(4, 6), 1));
    assert_eq!(harness.scheduler.shorten(NodeId(2), rest, 0), None);
    harness.scheduler.check().unwrap();
    assert_eq!((harness.scheduler.leased(JOB), harness.scheduler.pending(JOB)), (4, 6));
}

/// A worker keeps the rows that fit, and neither answers nor blames the other queries.
#[test]
fn a_commit_of_a_part_returns_the_rest_at_once_and_uncharged() {
    let mut harness = Harness::new(10, 2);
    let lease = harness.pull_one(1);
    harness.handle(SchedulerEvent::Committed(Committed {
        worker: NodeId(1),
        job: JOB,
        batches: vec![CompletedBatch { refused: 10, ..completed(lease, 1_000) }],
        ranges: vec![range(0, 3)],
    }));
    assert!(harness.leases(1).is_empty(), "the commit ends the lease");
    let rest = harness.pull_one(1);
    assert_eq!(rest.range, range(3, 7), "without a pause, and at the same worker");
    assert_eq!((harness.scheduler.leased(JOB), harness.scheduler.pending(JOB)), (7, 0));
}

#[test]
fn a_stopped_job_completes_its_leases_and_a_new_batch_size_applies_to_the_next_grant() {
    let mut harness = Harness::new(100, 1);
    let lease = harness.pull_one(1);
    harness.handle(SchedulerEvent::Job(JobSpec { running: false, batch_size: 3.into(), ..spec(1, 100) }));
    assert_eq!(harness.pull(1, 1, &[lease]), ReplyPlan::default());
    assert_eq!(harness.scheduler.leased(JOB), 10);
    let granted =
        reply_to(1, harness.handle(SchedulerEvent::Job(JobSpec { batch_size: 3.into(), ..spec(1, 100) })));
    assert_eq!(granted.grants[0].range, range(10, 3));
    harness.commit(1, lease);
    assert_eq!(harness.scheduler.pending(JOB), 87);
}

#[test]
fn reported_times_do_not_overflow() {
    let mut harness = Harness::new(100, 2);
    for node in [1, 2, 1, 2] {
        let lease = harness.pull_one(node);
        harness.handle(SchedulerEvent::Committed(Committed {
            worker: NodeId(node),
            job: lease.job,
            batches: vec![completed(lease, u64::MAX)],
            ranges: vec![lease.range],
        }));
    }
    assert_eq!(harness.scheduler.assignments()[0].shares, [(JOB, 1.0)]);
}

#[test]
fn a_late_grant_of_an_earlier_term_is_cancelled_at_a_full_worker() {
    let mut harness = Harness::new(40, 1);
    let late = Lease { job: JOB, range: range(30, 10), attempt: 1, term: Term(1) };
    let held = harness.pull(1, 2, &[]).grants;
    assert_eq!(held.len(), 2);
    assert_eq!(harness.pull(1, 0, &[late]).cancelled, [late]);
    assert_eq!(harness.leases(1), held);
}

#[test]
fn queries_are_leased_only_to_workers_whose_program_reads_them() {
    let parquet = WorkerResources { reads_parquet: true, ..WorkerResources::default() };
    let references = WorkerResources { reads_references: true, ..WorkerResources::default() };
    for (needed, right, wrong) in [
        (ReadFeature::Parquet, parquet.clone(), references.clone()),
        (ReadFeature::References, references, parquet),
    ] {
        queries_are_leased_to_workers_that_read_them(needed, right, wrong);
    }
}

fn queries_are_leased_to_workers_that_read_them(
    needed: ReadFeature,
    right: WorkerResources,
    wrong: WorkerResources,
) {
    let mut harness = Harness::new(100, 0);
    harness.handle(SchedulerEvent::Job(JobSpec { needs: Some(needed), ..spec(1, 100) }));
    let other = WorkerReport { resources: wrong, ..report(1) };
    assert_eq!(reply_to(1, harness.receive(other)).grants, [], "it reads something else");
    let resources = right;
    let granted = reply_to(2, harness.receive(WorkerReport { resources, ..report(2) })).grants;
    assert_eq!(granted.len(), 1);
    // A fault of the only one that reads it is no reason to wait for the other.
    harness.fail(2, granted[0], FaultKind::Inference);
    assert_eq!(harness.pull(1, 1, &[]).grants, []);
}
