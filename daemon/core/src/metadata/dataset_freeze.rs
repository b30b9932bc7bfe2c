//! Freezes a job's queries when it starts.
//!
//! A dataset is either all files below its name (each file a query), or one file of that name: of records (`.jsonl`,
//! `.ndjson`, `.csv`, `.tsv`, `.parquet`; each record a query) or of file names (`.list`; each named file a query). For a single
//! file, the coordinator reads it before it proposes the start, and the command carries the digest of what was read: the start is
//! refused if the file has changed since.
//!
//! Bounds: [`QUERIES_PER_JOB_MAX`] queries.

use std::sync::Arc;

use idunno_shared::ids::{Digest, JobId};
use idunno_shared::names::{DatasetName, FileName};
use idunno_shared::wire::blobs::BlobRef;
use idunno_shared::wire::control::{Changed, JobState, LABELS_FILE, Reuse, Selection, StartOptions};
use idunno_shared::wire::jobs::RecordFormat;
use idunno_shared::wire::refusal::Refusal;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    Applied, Artefact, Block, FolderIndex, JobRecord, JobTerms, OneOrMany, PinnedFolder, QUERIES_PER_JOB_MAX,
    Records, State, VersionRecord,
};
use crate::ranges::RangeSet;

/// Largest label table, in bytes: each worker of a job holds it in memory.
pub const LABELS_BYTES_MAX: u64 = 64 << 20;

/// One query: a file as it was when the job started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// The file's name.
    pub name: Arc<FileName>,
    /// The extents of its newest version at the start, in order.
    pub extents: OneOrMany<BlobRef>,
}

/// The queries of a job over the files that a list names; a query's number is its index. Names and extents are shared with
/// the file table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Manifest {
    /// The queries: in name order, or in the order of the list that names them.
    pub queries: Vec<Query>,
}

impl Manifest {
    /// The queries `first..end` with their numbers, without those beyond the manifest.
    pub fn slice(&self, first: u64, end: u64) -> impl Iterator<Item = (u64, &Query)> {
        let index = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).min(self.queries.len());
        let queries = self.queries.get(index(first)..index(end)).unwrap_or_default();
        queries.iter().zip(first..).map(|(query, number)| (number, query))
    }
}

/// The kind of a single file that is a dataset, by the ending of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// One JSON value per line.
    Jsonl,
    /// CSV.
    Csv,
    /// CSV with tabs between its columns.
    Tsv,
    /// One file name per line.
    List,
    /// Parquet, of which only the footer is read before a start.
    Parquet,
    /// One reference to an object outside the cluster per line, after a header.
    References,
}

impl FileKind {
    /// The kind that the ending of a name stands for, in any case.
    fn of_ending(ending: &str) -> Option<Self> {
        match ending.to_ascii_lowercase().as_str() {
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "csv" => Some(Self::Csv),
            "tsv" => Some(Self::Tsv),
            "list" => Some(Self::List),
            "parquet" => Some(Self::Parquet),
            "refs" => Some(Self::References),
            _ => None,
        }
    }
}

/// The queries of a dataset, as read by the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inputs {
    /// The records of the file.
    Records {
        /// The digest of the content that was read.
        digest: Digest,
        /// How to read the records.
        format: RecordFormat,
        /// The number of records.
        count: u64,
        /// Where they are.
        blocks: Vec<Block>,
    },
    /// The files of a folder that the job has pinned.
    Folder {
        /// The moment at which it was pinned: refused if it has been pinned again since.
        moment: u64,
        /// How many files it has, and where.
        index: FolderIndex,
    },
    /// The files that the file names.
    Listed {
        /// The digest of the content that was read.
        digest: Digest,
        /// The names, in the order of the list.
        names: Vec<FileName>,
    },
}

/// The inputs of a list that are queries.
fn select(mut inputs: Vec<Query>, selection: Selection) -> Vec<Query> {
    let total = inputs.len() as u64;
    let mut selected = (0..selection.count(total)).map(|query| selection.input_of(query, total)).peekable();
    let mut number = 0;
    inputs.retain(|_| {
        number += 1;
        selected.next_if_eq(&(number - 1)).is_some()
    });
    inputs
}

/// Why a dataset cannot be frozen or trained on.
#[derive(Debug, Error)]
pub(super) enum DatasetError {
    #[error(
        "dataset '{0}' is a list of names: models are trained on files below a name or on a file of records"
    )]
    ListForTraining(DatasetName),
    #[error(
        "dataset '{0}' is a Parquet file: models are trained on files below a name, or on a file of JSON lines or CSV"
    )]
    ParquetForTraining(DatasetName),
    #[error(
        "dataset '{0}' refers to objects outside the cluster: models are trained on files below a name, or on a file of JSON \
         lines or CSV"
    )]
    ReferencesForTraining(DatasetName),
    #[error("dataset '{0}' has become a single file since it was looked at: start it again")]
    BecameFile(DatasetName),
    #[error("dataset '{0}' has been frozen by another start at the same time: start it again")]
    PinnedAgain(DatasetName),
    #[error("dataset '{0}' has changed since it was read: start it again")]
    Changed(DatasetName),
    #[error(
        "dataset '{0}' is empty: put files under '{0}/', or one file of that name that ends in .jsonl, .ndjson, .csv, .tsv, \
         .parquet, .list or .refs"
    )]
    Empty(DatasetName),
    #[error(
        "dataset '{0}' is a file: its name must end in .jsonl, .ndjson, .csv, .tsv, .parquet, .list or .refs"
    )]
    UnknownFileKind(DatasetName),
    #[error("dataset '{0}' has no records")]
    NoRecords(DatasetName),
    #[error("dataset '{0}' names no files")]
    NoNames(DatasetName),
    #[error("dataset '{dataset}', name {number}: there is no file '{name}'")]
    MissingFile { dataset: DatasetName, number: usize, name: FileName },
    #[error("the record index of dataset '{0}' is inconsistent")]
    InconsistentIndex(DatasetName),
    #[error("the name of dataset '{0}' is too long to name its records")]
    NameTooLong(DatasetName),
    #[error("dataset '{0}' has more than {QUERIES_PER_JOB_MAX} queries")]
    TooManyQueries(DatasetName),
}

/// What a start freezes.
enum FrozenInputs {
    /// The files of a folder that is not pinned yet.
    Unpinned,
    /// The files of a pinned folder.
    Folder(FolderIndex),
    /// The files that a list names.
    Listed(Vec<Query>),
    /// The records of a file.
    Records(Records),
}

impl State {
    /// The kind and the newest version of the single file that is the dataset; `None` if the dataset is not a single file.
    pub fn dataset_file(&self, dataset: &DatasetName) -> Option<(FileKind, &VersionRecord)> {
        let version = self.files.get(dataset.as_str())?.version(None)?;
        let (_, ending) = dataset.as_str().rsplit_once('.')?;
        Some((FileKind::of_ending(ending)?, version))
    }

    /// The newest label table of a dataset of files, if it has one.
    pub fn label_table(&self, dataset: &DatasetName) -> Option<&VersionRecord> {
        self.files.get(format!("{dataset}/{LABELS_FILE}").as_str())?.version(None)
    }

    /// Fails if no model can be trained on the dataset.
    pub(super) fn check_training_data(&self, dataset: &DatasetName) -> Result<(), DatasetError> {
        match self.dataset_file(dataset) {
            Some((FileKind::List, _)) => Err(DatasetError::ListForTraining(dataset.clone())),
            Some((FileKind::Parquet, _)) => Err(DatasetError::ParquetForTraining(dataset.clone())),
            Some((FileKind::References, _)) => Err(DatasetError::ReferencesForTraining(dataset.clone())),
            Some(_) => Ok(()),
            None => self.check_folder(dataset),
        }
    }

    /// Pins the files of the folder that is a job's dataset, before they are indexed.
    pub(super) fn pin_folder(&mut self, id: JobId) -> Result<Applied, Refusal> {
        let mut job = (**self.job_or_refusal(id)?).clone();
        if job.state != JobState::Added {
            return Err(Refusal::conflict(format!("{id} has been started before")));
        }
        self.check_folder(&job.dataset)
            .map_err(|error| Refusal::conflict(format!("{id} cannot start: {error}")))?;
        self.pin(&mut job);
        self.set_job(job);
        Ok(Applied::Done)
    }

    /// Gives up the pin of a job that was not started.
    pub(super) fn unpin_folder(&mut self, id: JobId) -> Result<Applied, Refusal> {
        let mut job = (**self.job_or_refusal(id)?).clone();
        if job.state != JobState::Added {
            return Err(Refusal::conflict(format!("{id} has been started before")));
        }
        self.unpin(&mut job);
        self.set_job(job);
        Ok(Applied::Done)
    }

    /// Starts or resumes a job. `inputs` are the queries of its dataset, as read by the coordinator. Without them, a job over
    /// a folder is pinned and indexed here: so did releases of format 1, whose logs must lead to the same queries.
    pub(super) fn start_job(
        &mut self,
        id: JobId,
        inputs: Option<&Inputs>,
        options: StartOptions,
    ) -> Result<Changed, Refusal> {
        let mut job = (**self.job_or_refusal(id)?).clone();
        let state = self.state_after(id, options.after)?;
        if job.state == JobState::Running && !options.is_default() {
            let message =
                format!("{id} is running, so how it runs cannot be changed: stop it with stop-job first");
            return Err(Refusal::conflict(message));
        }
        if job.state != JobState::Added && (options.selection != Selection::All || !options.reuse.is_off()) {
            return Err(Refusal::conflict(format!(
                "{id} has been started before: its first start chose its queries, for good"
            )));
        }
        match job.state {
            JobState::Running | JobState::Done => {
                return Ok(Changed::StartedBefore { submitted: job.submitted, state: job.state });
            }
            JobState::Cancelled => {
                return Err(Refusal::conflict(format!("{id} is cancelled: add-job makes a new one")));
            }
            JobState::Added => self.freeze(&mut job, inputs, options)?,
            JobState::Stopped | JobState::Paused(_) | JobState::Waiting(_) => {
                let StartOptions { selection, reuse, .. } = job.terms.start;
                let start = StartOptions { selection, reuse, ..options };
                if start != job.terms.start {
                    job.terms = Arc::new(JobTerms { start, ..(*job.terms).clone() });
                }
            }
        }
        if state == JobState::Running {
            job.run(self.now_ms);
        } else {
            job.halt(state, self.now_ms);
        }
        let submitted = job.submitted;
        self.set_job(job);
        Ok(Changed::JobStarted { submitted })
    }

    /// Fixes a job's queries, labels and model version, and keeps their blobs.
    fn freeze(
        &mut self,
        job: &mut JobRecord,
        inputs: Option<&Inputs>,
        options: StartOptions,
    ) -> Result<(), Refusal> {
        let JobRecord { id, model, dataset, .. } = &*job;
        let artefact: Option<Arc<Artefact>> = self.models.get(model).and_then(|model| model.artefact.clone());
        let artefact = artefact.ok_or_else(|| {
            Refusal::conflict(format!(
                "{id} cannot start: model '{model}' is not trained: train-start trains it, or 'model add' adds it"
            ))
        })?;
        let cannot_start = |error: DatasetError| Refusal::conflict(format!("{id} cannot start: {error}"));
        let frozen = match inputs {
            None => self.check_folder(dataset).map(|()| FrozenInputs::Unpinned),
            Some(Inputs::Folder { moment, index }) => Self::freeze_folder(job, *moment, index),
            Some(inputs) => self.freeze_file(dataset, inputs),
        };
        // From here on nothing is refused.
        match frozen.map_err(cannot_start)? {
            FrozenInputs::Unpinned => {
                self.pin(job);
                let index = self.index_folder(job);
                self.keep_folder(job, index);
            }
            FrozenInputs::Folder(index) => self.keep_folder(job, Some(index)),
            FrozenInputs::Listed(inputs) => {
                self.unpin(job);
                let queries = select(inputs, options.selection);
                job.submitted = queries.len() as u64;
                queries.iter().for_each(|query| self.reference(&query.extents));
                job.manifest = Some(Arc::new(Manifest { queries }));
            }
            FrozenInputs::Records(records) => {
                self.unpin(job);
                job.submitted = records.count;
                self.reference(&records.extents);
                job.records = Some(Arc::new(records));
            }
        }
        // A list has been cut to the queries already.
        job.submitted = options.selection.count(job.submitted);
        if !options.is_default() {
            let reuse = self.earlier_answers(job, &artefact, options.reuse);
            job.terms =
                Arc::new(JobTerms { start: StartOptions { reuse, ..options }, ..(*job.terms).clone() });
        }
        self.reference(&artefact.extents);
        job.held = RangeSet::from(0..job.submitted);
        job.artefact = Some(artefact);
        job.started_ms = Some(self.now_ms);
        Ok(())
    }

    /// Where a job that starts takes answers from: the newest job over the same dataset that is done, whose rows say their
    /// inputs' digests, and whose answers came of the same version and parameters. One that ran all inputs is preferred to one
    /// that ran a part.
    fn earlier_answers(&self, job: &JobRecord, artefact: &Artefact, asked: Reuse) -> Reuse {
        if asked.is_off() {
            return Reuse::Off;
        }
        let is_same = |earlier: &&Arc<JobRecord>| {
            let version = earlier.artefact.as_ref().map(|artefact| artefact.version);
            earlier.state == JobState::Done
                && !earlier.terms.start.reuse.is_off()
                && earlier.dataset == job.dataset
                && earlier.model == job.model
                && version == Some(artefact.version)
                && earlier.parameters == job.parameters
        };
        let is_whole = |earlier: &&Arc<JobRecord>| earlier.terms.start.selection == Selection::All;
        let newest = self.jobs().rev().filter(is_same).find(is_whole);
        let newest = newest.or_else(|| self.jobs().rev().find(is_same));
        newest.map_or(Reuse::On, |earlier| Reuse::From(earlier.id))
    }

    /// Makes the files of a pinned folder, and its label table, the inputs of a job.
    fn keep_folder(&mut self, job: &mut JobRecord, index: Option<FolderIndex>) {
        let (Some(pin), Some(mut index)) = (job.folder.as_deref(), index) else { return };
        self.share_names(&mut index.checkpoints);
        let labels = self.label_table_at(&job.dataset, pin.moment);
        self.reference(labels.as_deref().unwrap_or_default());
        job.submitted = index.count;
        job.labels = labels;
        job.folder = Some(Arc::new(PinnedFolder { moment: pin.moment, index: Some(index) }));
    }

    /// Fails unless the dataset is a folder with files.
    fn check_folder(&self, dataset: &DatasetName) -> Result<(), DatasetError> {
        if self.dataset_file(dataset).is_some() {
            return Err(DatasetError::BecameFile(dataset.clone()));
        }
        if self.has_folder(dataset) {
            return Ok(());
        }
        if self.files.contains_key(dataset.as_str()) {
            return Err(DatasetError::UnknownFileKind(dataset.clone()));
        }
        Err(DatasetError::Empty(dataset.clone()))
    }

    /// The index of a pinned folder, unless the job has been pinned again since it was made.
    fn freeze_folder(
        job: &JobRecord,
        moment: u64,
        index: &FolderIndex,
    ) -> Result<FrozenInputs, DatasetError> {
        let dataset = &job.dataset;
        if job.folder.as_ref().is_none_or(|folder| folder.moment != moment) {
            return Err(DatasetError::PinnedAgain(dataset.clone()));
        }
        if index.count > QUERIES_PER_JOB_MAX {
            return Err(DatasetError::TooManyQueries(dataset.clone()));
        }
        if index.count == 0 || !index.is_consistent(&format!("{dataset}/")) {
            return Err(DatasetError::InconsistentIndex(dataset.clone()));
        }
        Ok(FrozenInputs::Folder(index.clone()))
    }

    /// The queries of a single file, unless it has changed since it was read.
    fn freeze_file(&self, dataset: &DatasetName, inputs: &Inputs) -> Result<FrozenInputs, DatasetError> {
        let (Inputs::Records { digest, .. } | Inputs::Listed { digest, .. }) = inputs else {
            return Err(DatasetError::Changed(dataset.clone()));
        };
        let unchanged = self.dataset_file(dataset).filter(|(_, version)| version.digest() == *digest);
        let Some((_, version)) = unchanged else { return Err(DatasetError::Changed(dataset.clone())) };
        match inputs {
            Inputs::Records { count: 0, .. } => Err(DatasetError::NoRecords(dataset.clone())),
            Inputs::Records { count, .. } if *count > QUERIES_PER_JOB_MAX => {
                Err(DatasetError::TooManyQueries(dataset.clone()))
            }
            Inputs::Records { format, count, blocks, .. } => {
                let known = self.files.get_key_value(dataset.as_str());
                let (file, _) = known.ok_or_else(|| DatasetError::Changed(dataset.clone()))?;
                let is_ordered =
                    blocks.windows(2).all(|pair| pair[0].first < pair[1].first && pair[0].at < pair[1].at);
                let is_within =
                    blocks.last().is_some_and(|last| last.first < *count && last.at < version.size());
                if !is_ordered || !is_within || blocks[0].first != 0 {
                    return Err(DatasetError::InconsistentIndex(dataset.clone()));
                }
                let records = Records {
                    file: Arc::clone(&file.0),
                    format: format.clone(),
                    extents: version.extents.clone(),
                    blocks: blocks.clone(),
                    count: *count,
                };
                if records.name(count - 1).is_none() {
                    return Err(DatasetError::NameTooLong(dataset.clone()));
                }
                Ok(FrozenInputs::Records(records))
            }
            Inputs::Listed { names, .. } => self.freeze_list(dataset, names),
            Inputs::Folder { .. } => Err(DatasetError::Changed(dataset.clone())),
        }
    }

    /// The newest versions of the files that a list names.
    fn freeze_list(&self, dataset: &DatasetName, names: &[FileName]) -> Result<FrozenInputs, DatasetError> {
        if names.is_empty() {
            return Err(DatasetError::NoNames(dataset.clone()));
        }
        let query = |(index, name): (usize, &FileName)| {
            let found = self.files.get_key_value(name.as_str());
            let newest = found.and_then(|(key, file)| Some((key, file.version(None)?)));
            let (key, newest) = newest.ok_or_else(|| DatasetError::MissingFile {
                dataset: dataset.clone(),
                number: index + 1,
                name: name.clone(),
            })?;
            Ok(Query { name: Arc::clone(&key.0), extents: newest.extents.clone() })
        };
        let queries: Result<Vec<Query>, DatasetError> = names.iter().enumerate().map(query).collect();
        Ok(FrozenInputs::Listed(queries?))
    }
}
