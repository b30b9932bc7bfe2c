//! JSON of commands on jobs.

use std::collections::BTreeMap;

use idunno_shared::wire::control::{Distribution, JobView, LeaseStage as WireStage, LeaseView, Reuse};
use idunno_shared::wire::jobs::Parameters;
use idunno_shared::wire::webhooks::WebhookView;
use schemars::JsonSchema;
use serde::Serialize;

use super::document::documents;
use super::records::RecordsRead;
use super::text;
use super::words::{BatchSize, JobState, LeaseStage, Policy};

documents!(
    AddedJob,
    JobBatchSize,
    JobWeight,
    SharingPolicy,
    StoppedJobs,
    CancelledJob,
    DeletedJob,
    JobExplanation
);
documents!(listed StartedJob, JobStats, JobAssignment, Lease);

/// `add-job`: the job that was added.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct AddedJob {
    /// The job's number, such as `job-1`.
    pub job: String,
    /// The job's name, if it was given one.
    pub name: Option<String>,
    /// The model that answers its queries.
    pub model: String,
    /// The dataset that it runs over.
    pub dataset: String,
    /// Queries per batch.
    pub batch_size: BatchSize,
    /// Parameters that are passed to the model.
    pub parameters: BTreeMap<String, String>,
}

/// `set-batch-size`: the job's new batch size.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct JobBatchSize {
    /// The job's number.
    pub job: String,
    /// Queries per batch from now on.
    pub batch_size: BatchSize,
}

/// `set-weight`: the job's new weight.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct JobWeight {
    /// The job's number.
    pub job: String,
    /// The job's share relative to other jobs' weights.
    pub weight: u32,
}

/// `set-policy`: how workers are shared from now on.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct SharingPolicy {
    /// The policy.
    pub policy: Policy,
}

/// `start-job`: a job that runs now, or is done already.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct StartedJob {
    /// The job's number.
    pub job: String,
    /// Queries of the job.
    pub submitted: u64,
    /// Whether this command started it; false where it ran already or was done.
    pub started: bool,
    /// How its records are read; null if its dataset is no file of records.
    pub records: Option<RecordsRead>,
}

/// `explain`: why a job runs as it does, or does not run.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct JobExplanation {
    /// The job's number.
    pub job: String,
    /// The job's state.
    pub state: JobState,
    /// The explanation in one sentence, which begins after the job's number.
    pub summary: String,
    /// What else is worth knowing, worst first; each a sentence.
    pub details: Vec<String>,
    /// The command to type next, if there is one.
    pub next: Option<String>,
}

/// `stop-job`: the jobs that were paused.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct StoppedJobs {
    /// The jobs' numbers.
    pub jobs: Vec<String>,
}

/// `cancel-job`: the job that was ended.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CancelledJob {
    /// The job's number.
    pub job: String,
}

/// `delete-job`: the job that was deleted with its results.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct DeletedJob {
    /// The job's number.
    pub job: String,
}

/// `get-job-stats`, `get-job-history`, `status`: a job in figures.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct JobStats {
    /// The job's number, such as `job-1`.
    pub job: String,
    /// The job's name, if it was given one.
    pub name: Option<String>,
    /// The model that answers its queries.
    pub model: String,
    /// The digest of the model's version that the job uses, once it was started.
    pub model_version: Option<String>,
    /// The dataset that it runs over.
    pub dataset: String,
    /// Parameters that are passed to the model.
    pub parameters: BTreeMap<String, String>,
    /// The state.
    pub state: JobState,
    /// Why the cluster paused the job.
    pub reason: Option<String>,
    /// The name of the identity that added it; null without security.
    pub owner: Option<String>,
    /// The job's share relative to other jobs' weights.
    pub weight: u32,
    /// Queries per batch, as set.
    pub batch_size: BatchSize,
    /// Queries of the batch that was leased last; 0 while the job does not run.
    pub last_batch_queries: u32,
    /// Queries of the job; 0 before it was started.
    pub submitted: u64,
    /// Queries that were answered.
    pub done: u64,
    /// Queries that failed for good, those given up among them.
    pub dead_letters: u64,
    /// Dead letters that were given up: they cannot be run again.
    pub dead_letters_dropped: u64,
    /// Queries without an outcome.
    pub pending: u64,
    /// Queries that workers hold now.
    pub leased: u64,
    /// Queries answered per second over the last 10 seconds.
    pub rate_10s_qps: f64,
    /// Queries answered per second since the start, pauses excluded.
    pub rate_qps: f64,
    /// Seconds for which the job has run, pauses excluded.
    pub running_s: f64,
    /// Seconds until the end at the current rate, while the job runs.
    pub eta_s: Option<f64>,
    /// Processing time of a query in milliseconds: its batch's inference time divided by the batch's queries, so the
    /// percentiles are of batches' means. All 0 before the first answer.
    pub processing_ms: Processing,
    /// Answered queries whose input has a label.
    pub labelled: u64,
    /// Answers that equal the label.
    pub correct: u64,
    /// `correct` divided by `labelled`, 0 to 1; null without labels.
    pub accuracy_top1: Option<f64>,
    /// Results that were committed before and dropped.
    pub duplicates_dropped: u64,
    /// The share of the inputs, 0 to 1, that the worker read from its own disk.
    pub local_share: f64,
    /// When the job was added, in milliseconds since the epoch.
    pub created_ms: u64,
    /// When it was first started, in milliseconds since the epoch.
    pub started_ms: Option<u64>,
    /// When it was done or cancelled, in milliseconds since the epoch.
    pub finished_ms: Option<u64>,
    /// The file in the store that holds the results, once they are merged.
    pub results_file: Option<String>,
    /// How its records are read, once it was started; null if its dataset is no file of records.
    pub records: Option<RecordsRead>,
    /// Tokens that its answers say they took, each query's once; null if none says so.
    pub tokens: Option<Tokens>,
    /// Who is told when it ends; null for nobody.
    pub webhook: Option<Webhook>,
    /// Answers that it took over from an earlier job, because it was started to run only what is new.
    pub reused: u64,
    /// That job; null if there is none.
    pub reused_from: Option<String>,
}

/// The webhook of a job.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Webhook {
    /// Where it is sent.
    pub url: String,
    /// Whether the job's last end is yet to be told.
    pub due: bool,
    /// Why the telling was given up; null if it was not.
    pub failure: Option<String>,
}

impl From<&WebhookView> for Webhook {
    fn from(WebhookView { url, is_due, failure }: &WebhookView) -> Self {
        Self { url: url.to_string(), due: *is_due, failure: failure.clone() }
    }
}

/// Tokens of a language model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Tokens {
    /// Tokens that the model read.
    pub prompt: u64,
    /// Tokens that it wrote.
    pub completion: u64,
    /// Both.
    pub total: u64,
    /// All tokens, per second since the job's start, pauses excluded.
    pub rate_per_s: f64,
}

impl Tokens {
    /// Those of a job, if there are any.
    pub fn of(view: &JobView) -> Option<Self> {
        let (counted, total) = (view.tokens, view.tokens.total());
        (total > 0).then(|| Self {
            prompt: counted.prompt,
            completion: counted.completion,
            total,
            rate_per_s: if view.running_s > 0.0 { total as f64 / view.running_s } else { 0.0 },
        })
    }
}

impl From<&JobView> for JobStats {
    fn from(view: &JobView) -> Self {
        let about = &view.details;
        Self {
            job: view.id.to_string(),
            name: about.name.as_ref().map(ToString::to_string),
            model: view.model.to_string(),
            model_version: view.version.map(|digest| digest.to_string()),
            dataset: view.dataset.to_string(),
            parameters: parameters(&about.parameters),
            state: JobState::from(&view.state),
            reason: text::job_state(&view.state).1.map(str::to_owned),
            owner: about.owner.as_ref().map(ToString::to_string),
            weight: about.weight,
            batch_size: view.batch_size.into(),
            last_batch_queries: view.batch_now,
            submitted: view.submitted,
            done: view.done,
            dead_letters: view.dead,
            dead_letters_dropped: about.dropped,
            pending: pending(view),
            leased: view.leased,
            rate_10s_qps: view.rate_10s_qps,
            rate_qps: view.rate_qps,
            running_s: view.running_s,
            eta_s: view.eta_s,
            processing_ms: view.processing_ms.into(),
            labelled: view.labelled,
            correct: view.correct,
            accuracy_top1: accuracy(view),
            duplicates_dropped: view.duplicates_dropped,
            local_share: view.local_share,
            created_ms: about.created_ms,
            started_ms: about.started_ms,
            finished_ms: about.finished_ms,
            results_file: about.results.as_ref().map(ToString::to_string),
            records: about.records.as_deref().map(RecordsRead::from),
            tokens: Tokens::of(view),
            webhook: about.webhook.as_deref().map(Webhook::from),
            reused: view.tokens.reused,
            reused_from: reused_from(view),
        }
    }
}

/// The job whose answers a job takes over.
pub fn reused_from(view: &JobView) -> Option<String> {
    match view.details.reuse {
        Reuse::From(job) => Some(job.to_string()),
        Reuse::Off | Reuse::On => None,
    }
}

/// Parameters by name.
pub fn parameters(parameters: &Parameters) -> BTreeMap<String, String> {
    parameters.iter().map(|(name, value)| (name.to_string(), value.clone())).collect()
}

/// Queries neither answered nor dead.
pub fn pending(view: &JobView) -> u64 {
    view.submitted.saturating_sub(view.done).saturating_sub(view.dead)
}

/// The share of labelled answers that equal the label.
pub fn accuracy(view: &JobView) -> Option<f64> {
    (view.labelled > 0).then(|| view.correct as f64 / view.labelled as f64)
}

/// A distribution of times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Processing {
    /// The mean.
    pub mean: f64,
    /// The standard deviation.
    pub std_dev: f64,
    /// The median.
    pub median: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// The 99th percentile.
    pub p99: f64,
}

impl From<Distribution> for Processing {
    fn from(Distribution { mean, std_dev, median, p90, p95, p99 }: Distribution) -> Self {
        Self { mean, std_dev, median, p90, p95, p99 }
    }
}

/// `get-job-assigned-VMs`: the jobs of one member.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct JobAssignment {
    /// The member's name.
    pub member: String,
    /// The member's id.
    pub node_id: String,
    /// The jobs that it works on or is assigned to, by the share of its work over the last 60 seconds.
    pub shares: Vec<JobShare>,
    /// The jobs that it is assigned to, by the share that each is due.
    pub due: Vec<JobShare>,
    /// The jobs whose batches it holds now.
    pub current_jobs: Vec<String>,
}

/// A job's share of a member's work.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct JobShare {
    /// The job's number.
    pub job: String,
    /// The share, 0 to 1.
    pub share: f64,
}

/// `get-job-leases`: a batch that a worker holds.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Lease {
    /// The name of the member that holds it.
    pub member: String,
    /// The member's id.
    pub node_id: String,
    /// The job's number.
    pub job: String,
    /// The number of the batch's first query.
    pub first_query: u64,
    /// Queries of the batch.
    pub queries: u32,
    /// How often the batch has been leased, this time included.
    pub attempt: u32,
    /// The coordinator's term in which it was leased.
    pub term: u64,
    /// How far the worker is with it.
    pub stage: LeaseStage,
    /// Milliseconds for which inference has run, while it runs.
    pub running_ms: Option<u32>,
}

impl From<&LeaseView> for Lease {
    fn from(view: &LeaseView) -> Self {
        let running_ms = match view.stage {
            WireStage::Running { ms } => Some(ms),
            WireStage::Waiting | WireStage::AwaitingCommit => None,
        };
        Self {
            member: view.name.clone(),
            node_id: view.node.to_string(),
            job: view.lease.job.to_string(),
            first_query: view.lease.range.first,
            queries: view.lease.range.count,
            attempt: view.lease.attempt,
            term: view.lease.term.0,
            stage: view.stage.into(),
            running_ms,
        }
    }
}
