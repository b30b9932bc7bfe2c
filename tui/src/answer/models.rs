//! JSON of commands on models.

use std::collections::BTreeMap;

use idunno_shared::wire::control::ModelView;
use idunno_shared::wire::jobs;
use schemars::JsonSchema;
use serde::Serialize;

use super::document::documents;
use super::words::ModelState;

documents!(TrainedModels, StoppedTraining);
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
        }
    }
}
