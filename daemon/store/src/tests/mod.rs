//! Several holders and a fake coordinator in one process, over pipes with injected faults.

mod chain;
mod coordinator;
mod files;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use idunno_shared::client::cluster::Cluster;
use idunno_shared::client::connections::Connections;
use idunno_shared::client::files::Files;
use idunno_shared::client::files::connection::BlobConnection;
use idunno_shared::client::link::{BoxFuture, Dial, DialError, Link};
use idunno_shared::ids::{Digest, NodeId, Term, UploadId};
use idunno_shared::wire::blobs::{BlobRef, Holder};
use idunno_shared::wire::frame::Purpose;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio_util::sync::CancellationToken;

use self::coordinator::FakeCoordinator;
use super::access::BlobAccess;
use super::blobs::disk::BlobDisk;
use super::blobs::{BlobStore, WatchedDisk};
use super::scrub::{self, Scrub};
use super::server::{BlobServer, ClusterKnowledge, DISK_TIMEOUT};

const PIPE_BYTES: usize = 256 << 10;
pub(super) const UPLOAD: UploadId = UploadId { term: Term(1), number: 1 };

/// A fault of the next connection to a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It closes after this many bytes towards the holder.
    CutTowards(u64),
    /// It closes after this many bytes from the holder.
    CutFrom(u64),
    /// A bit of this byte towards the holder is flipped.
    Flip(u64),
    /// It stays open, but the holder neither reads nor replies.
    Freeze,
}

struct TestNode {
    store: BlobStore,
    server: Arc<BlobServer>,
    directory: TempDir,
    down: bool,
    /// Ends the connections to it.
    stop: CancellationToken,
    fault: Option<Fault>,
}

/// The holders by address, and the coordinator.
#[derive(Default)]
pub(super) struct TestCluster {
    nodes: Mutex<BTreeMap<SocketAddr, TestNode>>,
    pub(super) coordinator: FakeCoordinator,
}

fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], u16::try_from(7000 + number).unwrap()))
}

pub(super) fn blob_of(bytes: &[u8]) -> BlobRef {
    BlobRef { digest: Digest::of(bytes), size: bytes.len() as u64 }
}

/// Pseudo-random bytes of a seed.
pub(super) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

impl ClusterKnowledge for TestCluster {
    fn has(&self, holder: Holder) -> bool {
        self.holders().contains(&holder)
    }

    fn has_begun(&self, term: Term) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(term <= UPLOAD.term))
    }
}

impl TestCluster {
    /// Holder number n has the id n + 1.
    pub(super) fn new(count: usize) -> Arc<Self> {
        let cluster = Arc::new(Self::default());
        for _ in 0..count {
            let directory = TempDir::new().unwrap();
            let store = BlobStore::open(directory.path(), 0).unwrap();
            cluster.add(store, directory, DISK_TIMEOUT);
        }
        cluster.coordinator.set_members(cluster.holders());
        cluster
    }

    /// Adds a holder on the given disk; the coordinator does not know it.
    pub(super) fn add_on(self: &Arc<Self>, disk: Box<dyn BlobDisk>, disk_timeout: Duration) -> Holder {
        let directory = TempDir::new().unwrap();
        let disk = WatchedDisk::new(disk, disk_timeout);
        let store = BlobStore::open_on(directory.path(), 0, disk).unwrap();
        self.add(store, directory, disk_timeout)
    }

    fn add(self: &Arc<Self>, store: BlobStore, directory: TempDir, disk_timeout: Duration) -> Holder {
        let mut nodes = self.nodes.lock().unwrap();
        let holder = Holder { node: NodeId(nodes.len() as u64 + 1), address: address(nodes.len()) };
        let scrub = Scrub::start(store.clone(), scrub::PERIOD, CancellationToken::new());
        let mut server = BlobServer::new(
            holder.node,
            store.clone(),
            scrub,
            Connections::new(self.connector()),
            self.clone(),
        );
        server.disk_timeout = disk_timeout;
        let server = Arc::new(server);
        nodes.insert(
            holder.address,
            TestNode { store, server, directory, down: false, stop: CancellationToken::new(), fault: None },
        );
        holder
    }

    pub(super) fn holders(&self) -> Vec<Holder> {
        let nodes = self.nodes.lock().unwrap();
        let holder = |(number, address): (usize, &SocketAddr)| Holder {
            node: NodeId(number as u64 + 1),
            address: *address,
        };
        nodes.keys().enumerate().map(holder).collect()
    }

    pub(super) fn connector(self: &Arc<Self>) -> Arc<dyn Dial> {
        Arc::new(TestConnector(Arc::clone(self)))
    }

    pub(super) fn files(self: &Arc<Self>) -> Files {
        Files::new(Cluster::new(self.connector(), vec![coordinator::address()]))
    }

    pub(super) async fn connect(self: &Arc<Self>, number: usize) -> BlobConnection {
        BlobConnection::new(self.connector().dial(address(number), Purpose::Blobs).await.unwrap())
    }

    fn with<T>(&self, number: usize, act: impl FnOnce(&mut TestNode) -> T) -> T {
        act(self.nodes.lock().unwrap().get_mut(&address(number)).unwrap())
    }

    pub(super) fn store(&self, number: usize) -> BlobStore {
        self.with(number, |node| node.store.clone())
    }

    pub(super) fn set_down(&self, number: usize, down: bool) {
        self.with(number, |node| {
            node.down = down;
            if down {
                std::mem::take(&mut node.stop).cancel();
            }
        });
    }

    pub(super) fn inject(&self, number: usize, fault: Fault) {
        self.with(number, |node| node.fault = Some(fault));
    }

    /// Damages a blob on disk, if the holder stores it.
    pub(super) fn damage(&self, number: usize, digest: Digest) -> bool {
        let name = digest.to_string();
        let path =
            self.with(number, |node| node.directory.path().join("blobs").join(&name[..2]).join(&name[2..]));
        let Ok(mut bytes) = std::fs::read(&path) else { return false };
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        true
    }
}

struct TestConnector(Arc<TestCluster>);

impl Dial for TestConnector {
    fn dial(&self, address: SocketAddr, purpose: Purpose) -> BoxFuture<'_, Result<Link, DialError>> {
        Box::pin(async move {
            if purpose == Purpose::Calls {
                return Ok(coordinator::serve(&self.0));
            }
            let (node, server, stop, fault) = {
                let mut nodes = self.0.nodes.lock().unwrap();
                let node = nodes.get_mut(&address).filter(|node| !node.down);
                let node = node.ok_or(DialError::Refused { address })?;
                let (server, stop, fault) = (Arc::clone(&node.server), node.stop.clone(), node.fault.take());
                let number = nodes.keys().position(|known| *known == address).unwrap_or_default();
                (NodeId(number as u64 + 1), server, stop, fault)
            };
            let (near, far) = duplex(PIPE_BYTES);
            let far = match fault {
                None => far,
                Some(fault) => through(far, fault),
            };
            tokio::spawn(async move {
                let (reader, writer) = split(far);
                // Injected faults end connections; the tests assert what callers see.
                let access = BlobAccess { may_store: true, is_member: true, memory: None };
                let _ = stop.run_until_cancelled(server.serve(reader, writer, access)).await;
            });
            Ok(Link { node: Some(node), ..link(near) })
        })
    }
}

fn link(stream: DuplexStream) -> Link {
    let (reader, writer) = split(stream);
    Link { reader: Box::new(reader), writer: Box::new(writer), node: Some(NodeId(1)) }
}

/// Inserts a fault between the caller and the holder, and returns the holder's end.
fn through(caller: DuplexStream, fault: Fault) -> DuplexStream {
    let (mine, holder) = duplex(PIPE_BYTES);
    tokio::spawn(async move {
        if fault == Fault::Freeze {
            let _open = (caller, mine);
            return std::future::pending().await;
        }
        let (from_caller, to_caller) = split(caller);
        let (from_holder, to_holder) = split(mine);
        let (towards, from) = match fault {
            Fault::CutTowards(bytes) => ((Some(bytes), None), None),
            Fault::Flip(at) => ((None, Some(at)), None),
            Fault::CutFrom(bytes) => ((None, None), Some(bytes)),
            Fault::Freeze => ((None, None), None),
        };
        tokio::select! {
            () = pass(from_caller, to_holder, towards.0, towards.1) => {}
            () = pass(from_holder, to_caller, from, None) => {}
        }
    });
    holder
}

async fn pass(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    cut: Option<u64>,
    flip: Option<u64>,
) {
    let mut buffer = vec![0; 64 << 10];
    let mut passed = 0;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if let Some(at) = flip.and_then(|at| at.checked_sub(passed)).filter(|at| *at < count as u64) {
            buffer[usize::try_from(at).unwrap()] ^= 1;
        }
        passed += count as u64;
        if cut.is_some_and(|cut| passed > cut) || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
