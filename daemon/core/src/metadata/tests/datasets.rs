//! Datasets that are a single file, and which of a dataset's inputs a job runs.

use std::num::NonZeroU64;

use idunno_shared::wire::records::DATASET_ENDINGS;

use super::*;

#[test]
fn a_job_over_records_starts_only_with_the_content_that_was_read() {
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
    let blocks = vec![Block { first: 0, at: 0, extra_lines: 0 }, Block { first: 2, at: 8, extra_lines: 0 }];
    let start = |digest| Action::StartJob {
        job: JobId(1),
        inputs: Inputs::Records { digest, format: RecordFormat::Jsonl, count: 3, blocks: blocks.clone() },
        options: StartOptions::default(),
    };
    let refusal = fixture.apply(start(Digest::of(b"another"))).unwrap_err();
    assert!(refusal.message.contains("has changed since it was read"), "{refusal}");
    assert!(fixture.change(Change::start(JobId(1))).unwrap_err().message.contains("start it again"));
    fixture.apply(start(digest)).unwrap();
    assert_eq!(fixture.references("one\ntwo\nthree\n"), Some(2));
    fixture.apply(Action::DeadLetters { job: JobId(1), dead_letters: vec![dead_letter(1)] }).unwrap();
    fixture.segment("rows", vec![batch(JobId(1), 0, 3, &[(0, 1), (2, 1)])]).unwrap();
    let (dead_letters, _) = fixture.state.dead_letters(JobId(1), 0, 9).unwrap();
    assert_eq!((dead_letters[0].name.as_str(), dead_letters[0].dropped), ("texts.jsonl:2", false));

    let dropped = fixture.change(Change::DropDeadLetters { job: JobId(1), queries: vec![1] });
    assert_eq!(dropped, Ok(Changed::Dropped { queries: 1 }));
    assert_eq!(fixture.references("one\ntwo\nthree\n"), Some(1), "its inputs are released");
    let (dead_letters, _) = fixture.state.dead_letters(JobId(1), 0, 9).unwrap();
    assert_eq!((dead_letters[0].name.as_str(), dead_letters[0].dropped), ("texts.jsonl:2", true));
    let view = fixture.job().view(0, 0);
    assert_eq!((view.done, view.dead, view.details.dropped, view.details.weight), (2, 1, 1, 3));
    let retry = Change::RetryDeadLetters { job: JobId(1), queries: vec![1] };
    assert_eq!(code(fixture.change(retry)), RefusalCode::NotFound);
}

/// Results are read by the format: it says which columns of the records are in the rows.
#[test]
fn how_records_were_read_is_known_after_their_job() {
    let mut fixture = Fixture::default();
    let model: ModelName = "mnist-mlp".parse().unwrap();
    fixture.change(Change::TrainStart { models: vec![model.clone()], training: training() }).unwrap();
    fixture.train("mnist-mlp", "weights").unwrap();
    let lines = file("texts.jsonl", "one\ntwo\nthree\n");
    let digest = lines.digest;
    fixture.apply(commit(vec![lines])).unwrap();
    let dataset = "texts.jsonl".parse().unwrap();
    fixture
        .change(Change::AddJob { model, dataset, batch_size: 4.into(), options: JobOptions::default() })
        .unwrap();
    let blocks = vec![Block { first: 0, at: 0, extra_lines: 0 }];
    let inputs = Inputs::Records { digest, format: RecordFormat::Jsonl, count: 3, blocks };
    let options = StartOptions::default();
    fixture.apply(Action::StartJob { job: JobId(1), inputs, options }).unwrap();
    fixture.segment("rows", vec![batch(JobId(1), 0, 3, &[(0, 3)])]).unwrap();
    assert_eq!(fixture.job().state, JobState::Done);
    assert_eq!(fixture.job().view(0, 0).details.records.as_deref(), Some(&RecordFormat::Jsonl));
    assert_eq!(fixture.references("one\ntwo\nthree\n"), Some(1), "its inputs are released");
    fixture.state.check().unwrap();
}

#[test]
fn queries_of_a_list_are_in_its_order() {
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
        options: StartOptions::default(),
    };
    let refusal = fixture.apply(start(&["data/0002.png", "data/nine.png"])).unwrap_err();
    assert!(refusal.message.contains("name 2: there is no file 'data/nine.png'"), "{refusal}");
    fixture.apply(start(&["data/0002.png", "data/0000.png"])).unwrap();
    let inputs = fixture.state.queries(JobId(2), QueryRange { first: 0, count: 9 });
    let names: Vec<_> = inputs.iter().map(|(_, query)| query.name.as_str()).collect();
    assert_eq!(names, ["data/0002.png", "data/0000.png"]);
}

fn number(number: u64) -> NonZeroU64 {
    NonZeroU64::new(number).unwrap()
}

#[test]
fn a_job_runs_the_inputs_that_its_start_selects() {
    let list = file("all.list", "ten names");
    let digest = list.digest;
    let names: Vec<FileName> = (0..10).map(|index| name(&format!("set/{index}"))).collect();
    let files = names.iter().map(|name| file(name.as_str(), name.as_str())).chain([list]).collect();
    let mut fixture = Fixture::with_job(1);
    fixture.apply(commit(files)).unwrap();
    let mut job = JobId(1);
    for (selection, inputs) in [
        (Selection::First(number(3)), vec![0, 1, 2]),
        (Selection::First(number(99)), (0..10).collect()),
        (Selection::Sample(number(3)), vec![1, 5, 8]),
        (Selection::All, (0..10).collect()),
    ] {
        let expected: Vec<_> = inputs.iter().map(|input: &usize| names[*input].as_str()).collect();
        let options = StartOptions { selection, ..StartOptions::default() };
        for dataset in ["set", "all.list"] {
            let (model, dataset) = ("mnist-mlp".parse().unwrap(), dataset.parse().unwrap());
            let options_of_job = JobOptions::default();
            let add = Change::AddJob { model, dataset, batch_size: 4.into(), options: options_of_job };
            fixture.change(add).unwrap();
            job = JobId(job.0 + 1);
            let start = if fixture.state.job(job).unwrap().dataset.as_str() == "set" {
                Action::Change(Change::StartJob { job, options })
            } else {
                Action::StartJob { job, inputs: Inputs::Listed { digest, names: names.clone() }, options }
            };
            fixture.apply(start).unwrap();
            let record = Arc::clone(fixture.state.job(job).unwrap());
            assert_eq!(record.submitted, inputs.len() as u64);
            let found = fixture.state.queries(job, QueryRange { first: 0, count: 99 });
            let found: Vec<_> = found.iter().map(|(_, query)| query.name.as_str()).collect();
            assert_eq!(found, expected, "{selection:?}");
            let last = record.submitted - 1;
            let last = fixture.state.input_name(&record, last).unwrap();
            assert_eq!(last.as_str(), *expected.last().unwrap());
        }
    }
}

#[test]
fn records_are_selected_by_number() {
    let mut fixture = Fixture::with_job(1);
    let lines = file("texts.jsonl", "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    let digest = lines.digest;
    fixture.apply(commit(vec![lines])).unwrap();
    let (model, dataset) = ("mnist-mlp".parse().unwrap(), "texts.jsonl".parse().unwrap());
    let add = Change::AddJob { model, dataset, batch_size: 4.into(), options: JobOptions::default() };
    fixture.change(add).unwrap();
    let blocks = vec![Block { first: 0, at: 0, extra_lines: 0 }];
    let inputs = Inputs::Records { digest, format: RecordFormat::Jsonl, count: 10, blocks };
    let options = StartOptions { selection: Selection::Sample(number(3)), ..StartOptions::default() };
    fixture.apply(Action::StartJob { job: JobId(2), inputs, options }).unwrap();
    let record = Arc::clone(fixture.state.job(JobId(2)).unwrap());
    let names: Vec<_> = (0..4).map(|query| fixture.state.input_name(&record, query)).collect();
    let expected = [Some("texts.jsonl:2"), Some("texts.jsonl:6"), Some("texts.jsonl:9"), None];
    assert_eq!(names, expected.map(|text| text.map(name)));
    let again = Change::StartJob { job: JobId(2), options };
    assert!(fixture.change(again.clone()).unwrap_err().message.contains("is running"));
    fixture.change(Change::StopJob { job: JobId(2) }).unwrap();
    assert!(fixture.change(again).unwrap_err().message.contains("its first start chose its queries"));
    fixture.change(Change::start(JobId(2))).unwrap();
    assert_eq!(fixture.state.job(JobId(2)).unwrap().submitted, 3);
}

#[test]
fn a_job_of_which_too_many_queries_fail_is_paused_until_it_is_started_again() {
    let mut fixture = Fixture::with_job(10);
    fixture.change(Change::StopJob { job: JobId(1) }).unwrap();
    let limited = StartOptions { failed_max: Some(FailedMax::Queries(1)), ..StartOptions::default() };
    fixture.change(Change::StartJob { job: JobId(1), options: limited }).unwrap();
    let fail = |fixture: &mut Fixture, query| {
        let dead_letters = vec![dead_letter(query)];
        fixture.apply(Action::DeadLetters { job: JobId(1), dead_letters }).unwrap();
        fixture.job().state.clone()
    };
    assert_eq!(fail(&mut fixture, 0), JobState::Running);
    let JobState::Paused(reason) = fail(&mut fixture, 1) else { panic!("it goes on") };
    assert!(reason.starts_with("2 queries have failed, more than 1 query: see"), "{reason}");
    // What runs meanwhile still counts, and the limit is the last start's.
    assert!(matches!(fail(&mut fixture, 2), JobState::Paused(_)));
    fixture.change(Change::start(JobId(1))).unwrap();
    assert_eq!(fail(&mut fixture, 3), JobState::Running);
    fixture.change(Change::StopJob { job: JobId(1) }).unwrap();
    let percent = StartOptions { failed_max: Some(FailedMax::Percent(50)), ..StartOptions::default() };
    fixture.change(Change::StartJob { job: JobId(1), options: percent }).unwrap();
    assert_eq!(fail(&mut fixture, 4), JobState::Running);
    assert!(matches!(fail(&mut fixture, 5), JobState::Paused(_)));
}

#[test]
fn a_job_that_follows_another_runs_when_that_is_done_and_not_before() {
    let mut fixture = Fixture::with_job(3);
    let (first, second, third) = (JobId(1), JobId(2), JobId(3));
    for _ in 0..2 {
        let (model, dataset) = ("mnist-mlp".parse().unwrap(), "data".parse().unwrap());
        let add = Change::AddJob { model, dataset, batch_size: 4.into(), options: JobOptions::default() };
        fixture.change(add).unwrap();
    }
    let after = |job, before| {
        let options = StartOptions { after: Some(before), ..StartOptions::default() };
        Change::StartJob { job, options }
    };
    let state = |fixture: &Fixture, job| fixture.state.job(job).unwrap().state.clone();
    fixture.change(after(second, first)).unwrap();
    fixture.change(after(third, second)).unwrap();
    assert_eq!(state(&fixture, third), JobState::Waiting(second));
    fixture.change(Change::StopJob { job: first }).unwrap();
    let circle = fixture.change(after(first, third)).unwrap_err();
    assert!(circle.message.contains("job-3, which waits for job-1"), "{circle}");
    assert_eq!(code(fixture.change(after(first, JobId(9)))), RefusalCode::NotFound);
    fixture.change(Change::start(first)).unwrap();
    fixture.segment("rows", vec![batch(first, 0, 3, &[(0, 3)])]).unwrap();
    assert_eq!(state(&fixture, second), JobState::Running);
    assert_eq!(state(&fixture, third), JobState::Waiting(second));
    fixture.change(Change::CancelJob { job: second }).unwrap();
    let JobState::Paused(reason) = state(&fixture, third) else { panic!("it waits for what will not come") };
    assert_eq!(reason, "job-2, which it follows, is cancelled: 'start-job job-3' runs it all the same");
    assert_eq!(code(fixture.change(after(third, second))), RefusalCode::Conflict);
    fixture.change(after(third, first)).unwrap();
    assert_eq!(state(&fixture, third), JobState::Running, "it is done already");
}

#[test]
fn a_job_that_runs_only_what_is_new_takes_answers_from_the_newest_that_can_give_them() {
    let mut fixture = Fixture::with_job(3);
    fixture.segment("of the first", vec![batch(JobId(1), 0, 3, &[(0, 3)])]).unwrap();
    // Adds and starts a job, and ends it unless it is to run on. Returns the job that it takes answers from.
    let mut run = |parameter: &str, options: StartOptions, end: bool| {
        let (model, dataset) = ("mnist-mlp".parse().unwrap(), "data".parse().unwrap());
        let parameters = [("any".parse().unwrap(), parameter.to_owned())].into();
        let options_of_job = JobOptions { parameters, ..JobOptions::default() };
        let add = Change::AddJob { model, dataset, batch_size: 4.into(), options: options_of_job };
        let Changed::JobAdded(job) = fixture.change(add).unwrap() else { panic!("no job") };
        fixture.change(Change::StartJob { job, options }).unwrap();
        let record = fixture.state.job(job).unwrap();
        let (reuse, count) = (record.terms.start.reuse, u32::try_from(record.submitted).unwrap());
        if end {
            let mut answers = batch(job, 0, count, &[(0, count)]);
            answers.tokens.reused = 1;
            let segment = extent(&job.to_string(), &[1, 2]);
            let batches = vec![answers];
            fixture.apply(Action::CommitSegment { worker: NodeId(1), job, segment, batches }).unwrap();
            let view = fixture.state.job(job).unwrap().view(0, 0);
            assert_eq!((view.done, view.tokens.reused), (u64::from(count), 1));
            assert_eq!(view.details.reuse, reuse);
        }
        match reuse {
            Reuse::Off => Ok(None),
            Reuse::On => Err("there is none"),
            Reuse::From(earlier) => Ok(Some(earlier.0)),
        }
    };
    let new = StartOptions { reuse: Reuse::On, ..StartOptions::default() };
    let part = StartOptions { selection: Selection::First(number(2)), ..new };
    assert_eq!(run("a", new, true), Err("there is none"), "job 1 has no digests");
    assert_eq!(run("a", StartOptions::default(), true), Ok(None));
    assert_eq!(run("a", new, true), Ok(Some(2)), "job 3 has none either");
    assert_eq!(run("b", part, true), Err("there is none"), "other parameters make other answers");
    assert_eq!(run("b", new, false), Ok(Some(5)), "a part is better than nothing");
    assert_eq!(run("b", part, true), Ok(Some(5)), "job 6 is not done");
    assert_eq!(run("a", part, true), Ok(Some(4)));
    assert_eq!(run("a", new, true), Ok(Some(4)), "job 8 has a part only");
    // What a start chose stays: a later one cannot choose again.
    let (job, again) = (JobId(6), |options| Change::StartJob { job: JobId(6), options });
    fixture.change(Change::StopJob { job }).unwrap();
    let late = fixture.change(again(new)).unwrap_err();
    assert!(late.message.contains("its first start chose"), "{late}");
    fixture
        .change(again(StartOptions { failed_max: Some(FailedMax::Queries(1)), ..StartOptions::default() }))
        .unwrap();
    assert_eq!(fixture.state.job(job).unwrap().terms.start.reuse, Reuse::From(JobId(5)));
    // Another version of the model answers otherwise.
    let models = vec!["mnist-mlp".parse().unwrap()];
    fixture.change(Change::TrainStart { models, training: training() }).unwrap();
    fixture.train("mnist-mlp", "other weights").unwrap();
    let (model, dataset) = ("mnist-mlp".parse().unwrap(), "data".parse().unwrap());
    fixture
        .change(Change::AddJob { model, dataset, batch_size: 4.into(), options: JobOptions::default() })
        .unwrap();
    fixture.change(Change::StartJob { job: JobId(10), options: new }).unwrap();
    assert_eq!(fixture.state.job(JobId(10)).unwrap().terms.start.reuse, Reuse::On);
}

#[test]
fn answers_that_were_taken_over_took_no_time() {
    let mut fixture = Fixture::with_job(10);
    let mut half = batch(JobId(1), 0, 8, &[(0, 8)]);
    half.tokens.reused = 4;
    let mut whole = batch(JobId(1), 8, 2, &[(8, 2)]);
    (whole.tokens.reused, whole.inference_us) = (2, 0);
    fixture.segment("rows", vec![half, whole]).unwrap();
    let view = fixture.job().view(0, 0);
    assert_eq!((view.done, view.tokens.reused, view.dead), (10, 6, 0));
    assert!((view.processing_ms.mean - 2.0).abs() < 1e-9, "8 ms for four queries: {view:?}");
}

#[test]
fn a_file_with_the_ending_of_a_dataset_is_one() {
    let mut fixture = Fixture::default();
    for ending in DATASET_ENDINGS {
        let name = format!("all.{ending}");
        fixture.apply(commit(vec![file(&name, ending)])).unwrap();
        assert!(fixture.state.dataset_file(&name.parse().unwrap()).is_some(), "{name}");
    }
    fixture.apply(commit(vec![file("all.txt", "text")])).unwrap();
    assert!(fixture.state.dataset_file(&"all.txt".parse().unwrap()).is_none());
}
