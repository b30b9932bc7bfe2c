//! The commands of the metadata log, one at a time.

use std::collections::BTreeSet;

use idunno_shared::folders::S3_UPLOADS;
use idunno_shared::ids::{Digest, JobId, NodeId, OpId, Term, UploadId};
use idunno_shared::names::FileName;
use idunno_shared::wire::blobs::{BlobRef, EXTENT_BYTES_MAX};
use idunno_shared::wire::control::{
    ATTRIBUTE_BYTES_MAX, Attributes, Change, Changed, ETAG, Expected, FailedMax, FileCopy, JobOptions,
    JobState, NamedIdentity, NewFile, PARAMETER_BYTES_MAX, Reuse, SAME_COMMIT_MS, Selection, StartOptions,
};
use idunno_shared::wire::jobs::{
    BatchOutcome, BatchSize, Lease, Policy, QueryRange, RecordFormat, TokenCount, Training,
};
use idunno_shared::wire::records::RecordIdentity;
use idunno_shared::wire::refusal::{Refusal, RefusalCode};

use super::*;

mod datasets;
mod files;
mod folding;
mod identities;
mod jobs;
mod models;
mod packages;
mod pins;
mod webhooks;

fn training() -> Training {
    Training { seed: 7, ..Training::default() }
}

/// A state. Each step checks its invariants, and that a refusal changes nothing.
#[derive(Default)]
struct Fixture {
    state: State,
    now_ms: u64,
}

fn name(text: &str) -> FileName {
    text.parse().unwrap()
}

fn extent(content: &str, holders: &[u64]) -> (BlobRef, Vec<NodeId>) {
    let blob = BlobRef { digest: Digest::of(content.as_bytes()), size: content.len() as u64 };
    (blob, holders.iter().map(|id| NodeId(*id)).collect())
}

fn file(path: &str, content: &str) -> NewFile {
    let extents = vec![extent(content, &[1, 2, 3, 4])];
    NewFile { name: name(path), size: content.len() as u64, digest: extents[0].0.digest, extents }
}

fn commit(files: Vec<NewFile>) -> Action {
    Action::Change(Change::CommitFiles { upload: UploadId::default(), files })
}

fn batch(job: JobId, first: u64, count: u32, answered: &[(u64, u32)]) -> BatchOutcome {
    let lease = Lease { job, range: QueryRange { first, count }, attempt: 1, term: Term(1) };
    let answered: Vec<_> =
        answered.iter().map(|(first, count)| QueryRange { first: *first, count: *count }).collect();
    let labelled: u32 = answered.iter().map(|range| range.count).sum();
    BatchOutcome {
        lease,
        answered,
        inference_us: 1000 * u64::from(count),
        labelled,
        correct: labelled / 2,
        local: 0,
        refused: 0,
        tokens: TokenCount { prompt: 10 * u64::from(labelled), completion: labelled.into(), reused: 0 },
    }
}

fn dead_letter(index: u64) -> DeadLetterRecord {
    DeadLetterRecord {
        index,
        reason: "bad image".to_owned(),
        worker: NodeId(1),
        attempts: 3,
        name: None,
        identity: RecordIdentity::default(),
    }
}

fn options(name: &str) -> JobOptions {
    JobOptions { name: Some(name.parse().unwrap()), weight: Some(3), ..JobOptions::default() }
}

impl Fixture {
    fn apply(&mut self, action: Action) -> Result<Applied, Refusal> {
        self.apply_as(None, action)
    }

    fn apply_as(&mut self, op: Option<OpId>, action: Action) -> Result<Applied, Refusal> {
        self.apply_command(&Command { at_ms: self.now_ms, op, action, upload: None, by: None })
    }

    fn apply_command(&mut self, command: &Command) -> Result<Applied, Refusal> {
        let before = self.state.clone();
        let outcome = self.state.apply(command);
        self.state.check().unwrap();
        assert!(outcome.is_ok() || self.state == before, "a refusal changed something");
        outcome
    }

    fn change(&mut self, change: Change) -> Result<Changed, Refusal> {
        match self.apply(Action::Change(change))? {
            Applied::Changed(changed) => Ok(changed),
            other => panic!("{other:?}"),
        }
    }

    fn segment(&mut self, content: &str, batches: Vec<BatchOutcome>) -> Result<Applied, Refusal> {
        let (worker, job) = (NodeId(1), JobId(1));
        self.apply(Action::CommitSegment { worker, job, segment: extent(content, &[1, 2]), batches })
    }

    fn train(&mut self, model: &str, content: &str) -> Result<Applied, Refusal> {
        let model = model.parse().unwrap();
        let extents = vec![extent(content, &[1, 2])];
        let size = content.len() as u64;
        self.apply(Action::ModelTrained {
            model,
            version: extents[0].0.digest,
            size,
            extents,
            training: training(),
            metrics: vec![("accuracy".into(), "0.9".into())],
            report: Some(extent(&format!("{content}, measured"), &[1, 2])),
            package: None,
        })
    }

    /// A trained model, a dataset of `queries` files with labels, and job 1 over it, running.
    fn with_job(queries: usize) -> Self {
        let mut fixture = Self::default();
        let model: ModelName = "mnist-mlp".parse().unwrap();
        fixture.change(Change::TrainStart { models: vec![model.clone()], training: training() }).unwrap();
        fixture.train("mnist-mlp", "weights").unwrap();
        let mut files: Vec<_> =
            (0..queries).map(|n| file(&format!("data/{n:04}.png"), &format!("image {n}"))).collect();
        files.push(file("data/labels.csv", "file,label"));
        files.push(file("data2/other.png", "other"));
        fixture.apply(commit(files)).unwrap();
        let dataset = "data".parse().unwrap();
        fixture
            .change(Change::AddJob { model, dataset, batch_size: 4.into(), options: JobOptions::default() })
            .unwrap();
        let started = fixture.change(Change::start(JobId(1))).unwrap();
        assert_eq!(started, Changed::JobStarted { submitted: queries as u64 });
        fixture
    }

    fn job(&self) -> &JobRecord {
        self.state.job(JobId(1)).unwrap()
    }

    fn references(&self, content: &str) -> Option<u64> {
        self.state.blob(&Digest::of(content.as_bytes())).map(|blob| blob.references)
    }
}

fn code<T: std::fmt::Debug>(outcome: Result<T, Refusal>) -> RefusalCode {
    outcome.unwrap_err().code
}
