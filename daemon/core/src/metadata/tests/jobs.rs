//! Jobs from start to end.

use super::*;

#[test]
fn a_start_freezes_files_labels_and_model() {
    let mut fixture = Fixture::with_job(10);
    assert_eq!(fixture.references("image 3"), Some(1), "inputs are pinned, not counted");
    assert_eq!(fixture.references("weights"), Some(3));
    fixture.apply(commit(vec![file("data/0003.png", "changed"), file("data/new.png", "new")])).unwrap();
    fixture.change(Change::Delete { name: name("data/labels.csv") }).unwrap();
    fixture.change(Change::Delete { name: name("models/mnist-mlp") }).unwrap();
    fixture
        .change(Change::TrainStart { models: vec!["mnist-mlp".parse().unwrap()], training: training() })
        .unwrap();
    fixture.train("mnist-mlp", "better weights").unwrap();
    let inputs = fixture.state.queries(JobId(1), QueryRange { first: 2, count: 2 });
    assert_eq!((inputs[1].0, inputs[1].1.name.as_str()), (3, "data/0003.png"));
    assert_eq!(inputs[1].1.extents[0].digest, Digest::of(b"image 3"));
    assert_eq!(fixture.job().artefact.as_ref().unwrap().version, Digest::of(b"weights"));
    assert_eq!((fixture.references("weights"), fixture.references("file,label")), (Some(1), Some(2)));
    assert_eq!(fixture.state.pending(JobId(1)).len(), 10);
}

#[test]
fn invalid_changes_of_jobs_are_refused() {
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
    let start = Change::start(JobId(1));
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
fn the_first_answer_counts_and_the_last_one_ends_the_job() {
    let mut fixture = Fixture::with_job(10);
    let applied =
        fixture.segment("one", vec![batch(JobId(1), 0, 4, &[(0, 4)]), batch(JobId(1), 4, 4, &[(4, 2)])]);
    let Ok(Applied::Committed { accepted: 6, duplicates: 0, job_done: false, .. }) = applied else {
        panic!("{applied:?}")
    };
    fixture
        .apply(Action::DeadLetters { job: JobId(1), dead_letters: vec![dead_letter(6), dead_letter(2)] })
        .unwrap();
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
    assert_eq!((fixture.references("image 1"), fixture.references("image 6")), (Some(1), Some(1)));
    let view = fixture.job().view(0, 9000);
    assert_eq!((view.done, view.dead, view.duplicates_dropped, view.labelled), (9, 1, 7, 9));
    assert_eq!((view.tokens.prompt, view.tokens.completion), (90, 9), "each answered query counts once");
    assert!((view.running_s - 5.0).abs() < 1e-9 && (view.processing_ms.mean - 1.0).abs() < 1e-9, "{view:?}");
    let (segments, more) = fixture.state.segments(JobId(1), 1, 1).unwrap();
    assert_eq!((segments[0].blob.digest, more), (Digest::of(b"two"), true));
}

#[test]
fn invalid_segments_are_refused() {
    let mut fixture = Fixture::with_job(10);
    let job = JobId(1);
    let overlapping = vec![batch(job, 0, 4, &[(0, 4)]), batch(job, 2, 4, &[(2, 4)])];
    let mut miscounted = batch(job, 0, 4, &[(0, 4)]);
    miscounted.labelled = 5;
    let mut too_many_reused = batch(job, 0, 4, &[(0, 4)]);
    too_many_reused.tokens.reused = 5;
    for bad in [
        overlapping,
        vec![miscounted],
        vec![too_many_reused],
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
    let dead_letters = vec![dead_letter(3), dead_letter(10)];
    assert_eq!(code(fixture.apply(Action::DeadLetters { job, dead_letters })), RefusalCode::Invalid);
}

#[test]
fn dead_letters_of_a_done_job_can_be_retried() {
    let mut fixture = Fixture::with_job(3);
    fixture.change(Change::Delete { name: name("data/0001.png") }).unwrap();
    fixture.apply(Action::DeadLetters { job: JobId(1), dead_letters: vec![dead_letter(1)] }).unwrap();
    fixture.segment("rows", vec![batch(JobId(1), 0, 3, &[(0, 1), (2, 1)])]).unwrap();
    assert_eq!(fixture.job().state, JobState::Done);
    let (dead_letters, _) = fixture.state.dead_letters(JobId(1), 0, 9).unwrap();
    assert_eq!((dead_letters[0].name.as_str(), dead_letters[0].attempts), ("data/0001.png", 3));
    assert_eq!((fixture.references("image 1"), fixture.references("image 0")), (Some(1), Some(1)));
    let retry = Change::RetryDeadLetters { job: JobId(1), queries: vec![] };
    assert_eq!(fixture.change(retry.clone()), Ok(Changed::Retried { queries: 1 }));
    assert_eq!(fixture.state.pending(JobId(1)).numbers().collect::<Vec<_>>(), [1]);
    fixture.segment("more rows", vec![batch(JobId(1), 1, 1, &[(1, 1)])]).unwrap();
    assert_eq!((fixture.job().state.clone(), fixture.references("image 1")), (JobState::Done, Some(0)));
    assert!(fixture.job().folder.is_none() && fixture.references("weights") == Some(2));
    assert_eq!(code(fixture.change(retry)), RefusalCode::Conflict);
}

#[test]
fn stops_and_pauses_do_not_count_as_running_time() {
    let mut fixture = Fixture::with_job(3);
    fixture.now_ms = 1000;
    fixture.change(Change::StopJob { job: JobId(1) }).unwrap();
    fixture.now_ms = 9000;
    fixture.change(Change::start(JobId(1))).unwrap();
    let again = fixture.change(Change::start(JobId(1)));
    assert_eq!(again, Ok(Changed::StartedBefore { submitted: 3, state: JobState::Running }));
    fixture.now_ms = 11_000;
    let reason = "é".repeat(REASON_BYTES_MAX);
    fixture.apply(Action::PauseJob { job: JobId(1), reason }).unwrap();
    let JobState::Paused(reason) = &fixture.job().state else { panic!() };
    assert_eq!(reason.len(), REASON_BYTES_MAX);
    assert_eq!(fixture.job().running_ms(50_000), 3000);
    fixture.now_ms = 0;
    fixture.segment("rows", vec![batch(JobId(1), 0, 3, &[(0, 3)])]).unwrap();
    assert_eq!(fixture.job().finished_ms, Some(11_000), "the state's time does not go back");
}

#[test]
fn weights_and_the_policy_are_stored_and_invalid_weights_refused() {
    let mut fixture = Fixture::with_job(10);
    let job = JobId(1);
    let weight = |fixture: &Fixture| fixture.state.job(job).unwrap().weight;
    assert_eq!((weight(&fixture), fixture.state.policy()), (1, Policy::Rate));
    fixture.change(Change::SetWeight { job, weight: 3 }).unwrap();
    fixture.change(Change::SetPolicy(Policy::Time)).unwrap();
    for weight in [0, 1001] {
        assert_eq!(code(fixture.change(Change::SetWeight { job, weight })), RefusalCode::Invalid);
    }
    let unknown = Change::SetWeight { job: JobId(7), weight: 1 };
    assert_eq!(code(fixture.change(unknown)), RefusalCode::NotFound);
    assert_eq!((weight(&fixture), fixture.state.policy()), (3, Policy::Time));
}

#[test]
fn names_are_unique_and_numbers_are_not_reused() {
    let mut fixture = Fixture::default();
    let add = |name| Change::AddJob {
        model: "mnist-mlp".parse().unwrap(),
        dataset: "data".parse().unwrap(),
        batch_size: 4.into(),
        options: options(name),
    };
    assert_eq!(fixture.change(add("nightly")), Ok(Changed::JobAdded(JobId(1))));
    let refusal = fixture.change(add("nightly")).unwrap_err();
    assert_eq!(refusal.message, "the name 'nightly' is taken by job-1: choose another");
    // People type a model's name for the model's job: another's job must not answer to it.
    for (name, why) in [
        ("mnist-mlp", "is the name of a model"),
        ("squeezenet1.1", "is the name of a model"),
        ("-rf", "an option"),
    ] {
        let refusal = fixture.change(add(name)).unwrap_err();
        assert!(refusal.message.contains(why), "{refusal}");
    }
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
fn a_cancelled_job_keeps_its_results_and_accepts_no_more() {
    let mut fixture = Fixture::with_job(4);
    fixture.segment("rows", vec![batch(JobId(1), 0, 2, &[(0, 2)])]).unwrap();
    let running = fixture.change(Change::DeleteJob { job: JobId(1) }).unwrap_err();
    assert!(running.message.contains("is running"), "{running}");
    fixture.change(Change::CancelJob { job: JobId(1) }).unwrap();
    let segment = fixture.segment("late", vec![batch(JobId(1), 2, 2, &[(2, 2)])]);
    assert_eq!(code(segment), RefusalCode::Conflict);
    assert_eq!(code(fixture.change(Change::start(JobId(1)))), RefusalCode::Conflict);
    assert_eq!((fixture.references("image 3"), fixture.references("rows")), (Some(1), Some(1)));
    assert_eq!(fixture.state.segments(JobId(1), 0, 9).unwrap().0.len(), 1);
    fixture.change(Change::DeleteJob { job: JobId(1) }).unwrap();
    assert_eq!(fixture.references("rows"), Some(0));
    assert_eq!(code(fixture.change(Change::DeleteJob { job: JobId(1) })), RefusalCode::NotFound);
}

#[test]
fn results_become_a_file_once_per_end_of_a_job() {
    let mut fixture = Fixture::with_job(2);
    fixture.now_ms = 100;
    fixture.apply(Action::DeadLetters { job: JobId(1), dead_letters: vec![dead_letter(1)] }).unwrap();
    let results = extent("all rows", &[1, 2]);
    let filed = |finished_ms| Action::FileResults {
        job: JobId(1),
        finished_ms,
        size: results.0.size,
        digest: results.0.digest,
        extents: vec![results.clone()],
        rows: None,
    };
    assert_eq!(code(fixture.apply(filed(100))), RefusalCode::Conflict, "not done yet");
    fixture.segment("rows", vec![batch(JobId(1), 0, 1, &[(0, 1)])]).unwrap();
    fixture.apply(filed(100)).unwrap();
    assert_eq!(code(fixture.apply(filed(100))), RefusalCode::Conflict, "already in a file");
    let view = fixture.job().view(0, 0);
    assert_eq!(view.details.results.unwrap().as_str(), "results/job-1.jsonl");
    fixture.now_ms = 200;
    fixture.change(Change::RetryDeadLetters { job: JobId(1), queries: vec![1] }).unwrap();
    fixture.segment("more", vec![batch(JobId(1), 1, 1, &[(1, 1)])]).unwrap();
    assert_eq!(code(fixture.apply(filed(100))), RefusalCode::Conflict, "of the earlier end");
    fixture.apply(filed(200)).unwrap();
    let file = fixture.state.file(&name("results/job-1.jsonl")).unwrap();
    assert_eq!(file.versions().count(), 2);
    fixture.change(Change::DeleteJob { job: JobId(1) }).unwrap();
    assert!(fixture.state.file(&name("results/job-1.jsonl")).is_none());
}
