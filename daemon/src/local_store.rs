//! The store as a member's own worker has it: what is on the member's disk is read there, without a connection.
//!
//! A blob that the disk does not give, whatever the reason, is fetched from its other holders; one that is damaged has
//! been moved aside by then.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use idunno_shared::client::files::Files;
use idunno_shared::client::link::BoxFuture;
use idunno_shared::ids::{Digest, UploadId};
use idunno_shared::names::DatasetName;
use idunno_shared::wire::blobs::PlacedBlob;
use tokio::task::spawn_blocking;

use idunno_store::blobs::BlobStore;
use idunno_worker::training_data;
use idunno_worker::traits::{Fetched, FileStore, StoreError};

/// The files of the cluster, beside one of its disks.
pub struct LocalStore {
    disk: BlobStore,
    files: Files,
}

impl LocalStore {
    /// `disk` is the member's own.
    pub fn new(disk: BlobStore, files: Files) -> Self {
        Self { disk, files }
    }

    /// Those of the blobs that the disk gives.
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
    fn fetch<'a>(&'a self, blobs: &'a [PlacedBlob]) -> BoxFuture<'a, Vec<Result<Fetched, StoreError>>> {
        Box::pin(async move {
            let near = self.read(blobs).await;
            let far: Vec<PlacedBlob> =
                blobs.iter().filter(|placed| !near.contains_key(&placed.blob.digest)).cloned().collect();
            let mut far = FileStore::fetch(&self.files, &far).await.into_iter();
            let one = |placed: &PlacedBlob| match near.get(&placed.blob.digest) {
                Some(bytes) => Ok(Fetched { bytes: bytes.clone(), is_local: true }),
                None => far.next().unwrap_or_else(|| Err(StoreError("the store gave no blob".to_owned()))),
            };
            blobs.iter().map(one).collect()
        })
    }

    fn store(&self, blobs: Vec<Bytes>) -> BoxFuture<'_, Result<(UploadId, Vec<PlacedBlob>), StoreError>> {
        FileStore::store(&self.files, blobs)
    }

    fn training_data<'a>(
        &'a self,
        dataset: &'a DatasetName,
        folder: &'a Path,
    ) -> BoxFuture<'a, Result<PathBuf, StoreError>> {
        Box::pin(async move {
            let disk = self.disk.clone();
            let room_bytes = spawn_blocking(move || disk.usable_bytes()).await.unwrap_or_default();
            let fetched = training_data::fetch(&self.files, dataset, folder, room_bytes).await;
            fetched.map_err(|error| StoreError(error.to_string()))
        })
    }

    fn end(&self, upload: UploadId) -> BoxFuture<'_, ()> {
        FileStore::end(&self.files, upload)
    }
}
