//! Refusals: why a member did not do what a request asked for.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{NodeId, Term};

/// The reply to a request that was refused. Nothing was changed, unless the code is [`RefusalCode::Unknown`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{message}")]
pub struct Refusal {
    /// The kind of refusal, for programs.
    pub code: RefusalCode,
    /// What is wrong and what to do about it, for people.
    pub message: String,
}

/// The kind of a [`Refusal`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalCode {
    /// This member is not the coordinator. Retry at the one named, or at any other member after a moment.
    NotCoordinator {
        /// Id and address of the coordinator, if this member knows it.
        coordinator: Option<(NodeId, SocketAddr)>,
        /// The highest term that this member knows.
        term: Term,
    },
    /// No majority of voters is reachable. No change is possible until one is.
    NoQuorum,
    /// What the request names does not exist.
    NotFound,
    /// The request is malformed, or a value in it is out of bounds.
    Invalid,
    /// The current state of what the request names does not allow it.
    Conflict,
    /// Too many requests are in progress. Retry later.
    Busy,
    /// The upload has ended, because the coordinator changed or the upload was idle for too long. Plan it again.
    UploadOver,
    /// The command has an older term than one already seen.
    StaleTerm,
    /// The change may or may not have been made. Repeat it with the same operation id.
    Unknown,
    /// This process does not serve such requests.
    Unsupported,
    /// An internal error of the member. Its log has the details.
    Internal,
    /// The caller's role does not permit it.
    Forbidden,
    /// The request is being carried out, which goes on. Repeat it with the same operation id to learn the outcome.
    InProgress {
        /// Bytes that have been read for it.
        done_bytes: u64,
        /// Bytes that it reads in all; 0 if that is not known.
        total_bytes: u64,
    },
    /// The file's newest version is not the one that the commit expects.
    NotNewest,
}

impl RefusalCode {
    /// Whether the same request, with the same operation id, may be answered differently a moment later, here or at another
    /// member. A client repeats it, for as long as its caller waits.
    pub const fn is_repeated(&self) -> bool {
        match self {
            Self::NotCoordinator { .. }
            | Self::NoQuorum
            | Self::Busy
            | Self::Unknown
            | Self::InProgress { .. } => true,
            Self::NotFound
            | Self::Invalid
            | Self::Conflict
            | Self::UploadOver
            | Self::StaleTerm
            | Self::Unsupported
            | Self::Internal
            | Self::Forbidden
            | Self::NotNewest => false,
        }
    }
}

impl Refusal {
    /// Makes a refusal.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Makes a [`RefusalCode::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(RefusalCode::NotFound, message)
    }

    /// Makes a [`RefusalCode::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(RefusalCode::Invalid, message)
    }

    /// Makes a [`RefusalCode::Conflict`].
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(RefusalCode::Conflict, message)
    }

    /// Makes a [`RefusalCode::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(RefusalCode::Internal, message)
    }
}
