//! One HTTP request, by hand.

use std::io::{self, Error};
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// A POST of `body`, or a GET. The status and the body of the answer.
pub(crate) async fn http(address: SocketAddr, path: &str, body: Option<&str>) -> io::Result<(u16, String)> {
    http_over(TcpStream::connect(address).await?, path, body).await
}

/// The same over an open connection.
pub(crate) async fn http_over(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    body: Option<&str>,
) -> io::Result<(u16, String)> {
    let (method, body) = body.map_or(("GET", ""), |body| ("POST", body));
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: m\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let wrong = || Error::other(format!("{path}: {answer:?}"));
    let (head, content) = answer.split_once("\r\n\r\n").ok_or_else(wrong)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(wrong)?;
    Ok((status, content.to_owned()))
}
