//! The error of invariant checks, shared by the machines of this crate.

use thiserror::Error;

/// A broken invariant, described for the developer who has to find the bug: no input can cause one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct InvariantViolation(String);

impl InvariantViolation {
    /// A violation described by `description`.
    pub fn new(description: impl Into<String>) -> Self {
        Self(description.into())
    }

    /// Fails with `description` unless `holds`.
    pub fn unless(holds: bool, description: impl FnOnce() -> String) -> Result<(), Self> {
        if holds { Ok(()) } else { Err(Self::new(description())) }
    }

    /// The same violation, attributed to `owner`: the part of the state in which it was found.
    #[must_use]
    pub fn of(self, owner: impl std::fmt::Display) -> Self {
        Self(format!("{owner}: {}", self.0))
    }
}
