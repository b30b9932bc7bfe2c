//! A file store in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bytes::Bytes;
use idunno_shared::client::link::BoxFuture;
use idunno_shared::client::results::segment;
use idunno_shared::ids::{Digest, JobId, Term, UploadId};
use idunno_shared::names::DatasetName;
use idunno_shared::wire::blobs::{BlobRef, PlacedBlob};
use idunno_shared::wire::control::SegmentView;
use idunno_shared::wire::jobs::QueryRange;

use super::super::traits::{DurableUpload, FetchedBytes, FileStore, FileStoreError};

#[derive(Default)]
pub(in super::super) struct MemoryStore {
    inner: Mutex<MemoryStoreState>,
}

#[derive(Default)]
struct MemoryStoreState {
    /// Blobs whose holders do not answer.
    silent: BTreeSet<Digest>,
    blobs: BTreeMap<Digest, Bytes>,
    uploads: u64,
    /// Whether the next use of an upload finds it ended.
    ends_uploads: bool,
    ended: BTreeSet<UploadId>,
    results: BTreeMap<JobId, Vec<SegmentView>>,
}

impl MemoryStore {
    pub(in super::super) fn add(&self, bytes: &[u8]) -> PlacedBlob {
        let digest = Digest::of(bytes);
        self.inner.lock().unwrap().blobs.insert(digest, Bytes::copy_from_slice(bytes));
        PlacedBlob { blob: BlobRef { digest, size: bytes.len() as u64 }, holders: Vec::new() }
    }

    /// From now on the holders of a blob do not answer.
    pub(in super::super) fn silence(&self, digest: Digest) {
        self.inner.lock().unwrap().silent.insert(digest);
    }

    /// The next use of an upload finds it ended.
    pub(in super::super) fn end_an_upload(&self) {
        self.inner.lock().unwrap().ends_uploads = true;
    }

    /// Adds a segment to the results of a job: rows, of which those of the queries `ranges` count.
    pub(in super::super) fn add_results(&self, job: JobId, rows: &[u8], ranges: Vec<QueryRange>) -> Digest {
        let segment = self.add(&segment::pack(&[rows.to_vec()]));
        let digest = segment.blob.digest;
        self.inner.lock().unwrap().results.entry(job).or_default().push(SegmentView { segment, ranges });
        digest
    }

    /// Loses a blob.
    pub(in super::super) fn lose(&self, digest: &Digest) {
        self.inner.lock().unwrap().blobs.remove(digest);
    }

    /// Whether nobody else holds the bytes of a blob.
    pub(in super::super) fn is_unique(&self, digest: &Digest) -> bool {
        self.inner.lock().unwrap().blobs[digest].is_unique()
    }

    pub(in super::super) fn read(&self, digest: &Digest) -> Option<Bytes> {
        self.inner.lock().unwrap().blobs.get(digest).cloned()
    }

    pub(in super::super) fn ended(&self, upload: UploadId) -> bool {
        self.inner.lock().unwrap().ended.contains(&upload)
    }
}

impl FileStore for MemoryStore {
    fn fetch<'a>(
        &'a self,
        blobs: &'a [PlacedBlob],
    ) -> BoxFuture<'a, Vec<Result<FetchedBytes, FileStoreError>>> {
        let read = |placed: &PlacedBlob| {
            let bytes = self.read(&placed.blob.digest);
            let fetched = bytes.map(|bytes| FetchedBytes { bytes, is_local: true });
            fetched.ok_or_else(|| FileStoreError::Failed("no holder stores it".to_owned()))
        };
        Box::pin(async move {
            let silent =
                |placed: &PlacedBlob| self.inner.lock().unwrap().silent.contains(&placed.blob.digest);
            if blobs.iter().any(silent) {
                std::future::pending::<()>().await;
            }
            blobs.iter().map(read).collect()
        })
    }

    fn fetch_file<'a>(
        &'a self,
        blobs: &'a [PlacedBlob],
        target: &'a Path,
    ) -> BoxFuture<'a, Result<(), FileStoreError>> {
        Box::pin(async move {
            let mut whole = Vec::new();
            for fetched in self.fetch(blobs).await {
                whole.extend_from_slice(&fetched?.bytes);
            }
            std::fs::write(target, whole).map_err(FileStoreError::failed)
        })
    }

    fn store(
        &self,
        upload: Option<UploadId>,
        blobs: Vec<Bytes>,
    ) -> BoxFuture<'_, Result<DurableUpload, FileStoreError>> {
        Box::pin(async move {
            let mut inner = self.inner.lock().unwrap();
            if upload.is_some() && std::mem::take(&mut inner.ends_uploads) {
                return Err(FileStoreError::UploadEnded);
            }
            let upload = upload.unwrap_or_else(|| {
                inner.uploads += 1;
                UploadId { term: Term(1), number: inner.uploads }
            });
            drop(inner);
            Ok(DurableUpload { upload, blobs: blobs.iter().map(|blob| self.add(blob)).collect() })
        })
    }

    /// A dataset exists if there is a blob with its name as content.
    fn training_data<'a>(
        &'a self,
        dataset: &'a DatasetName,
        folder: &'a Path,
    ) -> BoxFuture<'a, Result<PathBuf, FileStoreError>> {
        Box::pin(async move {
            let known = self.read(&Digest::of(dataset.as_str().as_bytes())).is_some();
            known
                .then(|| folder.to_owned())
                .ok_or_else(|| FileStoreError::Failed(format!("no dataset '{dataset}'")))
        })
    }

    fn segments(&self, job: JobId) -> BoxFuture<'_, Result<Vec<SegmentView>, FileStoreError>> {
        let segments = self.inner.lock().unwrap().results.get(&job).cloned();
        Box::pin(async move { segments.ok_or_else(|| FileStoreError::Failed(format!("there is no {job}"))) })
    }

    fn end(&self, upload: UploadId) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.inner.lock().unwrap().ended.insert(upload);
        })
    }
}
