//! Failures of calls to a model server, and whose fault they are. The classes are the design's, section 8.

use std::time::Duration;

use idunno_shared::wire::jobs::FaultKind;
use serde::Deserialize;
use thiserror::Error;

const REASON_CHARACTERS_MAX: usize = 300;

/// A call to the model server failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ServerError {
    #[error("cannot connect to the model server at {url}: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("the model server did not answer within {} s", after.as_secs())]
    TimedOut { after: Duration },
    #[error("the connection to the model server was lost: {0}")]
    Disconnected(String),
    #[error("cannot decode the model server's response: {0}")]
    Malformed(String),
    #[error("the model server answered {status}: {message}")]
    Status { status: u16, message: String },
}

impl ServerError {
    /// The kind of fault of a failed infer call.
    pub fn fault(&self) -> FaultKind {
        match self {
            Self::Unreachable { .. } | Self::Status { status: 404 | 429 | 503, .. } => FaultKind::Worker,
            Self::Status { status, .. } if *status < 500 && *status != 408 => FaultKind::BadInput,
            _ => FaultKind::Inference,
        }
    }

    /// Whether the call was too large: for the server's memory, or for its limit of a body.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::Status { status: 413 | 507, .. })
    }

    /// Whether calls with fewer inputs may succeed: an input is bad, or the call was too large.
    pub fn splits(&self) -> bool {
        match self {
            Self::Status { .. } => self.is_too_large() || self.fault() == FaultKind::BadInput,
            _ => false,
        }
    }

    /// Whether the server, rather than the request, is the likely cause.
    pub fn is_server_failure(&self) -> bool {
        !matches!(self, Self::Status { .. })
    }
}

pub(super) fn classify(error: &reqwest::Error, url: &str, deadline: Duration) -> ServerError {
    let reason = root_cause(error);
    match () {
        () if error.is_connect() => ServerError::Unreachable { url: url.to_owned(), reason },
        () if error.is_timeout() => ServerError::TimedOut { after: deadline },
        () => ServerError::Disconnected(reason),
    }
}

/// The innermost error: the outer ones only repeat the URL.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The message in the body of an error response.
pub(super) fn error_message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Message {
        error: String,
    }
    match serde_json::from_slice::<Message>(body) {
        Ok(message) => shorten(&message.error),
        Err(_) => shorten(&String::from_utf8_lossy(body)),
    }
}

pub(super) fn shorten(text: &str) -> String {
    text.trim().chars().take(REASON_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16) -> ServerError {
        ServerError::Status { status, message: String::new() }
    }

    #[test]
    fn errors_are_attributed_to_the_input_the_model_or_the_worker() {
        for (code, kind, splits) in [
            (400, FaultKind::BadInput, true),
            (413, FaultKind::BadInput, true),
            (422, FaultKind::BadInput, true),
            (404, FaultKind::Worker, false),
            (408, FaultKind::Inference, false),
            (429, FaultKind::Worker, false),
            (500, FaultKind::Inference, false),
            (503, FaultKind::Worker, false),
            (507, FaultKind::Inference, true),
        ] {
            assert_eq!((status(code).fault(), status(code).splits()), (kind, splits), "{code}");
        }
    }
}
