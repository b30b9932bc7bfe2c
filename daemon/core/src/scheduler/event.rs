//! What goes into the scheduler and what comes out.

use std::collections::BTreeSet;
use std::sync::Arc;

use idunno_shared::ids::{Digest, JobId, NodeId};
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{BatchSize, Fault, Lease, Policy, QueryRange, Training, WorkerReport};

use crate::ranges::RangeSet;

/// A job as the metadata has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// The job.
    pub id: JobId,
    /// Its model.
    pub model: ModelName,
    /// The version that the job is pinned to: no other answers its queries.
    pub version: Digest,
    /// Queries per batch; at most [`BATCH_QUERIES_MAX`](idunno_shared::wire::jobs::BATCH_QUERIES_MAX) are leased at once.
    pub batch_size: BatchSize,
    /// Whether batches may be leased; a stopped job's leases may finish.
    pub running: bool,
    /// The queries that are neither answered nor dead.
    pub pending: RangeSet,
    /// Its share against other jobs' weights, in queries per second; at least 1. Ordinary jobs have 1.
    pub weight: u32,
}

/// What happened.
///
/// Events that stem from the metadata log (`Job`, `JobEnded`, `Committed`, `DeadLettersCommitted`, and the model
/// events) come in log order. On term start every unfinished started job comes before the first report.
#[derive(Clone, Debug, PartialEq)]
pub enum SchedulerEvent {
    /// A job started, or changed: state, batch size, weight, dead letters to be tried again. Replaces what was known.
    Job(JobSpec),
    /// In what jobs are equal from now on; by rate before it is said.
    Policy(Policy),
    /// The job is done or gone: nothing more is leased, its leases are cancelled.
    JobEnded(JobId),
    /// The workers that are alive as far as membership knows: once all have reported, the claim grace is over early.
    ExpectedWorkers(BTreeSet<NodeId>),
    /// A worker's heartbeat and pull.
    Report(Arc<WorkerReport>),
    /// Membership says that the worker is dead or has left: its leases return at once.
    WorkerDead(NodeId),
    /// The log accepted a segment's rows.
    Committed(Committed),
    /// These queries of a lease failed at the worker ([`JobRequest::Failed`](idunno_shared::wire::jobs::JobRequest)).
    /// Sent before the commit of the rest, or the rest's end returns them unblamed. An inference failure names the
    /// range that failed as one. Reasons are at most
    /// [`REASON_BYTES_MAX`](idunno_shared::wire::jobs::REASON_BYTES_MAX) long: the shell sees to that.
    Failed {
        /// The worker.
        worker: NodeId,
        /// The lease; it may have ended already.
        lease: Lease,
        /// What failed.
        faults: Vec<Fault>,
    },
    /// The log holds these dead letters.
    DeadLettersCommitted {
        /// The job.
        job: JobId,
        /// The queries.
        queries: Vec<QueryRange>,
    },
    /// The log refused these dead letters: it does not know them as such.
    DeadLettersRefused {
        /// The job.
        job: JobId,
        /// The queries.
        queries: Vec<QueryRange>,
    },
    /// A model is to be trained: on term start for each model that waits for it, and when a person asks. Asking
    /// again for one that failed for good starts over; for one in training it changes nothing.
    ModelWanted {
        /// The model.
        model: ModelName,
        /// What from.
        training: Training,
    },
    /// The log has the model's artefact.
    ModelTrained(ModelName),
    /// The model is no longer wanted.
    ModelGone(ModelName),
    /// A worker could not train the model.
    TrainingFailed {
        /// The worker.
        worker: NodeId,
        /// The model.
        model: ModelName,
        /// Why.
        reason: String,
    },
    /// A deadline passed.
    Tick,
}

/// Rows that the log has accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The worker that committed.
    pub worker: NodeId,
    /// The job.
    pub job: JobId,
    /// The committed batches. Their leases end; their queries without an answer return.
    pub batches: Vec<RanBatch>,
    /// All queries of the commit that have an answer now, by this commit or an earlier one.
    pub ranges: Vec<QueryRange>,
}

/// A batch that was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RanBatch {
    /// Its lease.
    pub lease: Lease,
    /// The wall time of its inference in microseconds.
    pub inference_us: u64,
    /// The most queries of a call that the model server refused as too much at once; 0 if it took all.
    pub refused: u32,
}

/// What is to be done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchedulerEffect {
    /// Answer the worker's newest report. When a report comes while an older one of the same worker is unanswered,
    /// the shell answers the older with empty orders, before it hands over the newer.
    Answer {
        /// The worker.
        worker: NodeId,
        /// The answer.
        plan: OrdersPlan,
    },
    /// Put these queries among the job's dead letters, then say [`SchedulerEvent::DeadLettersCommitted`], or
    /// [`SchedulerEvent::DeadLettersRefused`]. To be repeated while the outcome is unknown and this term lasts: the queries are
    /// not leased meanwhile.
    DeadLetter {
        /// The job.
        job: JobId,
        /// The queries, in order.
        dead_letters: Vec<DeadQuery>,
    },
    /// Pause the job, then say [`SchedulerEvent::Job`]. Nothing of it is leased until that event says that it runs.
    PauseJob {
        /// The job.
        job: JobId,
        /// Why, for a person.
        reason: String,
    },
    /// The workers are shared among the jobs anew. For people: nothing is to be done.
    Shared {
        /// Why.
        reason: SharedBecause,
        /// The jobs that run and the share of the workers that each is due, in percent; `None` while its queries are
        /// not measured.
        shares: Vec<(JobId, Option<u32>)>,
        /// The workers that are assigned to other jobs than before, and to which now.
        reassigned: Vec<(NodeId, Vec<JobId>)>,
    },
    /// Record that the model's training failed for good.
    TrainingFailed {
        /// The model.
        model: ModelName,
        /// The last reason.
        reason: String,
    },
}

/// Why the workers are shared anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedBecause {
    /// All workers have had time to claim what they run.
    TermBegins,
    /// A worker can run batches from now on.
    WorkerComes(NodeId),
    /// A worker is gone, drains, falls silent, or has no model server.
    WorkerGoes(NodeId),
    /// A job runs, or has another weight.
    JobRuns(JobId),
    /// A job is stopped or paused.
    JobStops(JobId),
    /// A job has no more queries.
    JobEnds(JobId),
    /// The policy is another.
    Policy(Policy),
    /// Queries take another time than they did.
    RatesMoved,
}

/// An answer to a report. The shell adds names, extents, holders, and the models to load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrdersPlan {
    /// Batches to run.
    pub grants: Vec<Lease>,
    /// Reported leases that are not the worker's: stop them, drop their rows.
    pub cancelled: Vec<Lease>,
    /// Models to train; at most one.
    pub train: Vec<(ModelName, Training)>,
    /// The model server hangs and is to be restarted: why.
    pub restart: Option<String>,
    /// Models that it trains and nobody wants.
    pub stop_training: Vec<ModelName>,
}

impl OrdersPlan {
    /// Whether it orders nothing.
    pub fn is_empty(&self) -> bool {
        let trainings = self.train.len() + self.stop_training.len();
        let orders = self.grants.len() + self.cancelled.len() + trainings;
        orders == 0 && self.restart.is_none()
    }
}

/// A query that failed for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadQuery {
    /// Its number.
    pub index: u64,
    /// Why, as the worker said it last.
    pub reason: String,
    /// The worker that failed last.
    pub worker: NodeId,
    /// How many leases failed on it, or on the range it was in.
    pub attempts: u32,
}
