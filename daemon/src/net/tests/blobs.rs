//! What a peer's role lets it do with blobs.

use std::sync::Arc;

use idunno_shared::client::connections::Connections;
use idunno_shared::client::files::connection::{BlobConnection, verify};
use idunno_shared::client::frames::{read_frame, write_frame};
use idunno_shared::client::link::{BoxFuture, Link};
use idunno_shared::client::transport::TcpConnector;
use idunno_shared::ids::{Digest, NodeId, Term, UploadId};
use idunno_shared::security::{Credentials, Role};
use idunno_shared::wire::blobs::{BlobRef, BlobReply, BlobRequest, Holder};
use idunno_store::access::BlobAccess;
use idunno_store::blobs::BlobStore;
use idunno_store::memory::{MemoryBudget, MemoryPool};
use idunno_store::scrub::{CLIENT_SUSPECTS_BURST, Scrub};
use idunno_store::server::{BlobServer, ClusterKnowledge};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::roles::blob_access;
use super::{DAY, SOON};

/// Knows no members and no terms.
struct NoCluster;

impl ClusterKnowledge for NoCluster {
    fn has(&self, _: Holder) -> bool {
        false
    }

    fn has_begun(&self, _: Term) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(false))
    }
}

/// A member that serves the blobs of a store.
fn server(store: BlobStore) -> Arc<BlobServer> {
    let scrub = Scrub::start(store.clone(), DAY, CancellationToken::new());
    let connections = Connections::new(Arc::new(TcpConnector::new(Credentials::insecure())));
    Arc::new(BlobServer::new(NodeId(1), store, scrub, connections, Arc::new(NoCluster)))
}

#[tokio::test]
async fn a_refused_put_is_answered_and_the_connection_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path(), 0).unwrap();
    let server = server(store);
    let (ours, theirs) = duplex(1 << 16);
    tokio::spawn(async move {
        let (reader, writer) = split(theirs);
        server.serve(reader, writer, BlobAccess { may_store: false, is_member: false, memory: None }).await
    });
    let (reader, writer) = split(ours);
    let link = Link { reader: Box::new(reader), writer: Box::new(writer), node: Some(NodeId(1)) };
    let connection = BlobConnection::new(link);
    for size in [10, 3 << 20] {
        let bytes = vec![7; size];
        let blob = BlobRef { digest: Digest::of(&bytes), size: size as u64 };
        verify(blob, &bytes).unwrap();
        let upload = UploadId { term: Term(1), number: 1 };
        let stored = connection.put(blob, upload, &[], bytes.into()).await.unwrap();
        assert_eq!(stored.holders, []);
        assert!(stored.failed[0].1.contains("read-only"), "{:?}", stored.failed);
        assert!(connection.get(blob, 0).await.unwrap().next().await.is_err(), "nothing was stored");
    }
}

#[tokio::test]
async fn a_viewer_cannot_have_the_disk_read_without_limit() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path(), 0).unwrap();
    let mut blobs = Vec::new();
    for n in 0..30_u8 {
        let blob = BlobRef { digest: Digest::of(&[n; 100]), size: 100 };
        store.start_put(blob, None, vec![n; 100].into()).await.unwrap().done().await.unwrap();
        // Each check that reads the disk discards the blob.
        let name = blob.digest.to_string();
        std::fs::write(dir.path().join("blobs").join(&name[..2]).join(&name[2..]), [99; 100]).unwrap();
        blobs.push(blob.digest);
    }
    let server = server(store.clone());
    let report = async |role, digests: &[Digest]| {
        let (ours, theirs) = duplex(1 << 16);
        let server = Arc::clone(&server);
        let serving = tokio::spawn(async move {
            let (reader, writer) = split(theirs);
            server.serve(reader, writer, blob_access(role, None)).await
        });
        let (_reader, mut writer) = split(ours);
        for &digest in digests {
            write_frame(&mut writer, &BlobRequest::ReportCorrupt { digest }).await.unwrap();
        }
        writer.shutdown().await.unwrap();
        serving.await.unwrap().unwrap();
    };
    report(Role::Viewer, &blobs[..20]).await;
    report(Role::Operator, &blobs[..20]).await;
    // Suspects are checked in order.
    report(Role::Member, &blobs[20..]).await;
    let checked = async {
        while blobs[20..].iter().any(|&digest| store.contains(digest)) {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, checked).await.expect("a member's reports are not all followed");
    assert_eq!(store.damaged(), u64::from(CLIENT_SUSPECTS_BURST) + 10);
}

#[tokio::test]
async fn files_that_a_client_does_not_read_occupy_its_own_memory_only() {
    const BYTES: usize = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path(), 0).unwrap();
    let blob = BlobRef { digest: Digest::of(&vec![7; BYTES]), size: BYTES as u64 };
    store.start_put(blob, None, vec![7; BYTES].into()).await.unwrap().done().await.unwrap();
    let server = server(store);
    let all = MemoryPool::new(64 << 20);
    let budget = || MemoryBudget { own: MemoryPool::new(4 << 20), all: all.clone() };
    let (anna, bert) = (budget(), budget());
    let ask = async |memory: Option<&MemoryBudget>, gets: u64| {
        let (mut ours, theirs) = duplex(1 << 10);
        let (server, role) =
            (Arc::clone(&server), if memory.is_some() { Role::Viewer } else { Role::Member });
        let access = blob_access(role, memory.cloned());
        tokio::spawn(async move {
            let (reader, writer) = split(theirs);
            server.serve(reader, writer, access).await
        });
        for id in 0..gets {
            write_frame(&mut ours, &BlobRequest::Get { id, digest: blob.digest, offset: 0 }).await.unwrap();
        }
        ours
    };
    let is_answered = async |mut stream: DuplexStream| {
        let reply = timeout(SOON, read_frame::<BlobReply, _>(&mut stream)).await.unwrap().unwrap();
        assert!(matches!(reply, BlobReply::Data { .. }), "{reply:?}");
        timeout(SOON, stream.read_exact(&mut vec![0; BYTES])).await.unwrap().unwrap();
    };
    let mut unread = Vec::new();
    for _ in 0..16 {
        unread.push(ask(Some(&anna), 4).await);
    }
    let all_taken = async {
        while anna.own.free_bytes() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, all_taken).await.expect("what waits for its reader is not counted");
    assert_eq!(all.free_bytes(), 60 << 20, "an identity takes its own part and no more");
    is_answered(ask(Some(&bert), 1).await).await;
    is_answered(ask(None, 1).await).await;
    drop(unread);
    is_answered(ask(Some(&anna), 1).await).await;
}
