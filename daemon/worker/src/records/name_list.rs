//! Reads a list of names, one a line; empty lines are skipped.
//!
//! Bounds: a list of at most [`LIST_BYTES_MAX`].

use idunno_shared::names::{FileName, NameError};

use super::index_error::RecordIndexError;

/// Longest list of names: it is committed to the metadata log as one command.
const LIST_BYTES_MAX: usize = 4 << 20;

#[derive(Default)]
pub(super) struct NameList {
    text: Vec<u8>,
}

impl NameList {
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), RecordIndexError> {
        self.text.extend_from_slice(bytes);
        if self.text.len() > LIST_BYTES_MAX {
            return Err(RecordIndexError::LongList { bytes_max: LIST_BYTES_MAX });
        }
        Ok(())
    }

    pub(super) fn names(&self) -> Result<Vec<FileName>, RecordIndexError> {
        let mut names = Vec::new();
        for (number, line) in (1..).zip(self.text.split(|&byte| byte == b'\n')) {
            let wrong = |reason: String| RecordIndexError::Name { line: number, reason };
            let line = std::str::from_utf8(line).map_err(|error| wrong(error.to_string()))?.trim();
            if !line.is_empty() {
                names.push(line.parse().map_err(|error: NameError| wrong(error.to_string()))?);
            }
        }
        Ok(names)
    }
}
