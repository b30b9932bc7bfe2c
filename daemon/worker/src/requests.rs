//! What a worker asks of the coordinator, the store and its model server, repeated with back-off until answered.
//!
//! The [worker task](super::worker_task) aborts a request when its lease is cancelled or the worker stops. Requests hold no
//! state that matters: each can be made again from the start.

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use futures_util::stream;
use idunno_shared::client::cluster::ClusterError;
use idunno_shared::client::results::segment;
use idunno_shared::ids::{Digest, JobId, NodeId, UploadId};
use idunno_shared::names::ModelName;
use idunno_shared::wire::blobs::PlacedBlob;
use idunno_shared::wire::jobs::{
    BatchOutcome, Fault, JobReply, JobRequest, Lease, ModelArtefact, SegmentCommit,
};
use idunno_shared::wire::refusal::RefusalCode;
use thiserror::Error;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

use super::model_server::{Extensions, ModelServerClient, ServerError};
use super::packages::{FetchPackageError, Packages};
use super::segments::RowSegment;
use super::supervisor::ReadyServer;
use super::traits::{CoordinatorClient, DurableUpload, FileStore, FileStoreError};

const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);
const STORE_TIMEOUT: Duration = Duration::from_secs(60);

/// A request to the coordinator or the store was not fulfilled.
#[derive(Debug, Error)]
pub enum RequestError {
    /// Repeating the request would not help.
    #[error("the coordinator refused: {0}")]
    Refused(String),
    #[error("the coordinator sent an unexpected reply")]
    UnexpectedReply,
    /// The request names an upload that has ended: the blobs must be stored again.
    #[error("the upload has ended")]
    UploadEnded,
    #[error("the store placed no blob")]
    NoBlob,
    #[error(transparent)]
    Unavailable(ClusterError),
    #[error(transparent)]
    Store(#[from] FileStoreError),
    #[error("internal error: the request panicked")]
    Internal,
}

impl RequestError {
    /// Whether the same request may succeed later.
    fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// Whether the request may succeed with a new upload.
    pub(super) fn needs_new_upload(&self) -> bool {
        matches!(self, Self::UploadEnded | Self::NoBlob | Self::Store(FileStoreError::UploadEnded))
    }
}

impl From<ClusterError> for RequestError {
    fn from(error: ClusterError) -> Self {
        let ClusterError::Refused(refusal) = &error else { return Self::Unavailable(error) };
        match refusal.code {
            RefusalCode::UploadOver => Self::UploadEnded,
            RefusalCode::NotFound
            | RefusalCode::Invalid
            | RefusalCode::Conflict
            | RefusalCode::Unsupported
            | RefusalCode::Forbidden => Self::Refused(refusal.message.clone()),
            _ => Self::Unavailable(error),
        }
    }
}

/// A model that the model server has loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadedModel {
    pub version: Digest,
    /// How long one row may take, as the model declares it; zero if it does not.
    pub row_timeout: Duration,
    /// Whether versions that were loaded before still are.
    pub beside: bool,
}

/// A model was not loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("model {0} is not ready on the model server")]
    NotReady(ModelName),
    #[error("model {0} is a package, which only a model server of IDunno can load")]
    NoPackages(ModelName),
    #[error(transparent)]
    Package(#[from] FetchPackageError),
    #[error("internal error: the load panicked")]
    Internal,
}

/// Back-off without an end: the worker task aborts what is no longer needed.
pub(super) fn back_off() -> ExponentialBuilder {
    ExponentialBuilder::new().with_min_delay(BACK_OFF_MIN).with_max_delay(BACK_OFF_MAX).without_max_times()
}

#[derive(Clone)]
pub struct Requests {
    pub node: NodeId,
    pub coordinator: Arc<dyn CoordinatorClient>,
    pub store: Arc<dyn FileStore>,
    pub packages: Packages,
}

impl Requests {
    /// Stores a segment and commits it. After an error, its batches must be given back.
    pub async fn commit(&self, segment: RowSegment) -> Result<(), RequestError> {
        let RowSegment { job, rows, batches } = segment;
        let packed = spawn_blocking(move || segment::pack(&rows)).await;
        let packed = packed.map_err(|_| RequestError::Internal)?;
        (|| self.commit_once(job, &packed, &batches))
            .retry(back_off())
            .when(RequestError::needs_new_upload)
            .notify(|error, _| warn!(%error, %job, "storing a segment again"))
            .await
    }

    async fn commit_once(
        &self,
        job: JobId,
        packed: &Bytes,
        batches: &[BatchOutcome],
    ) -> Result<(), RequestError> {
        let DurableUpload { upload, mut blobs } = self.store_blobs(None, vec![packed.clone()]).await?;
        let commit = SegmentCommit {
            worker: self.node,
            job,
            upload,
            segment: blobs.pop().ok_or(RequestError::NoBlob)?,
            batches: batches.to_vec(),
        };
        self.ask(JobRequest::Commit(commit)).await?;
        self.store.end(upload).await;
        Ok(())
    }

    /// Reports the queries of a lease that failed.
    pub async fn report_failed(&self, lease: Lease, faults: Vec<Fault>) {
        let request = JobRequest::Failed { worker: self.node, lease, faults };
        if let Err(error) = self.ask(request).await {
            warn!(%error, %lease, "the coordinator did not accept failed queries");
        }
    }

    /// Makes the model server load an artefact.
    pub async fn load(&self, ready: ReadyServer, artefact: ModelArtefact) -> Result<LoadedModel, LoadError> {
        let ReadyServer { server, extensions } = ready;
        if artefact.is_package {
            if !extensions.idunno {
                return Err(LoadError::NoPackages(artefact.model));
            }
            self.packages.fetch(&artefact).await?;
            let row_timeout = server.load_version(&artefact.model, &artefact.version, true).await?;
            return Ok(LoadedModel { version: artefact.version, row_timeout, beside: true });
        }
        let ModelArtefact { model, version, extents, .. } = artefact;
        if !extensions.idunno {
            load_from_repository(&server, extensions, model).await?;
            return Ok(LoadedModel { version, row_timeout: Duration::ZERO, beside: false });
        }
        if !server.serves(&model, Some(&version)).await? {
            let size = extents.iter().map(|extent| extent.blob.size).sum();
            let body = reqwest::Body::wrap_stream(extent_stream(Arc::clone(&self.store), version, extents));
            server.upload(&model, &version, size, body).await?;
        }
        // Loading what is loaded does nothing, and the reply has what the model declares.
        let row_timeout = server.load_version(&model, &version, false).await?;
        Ok(LoadedModel { version, row_timeout, beside: true })
    }

    /// Makes the model server forget a version, and deletes its package if it is one.
    pub async fn unload(&self, ready: Option<ReadyServer>, model: &ModelName, version: Digest) {
        if let Some(ReadyServer { server, extensions: Extensions { idunno: true, .. } }) = ready
            && let Err(error) = server.unload_version(model, &version).await
        {
            // A server that has restarted has nothing loaded.
            warn!(%error, %model, %version, "the model server did not unload a version");
        }
        self.packages.evict(version).await;
    }

    /// Stores blobs, retrying until it succeeds. Under a given upload it fails when that has ended.
    pub(super) async fn store_blobs(
        &self,
        upload: Option<UploadId>,
        blobs: Vec<Bytes>,
    ) -> Result<DurableUpload, FileStoreError> {
        let store_once = || async {
            let stored = timeout(STORE_TIMEOUT, self.store.store(upload, blobs.clone())).await;
            stored.unwrap_or_else(|_| Err(FileStoreError::timed_out(STORE_TIMEOUT)))
        };
        store_once
            .retry(back_off())
            .when(|error| *error != FileStoreError::UploadEnded)
            .notify(|error, _| warn!(%error, "cannot store blobs, retrying"))
            .await
    }

    /// Asks the coordinator, retrying until the outcome is final.
    pub(super) async fn ask(&self, request: JobRequest) -> Result<(), RequestError> {
        let ask_once = || async {
            match self.coordinator.ask(request.clone()).await? {
                JobReply::Noted | JobReply::Committed { .. } => Ok(()),
                JobReply::Report(_) => Err(RequestError::UnexpectedReply),
            }
        };
        ask_once
            .retry(back_off())
            .when(RequestError::is_transient)
            .notify(|error, _| warn!(%error, "the coordinator did not answer, retrying"))
            .await
    }
}

/// A third-party server brings its own models, which only have to be ready.
async fn load_from_repository(
    server: &ModelServerClient,
    extensions: Extensions,
    model: ModelName,
) -> Result<(), LoadError> {
    if extensions.repository && !server.serves(&model, None).await? {
        server.load_model(&model).await?;
    }
    if !server.serves(&model, None).await? {
        return Err(LoadError::NotReady(model));
    }
    server.learn_signature(&model, extensions.binary).await?;
    Ok(())
}

/// Streams an artefact's extents. Withholds the last one unless the digest of the whole matches the version.
fn extent_stream(
    store: Arc<dyn FileStore>,
    version: Digest,
    extents: Vec<PlacedBlob>,
) -> impl stream::Stream<Item = Result<Bytes, FileStoreError>> + Send + 'static {
    let state = (store, blake3::Hasher::new(), extents.into_iter());
    stream::try_unfold(state, move |(store, mut hasher, mut extents)| async move {
        let Some(extent) = extents.next() else { return Ok(None) };
        let fetched = timeout(STORE_TIMEOUT, store.fetch(std::slice::from_ref(&extent))).await;
        let mut fetched = fetched.map_err(|_| FileStoreError::timed_out(STORE_TIMEOUT))?;
        let bytes = fetched.pop().ok_or(FileStoreError::NoBlob)??.bytes;
        hasher.update(&bytes);
        if extents.len() == 0 && hasher.finalize().as_bytes() != &version.0 {
            return Err(FileStoreError::Failed(format!("the artefact does not match version {version}")));
        }
        Ok(Some((bytes, (store, hasher, extents))))
    })
}
