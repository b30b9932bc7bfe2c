//! What a worker needs from the rest of the cluster: the coordinator and the file store.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use idunno_shared::client::cluster::{Cluster, ClusterError};
use idunno_shared::client::files::{Files, PutError};
use idunno_shared::client::link::BoxFuture;
use idunno_shared::ids::{JobId, UploadId};
use idunno_shared::names::DatasetName;
use idunno_shared::wire::blobs::PlacedBlob;
use idunno_shared::wire::control::SegmentView;
use idunno_shared::wire::jobs::{JobReply, JobRequest};
use thiserror::Error;
use tracing::warn;

use super::result_merge::list_segments;
use super::training_data;

/// Blobs of one call that are read concurrently.
const BLOBS_IN_FLIGHT: usize = 64;

/// The current coordinator, whichever member that is.
pub trait CoordinatorClient: Send + Sync {
    /// Sends a request, following the coordinator when it moves, until some deadline.
    fn ask(&self, request: JobRequest) -> BoxFuture<'_, Result<JobReply, ClusterError>>;
}

impl CoordinatorClient for Cluster {
    fn ask(&self, request: JobRequest) -> BoxFuture<'_, Result<JobReply, ClusterError>> {
        Box::pin(self.jobs(request))
    }
}

/// An operation of the file store failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FileStoreError {
    #[error("{0}")]
    Failed(String),
    #[error("the store returned no blob")]
    NoBlob,
    /// The blobs of the upload may be collected: store them again.
    #[error("the upload has ended")]
    UploadEnded,
    #[error("the store did not answer within {} s", after.as_secs())]
    TimedOut { after: Duration },
}

impl FileStoreError {
    pub(super) fn timed_out(after: Duration) -> Self {
        Self::TimedOut { after }
    }

    /// Keeps the text of the store's own error.
    pub fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The verified bytes of a blob or an input.
#[derive(Clone, Debug)]
pub struct FetchedBytes {
    pub bytes: Bytes,
    /// Whether they came from the member's own disk, without a connection.
    pub is_local: bool,
}

/// Blobs that are durable, in the order in which they were given.
#[derive(Clone, Debug)]
pub struct DurableUpload {
    pub upload: UploadId,
    pub blobs: Vec<PlacedBlob>,
}

/// The file store of the cluster.
pub trait FileStore: Send + Sync {
    /// Reads and verifies blobs, preferring the local holder. Results are in the order of the request.
    fn fetch<'a>(
        &'a self,
        blobs: &'a [PlacedBlob],
    ) -> BoxFuture<'a, Vec<Result<FetchedBytes, FileStoreError>>>;

    /// Writes what these blobs hold, verified and in their order, into a file of this machine, which is replaced as a whole.
    fn fetch_file<'a>(
        &'a self,
        blobs: &'a [PlacedBlob],
        target: &'a Path,
    ) -> BoxFuture<'a, Result<(), FileStoreError>>;

    /// Stores blobs durably, under an upload that must still be open; without one, under a new one. Nothing refers to them
    /// yet.
    fn store(
        &self,
        upload: Option<UploadId>,
        blobs: Vec<Bytes>,
    ) -> BoxFuture<'_, Result<DurableUpload, FileStoreError>>;

    /// Copies a dataset into a folder of this machine, which is emptied first. Returns the path to train from.
    fn training_data<'a>(
        &'a self,
        dataset: &'a DatasetName,
        folder: &'a Path,
    ) -> BoxFuture<'a, Result<PathBuf, FileStoreError>>;

    /// The segments of a job's results, in order of commit.
    fn segments(&self, job: JobId) -> BoxFuture<'_, Result<Vec<SegmentView>, FileStoreError>>;

    /// Ends an upload: its uncommitted blobs may be collected. Failures are ignored.
    fn end(&self, upload: UploadId) -> BoxFuture<'_, ()>;
}

impl FileStore for Files {
    fn fetch<'a>(
        &'a self,
        blobs: &'a [PlacedBlob],
    ) -> BoxFuture<'a, Vec<Result<FetchedBytes, FileStoreError>>> {
        // Each future owns its blob: the compiler cannot prove that a borrowing one is Send.
        let fetch = move |blob: PlacedBlob| async move {
            let fetched = self.fetch_blob(&blob).await;
            let fetched = fetched.map(|bytes| FetchedBytes { bytes, is_local: false });
            fetched.map_err(FileStoreError::failed)
        };
        Box::pin(stream::iter(blobs.to_vec()).map(fetch).buffered(BLOBS_IN_FLIGHT).collect())
    }

    fn fetch_file<'a>(
        &'a self,
        blobs: &'a [PlacedBlob],
        target: &'a Path,
    ) -> BoxFuture<'a, Result<(), FileStoreError>> {
        Box::pin(async move { self.get_extents(blobs, target).await.map_err(FileStoreError::failed) })
    }

    fn store(
        &self,
        upload: Option<UploadId>,
        blobs: Vec<Bytes>,
    ) -> BoxFuture<'_, Result<DurableUpload, FileStoreError>> {
        Box::pin(async move {
            let stored = match upload {
                None => self.store_blobs(blobs).await,
                Some(_) => self.store_more(upload, blobs).await,
            };
            let stored = stored.map_err(|error| match error {
                PutError::UploadOver { .. } if upload.is_some() => FileStoreError::UploadEnded,
                error => FileStoreError::failed(error),
            })?;
            let copies = stored.blobs.iter().map(|placed| placed.holders.len()).min().unwrap_or(0);
            if copies < stored.copies_wanted as usize {
                warn!(
                    copies,
                    wanted = stored.copies_wanted,
                    "stored with fewer copies than wanted: repair makes the others"
                );
            }
            Ok(DurableUpload { upload: stored.upload, blobs: stored.blobs })
        })
    }

    fn training_data<'a>(
        &'a self,
        dataset: &'a DatasetName,
        folder: &'a Path,
    ) -> BoxFuture<'a, Result<PathBuf, FileStoreError>> {
        Box::pin(async move {
            let fetched = training_data::fetch(self, dataset, folder, u64::MAX).await;
            fetched.map_err(FileStoreError::failed)
        })
    }

    fn segments(&self, job: JobId) -> BoxFuture<'_, Result<Vec<SegmentView>, FileStoreError>> {
        Box::pin(async move {
            let listed = list_segments(self, job).await;
            listed.map(|(_, segments)| segments).map_err(FileStoreError::failed)
        })
    }

    fn end(&self, upload: UploadId) -> BoxFuture<'_, ()> {
        Box::pin(self.end_upload(upload))
    }
}
