//! What a job's queries are, frozen when it starts.
//!
//! A data set is all files below its name (each file a query), or one file of that name: of records (`.jsonl`, `.csv`;
//! each record a query), or of names (`.list`; each named file a query). Whoever proposes the start of the latter two has
//! read the file, and says of which content: a file that changed meanwhile is refused.
//!
//! Invariants: blocks are in order, the first one begins at query 0, and each lies within the file.
//! Bounds: [`QUERIES_PER_JOB_MAX`] queries; a block of records for every few dozen of them.

use std::sync::Arc;

use idunno_shared::ids::{Digest, JobId};
use idunno_shared::names::{DatasetName, FileName};
use idunno_shared::wire::blobs::BlobRef;
use idunno_shared::wire::control::{Changed, JobState, LABELS_FILE};
use idunno_shared::wire::jobs::{QueryRange, RecordFormat};
use idunno_shared::wire::refusal::Refusal;
use serde::{Deserialize, Serialize};

use super::{Artefact, Job, Manifest, QUERIES_PER_JOB_MAX, Query, State, Version};
use crate::ranges::RangeSet;

/// Largest record, in bytes.
pub const RECORD_BYTES_MAX: u64 = 16 << 20;

/// What one file that is a data set holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A JSON value a line.
    Jsonl,
    /// CSV with a headline.
    Csv,
    /// The name of a file a line.
    List,
}

/// What a file that is a data set says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inputs {
    /// Its records are the queries.
    Records {
        /// The digest of the content that was read.
        digest: Digest,
        /// How it is read.
        format: RecordFormat,
        /// How many records.
        count: u64,
        /// Where they are.
        blocks: Vec<Block>,
    },
    /// The files that it names are.
    Listed {
        /// The digest of the content that was read.
        digest: Digest,
        /// The names.
        names: Vec<FileName>,
    },
}

/// Where some consecutive records begin; they end where the next block begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The number of the first of them.
    pub first: u64,
    /// The bytes of the file before it.
    pub at: u64,
}

/// A job's queries, where they are records of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// The file's name.
    pub file: Arc<FileName>,
    /// How it is read.
    pub format: RecordFormat,
    /// Its extents in order, as they were when the job started.
    pub extents: Arc<[BlobRef]>,
    /// Where the records are.
    pub blocks: Vec<Block>,
    /// How many there are.
    pub count: u64,
}

/// A part of a file of records that has certain queries in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The extents in which it lies.
    pub extents: Vec<BlobRef>,
    /// Bytes of the first extent before it.
    pub skip_bytes: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Records in it before the first that was asked for.
    pub skip: u32,
}

impl Records {
    /// What a query is called: file and number, from 1.
    pub fn name(&self, index: u64) -> Option<FileName> {
        if index >= self.count {
            return None;
        }
        format!("{}:{}", self.file, index + 1).parse().ok()
    }

    /// The blocks in which these queries are, as byte positions in the file; and the number of the first record there.
    fn bounds(&self, range: QueryRange) -> (u64, u64, u64) {
        let first = self.blocks.partition_point(|block| block.first <= range.first).saturating_sub(1);
        let behind = self.blocks.partition_point(|block| block.first < range.end());
        let size = self.extents.iter().map(|extent| extent.size).sum();
        let begin = self.blocks.get(first).copied().unwrap_or(Block { first: 0, at: 0 });
        (begin.at, self.blocks.get(behind).map_or(size, |block| block.at), begin.first)
    }

    /// A query's share of the bytes of its block, which is always read whole.
    pub fn bytes_of(&self, index: u64) -> u64 {
        let (from, to, first) = self.bounds(QueryRange { first: index, count: 1 });
        let behind = self.blocks.partition_point(|block| block.first <= index);
        let end = self.blocks.get(behind).map_or(self.count, |block| block.first);
        to.saturating_sub(from).div_ceil(end.saturating_sub(first).max(1))
    }

    /// Where these queries are.
    pub fn span(&self, range: QueryRange) -> Span {
        let (from, to, first) = self.bounds(range);
        let mut span = Span {
            extents: Vec::new(),
            skip_bytes: 0,
            bytes: to.saturating_sub(from),
            skip: u32::try_from(range.first.saturating_sub(first)).unwrap_or(u32::MAX),
        };
        let mut start = 0;
        for extent in &*self.extents {
            let end = start + extent.size;
            if start < to && end > from {
                if span.extents.is_empty() {
                    span.skip_bytes = from - start;
                }
                span.extents.push(*extent);
            }
            start = end;
        }
        span
    }
}

/// What a start freezes.
struct Frozen {
    manifest: Option<Manifest>,
    records: Option<Records>,
    labels: Option<Arc<[BlobRef]>>,
}

impl State {
    /// What the file that is a data set holds; `None` where its data are the files below it.
    pub fn dataset_file(&self, dataset: &DatasetName) -> Option<(FileKind, &Version)> {
        let version = self.files.get(dataset.as_str())?.version(None)?;
        let (_, ending) = dataset.as_str().rsplit_once('.')?;
        let kind = match ending {
            "jsonl" => FileKind::Jsonl,
            "csv" => FileKind::Csv,
            "list" => FileKind::List,
            _ => return None,
        };
        Some((kind, version))
    }

    /// Refuses a data set on which no model can be trained, in words.
    pub(super) fn check_training_data(&self, dataset: &DatasetName) -> Result<(), String> {
        match self.dataset_file(dataset) {
            Some((FileKind::List, _)) => Err(format!(
                "data set '{dataset}' is a list of names: models are trained on files below a name, .jsonl or .csv"
            )),
            Some(_) => Ok(()),
            None => self.below(dataset).map(drop),
        }
    }

    /// Starts a job, or goes on with it. `inputs` is what the file that is its data set says, if it is one.
    pub(super) fn start_job(&mut self, id: JobId, inputs: Option<&Inputs>) -> Result<Changed, Refusal> {
        let mut job = (**self.job_or_refusal(id)?).clone();
        match job.state {
            JobState::Running | JobState::Done => {
                return Ok(Changed::StartedBefore { submitted: job.submitted, state: job.state });
            }
            JobState::Cancelled => {
                return Err(Refusal::conflict(format!("{id} is cancelled: add-job makes a new one")));
            }
            JobState::Added => self.freeze(&mut job, inputs)?,
            JobState::Stopped | JobState::Paused(_) => {}
        }
        job.run(self.now_ms);
        let submitted = job.submitted;
        self.set_job(job);
        Ok(Changed::JobStarted { submitted })
    }

    /// Fixes a job's queries, labels and model version, and keeps their blobs from being collected.
    fn freeze(&mut self, job: &mut Job, inputs: Option<&Inputs>) -> Result<(), Refusal> {
        let Job { id, model, dataset, .. } = &*job;
        let artefact: Option<Arc<Artefact>> = self.models.get(model).and_then(|model| model.artefact.clone());
        let artefact = artefact.ok_or_else(|| {
            Refusal::conflict(format!(
                "{id} cannot start: model '{model}' is not trained: train-start trains it"
            ))
        })?;
        let cannot = |why: String| Refusal::conflict(format!("{id} cannot start: {why}"));
        let frozen = match inputs {
            None => self.below(dataset),
            Some(inputs) => self.written_in(dataset, inputs),
        };
        let Frozen { manifest, records, labels } = frozen.map_err(cannot)?;
        let files = manifest.as_ref().map_or(&[][..], |manifest| &manifest.queries);
        let submitted = records.as_ref().map_or(files.len() as u64, |records| records.count);
        if submitted > QUERIES_PER_JOB_MAX as u64 {
            return Err(cannot(format!("data set '{dataset}' has more than {QUERIES_PER_JOB_MAX} queries")));
        }
        for query in files {
            self.reference(&query.extents);
        }
        self.reference(records.as_ref().map_or(&[], |records| &*records.extents));
        self.reference(&artefact.extents);
        self.reference(labels.as_deref().unwrap_or_default());
        job.submitted = submitted;
        job.held = RangeSet::from(0..submitted);
        job.manifest = manifest.map(Arc::new);
        job.records = records.map(Arc::new);
        job.artefact = Some(artefact);
        job.labels = labels;
        job.started_ms = Some(self.now_ms);
        Ok(())
    }

    /// The files below a data set's name.
    fn below(&self, dataset: &DatasetName) -> Result<Frozen, String> {
        if self.dataset_file(dataset).is_some() {
            return Err(format!("data set '{dataset}' has become a file meanwhile: start it again"));
        }
        let (labels_name, prefix) = (format!("{dataset}/{LABELS_FILE}"), format!("{dataset}/"));
        let (mut queries, mut labels) = (Vec::new(), None);
        for (name, file) in self.files(&prefix, None).take(QUERIES_PER_JOB_MAX + 2) {
            let Some(newest) = file.version(None) else { continue };
            let extents = Arc::clone(&newest.extents);
            if name.as_str() == labels_name {
                labels = Some(extents);
            } else {
                queries.push(Query { name: Arc::clone(name), extents });
            }
        }
        if !queries.is_empty() {
            return Ok(Frozen { manifest: Some(Manifest { queries }), records: None, labels });
        }
        if self.files.contains_key(dataset.as_str()) {
            return Err(format!(
                "data set '{dataset}' is a file: its name must end in .jsonl, .csv or .list"
            ));
        }
        Err(format!(
            "data set '{dataset}' is empty: put files under '{prefix}', or one file of that name that ends in .jsonl, \
             .csv or .list"
        ))
    }

    /// What one file says, if it still says so.
    fn written_in(&self, dataset: &DatasetName, inputs: &Inputs) -> Result<Frozen, String> {
        let (Inputs::Records { digest, .. } | Inputs::Listed { digest, .. }) = inputs;
        let same = self.dataset_file(dataset).filter(|(_, version)| version.digest == *digest);
        let Some((_, version)) = same else {
            return Err(format!("data set '{dataset}' has changed meanwhile: start it again"));
        };
        match inputs {
            Inputs::Records { count: 0, .. } => Err(format!("data set '{dataset}' has no records")),
            Inputs::Records { format, count, blocks, .. } => {
                let (file, _) = self
                    .files
                    .get_key_value(dataset.as_str())
                    .ok_or_else(|| format!("data set '{dataset}' is gone"))?;
                let ordered =
                    blocks.windows(2).all(|pair| pair[0].first < pair[1].first && pair[0].at < pair[1].at);
                let within = blocks.last().is_some_and(|last| last.first < *count && last.at < version.size);
                if !ordered || !within || blocks[0].first != 0 {
                    return Err(format!("data set '{dataset}': what was read of it does not fit together"));
                }
                let records = Records {
                    file: Arc::clone(&file.0),
                    format: *format,
                    extents: Arc::clone(&version.extents),
                    blocks: blocks.clone(),
                    count: *count,
                };
                if records.name(count - 1).is_none() {
                    return Err(format!("the name of data set '{dataset}' is too long for one of records"));
                }
                Ok(Frozen { manifest: None, records: Some(records), labels: None })
            }
            Inputs::Listed { names, .. } => self.listed(dataset, names),
        }
    }

    fn listed(&self, dataset: &DatasetName, names: &[FileName]) -> Result<Frozen, String> {
        if names.is_empty() {
            return Err(format!("data set '{dataset}' names no files"));
        }
        let query = |(number, name): (usize, &FileName)| {
            let found = self.files.get_key_value(name.as_str());
            let newest = found.and_then(|(key, file)| Some((key, file.version(None)?)));
            let (key, newest) = newest.ok_or_else(|| {
                format!("data set '{dataset}', name {}: there is no file '{name}'", number + 1)
            })?;
            Ok(Query { name: Arc::clone(&key.0), extents: Arc::clone(&newest.extents) })
        };
        let queries: Result<Vec<Query>, String> = names.iter().enumerate().map(query).collect();
        Ok(Frozen { manifest: Some(Manifest { queries: queries? }), records: None, labels: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(sizes: &[u64], blocks: &[(u64, u64)], count: u64) -> Records {
        let extent = |(number, &size): (usize, &u64)| BlobRef {
            digest: Digest::of(&[u8::try_from(number).unwrap()]),
            size,
        };
        Records {
            file: Arc::new("d.jsonl".parse().unwrap()),
            format: RecordFormat::Jsonl,
            extents: sizes.iter().enumerate().map(extent).collect(),
            blocks: blocks.iter().map(|&(first, at)| Block { first, at }).collect(),
            count,
        }
    }

    #[test]
    fn a_batch_reads_the_blocks_that_it_touches_and_no_others() {
        let records = records(&[100, 100], &[(0, 10), (4, 60), (8, 150)], 10);
        let span = |first, count| {
            let span = records.span(QueryRange { first, count });
            (span.extents.len(), span.skip_bytes, span.bytes, span.skip)
        };
        assert_eq!(span(0, 4), (1, 10, 50, 0));
        assert_eq!(span(3, 2), (2, 10, 140, 3));
        assert_eq!(span(5, 3), (2, 60, 90, 1));
        assert_eq!(span(9, 1), (1, 50, 50, 1));
        assert_eq!(span(0, 10), (2, 10, 190, 0));
        assert_eq!((records.bytes_of(3), records.bytes_of(4), records.bytes_of(9)), (13, 23, 25));
        assert_eq!(records.name(9).unwrap().as_str(), "d.jsonl:10");
        assert_eq!(records.name(10), None);
    }
}
