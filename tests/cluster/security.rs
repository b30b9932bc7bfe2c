//! Authentication: peers without the secret, or an identity issued from it, are refused; a viewer can only read; keys are
//! rotated without interruption.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use idunno_shared::access::Grant;
use idunno_shared::client::cluster::{Cluster, ClusterError};
use idunno_shared::client::connection::Connection;
use idunno_shared::client::files::connection::BlobConnection;
use idunno_shared::client::files::{Files, NoProgress, PutOptions};
use idunno_shared::client::link::{Dial, DialError};
use idunno_shared::client::transport::TcpConnector;
use idunno_shared::ids::{Digest, NodeId, Term, UploadId};
use idunno_shared::security::datagrams::Seal;
use idunno_shared::security::identity::Identity;
use idunno_shared::security::secret::{KeyRotation, Secret};
use idunno_shared::security::{Credentials, Role, private_file};
use idunno_shared::wire::blobs::{BlobRef, Holder};
use idunno_shared::wire::control::{Change, ControlReply, ControlRequest};
use idunno_shared::wire::frame::{Purpose, Reply, Request};
use idunno_shared::wire::membership::IntroductionRequest;
use idunno_shared::wire::membership::{Bounded, Datagram, DatagramBody};
use idunno_shared::wire::refusal::RefusalCode;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::harness::{Daemon, Expected, LocalCluster, SOON, heavy, light, run_to_end};

#[path = "../fuzz/generate.rs"]
mod generate;

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Longer than a daemon on a busy machine takes to notice that its secret file changed.
const CALL_LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn secret_of(cluster: &LocalCluster) -> Secret {
    Secret::load(&cluster.secret()).unwrap()
}

/// Credentials of a person with an identity of the cluster.
pub(crate) fn person(cluster: &LocalCluster, role: Role) -> Credentials {
    Credentials::of(&secret_of(cluster).mint(role, DAY).unwrap()).unwrap()
}

pub(crate) fn client(cluster: &LocalCluster, credentials: Credentials) -> Cluster {
    Cluster::new(Arc::new(TcpConnector::new(credentials)), cluster.addresses())
}

pub(crate) async fn connect(credentials: Credentials, address: SocketAddr) -> Result<Connection, DialError> {
    TcpConnector::new(credentials).dial(address, Purpose::Calls).await.map(Connection::new)
}

/// One value of every variant of `T` by the variant's name, including variants added in the future.
pub(crate) fn one_of_each<T: DeserializeOwned + Debug>() -> BTreeMap<String, T> {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut found = BTreeMap::new();
    for _ in 0..3_000 {
        let value: T = generate::value(&mut random).unwrap();
        let text = format!("{value:?}");
        let name = text.split(|c: char| !c.is_alphanumeric()).next().unwrap();
        found.entry(name.to_owned()).or_insert(value);
    }
    found
}

pub(crate) async fn is_forbidden(connection: &Connection, request: Request) -> bool {
    match connection.call(request, CALL_LIMIT).await {
        Ok(Reply::Refused(refusal)) => refusal.code == RefusalCode::Forbidden,
        Ok(_) => false,
        Err(error) => panic!("{error}"),
    }
}

/// The requests that a viewer may make. All others, including future ones, must be refused.
pub(crate) const READS: [&str; 20] = [
    "Assignments",
    "Coordinator",
    "DeadLetters",
    "Folder",
    "Identities",
    "Identity",
    "JobPage",
    "Jobs",
    "Leases",
    "List",
    "Locate",
    "Log",
    "Members",
    "Models",
    "Results",
    "SearchLog",
    "SortedFiles",
    "Stored",
    "Versions",
    "Watch",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_can_read_and_not_change_anything() {
    let _turn = light().await;
    let cluster = LocalCluster::start(3, false).await;
    let kept = Expected::small("kept", 0..5);
    kept.put(&cluster).await;
    let (coordinator, _) = cluster.coordinator().await;
    let viewer = person(&cluster, Role::Viewer);
    // That somebody connects for the first time is noted, which is the cluster's own doing.
    let _open = connect(viewer.clone(), cluster.members[coordinator].address()).await.unwrap();
    let is_noted = async || match cluster
        .client()
        .control(ControlRequest::Identities { after: None, limit: 9, ending: None })
        .await
    {
        Ok(ControlReply::Identities { identities, .. }) if !identities.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    };
    cluster.eventually("the viewer's identity is noted", SOON, is_noted).await;
    let revision = cluster.revision().await;
    let changes = one_of_each::<Change>();
    let requests = one_of_each::<ControlRequest>();
    assert!(changes.len() >= 15 && requests.len() >= 23, "{} and {}", changes.len(), requests.len());
    for index in 0..3 {
        let connection = connect(viewer.clone(), cluster.members[index].address()).await.unwrap();
        for (name, request) in &requests {
            let forbidden = is_forbidden(&connection, Request::Control(request.clone())).await;
            assert_eq!(forbidden, !READS.contains(&name.as_str()), "{name}");
        }
        for (name, change) in &changes {
            let op = idunno_shared::ids::OpId::random();
            let request = ControlRequest::Change { op, change: change.clone() };
            assert!(is_forbidden(&connection, Request::Control(request)).await, "{name}");
        }
    }
    // Blobs: through the client, and directly.
    let files = Files::new(client(&cluster, viewer.clone()));
    let late = Expected::small("late", 10..12);
    let put = files.put_files(late.write_local(&cluster), PutOptions::default(), &NoProgress).await;
    assert!(put.unwrap_err().to_string().contains("viewer"));
    let blobs =
        TcpConnector::new(viewer).dial(cluster.members[coordinator].address(), Purpose::Blobs).await.unwrap();
    let (blobs, bytes) = (BlobConnection::new(blobs), vec![1; 100]);
    let blob = BlobRef { digest: Digest::of(&bytes), size: 100 };
    let next = cluster.members[(coordinator + 1) % 3].address();
    let chain = [Holder { node: cluster.node((coordinator + 1) % 3), address: next }];
    let upload = UploadId { term: Term(1), number: 1 };
    let stored = blobs.put(blob, upload, &chain, bytes.into()).await.unwrap();
    assert!(stored.holders.is_empty() && stored.failed[0].1.contains("read-only"), "{:?}", stored.failed);
    assert!(blobs.get(blob, 0).await.unwrap().next().await.is_err(), "the blob was stored");

    assert_eq!(cluster.revision().await, revision, "something changed");
    kept.verify(&cluster).await;
    let logged = cluster.members[0].log().matches("it asks for more than its role allows").count();
    assert_eq!(logged, 1, "it is logged once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_identity_cannot_act_as_a_member() {
    let _turn = light().await;
    let cluster = LocalCluster::start(1, false).await;
    let (member, introducer) = (cluster.members[0].address(), cluster.introducer.address());
    for role in Role::ISSUED {
        let connector = TcpConnector::of_member(NodeId(9), person(&cluster, role));
        for (address, purpose) in
            [(member, Purpose::Calls), (member, Purpose::Blobs), (introducer, Purpose::Calls)]
        {
            match connector.dial(address, purpose).await {
                Err(DialError::Rejected { reason, .. }) => assert!(reason.contains(role.name()), "{reason}"),
                other => panic!("{:?}", other.err()),
            }
        }
        // Requests of members, without the claim to be one.
        let connection = connect(person(&cluster, role), member).await.unwrap();
        for (name, request) in one_of_each::<Request>() {
            let introduces = matches!(request, Request::Introduction(IntroductionRequest::Introduce { .. }));
            if introduces || !["Control", "Introduction"].contains(&name.as_str()) {
                assert!(is_forbidden(&connection, request).await, "{name}");
            }
        }
    }
    // A daemon does not start with a person's identity.
    let identity = cluster.scratch("operator.pem");
    let operator: Identity = secret_of(&cluster).mint(Role::Operator, DAY).unwrap();
    private_file::create(&identity, &operator.render()).unwrap();
    let (status, errors) = start(&cluster, &["--secret", &identity.display().to_string()]);
    assert!(!status && errors.contains("CERTIFICATE"), "{errors}");
    let view = cluster.list_of(0).await.unwrap();
    assert_eq!(view.len(), 1, "{view:?}");
}

/// Runs a member with further arguments until it ends; returns whether it succeeded, and its standard error.
fn start(cluster: &LocalCluster, further: &[&str]) -> (bool, String) {
    let (dir, introducer) =
        (cluster.scratch("late").display().to_string(), cluster.introducer.address().to_string());
    let mut arguments = vec!["member", "--name", "late", "--data-dir", &dir, "--introducer", &introducer];
    arguments.extend(["--listen", "127.0.0.1:0"].iter().filter(|_| !further.contains(&"--listen")));
    arguments.extend(further);
    let (status, errors) = run_to_end(&arguments, CALL_LIMIT);
    (status.success(), errors)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_needs_a_valid_secret_to_start() {
    let _turn = light().await;
    let cluster = LocalCluster::start(1, false).await;
    let exposed: PathBuf = cluster.scratch("exposed.pem");
    private_file::create(&exposed, &Secret::generate().unwrap().render()).unwrap();
    std::fs::set_permissions(&exposed, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (exposed, secret) = (exposed.display().to_string(), cluster.secret().display().to_string());
    for (further, word) in [
        (&[][..], "idunno cluster init"),
        (&["--secret", "/nowhere/secret.pem"], "/nowhere/secret.pem"),
        (&["--secret", &exposed], "chmod 600"),
        (&["--secret", &secret, "--insecure"], "insecure"),
        (&["--insecure", "--listen", "0.0.0.0:0", "--advertise", "127.0.0.1"], "--secret"),
    ] {
        let (status, errors) = start(&cluster, further);
        println!("{}", errors.trim());
        assert!(!status && errors.contains(word), "'{word}' is not in: {errors}");
    }
}

/// Also when they are started by hand, with the umask of a login.
#[tokio::test(flavor = "multi_thread")]
async fn what_daemons_write_is_their_users_alone() {
    use std::os::unix::fs::MetadataExt;

    let _turn = light().await;
    let mut cluster = LocalCluster::start(1, false).await;
    Expected::small("kept", 0..5).put(&cluster).await;
    let member = &mut cluster.members[0];
    member.signal(rustix::process::Signal::TERM);
    assert!(member.ended(SOON).await.success());
    let mut folders = vec![member.data_dir.clone(), cluster.introducer.data_dir.clone()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
        for path in entries.chain([folder.clone()]) {
            let found = path.symlink_metadata().unwrap();
            // The harness makes what standard output and standard error go to.
            let is_harness = path.extension().is_some_and(|extension| extension == "log");
            assert!(
                is_harness || found.mode().trailing_zeros() >= 6,
                "{} has mode {:o}",
                path.display(),
                found.mode()
            );
            if found.is_dir() && path != folder {
                folders.push(path);
            }
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen} files and directories");
}

#[tokio::test(flavor = "multi_thread")]
async fn unauthenticated_peers_are_refused_and_logged_once() {
    let _turn = light().await;
    let cluster = LocalCluster::start(3, false).await;
    let kept = Expected::small("kept", 0..10);
    kept.put(&cluster).await;
    let (revision, term) = (cluster.revision().await, cluster.coordinator().await.1);
    let address = cluster.members[0].address();
    let other = || Secret::generate().unwrap();
    let expired = secret_of(&cluster).mint(Role::Operator, Duration::ZERO).unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for _ in 0..3 {
        for (credentials, word) in [
            (Credentials::insecure(), "--identity"),
            (Credentials::of_operator(other()).unwrap(), "another cluster"),
            (Credentials::of_member(other()).unwrap(), "another cluster"),
            (Credentials::of(&expired).unwrap(), "expired"),
        ] {
            let error = connect(credentials.clone(), address).await.err().unwrap();
            assert!(error.to_string().contains(word), "{error}");
            // A client gives up at once: a retry cannot succeed.
            let client = client(&cluster, credentials);
            let asked = timeout(Duration::from_secs(5), client.control(ControlRequest::Models)).await;
            assert!(matches!(asked, Ok(Err(ClusterError::Untrusted(_)))), "{word}: {asked:?}");
        }
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        // A reset is as good as an end.
        let _ = timeout(SOON, plain.read_to_end(&mut Vec::new())).await.expect("it stays open");
    }

    // Datagrams: unsealed, of another cluster, tampered with, and a valid one replayed.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let gossip = Datagram { from: NodeId(9), body: DatagramBody::Gossip, rumours: Bounded::default() };
    let gossip = rmp_serde::to_vec(&gossip).unwrap();
    let seal =
        |secret| Seal::new(Credentials::of_member(secret).unwrap()).unwrap().unwrap().seal(&gossip).unwrap();
    let (theirs, good) = (seal(other()), seal(secret_of(&cluster)));
    let mut changed = seal(secret_of(&cluster));
    *changed.last_mut().unwrap() ^= 1;
    for _ in 0..50 {
        for datagram in [&gossip, &theirs, &changed, &good] {
            socket.send_to(datagram, address).await.unwrap();
        }
    }

    let member = &cluster.members[0];
    for line in [
        "it does not speak TLS",
        "it does not accept this identity",
        "it has a certificate that expired",
        "its datagram is not sealed",
        "its datagram is sealed with another cluster's secret",
        "its datagram was tampered with",
    ] {
        let count = |log: &str| {
            log.lines().filter(|entry| entry.contains(line) && entry.contains("127.0.0.1:")).count()
        };
        let is_logged = async || if count(&member.log()) > 0 { Ok(()) } else { Err(String::from("not yet")) };
        cluster.eventually(&format!("the log says: {line}"), SOON, is_logged).await;
        assert_eq!(count(&member.log()), 1, "logged more than once: {line}\n{}", member.log());
    }
    cluster.ready().await;
    assert_eq!(
        (cluster.revision().await, cluster.coordinator().await.1),
        (revision, term),
        "something changed"
    );
    kept.verify(&cluster).await;
    let late = Expected::small("late", 20..25);
    late.put(&cluster).await;
    late.verify(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_another_cluster_cannot_join() {
    let _turn = light().await;
    let cluster = LocalCluster::start(3, false).await;
    let secret = cluster.scratch("other.pem");
    private_file::create(&secret, &Secret::generate().unwrap().render()).unwrap();
    let introducer = cluster.introducer.address().to_string();
    let secret = secret.display().to_string();
    let arguments = ["member", "--name", "m9", "--introducer", &introducer, "--secret", &secret];
    let arguments = [&arguments[..], &["--model-server-url", "none"]].concat().into_iter().map(String::from);
    let mut foreign = Daemon::new("m9", cluster.path().join("m9"), arguments.collect(), None);
    foreign.spawn();
    foreign.started().await;
    let logs_the_reason = async || {
        let log = foreign.log();
        if log.contains("has another cluster's certificate") { Ok(()) } else { Err(String::from("not yet")) }
    };
    cluster.eventually("the foreign member logs why it is not introduced", SOON, logs_the_reason).await;
    cluster.ready().await;
    assert_eq!(cluster.list_of(0).await.unwrap().len(), 3);
}

/// Puts files one by one until `stop` is set; returns how many.
async fn put_on(cluster: &LocalCluster, stop: &AtomicBool) -> u64 {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        Expected::small("during", number..number + 1).put(cluster).await;
        number += 1;
    }
    number
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_replaced_while_puts_go_on() {
    let _turn = heavy().await;
    let mut cluster = LocalCluster::start(3, false).await;
    let (before, term) = (person(&cluster, Role::Operator), cluster.coordinator().await.1);
    let (stop, rotating) = (AtomicBool::new(false), &cluster);
    let rotate = async {
        let mut lasting = None;
        for (count, step) in (1..).zip([KeyRotation::Add, KeyRotation::Sign, KeyRotation::Drop]) {
            let mut secret = secret_of(rotating);
            secret.rotate(step).unwrap();
            private_file::replace(&rotating.secret(), &secret.render()).unwrap();
            for daemon in [&rotating.introducer].into_iter().chain(&rotating.members) {
                let has_read = async || match daemon.log().matches("secret changed").count() {
                    read if read >= count => Ok(()),
                    read => Err(format!("{} has read {read} changes of {count}", daemon.name)),
                };
                rotating.eventually("all have read the file", SOON, has_read).await;
            }
            // The test's own clients have the secret too.
            rotating.credentials.replace(secret_of(rotating)).unwrap();
            if step == KeyRotation::Add {
                let grant =
                    Grant { name: "anna".parse().unwrap(), role: Role::Operator, prefixes: Vec::new() };
                let identity = secret.mint_lasting(&grant, DAY).unwrap();
                lasting = Some(Credentials::of(&identity).unwrap());
            }
            rotating.ready().await;
            let asked = client(rotating, lasting.clone().unwrap()).control(ControlRequest::Models).await;
            assert!(matches!(asked, Ok(ControlReply::Models(_))), "{step:?}: {asked:?}");
        }
        // Run for a while with only the new key.
        tokio::time::sleep(Duration::from_secs(2)).await;
        stop.store(true, Ordering::Relaxed);
    };
    let ((), count) = tokio::join!(rotate, put_on(&cluster, &stop));
    println!("{count} puts during the rotation");
    assert!(count > 10, "{count} puts");
    assert_eq!(cluster.coordinator().await.1, term, "the coordinator changed");
    Expected::small("during", 0..count).verify(&cluster).await;
    let old = connect(before, cluster.members[0].address()).await.err().unwrap();
    assert!(old.is_about_identity(), "{old}");
    // A member that starts now knows only the new key.
    cluster.kill(&[2]);
    cluster.restart(&[2]).await;
    cluster.ready().await;
}
