use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::io::split;
use tokio::net::TcpListener;

use super::*;
use crate::client::frames::{read_frame, write_frame, write_greeting};
use crate::client::transport::TcpConnector;
use crate::ids::{Digest, NodeId};
use crate::security::Credentials;
use crate::wire::blobs::Holder;
use crate::wire::frame::{Answer, Call, Hello, HelloReply};
use crate::wire::refusal::RefusalCode;
use crate::wire::version::SPOKEN;

/// A member that answers every request by the same rule.
async fn member(answer: impl Fn(SocketAddr, Request) -> Option<Reply> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let (mut reader, mut writer) = split(stream);
                let hello = read_frame::<Hello, _>(&mut reader).await;
                let welcome = HelloReply::Welcome { node: Some(NodeId(1)), version: SPOKEN.newest };
                if hello.is_err() || write_greeting(&mut writer, &welcome).await.is_err() {
                    return;
                }
                while let Ok(Call { id, request }) = read_frame(&mut reader).await {
                    let more = matches!(request, Request::Control(ControlRequest::Watch));
                    let Some(reply) = answer(address, request) else { continue };
                    if write_frame(&mut writer, &Answer { id, more, reply }).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// A suspended member: its host accepts connections, but it answers none of them.
async fn frozen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn coordinator(term: u64) -> SocketAddr {
    member(move |address, request| {
        let reply = match request {
            Request::Control(ControlRequest::Coordinator) => {
                let coordinator = Holder { node: NodeId(1), address };
                ControlReply::Coordinator { coordinator, term: Term(term) }
            }
            _ => ControlReply::Done,
        };
        Some(Reply::Control(Box::new(reply)))
    })
    .await
}

async fn follower(of: Option<SocketAddr>, term: u64) -> SocketAddr {
    refusing(RefusalCode::NotCoordinator {
        coordinator: of.map(|address| (NodeId(2), address)),
        term: Term(term),
    })
    .await
}

async fn refusing(code: RefusalCode) -> SocketAddr {
    member(move |_, _| Some(Reply::Refused(Refusal::new(code.clone(), "not now")))).await
}

fn cluster(seeds: Vec<SocketAddr>, deadline: Duration) -> Cluster {
    Cluster::new(Arc::new(TcpConnector::new(Credentials::insecure())), seeds).with_deadline(deadline)
}

const DEADLINE: Duration = Duration::from_secs(6);

async fn is_done(cluster: &Cluster) -> Duration {
    let started = Instant::now();
    let reply = cluster.control(ControlRequest::Models).await;
    assert!(matches!(reply, Ok(ControlReply::Done)), "{reply:?}");
    started.elapsed()
}

#[tokio::test]
async fn any_member_leads_to_the_coordinator() {
    let coordinator = coordinator(3).await;
    let cluster = cluster(vec![follower(None, 3).await, follower(Some(coordinator), 3).await], DEADLINE);
    is_done(&cluster).await;
    assert_eq!(cluster.routes().coordinator, Some(coordinator));
}

/// A coordinator that answers after so many questions, and reports progress until then.
async fn busy_coordinator(questions: u64) -> SocketAddr {
    let asked = AtomicU64::new(0);
    member(move |_, _| {
        let done_bytes = asked.fetch_add(1, Ordering::Relaxed);
        let progress = RefusalCode::InProgress { done_bytes, total_bytes: questions };
        Some(if done_bytes < questions {
            Reply::Refused(Refusal::new(progress, "it goes on"))
        } else {
            Reply::Control(Box::new(ControlReply::Done))
        })
    })
    .await
}

#[tokio::test]
async fn a_request_in_progress_is_waited_for_beyond_the_deadline() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let progress = Arc::clone(&seen);
    let connector = Arc::new(TcpConnector::new(Credentials::insecure()));
    let short = Cluster {
        // Progress is reported once in a pause, so there are several deadlines until the answer.
        deadline: 2 * BACK_OFF_MAX,
        ..Cluster::new(connector, vec![busy_coordinator(5).await])
    };
    let cluster =
        short.with_progress(Arc::new(move |done, total| progress.lock().unwrap().push((done, total))));
    is_done(&cluster).await;
    assert_eq!(*seen.lock().unwrap(), [(0, 5), (1, 5), (2, 5), (3, 5), (4, 5)]);
}

#[tokio::test]
async fn a_limit_that_the_caller_sets_ends_the_wait_for_a_request_in_progress() {
    let cluster = cluster(vec![busy_coordinator(u64::MAX).await], 2 * BACK_OFF_MAX);
    let error = cluster.control(ControlRequest::Models).await.unwrap_err();
    assert!(error.to_string().contains("it goes on"), "{error}");
}

#[tokio::test]
async fn a_client_that_follows_a_coordinator_asks_it_first() {
    let (_held, frozen) = frozen().await;
    let cluster = cluster(vec![frozen], DEADLINE);
    let coordinator = coordinator(4).await;
    cluster.follow(Term(4), coordinator);
    cluster.follow(Term(3), frozen);
    let waited = is_done(&cluster).await;
    assert!(waited < PATIENCE, "{waited:?}");
}

#[tokio::test]
async fn a_frozen_coordinator_is_left_for_its_successor() {
    let (_held, frozen) = frozen().await;
    let successor = coordinator(4).await;
    let cluster = cluster(vec![frozen, follower(Some(successor), 4).await], DEADLINE);
    let waited = is_done(&cluster).await;
    assert!(waited < Duration::from_secs(2), "{waited:?}");
}

#[tokio::test]
async fn a_coordinator_that_freezes_during_a_request_is_left_for_its_successor() {
    let mute = member(|_, _| None).await;
    let successor = coordinator(4).await;
    let cluster = cluster(vec![mute, successor], DEADLINE);
    let waited = is_done(&cluster).await;
    assert!(waited < Duration::from_secs(2), "{waited:?}");
}

#[tokio::test]
async fn a_slow_coordinator_is_not_left_for_one_of_an_older_term() {
    let asked = Arc::new(AtomicUsize::new(0));
    let slow = {
        let asked = Arc::clone(&asked);
        member(move |_, _| {
            asked.fetch_add(1, Ordering::Relaxed);
            None
        })
        .await
    };
    let behind = follower(Some(follower(None, 2).await), 2).await;
    let cluster = cluster(vec![slow, behind], Duration::from_secs(3));
    cluster.routes().is_news(Term(5));
    cluster.control(ControlRequest::Models).await.unwrap_err();
    assert_eq!(asked.load(Ordering::Relaxed), 1, "the request went round while the coordinator had it");
}

#[tokio::test]
async fn without_a_majority_others_are_asked_and_the_reason_is_reported() {
    let cut_off = refusing(RefusalCode::NoQuorum).await;
    let coordinator = coordinator(3).await;
    is_done(&cluster(vec![cut_off, coordinator], DEADLINE)).await;

    let alone = cluster(vec![cut_off], Duration::from_millis(200));
    let started = Instant::now();
    let error = alone.control(ControlRequest::Models).await.unwrap_err();
    assert!(error.to_string().contains("not now"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(1), "the deadline holds");
}

#[tokio::test]
async fn why_the_coordinator_is_busy_is_reported_and_not_that_others_do_not_coordinate() {
    let busy = member(|_, _| Some(Reply::Refused(Refusal::new(RefusalCode::Busy, "the disk is full")))).await;
    for seeds in [vec![busy, follower(None, 3).await], vec![follower(Some(busy), 3).await]] {
        let cluster = cluster(seeds, Duration::from_millis(200));
        let error = cluster.control(ControlRequest::Models).await.unwrap_err().to_string();
        assert!(error.contains("the disk is full"), "{error}");
    }
}

#[tokio::test]
async fn a_coordinator_that_was_busy_and_is_gone_is_no_reason() {
    let asked = AtomicUsize::new(0);
    let once_busy = move |_, _| {
        let code = match asked.fetch_add(1, Ordering::Relaxed) {
            0 => RefusalCode::Busy,
            _ => RefusalCode::NotCoordinator { coordinator: None, term: Term(3) },
        };
        Some(Reply::Refused(Refusal::new(code.clone(), format!("{code:?}"))))
    };
    let cluster = cluster(vec![member(once_busy).await], Duration::from_millis(300));
    let error = cluster.control(ControlRequest::Models).await.unwrap_err().to_string();
    assert!(error.contains("NotCoordinator"), "{error}");
}

#[tokio::test]
async fn a_refusal_is_an_answer_and_no_other_member_is_asked() {
    let refusing = refusing(RefusalCode::Conflict).await;
    let cluster = cluster(vec![refusing, coordinator(3).await], DEADLINE);
    let error = cluster.ask_any(ControlRequest::Leave).await.unwrap_err();
    assert!(matches!(error, ClusterError::Refused(_)), "{error}");
}

#[tokio::test]
async fn a_frozen_member_does_not_delay_an_answer() {
    let (_held, frozen) = frozen().await;
    let mute = member(|_, _| None).await;
    let started = Instant::now();
    let cluster = cluster(vec![frozen, mute, coordinator(3).await], DEADLINE);
    cluster.ask_any(ControlRequest::Members).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test]
async fn requests_to_any_and_to_one_member_keep_the_deadline() {
    let (_held, frozen) = frozen().await;
    let mute = member(|_, _| None).await;
    let cluster = cluster(vec![frozen, mute], Duration::from_millis(300));
    let started = Instant::now();
    let error = cluster.ask_any(ControlRequest::Members).await.unwrap_err();
    assert!(matches!(error, ClusterError::Unreachable { .. }), "{error}");
    let error = cluster.ask_member(mute, ControlRequest::Members).await.unwrap_err();
    assert!(error.to_string().contains("does not answer"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_watch_has_its_own_connection_and_keeps_it_open() {
    let cluster = cluster(vec![coordinator(3).await], DEADLINE);
    // The fake pushes once, and keeps the connection open.
    let mut views = cluster.watch().await.unwrap();
    assert!(views.recv().await.is_some());
    assert!(timeout(Duration::from_millis(50), views.recv()).await.is_err(), "the connection stays");
    is_done(&cluster).await;
}

/// A coordinator whose first backup breaks off, and whose further ones are damaged, but for try `good`.
async fn backing_up(good: usize, tries: Arc<AtomicUsize>) -> SocketAddr {
    member(move |address, request| {
        let reply = if let Request::Control(ControlRequest::Coordinator) = request {
            let coordinator = Holder { node: NodeId(1), address };
            ControlReply::Coordinator { coordinator, term: Term(1) }
        } else {
            let digest = match tries.fetch_add(1, Ordering::Relaxed) {
                number if number == good => Some(Digest::of(b"all")),
                0 => None,
                _ => Some(Digest::of(b"other")),
            };
            ControlReply::Backup { bytes: b"all".to_vec(), digest }
        };
        Some(Reply::Control(Box::new(reply)))
    })
    .await
}

#[tokio::test]
async fn a_backup_that_breaks_off_or_is_damaged_is_begun_again_within_a_bound() {
    let tries = Arc::new(AtomicUsize::new(0));
    let address = backing_up(2, Arc::clone(&tries)).await;
    assert_eq!(cluster(vec![address], DEADLINE).backup().await.unwrap(), b"all");
    assert_eq!(tries.swap(0, Ordering::Relaxed), 3);

    let address = backing_up(usize::MAX, Arc::clone(&tries)).await;
    let error = cluster(vec![address], DEADLINE).backup().await.unwrap_err();
    assert!(error.to_string().contains("damaged in transit"), "{error}");
    assert_eq!(tries.load(Ordering::Relaxed), 5);

    let refused = refusing(RefusalCode::Forbidden).await;
    let error = cluster(vec![refused], DEADLINE).backup().await.unwrap_err();
    assert!(matches!(error, ClusterError::Refused(_)), "{error}");
}
