//! Model servers that several workers call.

use idunno_shared::wire::resources::SharedBackend;

use super::*;

/// A report of a worker that shares the backend of the test's model, which takes so many batches.
fn sharing(node: u64, in_flight: u16, leases: &[Lease]) -> WorkerReport {
    let backend = SharedBackend { id: "triton".to_owned(), in_flight, models: vec![model()] };
    let resources = WorkerResources { shared: vec![backend], ..WorkerResources::default() };
    WorkerReport { resources, wanted: 2, leases: leases.to_vec(), ..report(node) }
}

fn granted(harness: &mut Harness, node: u64, in_flight: u16) -> Vec<Lease> {
    let held = harness.leases(node);
    reply_to(node, harness.receive(sharing(node, in_flight, &held))).grants
}

#[test]
fn workers_that_share_a_backend_get_no_more_batches_than_it_takes() {
    let mut harness = Harness::new(1_000, 3);
    let first = granted(&mut harness, 1, 3);
    assert_eq!(first.len(), 2);
    assert_eq!(granted(&mut harness, 2, 3).len(), 1, "the third batch");
    assert_eq!(granted(&mut harness, 3, 3), [], "the backend is full");
    // Another worker's commit makes room, and the report that waits for it is answered.
    let effects = harness.commit(1, first[0]);
    let served: usize = (1..=3).map(|node| reply_to(node, effects.clone()).grants.len()).sum();
    assert_eq!(served, 1);
}

#[test]
fn a_batch_that_has_run_takes_no_room_of_the_backend() {
    let mut harness = Harness::new(1_000, 2);
    let first = granted(&mut harness, 1, 2);
    assert_eq!((first.len(), granted(&mut harness, 2, 2)), (2, vec![]));
    let ran = WorkerReport { awaiting_commit: 1, wanted: 0, ..sharing(1, 2, &first) };
    let effects = harness.receive(ran);
    assert_eq!(reply_to(2, effects).grants.len(), 1);
}

#[test]
fn the_smallest_number_that_a_worker_says_holds_and_other_workers_are_not_bound() {
    let mut harness = Harness::new(1_000, 3);
    harness.receive(WorkerReport { wanted: 0, ..sharing(1, 1, &[]) });
    assert_eq!(granted(&mut harness, 2, 8).len(), 1);
    assert_eq!(granted(&mut harness, 1, 1), []);
    assert_eq!(harness.pull(3, 2, &[]).grants.len(), 2, "it has a server of its own for the model");
}

#[test]
fn a_full_backend_leaves_its_workers_to_other_jobs() {
    let mut harness = Harness::new(1_000, 2);
    let other: ModelName = "other".parse().unwrap();
    harness.handle(SchedulerEvent::Job(JobSpec { model: other.clone(), ..spec(2, 1_000) }));
    let both = |node, leases: &[Lease]| WorkerReport {
        models: vec![
            (model(), ModelState::Ready(Digest::default())),
            (other.clone(), ModelState::Ready(Digest::default())),
        ],
        ..sharing(node, 1, leases)
    };
    let grants: Vec<Lease> =
        [1, 2].into_iter().flat_map(|node| reply_to(node, harness.receive(both(node, &[]))).grants).collect();
    assert_eq!(grants.len(), 4);
    assert_eq!(grants.iter().filter(|lease| lease.job == JOB).count(), 1, "{grants:?}");
}
