//! Why a member did not do what it was asked.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{NodeId, Term};

/// A request that was not done. Nothing was changed, unless the code is [`RefusalCode::Unknown`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of refusal: what a program decides by.
    pub code: RefusalCode,
    /// What was wrong with what, and what to do: what a person reads.
    pub message: String,
}

/// Kinds of refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalCode {
    /// This member does not coordinate: ask the one named, or any other after a moment.
    NotCoordinator {
        /// The coordinator's id and address, if this member knows one.
        coordinator: Option<(NodeId, SocketAddr)>,
        /// The highest term this member knows.
        term: Term,
    },
    /// No majority of voters answers: no change can be made until it does.
    NoQuorum,
    /// The named thing does not exist.
    NotFound,
    /// The input is not acceptable.
    Invalid,
    /// The thing is not in a state that allows it.
    Conflict,
    /// Too much is under way: try again.
    Busy,
    /// The upload is over (its coordinator changed, or it idled too long): plan it anew.
    UploadOver,
    /// The order bears an older term than one already seen.
    StaleTerm,
    /// The change may or may not have been made: ask again with the same operation id.
    Unknown,
    /// This process does not take such requests.
    Unsupported,
    /// A fault inside the member: its log says more.
    Internal,
    /// The caller's identity does not let it.
    Forbidden,
}

impl Refusal {
    /// A refusal with a code and a message.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The named thing does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(RefusalCode::NotFound, message)
    }

    /// The input is not acceptable.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(RefusalCode::Invalid, message)
    }

    /// The thing is not in a state that allows it.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(RefusalCode::Conflict, message)
    }

    /// A fault inside the member.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(RefusalCode::Internal, message)
    }
}
