//! Parquet: [`records`] reads the rows of datasets, [`results`] writes those of results.
//!
//! **Decides** what the columns of a file mean, which of its bytes a reader needs, what JSON a value becomes, and which
//! types the columns of results have. Reads no file and no network: bytes come in and go out.
//!
//! Without the feature `parquet` the same operations exist, and each fails with [`ReadError::NotBuilt`] or
//! [`WriteError::NotBuilt`]: programs that do not need Parquet are built without the large crates that it takes.

#[cfg(not(feature = "parquet"))]
mod absent;
mod error;
mod parts;
pub mod records;
#[cfg(feature = "parquet")]
pub mod results;

#[cfg(not(feature = "parquet"))]
pub use absent::results;
pub use error::{
    FOOTER_BYTES_MAX, GROUP_BYTES_MAX, LEVELS_MAX, ROWS_BYTES_MAX, ReadError, RowError, WriteError,
};
pub use parts::FileParts;

/// Whether this program reads and writes Parquet.
pub const IS_BUILT: bool = cfg!(feature = "parquet");
