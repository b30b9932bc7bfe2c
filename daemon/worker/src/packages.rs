//! The packages of models on this member's disk, each fetched once from the file store.
//!
//! A package is in the folder of its version, complete and verified, or not there: it is fetched aside, flushed and renamed.
//! The model server reads it there. So a version that was fetched before a restart is not fetched again.
//!
//! ```text
//! packages/VERSION/manifest.json       whose digest is VERSION
//! packages/VERSION/files/...           what the manifest lists
//! packages/VERSION.part/               being fetched; what is complete of it is kept for this process' next try
//! ```
//!
//! Bounds: [`FILES_IN_FLIGHT`] files are fetched at once, with a few MiB of each in memory; the space that the disk has free
//! beyond its reserve.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use idunno_shared::ids::Digest;
use idunno_shared::package::{MANIFEST_BYTES_MAX, Manifest, PackageError, PackageFile};
use idunno_shared::wire::blobs::PlacedBlob;
use idunno_shared::wire::jobs::ModelArtefact;
use thiserror::Error;
use tokio::fs;
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{info, warn};

use super::model_files::ModelFiles;
use super::traits::{FileStore, FileStoreError};

/// Files of a package that are fetched at once.
const FILES_IN_FLIGHT: usize = 4;
/// How long a package that is not loaded stays on the disk after its last use.
pub const KEPT_UNUSED: Duration = Duration::from_secs(600);
/// The folder of the packages among the files for the model server.
pub const FOLDER: &str = "packages";
const MANIFEST: &str = "manifest.json";
const FILES: &str = "files";
const INCOMING: &str = "incoming";

/// A package was not fetched.
#[derive(Debug, Error)]
pub enum FetchPackageError {
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot fetch '{file}' of the package: {source}")]
    Fetch { file: String, source: FileStoreError },
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error("the fetched bytes of '{file}' do not have the digest in the package's manifest")]
    Digest { file: String },
    #[error("the package has {bytes} bytes, but this member's disk has only {free_bytes} free")]
    TooLarge { bytes: u64, free_bytes: u64 },
}

/// When a version was used last. Held while its folder is made or deleted.
type Version = Arc<AsyncMutex<Option<Instant>>>;

/// The packages on this member's disk. Cheap to clone.
#[derive(Clone)]
pub struct Packages {
    folder: PathBuf,
    files: ModelFiles,
    store: Arc<dyn FileStore>,
    free_bytes: Arc<dyn Fn() -> u64 + Send + Sync>,
    versions: Arc<Mutex<BTreeMap<Digest, Version>>>,
}

impl Packages {
    /// The packages among the files for the model server. `free_bytes` says what the disk has free beyond its reserve.
    pub fn new(
        files: ModelFiles,
        store: Arc<dyn FileStore>,
        free_bytes: Arc<dyn Fn() -> u64 + Send + Sync>,
    ) -> Self {
        Self { folder: files.packages(), files, store, free_bytes, versions: Arc::default() }
    }

    fn version(&self, version: Digest) -> Version {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(versions.entry(version).or_default())
    }

    /// Fetches a package, unless it is there.
    pub async fn fetch(&self, artefact: &ModelArtefact) -> Result<(), FetchPackageError> {
        let version = self.version(artefact.version);
        let mut used = version.lock().await;
        let is_first = used.replace(Instant::now()).is_none();
        let place = self.folder.join(artefact.version.to_string());
        if fs::metadata(&place).await.is_ok() {
            return Ok(());
        }
        let started = Instant::now();
        let aside = self.folder.join(format!("{}.part", artefact.version));
        if is_first {
            // What an earlier process left may lack what was not flushed.
            let _ = fs::remove_dir_all(&aside).await;
        }
        self.fetch_aside(artefact, &aside).await?;
        self.files.share(&aside).await.map_err(io_error("change the modes in", &aside))?;
        flush(&aside).await?;
        fs::rename(&aside, &place).await.map_err(io_error("rename", &aside))?;
        *used = Some(Instant::now());
        info!(model = %artefact.model, version = %artefact.version, took = ?started.elapsed(), "fetched a package");
        Ok(())
    }

    /// The manifest of a package that was fetched.
    pub async fn manifest(&self, version: Digest) -> Result<Manifest, FetchPackageError> {
        let path = self.folder.join(version.to_string()).join(MANIFEST);
        let bytes = fs::read(&path).await.map_err(io_error("read", &path))?;
        Ok(Manifest::from_bytes(&bytes)?)
    }

    async fn fetch_aside(&self, artefact: &ModelArtefact, aside: &Path) -> Result<(), FetchPackageError> {
        let mut extents = artefact.extents.clone();
        let rest = extents.split_off(extents.len().min(1));
        let (folder, path) = (aside.join(FILES), aside.join(MANIFEST));
        fs::create_dir_all(&folder).await.map_err(io_error("create", &folder))?;
        let manifest = self.fetch_manifest(artefact.version, &extents, &path).await?;
        let files = manifest.with_extents(rest)?;
        let mut missing = Vec::new();
        for (file, extents) in files {
            let target = folder.join(file.path.as_str());
            if fs::metadata(&target).await.is_err() {
                missing.push((file, extents, target));
            }
        }
        let bytes = missing.iter().map(|(file, ..)| file.size).fold(0, u64::saturating_add);
        let free = Arc::clone(&self.free_bytes);
        let free_bytes = spawn_blocking(move || free()).await.unwrap_or_default();
        if bytes > free_bytes {
            return Err(FetchPackageError::TooLarge { bytes, free_bytes });
        }
        let folders: BTreeSet<&Path> = missing.iter().filter_map(|(_, _, target)| target.parent()).collect();
        for folder in folders {
            fs::create_dir_all(folder).await.map_err(io_error("create", folder))?;
        }
        let incoming = aside.join(INCOMING);
        fs::create_dir_all(&incoming).await.map_err(io_error("create", &incoming))?;
        // Made first, not within the stream: a closure there is not general enough for a future that is Send.
        let fetches: Vec<_> = missing
            .iter()
            .enumerate()
            .map(|(number, (file, extents, target))| {
                self.fetch_file(file, extents, incoming.join(number.to_string()), target)
            })
            .collect();
        let mut fetches = stream::iter(fetches).buffer_unordered(FILES_IN_FLIGHT);
        while let Some(fetched) = fetches.next().await {
            fetched?;
        }
        fs::remove_dir_all(&incoming).await.map_err(io_error("delete", &incoming))
    }

    async fn fetch_manifest(
        &self,
        version: Digest,
        extents: &[PlacedBlob],
        path: &Path,
    ) -> Result<Manifest, FetchPackageError> {
        let file = || String::from(MANIFEST);
        let is_manifest =
            |placed: &PlacedBlob| placed.blob.digest == version && placed.blob.size <= MANIFEST_BYTES_MAX;
        if !extents.first().is_some_and(is_manifest) {
            return Err(FetchPackageError::Digest { file: file() });
        }
        let fetched = self.store.fetch_file(extents, path).await;
        fetched.map_err(|source| FetchPackageError::Fetch { file: file(), source })?;
        let bytes = fs::read(path).await.map_err(io_error("read", path))?;
        Ok(Manifest::from_bytes(&bytes)?)
    }

    /// Fetches one file aside, and puts it in its place once it is found to be what the manifest says.
    async fn fetch_file(
        &self,
        file: &PackageFile,
        extents: &[PlacedBlob],
        aside: PathBuf,
        target: &Path,
    ) -> Result<(), FetchPackageError> {
        let fetched = self.store.fetch_file(extents, &aside).await;
        fetched.map_err(|source| FetchPackageError::Fetch { file: file.path.to_string(), source })?;
        // A blob was verified when it was fetched, and the digest of the only one is the file's.
        if extents.len() != 1 && digest(&aside).await? != file.digest {
            return Err(FetchPackageError::Digest { file: file.path.to_string() });
        }
        let mode = Permissions::from_mode(if file.executable { 0o500 } else { 0o400 });
        fs::set_permissions(&aside, mode).await.map_err(io_error("change the mode of", &aside))?;
        fs::rename(&aside, target).await.map_err(io_error("rename", &aside))
    }

    /// Deletes a package that no longer serves.
    pub async fn evict(&self, version: Digest) {
        let held = self.version(version);
        let _held = held.lock().await;
        self.delete(version).await;
    }

    /// Deletes the packages that are not among those in use, and were not used lately.
    pub async fn evict_unused(&self, in_use: &BTreeSet<Digest>, kept: Duration) {
        let Ok(mut folder) = fs::read_dir(&self.folder).await else { return };
        while let Ok(Some(entry)) = folder.next_entry().await {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(version) = name.trim_end_matches(".part").parse::<Digest>() else { continue };
            if in_use.contains(&version) {
                continue;
            }
            let held = self.version(version);
            // One that is held is being fetched or deleted. Of those that an earlier process left the use begins now.
            let Ok(mut used) = held.try_lock() else { continue };
            if used.get_or_insert_with(Instant::now).elapsed() >= kept {
                self.delete(version).await;
            }
        }
    }

    /// The version is held meanwhile.
    async fn delete(&self, version: Digest) {
        for folder in [version.to_string(), format!("{version}.part")] {
            let folder = self.folder.join(folder);
            match fs::remove_dir_all(&folder).await {
                Ok(()) => info!(%version, "deleted a package that is not used any more"),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => warn!(%error, folder = %folder.display(), "cannot delete a package"),
            }
        }
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        // One more than the table's is the caller's: if there is another, it waits to fetch or delete the package.
        if versions.get(&version).is_some_and(|held| Arc::strong_count(held) <= 2) {
            versions.remove(&version);
        }
    }
}

/// Makes everything in a folder durable, so that what has its final name after a power cut is whole.
async fn flush(folder: &Path) -> Result<(), FetchPackageError> {
    let path = folder.to_owned();
    let flush = move || std::fs::File::open(path).and_then(|opened| Ok(rustix::fs::syncfs(opened)?));
    let flushed = spawn_blocking(flush).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    flushed.map_err(io_error("flush", folder))
}

async fn digest(path: &Path) -> Result<Digest, FetchPackageError> {
    let opened = path.to_owned();
    let read = move || {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(std::fs::File::open(opened)?)?;
        io::Result::Ok(Digest(*hasher.finalize().as_bytes()))
    };
    let read = spawn_blocking(read).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    read.map_err(io_error("read", path))
}

fn io_error(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> FetchPackageError {
    move |source| FetchPackageError::Io { doing, path: path.to_owned(), source }
}
