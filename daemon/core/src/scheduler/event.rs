//! The scheduler's inputs and outputs.

use std::collections::BTreeSet;
use std::sync::Arc;

use idunno_shared::ids::{Digest, JobId, NodeId};
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{BatchSize, Fault, Lease, Policy, QueryRange, Training, WorkerReport};
use idunno_shared::wire::records::RecordIdentity;
use idunno_shared::wire::resources::ReadFeature;

use crate::ranges::RangeSet;

/// A job as the metadata log describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// The job.
    pub id: JobId,
    /// The model that answers its queries.
    pub model: ModelName,
    /// The model version to which the job is pinned: no other version answers its queries.
    pub version: Digest,
    /// Queries per batch; a lease has at most
    /// [`BATCH_QUERIES_MAX`](idunno_shared::wire::jobs::BATCH_QUERIES_MAX).
    pub batch_size: BatchSize,
    /// Whether batches may be leased. Leases of a stopped job may still complete.
    pub running: bool,
    /// The queries that are neither answered nor dead.
    pub pending: RangeSet,
    /// The job's query rate relative to other jobs; at least 1, which is the default.
    pub weight: u32,
    /// What a worker's program must be built with to read its queries; not every one is.
    pub needs: Option<ReadFeature>,
}

/// An input of the scheduler.
///
/// Events that stem from the metadata log (`Job`, `JobEnded`, `Committed`, `DeadLettersCommitted` and the model events)
/// arrive in log order. At the start of a term every started, unfinished job precedes the first report.
#[derive(Clone, Debug, PartialEq)]
pub enum SchedulerEvent {
    /// A job started, or its state, batch size, weight or pending queries changed. Replaces the previous spec.
    Job(JobSpec),
    /// The sharing policy. A new scheduler assumes the default, equal rates.
    Policy(Policy),
    /// The job ended or was deleted: its leases are cancelled and no more are granted.
    JobEnded(JobId),
    /// The workers that membership considers live: the claim grace ends early once all of them have reported.
    ExpectedWorkers(BTreeSet<NodeId>),
    /// A worker's heartbeat and request for batches.
    Report(Arc<WorkerReport>),
    /// Membership declared the worker dead or saw it leave: its leases return at once.
    WorkerDead(NodeId),
    /// The log accepted the rows of a segment.
    Committed(Committed),
    /// Queries of a lease failed at the worker ([`JobRequest::Failed`](idunno_shared::wire::jobs::JobRequest)).
    /// Precedes the commit of the lease's other queries; otherwise the failed ones return without a fault. An inference
    /// fault names the range that failed as one call. The shell limits reasons to
    /// [`REASON_BYTES_MAX`](idunno_shared::wire::jobs::REASON_BYTES_MAX) bytes.
    Failed {
        /// The worker that ran the batch.
        worker: NodeId,
        /// The lease; it may have ended already.
        lease: Lease,
        /// The failed queries and the reasons.
        faults: Vec<Fault>,
    },
    /// The log recorded these queries as dead letters.
    DeadLettersCommitted {
        /// The job.
        job: JobId,
        /// The dead queries.
        queries: Vec<QueryRange>,
    },
    /// The log refused these dead letters: its state of the job does not allow them.
    DeadLettersRefused {
        /// The job.
        job: JobId,
        /// The queries that stay open.
        queries: Vec<QueryRange>,
    },
    /// A model is to be trained: sent for each untrained model at the start of a term, and on request. Restarts a model
    /// whose training was given up; changes nothing for a model in training.
    ModelWanted {
        /// The model.
        model: ModelName,
        /// The seed and dataset to train with.
        training: Training,
    },
    /// The log recorded the model's artefact.
    ModelTrained(ModelName),
    /// The model's training was cancelled.
    ModelGone(ModelName),
    /// A worker failed to train the model.
    TrainingFailed {
        /// The worker.
        worker: NodeId,
        /// The model.
        model: ModelName,
        /// The worker's reason.
        reason: String,
    },
    /// The deadline of [`Scheduler::next_deadline`](super::Scheduler::next_deadline) passed.
    Tick,
}

/// Rows that the log has accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The worker that committed them.
    pub worker: NodeId,
    /// The job.
    pub job: JobId,
    /// The committed batches. Their leases end; queries of theirs without an answer return.
    pub batches: Vec<CompletedBatch>,
    /// The queries of the commit that have an answer now, from this commit or an earlier one.
    pub ranges: Vec<QueryRange>,
}

/// A committed batch, with the measurements that size later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletedBatch {
    /// The lease under which it ran.
    pub lease: Lease,
    /// How many of its queries the model was asked for; the others had been answered by an earlier job.
    pub inferred: u32,
    /// The wall time of their inference in microseconds.
    pub inference_us: u64,
    /// Queries in the largest call that the model server refused as too large; 0 if it refused none.
    pub refused: u32,
}

/// An output of the scheduler, to be carried out in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchedulerEffect {
    /// Answer the worker's newest report. When a worker reports again before its last report is answered, the shell
    /// answers the older one with no orders before it passes on the newer one.
    Answer {
        /// The worker.
        worker: NodeId,
        /// What the worker is to do.
        reply: ReplyPlan,
    },
    /// Propose these queries as dead letters, then send [`SchedulerEvent::DeadLettersCommitted`] or
    /// [`SchedulerEvent::DeadLettersRefused`]. Repeated while the outcome is unknown and the term lasts; until then the
    /// queries are not leased.
    DeadLetter {
        /// The job.
        job: JobId,
        /// The queries, in order.
        dead_letters: Vec<DeadQuery>,
    },
    /// Pause the job, then send [`SchedulerEvent::Job`]. The job gets no leases until that event says it is running.
    PauseJob {
        /// The job.
        job: JobId,
        /// The reason shown to people.
        reason: String,
    },
    /// Workers were reassigned to jobs. Informational.
    Rebalanced {
        /// What triggered it.
        reason: RebalanceReason,
        /// The running jobs and the percentage of the workers due to each; `None` until its queries are measured.
        shares: Vec<(JobId, Option<u32>)>,
        /// The workers whose jobs changed, with their new jobs.
        reassigned: Vec<(NodeId, Vec<JobId>)>,
    },
    /// A worker lost a lease, and its open queries wait for another. Informational.
    LeaseLost {
        /// The worker.
        worker: NodeId,
        /// The lease.
        lease: Lease,
        /// Why it ended.
        reason: LossReason,
    },
    /// Record that the model's training has been given up.
    TrainingFailed {
        /// The model.
        model: ModelName,
        /// The reason of the last failure.
        reason: String,
    },
}

/// Why a worker lost a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// No report of the worker has renewed it in time.
    Expired,
    /// The worker's reports do not list it.
    Unlisted,
    /// The worker died, left or restarted.
    WorkerGone,
}

/// Why workers were reassigned to jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebalanceReason {
    /// The claim grace of a new term ended.
    TermStarted,
    /// A worker became able to run batches.
    WorkerJoined(NodeId),
    /// A worker died, drains, stopped reporting or lost its model server.
    WorkerLost(NodeId),
    /// A job started running, or its weight changed.
    JobStarted(JobId),
    /// A job was stopped or paused.
    JobStopped(JobId),
    /// A job has no queries left.
    JobEnded(JobId),
    /// The sharing policy changed to this one.
    PolicyChanged(Policy),
    /// Measured query times changed enough to matter.
    RatesChanged,
}

/// The answer to a worker's report. The shell adds input names, extents, holders and the models to load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyPlan {
    /// Batches to run.
    pub grants: Vec<Lease>,
    /// Reported leases that the worker no longer holds: it stops them and drops their rows.
    pub cancelled: Vec<Lease>,
    /// Models to train; at most one.
    pub train: Vec<(ModelName, Training)>,
    /// Why the worker is to restart its model server, if it is to.
    pub restart: Option<String>,
    /// Trainings to abandon.
    pub stop_training: Vec<ModelName>,
}

impl ReplyPlan {
    /// Whether the worker has nothing to do.
    pub fn is_empty(&self) -> bool {
        let trainings = self.train.len() + self.stop_training.len();
        let orders = self.grants.len() + self.cancelled.len() + trainings;
        orders == 0 && self.restart.is_none()
    }
}

/// A query whose attempts are used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadQuery {
    /// The query's number within the job.
    pub index: u64,
    /// The reason that the last worker gave.
    pub reason: String,
    /// The worker that failed last.
    pub worker: NodeId,
    /// Failed leases of the query, or of the ranges it was in.
    pub attempts: u32,
    /// The record's own id and label.
    pub identity: RecordIdentity,
}
