//! Examples of commands on models.

use idunno_console::answer::document::List;
use idunno_console::answer::models::{
    AddedModel, Model, ModelAtMember, ModelDetails, Package, PackageFile, RemovedModel, Runner,
    StoppedTraining, TestedEnvironment, TestedInput, TestedModel, TrainedModels, TrainingProgress,
};
use idunno_console::answer::words::ModelState;

use serde_json::value::to_raw_value;

use super::examples::{DIGEST, Examples, words};

fn models() -> Vec<Model> {
    let at = |member: &str, state, reason: Option<&str>| ModelAtMember {
        member: member.into(),
        state,
        reason: reason.map(Into::into),
        runners: None,
    };
    let trained = Model {
        model: "squeezenet1.1".into(),
        version: Some(DIGEST.into()),
        training: false,
        progress: None,
        failure: None,
        metrics: [("accuracy".into(), "0.58".into())].into(),
        members: vec![
            at("m1", ModelState::Ready, None),
            at("m2", ModelState::Failed, Some("not enough memory")),
        ],
        package: None,
    };
    let progress = TrainingProgress {
        permille: 400,
        step: 2,
        steps: 5,
        metrics: [("loss".into(), "0.31".into())].into(),
    };
    let in_training = Model {
        model: "mnist-mlp".into(),
        version: None,
        training: true,
        progress: Some(progress),
        failure: Some("interrupted".into()),
        metrics: [].into(),
        members: vec![at("m3", ModelState::Training, None)],
        package: None,
    };
    vec![trained, in_training, added()]
}

/// A model that was added as a package.
fn added() -> Model {
    Model {
        model: "backwards".into(),
        version: Some(DIGEST.into()),
        training: false,
        progress: None,
        failure: None,
        metrics: [].into(),
        members: vec![ModelAtMember {
            member: "m1".into(),
            state: ModelState::Ready,
            reason: None,
            runners: Some(vec![Runner {
                version: DIGEST.into(),
                device: "cuda:0".into(),
                memory_mib: 812,
                state: "running".into(),
            }]),
        }],
        package: Some(Package { runtime: "python".into(), files: 2, size_bytes: 1234 }),
    }
}

pub(super) fn models_of(command: &str) -> Option<Examples> {
    Some(match command {
        "train-start" => {
            Examples::of(&TrainedModels { models: words(&["squeezenet1.1", "mnist-mlp"]), trained: true })
        }
        "train-stop" => Examples::of(&StoppedTraining { models: words(&["mnist-mlp"]) }),
        "get-models" | "model ls" => Examples::of(&List { items: models() }),
        "model add" => Examples::of(&AddedModel {
            model: "backwards".into(),
            version: DIGEST.into(),
            runtime: "python".into(),
            files: 2,
            size_bytes: 1234,
            is_new: true,
        }),
        "model show" => Examples::of(&ModelDetails {
            model: added(),
            entry: Some("model.py".into()),
            settings: [("batch_max".into(), 8.into())].into(),
            files: vec![PackageFile { path: "model.py".into(), size_bytes: 1200, digest: DIGEST.into() }],
        }),
        "model test" => {
            let input = |input: &str, answer: Option<&str>, error: Option<&str>| TestedInput {
                input: input.into(),
                answer: answer.map(|text| to_raw_value(text).unwrap()),
                error: error.map(Into::into),
                time_ms: 0.25,
                decode_ms: 0.0,
                predict_ms: 0.125,
                encode_ms: 0.0625,
            };
            let answers =
                vec![input("canary", Some("olleh"), None), input("long.txt", None, Some("too long"))];
            let environment = TestedEnvironment { packages: 2, bytes: 3456, lock_s: 0.75, build_s: 0.25 };
            Examples::of(&TestedModel {
                runtime: "python".into(),
                environment: Some(environment),
                start_s: 0.25,
                load_s: 0.5,
                canary_s: 0.125,
                answers,
            })
        }
        "model rm" => Examples::of(&RemovedModel { model: "backwards".into() }),
        _ => return None,
    })
}
