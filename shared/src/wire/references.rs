//! Objects outside the cluster that a dataset names: in buckets, behind URLs, in folders that all members mount.
//!
//! A dataset by reference is a file whose name ends in `.refs`. Its first line is a [`ReferencesHeader`]; each other line is
//! a record whose `input` is an [`ObjectReference`]. Both are written as JSON.

use serde::{Deserialize, Serialize};

/// Longest URL of an object, in bytes.
pub const URL_BYTES_MAX: usize = 4 << 10;
/// Longest header, in bytes.
pub const HEADER_BYTES_MAX: usize = 8 << 10;

/// How the objects of a dataset are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceSource {
    /// The URL of the service, if it is not the one that the scheme stands for: `https://minio.example:9000`.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The region of an S3 bucket; `us-east-1` if not given.
    #[serde(default)]
    pub region: Option<String>,
    /// Whether requests carry no credentials.
    #[serde(default)]
    pub anonymous: bool,
}

/// The first line of a dataset by reference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferencesHeader {
    /// How its objects are reached.
    pub references: ReferenceSource,
}

/// An object as it was when it was listed. A reader refuses it if it has changed since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectReference {
    /// Where it is: `s3://BUCKET/KEY`, `gs://BUCKET/KEY`, `az://CONTAINER/KEY` with the key as it is, or an `https://`,
    /// `http://` or `file:///` URL.
    pub url: String,
    /// Its length, in bytes.
    pub size: u64,
    /// Its strong entity tag, with quotes as the service writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// If it has no entity tag: when it was last modified, in milliseconds since 1970, rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified_ms: Option<u64>,
}
