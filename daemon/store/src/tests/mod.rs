//! Several holders and a stand-in for the coordinator in one process, over pipes whose faults a test chooses.

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

use self::coordinator::Coordinator;
use super::blobs::BlobStore;
use super::blobs::disk::Disk;
use super::scrub::{self, Scrub};
use super::server::{BlobServer, DISK_PATIENCE};

const PIPE_BYTES: usize = 256 << 10;
pub(super) const UPLOAD: UploadId = UploadId { term: Term(1), number: 1 };

/// What happens to the next connection to a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It ends after so many bytes towards the holder.
    CutTowards(u64),
    /// It ends after so many bytes from the holder.
    CutFrom(u64),
    /// One bit of this byte towards the holder is turned over.
    Flip(u64),
    /// It is open, and nobody reads or answers.
    Freeze,
}

struct Node {
    store: BlobStore,
    server: Arc<BlobServer>,
    directory: TempDir,
    down: bool,
    fault: Option<Fault>,
}

/// The network: who is at which address.
#[derive(Default)]
pub(super) struct World {
    nodes: Mutex<BTreeMap<SocketAddr, Node>>,
    pub(super) coordinator: Coordinator,
}

fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], u16::try_from(7000 + number).unwrap()))
}

pub(super) fn blob_of(bytes: &[u8]) -> BlobRef {
    BlobRef { digest: Digest::of(bytes), size: bytes.len() as u64 }
}

/// Bytes that differ from one seed to the next, and do not repeat.
pub(super) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

impl World {
    /// Holders numbered from 0, with ids one higher.
    pub(super) fn new(count: usize) -> Arc<Self> {
        let world = Arc::new(Self::default());
        for _ in 0..count {
            let directory = TempDir::new().unwrap();
            let store = BlobStore::open(directory.path(), 0).unwrap();
            world.add(store, directory, DISK_PATIENCE);
        }
        world.coordinator.set_members(world.holders());
        world
    }

    /// One more holder, on a disk of the test's own; the coordinator does not know it.
    pub(super) fn add_on(self: &Arc<Self>, disk: Box<dyn Disk>, patience: Duration) -> Holder {
        let directory = TempDir::new().unwrap();
        let store = BlobStore::open_on(directory.path(), 0, disk).unwrap();
        self.add(store, directory, patience)
    }

    fn add(self: &Arc<Self>, store: BlobStore, directory: TempDir, patience: Duration) -> Holder {
        let mut nodes = self.nodes.lock().unwrap();
        let holder = Holder { node: NodeId(nodes.len() as u64 + 1), address: address(nodes.len()) };
        let scrub = Scrub::start(store.clone(), scrub::PERIOD, CancellationToken::new());
        let mut server = BlobServer::new(holder.node, store.clone(), scrub, Connections::new(self.door()));
        server.patience = patience;
        let server = Arc::new(server);
        nodes.insert(holder.address, Node { store, server, directory, down: false, fault: None });
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

    pub(super) fn door(self: &Arc<Self>) -> Arc<dyn Dial> {
        Arc::new(TestConnector(Arc::clone(self)))
    }

    pub(super) fn files(self: &Arc<Self>) -> Files {
        Files::new(Cluster::new(self.door(), vec![coordinator::address()]))
    }

    pub(super) async fn connect(self: &Arc<Self>, number: usize) -> BlobConnection {
        BlobConnection::new(self.door().dial(address(number), Purpose::Blobs).await.unwrap())
    }

    fn with<T>(&self, number: usize, act: impl FnOnce(&mut Node) -> T) -> T {
        act(self.nodes.lock().unwrap().get_mut(&address(number)).unwrap())
    }

    pub(super) fn store(&self, number: usize) -> BlobStore {
        self.with(number, |node| node.store.clone())
    }

    pub(super) fn set_down(&self, number: usize, down: bool) {
        self.with(number, |node| node.down = down);
    }

    pub(super) fn inject(&self, number: usize, fault: Fault) {
        self.with(number, |node| node.fault = Some(fault));
    }

    /// Damages a blob on disk, if the holder has it.
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

struct TestConnector(Arc<World>);

impl Dial for TestConnector {
    fn dial(&self, address: SocketAddr, purpose: Purpose) -> BoxFuture<'_, Result<Link, DialError>> {
        Box::pin(async move {
            if purpose == Purpose::Calls {
                return Ok(coordinator::serve(&self.0));
            }
            let (node, server, fault) = {
                let mut nodes = self.0.nodes.lock().unwrap();
                let node = nodes.get_mut(&address).filter(|node| !node.down);
                let node = node.ok_or(DialError::Refused { address })?;
                let (server, fault) = (Arc::clone(&node.server), node.fault.take());
                let number = nodes.keys().position(|known| *known == address).unwrap_or_default();
                (NodeId(number as u64 + 1), server, fault)
            };
            let (near, far) = duplex(PIPE_BYTES);
            let far = match fault {
                None => far,
                Some(fault) => through(far, fault),
            };
            tokio::spawn(async move {
                let (reader, writer) = split(far);
                // Faults are what these tests are about; the callers' views of them are asserted.
                let _ = server.serve(reader, writer, true).await;
            });
            Ok(Link { node: Some(node), ..link(near) })
        })
    }
}

fn link(stream: DuplexStream) -> Link {
    let (reader, writer) = split(stream);
    Link { reader: Box::new(reader), writer: Box::new(writer), node: Some(NodeId(1)) }
}

/// Puts a fault between the caller's end and the end that is returned, which the holder gets.
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
