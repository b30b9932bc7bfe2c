//! The file store as seen by the member's own worker: blobs on the member's disk are read directly, without a connection.
//!
//! A blob that the disk cannot return, for whatever reason, is fetched from its other holders; a damaged one has been
//! quarantined by then.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use idunno_shared::client::files::Files;
use idunno_shared::client::link::BoxFuture;
use idunno_shared::ids::{Digest, JobId, UploadId};
use idunno_shared::names::DatasetName;
use idunno_shared::wire::blobs::PlacedBlob;
use idunno_shared::wire::control::SegmentView;
use tokio::task::spawn_blocking;

use idunno_store::blobs::BlobStore;
use idunno_worker::training_data;
use idunno_worker::traits::{DurableUpload, FetchedBytes, FileStore, FileStoreError};

/// The cluster's files, with a shortcut to one of its disks.
pub struct LocalStore {
    disk: BlobStore,
    files: Files,
}

impl LocalStore {
    /// `disk` is the member's own.
    pub fn new(disk: BlobStore, files: Files) -> Self {
        Self { disk, files }
    }

    /// Reads the blobs that the disk holds.
    async fn read(&self, blobs: &[PlacedBlob]) -> BTreeMap<Digest, Bytes> {
        let digests = blobs.iter().map(|placed| placed.blob.digest);
        let held: Vec<Digest> = digests.filter(|digest| self.disk.contains(*digest)).collect();
        if held.is_empty() {
            return BTreeMap::new();
        }
        let disk = self.disk.clone();
        let read =
            move || held.into_iter().filter_map(|digest| Some((digest, disk.read(digest).ok()?))).collect();
        spawn_blocking(read).await.unwrap_or_default()
    }
}

impl FileStore for LocalStore {
    fn fetch<'a>(
        &'a self,
        blobs: &'a [PlacedBlob],
    ) -> BoxFuture<'a, Vec<Result<FetchedBytes, FileStoreError>>> {
        Box::pin(async move {
            let local = self.read(blobs).await;
            let missing: Vec<PlacedBlob> =
                blobs.iter().filter(|placed| !local.contains_key(&placed.blob.digest)).cloned().collect();
            let mut fetched = FileStore::fetch(&self.files, &missing).await.into_iter();
            let one = |placed: &PlacedBlob| match local.get(&placed.blob.digest) {
                Some(bytes) => Ok(FetchedBytes { bytes: bytes.clone(), is_local: true }),
                None => fetched.next().unwrap_or(Err(FileStoreError::NoBlob)),
            };
            blobs.iter().map(one).collect()
        })
    }

    fn fetch_file<'a>(
        &'a self,
        blobs: &'a [PlacedBlob],
        target: &'a Path,
    ) -> BoxFuture<'a, Result<(), FileStoreError>> {
        FileStore::fetch_file(&self.files, blobs, target)
    }

    fn store(
        &self,
        upload: Option<UploadId>,
        blobs: Vec<Bytes>,
    ) -> BoxFuture<'_, Result<DurableUpload, FileStoreError>> {
        FileStore::store(&self.files, upload, blobs)
    }

    fn training_data<'a>(
        &'a self,
        dataset: &'a DatasetName,
        folder: &'a Path,
    ) -> BoxFuture<'a, Result<PathBuf, FileStoreError>> {
        Box::pin(async move {
            let disk = self.disk.clone();
            let free_bytes = spawn_blocking(move || disk.usable_bytes()).await.unwrap_or_default();
            let fetched = training_data::fetch(&self.files, dataset, folder, free_bytes).await;
            fetched.map_err(FileStoreError::failed)
        })
    }

    fn segments(&self, job: JobId) -> BoxFuture<'_, Result<Vec<SegmentView>, FileStoreError>> {
        FileStore::segments(&self.files, job)
    }

    fn end(&self, upload: UploadId) -> BoxFuture<'_, ()> {
        FileStore::end(&self.files, upload)
    }
}
