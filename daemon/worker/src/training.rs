//! Trains a model on the model server, stores the artefact, and reports the outcome.
//!
//! Decides which failures are the training's, and reported as its outcome, and which are the server's, after which the
//! training is ordered again. Source: the design, section 8 (training phase).
//!
//! A package is trained by its own class; the outcome is a package that has what this wrote beside its files
//! (`trained_package.rs`).
//!
//! Bounds: a training takes as long as the model server lets it, which is as long as it makes progress; the artefact is held
//! in memory while it is stored.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use backon::Retryable;
use bytes::Bytes;
use idunno_shared::ids::{Digest, NodeId};
use idunno_shared::names::{FileName, ModelName};
use idunno_shared::package::PackageError;
use idunno_shared::wire::jobs::{JobRequest, ModelArtefact, Training, TrainingProgress};
use serde_json::{Map, Value, json};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::model_server::{
    ModelServerClient, ServerError, TaskOutput, TaskState, TrainedArtefact, TrainingTask,
};
use super::packages::FetchPackageError;
use super::requests::{RequestError, Requests, back_off};
use super::supervisor::ReadyServer;
use super::trained_package::PackageWithArtefact;
use super::training_data::TrainingFolder;
use super::traits::{DurableUpload, FileStoreError};

const POLL: Duration = Duration::from_millis(100);

/// A model was not trained.
#[derive(Debug, Error)]
pub enum TrainError {
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Data(#[from] FileStoreError),
    #[error(transparent)]
    Fetch(#[from] FetchPackageError),
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error("cannot let the model server read the training data in {}: {source}", path.display())]
    Share { path: PathBuf, source: io::Error },
    #[error("model {0} is a package, which only a model server of IDunno can train")]
    NoPackages(ModelName),
    #[error("the training failed: {0}")]
    Failed(String),
}

impl TrainError {
    /// Whether the server is the likely cause: the training must be ordered again.
    fn is_interruption(&self) -> bool {
        matches!(self, Self::Server(error) if error.is_server_failure() || error.is_turned_away())
    }
}

/// The worker task's handle of a training.
#[derive(Debug)]
pub struct TrainingControl {
    pub progress: watch::Sender<TrainingProgress>,
    /// Cancelled when the training is no longer wanted.
    pub stop: CancellationToken,
}

/// An ordered training.
#[derive(Debug)]
pub struct TrainingOrder {
    pub model: ModelName,
    pub training: Training,
    /// The package whose class trains it.
    pub package: Option<ModelArtefact>,
    /// Where the training data are put.
    pub folder: TrainingFolder,
}

struct TrainedModel {
    artefact: TrainedArtefact,
    /// What the training measured, by name.
    metrics: Vec<(String, String)>,
    /// The name of the artefact's file.
    file: Option<FileName>,
    /// The package that has the artefact, if a package was trained.
    package: Option<PackageWithArtefact>,
}

impl TrainedModel {
    fn version(&self) -> Digest {
        self.package.as_ref().map_or(self.artefact.version, PackageWithArtefact::version)
    }
}

impl Requests {
    /// Trains a model and reports the outcome, unless the training is stopped. An error is an interruption: nothing was
    /// reported, and the training must be ordered again.
    pub async fn train(
        &self,
        ready: ReadyServer,
        order: TrainingOrder,
        control: TrainingControl,
    ) -> Result<(), TrainError> {
        let outcome = match self.train_here(ready, &order, &control).await {
            Err(error) if error.is_interruption() => return Err(error),
            Err(error) => Err(error),
            Ok(None) => return Ok(()),
            Ok(Some(trained)) => Ok(trained),
        };
        let reported = (|| self.report_trained(&order, &outcome))
            .retry(back_off())
            .when(RequestError::needs_new_upload)
            .notify(|error, _| warn!(%error, model = %order.model, "storing a trained model again"))
            .await;
        if let Err(error) = reported {
            warn!(%error, model = %order.model, "the coordinator did not accept the training");
        }
        Ok(())
    }

    async fn report_trained(
        &self,
        order: &TrainingOrder,
        outcome: &Result<TrainedModel, TrainError>,
    ) -> Result<(), RequestError> {
        let TrainingOrder { model, training, .. } = order;
        let (mut report, mut origin) = (None, None);
        let mut metrics = Vec::new();
        let result = match outcome {
            Err(error) => Err(error.to_string()),
            Ok(trained) => {
                let version = trained.version();
                let mut blobs = trained.artefact.extents.clone();
                blobs.extend(trained.package.iter().map(PackageWithArtefact::manifest));
                blobs.push(training_report(model, version, training, self.node, &trained.metrics));
                let DurableUpload { upload, blobs: mut extents } = self.store_blobs(blobs).await?;
                report = extents.pop();
                metrics.clone_from(&trained.metrics);
                if let Some(package) = &trained.package {
                    let manifest = extents.pop().ok_or(RequestError::NoBlob)?;
                    origin = Some(package.origin());
                    extents = package.extents(manifest, &extents);
                }
                let is_package = origin.is_some();
                Ok((upload, ModelArtefact { model: model.clone(), version, extents, is_package }))
            }
        };
        let upload = result.as_ref().ok().map(|(upload, _)| *upload);
        let request = JobRequest::Trained {
            worker: self.node,
            model: model.clone(),
            training: training.clone(),
            result,
            metrics,
            report,
            package: origin,
        };
        let reply = self.ask(request).await;
        if let Err(error @ RequestError::UploadEnded) = reply {
            return Err(error);
        }
        if let Some(upload) = upload {
            self.store.end(upload).await;
        }
        reply
    }

    /// Returns `None` if the training was stopped.
    async fn train_here(
        &self,
        ready: ReadyServer,
        order: &TrainingOrder,
        control: &TrainingControl,
    ) -> Result<Option<TrainedModel>, TrainError> {
        let ReadyServer { server, extensions } = ready;
        let TrainingOrder { model, training, package, folder } = order;
        if !extensions.idunno && package.is_some() {
            return Err(TrainError::NoPackages(model.clone()));
        }
        if !extensions.idunno {
            // A third-party server brings its own models: their metadata stand for an artefact.
            let metadata = server.model_metadata(model).await?;
            let artefact = TrainedArtefact { version: Digest::of(&metadata), extents: vec![metadata] };
            return Ok(Some(TrainedModel { artefact, metrics: Vec::new(), file: None, package: None }));
        }
        if let Some(package) = package {
            self.packages.fetch(package).await?;
        }
        let path = match &training.dataset {
            None => None,
            Some(dataset) => tokio::select! {
                fetched = self.store.training_data(dataset, folder.path()) => Some(fetched?),
                () = control.stop.cancelled() => return Ok(None),
            },
        };
        if path.is_some() {
            let failed = |source| TrainError::Share { path: folder.path().to_owned(), source };
            folder.share().await.map_err(failed)?;
        }
        let version = package.as_ref().map(|package| package.version);
        let task = server.train(model, training, path.as_deref(), version).await?;
        let trained = await_training(&server, (model, &task), control).await;
        if trained.is_err() {
            // A training that went on would read a folder which is deleted, and be in the way of the next.
            let _ = server.cancel(&task).await;
        }
        let Some(mut trained) = trained? else { return Ok(None) };
        if let Some(package) = package {
            let manifest = self.packages.manifest(package.version).await?;
            let made = PackageWithArtefact::new(manifest, package, &trained.artefact, trained.file.as_ref())?;
            trained.package = Some(made);
        }
        Ok(Some(trained))
    }
}

/// Returns `None` if the training was stopped.
async fn await_training(
    server: &ModelServerClient,
    (model, task): (&ModelName, &str),
    control: &TrainingControl,
) -> Result<Option<TrainedModel>, TrainError> {
    let mut lines_logged = 0;
    loop {
        if control.stop.is_cancelled() {
            server.cancel(task).await?;
            return Ok(None);
        }
        let state = server.task(task).await.map(|TrainingTask { state, output }| {
            lines_logged = log_lines(model, &output, lines_logged);
            state
        });
        match state {
            Ok(TaskState::Done { metrics, file }) => {
                let artefact = server.artefact(task).await?;
                return Ok(Some(TrainedModel { artefact, metrics, file, package: None }));
            }
            Ok(TaskState::Failed(message)) => return Err(TrainError::Failed(message)),
            Ok(TaskState::Running(progress)) => {
                control.progress.send_replace(progress);
                // Whether it was stopped is checked in the next round.
                let _ = timeout(POLL, control.stop.cancelled()).await;
            }
            // A server that does not know the task has restarted since.
            Err(ServerError::Status { status: 404, message }) => {
                return Err(ServerError::Disconnected(message).into());
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Logs what a training's code has printed beyond the first `logged` lines, so that whoever follows the cluster's log follows
/// the training. Returns how many there are.
fn log_lines(model: &ModelName, output: &TaskOutput, logged: u64) -> u64 {
    let (lost, new) = output.after(logged);
    if lost > 0 {
        warn!(%model, lines = lost, "the training printed more lines at once than are kept");
    }
    for line in new {
        info!("training {model}: {line}");
    }
    output.lines
}

/// A summary of a training, for people.
fn training_report(
    model: &ModelName,
    version: Digest,
    training: &Training,
    worker: NodeId,
    metrics: &[(String, String)],
) -> Bytes {
    let Training { seed, dataset, .. } = training;
    let metrics: Map<String, Value> =
        metrics.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    let report = json!({
        "model": model, "version": version.to_string(), "seed": seed, "dataset": dataset,
        "worker": worker.to_string(), "metrics": metrics,
    });
    Bytes::from(format!("{report}\n"))
}
