//! Folders that jobs pin.

use super::*;
use crate::metadata::pins::RELEASED_PER_COMMAND_MAX;

/// A state with a model and `files` files in the folder `data`, and job 1 over it, not started.
fn with_added_job(files: usize) -> Fixture {
    let mut fixture = Fixture::default();
    let model: ModelName = "mnist-mlp".parse().unwrap();
    fixture.change(Change::TrainStart { models: vec![model.clone()], training: training() }).unwrap();
    fixture.train("mnist-mlp", "weights").unwrap();
    let names: Vec<usize> = (0..files).collect();
    for names in names.chunks(500) {
        let new = names.iter().map(|n| file(&format!("data/{n:05}.png"), &format!("image {n}")));
        fixture
            .state
            .apply(&Command { at_ms: 0, op: None, action: commit(new.collect()), upload: None, by: None })
            .unwrap();
    }
    let dataset = "data".parse().unwrap();
    fixture
        .change(Change::AddJob { model, dataset, batch_size: 4.into(), options: JobOptions::default() })
        .unwrap();
    fixture
}

fn pinned(fixture: &Fixture) -> Inputs {
    let job = fixture.job();
    let index = fixture.state.index_folder(job).unwrap();
    Inputs::Folder { moment: job.folder.as_ref().unwrap().moment, index }
}

fn start(fixture: &mut Fixture, inputs: Inputs) -> Result<Applied, Refusal> {
    fixture.apply(Action::StartJob { job: JobId(1), inputs, options: StartOptions::default() })
}

fn names(fixture: &Fixture, first: u64, count: u32) -> Vec<String> {
    let queries = fixture.state.queries(JobId(1), QueryRange { first, count });
    queries.iter().map(|(number, query)| format!("{number} {}", query.name)).collect()
}

#[test]
fn a_job_reads_the_folder_as_it_was_pinned() {
    let mut fixture = with_added_job(3);
    fixture.apply(Action::PinFolder { job: JobId(1) }).unwrap();
    let inputs = pinned(&fixture);
    fixture.change(Change::Delete { name: name("data/00001.png") }).unwrap();
    for round in 0..7 {
        fixture.apply(commit(vec![file("data/00002.png", &format!("changed {round}"))])).unwrap();
    }
    fixture.apply(commit(vec![file("data/00000a.png", "new"), file("data/00001.png", "put again")])).unwrap();
    assert_eq!(pinned(&fixture), inputs, "the folder is counted as it was pinned");
    start(&mut fixture, inputs).unwrap();
    assert_eq!(names(&fixture, 0, 9), ["0 data/00000.png", "1 data/00001.png", "2 data/00002.png"]);
    let queries = fixture.state.queries(JobId(1), QueryRange { first: 0, count: 9 });
    let contents: Vec<_> = queries.iter().map(|(_, query)| query.extents[0].digest).collect();
    assert_eq!(contents, ["image 0", "image 1", "image 2"].map(|content| Digest::of(content.as_bytes())));
    // The last five of seven versions are in the file table, and no pin sees the two before.
    assert_eq!((fixture.references("changed 0"), fixture.references("changed 2")), (Some(0), Some(1)));

    fixture.segment("rows", vec![batch(JobId(1), 0, 3, &[(0, 3)])]).unwrap();
    assert_eq!(fixture.job().state, JobState::Done);
    let left = ["image 0", "image 1", "image 2"].map(|content| fixture.references(content));
    assert_eq!(left, [Some(1), Some(0), Some(0)], "what left the file table is released with the pin");
}

#[test]
fn an_index_of_another_moment_is_refused() {
    let mut fixture = with_added_job(3);
    fixture.apply(Action::PinFolder { job: JobId(1) }).unwrap();
    let old = pinned(&fixture);
    fixture.apply(Action::PinFolder { job: JobId(1) }).unwrap();
    let refusal = start(&mut fixture, old).unwrap_err();
    assert!(refusal.message.contains("another start at the same time"), "{refusal}");
    let Inputs::Folder { moment, mut index } = pinned(&fixture) else { panic!("not a folder") };
    index.checkpoints.clear();
    let refusal = start(&mut fixture, Inputs::Folder { moment, index }).unwrap_err();
    assert!(refusal.message.contains("index of dataset 'data' is inconsistent"), "{refusal}");
    let inputs = pinned(&fixture);
    start(&mut fixture, inputs).unwrap();
    let refusal = fixture.apply(Action::PinFolder { job: JobId(1) }).unwrap_err();
    assert!(refusal.message.contains("started before"), "{refusal}");
}

#[test]
fn a_job_that_never_starts_releases_its_pin_when_it_is_deleted() {
    let mut fixture = with_added_job(2);
    fixture.apply(Action::PinFolder { job: JobId(1) }).unwrap();
    fixture.change(Change::Delete { name: name("data/00000.png") }).unwrap();
    assert_eq!(fixture.references("image 0"), Some(1));
    fixture.change(Change::DeleteJob { job: JobId(1) }).unwrap();
    assert_eq!(fixture.references("image 0"), Some(0));
}

#[test]
fn the_start_and_the_end_of_a_job_touch_no_input() {
    let mut fixture = with_added_job(3000);
    fixture.apply(Action::PinFolder { job: JobId(1) }).unwrap();
    let before = fixture.state.blobs().clone();
    let inputs = pinned(&fixture);
    start(&mut fixture, inputs).unwrap();
    let changed = |before: &BlobTable, after: &BlobTable| before.diff(after).count();
    assert_eq!(changed(&before, fixture.state.blobs()), 1, "only the model is referenced");
    let before = fixture.state.blobs().clone();
    fixture.segment("rows", vec![batch(JobId(1), 0, 3000, &[(0, 3000)])]).unwrap();
    assert_eq!(fixture.job().state, JobState::Done);
    assert_eq!(changed(&before, fixture.state.blobs()), 2, "the model is released, the segment added");
}

#[test]
fn queries_are_found_from_any_checkpoint() {
    let mut fixture = with_added_job(1000);
    fixture
        .apply(commit(vec![file("data/00100.png.txt", "text"), file("data/labels.csv", "file,label")]))
        .unwrap();
    fixture.apply(Action::PinFolder { job: JobId(1) }).unwrap();
    let inputs = pinned(&fixture);
    start(&mut fixture, inputs).unwrap();
    let folder = fixture.job().folder.clone().unwrap();
    let index = folder.index.as_ref().unwrap();
    assert_eq!((index.count, index.spacing, index.checkpoints.len()), (1001, 128, 8));
    assert_eq!(names(&fixture, 100, 2), ["100 data/00100.png", "101 data/00100.png.txt"]);
    assert_eq!(names(&fixture, 127, 2), ["127 data/00126.png", "128 data/00127.png"]);
    assert_eq!(names(&fixture, 1000, 4), ["1000 data/00999.png"]);
    assert!(names(&fixture, 1001, 4).is_empty());
    assert_eq!(fixture.references("file,label"), Some(2), "the label table is no query");
}

#[test]
fn an_index_has_a_bounded_number_of_checkpoints() {
    let file = Arc::new(name("data/a"));
    let count = CHECKPOINTS_MAX * 128;
    let full = FolderIndex::new((0..count).map(|_| &file));
    assert_eq!((full.count, full.spacing, full.checkpoints.len() as u64), (count, 128, CHECKPOINTS_MAX));
    let more = FolderIndex::new((0..=count).map(|_| &file));
    assert_eq!((more.spacing, more.checkpoints.len() as u64), (256, CHECKPOINTS_MAX / 2 + 1));
    let long = Arc::new(name(&format!("data/{}", "x".repeat(250))));
    let index = FolderIndex::new((0..count).map(|_| &long));
    let bytes: usize = index.checkpoints.iter().map(|name| name.as_str().len()).sum();
    assert!(
        index.spacing > 128 && bytes <= CHECKPOINT_BYTES_MAX && 3 * bytes > CHECKPOINT_BYTES_MAX,
        "{bytes}"
    );
}

#[test]
fn one_command_releases_a_bounded_number_of_versions() {
    let files = 3 * RELEASED_PER_COMMAND_MAX / 2;
    let mut fixture = with_added_job(files);
    fixture.change(Change::start(JobId(1))).unwrap();
    for n in 0..files {
        fixture.change(Change::Delete { name: name(&format!("data/{n:05}.png")) }).unwrap();
    }
    fixture.change(Change::CancelJob { job: JobId(1) }).unwrap();
    let referenced = |fixture: &Fixture| {
        (0..files).filter(|n| fixture.references(&format!("image {n}")) == Some(1)).count()
    };
    assert_eq!(referenced(&fixture), files - RELEASED_PER_COMMAND_MAX);
    assert!(fixture.state.has_unreleased());
    fixture.apply(Action::Forget(Vec::new())).unwrap();
    assert_eq!(referenced(&fixture), 0);
    assert!(!fixture.state.has_unreleased());
}

#[test]
fn a_name_that_is_retired_during_a_sweep_takes_no_turn_of_another() {
    let (files, kept) = (4 * RELEASED_PER_COMMAND_MAX, RELEASED_PER_COMMAND_MAX + 1);
    let mut fixture = with_added_job(files);
    fixture.change(Change::start(JobId(1))).unwrap();
    let delete = |fixture: &mut Fixture, n: usize| {
        fixture.change(Change::Delete { name: name(&format!("data/{n:05}.png")) }).unwrap();
    };
    // The first names stay seen by job 2, so that a sweep has to pass over them.
    (kept..files - 2).for_each(|n| delete(&mut fixture, n));
    let (model, dataset) = ("mnist-mlp".parse().unwrap(), "data".parse().unwrap());
    let options = JobOptions::default();
    fixture.change(Change::AddJob { model, dataset, batch_size: 4.into(), options }).unwrap();
    fixture.change(Change::start(JobId(2))).unwrap();
    (0..kept).for_each(|n| delete(&mut fixture, n));
    fixture.change(Change::CancelJob { job: JobId(1) }).unwrap();
    (files - 2..files).for_each(|n| delete(&mut fixture, n));
    while fixture.state.has_unreleased() {
        fixture.apply(Action::Forget(Vec::new())).unwrap();
    }
    let left: Vec<usize> =
        (0..files).filter(|n| fixture.references(&format!("image {n}")) == Some(1)).collect();
    assert_eq!(left, (0..kept).chain(files - 2..files).collect::<Vec<_>>(), "job 2 sees these");
}

#[test]
fn the_end_of_a_job_looks_at_no_other_folder() {
    let mut fixture = with_added_job(1);
    fixture.change(Change::start(JobId(1))).unwrap();
    fixture.change(Change::Delete { name: name("data/00000.png") }).unwrap();
    fixture.apply(commit(vec![file("other/a", "a")])).unwrap();
    let (model, dataset) = ("mnist-mlp".parse().unwrap(), "other".parse().unwrap());
    let options = JobOptions::default();
    fixture.change(Change::AddJob { model, dataset, batch_size: 4.into(), options }).unwrap();
    let mut state = fixture.state.clone();
    for change in [Change::start(JobId(2)), Change::CancelJob { job: JobId(2) }] {
        let command = Command { at_ms: 0, op: None, action: Action::Change(change), upload: None, by: None };
        state.apply(&command).unwrap();
        assert!(!state.has_unreleased());
    }
}

#[test]
fn a_start_that_is_refused_gives_its_pin_up() {
    let mut fixture = with_added_job(1);
    fixture.apply(Action::PinFolder { job: JobId(1) }).unwrap();
    fixture.change(Change::Delete { name: name("data/00000.png") }).unwrap();
    fixture.apply(Action::UnpinFolder { job: JobId(1) }).unwrap();
    assert_eq!((fixture.job().folder.is_none(), fixture.references("image 0")), (true, Some(0)));
}

#[test]
fn dead_letters_keep_their_names_without_the_pin() {
    let mut fixture = with_added_job(3);
    fixture.change(Change::start(JobId(1))).unwrap();
    fixture.apply(Action::DeadLetters { job: JobId(1), dead_letters: vec![dead_letter(1)] }).unwrap();
    fixture.segment("rows", vec![batch(JobId(1), 0, 3, &[(0, 1), (2, 1)])]).unwrap();
    fixture.change(Change::Delete { name: name("data/00001.png") }).unwrap();
    assert_eq!(names(&fixture, 1, 1), ["1 data/00001.png"], "it can be retried");
    fixture.change(Change::DropDeadLetters { job: JobId(1), queries: Vec::new() }).unwrap();
    assert!(fixture.job().folder.is_none());
    let (dead_letters, _) = fixture.state.dead_letters(JobId(1), 0, 9).unwrap();
    assert_eq!((dead_letters[0].name.as_str(), dead_letters[0].dropped), ("data/00001.png", true));
}

/// The snapshot was written by the last release of format 1: job 1 runs over files that have changed since its start, job 2
/// over records, and job 3 has not been started.
#[test]
fn a_state_of_format_1_goes_on() {
    let stored = include_bytes!("format-1.snapshot");
    let state: State = rmp_serde::from_slice::<Snapshot>(stored).unwrap().into();
    let mut fixture = Fixture { state, now_ms: 4000 };
    fixture.state.check().unwrap();
    assert_eq!(names(&fixture, 3, 2), ["3 data/0003.png", "4 data/0004.png"]);
    assert_eq!(fixture.references("image 3"), Some(2), "a version of the file, and an input of the list");
    assert_eq!(fixture.references("image 4"), Some(1), "the file is deleted");
    fixture.segment("two", vec![batch(JobId(1), 6, 4, &[(6, 4)])]).unwrap();
    assert_eq!(fixture.job().state, JobState::Done);
    assert_eq!(fixture.references("image 3"), Some(1));
    fixture.change(Change::RetryDeadLetters { job: JobId(1), queries: vec![4] }).unwrap();
    fixture.segment("three", vec![batch(JobId(1), 4, 1, &[(4, 1)])]).unwrap();
    fixture.change(Change::DropDeadLetters { job: JobId(1), queries: vec![5] }).unwrap();
    assert_eq!((fixture.references("image 4"), fixture.references("image 5")), (Some(0), Some(1)));
    assert_eq!(fixture.state.job(JobId(2)).unwrap().records.as_ref().unwrap().count, 3);

    fixture.change(Change::start(JobId(3))).unwrap();
    let queries = fixture.state.queries(JobId(3), QueryRange { first: 3, count: 2 });
    let read: Vec<_> = queries.iter().map(|(_, query)| query.extents[0].digest).collect();
    assert_eq!(read, [Digest::of(b"changed"), Digest::of(b"image 5")]);
    assert!(matches!(Snapshot::from(fixture.state), Snapshot::V2(_)));
}
