//! Models: those that are trained, and those that were added as packages.
//!
//! Only model servers know which names can be trained, so the coordinator calls [`State::check_model`] with what they
//! offer before it proposes a training. The artefact of the latest training, or the package added last, is the model's
//! version; a job is pinned to the version with which it started.

use std::collections::BTreeSet;
use std::sync::Arc;

use idunno_shared::folders;
use idunno_shared::ids::Digest;
use idunno_shared::names::{FileName, ModelName};
use idunno_shared::similar::did_you_mean;
use idunno_shared::wire::blobs::BlobRef;
use idunno_shared::wire::control::{Changed, NewPackage, PackageSummary, RUNTIME_BYTES_MAX, TrainedFrom};
use idunno_shared::wire::jobs::Training;
use idunno_shared::wire::refusal::Refusal;
use serde::{Deserialize, Serialize};

use super::blobs::PlacedExtents;
use super::files::Content;
use super::jobs::check_reading;
use super::{Applied, AskedBy, OneOrMany, State, truncate_reason};

/// The models that `train-start` trains if none is named.
pub const PREDEFINED_MODELS: [&str; 5] =
    ["squeezenet1.1", "efficientnet-lite0", "efficientnet-lite2", "mnist-mlp", "newsgroups-linear"];
/// Most models known, and most named in one `train-start`.
pub const MODELS_MAX: usize = 256;
/// Jobs that a refusal names.
const JOBS_NAMED_MAX: usize = 5;

/// A version of a model: what its training wrote, or a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artefact {
    /// The model version: the digest of all bytes of the artefact, or of the package's manifest.
    pub version: Digest,
    /// The artefact's size in bytes.
    pub size: u64,
    /// The artefact's extents in order.
    pub extents: OneOrMany<BlobRef>,
    /// The seed and dataset it was trained with.
    pub training: Training,
    /// Names and values of the metrics measured by the training.
    #[serde(default)]
    pub metrics: Vec<(String, String)>,
    /// What was added, if it is a package: the first extent is its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<PackageSummary>,
}

/// A model that was added, or for which a training was requested, at least once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// The latest trained version.
    pub artefact: Option<Arc<Artefact>>,
    /// The requested training, until it succeeds or is given up.
    pub training: Option<Training>,
    /// Why the last training failed; `None` once another is requested.
    pub failure: Option<String>,
}

/// What a training has made.
#[derive(Clone, Copy)]
pub(super) struct TrainedContent<'a> {
    /// The artefact.
    pub(super) content: Content<'a>,
    /// The seed and dataset that it was trained with.
    pub(super) training: &'a Training,
    /// What was measured.
    pub(super) metrics: &'a [(String, String)],
    /// The report for people.
    pub(super) report: Option<&'a PlacedExtents>,
    /// What the artefact is, if it is a package.
    pub(super) package: Option<&'a TrainedFrom>,
}

/// The file that a model's artefact becomes a version of.
fn artefact_file(model: &ModelName) -> Result<FileName, Refusal> {
    model_file(model, &format!("{}/{model}", folders::MODELS))
}

/// The file that a training report becomes a version of.
fn report_file_of(model: &ModelName) -> Result<FileName, Refusal> {
    model_file(model, &format!("{}/{model}.json", folders::TRAINING))
}

fn model_file(model: &ModelName, name: &str) -> Result<FileName, Refusal> {
    name.parse().map_err(|error| Refusal::invalid(format!("model '{model}': {error}")))
}

impl State {
    /// The known models, in name order.
    pub fn models(&self) -> impl Iterator<Item = (&ModelName, &ModelRecord)> {
        self.models.iter().map(|(name, model)| (name, &**model))
    }

    /// The model with this name, if it is known.
    pub fn model(&self, name: &ModelName) -> Option<&ModelRecord> {
        self.models.get(name).map(|model| &**model)
    }

    /// Refuses a model that is neither predefined, nor known, nor among those `offered` by model servers.
    pub fn check_model(&self, name: &ModelName, offered: &BTreeSet<ModelName>) -> Result<(), Refusal> {
        let others = self.models.keys().chain(offered).map(ModelName::as_str);
        let names: BTreeSet<&str> = PREDEFINED_MODELS.into_iter().chain(others).collect();
        if names.contains(name.as_str()) {
            return Ok(());
        }
        let meant = did_you_mean(name.as_str(), names.iter().copied());
        let the = if meant.is_empty() { "; the" } else { " The" };
        let names: Vec<&str> = names.into_iter().collect();
        let message = format!("there is no model '{name}'{meant}{the} models are {}", names.join(", "));
        Err(Refusal::not_found(message))
    }

    /// Requesting a training that is already requested changes nothing.
    pub(super) fn start_training(
        &mut self,
        models: &[ModelName],
        training: &Training,
    ) -> Result<Changed, Refusal> {
        let mut names: Vec<ModelName> = models.to_vec();
        if let Some(dataset) = &training.dataset {
            if names.is_empty() {
                let message = format!("name the models to train on dataset '{dataset}'");
                return Err(Refusal::invalid(message));
            }
            check_reading(&training.reading)?;
            self.check_training_data(dataset).map_err(|error| Refusal::conflict(error.to_string()))?;
        }
        if names.is_empty() {
            names = PREDEFINED_MODELS.iter().filter_map(|name| name.parse().ok()).collect();
        }
        names.sort_unstable();
        names.dedup();
        names.iter().try_for_each(|name| artefact_file(name).map(|_| ()))?;
        let new = names.iter().filter(|name| !self.models.contains_key(*name)).count();
        if names.len() > MODELS_MAX || self.models.len() + new > MODELS_MAX {
            let message = format!(
                "{} models are known and {new} new ones are named; {MODELS_MAX} are allowed",
                self.models.len()
            );
            return Err(Refusal::invalid(message));
        }
        for name in &names {
            let other = self.models.get(name).and_then(|model| model.training.as_ref());
            if let Some(other) = other.filter(|other| *other != training) {
                let message = format!(
                    "model '{name}' is being trained with {other}: wait for it, or stop it with 'train-stop {name}'"
                );
                return Err(Refusal::conflict(message));
            }
        }
        for name in &names {
            let artefact = self.models.get(name).and_then(|model| model.artefact.clone());
            let model = ModelRecord { artefact, training: Some(training.clone()), failure: None };
            self.models.insert(name.clone(), Arc::new(model));
        }
        Ok(Changed::Training(names))
    }

    /// The latest trained version stays; the failure says why there is no newer one.
    pub(super) fn stop_training(&mut self, names: &[ModelName]) -> Result<Changed, Refusal> {
        if names.is_empty() || names.len() > MODELS_MAX {
            let message = format!("{} models are named; 1 to {MODELS_MAX} are allowed", names.len());
            return Err(Refusal::invalid(message));
        }
        names.iter().try_for_each(|name| self.model_in_training(name).map(drop))?;
        for name in names {
            // Fails for a name given twice, which is stopped already.
            let _ = self.model_failed(name, "the training was stopped by train-stop");
        }
        Ok(Changed::Done)
    }

    pub(super) fn model_trained(
        &mut self,
        name: &ModelName,
        TrainedContent { content, training, metrics, report, package }: TrainedContent<'_>,
    ) -> Result<Applied, Refusal> {
        let (file, report_file) = (artefact_file(name)?, report_file_of(name)?);
        let model = self.model_in_training(name)?;
        if model.training.as_ref() != Some(training) {
            let message = format!("model '{name}' was trained with {training}, which is no longer requested");
            return Err(Refusal::conflict(message));
        }
        // Its files are protected only as long as they are those of the newest version.
        if package.map(|package| package.base) != self.package(name).map(|newest| newest.version) {
            let message =
                format!("model '{name}' was trained as what it is no longer: train-start trains it again");
            return Err(Refusal::conflict(message));
        }
        let Some(manifest @ (first, _)) = content.extents.first() else {
            return Err(Refusal::invalid(format!("the artefact of model '{name}' is empty")));
        };
        self.check_content(&format!("the artefact of model '{name}'"), content)?;
        let stored = match package {
            Some(_) if first.digest != content.digest => {
                let message = format!("the package of model '{name}' does not begin with its manifest");
                return Err(Refusal::invalid(message));
            }
            Some(_) => Content { size: first.size, extents: std::slice::from_ref(manifest), ..content },
            None => content,
        };
        if let Some(placed @ [(blob, _)]) = report {
            let report = Content { size: blob.size, digest: blob.digest, extents: placed };
            self.check_content(&format!("the training report of model '{name}'"), report)?;
            self.add_version(&report_file, report, None);
        }
        self.add_version(&file, stored, None);
        let artefact = Artefact {
            version: content.digest,
            size: content.size,
            extents: self.record_shared_extents(content.extents),
            training: training.clone(),
            metrics: metrics.to_vec(),
            package: package.map(|package| package.summary.clone()),
        };
        self.set_version(name, artefact);
        Ok(Applied::Done)
    }

    /// Makes this the model's newest version.
    fn set_version(&mut self, name: &ModelName, artefact: Artefact) {
        let old = self.models.get(name).and_then(|model| model.artefact.clone());
        self.release(old.as_deref().map_or(&[], |old| &old.extents));
        let model = ModelRecord { artefact: Some(Arc::new(artefact)), training: None, failure: None };
        self.models.insert(name.clone(), Arc::new(model));
    }

    /// Refuses a package that cannot become a version of this model. Returns the version that it would be.
    pub fn check_new_model(&self, name: &ModelName, package: &NewPackage) -> Result<Digest, Refusal> {
        let NewPackage { summary, extents } = package;
        if PREDEFINED_MODELS.contains(&name.as_str()) {
            let message = format!("'{name}' is a predefined model: choose another name with --name");
            return Err(Refusal::conflict(message));
        }
        if self.models.get(name).is_some_and(|model| model.training.is_some()) {
            let message =
                format!("model '{name}' is being trained: stop that with 'train-stop {name}' first");
            return Err(Refusal::conflict(message));
        }
        if self.models.len() >= MODELS_MAX && !self.models.contains_key(name) {
            let message =
                format!("there are {MODELS_MAX} models, which is the maximum: 'model rm' makes room");
            return Err(Refusal::conflict(message));
        }
        let Some((manifest, _)) = extents.first() else {
            return Err(Refusal::invalid(format!("the package of model '{name}' has no manifest")));
        };
        if summary.runtime.len() > RUNTIME_BYTES_MAX {
            return Err(Refusal::invalid(format!(
                "the runtime's name has more than {RUNTIME_BYTES_MAX} bytes"
            )));
        }
        let size = extents.iter().map(|(blob, _)| blob.size).fold(0, u64::saturating_add);
        let whole = Content { size, digest: manifest.digest, extents };
        self.check_content(&format!("the package of model '{name}'"), whole)?;
        Ok(manifest.digest)
    }

    /// `confined` is who adds it, if that is nobody who is trusted with the blobs of others.
    pub(super) fn add_model(
        &mut self,
        name: &ModelName,
        package: &NewPackage,
        confined: Option<&AskedBy>,
    ) -> Result<Changed, Refusal> {
        let file = artefact_file(name)?;
        let version = self.check_new_model(name, package)?;
        if self.package(name).is_some_and(|artefact| artefact.version == version) {
            return Ok(Changed::ModelAdded { is_new: false });
        }
        let NewPackage { summary, extents } = package;
        let manifest = &extents[..1];
        let content = Content { size: manifest[0].0.size, digest: version, extents: manifest };
        self.add_version(&file, content, confined);
        let artefact = Artefact {
            version,
            size: extents.iter().map(|(blob, _)| blob.size).sum(),
            extents: self.record_extents(extents, confined),
            training: Training::default(),
            metrics: Vec::new(),
            package: Some(summary.clone()),
        };
        self.set_version(name, artefact);
        Ok(Changed::ModelAdded { is_new: true })
    }

    /// Jobs that have started keep their version. Refused while the model has jobs that are not over, unless by `force`.
    pub(super) fn remove_model(&mut self, name: &ModelName, force: bool) -> Result<Changed, Refusal> {
        let Some(artefact) = self.package(name).cloned() else {
            let message = if self.models.contains_key(name) || PREDEFINED_MODELS.contains(&name.as_str()) {
                format!("model '{name}' was not added by 'model add', so 'model rm' does not remove it")
            } else {
                format!("there is no model '{name}': 'model ls' lists the models")
            };
            return Err(Refusal::not_found(message));
        };
        let users = self.unsettled_jobs().filter(|job| job.model == *name && !job.state.is_over());
        let users: Vec<String> = users.map(|job| job.id.to_string()).take(JOBS_NAMED_MAX).collect();
        if !users.is_empty() && !force {
            let message = format!(
                "model '{name}' is used by {}: cancel what is not needed, or remove it with --force, after which jobs \
                 that have started go on with their version and the others cannot start",
                users.join(", ")
            );
            return Err(Refusal::conflict(message));
        }
        let file = artefact_file(name)?;
        self.release(&artefact.extents);
        self.models.remove(name);
        if self.file(&file).is_some() {
            self.delete(&file)?;
        }
        Ok(Changed::Done)
    }

    /// The newest version of a model, if it is a package.
    pub fn package(&self, name: &ModelName) -> Option<&Arc<Artefact>> {
        let artefact = self.models.get(name).and_then(|model| model.artefact.as_ref());
        artefact.filter(|artefact| artefact.package.is_some())
    }

    pub(super) fn model_failed(&mut self, name: &ModelName, reason: &str) -> Result<Applied, Refusal> {
        let model = self.model_in_training(name)?;
        let failure = Some(truncate_reason(reason));
        self.models
            .insert(name.clone(), Arc::new(ModelRecord { training: None, failure, ..(*model).clone() }));
        Ok(Applied::Done)
    }

    fn model_in_training(&self, name: &ModelName) -> Result<Arc<ModelRecord>, Refusal> {
        let model = self.models.get(name).filter(|model| model.training.is_some());
        model.cloned().ok_or_else(|| {
            Refusal::conflict(format!("no training of model '{name}' is requested: train-start requests one"))
        })
    }
}
