//! Changes of the cluster's metadata: what they are, what they did, and how logs summarise them.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use super::batches::{BatchSize, Parameters, Policy, Training};
use super::blobs::BlobRef;
use super::bounded::{self, LOGGED_ITEMS_MAX};
use super::job_views::JobState;
use super::packages::{NewPackage, PackageSummary};
use super::records::ReadOptions;
use super::start_options::StartOptions;
use super::webhooks::WebhookUrl;
use crate::access::SubjectName;
use crate::ids::{Digest, JobId, NodeId, UploadId};
use crate::names::{DatasetName, FileName, JobName, ModelName};

/// Most attributes of a version.
pub const ATTRIBUTES_MAX: usize = 64;
/// Most bytes of a version's attributes, names and values together.
pub const ATTRIBUTE_BYTES_MAX: usize = 4_096;
/// The attribute that lists show as [`super::views::FileSummary::etag`].
pub const ETAG: &str = "etag";

/// What a program keeps with a version beside its bytes, by name: at most [`ATTRIBUTES_MAX`], of [`ATTRIBUTE_BYTES_MAX`] in all. The
/// store gives no meaning to them but to [`ETAG`].
pub type Attributes = BTreeMap<String, String>;

/// How many names of a list a summary shows.
const SUMMARY_NAMES: usize = 3;

/// Optional properties of a new job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOptions {
    /// A name that no other job has.
    pub name: Option<JobName>,
    /// The job's weight against other jobs, from 1 to [`super::jobs::WEIGHT_MAX`]; 1 if not given.
    pub weight: Option<u32>,
    /// Parameters for the model, at most [`super::control::PARAMETERS_MAX`].
    #[serde(deserialize_with = "bounded::map::<LOGGED_ITEMS_MAX, _, _, _>")]
    pub parameters: Parameters,
    /// How the dataset is read, if it is a file of records.
    #[serde(default, skip_serializing_if = "ReadOptions::is_default")]
    pub reading: ReadOptions,
}

/// A new version of a file whose bytes are already stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewFile {
    /// The file's name.
    pub name: FileName,
    /// Size in bytes: the sum of the extents.
    pub size: u64,
    /// Digest of the whole file.
    pub digest: Digest,
    /// The extents in order, each with the members that store it; empty for an empty file.
    #[serde(deserialize_with = "bounded::list::<LOGGED_ITEMS_MAX, _, _>")]
    pub extents: Vec<(BlobRef, Vec<NodeId>)>,
}

/// One file that is copied or moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCopy {
    /// The file that has the content.
    pub from: FileName,
    /// The file that gets it.
    pub to: FileName,
}

/// What a file's newest version must be for a commit to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expected {
    /// There is no such file.
    NoFile,
    /// This one. A file that is deleted and put again counts from 1 again, so the number alone does not say.
    Version {
        /// Its number.
        number: u64,
        /// Its digest.
        digest: Digest,
    },
}

/// A change of the cluster's metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// `put`: commit new versions of files, all of them or none.
    CommitFiles {
        /// The upload under which their bytes were stored.
        upload: UploadId,
        /// The versions, at most [`super::control::ITEMS_PER_REQUEST_MAX`].
        #[serde(deserialize_with = "bounded::list::<LOGGED_ITEMS_MAX, _, _>")]
        files: Vec<NewFile>,
    },
    /// `delete`: delete a file with all its versions.
    Delete {
        /// The file to delete.
        name: FileName,
    },
    /// `train-start`: train models.
    TrainStart {
        /// The models to train; empty for all predefined ones.
        #[serde(deserialize_with = "bounded::list::<LOGGED_ITEMS_MAX, _, _>")]
        models: Vec<ModelName>,
        /// What to train them from.
        training: Training,
    },
    /// `add-job`: add a job, which waits for `start-job`.
    AddJob {
        /// The model that answers the queries.
        model: ModelName,
        /// The dataset whose files or records are the queries.
        dataset: DatasetName,
        /// Queries per batch, 1 to [`super::jobs::BATCH_QUERIES_MAX`], or auto.
        batch_size: BatchSize,
        /// Name, weight and parameters.
        #[serde(default)]
        options: JobOptions,
    },
    /// `set-batch-size`: set the batch size, from the next lease on.
    SetBatchSize {
        /// The job to change.
        job: JobId,
        /// Queries per batch, 1 to [`super::jobs::BATCH_QUERIES_MAX`], or auto.
        batch_size: BatchSize,
    },
    /// `start-job`: freeze the dataset and start the job, or resume a stopped one.
    StartJob {
        /// The job to start.
        job: JobId,
        /// What it runs, and when it gives up.
        #[serde(default, skip_serializing_if = "StartOptions::is_default")]
        options: StartOptions,
    },
    /// `stop-job`: grant no further batches. Batches that run may finish.
    StopJob {
        /// The job to stop.
        job: JobId,
    },
    /// `dead-letters retry`: run dead letters again.
    RetryDeadLetters {
        /// The job whose dead letters are meant.
        job: JobId,
        /// The queries to run again, at most [`super::control::ITEMS_PER_REQUEST_MAX`]; empty for all.
        #[serde(default, deserialize_with = "bounded::list::<LOGGED_ITEMS_MAX, _, _>")]
        queries: Vec<u64>,
    },
    /// `set-weight`: set a job's weight against other jobs, from the next lease on.
    SetWeight {
        /// The job to change.
        job: JobId,
        /// From 1, the weight of a new job, to [`super::jobs::WEIGHT_MAX`].
        weight: u32,
    },
    /// `set-policy`: set how workers are shared between jobs, from the next lease on.
    SetPolicy(Policy),
    /// `cancel-job`: end a job. Queries without an answer get none; answers are kept.
    CancelJob {
        /// The job to cancel.
        job: JobId,
    },
    /// `delete-job`: delete a job that does not run, with its results.
    DeleteJob {
        /// The job to delete.
        job: JobId,
    },
    /// `dead-letters drop`: give dead letters up. They stay in the results and cannot be run again.
    DropDeadLetters {
        /// The job whose dead letters are meant.
        job: JobId,
        /// The queries to give up, at most [`super::control::ITEMS_PER_REQUEST_MAX`]; empty for all.
        #[serde(deserialize_with = "bounded::list::<LOGGED_ITEMS_MAX, _, _>")]
        queries: Vec<u64>,
    },
    /// `train-stop`: stop trainings. Versions trained before stay.
    TrainStop {
        /// The models whose trainings stop.
        #[serde(deserialize_with = "bounded::list::<LOGGED_ITEMS_MAX, _, _>")]
        models: Vec<ModelName>,
    },
    /// `identity revoke`: end all identities of a name, for good.
    RevokeIdentity {
        /// The name.
        name: SubjectName,
        /// Whether the name may be one of which no identity has connected yet.
        unseen: bool,
    },
    /// `model add`: make a package the newest version of a model.
    AddModel {
        /// The upload under which its bytes were stored.
        upload: UploadId,
        /// The model's name.
        model: ModelName,
        /// The package.
        package: NewPackage,
        /// Whether to add it although no member has found it to be a model.
        unchecked: bool,
    },
    /// `model rm`: forget a model that was added.
    RemoveModel {
        /// The model's name.
        model: ModelName,
        /// Whether jobs that are not over may use it: those that have started keep their version.
        force: bool,
    },
    /// Commit a new version of one file, with attributes, and only over the version that is expected. If the newest version
    /// is the same already and was committed less than [`super::control::SAME_COMMIT_MS`] ago, it stays and is answered:
    /// a program whose answer was lost sends the file again.
    CommitFile {
        /// The upload under which its bytes were stored.
        upload: UploadId,
        /// The version.
        file: NewFile,
        /// What is kept with it.
        #[serde(deserialize_with = "bounded::map::<ATTRIBUTES_MAX, _, _, _>")]
        attributes: Attributes,
        /// What must be the newest version before; `None` for whatever there is.
        expected: Option<Expected>,
        /// Whether its extents are those of other files, and not stored under the upload: refused once one of them belongs to
        /// nothing, because its holders may be deleting it.
        borrows: bool,
    },
    /// Delete files with all their versions. Those that do not exist are left out.
    DeleteFiles {
        /// The files, at most [`super::control::ITEMS_PER_REQUEST_MAX`].
        #[serde(deserialize_with = "bounded::list::<LOGGED_ITEMS_MAX, _, _>")]
        names: Vec<FileName>,
    },
    /// Give files the content of others, all of them or none; no byte moves. A file that exists keeps its versions, and gets
    /// the new ones after them.
    CopyFiles {
        /// The files, 1 to [`super::control::ITEMS_PER_REQUEST_MAX`]; no file is named twice.
        #[serde(deserialize_with = "bounded::list::<LOGGED_ITEMS_MAX, _, _>")]
        copies: Vec<FileCopy>,
        /// Whether all kept versions move, and the first file of each pair ends; otherwise the newest is copied.
        moves: bool,
        /// Whether the second file of a pair may exist.
        replace: bool,
    },
    /// `start-job --on-end`: have an address told when a job ends, or no longer.
    SetWebhook {
        /// The job, which is not over.
        job: JobId,
        /// The address; `None` for none.
        url: Option<WebhookUrl>,
    },
}

impl Change {
    /// Starts a job over its whole dataset, or resumes it, whatever fails.
    pub fn start(job: JobId) -> Self {
        Self::StartJob { job, options: StartOptions::default() }
    }
}

/// What a change did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Changed {
    /// New versions were committed, in the order of the request: the version's number, and the number of durable copies of
    /// the extent that has the fewest.
    Files(#[serde(deserialize_with = "bounded::list::<LOGGED_ITEMS_MAX, _, _>")] Vec<(u64, u32)>),
    /// A file, or several, were deleted.
    Deleted {
        /// Number of versions deleted.
        versions: u32,
    },
    /// These models will be trained.
    Training(#[serde(deserialize_with = "bounded::list::<LOGGED_ITEMS_MAX, _, _>")] Vec<ModelName>),
    /// A job was added.
    JobAdded(JobId),
    /// A job was started or resumed.
    JobStarted {
        /// Queries in the job's manifest.
        submitted: u64,
    },
    /// The change was made, and there is nothing to report.
    Done,
    /// Dead letters will run again.
    Retried {
        /// Number of queries.
        queries: u64,
    },
    /// The job had been started before, so nothing changed.
    StartedBefore {
        /// Queries in the job's manifest.
        submitted: u64,
        /// The job's state.
        state: JobState,
    },
    /// Dead letters were given up.
    Dropped {
        /// Number of queries.
        queries: u64,
    },
    /// The model has the version that was to be added.
    ModelAdded {
        /// Whether it had another one before, or none.
        is_new: bool,
    },
    /// Files were copied or moved: the number of each target's newest version, in the order of the request.
    Copied(#[serde(deserialize_with = "bounded::list::<LOGGED_ITEMS_MAX, _, _>")] Vec<u64>),
}

/// A summary for logs; short, however long the change's lists are.
impl Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommitFiles { upload, files } => {
                let bytes: u64 = files.iter().map(|file| file.size).fold(0, u64::saturating_add);
                write!(f, "put ({upload}, {bytes} bytes):")?;
                names(f, files.iter().map(|file| &file.name))
            }
            Self::Delete { name } => write!(f, "delete {name}"),
            Self::CommitFile { upload, file, .. } => {
                write!(f, "put ({upload}, {} bytes): {}", file.size, file.name)
            }
            Self::DeleteFiles { names } if names.is_empty() => f.write_str("delete nothing"),
            Self::DeleteFiles { names: files } => {
                f.write_str("delete:")?;
                names(f, files.iter())
            }
            Self::CopyFiles { copies, moves, .. } => {
                f.write_str(if *moves { "move to:" } else { "copy to:" })?;
                names(f, copies.iter().map(|copy| &copy.to))
            }
            Self::TrainStart { models, training } => {
                write!(f, "train-start ({training}):")?;
                names(f, models.iter())
            }
            Self::TrainStop { models } => {
                f.write_str("train-stop:")?;
                names(f, models.iter())
            }
            Self::AddJob { model, dataset, batch_size, options } => {
                write!(f, "add-job {model} on {dataset}, batches of {batch_size}")?;
                options.name.as_ref().map_or(Ok(()), |name| write!(f, ", named {name}"))
            }
            Self::AddModel { upload, model, package, unchecked: _ } => {
                let PackageSummary { runtime, files, bytes } = &package.summary;
                write!(f, "model add {model} ({upload}, {runtime}, {files} files, {bytes} bytes)")
            }
            Self::RemoveModel { model, force: _ } => write!(f, "model rm {model}"),
            Self::RevokeIdentity { name, unseen: _ } => write!(f, "identity revoke {name}"),
            Self::SetBatchSize { job, batch_size } => write!(f, "set-batch-size {job} {batch_size}"),
            Self::SetWebhook { job, url: Some(url) } => write!(f, "set the webhook of {job} to {url}"),
            Self::SetWebhook { job, url: None } => write!(f, "remove the webhook of {job}"),
            Self::SetWeight { job, weight } => write!(f, "set-weight {job} {weight}"),
            Self::SetPolicy(policy) => write!(f, "set-policy {policy:?}"),
            Self::StartJob { job, options: _ } => write!(f, "start-job {job}"),
            Self::StopJob { job } => write!(f, "stop-job {job}"),
            Self::CancelJob { job } => write!(f, "cancel-job {job}"),
            Self::DeleteJob { job } => write!(f, "delete-job {job}"),
            Self::RetryDeadLetters { job, queries } => {
                write!(f, "dead-letters retry {job}:")?;
                names(f, queries.iter())
            }
            Self::DropDeadLetters { job, queries } => {
                write!(f, "dead-letters drop {job}:")?;
                names(f, queries.iter())
            }
        }
    }
}

/// Writes the first [`SUMMARY_NAMES`] names of a list and the number of the others. An empty list stands for all.
fn names<T: Display>(f: &mut fmt::Formatter<'_>, all: impl ExactSizeIterator<Item = T>) -> fmt::Result {
    let more = all.len().saturating_sub(SUMMARY_NAMES);
    if all.len() == 0 {
        return f.write_str(" all");
    }
    for (index, name) in all.take(SUMMARY_NAMES).enumerate() {
        write!(f, "{} {name}", if index == 0 { "" } else { "," })?;
    }
    if more > 0 { write!(f, " and {more} more") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Term;

    #[test]
    fn a_put_of_a_thousand_files_is_summarised_in_one_line() {
        let file = |number: u64| NewFile {
            name: format!("a/{number}").parse().unwrap(),
            size: 10,
            digest: Digest::of(b""),
            extents: Vec::new(),
        };
        let upload = UploadId { term: Term(5), number: 17 };
        let put = Change::CommitFiles { upload, files: (0..1_000).map(file).collect() };
        assert_eq!(put.to_string(), "put (upload-5-17, 10000 bytes): a/0, a/1, a/2 and 997 more");
        let drop = Change::DropDeadLetters { job: JobId(3), queries: Vec::new() };
        assert_eq!(drop.to_string(), "dead-letters drop job-3: all");
    }
}
