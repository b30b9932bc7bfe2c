//! The ID of a request, in a header of its response and in the body of an error: whoever reports an error names it, and the log has it.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use s3s::Body;

const HEADER: &str = "x-amz-request-id";
/// How the body of every error ends.
const END: &[u8] = b"</Error>";

/// An ID for a request; `None` if the machine has no randomness.
pub fn new() -> Option<String> {
    getrandom::u64().ok().map(|random| format!("{random:016X}"))
}

/// Writes the ID into a response.
pub fn add(mut response: Response<Body>, id: &str) -> Response<Body> {
    if let Ok(value) = HeaderValue::try_from(id) {
        response.headers_mut().insert(HEADER, value);
    }
    if response.status() < StatusCode::BAD_REQUEST {
        return response;
    }
    tracing::debug!(request = id, status = response.status().as_u16(), "refused a request");
    let body = response.body().bytes().and_then(|body| with_id(&body, id));
    match body {
        Some(body) => {
            response.headers_mut().remove(header::CONTENT_LENGTH);
            response.map(|_| Body::from(body))
        }
        None => response,
    }
}

/// The body of an error with the ID; `None` if it is no error in XML.
fn with_id(body: &[u8], id: &str) -> Option<Bytes> {
    let rest = body.strip_suffix(END)?;
    Some([rest, format!("<RequestId>{id}</RequestId>").as_bytes(), END].concat().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_request() {
        let named = with_id(b"<Error><Code>NoSuchKey</Code></Error>", "0A").unwrap();
        assert_eq!(named, "<Error><Code>NoSuchKey</Code><RequestId>0A</RequestId></Error>");
        assert_eq!(with_id(b"{}", "0A"), None);
    }
}
