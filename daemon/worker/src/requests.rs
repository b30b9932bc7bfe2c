//! The requests of a worker: each tells or asks somebody something until it is answered.
//!
//! All of them repeat with back-off and are ended from outside, by the worker's worker_task, when their lease is cancelled
//! or the worker stops. None holds state that matters: what it was to do can be done again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use idunno_shared::client::cluster::ClusterError;
use idunno_shared::ids::{Digest, NodeId, UploadId};
use idunno_shared::names::ModelName;
use idunno_shared::wire::blobs::PlacedBlob;
use idunno_shared::wire::jobs::{
    Fault, JobReply, JobRequest, Lease, ModelArtefact, SegmentCommit, Training, TrainingProgress,
};
use idunno_shared::wire::refusal::RefusalCode;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::model_server::{Artefact, Extensions, ModelServer, ServerError, TaskState};
use super::segments::Segment;
use super::training_data::Folder;
use super::traits::{CoordinatorClient, FileStore, StoreError};

const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);
const STORE_TIMEOUT: Duration = Duration::from_secs(60);
const TRAINING_POLL: Duration = Duration::from_millis(100);
const TRAINING_TIMEOUT: Duration = Duration::from_secs(1000);

/// Whom requests are run for, and to whom.
#[derive(Clone)]
pub struct Requests {
    /// The worker.
    pub node: NodeId,
    /// The coordinator.
    pub coordinator: Arc<dyn CoordinatorClient>,
    /// The store.
    pub store: Arc<dyn FileStore>,
}

/// How an answered request ended.
enum Answer {
    Done,
    /// The upload that it names is over: store again.
    StoreAgain,
    /// Refused, and would be again.
    Refused(String),
}

struct BackOff(Duration);

impl BackOff {
    async fn wait(&mut self) {
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(BACK_OFF_MAX);
    }
}

impl Requests {
    /// Stores a segment and commits it. An error is a refusal for good: the batches are to be given back.
    pub async fn commit(&self, segment: Segment) -> Result<(), String> {
        let mut back_off = BackOff(BACK_OFF_MIN);
        loop {
            let (upload, mut placed) = self.store(vec![segment.rows.clone()]).await;
            let Some(placed) = placed.pop() else {
                warn!("the store placed no blob for a segment, it is stored again");
                back_off.wait().await;
                continue;
            };
            let commit = SegmentCommit {
                worker: self.node,
                job: segment.job,
                upload,
                segment: placed,
                batches: segment.batches.clone(),
            };
            match self.ask(JobRequest::Commit(commit)).await {
                Answer::Done => {
                    self.store.end(upload).await;
                    return Ok(());
                }
                Answer::StoreAgain => back_off.wait().await,
                Answer::Refused(reason) => return Err(reason),
            }
        }
    }

    /// Tells the coordinator which queries of a lease failed.
    pub async fn report_failed(&self, lease: Lease, faults: Vec<Fault>) {
        let request = JobRequest::Failed { worker: self.node, lease, faults };
        match self.ask(request).await {
            Answer::Done | Answer::StoreAgain => {}
            Answer::Refused(reason) => warn!(%reason, %lease, "the coordinator does not take failed queries"),
        }
    }

    /// Trains a model, stores the artefact and tells the coordinator how it went; nothing, if it was stopped. An error
    /// is the server going away meanwhile: nothing was told, the training is to be done again.
    pub async fn train(
        &self,
        (server, extensions): (ModelServer, Extensions),
        model: ModelName,
        training: Training,
        folder: Folder,
        overseer: Overseer,
    ) -> Result<(), ServerError> {
        let trained = match self.train_here((server, extensions), &model, &training, &folder, &overseer).await
        {
            Err(error) if error.interrupted() => return Err(error),
            Err(error) => Err(error.to_string()),
            Ok(None) => return Ok(()),
            Ok(Some(trained)) => Ok(trained),
        };
        let mut back_off = BackOff(BACK_OFF_MIN);
        loop {
            let (upload, result, report) = match &trained {
                Err(reason) => (None, Err(reason.clone()), None),
                Ok((artefact, metrics)) => {
                    let report = report(&model, artefact.version, &training, self.node, metrics);
                    let mut blobs = artefact.extents.clone();
                    blobs.push(report);
                    let (upload, mut extents) = self.store(blobs).await;
                    let report = extents.pop();
                    let artefact = ModelArtefact { model: model.clone(), version: artefact.version, extents };
                    (Some(upload), Ok((upload, artefact)), report)
                }
            };
            let metrics = trained.as_ref().map(|(_, metrics)| metrics.clone()).unwrap_or_default();
            let (worker, model, training) = (self.node, model.clone(), training.clone());
            let request =
                JobRequest::Trained { worker, model: model.clone(), training, result, metrics, report };
            match self.ask(request).await {
                Answer::Done => {}
                Answer::StoreAgain => {
                    back_off.wait().await;
                    continue;
                }
                Answer::Refused(reason) => {
                    warn!(%reason, %model, "the coordinator does not take the training");
                }
            }
            if let Some(upload) = upload {
                self.store.end(upload).await;
            }
            return Ok(());
        }
    }

    /// `None`: it was stopped.
    async fn train_here(
        &self,
        (server, extensions): (ModelServer, Extensions),
        model: &ModelName,
        training: &Training,
        folder: &Folder,
        overseer: &Overseer,
    ) -> Result<Option<Trained>, ServerError> {
        if !extensions.idunno {
            // It brings its own models: what it says of one stands for its artefact.
            let metadata = server.model_metadata(model).await?;
            let artefact = Artefact { version: Digest::of(&metadata), extents: vec![metadata] };
            return Ok(Some((artefact, Vec::new())));
        }
        let Some(dataset) = &training.dataset else {
            return await_training(&server, server.train(model, training.seed, None).await?, overseer).await;
        };
        let path = tokio::select! {
            fetched = self.store.training_data(dataset, folder.path()) => fetched,
            () = overseer.stop.cancelled() => return Ok(None),
        };
        let path = path.map_err(|StoreError(message)| ServerError::Status { status: 500, message })?;
        await_training(&server, server.train(model, training.seed, Some(&path)).await?, overseer).await
    }

    /// Has the model server load an artefact.
    pub async fn load(
        &self,
        server: ModelServer,
        extensions: Extensions,
        artefact: ModelArtefact,
    ) -> Result<Digest, String> {
        let ModelArtefact { model, version, extents } = artefact;
        if !extensions.idunno {
            load_elsewhere(&server, extensions, &model).await.map_err(|error| error.to_string())?;
            return Ok(version);
        }
        let said = |error: ServerError| error.to_string();
        if server.serves(&model, Some(&version)).await.map_err(said)? {
            return Ok(version);
        }
        let size = extents.iter().map(|extent| extent.blob.size).sum();
        let body = reqwest::Body::wrap_stream(extent_stream(Arc::clone(&self.store), version, extents));
        server.upload(&model, &version, size, body).await.map_err(said)?;
        server.load(&model, Some(&version)).await.map_err(said)?;
        Ok(version)
    }

    /// Stores blobs, however long it takes.
    async fn store(&self, blobs: Vec<Bytes>) -> (UploadId, Vec<PlacedBlob>) {
        let mut back_off = BackOff(BACK_OFF_MIN);
        loop {
            let reason = match timeout(STORE_TIMEOUT, self.store.store(blobs.clone())).await {
                Ok(Ok(stored)) => return stored,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {} s", STORE_TIMEOUT.as_secs()),
            };
            warn!(%reason, "cannot store, trying again");
            back_off.wait().await;
        }
    }

    /// Asks until there is an answer that another try would not change.
    async fn ask(&self, request: JobRequest) -> Answer {
        let mut back_off = BackOff(BACK_OFF_MIN);
        loop {
            let error = match self.coordinator.ask(request.clone()).await {
                Ok(JobReply::Noted | JobReply::Committed { .. }) => return Answer::Done,
                Ok(JobReply::Report(_)) => return Answer::Refused("it was answered with orders".to_owned()),
                Err(error) => error,
            };
            if let ClusterError::Refused(refusal) = &error {
                match refusal.code {
                    RefusalCode::UploadOver => return Answer::StoreAgain,
                    RefusalCode::NotFound
                    | RefusalCode::Invalid
                    | RefusalCode::Conflict
                    | RefusalCode::Unsupported
                    | RefusalCode::Forbidden => return Answer::Refused(refusal.message.clone()),
                    _ => {}
                }
            }
            warn!(%error, "the coordinator did not answer, asking again");
            back_off.wait().await;
        }
    }
}

/// Who hears how far a training is, and may stop it.
#[derive(Debug)]
pub struct Overseer {
    /// How far it is.
    pub progress: watch::Sender<TrainingProgress>,
    /// Nobody wants it any more.
    pub stop: CancellationToken,
}

/// What was trained, and what that measured.
type Trained = (Artefact, Vec<(String, String)>);

/// What a training was and measured, for people.
fn report(
    model: &ModelName,
    version: Digest,
    training: &Training,
    worker: NodeId,
    metrics: &[(String, String)],
) -> Bytes {
    let Training { seed, dataset } = training;
    let metrics: Map<String, Value> =
        metrics.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    let report = json!({
        "model": model, "version": version.to_string(), "seed": seed, "dataset": dataset,
        "worker": worker.to_string(), "metrics": metrics,
    });
    Bytes::from(format!("{report}\n"))
}

/// `None`: it was stopped.
async fn await_training(
    server: &ModelServer,
    task: String,
    overseer: &Overseer,
) -> Result<Option<Trained>, ServerError> {
    let started = Instant::now();
    loop {
        if overseer.stop.is_cancelled() {
            return server.cancel(&task).await.map(|()| None);
        }
        match server.task(&task).await {
            Ok(TaskState::Done(metrics)) => return Ok(Some((server.artefact(&task).await?, metrics))),
            Ok(TaskState::Failed(message)) => return Err(ServerError::Status { status: 500, message }),
            Ok(TaskState::Running(_)) if started.elapsed() > TRAINING_TIMEOUT => {
                return Err(ServerError::TimedOut { after: TRAINING_TIMEOUT });
            }
            Ok(TaskState::Running(progress)) => {
                overseer.progress.send_replace(progress);
                // Stopped or not, the next round finds out.
                let _ = timeout(TRAINING_POLL, overseer.stop.cancelled()).await;
            }
            // A server that does not know the task is another process than the one that began it.
            Err(ServerError::Status { status: 404, message }) => return Err(ServerError::Broken(message)),
            Err(error) => return Err(error),
        }
    }
}

/// A server that is not ours brings its own models: they only have to be ready.
async fn load_elsewhere(
    server: &ModelServer,
    extensions: Extensions,
    model: &ModelName,
) -> Result<(), ServerError> {
    if server.serves(model, None).await? {
        return Ok(());
    }
    if extensions.repository {
        server.load(model, None).await?;
    }
    if server.serves(model, None).await? {
        return Ok(());
    }
    Err(ServerError::Status { status: 503, message: format!("model {model} is not ready there") })
}

/// An artefact's bytes, an extent at a time; the last one only if the whole is what its version says.
fn extent_stream(
    store: Arc<dyn FileStore>,
    version: Digest,
    extents: Vec<PlacedBlob>,
) -> impl stream::Stream<Item = Result<Bytes, StoreError>> + Send + 'static {
    let state = (store, blake3::Hasher::new(), extents.into_iter());
    stream::try_unfold(state, move |(store, mut hasher, mut extents)| async move {
        let Some(extent) = extents.next() else { return Ok(None) };
        let fetched = timeout(STORE_TIMEOUT, store.fetch(std::slice::from_ref(&extent))).await;
        let late = || StoreError(format!("an extent was not read within {} s", STORE_TIMEOUT.as_secs()));
        let none = || StoreError("the store gave no blob".to_owned());
        let bytes = fetched.map_err(|_| late())?.pop().ok_or_else(none)??.bytes;
        hasher.update(&bytes);
        if extents.len() == 0 && hasher.finalize().as_bytes() != &version.0 {
            return Err(StoreError(format!("the artefact is not version {version}")));
        }
        Ok(Some((bytes, (store, hasher, extents))))
    })
}
