//! Failures of calls to a model server, and whose fault they are. The classes are the design's, section 8.

use std::time::Duration;

use idunno_shared::wire::jobs::FaultKind;
use serde_json::Value;
use thiserror::Error;

/// With what is said around it, a reason that the log keeps whole.
const REASON_CHARACTERS_MAX: usize = 450;

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
    #[error("the model server's answer has more than {limit} bytes")]
    AnswerTooLong { limit: usize },
    #[error("the model server answered {status}: {message}")]
    Status { status: u16, message: String },
    #[error("the model server serves version {served} of the model instead of {expected}")]
    WrongVersion { served: String, expected: String },
    /// The process that runs the model ended with these inputs. The server and other models go on.
    #[error("{message}")]
    RunnerEnded { message: String },
    /// That process is being started again: the inputs were not tried.
    #[error("{message}")]
    RunnerNotReady { message: String },
}

impl ServerError {
    /// The kind of fault of a failed infer call. An input is blamed only for a status that says so: any other error of the
    /// client is one that the operator made (401, 403, 415), or that the server has with every call (404, 429).
    pub fn fault(&self) -> FaultKind {
        match self {
            Self::AnswerTooLong { .. } | Self::Status { status: 400 | 413 | 422, .. } => FaultKind::BadInput,
            Self::TimedOut { .. }
            | Self::Disconnected(_)
            | Self::Malformed(_)
            | Self::Status { status: 408 | 500 | 505.., .. } => FaultKind::Inference,
            Self::RunnerEnded { .. } => FaultKind::Crash,
            Self::Unreachable { .. }
            | Self::WrongVersion { .. }
            | Self::RunnerNotReady { .. }
            | Self::Status { .. } => FaultKind::Worker,
        }
    }

    /// Whether the call was too large: for the server's memory, for its limit of a body, or for our limit of an answer.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::AnswerTooLong { .. } | Self::Status { status: 413 | 507, .. })
    }

    /// Whether calls with fewer inputs may succeed: an input is bad, or the call was too large.
    pub fn splits(&self) -> bool {
        self.is_too_large() || self.fault() == FaultKind::BadInput
    }

    /// Whether the server, rather than the request, is the likely cause.
    pub fn is_server_failure(&self) -> bool {
        !self.is_runner_down()
            && !matches!(self, Self::AnswerTooLong { .. } | Self::Status { .. } | Self::WrongVersion { .. })
    }

    /// Whether the process of this one model does not run now.
    pub fn is_runner_down(&self) -> bool {
        matches!(self, Self::RunnerEnded { .. } | Self::RunnerNotReady { .. })
    }

    /// Whether the server turns away whatever it is asked, until its operator or time changes that. 503 is not among them:
    /// so a server answers for a model that it has not loaded, and ours for one that it cannot train.
    pub fn is_turned_away(&self) -> bool {
        matches!(self, Self::Status { status: 300..=399 | 401..=403 | 407 | 429 | 502 | 504, .. })
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
pub(super) fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The error that a response with an error status stands for.
pub(super) fn status_error(status: u16, body: &[u8]) -> ServerError {
    let text = || ServerError::Status { status, message: shorten(&String::from_utf8_lossy(body)) };
    let Ok(Value::Object(reply)) = serde_json::from_slice::<Value>(body) else { return text() };
    let Some(found) = ["error", "detail", "message"].iter().find_map(|key| reply.get(*key)) else {
        return text();
    };
    // FastAPI lists what is wrong, and OpenAI's servers have an object.
    let first = found.get(0).unwrap_or(found);
    let words = ["message", "msg"].iter().find_map(|key| first.get(*key)).unwrap_or(first);
    let message = words.as_str().map_or_else(|| shorten(&words.to_string()), shorten);
    // What the process of the model did: a server of ours says so.
    match reply.get("runner").and_then(Value::as_str) {
        Some("ended") => ServerError::RunnerEnded { message },
        Some("restarting") => ServerError::RunnerNotReady { message },
        _ => ServerError::Status { status, message },
    }
}

/// At most [`REASON_CHARACTERS_MAX`] characters of a text. Of a longer one, most of the end stays: a traceback ends with its
/// cause.
pub(super) fn shorten(text: &str) -> String {
    const OMITTED: &str = " ... ";
    let text: Vec<char> = text.trim().chars().collect();
    if text.len() <= REASON_CHARACTERS_MAX {
        return text.into_iter().collect();
    }
    let start = REASON_CHARACTERS_MAX / 4;
    let end = text.len() - (REASON_CHARACTERS_MAX - start - OMITTED.len());
    text[..start].iter().copied().chain(OMITTED.chars()).chain(text[end..].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16) -> ServerError {
        ServerError::Status { status, message: String::new() }
    }

    #[test]
    fn of_a_long_text_both_ends_stay() {
        let long = format!("Traceback {} ValueError: cause", "é".repeat(3 * REASON_CHARACTERS_MAX));
        let short = shorten(&long);
        assert_eq!(short.chars().count(), REASON_CHARACTERS_MAX);
        assert!(short.starts_with("Traceback ") && short.ends_with("ValueError: cause"), "{short}");
        let whole = "é".repeat(REASON_CHARACTERS_MAX);
        assert_eq!(shorten(&format!(" {whole}\n")), whole);
    }

    #[test]
    fn the_servers_own_words_are_found() {
        for (body, words) in [
            (r#"{"error":"no such model"}"#, "no such model"),
            (r#"{"error":{"code":400,"message":"too long"}}"#, "too long"),
            (r#"{"detail":[{"loc":["body"],"msg":"field required"}]}"#, "field required"),
            (r#"{"detail":"not found"}"#, "not found"),
            (r#"{"message":"slow down"}"#, "slow down"),
            ("<h1>Bad gateway</h1>", "<h1>Bad gateway</h1>"),
            (r#"{"code":7}"#, r#"{"code":7}"#),
        ] {
            let message = words.to_owned();
            assert_eq!(status_error(400, body.as_bytes()), ServerError::Status { status: 400, message });
        }
    }

    #[test]
    fn errors_are_attributed_to_the_input_the_model_or_the_worker() {
        for (code, kind, splits) in [
            (400, FaultKind::BadInput, true),
            (413, FaultKind::BadInput, true),
            (422, FaultKind::BadInput, true),
            (415, FaultKind::Worker, false),
            (307, FaultKind::Worker, false),
            (401, FaultKind::Worker, false),
            (402, FaultKind::Worker, false),
            (403, FaultKind::Worker, false),
            (404, FaultKind::Worker, false),
            (405, FaultKind::Worker, false),
            (407, FaultKind::Worker, false),
            (408, FaultKind::Inference, false),
            (429, FaultKind::Worker, false),
            (451, FaultKind::Worker, false),
            (500, FaultKind::Inference, false),
            (501, FaultKind::Worker, false),
            (502, FaultKind::Worker, false),
            (503, FaultKind::Worker, false),
            (504, FaultKind::Worker, false),
            (507, FaultKind::Inference, true),
        ] {
            assert_eq!((status(code).fault(), status(code).splits()), (kind, splits), "{code}");
        }
        let said = |runner| status_error(500, format!("{{\"error\":\"e\",\"runner\":{runner}}}").as_bytes());
        for (error, kind) in
            [(said("\"ended\""), FaultKind::Crash), (said("\"restarting\""), FaultKind::Worker)]
        {
            assert!(error.is_runner_down() && !error.is_server_failure() && !error.splits(), "{error:?}");
            assert_eq!((error.fault(), error.to_string().as_str()), (kind, "e"));
        }
        for other in ["null", "\"dancing\""] {
            assert_eq!(said(other), ServerError::Status { status: 500, message: "e".to_owned() });
        }
        let long = ServerError::AnswerTooLong { limit: 1 };
        assert!(long.splits() && long.is_too_large() && !long.is_server_failure());
        assert_eq!(long.fault(), FaultKind::BadInput, "one answer alone is as long at any worker");
    }
}
