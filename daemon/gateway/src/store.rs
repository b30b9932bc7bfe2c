//! The store, as one program may use it: what the gateway's doors ask of the cluster's control requests.

use bytes::Bytes;
use futures_util::stream::{StreamExt, TryStreamExt, iter};
use idunno_shared::client::cluster::ClusterError;
use idunno_shared::client::files::Files;
use idunno_shared::ids::{Digest, NodeId, UploadId};
use idunno_shared::names::FileName;
use idunno_shared::wire::blobs::{BlobRef, PlacedBlob};
use idunno_shared::wire::control::{
    Attributes, Change, Changed, ControlReply, ControlRequest, Expected, FileSummary, FileVersion,
    FolderEntry, NewFile, VERSIONS_KEPT,
};
use s3s::S3Result;

use crate::errors::{of_cluster, of_put, unexpected};

/// Names in one request for locations.
const LOCATE_NAMES_MAX: usize = 256;
/// Names in one deletion.
const DELETE_NAMES_MAX: usize = 1_000;
/// Requests that are under way at once for one request of a program.
const REQUESTS_IN_FLIGHT: usize = 4;

/// A version that is to be committed.
pub struct NewVersion {
    /// The upload under which its bytes were stored, or any that is open if they belong to other files.
    pub upload: UploadId,
    /// The version.
    pub file: NewFile,
    /// What is kept with it.
    pub attributes: Attributes,
    /// What must be the newest version before.
    pub expected: Option<Expected>,
    /// Whether its extents are those of other files.
    pub borrows: bool,
}

/// The store as one program may use it.
#[derive(Clone)]
pub struct Store {
    /// The cluster's files.
    pub files: Files,
}

/// Extents as commits carry them.
pub fn unplaced(extents: &[PlacedBlob]) -> Vec<(BlobRef, Vec<NodeId>)> {
    let nodes = |placed: &PlacedBlob| placed.holders.iter().map(|holder| holder.node).collect();
    extents.iter().map(|placed| (placed.blob, nodes(placed))).collect()
}

impl Store {
    async fn ask(&self, request: ControlRequest) -> S3Result<ControlReply> {
        self.files.cluster().control(request).await.map_err(of_cluster)
    }

    /// A version of a file, the newest if none is named.
    pub async fn locate(&self, name: &FileName, version: Option<u64>) -> S3Result<Option<FileVersion>> {
        Ok(self.locate_at_once(vec![name.clone()], version).await?.pop().flatten())
    }

    async fn locate_at_once(
        &self,
        names: Vec<FileName>,
        version: Option<u64>,
    ) -> S3Result<Vec<Option<FileVersion>>> {
        match self.ask(ControlRequest::Locate { names, version }).await? {
            ControlReply::Located(versions) => Ok(versions),
            _ => Err(unexpected()),
        }
    }

    /// The newest versions of many files, in their order.
    pub async fn locate_all(&self, names: &[FileName]) -> S3Result<Vec<Option<FileVersion>>> {
        let parts: Vec<_> =
            names.chunks(LOCATE_NAMES_MAX).map(|part| self.locate_at_once(part.to_vec(), None)).collect();
        let parts: Vec<Vec<_>> = iter(parts).buffered(REQUESTS_IN_FLIGHT).try_collect().await?;
        Ok(parts.into_iter().flatten().collect())
    }

    /// The versions of a file that are kept, newest first; none if there is no such file.
    pub async fn versions(&self, name: &FileName) -> S3Result<Vec<FileVersion>> {
        let limit = u32::try_from(VERSIONS_KEPT).unwrap_or(u32::MAX);
        match self.files.cluster().control(ControlRequest::Versions { name: name.clone(), limit }).await {
            Ok(ControlReply::Versions(versions)) => Ok(versions),
            Ok(_) => Err(unexpected()),
            Err(ClusterError::Refused(refusal))
                if refusal.code == idunno_shared::wire::refusal::RefusalCode::NotFound =>
            {
                Ok(Vec::new())
            }
            Err(failed) => Err(of_cluster(failed)),
        }
    }

    /// A page of files whose names start with `prefix`, and whether more follow.
    pub async fn list(
        &self,
        prefix: &str,
        after: Option<FileName>,
        limit: u32,
    ) -> S3Result<(Vec<FileSummary>, bool)> {
        match self.ask(ControlRequest::List { prefix: prefix.to_owned(), after, limit }).await? {
            ControlReply::Files { files, more } => Ok((files, more)),
            _ => Err(unexpected()),
        }
    }

    /// All files whose names start with `prefix`, at most `limit`.
    pub async fn list_all(&self, prefix: &str, limit: usize) -> S3Result<Vec<FileSummary>> {
        let mut all: Vec<FileSummary> = Vec::new();
        loop {
            let after = all.last().map(|last| last.name.clone());
            let (files, more) = self.list(prefix, after, 1_024).await?;
            let is_last = !more || files.is_empty();
            all.extend(files);
            if is_last || all.len() >= limit {
                all.truncate(limit);
                return Ok(all);
            }
        }
    }

    /// The names of the store's top level that are folders, without their slash.
    pub async fn top_folders(&self) -> S3Result<Vec<String>> {
        let (mut names, mut after) = (Vec::new(), None);
        loop {
            let request = ControlRequest::Folder { prefix: String::new(), after: after.take(), limit: 1_024 };
            let ControlReply::Folder { entries, more } = self.ask(request).await? else {
                return Err(unexpected());
            };
            names.extend(entries.iter().filter_map(|entry| match entry {
                FolderEntry::Folder(name) => Some(name.trim_end_matches('/').to_owned()),
                FolderEntry::File(_) => None,
            }));
            match entries.into_iter().next_back() {
                Some(last) if more => after = Some(last),
                _ => return Ok(names),
            }
        }
    }

    /// Opens an upload, or keeps one open.
    pub async fn keep_upload(&self, upload: Option<UploadId>) -> S3Result<UploadId> {
        match self.ask(ControlRequest::Plan { upload, blobs: Vec::new(), exclude: Vec::new() }).await? {
            ControlReply::Planned { upload, .. } => Ok(upload),
            _ => Err(unexpected()),
        }
    }

    /// Commits a version and ends its upload. Answers its number.
    pub async fn commit(&self, version: NewVersion) -> S3Result<u64> {
        let NewVersion { upload, file, attributes, expected, borrows } = version;
        let change = Change::CommitFile { upload, file, attributes, expected, borrows };
        let changed = self.files.cluster().change(change).await;
        let files = self.files.clone();
        // It only hastens the collection of what was not committed.
        tokio::spawn(async move { files.end_upload(upload).await });
        match changed.map_err(of_cluster)? {
            Changed::Files(versions) => versions.first().map(|(number, _)| *number).ok_or_else(unexpected),
            _ => Err(unexpected()),
        }
    }

    /// Commits an empty file, which keeps attributes only.
    pub async fn commit_record(
        &self,
        name: FileName,
        attributes: Attributes,
        expected: Option<Expected>,
    ) -> S3Result<()> {
        let upload = self.keep_upload(None).await?;
        let file = NewFile { name, size: 0, digest: Digest::of(&[]), extents: Vec::new() };
        self.commit(NewVersion { upload, file, attributes, expected, borrows: false }).await.map(drop)
    }

    /// Commits a small file.
    pub async fn commit_bytes(
        &self,
        name: FileName,
        bytes: Bytes,
        expected: Option<Expected>,
    ) -> S3Result<()> {
        let (size, digest) = (bytes.len() as u64, Digest::of(&bytes));
        let stored = self.files.store_blobs(vec![bytes]).await.map_err(of_put)?;
        let file = NewFile { name, size, digest, extents: unplaced(&stored.blobs) };
        let attributes = Attributes::new();
        let version = NewVersion { upload: stored.upload, file, attributes, expected, borrows: false };
        self.commit(version).await.map(drop)
    }

    /// Deletes files; those that do not exist are left out.
    pub async fn delete(&self, names: &[FileName]) -> S3Result<()> {
        for part in names.chunks(DELETE_NAMES_MAX) {
            let change = Change::DeleteFiles { names: part.to_vec() };
            self.files.cluster().change(change).await.map_err(of_cluster)?;
        }
        Ok(())
    }
}
