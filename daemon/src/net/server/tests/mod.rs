//! Greetings, calls and their ends; [`limits`] has what keeps one peer from using up what others need.

mod limits;

use std::net::{Ipv4Addr, SocketAddr};

use idunno_shared::access::Grant;
use idunno_shared::client::connection::{CallError, Connection};
use idunno_shared::client::connections::{Connections, PeerError};
use idunno_shared::client::link::{Dial, DialError};
use idunno_shared::client::transport::TcpConnector;
use idunno_shared::security::Credentials;
use idunno_shared::security::secret::Secret;
use idunno_shared::wire::control::{ControlReply, ControlRequest, LogCursor, LogPage};
use idunno_shared::wire::frame::{FRAME_BYTES_MAX, encode_frame};
use idunno_shared::wire::version::SPOKEN;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::super::connection_limits::MemoryLimits;
use super::super::transport::{Listener, MemberConnector};
use super::*;
use idunno_shared::client::frames::read_frame;

/// The address of a known member.
const KNOWN: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 99));

/// The size of the answer to a request for models.
const LARGE_BYTES: usize = 1 << 20;

struct Echo;

impl Service for Echo {
    fn node(&self) -> Option<NodeId> {
        Some(NodeId(7))
    }

    async fn request(&self, request: Request, _from: &Caller) -> Response {
        match request {
            Request::Control(ControlRequest::Join) => std::future::pending().await,
            Request::Control(ControlRequest::Models) => {
                let end = LogCursor { file: String::new(), offset: 0 };
                let page = LogPage { end, cut: false, bytes: vec![0; LARGE_BYTES] };
                Reply::Control(Box::new(ControlReply::Log(page))).into()
            }
            Request::Control(ControlRequest::Watch) => {
                let (sender, replies) = mpsc::channel(1);
                sender.try_send(Reply::Election).unwrap();
                Response::Many(replies)
            }
            _ => Reply::Control(Box::new(ControlReply::Done)).into(),
        }
    }

    fn knows(&self, address: IpAddr) -> bool {
        address == KNOWN
    }

    async fn blobs(&self, _link: Link, _access: BlobAccess) {}
}

async fn server(stop: &CancellationToken) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    limited_server(stop, Limits::default()).await
}

async fn limited_server(
    stop: &CancellationToken,
    limits: Limits,
) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    server_of(&Credentials::insecure(), stop, limits).await
}

async fn server_of(
    credentials: &Credentials,
    stop: &CancellationToken,
    limits: Limits,
) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let local = "127.0.0.1:0".parse().unwrap();
    let listening = Listener::bind(local, credentials).await.unwrap();
    let address = listening.address();
    let (connections, _datagrams) = listening.split().unwrap();
    (address, tokio::spawn(serve(connections, Arc::new(Echo), limits, Revocations::default(), stop.clone())))
}

async fn hello(address: SocketAddr, hello: Hello) -> Result<HelloReply, FrameIoError> {
    let mut stream = TcpStream::connect(address).await?;
    write_greeting(&mut stream, &hello).await?;
    read_frame(&mut stream).await
}

#[tokio::test]
async fn incompatible_peers_are_refused_with_a_reason_or_disconnected() {
    let stop = CancellationToken::new();
    let (address, serving) = server(&stop).await;
    let good = Hello::new(Purpose::Calls, None);
    let (older, newer) = (SPOKEN.oldest - 1, SPOKEN.newest + 1);
    for (oldest, version) in [(newer, newer), (older, older), (newer, older)] {
        let other_version = Hello { version, oldest, ..good.clone() };
        let Ok(HelloReply::Refused { reason, revoked: false }) = hello(address, other_version).await else {
            panic!()
        };
        assert!(reason.contains("of the protocol"), "{reason}");
    }
    // A neighbouring release, which also speaks one of our versions.
    for (oldest, version, spoken) in
        [(SPOKEN.newest, newer, SPOKEN.newest), (older, SPOKEN.oldest, SPOKEN.oldest)]
    {
        match hello(address, Hello { version, oldest, ..good.clone() }).await {
            Ok(HelloReply::Welcome { version, .. }) => assert_eq!(version, spoken),
            other => panic!("{other:?}"),
        }
    }
    let other_program = Hello { magic: 1, ..good.clone() };
    assert!(matches!(hello(address, other_program).await, Ok(HelloReply::Refused { .. })));

    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0, 0, 2, 0xc1, 0xc1], &[0xff; 64]] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let mut answer = Vec::new();
        // The connection ends or is reset.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "{garbage:?}");
    }
    assert!(matches!(hello(address, good).await, Ok(HelloReply::Welcome { node: Some(NodeId(7)), .. })));
    stop.cancel();
    serving.await.unwrap();
}

#[test]
fn a_request_that_does_not_decode_keeps_its_number() {
    #[derive(serde::Serialize)]
    struct Odd {
        id: u64,
        request: &'static str,
    }
    let mut frame = Vec::new();
    encode_frame(&Odd { id: 9, request: "Nonsense" }, &mut frame).unwrap();
    let (id, request) = decode_call(&frame[4..]).unwrap();
    let refusal = request.unwrap_err();
    assert_eq!((id, refusal.code), (9, RefusalCode::Invalid));
    for garbage in [&b""[..], &[0xff; 16], b"GET / HTTP/1.1"] {
        assert!(decode_call(garbage).is_err(), "{garbage:?}");
    }
}

#[tokio::test]
async fn a_watcher_learns_that_the_stream_has_ended() {
    let stop = CancellationToken::new();
    let (address, _serving) = server(&stop).await;
    let connection = Connection::new(
        TcpConnector::new(Credentials::insecure()).dial(address, Purpose::Calls).await.unwrap(),
    );
    let mut replies = connection.watch(Request::Control(ControlRequest::Watch)).await.unwrap();
    let mut next = async || timeout(Duration::from_secs(10), replies.recv()).await.unwrap();
    assert!(matches!(next().await, Some(Reply::Election)));
    assert!(matches!(next().await, Some(Reply::Refused(_))));
    assert!(next().await.is_none());
    assert!(!connection.is_closed(), "other calls go on");
    stop.cancel();
}

#[tokio::test]
async fn a_stopping_server_ends_its_connections_and_their_requests() {
    let stop = CancellationToken::new();
    let (address, serving) = server(&stop).await;
    let connection = Connection::new(
        TcpConnector::new(Credentials::insecure()).dial(address, Purpose::Calls).await.unwrap(),
    );
    let hold = {
        let connection = connection.clone();
        let request = Request::Control(ControlRequest::Join);
        tokio::spawn(async move { connection.call(request, Duration::from_secs(30)).await })
    };
    let done = connection.call(Request::Control(ControlRequest::Leave), Duration::from_secs(30)).await;
    assert!(matches!(done, Ok(Reply::Control(_))), "a pending call does not block others");
    stop.cancel();
    serving.await.unwrap();
    assert!(matches!(hold.await.unwrap(), Err(CallError::Closed)));
}

#[tokio::test]
async fn a_member_at_another_members_old_address_does_not_answer_for_it() {
    let stop = CancellationToken::new();
    let (address, _serving) = server(&stop).await;
    let peers = Connections::new(Arc::new(TcpConnector::new(Credentials::insecure())));
    let ask = |member| {
        let request = Request::Control(ControlRequest::Leave);
        peers.call_member(member, address, request, Duration::from_secs(10))
    };
    assert!(matches!(ask(NodeId(7)).await, Ok(Reply::Control(_))));
    let other = ask(NodeId(6)).await;
    assert!(matches!(other, Err(PeerError::Stranger { wanted: NodeId(6), .. })), "{other:?}");
    stop.cancel();
}

#[tokio::test]
async fn a_frozen_peer_costs_a_call_its_limit_and_no_more() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peers = Connections::new(Arc::new(TcpConnector::new(Credentials::insecure())));
    let limit = Duration::from_millis(100);
    let started = tokio::time::Instant::now();
    let request = Request::Control(ControlRequest::Members);
    let answer = peers.call(listener.local_addr().unwrap(), request, limit).await;
    assert!(matches!(answer, Err(PeerError::Call { source: CallError::TimedOut(_), .. })));
    assert!(started.elapsed() < Duration::from_secs(1), "the limit holds for the hello too");
}
