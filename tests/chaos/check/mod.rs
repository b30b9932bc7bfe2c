//! The checkers: pure functions from observations to violations. Each is tested with hand-written histories that it must
//! reject.

pub(crate) mod disks;
pub(crate) mod jobs;
pub(crate) mod registers;
pub(crate) mod terms;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Which promise.
    pub(crate) promise: &'static str,
    /// The observation that violates it.
    pub(crate) detail: String,
}

impl Violation {
    pub(crate) fn new(promise: &'static str, detail: impl Into<String>) -> Self {
        Self { promise, detail: detail.into() }
    }
}
