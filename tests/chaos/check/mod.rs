//! The judges: pure functions from what was seen to what is wrong with it. Each has hand-made histories that it must
//! catch.

pub(crate) mod jobs;
pub(crate) mod leftovers;
pub(crate) mod registers;
pub(crate) mod terms;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Which promise.
    pub(crate) promise: &'static str,
    /// What was seen.
    pub(crate) detail: String,
}

impl Violation {
    pub(crate) fn new(promise: &'static str, detail: impl Into<String>) -> Self {
        Self { promise, detail: detail.into() }
    }
}
