//! Why a command was not done, and the exit code that says so.

use std::io;
use std::path::Path;

use idunno_shared::client::cluster::ClusterError;
use idunno_shared::client::files::{GetError, PutError, Unavailable};
use idunno_shared::wire::refusal::RefusalCode;
use serde_json::{Value, json};
use thiserror::Error;

/// Exit codes, as documented in `idunno --help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A fault.
    Error = 1,
    /// The command line is not understood.
    Usage = 2,
    /// The named thing does not exist.
    NotFound = 3,
    /// No coordinator, or nobody reachable.
    Unreachable = 4,
    /// Not done in time.
    Timeout = 5,
    /// The input is not acceptable, or the state does not allow it.
    Refused = 6,
    /// Done in part.
    Partial = 7,
    /// Ended by the user.
    Interrupted = 130,
}

impl Exit {
    /// One word for programs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Usage => "usage",
            Self::NotFound => "not-found",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Partial => "partial",
            Self::Interrupted => "interrupted",
        }
    }
}

/// A command that was not done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct Failure {
    /// How the program ends.
    pub exit: Exit,
    /// What was wrong with what, and what to do.
    pub message: String,
}

impl Failure {
    /// A failure of a kind.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// A fault.
    pub fn error(message: impl Into<String>) -> Self {
        Self::new(Exit::Error, message)
    }

    /// A member answered something else than was asked: another version, most likely.
    pub fn unexpected() -> Self {
        Self::error("the cluster answered with something else than was asked: it may run another version")
    }

    /// A local file that cannot be written, or must not be: something else than a file is there.
    pub fn target(path: &Path, error: &io::Error) -> Self {
        let exit = match error.kind() {
            io::ErrorKind::IsADirectory | io::ErrorKind::InvalidInput => Exit::Refused,
            _ => Exit::Error,
        };
        Self::new(exit, format!("cannot write {}: {error}", path.display()))
    }

    /// What programs read on stderr.
    pub fn json(&self) -> Value {
        json!({"error": {"code": self.exit as u8, "kind": self.exit.word(), "message": self.message}})
    }
}

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        let exit = match &error {
            ClusterError::Unreachable { .. } => Exit::Unreachable,
            ClusterError::Untrusted(_) => Exit::Refused,
            ClusterError::Unexpected { .. } => Exit::Error,
            ClusterError::Refused(refusal) => match refusal.code {
                RefusalCode::NotFound => Exit::NotFound,
                RefusalCode::Invalid
                | RefusalCode::Conflict
                | RefusalCode::UploadOver
                | RefusalCode::StaleTerm
                | RefusalCode::Unsupported
                | RefusalCode::Forbidden => Exit::Refused,
                RefusalCode::NoQuorum | RefusalCode::NotCoordinator { .. } | RefusalCode::Busy => {
                    Exit::Unreachable
                }
                RefusalCode::Unknown | RefusalCode::Internal => Exit::Error,
            },
        };
        Self::new(exit, error.to_string())
    }
}

impl From<PutError> for Failure {
    fn from(error: PutError) -> Self {
        match error {
            PutError::Cluster(error) => error.into(),
            PutError::TooLarge { .. } => Self::new(Exit::Refused, error.to_string()),
            other => Self::error(other.to_string()),
        }
    }
}

impl From<GetError> for Failure {
    fn from(error: GetError) -> Self {
        match error {
            GetError::Cluster(error) => error.into(),
            GetError::NotFound { .. } | GetError::NoVersion { .. } => {
                Self::new(Exit::NotFound, error.to_string())
            }
            GetError::Target { path, source } => Self::target(&path, &source),
            GetError::Unavailable(error) => error.into(),
        }
    }
}

impl From<Unavailable> for Failure {
    fn from(error: Unavailable) -> Self {
        Self::error(error.to_string())
    }
}
