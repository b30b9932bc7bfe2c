//! The manager while dials are in progress: the test decides when and how each ends. Time is paused.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::duplex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::super::Connections;
use super::super::table::{IDLE_MAX, SWEEP_PERIOD};
use super::manager::{LIMIT, NODE, PIPE_BYTES, address, link, one_member, serve};
use crate::client::link::{BoxFuture, Dial, DialError, Link};
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
    let (near, far) = duplex(PIPE_BYTES);
    tokio::spawn(serve(far));
    assert!(dial.send(Ok(link(near))).is_ok());
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
