//! Why a command failed, and the exit code that says so.

use std::io;
use std::path::Path;

use idunno_shared::client::cluster::ClusterError;
use idunno_shared::client::files::{GetError, PutError, SegmentError, Unavailable};
use idunno_shared::wire::refusal::RefusalCode;
use thiserror::Error;

use super::document::to_json;
use super::program::{Error as ErrorDocument, ErrorDetail};

/// Exit codes, as documented in `idunno --help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// An error that none of the others describes.
    Error = 1,
    /// The command line is invalid.
    Usage = 2,
    /// What the command names does not exist.
    NotFound = 3,
    /// There is no coordinator, or no member answers.
    Unreachable = 4,
    /// The time limit is over.
    Timeout = 5,
    /// The input is invalid, or the state does not allow the command.
    Refused = 6,
    /// Only a part was done.
    Partial = 7,
    /// The user interrupted the command.
    Interrupted = 130,
    /// SIGTERM or SIGHUP ended the command.
    Terminated = 143,
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
            Self::Terminated => "terminated",
        }
    }
}

/// A command that failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}{}", hint(*.confirmed_by))]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What failed on what, and what to do.
    pub message: String,
    /// The option that says that the command is meant, if only that is missing.
    pub confirmed_by: Option<&'static str>,
}

impl Failure {
    /// A failure with its exit code.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), confirmed_by: None }
    }

    /// A command that destroys something, and is not confirmed by its `option`.
    pub fn unconfirmed(what: impl Into<String>, option: &'static str) -> Self {
        Self { confirmed_by: Some(option), ..Self::new(Exit::Refused, what) }
    }

    /// A failure that no other exit code describes.
    pub fn error(message: impl Into<String>) -> Self {
        Self::new(Exit::Error, message)
    }

    /// A dry run of a command that writes local files: it would write them.
    pub fn no_dry_run() -> Self {
        let text = "--dry-run shows what a command would change in the cluster; this one writes local files";
        Self::new(Exit::Usage, text)
    }

    /// A reply that does not belong to the request.
    pub fn unexpected() -> Self {
        Self::error("unexpected reply: the cluster may run another version of IDunno")
    }

    /// The reader of a pipe has closed it, which is no error.
    pub fn pipe_closed() -> Self {
        Self::error("the reader has closed the output")
    }

    /// A local path that cannot be written, or that is not a regular file and therefore is not replaced.
    pub fn target(path: &Path, error: &io::Error) -> Self {
        let exit = match error.kind() {
            io::ErrorKind::BrokenPipe => return Self::pipe_closed(),
            io::ErrorKind::IsADirectory | io::ErrorKind::InvalidInput => Exit::Refused,
            _ => Exit::Error,
        };
        Self::new(exit, format!("cannot write {}: {error}", path.display()))
    }

    /// What programs read on stderr.
    pub fn json(&self) -> String {
        let error = ErrorDetail {
            code: self.exit as u8,
            kind: self.exit.word().to_owned(),
            message: self.to_string(),
        };
        to_json(&ErrorDocument { error })
    }
}

fn hint(confirmed_by: Option<&str>) -> String {
    confirmed_by.map_or_else(String::new, |option| format!(": pass {option} to confirm"))
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
                | RefusalCode::Forbidden
                | RefusalCode::NotNewest => Exit::Refused,
                RefusalCode::NoQuorum
                | RefusalCode::NotCoordinator { .. }
                | RefusalCode::Busy
                | RefusalCode::InProgress { .. } => Exit::Unreachable,
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
            PutError::Stalled(_) => Self::new(Exit::Timeout, error.to_string()),
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

impl From<SegmentError> for Failure {
    fn from(error: SegmentError) -> Self {
        Self::error(error.to_string())
    }
}
