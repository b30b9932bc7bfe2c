//! A store in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bytes::Bytes;
use idunno_shared::client::link::BoxFuture;
use idunno_shared::ids::{Digest, Term, UploadId};
use idunno_shared::names::DatasetName;
use idunno_shared::wire::blobs::{BlobRef, PlacedBlob};

use super::super::traits::{Fetched, FileStore, StoreError};

#[derive(Default)]
pub(in super::super) struct MemoryStore {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    blobs: BTreeMap<Digest, Bytes>,
    uploads: u64,
    ended: BTreeSet<UploadId>,
}

impl MemoryStore {
    pub(in super::super) fn add(&self, bytes: &[u8]) -> PlacedBlob {
        let digest = Digest::of(bytes);
        self.inner.lock().unwrap().blobs.insert(digest, Bytes::copy_from_slice(bytes));
        PlacedBlob { blob: BlobRef { digest, size: bytes.len() as u64 }, holders: Vec::new() }
    }

    pub(in super::super) fn read(&self, digest: &Digest) -> Option<Bytes> {
        self.inner.lock().unwrap().blobs.get(digest).cloned()
    }

    pub(in super::super) fn ended(&self, upload: UploadId) -> bool {
        self.inner.lock().unwrap().ended.contains(&upload)
    }
}

impl FileStore for MemoryStore {
    fn fetch<'a>(&'a self, blobs: &'a [PlacedBlob]) -> BoxFuture<'a, Vec<Result<Fetched, StoreError>>> {
        let read = |placed: &PlacedBlob| {
            let bytes = self.read(&placed.blob.digest);
            let fetched = bytes.map(|bytes| Fetched { bytes, is_local: true });
            fetched.ok_or_else(|| StoreError("no holder has it".to_owned()))
        };
        Box::pin(async move { blobs.iter().map(read).collect() })
    }

    fn store(&self, blobs: Vec<Bytes>) -> BoxFuture<'_, Result<(UploadId, Vec<PlacedBlob>), StoreError>> {
        Box::pin(async move {
            let placed = blobs.iter().map(|blob| self.add(blob)).collect();
            let mut inner = self.inner.lock().unwrap();
            inner.uploads += 1;
            Ok((UploadId { term: Term(1), number: inner.uploads }, placed))
        })
    }

    /// A data set is a blob whose digest is that of its name.
    fn training_data<'a>(
        &'a self,
        dataset: &'a DatasetName,
        folder: &'a Path,
    ) -> BoxFuture<'a, Result<PathBuf, StoreError>> {
        Box::pin(async move {
            let known = self.read(&Digest::of(dataset.as_str().as_bytes())).is_some();
            known.then(|| folder.to_owned()).ok_or_else(|| StoreError(format!("no data set '{dataset}'")))
        })
    }

    fn end(&self, upload: UploadId) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.inner.lock().unwrap().ended.insert(upload);
        })
    }
}
