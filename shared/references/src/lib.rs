//! Objects outside the cluster: in buckets of S3, Google Cloud Storage and Azure, behind URLs, in mounted folders.
//!
//! [`ObjectClient`] lists them when a dataset by reference is made, and reads them when its queries run. **Decides** which
//! service a URL means, which places may be reached at all and with whose credentials, and whether an object is still the one
//! that was listed. Stores nothing.
//!
//! Without the feature `references` the same operations exist, and each fails with [`ReadError::NotBuilt`] or
//! [`ListError::NotBuilt`]: programs that need nothing from outside are built without the large crates that it takes.

#[cfg(not(feature = "references"))]
mod absent;
#[cfg(feature = "references")]
mod buckets;
#[cfg(feature = "references")]
mod client;
mod error;
#[cfg(feature = "references")]
mod folders;
#[cfg(feature = "references")]
mod http;
#[cfg(feature = "references")]
mod place;
#[cfg(feature = "references")]
mod web;

#[cfg(not(feature = "references"))]
pub use absent::{ObjectClient, local_path, reference_of_file};
#[cfg(feature = "references")]
pub use client::ObjectClient;
pub use error::{ListError, ReadError, WriteError};
#[cfg(feature = "references")]
pub use folders::{local_path, reference_of_file};

/// Whether this program lists and reads objects outside the cluster.
pub const IS_BUILT: bool = cfg!(feature = "references");

/// Which places a client may reach beside public ones, and with the credentials of its process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// All: the caller is the person whose credentials they are.
    Everything,
    /// Those whose URL is one of these or lies below one. All others are reached without credentials, and only if they are
    /// public.
    Listed(Vec<String>),
}

/// How an object came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It was written now.
    Written,
    /// It was there, with the same content.
    Found,
}

/// What a URL leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The objects, by the bytes of their URLs.
    pub objects: Vec<idunno_shared::wire::references::ObjectReference>,
    /// The URLs of those that are left out because they stand for folders.
    pub folders: Vec<String>,
}
