//! JSON of commands on models.

use std::collections::BTreeMap;

use idunno_shared::package::{self, Manifest};
use idunno_shared::wire::control::ModelView;
use idunno_shared::wire::jobs;
use idunno_shared::wire::resources;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::document::documents;
use super::words::ModelState;

documents!(TrainedModels, StoppedTraining, AddedModel, RemovedModel, ModelDetails, TestedModel);
documents!(listed Model);

/// `train-start`: the models whose training was started.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct TrainedModels {
    /// The models.
    pub models: Vec<String>,
    /// Whether their training is over, which `--wait` waits for.
    pub trained: bool,
}

/// `train-stop`: the models whose training was ended.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct StoppedTraining {
    /// The models.
    pub models: Vec<String>,
}

/// `get-models`: a model.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Model {
    /// The model's name.
    pub model: String,
    /// The digest of its trained version, if it has one.
    pub version: Option<String>,
    /// Whether it is being trained.
    pub training: bool,
    /// How far its training is.
    pub progress: Option<TrainingProgress>,
    /// Why its last training failed.
    pub failure: Option<String>,
    /// What the training of its version measured.
    pub metrics: BTreeMap<String, String>,
    /// Its state at each member that reported one.
    pub members: Vec<ModelAtMember>,
    /// What was added as its version, if that is a package.
    pub package: Option<Package>,
}

/// A model package.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Package {
    /// The runtime that loads it.
    pub runtime: String,
    /// The number of its files.
    pub files: u32,
    /// The bytes of its files.
    pub size_bytes: u64,
}

/// `model add`: a package that is its model's newest version.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct AddedModel {
    /// The model's name.
    pub model: String,
    /// The version: the digest of the package's manifest.
    pub version: String,
    /// The runtime that loads it.
    pub runtime: String,
    /// The number of its files.
    pub files: u64,
    /// The bytes of its files.
    pub size_bytes: u64,
    /// Whether the model had another version before, or none.
    pub is_new: bool,
}

/// `model rm`: a model that was removed.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct RemovedModel {
    /// The model's name.
    pub model: String,
}

/// `model show`: a model, and the files of its package.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ModelDetails {
    /// The model.
    #[serde(flatten)]
    pub model: Model,
    /// The file that the package's runtime begins with.
    pub entry: Option<String>,
    /// The package's settings.
    pub settings: BTreeMap<String, serde_json::Value>,
    /// The package's files.
    pub files: Vec<PackageFile>,
}

/// `model test`: what a model that was tried on this machine answered.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TestedModel {
    /// The runtime that loaded it.
    pub runtime: String,
    /// The environment of its requirements; none if it ran beside the model server.
    pub environment: Option<TestedEnvironment>,
    /// How long its process took to start and to import its code, in seconds.
    pub start_s: f64,
    /// How long loading it took, in seconds.
    pub load_s: f64,
    /// How long it took to answer its canary, alone and twice in one batch, in seconds.
    pub canary_s: f64,
    /// The inputs, in the order given; the canary comes first.
    pub answers: Vec<TestedInput>,
}

/// What the requirements of a model that was tried became.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TestedEnvironment {
    /// How many wheels it has.
    pub packages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long it took to lock the requirements and to fetch the wheels, in seconds.
    pub lock_s: f64,
    /// How long it took to make the environment, in seconds; next to nothing if it was there.
    pub build_s: f64,
}

/// An input of a model that was tried.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TestedInput {
    /// Its file, or `canary`.
    pub input: String,
    /// The answer, as the model wrote it.
    #[schemars(with = "Option<serde_json::Value>")]
    pub answer: Option<Box<RawValue>>,
    /// Why the model refused it.
    pub error: Option<String>,
    /// How long it took, in milliseconds.
    pub time_ms: f64,
    /// How long `decode` took, in milliseconds.
    pub decode_ms: f64,
    /// How long `predict` took, in milliseconds.
    pub predict_ms: f64,
    /// How long `encode` took, in milliseconds.
    pub encode_ms: f64,
}

/// A file of a package.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct PackageFile {
    /// Its path within the package.
    pub path: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The digest of its bytes.
    pub digest: String,
}

impl ModelDetails {
    /// A model whose states at members are these, with the manifest of its package.
    pub fn new(view: &ModelView, members: Vec<ModelAtMember>, manifest: Option<&Manifest>) -> Self {
        let file = |file: &package::PackageFile| PackageFile {
            path: file.path.to_string(),
            size_bytes: file.size,
            digest: file.digest.to_string(),
        };
        Self {
            model: Model::new(view, members),
            entry: manifest.map(|manifest| manifest.entry.to_string()),
            settings: manifest.iter().flat_map(|manifest| manifest.settings.clone()).collect(),
            files: manifest.iter().flat_map(|manifest| manifest.files.iter().map(file)).collect(),
        }
    }
}

/// How far a training is.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct TrainingProgress {
    /// The share that is over, in thousandths.
    pub permille: u16,
    /// Steps that are over.
    pub step: u64,
    /// Steps in all; 0 where that is not known.
    pub steps: u64,
    /// What was measured last.
    pub metrics: BTreeMap<String, String>,
}

impl From<&jobs::TrainingProgress> for TrainingProgress {
    fn from(progress: &jobs::TrainingProgress) -> Self {
        Self {
            permille: progress.permille,
            step: progress.step,
            steps: progress.steps,
            metrics: progress.metrics.iter().cloned().collect(),
        }
    }
}

/// A model at one member.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ModelAtMember {
    /// The member's name.
    pub member: String,
    /// The model's state there.
    pub state: ModelState,
    /// Why it could not be loaded.
    pub reason: Option<String>,
    /// The processes that run it there, of all its versions. `get-models` does not ask for them: null.
    pub runners: Option<Vec<Runner>>,
}

/// A process that runs one version of a model on one device.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Runner {
    /// The version that it runs.
    pub version: String,
    /// `cpu`, or `cuda:` and the index of one of the member's devices.
    pub device: String,
    /// The memory of the process and its children on the host, in MiB.
    pub memory_mib: u64,
    /// `running`, `restarting` or `failed`.
    pub state: String,
}

impl From<&resources::Runner> for Runner {
    fn from(runner: &resources::Runner) -> Self {
        Self {
            version: runner.version.to_string(),
            device: runner.device.clone(),
            memory_mib: runner.memory_mib,
            state: runner.state.clone(),
        }
    }
}

impl Model {
    /// A model whose states at members are these.
    pub fn new(model: &ModelView, members: Vec<ModelAtMember>) -> Self {
        Self {
            model: model.model.to_string(),
            version: model.version.map(|digest| digest.to_string()),
            training: model.training,
            progress: model.progress.first().map(|(_, progress)| progress.into()),
            failure: model.failure.clone(),
            metrics: model.metrics.iter().cloned().collect(),
            members,
            package: model.package.as_ref().map(|package| Package {
                runtime: package.runtime.clone(),
                files: package.files,
                size_bytes: package.bytes,
            }),
        }
    }
}
