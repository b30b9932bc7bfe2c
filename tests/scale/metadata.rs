//! Metadata that is as large as one wants, made by the commands of the log.

use idunno_core::metadata::{Action, Applied, Command, State};
use idunno_core::placement::{Candidate, choose};
use idunno_shared::ids::{Digest, JobId, NodeId, UploadId};
use idunno_shared::wire::blobs::BlobRef;
use idunno_shared::wire::control::{Change, Changed, ITEMS_PER_REQUEST_MAX, JobOptions, NewFile};
use idunno_shared::wire::jobs::{BatchSize, Training};

pub(crate) const MODEL: &str = "mnist-mlp";
pub(crate) const MEMBERS: u64 = 10;
const FREE_BYTES: u64 = 1 << 40;

/// All members, as they are chosen from to hold a blob.
pub(crate) fn candidates() -> Vec<Candidate> {
    (1..=MEMBERS).map(|member| Candidate { node: NodeId(member), free_bytes: FREE_BYTES }).collect()
}

/// A blob that is not in the store, and its holders.
pub(crate) fn extent(content: &str, size: u64) -> (BlobRef, Vec<NodeId>) {
    let digest = Digest::of(content.as_bytes());
    (BlobRef { digest, size }, choose(&digest, &candidates(), &[], 4))
}

/// A small file, with content that no other has.
pub(crate) fn small_file(name: &str, version: u64) -> NewFile {
    let extents = vec![extent(&format!("{name} {version}"), 20_480)];
    NewFile { name: name.parse().unwrap(), size: 20_480, digest: extents[0].0.digest, extents }
}

pub(crate) fn command(action: Action) -> Command {
    Command { at_ms: 1_800_000_000_000, op: None, action, upload: None, by: None }
}

pub(crate) fn commit(files: Vec<NewFile>) -> Command {
    command(Action::Change(Change::CommitFiles { upload: UploadId::default(), files }))
}

pub(crate) fn change(state: &mut State, change: Change) -> Changed {
    match state.apply(&command(Action::Change(change))).unwrap() {
        Applied::Changed(changed) => changed,
        other => panic!("{other:?}"),
    }
}

/// The name of the file of this number, in a folder of a thousand.
pub(crate) fn file_name(number: u64) -> String {
    format!("photos/{:04}/{number:08}.jpg", number / 1_000)
}

/// Small files that were put in the order of their names.
pub(crate) fn with_files(count: u64) -> State {
    let mut state = State::new();
    for first in (0..count).step_by(ITEMS_PER_REQUEST_MAX) {
        let numbers = first..count.min(first + ITEMS_PER_REQUEST_MAX as u64);
        state.apply(&commit(numbers.map(|number| small_file(&file_name(number), 0)).collect())).unwrap();
    }
    state
}

/// Trains the model of all jobs.
pub(crate) fn train(state: &mut State) {
    let training = Training { seed: 7, ..Training::default() };
    change(state, Change::TrainStart { models: vec![MODEL.parse().unwrap()], training: training.clone() });
    let extents = vec![extent("weights", 1_000)];
    let trained = Action::ModelTrained {
        model: MODEL.parse().unwrap(),
        version: extents[0].0.digest,
        size: 1_000,
        extents,
        training,
        metrics: Vec::new(),
        report: None,
        package: None,
    };
    state.apply(&command(trained)).unwrap();
}

pub(crate) fn add_job(state: &mut State, dataset: &str) -> JobId {
    let (model, dataset, options) = (MODEL.parse().unwrap(), dataset.parse().unwrap(), JobOptions::default());
    match change(state, Change::AddJob { model, dataset, batch_size: BatchSize::Auto, options }) {
        Changed::JobAdded(id) => id,
        other => panic!("{other:?}"),
    }
}
