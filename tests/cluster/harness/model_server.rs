//! A slow model server of others, which takes binary data, inside the test process. It answers an input with the input's length; a call with
//! an input that begins with "break" fails. All members share it, so that they cost no more than their daemons.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// The server; it ends when this is dropped.
pub(crate) struct SlowServer {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl SlowServer {
    /// One that takes `pause` for each call, however many inputs it has.
    pub(crate) async fn start(pause: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, pause));
            }
        });
        Self { address, accepting }
    }

    /// Where members find it.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for SlowServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(stream: TcpStream, pause: Duration) {
    let mut stream = BufReader::new(stream);
    while let Some((path, tensor)) = read_request(&mut stream).await {
        let (status, reply) = if path.ends_with("/infer") {
            sleep(pause).await;
            answer(&tensor)
        } else {
            (200, json!({ "name": path, "extensions": ["binary_tensor_data"] }))
        };
        let body = reply.to_string();
        let response = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(response.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The path, and what follows the JSON header of the body.
async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut length, mut header_length) = (0, 0);
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "inference-header-content-length" => header_length = value.trim().parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((path, body.split_off(header_length)))
}

fn answer(mut tensor: &[u8]) -> (u16, Value) {
    let mut rows = Vec::new();
    while let Some((length, rest)) = tensor.split_first_chunk::<4>() {
        let (input, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        if input.starts_with(b"break") {
            return (500, json!({"error": "broken on purpose"}));
        }
        rows.push(json!({"top5": [{"index": input.len()}]}).to_string());
        tensor = rest;
    }
    (
        200,
        json!({"outputs": [{"name": "predictions", "datatype": "BYTES", "shape": [rows.len()], "data": rows}]}),
    )
}
