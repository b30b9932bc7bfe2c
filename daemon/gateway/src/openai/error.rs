//! What goes wrong, as OpenAI's API says it: `{"error": {message, type, param, code}}`. Its client repeats what is answered with 408, 409, 429 or 5xx.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use s3s::{Body, S3Error, S3ErrorCode};
use serde::Serialize;

/// The type of what is wrong with a request.
const INVALID_REQUEST: &str = "invalid_request_error";

/// An answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The status.
    pub status: StatusCode,
    /// What is wrong, and what to do.
    pub message: String,
    /// The parameter that is wrong.
    pub param: Option<&'static str>,
    /// What programs branch on.
    pub code: Option<&'static str>,
}

/// An answer, or an error.
pub type ApiResult<T> = Result<T, ApiError>;

#[derive(Serialize)]
struct Document<'a> {
    error: Fields<'a>,
}

#[derive(Serialize)]
struct Fields<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

impl ApiError {
    fn new(status: StatusCode, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code }
    }

    /// A parameter is wrong.
    pub fn invalid(param: &'static str, message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, Some("invalid_value"), message);
        Self { param: Some(param), ..error }
    }

    /// A parameter is missing.
    pub fn missing(param: &'static str) -> Self {
        let message = format!("Missing required parameter: '{param}'.");
        let error = Self::new(StatusCode::BAD_REQUEST, Some("missing_required_parameter"), message);
        Self { param: Some(param), ..error }
    }

    /// There is nothing of this name.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, None, message)
    }

    /// There is no such address, or it takes another method.
    pub fn unknown_url(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, Some("unknown_url"), message)
    }

    /// It is no key.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, Some("invalid_api_key"), message)
    }

    /// It is too large.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, Some("file_too_large"), message)
    }

    /// Something that no request should meet.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, None, message)
    }

    /// Whether the same request may succeed a moment later.
    pub fn passes(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
    }

    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => INVALID_REQUEST,
        }
    }

    /// The answer.
    pub fn into_response(self) -> Response<Body> {
        let fields = Fields { message: &self.message, kind: self.kind(), param: self.param, code: self.code };
        let mut response = json(self.status, &Document { error: fields });
        if self.passes() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// What the store did not do.
impl From<S3Error> for ApiError {
    fn from(failed: S3Error) -> Self {
        let message = failed.message().unwrap_or_else(|| failed.code().as_str()).to_owned();
        let (status, code) = match failed.code() {
            S3ErrorCode::SlowDown => (StatusCode::SERVICE_UNAVAILABLE, None),
            S3ErrorCode::AccessDenied => (StatusCode::FORBIDDEN, Some("insufficient_permissions")),
            S3ErrorCode::InvalidAccessKeyId => (StatusCode::UNAUTHORIZED, Some("invalid_api_key")),
            S3ErrorCode::NoSuchKey => (StatusCode::NOT_FOUND, None),
            S3ErrorCode::EntityTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, Some("file_too_large")),
            S3ErrorCode::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, None),
            S3ErrorCode::InvalidArgument | S3ErrorCode::IncompleteBody => (StatusCode::BAD_REQUEST, None),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, None),
        };
        Self::new(status, code, message)
    }
}

/// An answer that is a JSON document.
pub fn json(status: StatusCode, document: &impl Serialize) -> Response<Body> {
    // Its maps have texts as names, so it can be written.
    let text = serde_json::to_vec(document).unwrap_or_default();
    let mut response = Response::new(Body::from(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::{error, slow_down};

    #[test]
    fn an_error_has_the_four_fields() {
        let response = ApiError::missing("purpose").into_response();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let text = response.into_body().bytes().unwrap();
        assert_eq!(
            std::str::from_utf8(&text).unwrap(),
            r#"{"error":{"message":"Missing required parameter: 'purpose'.","type":"invalid_request_error","param":"purpose","code":"missing_required_parameter"}}"#
        );
    }

    #[test]
    fn what_passes_is_repeated_by_programs_and_nothing_else() {
        let busy = ApiError::from(slow_down("no majority"));
        assert!(busy.passes() && busy.kind() == "server_error");
        assert_eq!(busy.into_response().headers()[header::RETRY_AFTER], "1");
        for (code, status, kind) in [
            (S3ErrorCode::AccessDenied, 403, "permission_error"),
            (S3ErrorCode::InvalidAccessKeyId, 401, "authentication_error"),
            (S3ErrorCode::InvalidArgument, 400, INVALID_REQUEST),
            (S3ErrorCode::InternalError, 500, "server_error"),
        ] {
            let error = ApiError::from(error(code, "x"));
            assert_eq!((error.status.as_u16(), error.kind(), error.passes()), (status, kind, false));
        }
    }
}
