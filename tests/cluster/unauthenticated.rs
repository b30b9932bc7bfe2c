//! Malformed input from the network: it is dropped or refused, and the daemon keeps running.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use idunno_shared::client::frames::{read_frame, write_greeting};
use idunno_shared::security::{Credentials, Role};
use idunno_shared::wire::frame::{
    Hello, HelloReply, OPERATOR_REQUEST_BYTES_MAX, Purpose, VIEWER_REQUEST_BYTES_MAX, encode_frame,
};
use idunno_shared::wire::version::SPOKEN;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;

use crate::harness::{Expected, LocalCluster, SOON, content, dataset, heavy, light, put_dataset};
use crate::security::person;

/// Reads until the daemon closes the connection; fails if it does not.
async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut answer)).await;
    // A reset is an end too.
    let _ = ended.expect("the connection stays open");
    answer
}

fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_bytes_are_refused_without_harm() {
    let _turn = light().await;
    let cluster = LocalCluster::start(3, false).await;
    let kept = Expected::small("kept", 0..10);
    kept.put(&cluster).await;
    let address = cluster.members[0].address();
    let pid = cluster.members[0].pid().unwrap();

    let mut openings: Vec<Vec<u8>> =
        (0..40).map(|seed| content(seed, 1 + 97 * usize::try_from(seed).unwrap())).collect();
    openings.push(b"GET / HTTP/1.1\r\nHost: member\r\n\r\n".to_vec());
    openings.push(vec![0xff; 64]);
    openings.push(vec![0; 64]);
    openings.push(Vec::new());
    for opening in &openings {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The daemon may hang up while it is being written to.
        let _ = stream.write_all(opening).await;
        let _ = stream.shutdown().await;
        until_closed(&mut stream).await;
    }

    // A connection that stays silent is closed.
    let mut silent = TcpStream::connect(address).await.unwrap();
    until_closed(&mut silent).await;

    // A peer with the secret and another protocol version, or another protocol, gets the reason.
    let hello = Hello::new(Purpose::Calls, None);
    for (hello, word) in [
        (Hello { version: SPOKEN.newest + 1, oldest: SPOKEN.newest + 1, ..hello.clone() }, "version"),
        (Hello { magic: 7, ..hello.clone() }, "something else"),
    ] {
        let mut stream = proven(&cluster.credentials, address).await.unwrap();
        write_greeting(&mut stream, &hello).await.unwrap();
        match read_frame(&mut stream).await.unwrap() {
            HelloReply::Refused { reason, .. } => assert!(reason.contains(word), "{reason}"),
            other @ HelloReply::Welcome { .. } => panic!("{other:?}"),
        }
        assert!(until_closed(&mut stream).await.is_empty());
    }

    // After a valid hello: an oversized frame is refused before it is read, and the largest frame allowed reserves no memory.
    for purpose in [Purpose::Calls, Purpose::Blobs] {
        let hello = Hello { purpose, ..hello.clone() };
        for garbage in [
            vec![0xff; 16],
            content(7, 3000),
            content(8, 50),
            [[0, 0, 0, 32].to_vec(), content(9, 32)].concat(),
        ] {
            let mut stream = proven(&cluster.credentials, address).await.unwrap();
            write_greeting(&mut stream, &hello).await.unwrap();
            read_frame::<HelloReply, _>(&mut stream).await.unwrap();
            let _ = stream.write_all(&garbage).await;
            let _ = stream.shutdown().await;
            until_closed(&mut stream).await;
        }
    }
    // Another identity than the test's own, whose requests would wait for the memory of these.
    let (peer, mut half_open) = (person(&cluster, Role::Operator), Vec::new());
    for _ in 0..50 {
        let mut stream = proven(&peer, address).await.unwrap();
        write_greeting(&mut stream, &hello).await.unwrap();
        read_frame::<HelloReply, _>(&mut stream).await.unwrap();
        stream.write_all(&u32::try_from(OPERATOR_REQUEST_BYTES_MAX).unwrap().to_be_bytes()).await.unwrap();
        stream.write_all(&[0; 1000]).await.unwrap();
        half_open.push(stream);
    }

    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for seed in 0..300 {
        let length = usize::try_from(seed * 31 % 3000).unwrap();
        socket.send_to(&content(seed, length), address).await.unwrap();
    }

    assert!(cluster.members[0].exit_status().is_none(), "{}", cluster.log_tails());
    cluster.ready().await;
    assert_eq!(cluster.members[0].pid(), Some(pid));
    kept.verify(&cluster).await;
    let late = Expected::small("late", 20..30);
    late.put(&cluster).await;
    late.verify(&cluster).await;
    let resident = resident_mib(pid);
    println!("resident memory at the end: {resident} MiB");
    assert!(resident < 300, "{resident} MiB");
    drop(half_open);
}

/// An authenticated connection before its hello.
async fn proven(
    credentials: &Credentials,
    address: SocketAddr,
) -> std::io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>> {
    let (connector, name) = credentials.connector().unwrap();
    connector.connect(name, TcpStream::connect(address).await?).await
}

/// How a peer misuses a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Misuse {
    /// Sends one byte and no more. (Without that byte, a connection that did not fit into the accept queue would be open at
    /// this end only, and the daemon could not close it.)
    Silent,
    Garbage,
    /// Authenticates and sends a valid hello, then one byte a second of an announced frame.
    Slow,
}

/// Misbehaves until the daemon closes the connection.
async fn misbehave(
    credentials: &Credentials,
    address: SocketAddr,
    misuse: Misuse,
    number: u64,
) -> std::io::Result<()> {
    let opening = match misuse {
        // The first byte of a TLS handshake.
        Misuse::Silent => vec![0x16],
        Misuse::Garbage => content(number, 500),
        Misuse::Slow => {
            let mut stream = proven(credentials, address).await?;
            let hello = Hello::new(Purpose::Calls, None);
            let mut opening = Vec::new();
            encode_frame(&hello, &mut opening).unwrap();
            opening.extend(u32::try_from(VIEWER_REQUEST_BYTES_MAX).unwrap().to_be_bytes());
            stream.write_all(&opening).await?;
            let (mut reader, mut writer) = tokio::io::split(stream);
            let mut answer = Vec::new();
            let trickle = async {
                while writer.write_all(&[0]).await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            };
            tokio::select! {
                _ = reader.read_to_end(&mut answer) => {}
                () = trickle => {}
            }
            return Ok(());
        }
    };
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&opening).await?;
    let mut answer = Vec::new();
    // A reset is as good as an end.
    let _ = stream.read_to_end(&mut answer).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_misbehaving_peers_do_not_disturb_a_job() {
    let _turn = heavy().await;
    raise_file_limit();
    let cluster = LocalCluster::start(3, true).await;
    put_dataset(&cluster, &dataset("digits", 300).await, "digits").await;
    cluster.train(&["mnist-mlp"]).await;
    let job = cluster.add_job("mnist-mlp", "digits", 8).await;
    let (coordinator, term) = cluster.coordinator().await;
    let (address, pid) =
        (cluster.members[coordinator].address(), cluster.members[coordinator].pid().unwrap());
    // A different identity than the test's own: the limit of one identity does not affect another.
    let peer = person(&cluster, Role::Viewer);
    let mut peers = JoinSet::new();
    for number in 0..1_000 {
        let kinds = [Misuse::Silent, Misuse::Garbage, Misuse::Slow];
        let misuse = kinds[usize::try_from(number % 3).unwrap()];
        let peer = peer.clone();
        peers.spawn(async move { (misuse, misbehave(&peer, address, misuse, number).await.is_ok()) });
    }
    cluster.start_job(job).await;
    cluster.finished(job, SOON).await;
    println!("resident memory with the misbehaving peers: {} MiB", resident_mib(pid));
    assert!(resident_mib(pid) < 200, "{} MiB", resident_mib(pid));
    let mut left = BTreeMap::from([(Misuse::Silent, 334), (Misuse::Garbage, 333), (Misuse::Slow, 333)]);
    let all_closed = async {
        while let Some(ended) = peers.join_next().await {
            let (misuse, _) = ended.unwrap();
            *left.get_mut(&misuse).unwrap() -= 1;
        }
    };
    let all = tokio::time::timeout(Duration::from_secs(90), all_closed).await;
    assert!(all.is_ok(), "peers whose connections are still open: {left:?}");
    assert_eq!(cluster.coordinator().await, (coordinator, term), "the coordinator changed");
    cluster.all_results(job, 300).await;
}

/// A thousand connections exceed the default limit of many systems.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum.map(|maximum| maximum.min(8_192)).or(Some(8_192)), ..limit };
    setrlimit(Resource::Nofile, raised).unwrap();
}
