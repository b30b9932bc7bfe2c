//! Datasets that are a single file.

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
    };
    let refusal = fixture.apply(start(Digest::of(b"another"))).unwrap_err();
    assert!(refusal.message.contains("has changed since it was read"), "{refusal}");
    assert!(
        fixture.change(Change::StartJob { job: JobId(1) }).unwrap_err().message.contains("start it again")
    );
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
    };
    let refusal = fixture.apply(start(&["data/0002.png", "data/nine.png"])).unwrap_err();
    assert!(refusal.message.contains("name 2: there is no file 'data/nine.png'"), "{refusal}");
    fixture.apply(start(&["data/0002.png", "data/0000.png"])).unwrap();
    let inputs = fixture.state.queries(JobId(2), QueryRange { first: 0, count: 9 });
    let names: Vec<_> = inputs.iter().map(|(_, query)| query.name.as_str()).collect();
    assert_eq!(names, ["data/0002.png", "data/0000.png"]);
}
