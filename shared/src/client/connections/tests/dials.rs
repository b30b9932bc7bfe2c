//! The manager while dials are in progress: the test decides when and how each ends. Time is paused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{DuplexStream, duplex};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::super::table::{BACK_OFF_MAX, IDLE_MAX, SWEEP_PERIOD};
use super::super::{BlobLane, Connections, PeerError, SILENCE_MAX};
use super::manager::{LIMIT, NODE, PIPE_BYTES, address, link, one_member, serve};
use crate::client::link::{BoxFuture, DIAL_TIMEOUT, Dial, DialError, Link};
use crate::ids::NodeId;
use crate::wire::blobs::Holder;
use crate::wire::control::ControlRequest;
use crate::wire::frame::{Purpose, Request};

type Outcome = Result<Link, DialError>;

/// Hands each dial to the test, and waits for the outcome that it decides on.
struct Held(mpsc::UnboundedSender<oneshot::Sender<Outcome>>);

impl Dial for Held {
    fn dial(&self, _address: SocketAddr, _purpose: Purpose) -> BoxFuture<'_, Outcome> {
        let (end, ended) = oneshot::channel();
        self.0.send(end).unwrap();
        Box::pin(async move { ended.await.unwrap() })
    }
}

fn held() -> (Connections, mpsc::UnboundedReceiver<oneshot::Sender<Outcome>>) {
    let (begun, dials) = mpsc::unbounded_channel();
    (Connections::new(Arc::new(Held(begun))), dials)
}

fn succeed(dial: oneshot::Sender<Outcome>) {
    tokio::spawn(serve(connect(dial)));
}

/// Ends a dial well; returns the peer's end of the connection.
fn connect(dial: oneshot::Sender<Outcome>) -> DuplexStream {
    let (near, far) = duplex(PIPE_BYTES);
    assert!(dial.send(Ok(link(near))).is_ok());
    far
}

fn request() -> Request {
    Request::Control(ControlRequest::Leave)
}

#[tokio::test(start_paused = true)]
async fn a_member_is_found_by_its_address_after_two_dials_overlapped() {
    let (connections, mut dials) = held();
    let by_address = {
        let connections = connections.clone();
        tokio::spawn(async move { connections.call(address(), request(), LIMIT).await })
    };
    let to_address = dials.recv().await.unwrap();
    connections.set_members(one_member(true)).await;
    let to_member = dials.recv().await.unwrap();
    succeed(to_address);
    by_address.await.unwrap().unwrap();
    succeed(to_member);
    connections.call_member(NODE, address(), request(), LIMIT).await.unwrap();

    // Only the connection to the member is kept.
    sleep(IDLE_MAX + 2 * SWEEP_PERIOD).await;
    for _ in 0..2 {
        connections.call(address(), request(), LIMIT).await.unwrap();
    }
    assert!(dials.try_recv().is_err(), "it is not dialled again");
}

#[tokio::test(start_paused = true)]
async fn opening_continues_when_the_caller_gives_up() {
    let (connections, mut dials) = held();
    let given_up = connections.call(address(), request(), Duration::from_millis(10)).await;
    assert!(matches!(given_up, Err(PeerError::Call { .. })), "{given_up:?}");
    succeed(dials.recv().await.unwrap());
    connections.call(address(), request(), LIMIT).await.unwrap();
    assert!(dials.try_recv().is_err(), "it is not dialled again");
}

#[tokio::test(start_paused = true)]
async fn no_caller_waits_longer_than_a_dial_may_take() {
    let (connections, _dials) = held();
    let (asked, next) = (Instant::now(), Holder { node: NODE, address: address() });
    let late = timeout(2 * DIAL_TIMEOUT, async {
        let calls = async { connections.connection(address()).await.map(drop) };
        let blobs = async { connections.blobs(next, BlobLane::Puts).await.map(drop) };
        let chain = async { connections.chain(next).await.map(drop) };
        <[_; 3]>::from(tokio::join!(calls, blobs, chain))
    });
    for late in late.await.expect("they still wait") {
        let Err(PeerError::Dial(error)) = late else { panic!("{late:?}") };
        assert!(matches!(*error, DialError::TimedOut { .. }), "{error}");
    }
    assert_eq!(asked.elapsed(), DIAL_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_panics_frees_its_slot() {
    let (connections, mut dials) = held();
    let call = || {
        let connections = connections.clone();
        tokio::spawn(async move { connections.call(address(), request(), LIMIT).await })
    };
    let failed = call();
    // The dial unwraps what it waits for.
    drop(dials.recv().await.unwrap());
    let failed = failed.await.unwrap();
    assert!(matches!(failed, Err(PeerError::Dial(_))), "{failed:?}");
    sleep(BACK_OFF_MAX).await;
    let again = call();
    succeed(dials.recv().await.unwrap());
    again.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_times_out_in_long_silence_drops_the_connection() {
    let (connections, mut dials) = held();
    let call = |limit| connections.call(address(), request(), limit);
    let (open, _silent) =
        tokio::join!(connections.connection(address()), async { connect(dials.recv().await.unwrap()) });
    drop(open.unwrap());
    assert!(call(SILENCE_MAX / 2).await.is_err());
    assert!(call(SILENCE_MAX / 4).await.is_err());
    assert!(dials.try_recv().is_err(), "it may only be slow");
    assert!(call(SILENCE_MAX).await.is_err());
    let (answered, ()) = tokio::join!(call(LIMIT), async {
        let again = timeout(LIMIT, dials.recv()).await.expect("it is not dialled again");
        succeed(again.unwrap());
    });
    answered.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pause_after_a_stranger_names_the_stranger_not_an_earlier_failure() {
    let (connections, mut dials) = held();
    let call = || connections.call_member(NodeId(1), address(), request(), LIMIT);
    let (failed, ()) = tokio::join!(call(), async {
        let refused = Err(DialError::Refused { address: address() });
        assert!(dials.recv().await.unwrap().send(refused).is_ok());
    });
    assert!(failed.unwrap_err().is_refused());
    sleep(BACK_OFF_MAX).await;
    let (stranger, ()) = tokio::join!(call(), async { succeed(dials.recv().await.unwrap()) });
    for stranger in [stranger, call().await] {
        assert!(matches!(stranger, Err(PeerError::Stranger { .. })), "{stranger:?}");
    }
}
