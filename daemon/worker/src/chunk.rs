//! A chunk of inputs: what is sent to the model in one call, and why an input is not.

use std::time::Duration;

use idunno_shared::wire::jobs::FaultKind;

use super::traits::FetchedBytes;

/// Largest input: the largest body that a model server accepts, less its header.
pub(super) const INPUT_BYTES_MAX: u64 = 240 << 20;

/// Why an input cannot be given to the model.
#[derive(Clone, Debug)]
pub(super) struct InputFault {
    pub(super) kind: FaultKind,
    pub(super) reason: String,
}

impl InputFault {
    pub(super) fn fetch(reason: String) -> Self {
        Self { kind: FaultKind::Fetch, reason }
    }

    pub(super) fn bad_input(reason: String) -> Self {
        Self { kind: FaultKind::BadInput, reason }
    }

    pub(super) fn timed_out(limit: Duration) -> Self {
        Self::fetch(format!("not read within {} s", limit.as_secs()))
    }
}

/// An input at a position of the batch.
#[derive(Debug)]
pub(super) struct ChunkInput {
    pub(super) position: usize,
    pub(super) bytes: Result<FetchedBytes, InputFault>,
}

pub(super) type Chunk = Vec<ChunkInput>;
