use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{DuplexStream, duplex, split};
use tokio::time::{Instant, sleep, timeout};

use super::super::slot::Slot;
use super::super::table::{Limits, REOPEN_MIN};
use super::super::{BlobLane, Connections, Lane, LiveMember, Members, PeerError};
use crate::client::frames::{read_frame, write_frame};
use crate::client::link::{BoxFuture, Dial, DialError, Link};
use crate::ids::NodeId;
use crate::wire::blobs::Holder;
use crate::wire::consensus::{ConsensusReply, ConsensusRequest};
use crate::wire::control::{ControlReply, ControlRequest};
use crate::wire::frame::{Answer, Call, Purpose, Reply, Request};

pub(super) const LIMIT: Duration = Duration::from_secs(10);
pub(super) const NODE: NodeId = NodeId(9);

pub(super) fn address() -> SocketAddr {
    ([127, 0, 0, 1], 9).into()
}

pub(super) fn link(stream: DuplexStream) -> Link {
    let (reader, writer) = split(stream);
    Link { reader: Box::new(reader), writer: Box::new(writer), node: Some(NODE) }
}

/// Its first connection ends at once, as when the peer is killed; then the host takes another one and drops it
/// unanswered, and only then it refuses.
#[derive(Default)]
struct Dying(AtomicUsize);

impl Dial for Dying {
    fn dial(&self, address: SocketAddr, _purpose: Purpose) -> BoxFuture<'_, Result<Link, DialError>> {
        let dialled = self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            match dialled {
                0 => Ok(link(duplex(64).0)),
                1 => Err(DialError::Rejected { address, reason: String::from("it is stopping") }),
                _ => Err(DialError::Refused { address }),
            }
        })
    }
}

pub(super) fn one_member(kept: bool) -> Members {
    let live = [(NODE, LiveMember { address: address(), generation: 1 })].into();
    let kept = kept.then_some((NODE, Lane::Calls)).into_iter().collect();
    Members { live, kept, proves_deaths: true }
}

#[tokio::test]
async fn a_peer_whose_connection_ends_is_dialled_until_its_death_is_proven() {
    let dying = Arc::new(Dying::default());
    let connections = Connections::new(Arc::clone(&dying) as _);
    connections.set_members(one_member(true)).await;
    let proven = async {
        while dying.0.load(Ordering::Relaxed) < 3 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), proven).await.unwrap();
    sleep(3 * REOPEN_MIN).await;
    assert_eq!(dying.0.load(Ordering::Relaxed), 3, "it is not dialled after its death is proven");
}

/// A peer at the other end of pipes, and how often it was dialled.
#[derive(Default)]
struct Pipes {
    dials: AtomicUsize,
    /// For blobs; they are never read.
    held: Mutex<Vec<DuplexStream>>,
}

/// Bytes in one direction of a pipe: a large answer does not fit.
pub(super) const PIPE_BYTES: usize = 64 << 10;

impl Dial for Pipes {
    fn dial(&self, _address: SocketAddr, purpose: Purpose) -> BoxFuture<'_, Result<Link, DialError>> {
        self.dials.fetch_add(1, Ordering::Relaxed);
        let (near, far) = duplex(PIPE_BYTES);
        match purpose {
            Purpose::Blobs => self.held.lock().unwrap().push(far),
            Purpose::Calls => drop(tokio::spawn(serve(far))),
        }
        Box::pin(async move { Ok(link(near)) })
    }
}

/// Answers consensus at once; a list of models is megabytes, over a link that passes 64 KiB each 50 ms.
pub(super) async fn serve(stream: DuplexStream) {
    let (mut reader, mut writer) = split(stream);
    while let Ok(Call { id, request }) = read_frame(&mut reader).await {
        let reply = match request {
            Request::Consensus(_) => Reply::Consensus(ConsensusReply(Vec::new())),
            Request::Control(ControlRequest::Models) => {
                let (large, mut slow) = duplex(4 << 20);
                let mut large = large;
                let bytes = vec![7; 2 << 20];
                let backup = ControlReply::Backup { bytes, digest: None };
                let reply = Reply::Control(Box::new(backup));
                write_frame(&mut large, &Answer { id, more: false, reply }).await.unwrap();
                drop(large);
                trickle(&mut slow, &mut writer).await;
                continue;
            }
            _ => Reply::Control(Box::new(ControlReply::Done)),
        };
        if write_frame(&mut writer, &Answer { id, more: false, reply }).await.is_err() {
            return;
        }
    }
}

async fn trickle(from: &mut DuplexStream, to: &mut (impl tokio::io::AsyncWrite + Unpin)) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut buffer = vec![0; PIPE_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..count]).await.is_err() || to.flush().await.is_err() {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_large_answer_among_calls_does_not_delay_consensus() {
    let connections = Connections::new(Arc::new(Pipes::default()));
    let call = |request| connections.call_member(NODE, address(), request, LIMIT);
    let large = {
        let connections = connections.clone();
        let request = Request::Control(ControlRequest::Models);
        tokio::spawn(async move { connections.call_member(NODE, address(), request, LIMIT).await })
    };
    let started = Instant::now();
    sleep(Duration::from_millis(100)).await;
    let mut slowest = Duration::ZERO;
    while !large.is_finished() {
        let asked = Instant::now();
        let reply = call(Request::Consensus(ConsensusRequest::Vote(Vec::new()))).await;
        assert!(matches!(reply, Ok(Reply::Consensus(_))), "{reply:?}");
        slowest = slowest.max(asked.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    let large = (started.elapsed(), large.await.unwrap());
    assert!(matches!(large, (_, Ok(Reply::Control(_)))));
    assert!(large.0 > Duration::from_secs(1), "the large answer was to take long: {:?}", large.0);
    assert!(slowest < Duration::from_millis(250), "{slowest:?} beside an answer that took {:?}", large.0);
}

#[tokio::test]
async fn callers_share_one_connection_whether_they_know_the_member_or_its_address() {
    let pipes = Arc::new(Pipes::default());
    let connections = Connections::new(Arc::clone(&pipes) as _);
    let leave = || Request::Control(ControlRequest::Leave);
    let both = tokio::join!(
        connections.call(address(), leave(), LIMIT),
        connections.call(address(), leave(), LIMIT)
    );
    assert!(matches!(both, (Ok(_), Ok(_))));
    connections.call_member(NODE, address(), leave(), LIMIT).await.unwrap();
    assert_eq!(pipes.dials.load(Ordering::Relaxed), 1);
    let other = connections.call_member(NodeId(1), address(), leave(), LIMIT).await;
    assert!(matches!(other, Err(PeerError::Stranger { wanted: NodeId(1), .. })), "{other:?}");
    // Again, within the pause after it.
    let other = connections.call_member(NodeId(1), address(), leave(), LIMIT).await;
    assert!(matches!(other, Err(PeerError::Stranger { wanted: NodeId(1), .. })), "{other:?}");
}

#[tokio::test]
async fn a_chain_does_not_share_its_connection_and_returns_it() {
    let pipes = Arc::new(Pipes::default());
    let connections = Connections::new(Arc::clone(&pipes) as _);
    let next = Holder { node: NODE, address: address() };
    let (one, other) = tokio::join!(connections.chain(next), connections.chain(next));
    let (one, other) = (one.unwrap(), other.unwrap());
    let third = connections.chain(next).await.unwrap();
    assert_eq!(pipes.dials.load(Ordering::Relaxed), 3);
    drop((one, third));
    let again = (connections.chain(next).await.unwrap(), connections.chain(next).await.unwrap());
    assert_eq!(pipes.dials.load(Ordering::Relaxed), 3, "two were free");
    drop((again, other));
}

#[tokio::test]
async fn connections_to_a_member_that_left_are_closed() {
    let pipes = Arc::new(Pipes::default());
    let connections = Connections::new(Arc::clone(&pipes) as _);
    connections.set_members(one_member(false)).await;
    let connection = connections.connection(address()).await.unwrap();
    let closed = connection.closed();
    drop(connection);
    connections.set_members(Members::default()).await;
    timeout(LIMIT, closed).await.expect("it stays open");
}

#[tokio::test]
async fn each_lane_of_blobs_has_a_connection_of_its_own() {
    let pipes = Arc::new(Pipes::default());
    let connections = Connections::new(Arc::clone(&pipes) as _);
    let holder = Holder { node: NODE, address: address() };
    let lanes = [
        BlobLane::Puts,
        BlobLane::Gets,
        BlobLane::Large(0),
        BlobLane::Large(1),
        BlobLane::RepairGets,
        BlobLane::RepairLarge,
    ];
    for _ in 0..2 {
        for lane in lanes {
            connections.blobs(holder, lane).await.unwrap();
        }
        assert_eq!(pipes.dials.load(Ordering::Relaxed), lanes.len());
    }
    connections.connection(address()).await.unwrap();
    assert_eq!(pipes.dials.load(Ordering::Relaxed), lanes.len() + 1, "calls are apart too");
}

#[tokio::test]
async fn who_gets_no_connection_because_too_many_are_in_use_is_told_so() {
    let limits = Limits { calls: 1, ..Limits::default() };
    let connections = Connections::with_limits(Arc::new(Pipes::default()), limits);
    let used = connections.connection(address()).await.unwrap();
    let other = ([127, 0, 0, 1], 10).into();
    let full = connections.connection(other).await.map(drop).unwrap_err();
    assert_eq!(
        full.to_string(),
        "cannot connect to 127.0.0.1:10: this process has the most connections open that it may have, and all are in \
         use"
    );
    drop(used);
    // It makes room now. The peer behind both addresses is the same.
    connections.connection(other).await.unwrap();
}

#[tokio::test]
async fn a_call_in_a_lane_of_blobs_is_told_so() {
    let connections = Connections::new(Arc::new(Pipes::default()));
    let blobs = Slot::of_member(NODE, Lane::Blobs(BlobLane::Gets));
    let error = connections.calls(blobs, address()).await.map(drop);
    assert!(matches!(error, Err(PeerError::WrongLane { .. })), "{error:?}");
}
