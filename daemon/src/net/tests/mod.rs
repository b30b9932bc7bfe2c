//! Peers without a valid certificate, or with one that does not match their claim, are refused and learn why.

mod blobs;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use idunno_shared::access::Grant;
use idunno_shared::client::connection::Connection;
use idunno_shared::client::frames::write_frame;
use idunno_shared::client::link::{Dial, DialError, Link};
use idunno_shared::client::transport::TcpConnector;
use idunno_shared::ids::NodeId;
use idunno_shared::security::secret::{KeyRotation, Secret};
use idunno_shared::security::trust::TrustError;
use idunno_shared::security::{Credentials, Role};
use idunno_shared::wire::control::{ControlReply, ControlRequest};
use idunno_shared::wire::frame::{FRAME_BYTES_MAX, Purpose, Reply, Request};
use idunno_shared::wire::membership::{Bounded, IntroductionRequest};
use idunno_shared::wire::refusal::RefusalCode;
use idunno_store::access::BlobAccess;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::connection_limits::Limits;
use super::revocations::Revocations;
use super::server::{Caller, Response, Service, serve};
use super::transport::{DATAGRAM_BYTES_MAX, Datagrams, Listener, MemberConnector};

const SOON: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(24 * 3_600);

struct Echo;

impl Service for Echo {
    fn node(&self) -> Option<NodeId> {
        Some(NodeId(7))
    }

    async fn request(&self, _request: Request, _from: &Caller) -> Response {
        Reply::Control(Box::new(ControlReply::Done)).into()
    }

    /// Answers whether the caller may store.
    async fn blobs(&self, mut link: Link, access: BlobAccess) {
        link.writer.write_all(&[u8::from(access.may_store)]).await.unwrap();
        link.writer.flush().await.unwrap();
    }
}

struct Server {
    address: SocketAddr,
    credentials: Credentials,
    _stop: tokio_util::sync::DropGuard,
}

async fn server(credentials: Credentials) -> Server {
    let stop = CancellationToken::new();
    let listening = Listener::bind("127.0.0.1:0".parse().unwrap(), &credentials).await.unwrap();
    let address = listening.address();
    let (connections, _datagrams) = listening.split().unwrap();
    tokio::spawn(serve(connections, Arc::new(Echo), Limits::default(), Revocations::default(), stop.clone()));
    Server { address, credentials, _stop: stop.drop_guard() }
}

fn copy(secret: &Secret, dir: &tempfile::TempDir) -> Secret {
    let path = dir.path().join("secret");
    idunno_shared::security::private_file::replace(&path, &secret.render()).unwrap();
    Secret::load(&path).unwrap()
}

/// A server and its secret.
async fn secure() -> (Server, Secret) {
    let (secret, dir) = (Secret::generate().unwrap(), tempfile::tempdir().unwrap());
    (server(Credentials::of_member(copy(&secret, &dir)).unwrap()).await, secret)
}

async fn dial(server: &Server, credentials: Credentials) -> Result<Link, DialError> {
    TcpConnector::new(credentials).dial(server.address, Purpose::Calls).await
}

fn person(secret: &Secret, role: Role, valid: Duration) -> Credentials {
    Credentials::of(&secret.mint(role, valid).unwrap()).unwrap()
}

async fn doubt(server: &Server, credentials: Credentials) -> TrustError {
    match dial(server, credentials).await {
        Err(DialError::Doubtful { doubt, .. }) => doubt,
        other => panic!("{:?}", other.err()),
    }
}

#[tokio::test]
async fn peers_with_the_secret_or_an_identity_are_admitted() {
    let (server, secret) = secure().await;
    for role in Role::ALL {
        let connection = Connection::new(dial(&server, person(&secret, role, DAY)).await.unwrap());
        assert_eq!(connection.node(), Some(NodeId(7)));
        let answer = connection.call(Request::Control(ControlRequest::Members), SOON).await;
        assert!(matches!(answer, Ok(Reply::Control(_))), "{role}: {answer:?}");
    }
    let member = MemberConnector::new(NodeId(8), server.credentials.clone());
    let connection = Connection::new(member.dial(server.address, Purpose::Calls).await.unwrap());
    let answer = connection.call(Request::Introduction(introduce()), SOON).await;
    assert!(matches!(answer, Ok(Reply::Control(_))), "{answer:?}");
}

fn introduce() -> IntroductionRequest {
    let (name, address) = ("m".parse().unwrap(), "127.0.0.1:9".parse().unwrap());
    let supersedes = Bounded::default();
    IntroductionRequest::Introduce {
        id: NodeId(8),
        name,
        address,
        founder: None,
        must_join: false,
        supersedes,
    }
}

#[tokio::test]
async fn peers_without_a_valid_certificate_learn_what_is_wrong() {
    let (server, secret) = secure().await;
    let other = Secret::generate().unwrap();
    assert_eq!(doubt(&server, person(&other, Role::Operator, DAY)).await, TrustError::OtherCluster);
    assert_eq!(doubt(&server, Credentials::of_member(other).unwrap()).await, TrustError::OtherCluster);
    // A file that trusts this cluster, but holds another cluster's certificate.
    let (ours, dir) = (secret.mint(Role::Operator, DAY).unwrap(), tempfile::tempdir().unwrap());
    let theirs = Secret::generate().unwrap().mint(Role::Operator, DAY).unwrap();
    let own = theirs.render().split_inclusive("KEY-----\n").take(2).collect::<String>();
    let trusted = ours.render().split_inclusive("KEY-----\n").nth(2).unwrap().to_owned();
    let path = dir.path().join("mixed.pem");
    idunno_shared::security::private_file::create(&path, &(own + &trusted)).unwrap();
    assert!(Credentials::load(&path).is_err(), "the mismatch is found when the file is loaded");
    let expired = person(&secret, Role::Operator, Duration::ZERO);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    match doubt(&server, expired).await {
        TrustError::NotAccepted(why) => assert!(why.contains("expired"), "{why}"),
        other => panic!("{other}"),
    }
    match dial(&server, Credentials::insecure()).await {
        Err(error @ DialError::NeedsIdentity { .. }) => assert!(error.to_string().contains("--identity")),
        other => panic!("{:?}", other.err()),
    }
    dial(&server, person(&secret, Role::Viewer, DAY)).await.unwrap();
}

#[tokio::test]
async fn a_console_is_no_member_in_either_direction() {
    let (server, secret) = secure().await;
    for role in Role::ISSUED {
        let claims = TcpConnector::of_member(NodeId(9), person(&secret, role, DAY));
        for purpose in [Purpose::Calls, Purpose::Blobs] {
            match claims.dial(server.address, purpose).await {
                Err(DialError::Rejected { reason, .. }) => assert!(reason.contains(role.name()), "{reason}"),
                other => panic!("{:?}", other.err()),
            }
        }
        let connection = Connection::new(dial(&server, person(&secret, role, DAY)).await.unwrap());
        match connection.call(Request::Introduction(introduce()), SOON).await {
            Ok(Reply::Refused(refusal)) => assert_eq!(refusal.code, RefusalCode::Forbidden),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_viewer_stores_nothing() {
    let (server, secret) = secure().await;
    for (role, may_store) in [(Role::Viewer, 0), (Role::Submitter, 1), (Role::Operator, 1)] {
        let connector = TcpConnector::new(person(&secret, role, DAY));
        let mut link = connector.dial(server.address, Purpose::Blobs).await.unwrap();
        assert_eq!(link.reader.read_u8().await.unwrap(), may_store, "{role}");
    }
}

#[tokio::test]
async fn other_protocols_and_silent_connections_do_not_block_the_listener() {
    let (server, secret) = secure().await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0, 0, 2, 0xc1, 0xc1], &[0xff; 64], &[0x16, 3, 1, 2]]
    {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // The connection ends or is reset, after a TLS alert at most.
        let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("it stays open");
        assert!(answer.len() <= 7, "{garbage:?}: {answer:?}");
    }
    let dialled = timeout(Duration::from_secs(1), dial(&server, person(&secret, Role::Viewer, DAY))).await;
    assert!(dialled.expect("silent connections block the listener").is_ok());
    for mut stream in silent {
        let _ =
            timeout(SOON, stream.read_to_end(&mut Vec::new())).await.expect("a silent connection stays open");
    }
}

#[tokio::test]
async fn a_frame_beyond_the_limit_ends_the_connection() {
    let (server, secret) = secure().await;
    let mut link = dial(&server, person(&secret, Role::Operator, DAY)).await.unwrap();
    let length = u32::try_from(FRAME_BYTES_MAX + 1).unwrap();
    link.writer.write_all(&length.to_be_bytes()).await.unwrap();
    link.writer.flush().await.unwrap();
    let ended = timeout(SOON, link.reader.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "it stays open");
}

#[tokio::test]
async fn peers_that_differ_about_tls_report_it() {
    let plain = server(Credentials::insecure()).await;
    let error =
        dial(&plain, Credentials::of_member(Secret::generate().unwrap()).unwrap()).await.err().unwrap();
    assert!(error.to_string().contains("--insecure"), "{error}");
    // A server that answers without TLS is not a member.
    let plain_text = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = plain_text.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = plain_text.accept().await.unwrap();
        write_frame(&mut stream, &"a greeting in plain text, longer than the header of a frame")
            .await
            .unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
    });
    let connector = TcpConnector::new(Credentials::of_member(Secret::generate().unwrap()).unwrap());
    match connector.dial(address, Purpose::Calls).await {
        Err(DialError::Doubtful { doubt: TrustError::NoTls, .. }) => {}
        other => panic!("{:?}", other.err()),
    }
}

#[tokio::test]
async fn a_caller_that_is_no_longer_trusted_is_disconnected() {
    let (server, mut secret) = secure().await;
    let dir = tempfile::tempdir().unwrap();
    let old = Connection::new(dial(&server, person(&secret, Role::Operator, DAY)).await.unwrap());
    for step in [KeyRotation::Add, KeyRotation::Sign] {
        secret.rotate(step).unwrap();
        server.credentials.replace(copy(&secret, &dir)).unwrap();
    }
    let new = Connection::new(dial(&server, person(&secret, Role::Operator, DAY)).await.unwrap());
    let call = async |connection: &Connection| {
        connection.call(Request::Control(ControlRequest::Members), SOON).await.is_ok()
    };
    assert!(call(&old).await && call(&new).await);
    secret.rotate(KeyRotation::Drop).unwrap();
    server.credentials.replace(copy(&secret, &dir)).unwrap();
    timeout(SOON, old.closed()).await.expect("the dropped key's connection stays open");
    assert!(call(&new).await);
}

#[tokio::test]
async fn a_server_that_is_no_longer_trusted_is_disconnected() {
    // This server keeps the old key, and does not close the connection itself.
    let (outdated, mut secret) = secure().await;
    let dir = tempfile::tempdir().unwrap();
    let ours = Credentials::of_member(copy(&secret, &dir)).unwrap();
    let connector = MemberConnector::new(NodeId(8), ours.clone());
    let old = Connection::new(connector.dial(outdated.address, Purpose::Calls).await.unwrap());
    let mut idle = connector.dial(outdated.address, Purpose::Blobs).await.unwrap();
    for step in [KeyRotation::Add, KeyRotation::Sign] {
        secret.rotate(step).unwrap();
        ours.replace(copy(&secret, &dir)).unwrap();
    }
    let rotated = server(Credentials::of_member(copy(&secret, &dir)).unwrap()).await;
    let new = Connection::new(connector.dial(rotated.address, Purpose::Calls).await.unwrap());
    let call = async |connection: &Connection| {
        connection.call(Request::Control(ControlRequest::Members), SOON).await.is_ok()
    };
    assert!(call(&old).await && call(&new).await);
    secret.rotate(KeyRotation::Drop).unwrap();
    ours.replace(copy(&secret, &dir)).unwrap();
    timeout(SOON, old.closed()).await.expect("the dropped key's connection stays open");
    assert!(idle.writer.write_all(b"bytes").await.is_err(), "bytes are sent to a peer that is not trusted");
    assert!(call(&new).await);
}

async fn datagrams(credentials: &Credentials) -> (SocketAddr, Datagrams) {
    let listening = Listener::bind("127.0.0.1:0".parse().unwrap(), credentials).await.unwrap();
    (listening.address(), listening.split().unwrap().1)
}

/// Sends until the tap receives it: a socket whose readiness is not known yet drops datagrams.
async fn tapped(
    from: &mut Datagrams,
    bytes: &[u8],
    at: SocketAddr,
    tap: &UdpSocket,
    seen: &mut [u8],
) -> usize {
    loop {
        from.send(bytes, at).unwrap();
        if let Ok(length) = timeout(Duration::from_millis(100), tap.recv(seen)).await {
            return length.unwrap();
        }
    }
}

#[tokio::test]
async fn only_members_datagrams_arrive_and_each_once() {
    let ours = Credentials::of_member(Secret::generate().unwrap()).unwrap();
    let ((address, mut receiver), (_, mut sender)) = (datagrams(&ours).await, datagrams(&ours).await);
    let theirs = Credentials::of_member(Secret::generate().unwrap()).unwrap();
    let (_, mut foreign) = datagrams(&theirs).await;
    // An attacker on the path sees the datagrams, replays them, and changes them.
    let tap = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (mut seen, at) = ([0; DATAGRAM_BYTES_MAX], tap.local_addr().unwrap());
    tapped(&mut foreign, b"another cluster's", at, &tap, &mut seen).await;
    let length = tapped(&mut sender, b"first", at, &tap, &mut seen).await;
    let mut changed = seen[..length].to_vec();
    changed[length - 1] ^= 1;

    foreign.send(b"another cluster's", address).unwrap();
    for datagram in [&b"plain"[..], &changed, &seen[..length], &seen[..length], &seen[..length]] {
        tap.send_to(datagram, address).await.unwrap();
    }
    sender.send(b"last", address).unwrap();
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    for expected in ["first", "last"] {
        let (bytes, _) = timeout(SOON, receiver.receive(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(bytes, expected.as_bytes());
    }
}

#[tokio::test]
async fn a_revoked_identity_is_cut_off_and_told_why_and_its_namesakes_with_it() {
    let (secret, stop) = (Secret::generate().unwrap(), CancellationToken::new());
    let issued = |name: &str, role| {
        let grant = Grant { name: name.parse().unwrap(), role, prefixes: Vec::new() };
        Credentials::of(&secret.mint_lasting(&grant, DAY).unwrap()).unwrap()
    };
    let (anna, namesake, ben) =
        (issued("anna", Role::Operator), issued("anna", Role::Viewer), issued("ben", Role::Viewer));
    let members = Credentials::of(&secret.mint(Role::Member, DAY).unwrap()).unwrap();
    let listening = Listener::bind("127.0.0.1:0".parse().unwrap(), &members).await.unwrap();
    let address = listening.address();
    let (connections, _datagrams) = listening.split().unwrap();
    let revocations = Revocations::default();
    let (limits, heard) = (Limits::default(), revocations.clone());
    tokio::spawn(serve(connections, Arc::new(Echo), limits, heard, stop.clone()));
    let open = async |credentials: &Credentials, purpose| {
        TcpConnector::new(credentials.clone()).dial(address, purpose).await
    };
    let (calls, bens) =
        (open(&anna, Purpose::Calls).await.unwrap(), open(&ben, Purpose::Calls).await.unwrap());
    let (calls, bens) = (Connection::new(calls), Connection::new(bens));
    let ask = Request::Control(ControlRequest::Models);
    calls.call(ask.clone(), SOON).await.unwrap();
    revocations.learn(["anna".parse().unwrap()]);
    let ended = async { while calls.call(ask.clone(), SOON).await.is_ok() {} };
    timeout(SOON, ended).await.expect("an open connection goes on");
    for credentials in [&anna, &namesake] {
        for purpose in [Purpose::Calls, Purpose::Blobs] {
            match open(credentials, purpose).await.err() {
                Some(error @ DialError::Revoked { .. }) => {
                    assert!(error.is_about_identity() && error.to_string().contains("'anna'"), "{error}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
    bens.call(ask, SOON).await.unwrap();
    stop.cancel();
}
