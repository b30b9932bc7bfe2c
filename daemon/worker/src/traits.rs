//! What a worker needs of the rest of the cluster: the coordinator, and the store.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use idunno_shared::client::cluster::{Cluster, ClusterError};
use idunno_shared::client::files::Files;
use idunno_shared::client::link::BoxFuture;
use idunno_shared::ids::UploadId;
use idunno_shared::names::DatasetName;
use idunno_shared::wire::blobs::PlacedBlob;
use idunno_shared::wire::jobs::{JobReply, JobRequest};
use thiserror::Error;
use tracing::warn;

use super::training_data;

/// Blobs of one call that are read at once.
const BLOBS_IN_FLIGHT: usize = 64;

/// The coordinator, whoever that is.
pub trait CoordinatorClient: Send + Sync {
    /// Asks it, following it when it moves, until some deadline.
    fn ask(&self, request: JobRequest) -> BoxFuture<'_, Result<JobReply, ClusterError>>;
}

impl CoordinatorClient for Cluster {
    fn ask(&self, request: JobRequest) -> BoxFuture<'_, Result<JobReply, ClusterError>> {
        Box::pin(self.jobs(request))
    }
}

/// The store did not do it: why.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// The bytes of a blob.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// They, verified.
    pub bytes: Bytes,
    /// Whether they came from the member's own disk, without a connection.
    pub is_local: bool,
}

/// The file store.
pub trait FileStore: Send + Sync {
    /// Reads blobs, verified, the local holder first; answers in the order asked.
    fn fetch<'a>(&'a self, blobs: &'a [PlacedBlob]) -> BoxFuture<'a, Vec<Result<Fetched, StoreError>>>;

    /// Stores blobs durably under a new upload; nothing refers to them yet.
    fn store(&self, blobs: Vec<Bytes>) -> BoxFuture<'_, Result<(UploadId, Vec<PlacedBlob>), StoreError>>;

    /// Brings a data set into a folder of this machine, which is emptied first. Returns the path to train from.
    fn training_data<'a>(
        &'a self,
        dataset: &'a DatasetName,
        folder: &'a Path,
    ) -> BoxFuture<'a, Result<PathBuf, StoreError>>;

    /// Ends an upload: what of it was not committed may be collected. Its failure is no failure.
    fn end(&self, upload: UploadId) -> BoxFuture<'_, ()>;
}

impl FileStore for Files {
    fn fetch<'a>(&'a self, blobs: &'a [PlacedBlob]) -> BoxFuture<'a, Vec<Result<Fetched, StoreError>>> {
        // Each future owns what it reads: the compiler cannot see that a borrowing one may change threads.
        let fetch = move |blob: PlacedBlob| async move {
            let fetched = self.fetch_blob(&blob).await;
            let fetched = fetched.map(|bytes| Fetched { bytes, is_local: false });
            fetched.map_err(|error| StoreError(error.to_string()))
        };
        Box::pin(stream::iter(blobs.to_vec()).map(fetch).buffered(BLOBS_IN_FLIGHT).collect())
    }

    fn store(&self, blobs: Vec<Bytes>) -> BoxFuture<'_, Result<(UploadId, Vec<PlacedBlob>), StoreError>> {
        Box::pin(async move {
            let stored = self.store_blobs(blobs).await.map_err(|error| StoreError(error.to_string()))?;
            let copies = stored.blobs.iter().map(|placed| placed.holders.len()).min().unwrap_or(0);
            if copies < stored.copies_wanted as usize {
                warn!(
                    copies,
                    wanted = stored.copies_wanted,
                    "stored with fewer copies: repair makes the others"
                );
            }
            Ok((stored.upload, stored.blobs))
        })
    }

    fn training_data<'a>(
        &'a self,
        dataset: &'a DatasetName,
        folder: &'a Path,
    ) -> BoxFuture<'a, Result<PathBuf, StoreError>> {
        Box::pin(async move {
            let fetched = training_data::fetch(self, dataset, folder, u64::MAX).await;
            fetched.map_err(|error| StoreError(error.to_string()))
        })
    }

    fn end(&self, upload: UploadId) -> BoxFuture<'_, ()> {
        Box::pin(self.end_upload(upload))
    }
}
