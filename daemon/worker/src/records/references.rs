//! References to objects outside the cluster: the header of a file of them, and what a record refers to.

use bytes::Bytes;
use idunno_shared::wire::references::{HEADER_BYTES_MAX, ObjectReference, ReferenceSource, ReferencesHeader};
use memchr::memchr;

use super::index_error::RecordIndexError;
use super::{Line, RecordError};

/// The header at the beginning of a file, and its length with the line end.
pub(super) fn header(start: &[u8]) -> Result<(ReferenceSource, usize), RecordIndexError> {
    let refused = |why: String| RecordIndexError::NoReferencesHeader { why };
    let end = memchr(b'\n', start).unwrap_or(start.len());
    if end > HEADER_BYTES_MAX {
        return Err(refused(format!("it has more than {HEADER_BYTES_MAX} bytes")));
    }
    let header: ReferencesHeader =
        serde_json::from_slice(&start[..end]).map_err(|error| refused(error.to_string()))?;
    Ok((header.references, start.len().min(end + 1)))
}

/// The object that an input refers to.
pub fn parse(input: &Bytes, line: Line) -> Result<ObjectReference, RecordError> {
    serde_json::from_slice(input).map_err(|error| RecordError::Reference {
        line,
        why: error.to_string().replace(" at line 1 column ", " at column "),
    })
}
