//! Messages between a worker and the coordinator.
//!
//! A worker reports at every heartbeat (each second) and whenever it has room for a batch. A report renews the worker's
//! leases; the reply tells it which batches to run, which models to load or train, and which leases to cancel. Result
//! rows go to the file servers; the coordinator receives only their ranges.

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

pub use super::batches::{
    BATCH_QUERIES_MAX, BatchSize, BatchSizeError, LEASES_HELD_MAX, LEASES_PER_WORKER_MAX, Lease, Parameters,
    Policy, QueryRange, SEGMENT_BATCHES, Training, WEIGHT_MAX,
};
use super::blobs::PlacedBlob;
use super::bounded::{self, LOGGED_ITEMS_MAX};
use super::control::{EXTENTS_PER_FILE_MAX, ITEMS_PER_REQUEST_MAX};
use super::packages::TrainedFrom;
pub use super::records::RecordFormat;
use super::records::RecordIdentity;
use super::resources::WorkerResources;
use super::start_options::Reuse;
use crate::ids::{Digest, JobId, NodeId, Term, UploadId};
use crate::names::{FileName, ModelName};

/// Most inputs of a batch that are files of their own: one a query.
const BATCH_INPUTS_MAX: usize = BATCH_QUERIES_MAX as usize;
/// Longest reason stored with a failed query, in bytes.
pub const REASON_BYTES_MAX: usize = 512;
/// Most metrics of a training.
pub const METRICS_MAX: usize = 16;
/// Longest name, and longest value, of a metric, in bytes.
pub const METRIC_BYTES_MAX: usize = 64;

/// One query's input: a file of the dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryInput {
    /// The query's number in the job's manifest, from 0.
    pub index: u64,
    /// The file's name.
    pub name: FileName,
    /// The file's extents in order, with their holders.
    #[serde(deserialize_with = "bounded::list::<EXTENTS_PER_FILE_MAX, _, _>")]
    pub extents: Vec<PlacedBlob>,
}

/// The inputs of a batch, as records of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordsGrant {
    /// The file's name.
    pub file: FileName,
    /// How the file is split into records.
    pub format: RecordFormat,
    /// The extents that hold the records, in order, with their holders.
    #[serde(deserialize_with = "bounded::list::<EXTENTS_PER_FILE_MAX, _, _>")]
    pub extents: Vec<PlacedBlob>,
    /// Bytes of the first extent before the first record to read.
    pub skip_bytes: u64,
    /// Bytes to read; they end at the end of a record.
    pub bytes: u64,
    /// Records read that precede the first of the batch.
    pub skip: u32,
    /// The line of the file in which the records to read start, from 1; 0 if it is unknown.
    #[serde(default, skip_serializing_if = "is_unknown")]
    pub line: u64,
    /// The numbers of the batch's records in the file, from 0 and in order; empty if they are the numbers of its queries.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::list::<BATCH_INPUTS_MAX, _, _>"
    )]
    pub numbers: Vec<u64>,
}

/// The footer of a file of records, which says where the records are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FooterGrant {
    /// The extents that hold it, in order, with their holders.
    #[serde(deserialize_with = "bounded::list::<EXTENTS_PER_FILE_MAX, _, _>")]
    pub extents: Vec<PlacedBlob>,
    /// Bytes of the first extent before it.
    pub skip_bytes: u64,
    /// Bytes of the whole file.
    pub file_bytes: u64,
    /// Bytes of the file before the first extent of the records.
    pub records_at: u64,
}

/// Whether a line is unknown.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_unknown(line: &u64) -> bool {
    *line == 0
}

/// What every worker loads of a model: the file that its training wrote, or a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelArtefact {
    /// The model's name.
    pub model: ModelName,
    /// The model's version: the digest of the whole artefact.
    pub version: Digest,
    /// The artefact's extents in order, with their holders.
    #[serde(deserialize_with = "bounded::list::<EXTENTS_PER_FILE_MAX, _, _>")]
    pub extents: Vec<PlacedBlob>,
    /// Whether it is a package: the first extent is the manifest, whose digest is the version.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_package: bool,
}

/// A batch for a worker to run.
///
/// Of the last fields, which later versions added, those at the end that have no value are left out of messages.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Grant {
    /// The lease under which the batch runs.
    pub lease: Lease,
    /// The model to run it with.
    pub model: ModelName,
    /// The only version of the model that may run it.
    pub version: Digest,
    /// The inputs in query order, `lease.range.count` of them; empty if `records` is set.
    #[serde(deserialize_with = "bounded::list::<BATCH_INPUTS_MAX, _, _>")]
    pub inputs: Vec<QueryInput>,
    /// The dataset's label table (CSV with the columns `file` and `label`), if it has one.
    #[serde(deserialize_with = "bounded::optional_list::<EXTENTS_PER_FILE_MAX, _, _>")]
    pub labels: Option<Vec<PlacedBlob>>,
    /// The inputs, if they are records of one file.
    #[serde(default)]
    pub records: Option<RecordsGrant>,
    /// The job's parameters for the model.
    #[serde(default, deserialize_with = "bounded::map::<LOGGED_ITEMS_MAX, _, _, _>")]
    pub parameters: Parameters,
    /// The end of the file of the records, if its format needs it.
    #[serde(default)]
    pub footer: Option<FooterGrant>,
    /// Whether answers are taken over from an earlier job.
    #[serde(default)]
    pub reuse: Reuse,
}

impl Serialize for Grant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let later = match (&self.footer, self.reuse) {
            (_, Reuse::On | Reuse::From(_)) => 2,
            (Some(_), Reuse::Off) => 1,
            (None, Reuse::Off) => 0,
        };
        let mut grant = serializer.serialize_struct("Grant", 7 + later)?;
        grant.serialize_field("lease", &self.lease)?;
        grant.serialize_field("model", &self.model)?;
        grant.serialize_field("version", &self.version)?;
        grant.serialize_field("inputs", &self.inputs)?;
        grant.serialize_field("labels", &self.labels)?;
        grant.serialize_field("records", &self.records)?;
        grant.serialize_field("parameters", &self.parameters)?;
        if later > 0 {
            grant.serialize_field("footer", &self.footer)?;
        }
        if later > 1 {
            grant.serialize_field("reuse", &self.reuse)?;
        }
        grant.end()
    }
}

/// The state of a worker's model server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerState {
    /// The server has not answered yet.
    #[default]
    Starting,
    /// The server is live and ready.
    Ready,
    /// The server cannot be used; why.
    Down(String),
}

/// The state of one model at one worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModelState {
    /// This worker trains the model, on behalf of the cluster.
    Training,
    /// The worker fetches and loads the artefact.
    Loading,
    /// This version is loaded and answers.
    Ready(Digest),
    /// The model could not be loaded; why. The worker retries with back-off.
    Failed(String),
}

/// Progress of a training.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingProgress {
    /// Completed share, in thousandths.
    pub permille: u16,
    /// Completed steps.
    pub step: u64,
    /// Total steps; 0 if unknown.
    pub steps: u64,
    /// The latest metrics as name and value, at most [`METRICS_MAX`].
    #[serde(deserialize_with = "bounded::list::<ITEMS_PER_REQUEST_MAX, _, _>")]
    pub metrics: Vec<(String, String)>,
}

/// A worker's report: its state, the leases it holds, and how much work it has room for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// The reporting member.
    pub worker: NodeId,
    /// The member's boot count. A higher one voids the leases of the process before.
    pub generation: u64,
    /// State of its model server.
    pub server: ServerState,
    /// States of its models.
    #[serde(deserialize_with = "bounded::list::<ITEMS_PER_REQUEST_MAX, _, _>")]
    pub models: Vec<(ModelName, ModelState)>,
    /// The leases it holds, whichever term granted them: first those that have run and await their commit, then the one
    /// that runs, then those that wait to run; at most [`LEASES_HELD_MAX`].
    #[serde(with = "super::lease_runs")]
    pub leases: Vec<Lease>,
    /// How many of `leases`, from the first, have run and only await their commit. They take no room from further work.
    #[serde(rename = "ran")]
    pub awaiting_commit: u16,
    /// How many further batches the worker has room for; 0 in a mere heartbeat.
    pub wanted: u8,
    /// How long the coordinator may hold the reply until there is work, in milliseconds; at most 2,000.
    pub wait_ms: u32,
    /// Whether the worker drains: it takes no more work, and returns leases that have not started.
    pub draining: bool,
    /// The models that its model server can train; empty until the server has been ready once. `None` if the server is
    /// ready and cannot list them.
    #[serde(default, deserialize_with = "bounded::optional_list::<ITEMS_PER_REQUEST_MAX, _, _>")]
    pub offers: Option<Vec<ModelName>>,
    /// For how long the running batch has run, in milliseconds; `None` while none runs.
    #[serde(default)]
    pub running_ms: Option<u32>,
    /// Number of this report within the worker's boot. The coordinator ignores a report that a later one has overtaken.
    #[serde(default)]
    pub number: u64,
    /// Progress of the trainings that run at this worker.
    #[serde(default, deserialize_with = "bounded::list::<ITEMS_PER_REQUEST_MAX, _, _>")]
    pub trainings: Vec<(ModelName, TrainingProgress)>,
    /// The devices of its machine and the processes of its models, as its model server knew them a few seconds ago.
    #[serde(default, skip_serializing_if = "WorkerResources::is_empty")]
    pub resources: WorkerResources,
}

/// Tokens of language models, and the answers for which no model was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCount {
    /// Tokens that the models read.
    pub prompt: u64,
    /// Tokens that they wrote.
    pub completion: u64,
    /// Answers that were taken over from an earlier job.
    #[serde(default, skip_serializing_if = "is_none")]
    pub reused: u64,
}

/// Whether there are none.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

impl TokenCount {
    /// Whether none were counted.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// The sum of two counts.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            prompt: self.prompt.saturating_add(other.prompt),
            completion: self.completion.saturating_add(other.completion),
            reused: self.reused.saturating_add(other.reused),
        }
    }

    /// All tokens.
    pub fn total(&self) -> u64 {
        self.prompt.saturating_add(self.completion)
    }
}

/// The outcome of one batch, part of a [`SegmentCommit`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchOutcome {
    /// The lease under which the batch ran.
    pub lease: Lease,
    /// The queries that have rows in the segment: within the lease's range, ascending, without those that failed.
    #[serde(deserialize_with = "bounded::list::<LOGGED_ITEMS_MAX, _, _>")]
    pub answered: Vec<QueryRange>,
    /// Wall-clock time of the batch's inference, in microseconds.
    pub inference_us: u64,
    /// How many of the answered queries have a true label.
    pub labelled: u32,
    /// How many of the labelled queries were answered right: their first label is the true one.
    pub correct: u32,
    /// How many of the answered queries had their input read from the worker's own disk.
    #[serde(default)]
    pub local: u32,
    /// The size, in queries, of the largest call that the model server refused as too large; 0 if it refused none.
    #[serde(default)]
    pub refused: u32,
    /// The tokens that the answers say they took, and how many were taken over.
    #[serde(default, skip_serializing_if = "TokenCount::is_zero")]
    pub tokens: TokenCount,
}

impl BatchOutcome {
    /// How many queries of the batch the model was asked for.
    pub fn inferred(&self) -> u32 {
        self.lease.range.count.saturating_sub(u32::try_from(self.tokens.reused).unwrap_or(u32::MAX))
    }
}

/// Commits a segment of result rows that is already durable, for the batches in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentCommit {
    /// The member that ran the batches.
    pub worker: NodeId,
    /// The job; all rows of a segment are of one job.
    pub job: JobId,
    /// The upload under which the segment was stored.
    pub upload: UploadId,
    /// The segment, with its holders.
    pub segment: PlacedBlob,
    /// The batches whose rows the segment holds.
    #[serde(deserialize_with = "bounded::list::<LOGGED_ITEMS_MAX, _, _>")]
    pub batches: Vec<BatchOutcome>,
}

/// Whose fault a failure is, which decides how it is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// The model server rejected the input: it would fail at any worker.
    BadInput,
    /// The model server failed or timed out: another worker may succeed.
    Inference,
    /// The input could not be read from the store.
    Fetch,
    /// The worker cannot run anything now: the batch is not at fault.
    Worker,
    /// The process that runs the model ended with these queries, all of one call: one of them may have ended it.
    Crash,
}

/// Queries that a worker could not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The queries, all within one lease.
    #[serde(deserialize_with = "bounded::list::<LOGGED_ITEMS_MAX, _, _>")]
    pub ranges: Vec<QueryRange>,
    /// Whose fault it is.
    pub kind: FaultKind,
    /// What happened, at most [`REASON_BYTES_MAX`] bytes.
    pub reason: String,
    /// Ids and labels of the queries that have such, in the order of the queries.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::list::<BATCH_INPUTS_MAX, _, _>"
    )]
    pub identities: Vec<(u64, RecordIdentity)>,
}

impl Fault {
    /// What the worker knows of a query's record.
    pub fn identity(&self, query: u64) -> RecordIdentity {
        let found = self.identities.binary_search_by_key(&query, |(of, _)| *of).ok();
        found.and_then(|at| self.identities.get(at)).map(|(_, identity)| identity.clone()).unwrap_or_default()
    }
}

/// A worker's request to the coordinator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum JobRequest {
    /// Heartbeat, and request for work.
    Report(WorkerReport),
    /// Make these rows the answers of queries that have none yet.
    Commit(SegmentCommit),
    /// Some queries of a lease failed at this worker. Independent of the commit of the others, which ends the lease.
    Failed {
        /// The member that ran them.
        worker: NodeId,
        /// The lease under which they ran.
        lease: Lease,
        /// The queries, grouped by what went wrong.
        #[serde(deserialize_with = "bounded::list::<ITEMS_PER_REQUEST_MAX, _, _>")]
        faults: Vec<Fault>,
    },
    /// A training has ended.
    Trained {
        /// The member that trained.
        worker: NodeId,
        /// The model.
        model: ModelName,
        /// The training that was requested.
        training: Training,
        /// The artefact and the upload under which it was stored, or why there is none.
        result: Result<(UploadId, ModelArtefact), String>,
        /// The metrics as name and value, at most [`METRICS_MAX`].
        #[serde(default, deserialize_with = "bounded::list::<ITEMS_PER_REQUEST_MAX, _, _>")]
        metrics: Vec<(String, String)>,
        /// The report for people, a JSON file stored under the same upload.
        #[serde(default)]
        report: Option<PlacedBlob>,
        /// What the artefact is, if it is a package.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        package: Option<TrainedFrom>,
    },
}

/// The coordinator's reply to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobReply {
    /// To a report.
    #[serde(rename = "Orders")]
    Report(ReportReply),
    /// To a commit.
    Committed {
        /// Queries that this commit answered.
        accepted: u64,
        /// Queries that had an answer before, whose rows are discarded.
        duplicates: u64,
    },
    /// To all other requests.
    Noted,
}

/// A model that a worker is to train.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingAssignment {
    /// The model.
    pub model: ModelName,
    /// The seed and dataset to train with.
    pub training: Training,
    /// The package whose class trains it; `None` for a model that model servers have themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<ModelArtefact>,
}

/// What a worker is to do, in reply to its report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportReply {
    /// The coordinator's term. A worker ignores a reply whose term is below the highest one that it has seen.
    pub term: Term,
    /// Batches to run.
    #[serde(deserialize_with = "bounded::list::<LEASES_HELD_MAX, _, _>")]
    pub grants: Vec<Grant>,
    /// Reported leases that the worker has lost: it stops them and drops their rows.
    #[serde(deserialize_with = "bounded::list::<LEASES_HELD_MAX, _, _>")]
    pub cancelled: Vec<Lease>,
    /// Models to keep loaded.
    #[serde(deserialize_with = "bounded::list::<ITEMS_PER_REQUEST_MAX, _, _>")]
    pub load: Vec<ModelArtefact>,
    /// Models to train.
    #[serde(deserialize_with = "bounded::list::<ITEMS_PER_REQUEST_MAX, _, _>")]
    pub train: Vec<TrainingAssignment>,
    /// Set if the model server hangs and must be killed and restarted; why.
    #[serde(default)]
    pub restart: Option<String>,
    /// Trainings to stop.
    #[serde(default, deserialize_with = "bounded::list::<ITEMS_PER_REQUEST_MAX, _, _>")]
    pub stop_training: Vec<ModelName>,
    /// Versions of models that the worker has loaded, and that no job and no new job will use.
    #[serde(
        default,
        deserialize_with = "bounded::list::<ITEMS_PER_REQUEST_MAX, _, _>",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub unload: Vec<(ModelName, Digest)>,
}

/// A request of the coordinator to a worker, other than to run batches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkRequest {
    /// Check whether a model accepts these parameters.
    CheckParameters {
        /// The model.
        model: ModelName,
        /// The parameters to check.
        #[serde(deserialize_with = "bounded::map::<LOGGED_ITEMS_MAX, _, _, _>")]
        parameters: Parameters,
        /// The version of the model; `None` for the one loaded last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<Digest>,
    },
    /// Merge the segments of a finished job's results into one file, and store it.
    #[serde(rename = "Compact")]
    MergeResults {
        /// The finished job.
        job: JobId,
    },
    /// Fetch a package and check that the model server can make a model of it.
    CheckPackage(ModelArtefact),
    /// The same, and that its class can be trained.
    CheckTraining {
        /// The package.
        package: ModelArtefact,
        /// Whether it is to be trained on a dataset.
        has_dataset: bool,
    },
}

/// A worker's reply to a [`WorkRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkReply {
    /// The model accepts the parameters, or the package is a model or can be trained; or why not.
    Checked(Result<(), String>),
    /// The merged results.
    #[serde(rename = "Compacted")]
    ResultsMerged(MergedResults),
}

/// A finished job's results in one file, which is stored and not yet committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergedResults {
    /// The upload under which the file was stored.
    pub upload: UploadId,
    /// Size of the file in bytes.
    pub size: u64,
    /// Digest of the whole file.
    pub digest: Digest,
    /// The file's extents in order, with their holders.
    #[serde(deserialize_with = "bounded::list::<EXTENTS_PER_FILE_MAX, _, _>")]
    pub extents: Vec<PlacedBlob>,
    /// When the job finished, according to the state that was merged, in milliseconds since the epoch. The coordinator
    /// discards the file if the job has run again since.
    pub finished_ms: u64,
    /// The query of the first row of each extent; none from a worker whose extents do not end with a row.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::list::<EXTENTS_PER_FILE_MAX, _, _>"
    )]
    pub first_queries: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_last_fields_of_a_grant_those_without_a_value_are_left_out() {
        let grant = Grant {
            lease: Lease {
                job: JobId(1),
                range: QueryRange { first: 0, count: 1 },
                attempt: 1,
                term: Term(1),
            },
            model: "m".parse().unwrap(),
            version: Digest::default(),
            inputs: Vec::new(),
            labels: None,
            records: None,
            parameters: Parameters::default(),
            footer: None,
            reuse: Reuse::Off,
        };
        let footer = FooterGrant { extents: Vec::new(), skip_bytes: 1, file_bytes: 2, records_at: 3 };
        for (footer, reuse, fields) in [
            (None, Reuse::Off, 7),
            (Some(footer.clone()), Reuse::Off, 8),
            (None, Reuse::From(JobId(7)), 9),
            (Some(footer), Reuse::On, 9),
        ] {
            let grant = Grant { footer, reuse, ..grant.clone() };
            let bytes = rmp_serde::to_vec(&grant).unwrap();
            assert_eq!(bytes[0], 0x90 | fields, "an array of so many");
            assert_eq!(rmp_serde::from_slice::<Grant>(&bytes).unwrap(), grant);
        }
    }
}
