//! Model packages as the metadata know them.

use serde::{Deserialize, Serialize};

use super::blobs::BlobRef;
use super::bounded::{self, LOGGED_ITEMS_MAX};
use crate::ids::{Digest, NodeId};

/// Longest name of a runtime, in bytes.
pub const RUNTIME_BYTES_MAX: usize = 64;

/// What people see of a model package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageSummary {
    /// The runtime that loads it, at most [`RUNTIME_BYTES_MAX`] bytes.
    pub runtime: String,
    /// The number of its files.
    pub files: u32,
    /// The bytes of its files.
    pub bytes: u64,
}

/// What a training has made of a package: another one, with what it wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainedFrom {
    /// The version of the package that was trained. Files of it are files of the new one.
    pub base: Digest,
    /// What the new package is.
    pub summary: PackageSummary,
}

/// A model package whose bytes are already stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPackage {
    /// What it is.
    pub summary: PackageSummary,
    /// Its extents, each with the members that store it: the manifest's, whose digest is the version, then those of its
    /// files in the manifest's order.
    #[serde(deserialize_with = "bounded::list::<LOGGED_ITEMS_MAX, _, _>")]
    pub extents: Vec<(BlobRef, Vec<NodeId>)>,
}
