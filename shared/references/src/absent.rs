//! What stands in for the client in programs that are built without it: nothing is listed or read.

use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use idunno_shared::wire::references::{ObjectReference, ReferenceSource};

use crate::error::{ListError, ReadError, WriteError};
use crate::{Created, Listing, Trust};

/// No path: no URL is looked at.
pub const fn local_path(_: &str) -> Option<PathBuf> {
    None
}

/// Fails.
pub const fn reference_of_file(_: &Path) -> Result<ObjectReference, ListError> {
    Err(ListError::NotBuilt)
}

/// Lists and reads nothing.
#[derive(Debug)]
pub struct ObjectClient;

impl ObjectClient {
    /// A client.
    pub const fn new(_: &Trust) -> Self {
        Self
    }

    /// Fails.
    #[expect(clippy::unused_async, reason = "as the client that is built")]
    pub async fn read(&self, _: &ReferenceSource, _: &ObjectReference) -> Result<Bytes, ReadError> {
        Err(ReadError::NotBuilt)
    }

    /// Fails.
    #[expect(clippy::unused_async, reason = "as the client that is built")]
    pub async fn read_part(
        &self,
        _: &ReferenceSource,
        _: &ObjectReference,
        _: Range<u64>,
    ) -> Result<Bytes, ReadError> {
        Err(ReadError::NotBuilt)
    }

    /// Fails.
    #[expect(clippy::unused_async, reason = "as the client that is built")]
    pub async fn create(&self, _: &ReferenceSource, _: &str, _: Bytes) -> Result<Created, WriteError> {
        Err(WriteError::NotBuilt)
    }

    /// Fails.
    #[expect(clippy::unused_async, reason = "as the client that is built")]
    pub async fn list(&self, _: &ReferenceSource, _: &str) -> Result<Listing, ListError> {
        Err(ListError::NotBuilt)
    }
}
