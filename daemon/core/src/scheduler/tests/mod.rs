//! One mechanism at a time. `tests/sim/scheduler` runs all of them together, over many seeds.

mod assignment;
mod crashes;
mod failures;
mod leases;
mod reports;
mod shared_backends;
mod stragglers;
mod training;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use idunno_shared::ids::{Digest, JobId, NodeId, Term};
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{
    Fault, FaultKind, Lease, ModelState, Policy, QueryRange, ServerState, Training, WorkerReport,
};
use idunno_shared::wire::resources::WorkerResources;

use super::{
    Committed, CompletedBatch, JobSpec, LossReason, RebalanceReason, ReplyPlan, Scheduler, SchedulerConfig,
    SchedulerEffect, SchedulerEvent,
};
use crate::ranges::RangeSet;
use crate::time::Instant;

const JOB: JobId = JobId(1);
const WAIT_MS: u32 = 1_000;

/// The reason of a rebalance, and each job's percentage of the workers.
type Rebalance = (RebalanceReason, Vec<(JobId, Option<u32>)>);

/// A scheduler with its clock, checked after each event.
struct Harness {
    scheduler: Scheduler,
    now: Instant,
    last_rebalance: Option<Rebalance>,
    lost: Vec<(NodeId, Lease, LossReason)>,
}

/// A batch whose queries were all answered by the model.
fn completed(lease: Lease, inference_us: u64) -> CompletedBatch {
    CompletedBatch { lease, inferred: lease.range.count, inference_us, refused: 0 }
}

impl Harness {
    /// One job of so many queries in batches of 10, and so many workers; the claim grace is over.
    fn new(queries: u64, workers: u64) -> Self {
        let mut harness = Self::in_claim_grace(queries);
        harness.advance(1_000);
        for node in 1..=workers {
            harness.receive(WorkerReport { wanted: 0, ..report(node) });
        }
        harness
    }

    fn in_claim_grace(queries: u64) -> Self {
        // Long after the driver's start, so that batches may have started earlier.
        let now = Instant::START + Duration::from_secs(1_000);
        let scheduler = Scheduler::new(SchedulerConfig::default(), Term(2), now);
        let mut harness = Self { scheduler, now, last_rebalance: None, lost: Vec::new() };
        harness.handle(SchedulerEvent::Job(spec(1, queries)));
        harness
    }

    /// The effects of an event, without the rebalances and the lost leases.
    fn handle(&mut self, event: SchedulerEvent) -> Vec<SchedulerEffect> {
        self.scheduler.handle(event, self.now);
        self.scheduler.check().unwrap();
        let mut effects: Vec<SchedulerEffect> = std::iter::from_fn(|| self.scheduler.poll_effect()).collect();
        effects.retain(|effect| match effect {
            SchedulerEffect::Rebalanced { reason, shares, .. } => {
                self.last_rebalance = Some((*reason, shares.clone()));
                false
            }
            SchedulerEffect::LeaseLost { worker, lease, reason } => {
                self.lost.push((*worker, *lease, *reason));
                false
            }
            _ => true,
        });
        effects
    }

    fn receive(&mut self, report: WorkerReport) -> Vec<SchedulerEffect> {
        self.handle(SchedulerEvent::Report(Arc::new(report)))
    }

    /// Lets time pass, with a tick at the end.
    fn advance(&mut self, millis: u64) -> Vec<SchedulerEffect> {
        self.now = self.now + Duration::from_millis(millis);
        self.handle(SchedulerEvent::Tick)
    }

    /// The immediate reply to a worker that reports these leases and wants so many batches.
    fn pull(&mut self, node: u64, wanted: u8, leases: &[Lease]) -> ReplyPlan {
        let pull = WorkerReport { wanted, leases: leases.to_vec(), ..report(node) };
        reply_to(node, self.receive(pull))
    }

    fn pull_one(&mut self, node: u64) -> Lease {
        let held: Vec<Lease> = self.leases(node);
        self.pull(node, 1, &held).grants[0]
    }

    fn leases(&self, node: u64) -> Vec<Lease> {
        self.scheduler.leases(NodeId(node)).collect()
    }

    /// The immediate reply to a worker that has been running the first of its leases for so long.
    fn report_running(&mut self, node: u64, leases: &[Lease], ms: u32) -> ReplyPlan {
        let report =
            WorkerReport { wanted: 0, leases: leases.to_vec(), running_ms: Some(ms), ..report(node) };
        reply_to(node, self.receive(report))
    }

    fn fail(&mut self, node: u64, lease: Lease, kind: FaultKind) -> Vec<SchedulerEffect> {
        let fault =
            Fault { ranges: vec![lease.range], kind, reason: "broken".into(), identities: Vec::new() };
        self.handle(SchedulerEvent::Failed { worker: NodeId(node), lease, faults: vec![fault] })
    }

    fn commit(&mut self, node: u64, lease: Lease) -> Vec<SchedulerEffect> {
        self.commit_measured(node, lease, 1_000)
    }

    /// Commits a batch whose inference took so many microseconds.
    fn commit_measured(&mut self, node: u64, lease: Lease, inference_us: u64) -> Vec<SchedulerEffect> {
        self.handle(SchedulerEvent::Committed(Committed {
            worker: NodeId(node),
            job: lease.job,
            batches: vec![completed(lease, inference_us)],
            ranges: vec![lease.range],
        }))
    }
}

fn model() -> ModelName {
    "model".parse().unwrap()
}

fn trained_with(seed: u64) -> Training {
    Training { seed, ..Training::default() }
}

fn spec(job: u64, queries: u64) -> JobSpec {
    JobSpec {
        id: JobId(job),
        model: model(),
        version: Digest::default(),
        batch_size: 10.into(),
        running: true,
        pending: RangeSet::from(0..queries),
        weight: 1,
        needs: None,
    }
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
        resources: WorkerResources::default(),
    }
}

/// The reply to the worker's report among the effects, or an empty one.
fn reply_to(node: u64, effects: Vec<SchedulerEffect>) -> ReplyPlan {
    let reply = effects.into_iter().find_map(|effect| match effect {
        SchedulerEffect::Answer { worker, reply } if worker == NodeId(node) => Some(reply),
        _ => None,
    });
    reply.unwrap_or_default()
}

/// The dead letters among the effects: query and attempts.
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
