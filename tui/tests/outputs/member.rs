//! A member, `m1`, that answers as [`super::world`] says. It keeps the blobs that it is sent, and sends them back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use idunno_shared::client::frames::{read_frame, write_frame, write_greeting};
use idunno_shared::ids::{Digest, NodeId};
use idunno_shared::wire::blobs::{BlobReply, BlobRequest};
use idunno_shared::wire::control::ControlRequest;
use idunno_shared::wire::frame::{Answer, Call, Hello, HelloReply, Purpose, Request};
use idunno_shared::wire::version::SPOKEN;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::listen::listen;
use super::world::{self, M1};

/// Time between two views.
const VIEW_PAUSE: Duration = Duration::from_millis(300);

type Blobs = Arc<Mutex<BTreeMap<Digest, Vec<u8>>>>;

/// Starts the member on a thread of its own; it ends with the test.
pub(crate) fn start() -> SocketAddr {
    let blobs = world::contents().into_iter().map(|bytes| (Digest::of(&bytes), bytes)).collect();
    let blobs: Blobs = Arc::new(Mutex::new(blobs));
    listen(move |stream, address| serve(stream, address, Arc::clone(&blobs)))
}

/// A connection, until the program closes it.
async fn serve(mut stream: TcpStream, address: SocketAddr, blobs: Blobs) {
    let Ok(hello) = read_frame::<Hello, _>(&mut stream).await else { return };
    let welcome = HelloReply::Welcome { node: Some(M1), version: SPOKEN.newest };
    write_greeting(&mut stream, &welcome).await.unwrap();
    match hello.purpose {
        Purpose::Calls => while answer_call(&mut stream, address).await.is_some() {},
        Purpose::Blobs => while answer_blob(&mut stream, &blobs).await.is_some() {},
    }
}

async fn answer_call(stream: &mut TcpStream, address: SocketAddr) -> Option<()> {
    let Call { id, request } = read_frame(stream).await.ok()?;
    let Request::Control(request) = request else { panic!("{request:?}") };
    let is_watch = matches!(request, ControlRequest::Watch);
    let replies = world::answer(request, address);
    let last = replies.len() - 1;
    for (number, reply) in replies.into_iter().enumerate() {
        if is_watch && number > 0 {
            // A program that is behind sees only the newest view.
            sleep(VIEW_PAUSE).await;
        }
        let more = is_watch || number < last;
        write_frame(stream, &Answer { id, more, reply }).await.ok()?;
    }
    Some(())
}

async fn answer_blob(stream: &mut TcpStream, blobs: &Blobs) -> Option<()> {
    match read_frame(stream).await.ok()? {
        BlobRequest::Put { id, blob, .. } => {
            let mut bytes = vec![0; usize::try_from(blob.size).unwrap()];
            stream.read_exact(&mut bytes).await.ok()?;
            blobs.lock().unwrap().insert(blob.digest, bytes);
            let holders = world::HOLDERS.map(NodeId).to_vec();
            write_frame(stream, &BlobReply::Stored { id, holders, failed: vec![] }).await.ok()
        }
        BlobRequest::Get { id, digest, offset } => {
            let bytes = blobs.lock().unwrap().get(&digest).cloned();
            let Some(bytes) = bytes else {
                let reason = format!("{digest} is not here");
                return write_frame(stream, &BlobReply::Missing { id, reason }).await.ok();
            };
            let rest = &bytes[usize::try_from(offset).unwrap()..];
            write_frame(stream, &BlobReply::Data { id, bytes: rest.len() as u64 }).await.ok()?;
            stream.write_all(rest).await.ok()
        }
        BlobRequest::ReportCorrupt { digest } => panic!("{digest} is damaged"),
    }
}
