//! Models and their trainings.

use super::*;

#[test]
fn only_a_requested_training_counts() {
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
    assert!("..".parse::<ModelName>().is_err(), "the artefact is a file of the model's name");
}

#[test]
fn a_model_is_predefined_known_or_offered() {
    let mut fixture = Fixture::default();
    let (model, nothing): (ModelName, _) = ("mine".parse().unwrap(), BTreeSet::new());
    assert!(fixture.state.check_model(&"mnist-mlp".parse().unwrap(), &nothing).is_ok());
    let refusal = fixture.state.check_model(&model, &nothing).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::NotFound);
    assert!(
        refusal.message.starts_with("there is no model 'mine'; the models are efficientnet-lite0,"),
        "{refusal}"
    );
    let slip = fixture.state.check_model(&"mnist_mlp".parse().unwrap(), &nothing).unwrap_err();
    let said = "there is no model 'mnist_mlp'; did you mean mnist-mlp? The models are efficientnet-lite0,";
    assert!(slip.message.starts_with(said), "{slip}");
    assert!(fixture.state.check_model(&model, &BTreeSet::from([model.clone()])).is_ok());
    fixture.change(Change::TrainStart { models: vec![model.clone()], training: training() }).unwrap();
    assert!(fixture.state.check_model(&model, &nothing).is_ok());
}

#[test]
fn a_training_can_be_stopped_and_requested_again() {
    let mut fixture = Fixture::default();
    let model: ModelName = "mnist-mlp".parse().unwrap();
    let stop = Change::TrainStop { models: vec![model.clone()] };
    assert_eq!(code(fixture.change(stop.clone())), RefusalCode::Conflict);
    fixture.change(Change::TrainStart { models: vec![model.clone()], training: training() }).unwrap();
    fixture.change(stop).unwrap();
    assert_eq!(
        code(fixture.train("mnist-mlp", "weights")),
        RefusalCode::Conflict,
        "it is no longer requested"
    );
    assert!(fixture.state.model(&model).unwrap().failure.as_deref().unwrap().contains("stopped"));
    fixture.change(Change::TrainStart { models: vec![model.clone()], training: training() }).unwrap();
    fixture.train("mnist-mlp", "weights").unwrap();
    let view = fixture.state.model_views().into_iter().find(|view| view.model == model).unwrap();
    assert_eq!((view.failure, view.metrics), (None, vec![("accuracy".to_owned(), "0.9".to_owned())]));
    let report = fixture.state.file(&"training/mnist-mlp.json".parse().unwrap()).unwrap();
    assert_eq!(report.versions.len(), 1);
    assert_eq!(report.versions[0].digest(), Digest::of(b"weights, measured"));
}

#[test]
fn a_training_keeps_its_dataset_until_it_ends() {
    let mut fixture = Fixture::default();
    let start = |models: &[&str], dataset: &str| Change::TrainStart {
        models: models.iter().map(|model| model.parse().unwrap()).collect(),
        training: Training { seed: 7, dataset: Some(dataset.parse().unwrap()), ..Training::default() },
    };
    assert_eq!(code(fixture.change(start(&["mine"], "cats"))), RefusalCode::Conflict, "it is empty");
    fixture.apply(commit(vec![file("cats/1.png", "a cat"), file("all.list", "cats/1.png")])).unwrap();
    assert_eq!(code(fixture.change(start(&[], "cats"))), RefusalCode::Invalid, "no models named");
    assert_eq!(code(fixture.change(start(&["mine"], "all.list"))), RefusalCode::Conflict, "a list of names");
    fixture.change(start(&["mine"], "cats")).unwrap();
    fixture.change(start(&["mine"], "cats")).unwrap();
    let other = Change::TrainStart { models: vec!["mine".parse().unwrap()], training: training() };
    assert_eq!(code(fixture.change(other)), RefusalCode::Conflict, "it is in training");
    assert_eq!(
        code(fixture.train("mine", "weights")),
        RefusalCode::Conflict,
        "it was trained without the dataset"
    );
}
