//! Packages: fetched once, whole or not at all, and deleted when they no longer serve.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use idunno_shared::ids::Digest;
use idunno_shared::package::{FORMAT, Manifest, PackageFile};
use idunno_shared::wire::blobs::{EXTENT_BYTES_MAX, PlacedBlob};
use idunno_shared::wire::jobs::{ModelArtefact, ModelState, Training};

use super::super::model_files::ModelFiles;
use super::super::packages::{FetchPackageError, Packages};
use super::super::testing::memory_store::MemoryStore;
use super::{Harness, committed};

const FILES: [(&str, &[u8]); 3] =
    [("data/words.txt", b"some words"), ("empty", b""), ("model.py", b"class Model: pass")];

fn manifest(files: &[(&str, &[u8])]) -> Manifest {
    let file = |(path, bytes): &(&str, &[u8])| PackageFile {
        path: path.parse().unwrap(),
        size: bytes.len() as u64,
        digest: Digest::of(bytes),
        executable: *path == "model.py",
    };
    Manifest {
        format: FORMAT,
        runtime: "python".into(),
        entry: "model.py".parse().unwrap(),
        settings: serde_json::Map::new(),
        files: files.iter().map(file).collect(),
    }
}

/// Stores a package. A file of more than an extent is several blobs.
fn stored(store: &MemoryStore, files: &[(&str, &[u8])], manifest: &Manifest) -> ModelArtefact {
    let manifest = store.add(&manifest.to_bytes().unwrap());
    let version = manifest.blob.digest;
    let size = usize::try_from(EXTENT_BYTES_MAX).unwrap();
    let extents = files.iter().flat_map(|(_, bytes)| bytes.chunks(size)).map(|bytes| store.add(bytes));
    let extents: Vec<PlacedBlob> = [manifest].into_iter().chain(extents).collect();
    ModelArtefact { model: "m".parse().unwrap(), version, extents, is_package: true }
}

fn packages(folder: &Path, store: &Arc<MemoryStore>, free_bytes: u64) -> Packages {
    let files = ModelFiles::in_data_dir(folder);
    Packages::new(files, Arc::clone(store) as _, Arc::new(move || free_bytes))
}

fn folders(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder.join("packages")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_package_is_fetched_whole_and_once() {
    let (folder, store) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::default()));
    let artefact = stored(&store, &FILES, &manifest(&FILES));
    let packages = packages(folder.path(), &store, 1 << 20);
    let (first, second) = tokio::join!(packages.fetch(&artefact), packages.fetch(&artefact));
    first.unwrap();
    second.unwrap();
    let place = folder.path().join("packages").join(artefact.version.to_string());
    for (path, bytes) in FILES {
        let path = place.join("files").join(path);
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if path.ends_with("model.py") { 0o500 } else { 0o400 });
    }
    assert_eq!(folders(folder.path()), [artefact.version.to_string()], "nothing else is left");
    // Its holders are not asked again, not even by another process.
    for placed in &artefact.extents {
        store.silence(placed.blob.digest);
    }
    self::packages(folder.path(), &store, 0).fetch(&artefact).await.unwrap();
}

#[tokio::test]
async fn a_large_file_is_put_together_and_its_digest_is_checked() {
    let (folder, store) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::default()));
    let large = vec![7; usize::try_from(EXTENT_BYTES_MAX).unwrap() + 5];
    let files: [(&str, &[u8]); 2] = [("model.py", b"x"), ("weights", &large)];
    let artefact = stored(&store, &files, &manifest(&files));
    let packages = packages(folder.path(), &store, u64::MAX);
    packages.fetch(&artefact).await.unwrap();
    let place = folder.path().join("packages").join(artefact.version.to_string());
    assert_eq!(std::fs::metadata(place.join("files/weights")).unwrap().len(), large.len() as u64);

    let mut wrong = manifest(&files);
    wrong.files[1].digest = Digest::of(b"other weights");
    let wrong = stored(&store, &files, &wrong);
    let error = packages.fetch(&wrong).await.unwrap_err();
    assert!(matches!(&error, FetchPackageError::Digest { file } if file == "weights"), "{error}");
    assert!(!folder.path().join("packages").join(wrong.version.to_string()).exists());
}

#[tokio::test]
async fn what_cannot_be_fetched_leaves_no_package_and_is_continued() {
    let (folder, store) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::default()));
    let mut artefact = stored(&store, &FILES, &manifest(&FILES));
    let packages = packages(folder.path(), &store, 1 << 20);
    let other = artefact.extents[1].clone();
    let good = std::mem::replace(&mut artefact.extents[2], other);
    let error = packages.fetch(&artefact).await.unwrap_err().to_string();
    assert!(error.contains("model.py"), "{error}");
    artefact.extents[2] = good;
    let small = self::packages(folder.path(), &store, 5);
    let error = small.fetch(&artefact).await.unwrap_err().to_string();
    assert!(error.contains("27 bytes") && error.contains("only 5 free"), "{error}");
    packages.fetch(&artefact).await.unwrap();
    assert_eq!(folders(folder.path()), [artefact.version.to_string()]);
}

#[tokio::test(start_paused = true)]
async fn packages_that_are_not_loaded_are_deleted_after_a_while() {
    let (folder, store) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::default()));
    let artefact = stored(&store, &FILES, &manifest(&FILES));
    let (packages, kept) = (packages(folder.path(), &store, 1 << 20), Duration::from_secs(10));
    packages.fetch(&artefact).await.unwrap();
    let loaded = BTreeSet::from([artefact.version]);
    tokio::time::advance(kept).await;
    packages.evict_unused(&loaded, kept).await;
    assert_eq!(folders(folder.path()).len(), 1, "it is loaded");
    packages.fetch(&artefact).await.unwrap();
    packages.evict_unused(&BTreeSet::new(), kept).await;
    assert_eq!(folders(folder.path()).len(), 1, "it was just used");
    tokio::time::advance(kept).await;
    packages.evict_unused(&BTreeSet::new(), kept).await;
    assert!(folders(folder.path()).is_empty());
    packages.fetch(&artefact).await.unwrap();
    packages.evict(artefact.version).await;
    assert!(folders(folder.path()).is_empty());
}

#[tokio::test]
async fn versions_are_loaded_beside_each_other_and_unloaded_when_they_no_longer_serve() {
    let harness = Harness::new().await;
    let package = stored(&harness.store, &FILES, &manifest(&FILES));
    let version = package.version;
    harness.coordinator.set(|state| state.load.push(package));
    let reported = |wanted: &[Digest]| {
        let wanted: Vec<ModelState> = wanted.iter().copied().map(ModelState::Ready).collect();
        move |state: &super::CoordinatorState| {
            let last = state.reports.last().map(|report| report.models.clone()).unwrap_or_default();
            last.into_iter().map(|(_, state)| state).eq(wanted.iter().cloned())
        }
    };
    let old = Digest::of(super::WEIGHTS);
    harness.until("both are loaded", reported(&[old, version])).await;
    assert_eq!(folders(harness.folder()), [version.to_string()]);
    let grant = harness.grant(0, &["x"]);
    harness.coordinator.set(|state| state.grants.push_back(grant));
    harness.until("the older one answers", |state| committed(state) == 1).await;
    assert!(harness.server.calls(&format!("/versions/{old}/infer")) > 0);

    harness.coordinator.set(|state| {
        state.load.retain(|artefact| artefact.version != version);
        state.unload.push(("m".parse().unwrap(), version));
    });
    harness.until("it is unloaded", reported(&[old])).await;
    harness.until_called("/unload", 1).await;
    let gone = async {
        while !folders(harness.folder()).is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("its package is deleted");
    harness.stop().await;
}

#[tokio::test]
async fn a_package_is_trained_by_its_own_class_and_becomes_another_package() {
    let harness = Harness::new().await;
    let package = stored(&harness.store, &FILES, &manifest(&FILES));
    harness.coordinator.set(|state| {
        state.train_packages.push(package.clone());
        state.train.push((package.model.clone(), Training { seed: 7, ..Training::default() }));
    });
    harness.until("it is reported", |state| state.trained.len() == 1).await;
    let ordered = harness.server.set(|state| state.trained_packages.clone());
    assert_eq!(ordered, [Some(package.version.to_string())]);
    let (_, trained) = harness.coordinator.state().trained[0].1.clone().unwrap();
    assert!(trained.is_package && trained.version != package.version);
    assert_eq!(trained.extents[0].blob.digest, trained.version, "the manifest comes first");
    let made = Manifest::from_bytes(&harness.store.read(&trained.version).unwrap()).unwrap();
    let files = made.with_extents(trained.extents[1..].to_vec()).unwrap();
    let paths: Vec<&str> = files.iter().map(|(file, _)| file.path.as_str()).collect();
    assert_eq!(paths, [".trained/weights.npz", "data/words.txt", "empty", "model.py"]);
    assert_eq!(made.settings["artefact"], ".trained/weights.npz");
    assert_eq!(harness.store.read(&trained.extents[1].blob.digest).unwrap(), &b"weights"[..]);
    harness.stop().await;
}
