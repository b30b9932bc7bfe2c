//! The package that a training makes of another: the same files, and beside them what the training wrote, which its settings
//! name as the artefact. So a trained version is loaded, kept, shown and removed like any other package.
//!
//! What an earlier training wrote is left out. Not here: storing the artefact and the manifest (`training.rs`).

use bytes::Bytes;
use idunno_shared::ids::Digest;
use idunno_shared::names::FileName;
use idunno_shared::package::{Manifest, PackageError, PackageFile};
use idunno_shared::wire::blobs::PlacedBlob;
use idunno_shared::wire::control::{PackageSummary, TrainedFrom};
use idunno_shared::wire::jobs::ModelArtefact;

/// The folder of the artefact in a package.
const FOLDER: &str = ".trained/";
/// The artefact's name if the model server does not say it.
const FILE: &str = "artefact";
/// The setting that names the artefact.
const SETTING: &str = "artefact";

/// The file that a training wrote.
#[derive(Clone, Debug)]
pub struct TrainedFile {
    pub digest: Digest,
    pub size: u64,
    /// Its name, if the model server says it.
    pub name: Option<FileName>,
}

/// See the module.
#[derive(Debug)]
pub struct PackageWithArtefact {
    /// The version of the package that was trained.
    base: Digest,
    manifest: Manifest,
    bytes: Bytes,
    /// The stored extents of each file but the artefact, in the manifest's order.
    kept: Vec<(PackageFile, Vec<PlacedBlob>)>,
    artefact: FileName,
}

impl PackageWithArtefact {
    /// What a training of `package`, which has this manifest, makes of it.
    pub fn new(
        mut manifest: Manifest,
        package: &ModelArtefact,
        trained: &TrainedFile,
    ) -> Result<Self, PackageError> {
        let mut kept = manifest.with_extents(package.extents.iter().skip(1).cloned().collect())?;
        kept.retain(|(file, _)| !file.path.as_str().starts_with(FOLDER));
        let name = trained.name.as_ref().map_or(FILE, FileName::as_str);
        let name = name.rsplit('/').next().unwrap_or(FILE);
        let invalid = |_| PackageError::Extents { path: format!("{FOLDER}{name}") };
        let artefact: FileName = format!("{FOLDER}{name}").parse().map_err(invalid)?;
        let path = artefact.clone();
        manifest.files = kept.iter().map(|(file, _)| file.clone()).collect();
        let &TrainedFile { digest, size, .. } = trained;
        manifest.files.push(PackageFile { path, size, digest, executable: false });
        manifest.files.sort_by(|one, other| one.path.cmp(&other.path));
        manifest.settings.insert(SETTING.to_owned(), artefact.as_str().into());
        let bytes = manifest.to_bytes()?.into();
        Ok(Self { base: package.version, manifest, bytes, kept, artefact })
    }

    /// The bytes of its manifest, to be stored.
    pub fn manifest(&self) -> Bytes {
        self.bytes.clone()
    }

    /// The digest of its manifest.
    pub fn version(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// What it is, and of which version.
    pub fn origin(&self) -> TrainedFrom {
        let Manifest { runtime, files, .. } = &self.manifest;
        let count = u32::try_from(files.len()).unwrap_or(u32::MAX);
        let summary = PackageSummary { runtime: runtime.clone(), files: count, bytes: self.manifest.size() };
        TrainedFrom { base: self.base, summary }
    }

    /// Its extents as the metadata have them, given where the manifest and the artefact were stored.
    pub fn extents(&self, manifest: PlacedBlob, artefact: &[PlacedBlob]) -> Vec<PlacedBlob> {
        let kept = |file: &PackageFile| {
            let found = self.kept.iter().find(|(kept, _)| kept.path == file.path);
            found.map_or_else(Vec::new, |(_, extents)| extents.clone())
        };
        let of_file =
            |file: &PackageFile| if file.path == self.artefact { artefact.to_vec() } else { kept(file) };
        [manifest].into_iter().chain(self.manifest.files.iter().flat_map(of_file)).collect()
    }
}

#[cfg(test)]
mod tests {
    use idunno_shared::package::FORMAT;
    use idunno_shared::wire::blobs::BlobRef;

    use super::*;

    fn placed(content: &[u8]) -> PlacedBlob {
        let blob = BlobRef { digest: Digest::of(content), size: content.len() as u64 };
        PlacedBlob { blob, holders: Vec::new() }
    }

    fn package(files: &[(&str, &[u8])]) -> (Manifest, ModelArtefact) {
        let file = |(path, bytes): &(&str, &[u8])| PackageFile {
            path: path.parse().unwrap(),
            size: bytes.len() as u64,
            digest: Digest::of(bytes),
            executable: false,
        };
        let manifest = Manifest {
            format: FORMAT,
            runtime: "python".into(),
            entry: "model.py".parse().unwrap(),
            settings: serde_json::Map::new(),
            files: files.iter().map(file).collect(),
        };
        let stored = placed(&manifest.to_bytes().unwrap());
        let version = stored.blob.digest;
        let extents = [stored].into_iter().chain(files.iter().map(|(_, bytes)| placed(bytes))).collect();
        (manifest, ModelArtefact { model: "m".parse().unwrap(), version, extents, is_package: true })
    }

    fn trained(content: &[u8], name: Option<&str>) -> TrainedFile {
        let name = name.map(|name| name.parse().unwrap());
        TrainedFile { digest: Digest::of(content), size: content.len() as u64, name }
    }

    #[test]
    fn a_trained_package_has_its_files_and_the_newest_artefact() {
        let files: [(&str, &[u8]); 2] = [(".environment/lock", b"numpy"), ("model.py", b"class Model: pass")];
        let (mut next, mut artefact) = package(&files);
        for weights in [&b"weights"[..], b"better weights"] {
            let trained = trained(weights, Some("m.npz"));
            let made = PackageWithArtefact::new(next, &artefact, &trained).unwrap();
            let stored = placed(&made.manifest());
            assert_eq!(stored.blob.digest, made.version());
            let extents = made.extents(stored.clone(), &[placed(weights)]);
            next = Manifest::from_bytes(&made.manifest()).unwrap();
            let found = next.with_extents(extents[1..].to_vec()).unwrap();
            let paths: Vec<&str> = found.iter().map(|(file, _)| file.path.as_str()).collect();
            assert_eq!(paths, [".environment/lock", ".trained/m.npz", "model.py"]);
            assert_eq!(next.settings["artefact"], ".trained/m.npz");
            let TrainedFrom { base, summary } = made.origin();
            assert_eq!((base, summary.files, summary.bytes), (artefact.version, 3, next.size()));
            artefact = ModelArtefact { version: made.version(), extents, ..artefact };
        }
        assert_eq!(artefact.extents[2], placed(b"better weights"));
    }

    #[test]
    fn stored_bytes_that_are_not_the_packages_are_refused() {
        let (manifest, mut artefact) = package(&[("model.py", b"class Model: pass")]);
        artefact.extents.push(placed(b"more"));
        assert!(PackageWithArtefact::new(manifest, &artefact, &trained(b"weights", None)).is_err());
    }
}
