//! Objects behind URLs of the web.
//!
//! A server that heeds no conditions is found out by what its answer says of the object.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use idunno_shared::wire::references::ObjectReference;
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, IF_MATCH, LAST_MODIFIED, RANGE,
};
use reqwest::{Client, Response, StatusCode, Url};

use crate::buckets::check;
use crate::error::{ListError, ReadError};
use crate::http::with_causes;

/// Reads an object, whole or a part of it, if it is still the one that was listed.
pub(crate) async fn read(
    client: &Client,
    url: Url,
    object: &ObjectReference,
    part: Option<Range<u64>>,
) -> Result<Bytes, ReadError> {
    let failed =
        |error: &reqwest::Error| ReadError::Failed { url: object.url.clone(), why: without_url(error) };
    let mut request = client.get(url);
    if let Some(etag) = &object.etag {
        request = request.header(IF_MATCH, etag);
    }
    if let Some(Range { start, end }) = &part {
        request = request.header(RANGE, format!("bytes={start}-{}", end - 1));
    }
    let mut answer = request.send().await.map_err(|error| failed(&error))?;
    refusal(&answer, object, part.is_some())?;
    let size = if part.is_some() { range_size(answer.headers()) } else { length(answer.headers()) };
    check(
        object,
        size.unwrap_or(object.size),
        etag(answer.headers()).as_deref(),
        modified_ms(answer.headers()),
    )?;
    let expected = part.as_ref().map_or(object.size, |part| part.end - part.start);
    let expected = usize::try_from(expected).unwrap_or(usize::MAX);
    // The size is what a file says: it is believed as far as bytes come.
    let mut whole = BytesMut::with_capacity(expected.min(1 << 20));
    while let Some(part) = answer.chunk().await.map_err(|error| failed(&error))? {
        whole.extend_from_slice(&part);
        if whole.len() > expected {
            break;
        }
    }
    if part.is_none() {
        check(object, whole.len() as u64, object.etag.as_deref(), object.modified_ms)?;
    }
    Ok(whole.freeze())
}

fn refusal(answer: &Response, object: &ObjectReference, is_part: bool) -> Result<(), ReadError> {
    let (status, url) = (answer.status(), object.url.clone());
    let why = || format!("the server answered {status}");
    Err(match status {
        StatusCode::PARTIAL_CONTENT if is_part => return Ok(()),
        StatusCode::OK if !is_part => return Ok(()),
        StatusCode::OK => {
            ReadError::Failed { url, why: String::from("the server sends large objects only whole") }
        }
        StatusCode::PRECONDITION_FAILED => {
            ReadError::Changed { url, what: String::from("it has another ETag") }
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => ReadError::Gone { url },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ReadError::Denied { url, why: why() },
        _ => ReadError::Failed { url, why: why() },
    })
}

/// The object of a URL.
pub(crate) async fn list(client: &Client, url: &Url) -> Result<ObjectReference, ListError> {
    let failed = |error: &reqwest::Error| ListError::Failed { url: url.to_string(), why: without_url(error) };
    let mut answer = client.head(url.clone()).send().await.map_err(|error| failed(&error))?;
    let mut size = length(answer.headers());
    if !answer.status().is_success() || size.is_none() {
        // A URL that is signed for reading allows nothing else; some servers do not know HEAD.
        let first_byte = client.get(url.clone()).header(RANGE, "bytes=0-0");
        answer = first_byte.send().await.map_err(|error| failed(&error))?;
        size = match answer.status() {
            StatusCode::PARTIAL_CONTENT => range_size(answer.headers()),
            // An object without bytes has no first one.
            StatusCode::RANGE_NOT_SATISFIABLE => range_size(answer.headers()).filter(|size| *size == 0),
            StatusCode::OK => length(answer.headers()),
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                return Err(ListError::Nothing { url: url.to_string() });
            }
            status => {
                let why = format!("the server answered {status}");
                return Err(ListError::Failed { url: url.to_string(), why });
            }
        };
    }
    let why = || String::from("the server does not say how long it is");
    let size = size.ok_or_else(|| ListError::Failed { url: url.to_string(), why: why() })?;
    let etag = etag(answer.headers());
    let modified_ms = modified_ms(answer.headers()).filter(|_| etag.is_none());
    if etag.is_none() && modified_ms.is_none() {
        return Err(ListError::Unversioned { url: url.to_string() });
    }
    Ok(ObjectReference { url: url.to_string(), size, etag, modified_ms })
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Read from the header: the length of the body of an answer to HEAD is none.
fn length(headers: &HeaderMap) -> Option<u64> {
    text(headers, CONTENT_LENGTH)?.parse().ok()
}

/// The size of the whole, as the answer to a request for a range has it.
fn range_size(headers: &HeaderMap) -> Option<u64> {
    text(headers, CONTENT_RANGE)?.rsplit_once('/')?.1.parse().ok()
}

fn etag(headers: &HeaderMap) -> Option<String> {
    text(headers, ETAG).filter(|etag| !etag.starts_with("W/")).map(str::to_owned)
}

fn modified_ms(headers: &HeaderMap) -> Option<u64> {
    let modified = httpdate::parse_http_date(text(headers, LAST_MODIFIED)?).ok()?;
    u64::try_from(modified.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis()).ok()
}

/// The URL stands beside it.
fn without_url(error: &reqwest::Error) -> String {
    let text = with_causes(error);
    match error.url() {
        Some(url) => text.replace(&format!(" for url ({url})"), ""),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::http;

    /// A server that answers each request as told, and keeps what it was asked.
    async fn server(answer: fn(&str) -> String) -> (Url, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/o", listener.local_addr().unwrap()).parse().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let requests = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(connection.read_u8().await.unwrap());
                }
                let request = String::from_utf8(request).unwrap().to_ascii_lowercase();
                let answer = answer(&request);
                requests.lock().unwrap().push(request);
                connection.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (url, asked)
    }

    fn object(url: &Url, etag: Option<&str>, modified_ms: Option<u64>) -> ObjectReference {
        ObjectReference { url: url.to_string(), size: 3, etag: etag.map(str::to_owned), modified_ms }
    }

    #[tokio::test]
    async fn an_object_is_listed_and_read_while_it_stays_the_same() {
        let (url, asked) = server(|request| {
            let body = if request.starts_with("head") { "" } else { "abc" };
            format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\netag: \"v1\"\r\n\r\n{body}")
        })
        .await;
        let client = http::open().unwrap();
        let listed = list(&client, &url).await.unwrap();
        assert_eq!(listed, object(&url, Some("\"v1\""), None));
        assert_eq!(read(&client, url.clone(), &listed, None).await.unwrap(), "abc");
        assert!(asked.lock().unwrap()[1].contains("if-match: \"v1\""));
        // This server heeds no condition.
        let other = object(&url, Some("\"v0\""), None);
        assert!(matches!(read(&client, url.clone(), &other, None).await, Err(ReadError::Changed { .. })));
        let longer = ObjectReference { size: 4, ..listed };
        assert!(matches!(read(&client, url, &longer, None).await, Err(ReadError::Changed { .. })));
    }

    #[tokio::test]
    async fn a_server_without_head_and_etag_is_asked_for_a_byte_and_the_time() {
        let (url, _) = server(|request| {
            let modified = "connection: close\r\nlast-modified: Thu, 01 Jan 1970 00:00:07 GMT";
            match request {
                _ if request.starts_with("head") => format!("HTTP/1.1 403 Forbidden\r\n{modified}\r\n\r\n"),
                _ if request.contains("range: bytes=0-0") => {
                    format!("HTTP/1.1 206 Partial\r\n{modified}\r\netag: W/\"w\"\r\ncontent-range: bytes 0-0/3\r\n\r\na")
                }
                _ => format!("HTTP/1.1 200 OK\r\n{modified}\r\n\r\nabc"),
            }
        })
        .await;
        let client = http::open().unwrap();
        let listed = list(&client, &url).await.unwrap();
        assert_eq!(listed, object(&url, None, Some(7_000)));
        assert_eq!(read(&client, url.clone(), &listed, None).await.unwrap(), "abc");
        let older = object(&url, None, Some(6_000));
        assert!(matches!(read(&client, url, &older, None).await, Err(ReadError::Changed { .. })));
    }

    #[tokio::test]
    async fn what_a_server_refuses_is_told_apart() {
        let client = http::open().unwrap();
        let (gone, _) = server(|_| String::from("HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n")).await;
        let listed = object(&gone, Some("\"v\""), None);
        assert_eq!(
            read(&client, gone.clone(), &listed, None).await,
            Err(ReadError::Gone { url: gone.to_string() })
        );
        assert_eq!(list(&client, &gone).await, Err(ListError::Nothing { url: gone.to_string() }));
        let (busy, _) = server(|_| String::from("HTTP/1.1 503 Busy\r\nconnection: close\r\n\r\n")).await;
        let error = read(&client, busy.clone(), &object(&busy, None, None), None).await.unwrap_err();
        assert!(matches!(&error, ReadError::Failed { why, .. } if why.contains("503")), "{error}");
        let (unversioned, _) =
            server(|_| String::from("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\n"))
                .await;
        let error = list(&client, &unversioned).await.unwrap_err();
        assert!(matches!(error, ListError::Unversioned { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_guarded_client_is_led_to_no_private_address() {
        let guarded = http::guarded().unwrap();
        let (url, asked) = server(|_| String::from("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")).await;
        let mut named = url.clone();
        named.set_host(Some("localhost")).unwrap();
        let error = list(&guarded, &named).await.unwrap_err().to_string();
        assert!(error.contains("reference_urls"), "{error}");
        assert_eq!(asked.lock().unwrap().len(), 0);
        // As if this one were public.
        let (leads, _) = server(|_| {
            let to = "http://169.254.169.254/latest/meta-data";
            format!("HTTP/1.1 302 Found\r\nconnection: close\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
        })
        .await;
        let error = list(&guarded, &leads).await.unwrap_err().to_string();
        assert!(error.contains("reference_urls"), "{error}");
    }
}
