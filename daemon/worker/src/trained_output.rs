//! What a training made, and its way into the store: part by part from the model server, so that no more than one extent is
//! in memory, however large it is.
//!
//! Not here: what is reported of it (`training.rs`).

use backon::Retryable;
use bytes::Bytes;
use idunno_shared::ids::{Digest, UploadId};
use idunno_shared::names::FileName;
use idunno_shared::wire::blobs::{EXTENT_BYTES_MAX, PlacedBlob};
use thiserror::Error;
use tokio::task::spawn_blocking;
use tracing::{debug, warn};

use super::model_server::{ModelServerClient, ServerError};
use super::requests::{RequestError, Requests, back_off};
use super::trained_package::TrainedFile;

/// How often a part is asked for again: for about ten seconds.
const PART_RETRIES_MAX: usize = 10;

/// What a training made was not stored.
#[derive(Debug, Error)]
pub enum StoreOutputError {
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("its artefact is empty")]
    Empty,
}

/// What a training made, before it is stored.
pub enum TrainedOutput {
    /// The artefact of a task of the model server, which keeps it until it is told that the task is over.
    Task { server: ModelServerClient, task: String, name: Option<FileName>, bytes: u64 },
    /// The metadata of a third-party server's model, which stand for an artefact.
    Metadata(Bytes),
}

/// An artefact whose extents are stored. Nothing refers to them yet.
pub(super) struct StoredArtefact {
    pub upload: UploadId,
    pub file: TrainedFile,
    pub extents: Vec<PlacedBlob>,
}

impl TrainedOutput {
    fn size(&self) -> u64 {
        match self {
            Self::Task { bytes, .. } => *bytes,
            Self::Metadata(bytes) => bytes.len() as u64,
        }
    }

    /// Metadata are one part. A part is tried again as long as the server may still have it: another training costs more.
    async fn part(&self, offset: u64, length: usize) -> Result<Bytes, ServerError> {
        let (server, task) = match self {
            Self::Metadata(bytes) => return Ok(bytes.clone()),
            Self::Task { server, task, .. } => (server, task),
        };
        let fetched = (|| server.artefact_part(task, offset, length))
            .retry(back_off().with_max_times(PART_RETRIES_MAX))
            .when(ServerError::is_server_failure)
            .notify(|error, _| warn!(%error, task, "cannot fetch a part of an artefact, retrying"))
            .await;
        fetched.map_err(|error| match error {
            // A server that does not know the task has restarted since.
            ServerError::Status { status: 404, message } => ServerError::Disconnected(message),
            error => error,
        })
    }

    /// The server may delete the artefact: it is stored, or no longer wanted.
    pub(super) async fn forget(&self) {
        if let Self::Task { server, task, .. } = self
            && let Err(error) = server.end_task(task).await
        {
            debug!(%error, task, "the model server did not forget a training");
        }
    }
}

impl Requests {
    /// Stores what a training made. Fails if the upload ends early: try again from the start.
    pub(super) async fn store_output(
        &self,
        output: &TrainedOutput,
    ) -> Result<StoredArtefact, StoreOutputError> {
        let size = output.size();
        let (mut upload, mut extents, mut hasher) = (None, Vec::new(), blake3::Hasher::new());
        let mut offset = 0;
        while offset < size {
            let length = (size - offset).min(EXTENT_BYTES_MAX);
            let part = output.part(offset, usize::try_from(length).unwrap_or(usize::MAX)).await?;
            let bytes = part.clone();
            let hashed = spawn_blocking(move || {
                hasher.update(&bytes);
                hasher
            });
            hasher = hashed.await.map_err(|_| RequestError::Internal)?;
            let stored = self.store_blobs(upload, vec![part]).await.map_err(RequestError::from)?;
            upload = Some(stored.upload);
            extents.extend(stored.blobs);
            offset += length;
        }
        let upload = upload.ok_or(StoreOutputError::Empty)?;
        let name = match output {
            TrainedOutput::Task { name, .. } => name.clone(),
            TrainedOutput::Metadata(_) => None,
        };
        let file = TrainedFile { digest: Digest(*hasher.finalize().as_bytes()), size, name };
        Ok(StoredArtefact { upload, file, extents })
    }
}
