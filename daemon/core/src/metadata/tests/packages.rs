//! Models that are added as packages.

use idunno_shared::wire::control::{NewPackage, PackageSummary, TrainedFrom};

use super::*;

fn mine() -> ModelName {
    "mine".parse().unwrap()
}

/// A package of two files, the second of which is the same in each version.
fn package(code: &str) -> NewPackage {
    let files = [format!("manifest of {code}"), code.to_owned(), String::from("weights")];
    let extents: Vec<_> = files.iter().map(|content| extent(content, &[1, 2, 3, 4])).collect();
    let summary = PackageSummary { runtime: String::from("python"), files: 2, bytes: 100 };
    NewPackage { summary, extents }
}

fn version(code: &str) -> Digest {
    Digest::of(format!("manifest of {code}").as_bytes())
}

fn add(model: &str, package: NewPackage) -> Change {
    let upload = UploadId::default();
    Change::AddModel { upload, model: model.parse().unwrap(), package, unchecked: false }
}

impl Fixture {
    /// A job over two files, running, and its artefact's version.
    fn start_job(&mut self) -> (JobId, Digest) {
        self.apply(commit(vec![file("data/1", "one"), file("data/2", "two")])).unwrap();
        let (dataset, options) = ("data".parse().unwrap(), JobOptions::default());
        let job = Change::AddJob { model: mine(), dataset, batch_size: BatchSize::Auto, options };
        let Changed::JobAdded(job) = self.change(job).unwrap() else { panic!("no job") };
        self.change(Change::start(job)).unwrap();
        (job, self.state.job(job).unwrap().artefact.as_ref().unwrap().version)
    }
}

#[test]
fn a_package_is_a_version_of_its_model_and_its_manifest_a_file() {
    let mut fixture = Fixture::default();
    assert_eq!(fixture.change(add("mine", package("a"))), Ok(Changed::ModelAdded { is_new: true }));
    assert_eq!(fixture.change(add("mine", package("a"))), Ok(Changed::ModelAdded { is_new: false }));
    let located = fixture.state.locate(&name("models/mine"), None).unwrap();
    assert_eq!((located.number, located.digest()), (1, version("a")));
    let view = fixture.state.model_views().into_iter().find(|view| view.model == mine()).unwrap();
    assert_eq!((view.version, view.package.unwrap().files), (Some(version("a")), 2));
    assert_eq!((fixture.references("a"), fixture.references("weights")), (Some(1), Some(1)));
    fixture.change(add("mine", package("b"))).unwrap();
    let references = ["a", "b", "weights"].map(|content| fixture.references(content));
    assert_eq!(references, [Some(0), Some(1), Some(1)]);
}

#[test]
fn a_job_keeps_the_package_with_which_it_started() {
    let mut fixture = Fixture::default();
    fixture.change(add("mine", package("a"))).unwrap();
    let (first, pinned) = fixture.start_job();
    fixture.change(add("mine", package("b"))).unwrap();
    let (_, newer) = fixture.start_job();
    assert_eq!((pinned, newer), (version("a"), version("b")));
    assert_eq!(fixture.references("a"), Some(1), "the first job may still need it");
    fixture.change(Change::CancelJob { job: first }).unwrap();
    assert_eq!(fixture.references("a"), Some(0));
}

#[test]
fn a_model_is_removed_unless_jobs_use_it_or_in_spite_of_them() {
    let mut fixture = Fixture::default();
    let remove = |force| Change::RemoveModel { model: mine(), force };
    assert_eq!(code(fixture.change(remove(false))), RefusalCode::NotFound);
    fixture.change(add("mine", package("a"))).unwrap();
    let (job, _) = fixture.start_job();
    let refusal = fixture.change(remove(false)).unwrap_err();
    assert!(refusal.code == RefusalCode::Conflict && refusal.message.contains("job-1"), "{refusal}");
    fixture.change(remove(true)).unwrap();
    assert!(fixture.state.model(&mine()).is_none() && fixture.state.file(&name("models/mine")).is_none());
    assert_eq!(fixture.references("a"), Some(1), "the job goes on");
    fixture.change(Change::CancelJob { job }).unwrap();
    assert_eq!((fixture.references("a"), fixture.references("weights")), (Some(0), Some(0)));
    fixture
        .change(Change::TrainStart { models: vec!["mnist-mlp".parse().unwrap()], training: training() })
        .unwrap();
    let predefined = Change::RemoveModel { model: "mnist-mlp".parse().unwrap(), force: true };
    assert!(fixture.change(predefined).unwrap_err().message.contains("not added by"));
}

#[test]
fn what_cannot_be_a_version_is_refused() {
    let mut fixture = Fixture::default();
    let refused = |fixture: &mut Fixture, change| fixture.change(change).unwrap_err().message;
    assert!(refused(&mut fixture, add("mnist-mlp", package("a"))).contains("predefined"));
    let empty = NewPackage { extents: vec![], ..package("a") };
    assert!(refused(&mut fixture, add("mine", empty)).contains("no manifest"));
    let mut unstored = package("a");
    unstored.extents[1].1.clear();
    assert!(refused(&mut fixture, add("mine", unstored)).contains("no member holds it"));
    fixture.change(add("mine", package("a"))).unwrap();
    let mut other: ModelName = "other".parse().unwrap();
    fixture.change(Change::TrainStart { models: vec![other.clone()], training: training() }).unwrap();
    assert!(refused(&mut fixture, add(other.as_str(), package("a"))).contains("being trained"));
    for number in 0..MODELS_MAX - 2 {
        other = format!("m{number}").parse().unwrap();
        fixture.change(add(other.as_str(), package(&format!("code {number}")))).unwrap();
    }
    assert!(refused(&mut fixture, add("one-more", package("a"))).contains("the maximum"));
}

/// What a training of the package `base` makes: the same weights, other code beside what it wrote. The worker still believes
/// that member 9 has the weights.
fn trained(model: &str, base: &str, code: &str) -> Action {
    let NewPackage { summary, mut extents } = package(code);
    extents[2].1 = vec![NodeId(9)];
    Action::ModelTrained {
        model: model.parse().unwrap(),
        version: version(code),
        size: extents.iter().map(|(blob, _)| blob.size).sum(),
        extents,
        training: training(),
        metrics: Vec::new(),
        report: None,
        package: Some(TrainedFrom { base: version(base), summary }),
    }
}

#[test]
fn a_package_that_was_trained_is_its_models_newest_version() {
    let mut fixture = Fixture::default();
    let start =
        |model: &str| Change::TrainStart { models: vec![model.parse().unwrap()], training: training() };
    fixture.change(add("mine", package("a"))).unwrap();
    assert_eq!(code(fixture.apply(trained("mine", "a", "b"))), RefusalCode::Conflict, "nobody asked for it");
    let (job, _) = fixture.start_job();
    fixture.change(start("mine")).unwrap();
    assert_eq!(code(fixture.change(add("mine", package("c")))), RefusalCode::Conflict, "it is in training");
    assert_eq!(
        code(fixture.train("mine", "weights")),
        RefusalCode::Conflict,
        "an artefact that is no package"
    );
    assert_eq!(code(fixture.apply(trained("mine", "z", "b"))), RefusalCode::Conflict, "of another version");
    let mut unnamed = trained("mine", "a", "b");
    if let Action::ModelTrained { extents, .. } = &mut unnamed {
        extents.rotate_left(1);
    }
    assert_eq!(code(fixture.apply(unnamed)), RefusalCode::Invalid, "its manifest is not the first extent");
    fixture.apply(trained("mine", "a", "b")).unwrap();
    assert_eq!(
        fixture.state.holders(&Digest::of(b"weights")),
        [1, 2, 3, 4].map(NodeId),
        "as the log has them"
    );
    let view = fixture.state.model_views().into_iter().find(|view| view.model == mine()).unwrap();
    assert_eq!((view.version, view.package.unwrap().files, view.training), (Some(version("b")), 2, false));
    let located = fixture.state.locate(&name("models/mine"), None).unwrap();
    assert_eq!((located.number, located.digest()), (2, version("b")), "the manifest alone is the file");
    assert_eq!(fixture.references("a"), Some(1), "the job goes on with the package that it started with");
    fixture.change(Change::CancelJob { job }).unwrap();
    let references = ["a", "b", "weights"].map(|content| fixture.references(content));
    assert_eq!(references, [Some(0), Some(1), Some(1)]);

    fixture.change(start("mnist-mlp")).unwrap();
    assert_eq!(
        code(fixture.apply(trained("mnist-mlp", "a", "b"))),
        RefusalCode::Conflict,
        "it is no package"
    );
}
