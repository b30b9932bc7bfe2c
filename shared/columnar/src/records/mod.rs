//! Rows of Parquet files as records of datasets.
//!
//! [`footer_bytes`] says how much of a file's end is needed, [`Footer`] reads it: what the columns mean, where the row groups
//! are, which bytes hold some rows, and the rows in them. So a reader fetches the columns that it needs of the row groups
//! that it needs, and nothing else.
//!
//! The input is the column that was asked for, else `input`, else the only column, else the only struct of `bytes` and
//! `path`, as pictures and sounds have it. Texts and bytes are the input as they are, of such a struct its `bytes`; all else
//! is JSON: integers and decimals with all digits, dates and times as in ISO 8601, bytes in base64, lists, structs with
//! their fields in order. NaN and infinities are null in other columns, and no input.
//!
//! Bounds: [`FOOTER_BYTES_MAX`], [`crate::GROUP_BYTES_MAX`] of a row group, [`crate::ROWS_BYTES_MAX`] of rows read at once.

#[cfg(feature = "parquet")]
mod columns;
#[cfg(feature = "parquet")]
mod decode;
#[cfg(feature = "parquet")]
mod footer;
#[cfg(feature = "parquet")]
mod json;
#[cfg(test)]
#[cfg(feature = "parquet")]
mod tests;

use bytes::Bytes;

#[cfg(feature = "parquet")]
pub use self::footer::Footer;
#[cfg(not(feature = "parquet"))]
pub use crate::absent::Footer;
use crate::error::{FOOTER_BYTES_MAX, ReadError, RowError};

/// Bytes at the end of a file that say how long its footer is.
pub const TAIL_BYTES: usize = 8;

/// Where the rows of a row group begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowGroup {
    /// The number of its first row, from 0.
    pub first: u64,
    /// The offset of its first byte, in the columns that are read.
    pub at: u64,
}

/// A row, as the record of a dataset. Texts are JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What the model is given.
    pub input: Result<Bytes, RowError>,
    /// The true label, unless it is null.
    pub label: Option<String>,
    /// The record's own id, unless it is null.
    pub id: Option<String>,
    /// The columns that come back, as an object; `None` if none are asked for.
    pub fields: Option<String>,
}

/// Bytes of the footer of a file that ends so. `end` has at least [`TAIL_BYTES`], unless the whole file has fewer.
pub fn footer_bytes(end: &[u8]) -> Result<u64, ReadError> {
    if !crate::IS_BUILT {
        return Err(ReadError::NotBuilt);
    }
    let tail: Option<&[u8; TAIL_BYTES]> = end.last_chunk();
    let (length, magic) = tail.and_then(|tail| tail.split_first_chunk::<4>()).ok_or(ReadError::NoFooter)?;
    match magic {
        b"PAR1" => {}
        b"PARE" => return Err(ReadError::Encrypted),
        _ => return Err(ReadError::NoFooter),
    }
    let bytes = u64::from(u32::from_le_bytes(*length)) + TAIL_BYTES as u64;
    if bytes > FOOTER_BYTES_MAX { Err(ReadError::LargeFooter { bytes }) } else { Ok(bytes) }
}
