//! Batches that end the process of their model.

use super::*;

/// A batch that ran, and whether it crashed.
type RanBatch = (QueryRange, bool);

impl Harness {
    /// The worker reports that its model is loaded or not, and wants nothing.
    fn report_loaded(&mut self, node: u64, is_loaded: bool) {
        let models = report(node).models.into_iter().filter(|_| is_loaded).collect();
        let leases = self.leases(node);
        self.receive(WorkerReport { models, leases, wanted: 0, ..report(node) });
    }

    /// Four workers in turn run what they are leased, until nothing is left; a batch with this query crashes. Returns the
    /// batches in order, each with whether it crashed, and the dead queries with their attempts.
    fn run_with_crashing(&mut self, query: u64) -> (Vec<RanBatch>, Vec<(u64, u32)>) {
        let (mut ran, mut dead_letters) = (Vec::new(), Vec::new());
        for turn in 0..200u64 {
            let node = turn % 4 + 1;
            self.advance(500);
            let Some(lease) = self.pull(node, 1, &[]).grants.first().copied() else { continue };
            let crashes = lease.range.queries().contains(&query);
            ran.push((lease.range, crashes));
            if crashes {
                dead_letters.extend(dead(&self.fail(node, lease, FaultKind::Crash)));
            } else {
                self.commit(node, lease);
            }
        }
        (ran, dead_letters)
    }
}

#[test]
fn after_two_crashes_the_rows_are_leased_alone_and_after_the_others() {
    let mut harness = Harness::new(24, 4);
    harness.handle(SchedulerEvent::Job(JobSpec { batch_size: 8.into(), ..spec(1, 24) }));
    let (ran, dead_letters) = harness.run_with_crashing(5);
    let crashed: Vec<QueryRange> =
        ran.iter().filter(|(_, crashes)| *crashes).map(|(range, _)| *range).collect();
    assert_eq!(crashed, [range(0, 8), range(4, 4), range(5, 1), range(5, 1), range(5, 1)]);
    assert_eq!(dead_letters, [(5, 5)]);
    let first_alone = ran.iter().position(|(range, _)| range.count == 1).unwrap();
    let alone: BTreeSet<u64> = ran[first_alone..].iter().map(|(range, _)| range.first).collect();
    assert_eq!(alone, BTreeSet::from([4, 5, 6, 7]), "the half that crashed again");
    assert!(ran[first_alone..].iter().all(|(range, _)| range.count == 1), "the others came first: {ran:?}");
    assert_eq!(harness.scheduler.statistics().crashes, 5);
    assert_eq!(harness.scheduler.statistics().quarantined, 3 + 3);
}

#[test]
fn other_server_errors_send_no_query_into_quarantine() {
    let mut harness = Harness::new(10, 4);
    for node in 1..=2 {
        let lease = harness.pull_one(node);
        assert_eq!(lease.range.count, 10);
        harness.fail(node, lease, FaultKind::Inference);
        harness.advance(500);
    }
    assert_eq!(harness.pull_one(3).range.count, 10);
    assert_eq!((harness.scheduler.statistics().crashes, harness.scheduler.statistics().quarantined), (0, 0));
}

/// The rest of its batch was committed by another worker: nothing says that this query crashed alone.
#[test]
fn what_is_left_of_a_batch_that_crashed_did_not_crash_alone() {
    let mut harness = Harness::new(4, 4);
    let batch = harness.pull_one(1);
    assert_eq!(batch.range, range(0, 4));
    harness.handle(SchedulerEvent::Committed(Committed {
        worker: NodeId(9),
        job: JOB,
        batches: Vec::new(),
        ranges: vec![range(1, 3)],
    }));
    assert_eq!(dead(&harness.fail(1, batch, FaultKind::Crash)), []);
    let mut tries = Vec::new();
    for node in 2..=4 {
        let lease = harness.pull_one(node);
        assert_eq!(lease.range, range(0, 1));
        tries.push(dead(&harness.fail(node, lease, FaultKind::Crash)));
        harness.advance(500);
    }
    assert_eq!(tries, [vec![], vec![], vec![(0, 4)]], "three tries of its own");
}

/// A worker that takes 10 s to load the model again could have answered 10,000 queries of 1 ms.
#[test]
fn a_job_is_charged_for_the_time_until_the_model_runs_again() {
    let mut harness = Harness::new(100_000, 1);
    let first = harness.pull_one(1);
    harness.commit_measured(1, first, 10_000);
    let crashing = harness.pull_one(1);
    harness.fail(1, crashing, FaultKind::Crash);
    for second in 0..=10 {
        harness.report_loaded(1, second == 10);
        harness.advance(if second == 10 { 0 } else { 1_000 });
    }
    let jobs = &harness.scheduler.jobs;
    let charged = jobs[&JOB].service.virtual_time / jobs[&JOB].service.cost(1);
    assert_eq!(charged, 10 + 10 + 10_000, "a batch, a batch that crashed, and ten seconds");
}

/// Four workers run a job to its end; a batch with one of the crashing queries crashes. Returns the crashes until the queries
/// that are in no quarantine are answered, and in all; exactly the crashing queries are dead then.
fn crashes_of(queries: u64, batch: u32, crashing: &BTreeSet<u64>) -> (u64, u64) {
    let mut harness = Harness::new(queries, 4);
    harness.handle(SchedulerEvent::Job(JobSpec { batch_size: batch.into(), ..spec(1, queries) }));
    let (mut before_quarantine, mut dead_queries) = (0, BTreeSet::new());
    let (mut node, mut idle) = (0, 0);
    // A query's tries alone are at most two seconds apart.
    while idle < 100 {
        node = node % 4 + 1;
        harness.advance(25);
        let pulled = harness.receive(WorkerReport { wait_ms: 0, ..report(node) });
        let Some(lease) = reply_to(node, pulled).grants.first().copied() else {
            idle += 1;
            continue;
        };
        idle = 0;
        if lease.range.count > 1 {
            before_quarantine = harness.scheduler.statistics().crashes;
        }
        if crashing.range(lease.range.queries()).next().is_some() {
            dead_queries.extend(
                dead(&harness.fail(node, lease, FaultKind::Crash)).into_iter().map(|(query, _)| query),
            );
        } else {
            harness.commit(node, lease);
        }
    }
    assert_eq!(&dead_queries, crashing);
    assert_eq!(harness.scheduler.leased(JOB), 0);
    (before_quarantine, harness.scheduler.statistics().crashes)
}

#[test]
fn a_crashing_query_costs_five_crashes_whatever_its_batch() {
    for batch in [4, 16, 64, 1_024] {
        let (_, all) = crashes_of(10_240, batch, &BTreeSet::from([5_000]));
        println!("one query in batches of {batch}: {all} crashes");
        assert_eq!(all, 5, "in batches of {batch}");
    }
}

#[test]
fn the_other_queries_are_answered_before_the_quarantine() {
    let crashing: BTreeSet<u64> = (0..20).map(|n| 37 + n * 499).collect();
    let (before, all) = crashes_of(10_000, 64, &crashing);
    println!("20 queries of 10,000: {before} crashes before the last batch of several queries, {all} in all");
    assert!(before <= 2 * 20 && all <= 5 * 20, "{before} and {all} crashes");
}
