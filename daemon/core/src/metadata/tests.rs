use std::collections::BTreeSet;

use idunno_shared::ids::{Digest, JobId, NodeId, OpId, Term, UploadId};
use idunno_shared::names::FileName;
use idunno_shared::wire::blobs::{BlobRef, EXTENT_BYTES_MAX};
use idunno_shared::wire::control::{Change, Changed, JobOptions, JobState, NewFile, PARAMETER_BYTES_MAX};
use idunno_shared::wire::jobs::{BatchOutcome, BatchSize, Lease, Policy, QueryRange, RecordFormat, Training};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};

use super::*;

fn training() -> Training {
    Training { seed: 7, dataset: None }
}

/// A state, whose invariants are checked at every step, and refusals' harmlessness with them.
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
    let labelled = answered.iter().map(|range| range.count).sum();
    BatchOutcome {
        lease,
        answered,
        inference_us: 1000 * u64::from(count),
        labelled,
        correct: labelled / 2,
        local: 0,
        refused: 0,
    }
}

fn letter(index: u64) -> Letter {
    Letter { index, reason: "bad image".to_owned(), worker: NodeId(1), attempts: 3 }
}

impl Fixture {
    fn apply(&mut self, action: Action) -> Result<Applied, Refusal> {
        self.apply_as(None, action)
    }

    fn apply_as(&mut self, op: Option<OpId>, action: Action) -> Result<Applied, Refusal> {
        let before = self.state.clone();
        let outcome = self.state.apply(&Command { at_ms: self.now_ms, op, action });
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
        })
    }

    /// A trained model, a data set of `queries` files with labels, and job 1 over it, started.
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
        let started = fixture.change(Change::StartJob { job: JobId(1) }).unwrap();
        assert_eq!(started, Changed::JobStarted { submitted: queries as u64 });
        fixture
    }

    fn job(&self) -> &Job {
        self.state.job(JobId(1)).unwrap()
    }

    fn references(&self, content: &str) -> Option<u64> {
        self.state.blob(&Digest::of(content.as_bytes())).map(|blob| blob.references)
    }
}

fn code<T: std::fmt::Debug>(outcome: Result<T, Refusal>) -> RefusalCode {
    outcome.unwrap_err().code
}

#[test]
fn five_versions_are_kept_and_their_blobs_counted() {
    let mut fixture = Fixture::default();
    for version in 1..=7 {
        let applied = fixture.apply(commit(vec![file("a", &format!("v{version}"))])).unwrap();
        assert_eq!(applied, Applied::Changed(Changed::Files(vec![(version, 4)])));
    }
    let numbers = |fixture: &Fixture| -> Vec<u64> {
        fixture.state.versions(&name("a"), 9).unwrap().iter().map(|version| version.number).collect()
    };
    assert_eq!(numbers(&fixture), [7, 6, 5, 4, 3]);
    assert_eq!((fixture.references("v2"), fixture.references("v3")), (Some(0), Some(1)));
    fixture.apply(commit(vec![file("b", "v7")])).unwrap();
    assert_eq!(fixture.change(Change::Delete { name: name("a") }), Ok(Changed::Deleted { versions: 5 }));
    assert_eq!((fixture.references("v7"), fixture.references("v6")), (Some(1), Some(0)));
    assert_eq!(code(fixture.change(Change::Delete { name: name("a") })), RefusalCode::NotFound);
}

#[test]
fn a_commit_is_all_or_nothing() {
    let mut fixture = Fixture::default();
    fixture.apply(commit(vec![file("a", "one")])).unwrap();
    let mut short = file("c", "three");
    short.size = 4;
    let mut unheld = file("c", "three");
    unheld.extents[0].1.clear();
    let mut large = file("c", "three");
    large.size = EXTENT_BYTES_MAX + 1;
    large.extents[0].0.size = large.size;
    let mut twisted = file("c", "one");
    (twisted.size, twisted.extents[0].0.size) = (4, 4);
    for bad in [short, unheld, large, twisted] {
        assert_eq!(code(fixture.apply(commit(vec![file("b", "two"), bad]))), RefusalCode::Invalid);
        assert_eq!(fixture.state.file_count(), 1);
    }
    assert_eq!(code(fixture.apply(commit(vec![]))), RefusalCode::Invalid);
    let empty = NewFile { name: name("empty"), size: 0, digest: Digest::of(b""), extents: vec![] };
    assert!(fixture.apply(commit(vec![empty])).is_ok());
}

#[test]
fn an_operation_is_done_once_and_a_refused_one_may_be_asked_again() {
    let mut fixture = Fixture::default();
    let op = Some(OpId(1, 2));
    let delete = Action::Change(Change::Delete { name: name("a") });
    assert!(fixture.apply_as(op, delete.clone()).is_err());
    fixture.apply(commit(vec![file("a", "one")])).unwrap();
    let done = fixture.apply_as(op, delete.clone());
    fixture.apply(commit(vec![file("a", "two")])).unwrap();
    let revision = fixture.state.revision();
    assert_eq!(fixture.apply_as(op, delete), done);
    assert_eq!((fixture.state.revision(), fixture.state.file_count()), (revision, 1));
}

#[test]
fn outcomes_are_kept_for_a_minute_however_many_there_are() {
    let mut operations = operations::Operations::default();
    for number in 0..2 * OPERATIONS_KEPT as u64 {
        operations.keep(OpId(0, number), &Applied::Done, 1_000);
    }
    operations.keep(OpId(1, 0), &Applied::Done, 1_000 + KEPT_MS - 1);
    assert!(operations.outcome(OpId(0, 0)).is_some(), "its client may ask again");
    operations.keep(OpId(1, 1), &Applied::Done, 1_000 + KEPT_MS);
    operations.check().unwrap();
    let first = OPERATIONS_KEPT as u64 + 2;
    assert!(operations.outcome(OpId(0, first - 1)).is_none() && operations.outcome(OpId(0, first)).is_some());
}

#[test]
fn outcomes_are_bounded() {
    let mut operations = operations::Operations::default();
    for number in 0..OPERATIONS_MAX as u64 + 5 {
        operations.keep(OpId(0, number), &Applied::Done, 0);
    }
    assert!(operations.outcome(OpId(0, 4)).is_none() && operations.outcome(OpId(0, 5)).is_some());
    operations.keep(OpId(1, 0), &Applied::Changed(Changed::Files(vec![(1, 4); 1_000_001])), 0);
    operations.check().unwrap();
    assert!(operations.outcome(OpId(0, 5)).is_none() && operations.outcome(OpId(1, 0)).is_some());
}

#[test]
fn listings_go_by_prefix_and_page() {
    let mut fixture = Fixture::default();
    for path in ["a", "b/1", "b/2", "b/3", "b0", "c"] {
        fixture.apply(commit(vec![file(path, path)])).unwrap();
    }
    let names = |(files, more): (Vec<idunno_shared::wire::control::FileSummary>, bool)| {
        (files.iter().map(|file| file.name.to_string()).collect::<Vec<_>>(), more)
    };
    assert_eq!(names(fixture.state.list("b/", None, 2)), (vec!["b/1".into(), "b/2".into()], true));
    assert_eq!(names(fixture.state.list("b/", Some(&name("b/2")), 2)), (vec!["b/3".into()], false));
    assert_eq!(names(fixture.state.list("b/", Some(&name("a")), 9)).0.len(), 3);
    assert_eq!(names(fixture.state.list("", None, 9)).0.len(), 6);
    assert!(names(fixture.state.list("b/", Some(&name("c")), 9)).0.is_empty());
    assert_eq!(names(fixture.state.stored(NodeId(4), None, 9)).0.len(), 6);
    assert!(names(fixture.state.stored(NodeId(5), None, 9)).0.is_empty());
    assert_eq!(fixture.state.list("a", None, 1).0[0].holders.len(), 4);
}

#[test]
fn a_start_freezes_files_labels_and_model() {
    let mut fixture = Fixture::with_job(10);
    assert_eq!(fixture.references("image 3"), Some(2));
    assert_eq!(fixture.references("weights"), Some(3));
    fixture.apply(commit(vec![file("data/0003.png", "changed"), file("data/new.png", "new")])).unwrap();
    fixture.change(Change::Delete { name: name("data/labels.csv") }).unwrap();
    fixture.change(Change::Delete { name: name("models/mnist-mlp") }).unwrap();
    fixture
        .change(Change::TrainStart { models: vec!["mnist-mlp".parse().unwrap()], training: training() })
        .unwrap();
    fixture.train("mnist-mlp", "better weights").unwrap();
    let inputs: Vec<_> = fixture.state.queries(JobId(1), QueryRange { first: 2, count: 2 }).collect();
    assert_eq!((inputs[1].0, inputs[1].1.name.as_str()), (3, "data/0003.png"));
    assert_eq!(inputs[1].1.extents[0].digest, Digest::of(b"image 3"));
    assert_eq!(fixture.job().artefact.as_ref().unwrap().version, Digest::of(b"weights"));
    assert_eq!((fixture.references("weights"), fixture.references("file,label")), (Some(1), Some(1)));
    assert_eq!(fixture.state.pending(JobId(1)).len(), 10);
}

#[test]
fn jobs_are_refused_where_they_cannot_go_on() {
    let mut fixture = Fixture::default();
    let model: ModelName = "mnist-mlp".parse().unwrap();
    let add = |model: &str, batch_size: u32| Change::AddJob {
        model: model.parse().unwrap(),
        dataset: "data".parse().unwrap(),
        batch_size: batch_size.into(),
        options: JobOptions::default(),
    };
    let refusal = fixture.change(add("mystery", 4)).unwrap_err();
    assert!(refusal.code == RefusalCode::NotFound && refusal.message.contains("squeezenet1.1"), "{refusal}");
    assert_eq!(code(fixture.change(add("mnist-mlp", 4097))), RefusalCode::Invalid);
    assert_eq!(fixture.change(add("mnist-mlp", 4)), Ok(Changed::JobAdded(JobId(1))));
    let auto = Change::SetBatchSize { job: JobId(1), batch_size: BatchSize::Auto };
    assert_eq!(fixture.change(auto), Ok(Changed::Done));
    assert_eq!(fixture.state.job(JobId(1)).unwrap().batch_size.to_string(), "auto");
    let start = Change::StartJob { job: JobId(1) };
    let refusal = fixture.change(start.clone()).unwrap_err();
    assert!(refusal.message.contains("is not trained"), "{refusal}");
    assert_eq!(code(fixture.change(Change::StopJob { job: JobId(1) })), RefusalCode::Conflict);
    assert_eq!(code(fixture.segment("rows", vec![batch(JobId(1), 0, 1, &[(0, 1)])])), RefusalCode::Conflict);
    fixture.change(Change::TrainStart { models: vec![], training: training() }).unwrap();
    fixture.train("mnist-mlp", "weights").unwrap();
    let refusal = fixture.change(start).unwrap_err();
    assert!(refusal.message.contains("'data' is empty"), "{refusal}");
    let refusal = fixture.change(Change::StopJob { job: JobId(7) }).unwrap_err();
    assert_eq!(refusal.message, "there is no job-7: get-job-stats lists the jobs");
    assert!(fixture.state.model(&model).unwrap().artefact.is_some());
}

#[test]
fn the_first_answer_counts_and_the_last_ends_the_job() {
    let mut fixture = Fixture::with_job(10);
    let applied =
        fixture.segment("one", vec![batch(JobId(1), 0, 4, &[(0, 4)]), batch(JobId(1), 4, 4, &[(4, 2)])]);
    let Ok(Applied::Committed { accepted: 6, duplicates: 0, job_done: false, .. }) = applied else {
        panic!("{applied:?}")
    };
    fixture.apply(Action::DeadLetters { job: JobId(1), letters: vec![letter(6), letter(2)] }).unwrap();
    assert_eq!(fixture.job().dead.numbers().collect::<Vec<_>>(), [6], "query 2 was answered first");
    let applied = fixture.segment("two", vec![batch(JobId(1), 4, 4, &[(4, 4)])]).unwrap();
    let Applied::Committed { accepted, duplicates, accepted_ranges, .. } = applied else { panic!() };
    assert_eq!((accepted, duplicates), (1, 3));
    assert_eq!(accepted_ranges, [QueryRange { first: 7, count: 1 }]);
    fixture.segment("none", vec![batch(JobId(1), 0, 4, &[(0, 4)])]).unwrap();
    assert_eq!((fixture.references("none"), fixture.job().segments.len()), (Some(0), 2));
    fixture.now_ms = 5000;
    let applied = fixture.segment("three", vec![batch(JobId(1), 8, 2, &[(8, 2)])]).unwrap();
    assert!(matches!(applied, Applied::Committed { job_done: true, .. }));
    assert_eq!((fixture.job().state.clone(), fixture.job().finished_ms), (JobState::Done, Some(5000)));
    assert_eq!((fixture.references("image 1"), fixture.references("image 6")), (Some(1), Some(2)));
    let view = fixture.job().view(0, 9000);
    assert_eq!((view.done, view.dead, view.duplicates_dropped, view.labelled), (9, 1, 7, 9));
    assert!((view.running_s - 5.0).abs() < 1e-9 && (view.processing_ms.mean - 1.0).abs() < 1e-9, "{view:?}");
    let (segments, more) = fixture.state.segments(JobId(1), 1, 1).unwrap();
    assert_eq!((segments[0].blob.digest, more), (Digest::of(b"two"), true));
}

#[test]
fn bad_segments_are_refused() {
    let mut fixture = Fixture::with_job(10);
    let job = JobId(1);
    let overlapping = vec![batch(job, 0, 4, &[(0, 4)]), batch(job, 2, 4, &[(2, 4)])];
    let mut miscounted = batch(job, 0, 4, &[(0, 4)]);
    miscounted.labelled = 5;
    for bad in [
        overlapping,
        vec![miscounted],
        vec![],
        vec![batch(JobId(2), 0, 4, &[(0, 4)])],
        vec![batch(job, 8, 4, &[(8, 4)])],
        vec![batch(job, 0, 4, &[(3, 2)])],
        vec![batch(job, 0, 4, &[(0, 2), (1, 2)])],
        vec![batch(job, u64::MAX, 4, &[])],
        vec![batch(job, 0, 4, &[(u64::MAX, 2)])],
    ] {
        assert_eq!(code(fixture.segment("rows", bad)), RefusalCode::Invalid);
    }
    let letters = vec![letter(3), letter(10)];
    assert_eq!(code(fixture.apply(Action::DeadLetters { job, letters })), RefusalCode::Invalid);
}

#[test]
fn dead_letters_of_a_done_job_can_be_run_again() {
    let mut fixture = Fixture::with_job(3);
    fixture.change(Change::Delete { name: name("data/0001.png") }).unwrap();
    fixture.apply(Action::DeadLetters { job: JobId(1), letters: vec![letter(1)] }).unwrap();
    fixture.segment("rows", vec![batch(JobId(1), 0, 3, &[(0, 1), (2, 1)])]).unwrap();
    assert_eq!(fixture.job().state, JobState::Done);
    let (letters, _) = fixture.state.dead_letters(JobId(1), 0, 9).unwrap();
    assert_eq!((letters[0].name.as_str(), letters[0].attempts), ("data/0001.png", 3));
    assert_eq!((fixture.references("image 1"), fixture.references("image 0")), (Some(1), Some(1)));
    let retry = Change::RetryDeadLetters { job: JobId(1), queries: vec![] };
    assert_eq!(fixture.change(retry.clone()), Ok(Changed::Retried { queries: 1 }));
    assert_eq!(fixture.state.pending(JobId(1)).numbers().collect::<Vec<_>>(), [1]);
    fixture.segment("more rows", vec![batch(JobId(1), 1, 1, &[(1, 1)])]).unwrap();
    assert_eq!((fixture.job().state.clone(), fixture.references("image 1")), (JobState::Done, Some(0)));
    assert!(fixture.job().manifest.is_none() && fixture.references("weights") == Some(2));
    assert_eq!(code(fixture.change(retry)), RefusalCode::Conflict);
}

#[test]
fn stops_and_pauses_do_not_count_as_running() {
    let mut fixture = Fixture::with_job(3);
    fixture.now_ms = 1000;
    fixture.change(Change::StopJob { job: JobId(1) }).unwrap();
    fixture.now_ms = 9000;
    fixture.change(Change::StartJob { job: JobId(1) }).unwrap();
    let again = fixture.change(Change::StartJob { job: JobId(1) });
    assert_eq!(again, Ok(Changed::StartedBefore { submitted: 3, state: JobState::Running }));
    fixture.now_ms = 11_000;
    let reason = "é".repeat(REASON_BYTES_MAX);
    fixture.apply(Action::PauseJob { job: JobId(1), reason }).unwrap();
    let JobState::Paused(reason) = &fixture.job().state else { panic!() };
    assert_eq!(reason.len(), REASON_BYTES_MAX);
    assert_eq!(fixture.job().running_ms(50_000), 3000);
    fixture.now_ms = 0;
    fixture.segment("rows", vec![batch(JobId(1), 0, 3, &[(0, 3)])]).unwrap();
    assert_eq!(fixture.job().finished_ms, Some(11_000), "time does not go back");
}

#[test]
fn only_an_asked_for_training_counts() {
    let mut fixture = Fixture::default();
    let model: ModelName = "mine".parse().unwrap();
    let start = Change::TrainStart { models: vec![model.clone()], training: training() };
    assert_eq!(code(fixture.train("mine", "weights")), RefusalCode::Conflict);
    fixture.change(start.clone()).unwrap();
    fixture.apply(Action::ModelFailed { model: model.clone(), reason: "no such model".into() }).unwrap();
    assert_eq!(code(fixture.train("mine", "weights")), RefusalCode::Conflict);
    let view = fixture.state.model_views().into_iter().find(|view| view.model == model).unwrap();
    assert_eq!((view.failure.as_deref(), view.training), (Some("no such model"), false));
    fixture.change(start).unwrap();
    fixture.train("mine", "weights").unwrap();
    assert_eq!(fixture.state.locate(&name("models/mine"), None).unwrap().number, 1);
    assert_eq!(fixture.state.model_views().len(), PREDEFINED_MODELS.len() + 1);
    let dots = Change::TrainStart { models: vec!["..".parse().unwrap()], training: training() };
    assert_eq!(code(fixture.change(dots)), RefusalCode::Invalid);
}

#[test]
fn a_model_is_predefined_known_or_offered() {
    let mut fixture = Fixture::default();
    let (model, nothing): (ModelName, _) = ("mine".parse().unwrap(), BTreeSet::new());
    assert!(fixture.state.check_model(&"mnist-mlp".parse().unwrap(), &nothing).is_ok());
    let refusal = fixture.state.check_model(&model, &nothing).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::NotFound);
    assert!(refusal.message.contains("'mine'") && refusal.message.contains("mnist-mlp"), "{refusal}");
    assert!(fixture.state.check_model(&model, &BTreeSet::from([model.clone()])).is_ok());
    fixture.change(Change::TrainStart { models: vec![model.clone()], training: training() }).unwrap();
    assert!(fixture.state.check_model(&model, &nothing).is_ok());
}

#[test]
fn a_blob_that_comes_back_counts_only_its_new_holders() {
    let mut fixture = Fixture::default();
    fixture.apply(commit(vec![file("a", "one")])).unwrap();
    fixture.change(Change::Delete { name: name("a") }).unwrap();
    let extents = vec![extent("one", &[5, 6, 6])];
    let back = NewFile { name: name("b"), size: 3, digest: Digest::of(b"one"), extents };
    let applied = fixture.apply(commit(vec![back])).unwrap();
    assert_eq!(applied, Applied::Changed(Changed::Files(vec![(1, 2)])));
    assert_eq!(fixture.state.holders(&Digest::of(b"one")), [NodeId(5), NodeId(6)]);
    fixture.apply(Action::Forget(vec![Digest::of(b"one")])).unwrap();
    assert_eq!(fixture.references("one"), Some(1), "what is referred to is not forgotten");
}

#[test]
fn a_snapshot_holds_everything() {
    let mut fixture = Fixture::with_job(10);
    fixture.segment("rows", vec![batch(JobId(1), 0, 4, &[(0, 4)])]).unwrap();
    fixture.apply(Action::DeadLetters { job: JobId(1), letters: vec![letter(5)] }).unwrap();
    fixture.apply_as(Some(OpId(1, 1)), commit(vec![file("x", "y")])).unwrap();
    let bytes = rmp_serde::to_vec(&Snapshot::from(fixture.state.clone())).unwrap();
    let read: Snapshot = rmp_serde::from_slice(&bytes).unwrap();
    assert_eq!(State::from(read.clone()), fixture.state);
    assert_eq!(rmp_serde::to_vec(&read).unwrap(), bytes);
}

#[test]
fn weights_and_the_policy_are_kept_and_bad_weights_refused() {
    let mut fixture = Fixture::with_job(10);
    let job = JobId(1);
    let weight = |fixture: &Fixture| fixture.state.job(job).unwrap().weight;
    assert_eq!((weight(&fixture), fixture.state.policy()), (1, Policy::Rate));
    fixture.change(Change::SetWeight { job, weight: 3 }).unwrap();
    fixture.change(Change::SetPolicy(Policy::Time)).unwrap();
    for weight in [0, 1001] {
        assert_eq!(code(fixture.change(Change::SetWeight { job, weight })), RefusalCode::Invalid);
    }
    let nobody = Change::SetWeight { job: JobId(7), weight: 1 };
    assert_eq!(code(fixture.change(nobody)), RefusalCode::NotFound);
    assert_eq!((weight(&fixture), fixture.state.policy()), (3, Policy::Time));
}

fn options(name: &str) -> JobOptions {
    JobOptions { name: Some(name.parse().unwrap()), weight: Some(3), ..JobOptions::default() }
}

#[test]
fn names_are_unique_and_numbers_never_come_back() {
    let mut fixture = Fixture::default();
    let add = |name| Change::AddJob {
        model: "mnist-mlp".parse().unwrap(),
        dataset: "data".parse().unwrap(),
        batch_size: 4.into(),
        options: options(name),
    };
    assert_eq!(fixture.change(add("nightly")), Ok(Changed::JobAdded(JobId(1))));
    let refusal = fixture.change(add("nightly")).unwrap_err();
    assert_eq!(refusal.message, "job-1 has the name 'nightly' already: give another");
    assert_eq!(fixture.change(add("weekly")), Ok(Changed::JobAdded(JobId(2))));
    fixture.change(Change::DeleteJob { job: JobId(2) }).unwrap();
    assert_eq!(fixture.change(add("weekly")), Ok(Changed::JobAdded(JobId(3))));
    assert_eq!(fixture.state.job(JobId(3)).unwrap().weight, 3);
    let value = "x".repeat(PARAMETER_BYTES_MAX + 1);
    let parameters = [("labels".parse().unwrap(), value)].into();
    let long = JobOptions { parameters, ..JobOptions::default() };
    let Change::AddJob { model, dataset, .. } = add("x") else { panic!() };
    let refusal =
        fixture.change(Change::AddJob { model, dataset, batch_size: 1.into(), options: long }).unwrap_err();
    assert!(refusal.message.contains("'labels'"), "{refusal}");
}

#[test]
fn a_file_of_records_is_a_data_set_as_long_as_it_is_the_one_that_was_read() {
    let mut fixture = Fixture::default();
    let model: ModelName = "mnist-mlp".parse().unwrap();
    fixture.change(Change::TrainStart { models: vec![model.clone()], training: training() }).unwrap();
    fixture.train("mnist-mlp", "weights").unwrap();
    let lines = file("texts.jsonl", "one\ntwo\nthree\n");
    let digest = lines.digest;
    fixture.apply(commit(vec![lines])).unwrap();
    let dataset = "texts.jsonl".parse().unwrap();
    fixture
        .change(Change::AddJob { model, dataset, batch_size: 4.into(), options: options("lines") })
        .unwrap();
    let blocks = vec![Block { first: 0, at: 0 }, Block { first: 2, at: 8 }];
    let start = |digest| Action::StartJob {
        job: JobId(1),
        inputs: Inputs::Records { digest, format: RecordFormat::Jsonl, count: 3, blocks: blocks.clone() },
    };
    let refusal = fixture.apply(start(Digest::of(b"another"))).unwrap_err();
    assert!(refusal.message.contains("has changed meanwhile"), "{refusal}");
    assert!(
        fixture.change(Change::StartJob { job: JobId(1) }).unwrap_err().message.contains("start it again")
    );
    fixture.apply(start(digest)).unwrap();
    assert_eq!(fixture.references("one\ntwo\nthree\n"), Some(2));
    fixture.apply(Action::DeadLetters { job: JobId(1), letters: vec![letter(1)] }).unwrap();
    fixture.segment("rows", vec![batch(JobId(1), 0, 3, &[(0, 1), (2, 1)])]).unwrap();
    let (letters, _) = fixture.state.dead_letters(JobId(1), 0, 9).unwrap();
    assert_eq!((letters[0].name.as_str(), letters[0].dropped), ("texts.jsonl:2", false));

    let dropped = fixture.change(Change::DropDeadLetters { job: JobId(1), queries: vec![1] });
    assert_eq!(dropped, Ok(Changed::Dropped { queries: 1 }));
    assert_eq!(fixture.references("one\ntwo\nthree\n"), Some(1), "its inputs are let go");
    let (letters, _) = fixture.state.dead_letters(JobId(1), 0, 9).unwrap();
    assert_eq!((letters[0].name.as_str(), letters[0].dropped), ("texts.jsonl:2", true));
    let view = fixture.job().view(0, 0);
    assert_eq!((view.done, view.dead, view.about.dropped, view.about.weight), (2, 1, 1, 3));
    let retry = Change::RetryDeadLetters { job: JobId(1), queries: vec![1] };
    assert_eq!(code(fixture.change(retry)), RefusalCode::NotFound);
}

#[test]
fn a_list_names_its_files_in_its_own_order() {
    let mut fixture = Fixture::with_job(3);
    let list = file("few.list", "data/0002.png\ndata/0000.png\n");
    let digest = list.digest;
    fixture.apply(commit(vec![list])).unwrap();
    let (model, dataset) = ("mnist-mlp".parse().unwrap(), "few.list".parse().unwrap());
    fixture
        .change(Change::AddJob { model, dataset, batch_size: 4.into(), options: JobOptions::default() })
        .unwrap();
    let start = |names: &[&str]| Action::StartJob {
        job: JobId(2),
        inputs: Inputs::Listed { digest, names: names.iter().map(|text| name(text)).collect() },
    };
    let refusal = fixture.apply(start(&["data/0002.png", "data/nine.png"])).unwrap_err();
    assert!(refusal.message.contains("name 2: there is no file 'data/nine.png'"), "{refusal}");
    fixture.apply(start(&["data/0002.png", "data/0000.png"])).unwrap();
    let inputs: Vec<_> = fixture.state.queries(JobId(2), QueryRange { first: 0, count: 9 }).collect();
    let names: Vec<_> = inputs.iter().map(|(_, query)| query.name.as_str()).collect();
    assert_eq!(names, ["data/0002.png", "data/0000.png"]);
}

#[test]
fn a_cancelled_job_keeps_its_results_and_takes_no_more() {
    let mut fixture = Fixture::with_job(4);
    fixture.segment("rows", vec![batch(JobId(1), 0, 2, &[(0, 2)])]).unwrap();
    let running = fixture.change(Change::DeleteJob { job: JobId(1) }).unwrap_err();
    assert!(running.message.contains("is running"), "{running}");
    fixture.change(Change::CancelJob { job: JobId(1) }).unwrap();
    let segment = fixture.segment("late", vec![batch(JobId(1), 2, 2, &[(2, 2)])]);
    assert_eq!(code(segment), RefusalCode::Conflict);
    assert_eq!(code(fixture.change(Change::StartJob { job: JobId(1) })), RefusalCode::Conflict);
    assert_eq!((fixture.references("image 3"), fixture.references("rows")), (Some(1), Some(1)));
    assert_eq!(fixture.state.segments(JobId(1), 0, 9).unwrap().0.len(), 1);
    fixture.change(Change::DeleteJob { job: JobId(1) }).unwrap();
    assert_eq!(fixture.references("rows"), Some(0));
    assert_eq!(code(fixture.change(Change::DeleteJob { job: JobId(1) })), RefusalCode::NotFound);
}

#[test]
fn results_are_filed_once_for_each_end_of_a_job() {
    let mut fixture = Fixture::with_job(2);
    fixture.now_ms = 100;
    fixture.apply(Action::DeadLetters { job: JobId(1), letters: vec![letter(1)] }).unwrap();
    let results = extent("all rows", &[1, 2]);
    let filed = |finished_ms| Action::FileResults {
        job: JobId(1),
        finished_ms,
        size: results.0.size,
        digest: results.0.digest,
        extents: vec![results.clone()],
    };
    assert_eq!(code(fixture.apply(filed(100))), RefusalCode::Conflict, "not done yet");
    fixture.segment("rows", vec![batch(JobId(1), 0, 1, &[(0, 1)])]).unwrap();
    fixture.apply(filed(100)).unwrap();
    assert_eq!(code(fixture.apply(filed(100))), RefusalCode::Conflict, "filed");
    let view = fixture.job().view(0, 0);
    assert_eq!(view.about.results.unwrap().as_str(), "results/job-1.jsonl");
    fixture.now_ms = 200;
    fixture.change(Change::RetryDeadLetters { job: JobId(1), queries: vec![1] }).unwrap();
    fixture.segment("more", vec![batch(JobId(1), 1, 1, &[(1, 1)])]).unwrap();
    assert_eq!(code(fixture.apply(filed(100))), RefusalCode::Conflict, "of the end before");
    fixture.apply(filed(200)).unwrap();
    let file = fixture.state.file(&name("results/job-1.jsonl")).unwrap();
    assert_eq!(file.versions().count(), 2);
    fixture.change(Change::DeleteJob { job: JobId(1) }).unwrap();
    assert!(fixture.state.file(&name("results/job-1.jsonl")).is_none());
}

#[test]
fn a_training_can_be_stopped_and_asked_for_again() {
    let mut fixture = Fixture::default();
    let model: ModelName = "mnist-mlp".parse().unwrap();
    let stop = Change::TrainStop { models: vec![model.clone()] };
    assert_eq!(code(fixture.change(stop.clone())), RefusalCode::Conflict);
    fixture.change(Change::TrainStart { models: vec![model.clone()], training: training() }).unwrap();
    fixture.change(stop).unwrap();
    assert_eq!(code(fixture.train("mnist-mlp", "weights")), RefusalCode::Conflict, "nobody wants it");
    assert!(fixture.state.model(&model).unwrap().failure.as_deref().unwrap().contains("stopped"));
    fixture.change(Change::TrainStart { models: vec![model.clone()], training: training() }).unwrap();
    fixture.train("mnist-mlp", "weights").unwrap();
    let view = fixture.state.model_views().into_iter().find(|view| view.model == model).unwrap();
    assert_eq!((view.failure, view.metrics), (None, vec![("accuracy".to_owned(), "0.9".to_owned())]));
}

#[test]
fn a_training_names_its_data_set_and_no_other_takes_its_place_meanwhile() {
    let mut fixture = Fixture::default();
    let start = |models: &[&str], dataset: &str| Change::TrainStart {
        models: models.iter().map(|model| model.parse().unwrap()).collect(),
        training: Training { seed: 7, dataset: Some(dataset.parse().unwrap()) },
    };
    assert_eq!(code(fixture.change(start(&["mine"], "cats"))), RefusalCode::Conflict, "it is empty");
    fixture.apply(commit(vec![file("cats/1.png", "a cat"), file("all.list", "cats/1.png")])).unwrap();
    assert_eq!(code(fixture.change(start(&[], "cats"))), RefusalCode::Invalid, "not all models");
    assert_eq!(code(fixture.change(start(&["mine"], "all.list"))), RefusalCode::Conflict, "names only");
    fixture.change(start(&["mine"], "cats")).unwrap();
    fixture.change(start(&["mine"], "cats")).unwrap();
    let other = Change::TrainStart { models: vec!["mine".parse().unwrap()], training: training() };
    assert_eq!(code(fixture.change(other)), RefusalCode::Conflict, "it is in training");
    assert_eq!(code(fixture.train("mine", "weights")), RefusalCode::Conflict, "trained on nothing");
}
