//! Models: which are trained, which are to be.
//!
//! Whether a name can be trained at all is for the model servers to say, so that the coordinator asks
//! [`State::check_model`] before it proposes a training. The artefact of the newest training is the
//! model's version; a job pins the version that it started with.

use std::collections::BTreeSet;
use std::sync::Arc;

use idunno_shared::ids::Digest;
use idunno_shared::names::{FileName, ModelName};
use idunno_shared::wire::blobs::BlobRef;
use idunno_shared::wire::control::Changed;
use idunno_shared::wire::jobs::Training;
use idunno_shared::wire::refusal::Refusal;
use serde::{Deserialize, Serialize};

use super::blobs::PlacedExtents;
use super::{Applied, State, cut_reason};

/// The models that `train-start` trains when none is named.
pub const PREDEFINED_MODELS: [&str; 5] =
    ["squeezenet1.1", "efficientnet-lite0", "efficientnet-lite2", "mnist-mlp", "newsgroups-linear"];
/// Most models known at a time, and named in one `train-start`.
pub const MODELS_MAX: usize = 256;

/// A trained model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artefact {
    /// The digest of all its bytes: the model's version.
    pub version: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Its extents in order.
    pub extents: Arc<[BlobRef]>,
    /// What it was trained from.
    pub training: Training,
    /// What the training measured, as text.
    #[serde(default)]
    pub metrics: Vec<(String, String)>,
}

/// A model that was asked for at least once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// The newest trained version.
    pub artefact: Option<Arc<Artefact>>,
    /// The training that is to be done.
    pub training: Option<Training>,
    /// Why the last training failed; none once another was asked for.
    pub failure: Option<String>,
}

/// The file that a model's artefact becomes a version of.
fn file_of(model: &ModelName) -> Result<FileName, Refusal> {
    named(model, &format!("models/{model}"))
}

/// The file that what its training measured becomes a version of.
fn report_of(model: &ModelName) -> Result<FileName, Refusal> {
    named(model, &format!("training/{model}.json"))
}

fn named(model: &ModelName, name: &str) -> Result<FileName, Refusal> {
    name.parse().map_err(|error| Refusal::invalid(format!("model '{model}': {error}")))
}

impl State {
    /// The models asked for so far, in name order.
    pub fn models(&self) -> impl Iterator<Item = (&ModelName, &Model)> {
        self.models.iter().map(|(name, model)| (name, &**model))
    }

    /// One model.
    pub fn model(&self, name: &ModelName) -> Option<&Model> {
        self.models.get(name).map(|model| &**model)
    }

    /// Refuses a model that is neither predefined, nor known, nor offered by a model server.
    pub fn check_model(&self, name: &ModelName, offered: &BTreeSet<ModelName>) -> Result<(), Refusal> {
        let others = self.models.keys().chain(offered).map(ModelName::as_str);
        let names: BTreeSet<&str> = PREDEFINED_MODELS.into_iter().chain(others).collect();
        if names.contains(name.as_str()) {
            return Ok(());
        }
        let names: Vec<&str> = names.into_iter().collect();
        Err(Refusal::not_found(format!("there is no model '{name}': there are {}", names.join(", "))))
    }

    /// Asking again for what is in training changes nothing.
    pub(super) fn start_training(
        &mut self,
        models: &[ModelName],
        training: &Training,
    ) -> Result<Changed, Refusal> {
        let mut names: Vec<ModelName> = models.to_vec();
        if let Some(dataset) = &training.dataset {
            if names.is_empty() {
                let message = format!("data set '{dataset}': name the models that are to be trained on it");
                return Err(Refusal::invalid(message));
            }
            self.check_training_data(dataset).map_err(Refusal::conflict)?;
        }
        if names.is_empty() {
            names = PREDEFINED_MODELS.iter().filter_map(|name| name.parse().ok()).collect();
        }
        names.sort_unstable();
        names.dedup();
        names.iter().try_for_each(|name| file_of(name).map(|_| ()))?;
        let new = names.iter().filter(|name| !self.models.contains_key(*name)).count();
        if names.len() > MODELS_MAX || self.models.len() + new > MODELS_MAX {
            let message = format!(
                "{} models are known and {new} new ones named: {MODELS_MAX} are allowed",
                self.models.len()
            );
            return Err(Refusal::invalid(message));
        }
        for name in &names {
            let other = self.models.get(name).and_then(|model| model.training.as_ref());
            if let Some(other) = other.filter(|other| *other != training) {
                let message = format!(
                    "model '{name}' is in training with {other}: wait for it, or end it by 'train-stop {name}'"
                );
                return Err(Refusal::conflict(message));
            }
        }
        for name in &names {
            let artefact = self.models.get(name).and_then(|model| model.artefact.clone());
            let model = Model { artefact, training: Some(training.clone()), failure: None };
            self.models.insert(name.clone(), Arc::new(model));
        }
        Ok(Changed::Training(names))
    }

    /// What was trained before stays; the failure says why nothing newer came.
    pub(super) fn stop_training(&mut self, names: &[ModelName]) -> Result<Changed, Refusal> {
        if names.is_empty() || names.len() > MODELS_MAX {
            let message = format!("{} models are named: 1 to {MODELS_MAX} are allowed", names.len());
            return Err(Refusal::invalid(message));
        }
        names.iter().try_for_each(|name| self.model_in_training(name).map(drop))?;
        for name in names {
            // Named twice, it is not in training any more.
            let _ = self.model_failed(name, "its training was stopped by a person");
        }
        Ok(Changed::Done)
    }

    pub(super) fn model_trained(
        &mut self,
        name: &ModelName,
        (version, size, extents): (Digest, u64, &PlacedExtents),
        (training, metrics): (&Training, &[(String, String)]),
        report: Option<&PlacedExtents>,
    ) -> Result<Applied, Refusal> {
        let (file, report_file) = (file_of(name)?, report_of(name)?);
        let model = self.model_in_training(name)?;
        if model.training.as_ref() != Some(training) {
            let message = format!("model '{name}' was trained with {training}, another is asked for by now");
            return Err(Refusal::conflict(message));
        }
        if extents.is_empty() {
            return Err(Refusal::invalid(format!("the artefact of model '{name}' is empty")));
        }
        self.check_content(&format!("the artefact of model '{name}'"), size, extents)?;
        if let Some(placed @ [(blob, _)]) = report {
            self.check_content(&format!("the training report of model '{name}'"), blob.size, placed)?;
            self.add_version(&report_file, blob.size, blob.digest, placed);
        }
        self.add_version(&file, size, version, extents);
        let extents = self.record_extents(extents);
        let artefact =
            Artefact { version, size, extents, training: training.clone(), metrics: metrics.to_vec() };
        if let Some(old) = &model.artefact {
            self.release(&old.extents);
        }
        let model = Model { artefact: Some(Arc::new(artefact)), training: None, failure: None };
        self.models.insert(name.clone(), Arc::new(model));
        Ok(Applied::Done)
    }

    pub(super) fn model_failed(&mut self, name: &ModelName, reason: &str) -> Result<Applied, Refusal> {
        let model = self.model_in_training(name)?;
        let failure = Some(cut_reason(reason));
        self.models.insert(name.clone(), Arc::new(Model { training: None, failure, ..(*model).clone() }));
        Ok(Applied::Done)
    }

    fn model_in_training(&self, name: &ModelName) -> Result<Arc<Model>, Refusal> {
        let model = self.models.get(name).filter(|model| model.training.is_some());
        model.cloned().ok_or_else(|| {
            Refusal::conflict(format!("model '{name}' is not to be trained: train-start asks for it"))
        })
    }
}
