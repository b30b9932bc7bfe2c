//! Trains a model on the model server, stores the artefact, and reports the outcome.
//!
//! Decides which failures are the training's, and reported as its outcome, and which are the server's, after which the
//! training is ordered again. Source: the design, section 8 (training phase).
//!
//! A package is trained by its own class; the outcome is a package that has what this wrote beside its files
//! (`trained_package.rs`).
//!
//! Bounds: a training takes as long as the model server lets it, which is as long as it makes progress.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use backon::Retryable;
use bytes::Bytes;
use idunno_shared::ids::{Digest, NodeId, UploadId};
use idunno_shared::names::ModelName;
use idunno_shared::package::PackageError;
use idunno_shared::wire::blobs::PlacedBlob;
use idunno_shared::wire::control::TrainedFrom;
use idunno_shared::wire::jobs::{JobRequest, ModelArtefact, Training, TrainingProgress};
use serde_json::{Map, Value, json};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::model_server::{ModelServerClient, ServerError, TaskOutput, TaskState, TrainingTask};
use super::packages::FetchPackageError;
use super::requests::{RequestError, Requests, back_off};
use super::supervisor::ReadyServer;
use super::trained_output::{StoreOutputError, StoredArtefact, TrainedOutput};
use super::trained_package::{PackageWithArtefact, TrainedFile};
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
    /// The coordinator or the store did not take what was trained.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl From<StoreOutputError> for TrainError {
    fn from(error: StoreOutputError) -> Self {
        match error {
            StoreOutputError::Server(error) => Self::Server(error),
            StoreOutputError::Request(error) => Self::Request(error),
            StoreOutputError::Empty => Self::Failed(error.to_string()),
        }
    }
}

impl TrainError {
    /// Whether the server is the likely cause: the training must be ordered again.
    fn is_interruption(&self) -> bool {
        matches!(self, Self::Server(error) if error.is_server_failure() || error.is_turned_away())
    }

    fn needs_new_upload(&self) -> bool {
        matches!(self, Self::Request(error) if error.needs_new_upload())
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
    output: TrainedOutput,
    /// What the training measured, by name.
    metrics: Vec<(String, String)>,
}

/// What the coordinator is told of a training.
struct Outcome {
    /// What was trained and the upload that keeps it, or why nothing was.
    result: Result<(UploadId, ModelArtefact), String>,
    metrics: Vec<(String, String)>,
    report: Option<PlacedBlob>,
    /// Which package was trained, if one was.
    package: Option<TrainedFrom>,
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
        let done = match self.train_here(ready, &order, &control).await {
            Ok(None) => return Ok(()),
            Ok(Some(trained)) => {
                let stored = tokio::select! {
                    stored = self.store_trained(&order, &trained) => stored,
                    () = control.stop.cancelled() => Ok(()),
                };
                trained.output.forget().await;
                stored
            }
            Err(error) => Err(error),
        };
        let reported = match done {
            Err(error) if error.is_interruption() => return Err(error),
            Err(TrainError::Request(error)) => Err(error),
            Err(error) => self.report_failure(&order, &error).await,
            Ok(()) => Ok(()),
        };
        if let Err(error) = reported {
            warn!(%error, model = %order.model, "the coordinator did not accept the training");
        }
        Ok(())
    }

    async fn store_trained(&self, order: &TrainingOrder, trained: &TrainedModel) -> Result<(), TrainError> {
        (|| self.store_trained_once(order, trained))
            .retry(back_off())
            .when(TrainError::needs_new_upload)
            .notify(|error, _| warn!(%error, model = %order.model, "storing a trained model again"))
            .await
    }

    async fn store_trained_once(
        &self,
        order: &TrainingOrder,
        TrainedModel { output, metrics }: &TrainedModel,
    ) -> Result<(), TrainError> {
        let StoredArtefact { upload, file, mut extents } = self.store_output(output).await?;
        let package = match &order.package {
            None => None,
            Some(package) => Some(self.package_with(package, &file).await?),
        };
        let version = package.as_ref().map_or(file.digest, PackageWithArtefact::version);
        let mut blobs: Vec<Bytes> = package.iter().map(PackageWithArtefact::manifest).collect();
        blobs.push(training_report(order, version, self.node, metrics));
        let stored = self.store_blobs(Some(upload), blobs).await.map_err(RequestError::from)?;
        let DurableUpload { upload, mut blobs } = stored;
        let report = blobs.pop();
        if let Some(package) = &package {
            let manifest = blobs.pop().ok_or(RequestError::NoBlob)?;
            extents = package.extents(manifest, &extents);
        }
        let (model, is_package) = (order.model.clone(), package.is_some());
        let outcome = Outcome {
            result: Ok((upload, ModelArtefact { model, version, extents, is_package })),
            metrics: metrics.clone(),
            report,
            package: package.as_ref().map(PackageWithArtefact::origin),
        };
        let reported = self.report(order, outcome).await;
        if !matches!(reported, Err(RequestError::UploadEnded)) {
            self.store.end(upload).await;
        }
        Ok(reported?)
    }

    async fn package_with(
        &self,
        package: &ModelArtefact,
        file: &TrainedFile,
    ) -> Result<PackageWithArtefact, TrainError> {
        let manifest = self.packages.manifest(package.version).await?;
        Ok(PackageWithArtefact::new(manifest, package, file)?)
    }

    async fn report_failure(&self, order: &TrainingOrder, error: &TrainError) -> Result<(), RequestError> {
        let result = Err(error.to_string());
        self.report(order, Outcome { result, metrics: Vec::new(), report: None, package: None }).await
    }

    async fn report(&self, order: &TrainingOrder, outcome: Outcome) -> Result<(), RequestError> {
        let Outcome { result, metrics, report, package } = outcome;
        let (model, training) = (order.model.clone(), order.training.clone());
        let worker = self.node;
        self.ask(JobRequest::Trained { worker, model, training, result, metrics, report, package }).await
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
            return Ok(Some(TrainedModel { output: TrainedOutput::Metadata(metadata), metrics: Vec::new() }));
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
            let _ = server.end_task(&task).await;
        }
        trained
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
            server.end_task(task).await?;
            return Ok(None);
        }
        let state = server.task(task).await.map(|TrainingTask { state, output }| {
            lines_logged = log_lines(model, &output, lines_logged);
            state
        });
        match state {
            Ok(TaskState::Done { metrics, file, artefact_bytes }) => {
                let (server, task) = (server.clone(), task.to_owned());
                let output = TrainedOutput::Task { server, task, name: file, bytes: artefact_bytes };
                return Ok(Some(TrainedModel { output, metrics }));
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
    TrainingOrder { model, training, .. }: &TrainingOrder,
    version: Digest,
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
