//! The console's connection over real sockets: it follows the coordinator when it moves, and never gives up.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests do")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use idunno_console::command::{Global, Output, Seeds};
use idunno_console::console::connection::follow;
use idunno_console::console::state::NetEvent;
use idunno_console::session::{Reporter, Session};
use idunno_shared::client::files::{NoProgress, Progress};
use idunno_shared::client::frames::{read_frame, write_frame, write_greeting};
use idunno_shared::ids::{NodeId, Term};
use idunno_shared::wire::blobs::Holder;
use idunno_shared::wire::control::{ClusterView, ControlReply, ControlRequest, StoreView};
use idunno_shared::wire::frame::{Answer, Call, Hello, HelloReply, Reply, Request};
use idunno_shared::wire::jobs::Policy;
use idunno_shared::wire::version::SPOKEN;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinSet;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(20);

struct Mute;

impl Reporter for Mute {
    fn start(&self, _label: &str, _files: u64, _bytes: u64) -> Box<dyn Progress> {
        Box::new(NoProgress)
    }
}

fn view(term: u64) -> ClusterView {
    ClusterView {
        term: Term(term),
        coordinator: NodeId(term),
        at_ms: 0,
        revision: 1,
        members: vec![],
        workers: vec![],
        models: vec![],
        jobs: vec![],
        assignments: vec![],
        store: StoreView::default(),
        loads: vec![],
        policy: Policy::Rate,
        rebalances: Vec::new(),
        rates: None,
        jobs_left_out: 0,
    }
}

/// A coordinator of a term; it dies, with all its connections, when the set is dropped.
fn coordinate(listener: TcpListener, term: u64) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, address)) = listener.accept().await {
            connections.spawn(serve(stream, address, term));
        }
    });
    tasks
}

async fn serve(mut stream: TcpStream, address: SocketAddr, term: u64) {
    let Ok(_) = read_frame::<Hello, _>(&mut stream).await else { return };
    let node = NodeId(term);
    let welcome = HelloReply::Welcome { node: Some(node), version: SPOKEN.newest };
    write_greeting(&mut stream, &welcome).await.unwrap();
    let address = stream.local_addr().unwrap_or(address);
    while let Ok(Call { id, request }) = read_frame(&mut stream).await {
        let (more, reply) = match request {
            Request::Control(ControlRequest::Watch) => (true, ControlReply::View(view(term))),
            Request::Control(ControlRequest::Coordinator) => {
                let coordinator = Holder { node, address };
                (false, ControlReply::Coordinator { coordinator, term: Term(term) })
            }
            other => panic!("{other:?}"),
        };
        let answer = Answer { id, more, reply: Reply::Control(Box::new(reply)) };
        write_frame(&mut stream, &answer).await.unwrap();
    }
}

/// The next event that passes, with those before it dropped.
async fn until(events: &mut Receiver<NetEvent>, wanted: impl Fn(&NetEvent) -> bool) -> NetEvent {
    let next = async {
        loop {
            let event = events.recv().await.unwrap();
            if wanted(&event) {
                return event;
            }
        }
    };
    timeout(LIMIT, next).await.unwrap()
}

#[tokio::test]
async fn it_follows_the_coordinator_when_it_dies_and_says_so_meanwhile() {
    let (first, second) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let cluster = vec![first.local_addr().unwrap(), second.local_addr().unwrap()];
    let global = Global {
        cluster: Seeds(cluster.clone()),
        dir: "no-such-directory".into(),
        timeout: None,
        context: None,
        identity: None,
        context_identity: None,
        own_member: None,
        read_only: false,
        dry_run: false,
        output: Output::Table,
        watch: false,
        theme: None,
        ascii: false,
        log_dir: None,
        cluster_given: true,
    };
    drop(second);
    let leader = coordinate(first, 1);
    let (sender, mut events) = channel(16);
    let session = Session::new(&global, Arc::new(Mute)).unwrap();
    let following = tokio::spawn(follow(session, sender, Arc::new(Notify::new())));

    until(&mut events, |event| matches!(event, NetEvent::View(view) if view.term == Term(1))).await;
    // Silence is no death: the coordinator is asked, and says that it lives.
    until(&mut events, |event| matches!(event, NetEvent::Confirmed)).await;

    drop(leader);
    let lost = until(&mut events, |event| matches!(event, NetEvent::Waiting { .. })).await;
    assert!(matches!(lost, NetEvent::Waiting { attempt: 1, .. }), "{lost:?}");
    until(&mut events, |event| matches!(event, NetEvent::Waiting { attempt: 2, .. })).await;

    let _leader = coordinate(TcpListener::bind(cluster[1]).await.unwrap(), 2);
    until(&mut events, |event| matches!(event, NetEvent::View(view) if view.term == Term(2))).await;
    drop(events);
    timeout(LIMIT, following).await.unwrap().unwrap();
}
