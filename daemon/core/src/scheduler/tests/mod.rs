//! One mechanism at a time. All of them together, over many seeds: `tests/sim/scheduler`.

mod hang;
mod reports;
mod sharing;
mod speculation;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use idunno_shared::ids::{Digest, JobId, NodeId, Term};
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{
    Fault, FaultKind, Lease, ModelState, QueryRange, ServerState, Training, WorkerReport,
};

use super::{
    Committed, JobSpec, OrdersPlan, RanBatch, Scheduler, SchedulerConfig, SchedulerEffect, SchedulerEvent,
    SharedBecause,
};
use crate::ranges::RangeSet;
use crate::time::Instant;

const JOB: JobId = JobId(1);
const WAIT_MS: u32 = 1_000;

fn trained_with(seed: u64) -> Training {
    Training { seed, dataset: None }
}

/// Why the workers were shared, and each job's share.
type Shared = (SharedBecause, Vec<(JobId, Option<u32>)>);

/// A scheduler and its clock; checked after each event.
struct Bench {
    scheduler: Scheduler,
    now: Instant,
    /// What was said of the sharing last.
    shared: Option<Shared>,
}

impl Bench {
    /// One job of so many queries in batches of 10, and so many workers, the claim grace over.
    fn new(queries: u64, workers: u64) -> Self {
        let mut bench = Self::claiming(queries);
        bench.pass(1_000);
        for node in 1..=workers {
            bench.hear(WorkerReport { wanted: 0, ..report(node) });
        }
        bench
    }

    fn claiming(queries: u64) -> Self {
        // Long after the driver's start, so that batches can have begun before.
        let now = Instant::START + Duration::from_secs(1_000);
        let scheduler = Scheduler::new(SchedulerConfig::default(), Term(2), now);
        let mut bench = Self { scheduler, now, shared: None };
        bench.tell(SchedulerEvent::Job(spec(1, queries)));
        bench
    }

    fn tell(&mut self, event: SchedulerEvent) -> Vec<SchedulerEffect> {
        self.scheduler.handle(event, self.now);
        self.scheduler.check().unwrap();
        let mut effects: Vec<SchedulerEffect> = std::iter::from_fn(|| self.scheduler.poll_effect()).collect();
        effects.retain(|effect| match effect {
            SchedulerEffect::Shared { reason, shares, .. } => {
                self.shared = Some((*reason, shares.clone()));
                false
            }
            _ => true,
        });
        effects
    }

    /// What it does at once upon a worker's report.
    fn hear(&mut self, report: WorkerReport) -> Vec<SchedulerEffect> {
        self.tell(SchedulerEvent::Report(Arc::new(report)))
    }

    /// Lets time pass, with a tick at the end.
    fn pass(&mut self, millis: u64) -> Vec<SchedulerEffect> {
        self.now = self.now + Duration::from_millis(millis);
        self.tell(SchedulerEvent::Tick)
    }

    /// The worker reports these leases and wants so many batches; its orders, if they come at once.
    fn pull(&mut self, node: u64, wanted: u8, leases: &[Lease]) -> OrdersPlan {
        let asked = WorkerReport { wanted, leases: leases.to_vec(), ..report(node) };
        orders(node, self.hear(asked))
    }

    fn pull_one(&mut self, node: u64) -> Lease {
        let held: Vec<Lease> = self.scheduler.leases(NodeId(node)).collect();
        self.pull(node, 1, &held).grants[0]
    }

    fn fail(&mut self, node: u64, lease: Lease, kind: FaultKind) -> Vec<SchedulerEffect> {
        let fault = Fault { ranges: vec![lease.range], kind, reason: "broken".into() };
        self.tell(SchedulerEvent::Failed { worker: NodeId(node), lease, faults: vec![fault] })
    }

    fn commit(&mut self, node: u64, lease: Lease) -> Vec<SchedulerEffect> {
        self.tell(SchedulerEvent::Committed(Committed {
            worker: NodeId(node),
            job: lease.job,
            batches: vec![RanBatch { lease, inference_us: 1_000, refused: 0 }],
            ranges: vec![lease.range],
        }))
    }
}

fn model() -> ModelName {
    "model".parse().unwrap()
}

fn spec(job: u64, queries: u64) -> JobSpec {
    let pending = RangeSet::from(0..queries);
    let (version, running) = (Digest::default(), true);
    JobSpec { id: JobId(job), model: model(), version, batch_size: 10.into(), running, pending, weight: 1 }
}

fn report(node: u64) -> WorkerReport {
    WorkerReport {
        worker: NodeId(node),
        generation: 1,
        server: ServerState::Ready,
        models: vec![(model(), ModelState::Ready(Digest::default()))],
        leases: Vec::new(),
        awaiting_commit: 0,
        wanted: 1,
        wait_ms: WAIT_MS,
        draining: false,
        offers: None,
        running_ms: None,
        number: 0,
        trainings: Vec::new(),
    }
}

fn orders(node: u64, effects: Vec<SchedulerEffect>) -> OrdersPlan {
    let plan = effects.into_iter().find_map(|effect| match effect {
        SchedulerEffect::Answer { worker, plan } if worker == NodeId(node) => Some(plan),
        _ => None,
    });
    plan.unwrap_or_default()
}

fn dead(effects: &[SchedulerEffect]) -> Vec<(u64, u32)> {
    let dead_letters = effects.iter().filter_map(|effect| match effect {
        SchedulerEffect::DeadLetter { dead_letters, .. } => Some(dead_letters),
        _ => None,
    });
    dead_letters.flatten().map(|dead_letter| (dead_letter.index, dead_letter.attempts)).collect()
}

fn range(first: u64, count: u32) -> QueryRange {
    QueryRange { first, count }
}

#[test]
fn a_report_is_answered_when_work_appears_or_its_wait_is_over() {
    let mut bench = Bench::new(0, 2);
    assert_eq!(bench.hear(report(1)), Vec::new());
    let granted = orders(1, bench.tell(SchedulerEvent::Job(spec(1, 15))));
    assert_eq!(granted.grants[0].range, range(0, 10));
    assert_eq!(bench.pull(2, 1, &[]).grants[0].range, range(10, 5));
    assert_eq!(bench.hear(WorkerReport { worker: NodeId(3), ..report(3) }), Vec::new());
    let answered = bench.pass(WAIT_MS.into());
    assert!(answered.contains(&SchedulerEffect::Answer { worker: NodeId(3), plan: OrdersPlan::default() }));
    let heartbeat = WorkerReport { wait_ms: 0, ..report(3) };
    assert_eq!(bench.hear(heartbeat).len(), 1);
}

#[test]
fn the_dead_and_the_restarted_lose_their_leases_at_once() {
    let mut bench = Bench::new(30, 3);
    let first = bench.pull_one(1);
    bench.tell(SchedulerEvent::WorkerDead(NodeId(1)));
    let again = bench.pull_one(2);
    assert_eq!((again.range, again.attempt), (first.range, 2));
    bench.hear(WorkerReport { generation: 2, wanted: 0, ..report(2) });
    assert_eq!(bench.pull_one(3).attempt, 3);
    assert_eq!(bench.pull(1, 0, &[first]).cancelled, [first]);
}

#[test]
fn an_unrenewed_lease_expires() {
    let mut bench = Bench::new(10, 1);
    let lease = bench.pull_one(1);
    bench.pass(4_000);
    bench.pull(1, 0, &[lease]);
    bench.pass(4_000);
    assert_eq!(bench.scheduler.leased(JOB), 10);
    bench.pass(1_000);
    assert_eq!((bench.scheduler.leased(JOB), bench.scheduler.statistics().expired), (0, 1));
}

#[test]
fn a_report_that_crossed_the_grant_takes_nothing_back() {
    let mut bench = Bench::new(10, 1);
    let lease = bench.pull_one(1);
    bench.pull(1, 0, &[]);
    assert_eq!(bench.scheduler.leased(JOB), 10);
    bench.pull(1, 0, &[lease]);
    bench.pass(500);
    bench.pull(1, 0, &[]);
    bench.pass(1_000);
    assert_eq!(bench.scheduler.leased(JOB), 10);
    bench.pull(1, 0, &[]);
    assert_eq!((bench.scheduler.leased(JOB), bench.scheduler.statistics().absent), (0, 1));
}

#[test]
fn the_first_claimant_of_an_older_lease_wins() {
    let mut bench = Bench::claiming(30);
    bench.tell(SchedulerEvent::ExpectedWorkers((1..=3).map(NodeId).collect::<BTreeSet<_>>()));
    let old = Lease { job: JOB, range: range(10, 10), attempt: 1, term: Term(1) };
    let overlapping = Lease { range: range(5, 10), ..old };
    assert_eq!(bench.pull(1, 1, &[old]), OrdersPlan::default());
    assert_eq!(bench.pull(2, 0, &[overlapping]).cancelled, [overlapping]);
    assert_eq!(bench.scheduler.leases(NodeId(1)).collect::<Vec<_>>(), [old]);
    // The last of the expected ends the grace: the worker that waits is served.
    let granted = orders(1, bench.hear(WorkerReport { wanted: 0, ..report(3) }));
    assert_eq!(granted.grants[0].range, range(0, 10));
    bench.commit(1, old);
    assert_eq!(bench.scheduler.pending(JOB), 10);
}

#[test]
fn a_coordinator_that_resumes_its_term_takes_its_leases_up_until_the_grace_is_over() {
    let mut bench = Bench::claiming(30);
    bench.tell(SchedulerEvent::ExpectedWorkers((1..=3).map(NodeId).collect::<BTreeSet<_>>()));
    let granted_before = Lease { job: JOB, range: range(10, 10), attempt: 1, term: Term(2) };
    assert_eq!(bench.pull(1, 0, &[granted_before]), OrdersPlan::default());
    assert_eq!(bench.scheduler.leases(NodeId(1)).collect::<Vec<_>>(), [granted_before]);
    bench.pass(1_000);
    let late = Lease { range: range(0, 10), ..granted_before };
    assert_eq!(bench.pull(2, 0, &[late]).cancelled, [late]);
}

#[test]
fn a_late_commit_ends_the_lease_of_whoever_runs_the_batch_now() {
    let mut bench = Bench::new(10, 2);
    let late = bench.pull_one(1);
    bench.tell(SchedulerEvent::WorkerDead(NodeId(1)));
    let lease = bench.pull_one(2);
    bench.commit(1, late);
    assert_eq!((bench.scheduler.leased(JOB), bench.scheduler.pending(JOB)), (0, 0));
    assert_eq!(bench.pull(2, 0, &[lease]).cancelled, [lease]);
}

#[test]
fn a_bad_input_is_tried_on_one_other_worker() {
    let mut bench = Bench::new(1, 3);
    let lease = bench.pull_one(1);
    assert_eq!(dead(&bench.fail(1, lease, FaultKind::BadInput)), []);
    assert_eq!(bench.pull(1, 1, &[]).grants, [], "it failed here");
    let lease = bench.pull_one(2);
    assert_eq!(dead(&bench.fail(2, lease, FaultKind::BadInput)), [(0, 2)]);
    bench.tell(SchedulerEvent::DeadLettersCommitted { job: JOB, queries: vec![range(0, 1)] });
    assert_eq!(bench.scheduler.pending(JOB), 0);
    let mut alone = Bench::new(1, 1);
    let lease = alone.pull_one(1);
    assert_eq!(dead(&alone.fail(1, lease, FaultKind::BadInput)), [(0, 1)]);
}

/// One poisoned query in a batch of 8: three workers each, then halves; nobody beside it dies.
#[test]
fn a_poisoned_batch_is_halved_down_to_its_query() {
    let mut bench = Bench::new(16, 4);
    bench.tell(SchedulerEvent::Job(JobSpec { batch_size: 8.into(), ..spec(1, 16) }));
    let (mut runs, mut dead_letters) = (0, Vec::new());
    for turn in 0..200u64 {
        let node = turn % 4 + 1;
        bench.pass(500);
        if let Some(lease) = bench.pull(node, 1, &[]).grants.first() {
            if (lease.range.first..lease.range.end()).contains(&5) {
                runs += 1;
                dead_letters.extend(dead(&bench.fail(node, *lease, FaultKind::Inference)));
            } else {
                bench.commit(node, *lease);
            }
        }
    }
    assert_eq!((runs, dead_letters), (12, vec![(5, 12)]));
}

#[test]
fn a_failed_range_avoids_who_failed_it_unless_nobody_else_is_there() {
    let mut bench = Bench::new(10, 2);
    let lease = bench.pull_one(1);
    bench.fail(1, lease, FaultKind::Inference);
    bench.pass(200);
    assert_eq!(bench.pull(1, 1, &[]).grants, []);
    let granted = orders(1, bench.tell(SchedulerEvent::WorkerDead(NodeId(2))));
    assert_eq!(granted.grants[0].range, lease.range);
}

#[test]
fn an_unreadable_input_is_waited_for_with_growing_delays_before_it_is_dead() {
    let mut bench = Bench::new(1, 1);
    let mut delays = Vec::new();
    let begun = bench.now;
    loop {
        let mut waited = 0;
        let mut plan = bench.pull(1, 1, &[]);
        while plan.grants.is_empty() {
            bench.pull(1, 1, &[]);
            plan = orders(1, bench.pass(500));
            waited += 500;
        }
        let lease = plan.grants[0];
        delays.push(waited);
        let dead_letters = dead(&bench.fail(1, lease, FaultKind::Fetch));
        if !dead_letters.is_empty() {
            break;
        }
    }
    assert_eq!(delays[..7], [0, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
    let waited = bench.now.since(begun);
    assert!(
        (600..620).contains(&waited.as_secs()),
        "a restart of the whole cluster takes less than {waited:?}"
    );
}

#[test]
fn an_unreadable_range_is_halved_when_the_patience_is_over() {
    let mut bench = Bench::new(10, 1);
    let mut dead_letters = Vec::new();
    while dead_letters.is_empty() {
        let mut plan = bench.pull(1, 1, &[]);
        while plan.grants.is_empty() {
            bench.pull(1, 1, &[]);
            plan = orders(1, bench.pass(1_000));
        }
        let lease = plan.grants[0];
        if lease.range.first + u64::from(lease.range.count) == 10 {
            dead_letters.extend(dead(&bench.fail(1, lease, FaultKind::Fetch)));
        } else {
            bench.commit(1, lease);
        }
    }
    assert_eq!(dead_letters.len(), 1, "only what cannot be read is given up: {dead_letters:?}");
    assert_eq!(bench.scheduler.pending(JOB), 1);
}

#[test]
fn a_lease_that_is_too_large_to_tell_is_shortened_and_its_rest_leased_again() {
    let mut bench = Bench::new(10, 2);
    let lease = bench.pull_one(1);
    let left = bench.scheduler.shorten(NodeId(1), lease, 4).unwrap();
    assert_eq!(left.range, range(0, 4));
    bench.scheduler.check().unwrap();
    bench.pass(10);
    let rest = bench.pull_one(2);
    assert_eq!((rest.range, rest.attempt), (range(4, 6), 1));
    assert_eq!(bench.scheduler.shorten(NodeId(2), rest, 0), None);
    bench.scheduler.check().unwrap();
    assert_eq!((bench.scheduler.leased(JOB), bench.scheduler.pending(JOB)), (4, 6));
}

#[test]
fn a_failure_that_is_told_twice_counts_once() {
    let mut bench = Bench::new(1, 3);
    let lease = bench.pull_one(1);
    bench.fail(1, lease, FaultKind::BadInput);
    bench.fail(1, lease, FaultKind::BadInput);
    let lease = bench.pull_one(2);
    assert_eq!(dead(&bench.fail(2, lease, FaultKind::BadInput)), [(0, 2)], "two leases failed");
}

#[test]
fn dead_letters_that_the_log_refuses_are_tried_anew() {
    let mut bench = Bench::new(1, 1);
    let lease = bench.pull_one(1);
    bench.fail(1, lease, FaultKind::BadInput);
    assert_eq!(bench.pull(1, 1, &[]).grants, []);
    let effects = bench.tell(SchedulerEvent::DeadLettersRefused { job: JOB, queries: vec![range(0, 1)] });
    assert_eq!(orders(1, effects).grants[0].range, range(0, 1));
}

#[test]
fn no_sum_of_what_workers_say_overflows() {
    let mut bench = Bench::new(100, 2);
    for node in [1, 2, 1, 2] {
        let lease = bench.pull_one(node);
        bench.tell(SchedulerEvent::Committed(Committed {
            worker: NodeId(node),
            job: lease.job,
            batches: vec![RanBatch { lease, inference_us: u64::MAX, refused: 0 }],
            ranges: vec![lease.range],
        }));
    }
    assert_eq!(bench.scheduler.assignments()[0].shares, [(JOB, 1.0)]);
}

#[test]
fn a_worker_at_fault_rests_and_the_batch_is_not_blamed() {
    let mut bench = Bench::new(10, 2);
    let lease = bench.pull_one(1);
    bench.fail(1, lease, FaultKind::Worker);
    assert_eq!(bench.pull(1, 1, &[]).grants, [], "it rests");
    assert_eq!(bench.pull(2, 1, &[]).grants[0].range, lease.range);
    bench.tell(SchedulerEvent::WorkerDead(NodeId(2)));
    let rested = orders(1, bench.pass(1_000));
    assert_eq!(rested.grants[0].range, lease.range);
}

#[test]
fn a_job_that_fails_everywhere_is_paused_and_runs_again_when_resumed() {
    let mut bench = Bench::new(1_000, 3);
    let mut paused = Vec::new();
    for turn in 0..10 {
        let node = turn % 3 + 1;
        let lease = bench.pull_one(node);
        paused.extend(bench.fail(node, lease, FaultKind::Inference));
    }
    assert!(matches!(paused.as_slice(), [SchedulerEffect::PauseJob { job: JOB, .. }]), "{paused:?}");
    assert_eq!(bench.pull(1, 1, &[]).grants, []);
    bench.tell(SchedulerEvent::Job(JobSpec { running: false, ..spec(1, 1_000) }));
    bench.pass(1_000);
    let resumed = bench.tell(SchedulerEvent::Job(spec(1, 1_000)));
    assert!(resumed.is_empty(), "nobody waits: {resumed:?}");
    assert_eq!(bench.pull(1, 1, &[]).grants.len(), 1);
}

#[test]
fn answers_that_await_their_commit_keep_a_job_from_being_paused() {
    let mut bench = Bench::new(1_000, 3);
    let answered = bench.pull_one(3);
    bench.hear(WorkerReport { leases: vec![answered], awaiting_commit: 1, wanted: 0, ..report(3) });
    for turn in 0..20 {
        let node = turn % 2 + 1;
        let lease = bench.pull_one(node);
        let effects = bench.fail(node, lease, FaultKind::Inference);
        assert!(
            !effects.iter().any(|effect| matches!(effect, SchedulerEffect::PauseJob { .. })),
            "{effects:?}"
        );
    }
    bench.commit(3, answered);
}

#[test]
fn a_stop_lets_leases_finish_and_a_batch_size_holds_from_the_next_cut() {
    let mut bench = Bench::new(100, 1);
    let lease = bench.pull_one(1);
    bench.tell(SchedulerEvent::Job(JobSpec { running: false, batch_size: 3.into(), ..spec(1, 100) }));
    assert_eq!(bench.pull(1, 1, &[lease]), OrdersPlan::default());
    assert_eq!(bench.scheduler.leased(JOB), 10);
    let granted =
        orders(1, bench.tell(SchedulerEvent::Job(JobSpec { batch_size: 3.into(), ..spec(1, 100) })));
    assert_eq!(granted.grants[0].range, range(10, 3));
    bench.commit(1, lease);
    assert_eq!(bench.scheduler.pending(JOB), 87);
}

#[test]
fn retried_dead_letters_are_leased_again() {
    let mut bench = Bench::new(1, 1);
    let lease = bench.pull_one(1);
    bench.fail(1, lease, FaultKind::BadInput);
    bench.tell(SchedulerEvent::DeadLettersCommitted { job: JOB, queries: vec![range(0, 1)] });
    bench.tell(SchedulerEvent::JobEnded(JOB));
    bench.tell(SchedulerEvent::Job(spec(1, 1)));
    let again = bench.pull_one(1);
    assert_eq!(again, lease);
    assert_eq!(dead(&bench.fail(1, again, FaultKind::BadInput)), [(0, 1)], "and fail again");
}

#[test]
fn a_model_is_trained_by_one_worker_and_by_another_when_that_is_lost() {
    let mut bench = Bench::new(0, 2);
    bench.tell(SchedulerEvent::ModelWanted { model: "new".parse().unwrap(), training: trained_with(7) });
    let trainer = |bench: &Bench| bench.scheduler.trainings().map(|(_, node)| node).collect::<Vec<_>>();
    assert_eq!(trainer(&bench), [NodeId(1)]);
    bench.tell(SchedulerEvent::ModelWanted { model: "newer".parse().unwrap(), training: trained_with(7) });
    assert_eq!(trainer(&bench), [NodeId(1), NodeId(2)]);
    bench.tell(SchedulerEvent::ModelGone("newer".parse().unwrap()));
    bench.pass(u64::from(WAIT_MS));
    assert_eq!(bench.pull(1, 0, &[]).train.len(), 0, "told while its report waited");
    let lost = bench.tell(SchedulerEvent::WorkerDead(NodeId(1)));
    assert_eq!(trainer(&bench), [NodeId(2)], "{lost:?}");
    let mut failed = Vec::new();
    for _ in 0..3 {
        let (worker, model, reason) = (NodeId(2), "new".parse().unwrap(), "no".to_owned());
        failed.extend(bench.tell(SchedulerEvent::TrainingFailed { worker, model, reason }));
    }
    assert!(failed.iter().any(|effect| matches!(effect, SchedulerEffect::TrainingFailed { .. })));
    assert!(trainer(&bench).is_empty());
    bench.tell(SchedulerEvent::ModelWanted { model: "new".parse().unwrap(), training: trained_with(7) });
    assert_eq!(trainer(&bench), [NodeId(2)]);
}

#[test]
fn whoever_trains_what_nobody_wants_is_told_to_stop() {
    let mut bench = Bench::new(0, 2);
    let new: ModelName = "new".parse().unwrap();
    bench.tell(SchedulerEvent::ModelWanted { model: new.clone(), training: trained_with(7) });
    let trains = |node, bench: &mut Bench| {
        let models = vec![(new.clone(), ModelState::Training)];
        orders(node, bench.hear(WorkerReport { models, wait_ms: 0, ..report(node) })).stop_training
    };
    assert_eq!(trains(1, &mut bench), [], "it is the one that is wanted");
    assert_eq!(trains(2, &mut bench), std::slice::from_ref(&new), "another one does it");
    bench.tell(SchedulerEvent::ModelGone(new.clone()));
    assert_eq!(trains(1, &mut bench), std::slice::from_ref(&new), "it was given up");
}

#[test]
fn what_is_wanted_anew_is_ordered_as_it_is_wanted_now() {
    let mut bench = Bench::new(0, 1);
    let new: ModelName = "new".parse().unwrap();
    for seed in [7, 8] {
        bench.tell(SchedulerEvent::ModelWanted { model: new.clone(), training: trained_with(seed) });
        bench.pass(u64::from(WAIT_MS) + 2_000);
        let ordered = bench.pull(1, 0, &[]).train;
        assert_eq!(ordered, [(new.clone(), trained_with(seed))]);
    }
}

#[test]
fn shares_are_those_of_the_inference_time() {
    let mut bench = Bench::new(100, 1);
    bench.tell(SchedulerEvent::Job(spec(2, 100)));
    for _ in 0..4 {
        let lease = bench.pull_one(1);
        bench.commit(1, lease);
    }
    let assigned = bench.scheduler.assignments();
    assert_eq!(assigned[0].shares, [(JobId(1), 0.5), (JobId(2), 0.5)]);
    assert_eq!(assigned[0].current, []);
}

#[test]
fn batches_that_have_run_keep_a_worker_from_nothing() {
    let mut bench = Bench::new(100, 1);
    let held = [bench.pull_one(1), bench.pull_one(1)];
    assert_eq!(bench.pull(1, 1, &held), OrdersPlan::default(), "two are at work");
    let ran = WorkerReport { wanted: 1, leases: held.to_vec(), awaiting_commit: 1, ..report(1) };
    let granted = orders(1, bench.hear(ran)).grants;
    assert_eq!(granted.len(), 1, "one of the two has run");
}
