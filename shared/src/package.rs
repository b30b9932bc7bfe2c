//! A model package: a user's own model as a folder of files, described by one manifest.
//!
//! The manifest is a JSON file that names every file with its size and digest, and how the files become a model. Its digest
//! is the model's version, so a version stands for code, weights and settings alike. In the metadata a package is one list
//! of extents: the manifest's, then those of each file, in the manifest's order. A file of at most
//! [`EXTENT_BYTES_MAX`] bytes is one extent, which equal files of other versions share.
//!
//! Bounds: [`FILES_MAX`] files, a manifest of [`MANIFEST_BYTES_MAX`]. The size of a package is bounded by the disks.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::ids::Digest;
use crate::names::FileName;
use crate::wire::blobs::{EXTENT_BYTES_MAX, PlacedBlob};

/// The format that this release writes, and the only one that it reads.
pub const FORMAT: u32 = 1;
/// Most files of a package.
pub const FILES_MAX: usize = 10_000;
/// Largest manifest, in bytes.
pub const MANIFEST_BYTES_MAX: u64 = 8 << 20;
/// The name of the settings file in a package's folder.
pub const SETTINGS_FILE: &str = "model.toml";

/// One file of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageFile {
    /// Its path within the package, with slashes.
    pub path: FileName,
    /// Its size in bytes.
    pub size: u64,
    /// The digest of all its bytes.
    #[serde(serialize_with = "write_digest", deserialize_with = "read_digest")]
    pub digest: Digest,
    /// Whether it is a program.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

impl PackageFile {
    /// How many extents it has.
    pub fn extents(&self) -> usize {
        usize::try_from(self.size.div_ceil(EXTENT_BYTES_MAX)).unwrap_or(usize::MAX)
    }
}

/// What a package consists of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The runtime that loads it, such as `python`. Model servers know which ones there are.
    pub runtime: String,
    /// The file that the runtime begins with.
    pub entry: FileName,
    /// Further settings, by name, as the runtime understands them.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub settings: Map<String, Value>,
    /// The files, sorted by path.
    pub files: Vec<PackageFile>,
}

/// A package is not as its manifest says, or the manifest is wrong.
#[derive(Debug, Error)]
pub enum PackageError {
    /// It is no manifest.
    #[error("the package's manifest cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// A later release wrote it.
    #[error("the package has format {found}, and this release reads format {FORMAT}: upgrade it")]
    Format {
        /// The format.
        found: u32,
    },
    /// It has no files, or too many.
    #[error("the package has {files} files; 1 to {FILES_MAX} are allowed")]
    FileCount {
        /// How many it has.
        files: usize,
    },
    /// The manifest is too large.
    #[error(
        "the package's manifest has {bytes} bytes; {MANIFEST_BYTES_MAX} are allowed: the package has too many files"
    )]
    ManifestSize {
        /// Its size.
        bytes: u64,
    },
    /// The files are not in order, or one is in the place of another's folder.
    #[error("the package's files '{first}' and '{second}' cannot exist beside each other in this order")]
    Paths {
        /// One file.
        first: FileName,
        /// The other.
        second: FileName,
    },
    /// The entry is not among the files.
    #[error("the package has no file '{entry}', with which its runtime is to begin")]
    Entry {
        /// The missing file.
        entry: FileName,
    },
    /// The stored extents are not those of the manifest.
    #[error("the stored bytes of the package do not match its manifest at '{path}'")]
    Extents {
        /// The file, or the manifest.
        path: String,
    },
}

impl Manifest {
    /// The manifest's bytes, always the same for the same manifest.
    pub fn to_bytes(&self) -> Result<Vec<u8>, PackageError> {
        self.check()?;
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        let size = bytes.len() as u64;
        if size > MANIFEST_BYTES_MAX {
            return Err(PackageError::ManifestSize { bytes: size });
        }
        Ok(bytes)
    }

    /// Reads and checks a manifest.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PackageError> {
        let manifest: Self = serde_json::from_slice(bytes)?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), PackageError> {
        if self.format != FORMAT {
            return Err(PackageError::Format { found: self.format });
        }
        if self.files.is_empty() || self.files.len() > FILES_MAX {
            return Err(PackageError::FileCount { files: self.files.len() });
        }
        let mut paths: Vec<&str> = Vec::with_capacity(self.files.len());
        for pair in self.files.windows(2) {
            if pair[0].path >= pair[1].path {
                return Err(PackageError::Paths {
                    first: pair[0].path.clone(),
                    second: pair[1].path.clone(),
                });
            }
        }
        paths.extend(self.files.iter().map(|file| file.path.as_str()));
        for file in &self.files {
            let folders = file.path.as_str().match_indices('/').map(|(end, _)| &file.path.as_str()[..end]);
            for folder in folders {
                if let Ok(found) = paths.binary_search(&folder) {
                    let first = self.files[found].path.clone();
                    return Err(PackageError::Paths { first, second: file.path.clone() });
                }
            }
        }
        if paths.binary_search(&self.entry.as_str()).is_err() {
            return Err(PackageError::Entry { entry: self.entry.clone() });
        }
        Ok(())
    }

    /// The bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).fold(0, u64::saturating_add)
    }

    /// Gives each file its extents, of those that follow the manifest's in the metadata.
    pub fn with_extents(
        &self,
        mut extents: Vec<PlacedBlob>,
    ) -> Result<Vec<(PackageFile, Vec<PlacedBlob>)>, PackageError> {
        let mut found = Vec::with_capacity(self.files.len());
        for file in &self.files {
            let wrong = || PackageError::Extents { path: file.path.to_string() };
            if file.extents() > extents.len() {
                return Err(wrong());
            }
            let rest = extents.split_off(file.extents());
            let sum: u64 = extents.iter().map(|placed| placed.blob.size).sum();
            let is_whole = |placed: &PlacedBlob| placed.blob.digest == file.digest;
            if sum != file.size || (extents.len() == 1 && !extents.iter().all(is_whole)) {
                return Err(wrong());
            }
            found.push((file.clone(), std::mem::replace(&mut extents, rest)));
        }
        match extents.as_slice() {
            [] => Ok(found),
            _ => Err(PackageError::Extents { path: String::from("the end") }),
        }
    }
}

fn write_digest<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(digest)
}

fn read_digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    text.parse().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::blobs::BlobRef;

    fn file(path: &str, size: u64) -> PackageFile {
        let digest = Digest::of(path.as_bytes());
        PackageFile { path: path.parse().unwrap(), size, digest, executable: false }
    }

    fn manifest(files: Vec<PackageFile>) -> Manifest {
        let (runtime, settings) = (String::from("python"), Map::new());
        Manifest { format: FORMAT, runtime, entry: "model.py".parse().unwrap(), settings, files }
    }

    fn placed(digest: Digest, size: u64) -> PlacedBlob {
        PlacedBlob { blob: BlobRef { digest, size }, holders: Vec::new() }
    }

    #[test]
    fn a_manifest_is_the_same_bytes_after_it_was_read() {
        let written = manifest(vec![file("a/b", 3), file("model.py", 7)]).to_bytes().unwrap();
        let read = Manifest::from_bytes(&written).unwrap();
        assert_eq!((read.to_bytes().unwrap(), read.size()), (written, 10));
    }

    #[test]
    fn a_wrong_manifest_is_refused_and_the_error_names_what_is_wrong() {
        let refused = |manifest: Manifest| manifest.to_bytes().unwrap_err().to_string();
        assert!(refused(manifest(vec![])).contains("0 files"));
        assert!(refused(manifest(vec![file("weights", 1)])).contains("no file 'model.py'"));
        let twice = vec![file("model.py", 1), file("model.py", 1)];
        assert!(refused(manifest(twice)).contains("'model.py' and 'model.py'"));
        let folder = vec![file("a", 1), file("a.b", 1), file("a/c/d", 1), file("model.py", 1)];
        assert!(refused(manifest(folder)).contains("'a' and 'a/c/d'"));
        let newer = Manifest { format: 2, ..manifest(vec![file("model.py", 1)]) };
        assert!(refused(newer).contains("format 2"));
        let outside = String::from_utf8(manifest(vec![file("model.py", 1)]).to_bytes().unwrap()).unwrap();
        let outside = outside.replace("\"path\": \"model.py\"", "\"path\": \"../model.py\"");
        assert!(Manifest::from_bytes(outside.as_bytes()).is_err(), "a path that leaves the package");
    }

    #[test]
    fn each_file_gets_its_extents_and_others_are_refused() {
        let large = EXTENT_BYTES_MAX + 5;
        let manifest = manifest(vec![file("empty", 0), file("large", large), file("model.py", 7)]);
        let code = placed(Digest::of(b"model.py"), 7);
        let extents =
            vec![placed(Digest::of(b"1"), EXTENT_BYTES_MAX), placed(Digest::of(b"2"), 5), code.clone()];
        let found = manifest.with_extents(extents.clone()).unwrap();
        assert_eq!(found.iter().map(|(_, extents)| extents.len()).collect::<Vec<_>>(), [0, 2, 1]);
        let mut more = extents.clone();
        more.push(code);
        for wrong in [extents[..2].to_vec(), more, vec![extents[0].clone(), extents[0].clone()]] {
            assert!(manifest.with_extents(wrong).is_err());
        }
        let mut other = extents;
        other[2].blob.digest = Digest::of(b"another file of the same size");
        assert!(manifest.with_extents(other).unwrap_err().to_string().contains("'model.py'"));
    }
}
