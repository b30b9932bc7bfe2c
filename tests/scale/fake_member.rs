//! A fake member that looks like a real one from outside: it listens, answers probes, lists and orders, refutes suspicions,
//! and keeps a connection to each voter. It has no cluster state.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use idunno_shared::client::connection::Connection;
use idunno_shared::client::frames::{read_frame, write_frame, write_greeting};
use idunno_shared::client::link::Dial;
use idunno_shared::client::transport::TcpConnector;
use idunno_shared::ids::NodeId;
use idunno_shared::security::Credentials;
use idunno_shared::security::datagrams::Seal;
use idunno_shared::wire::blobs::{FileReply, FileRequest};
use idunno_shared::wire::frame::{Answer, Call, Hello, HelloReply, Purpose, Reply, Request};
use idunno_shared::wire::membership::{
    Bounded, Datagram, DatagramBody, Generation, Incarnation, Listed, MemberRecord, MemberState, PushPull,
    Rumour, TcpPong,
};
use idunno_shared::wire::refusal::Refusal;
use idunno_shared::wire::version::SPOKEN;
use tokio::io::split;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{AbortHandle, JoinSet};

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const DATAGRAM_BYTES_MAX: usize = 2_048;
const FREE_BYTES: u64 = 1 << 30;

/// State shared by all fakes of a crowd.
pub(crate) struct Crowd {
    pub(crate) credentials: Credentials,
    /// All live fakes: the list with which each answers.
    pub(crate) listed: Mutex<Vec<MemberRecord>>,
    /// Connections that fakes accepted.
    pub(crate) accepted: AtomicUsize,
    /// Suspicions that fakes contradicted.
    pub(crate) contradicted: AtomicUsize,
}

/// One fake; it is gone, with its port and all its connections, when it is dropped.
pub(crate) struct FakeMember {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    crowd: Arc<Crowd>,
    id: NodeId,
    number: usize,
    address: SocketAddr,
    incarnation: AtomicU64,
}

impl Shared {
    fn record(&self) -> MemberRecord {
        MemberRecord {
            id: self.id,
            name: format!("fake{}", self.number).parse().unwrap(),
            address: self.address,
            generation: Generation(1),
            incarnation: Incarnation(self.incarnation.load(Ordering::Relaxed)),
            state: MemberState::Alive,
        }
    }

    /// All fakes, as one of them knows them.
    fn list(&self) -> PushPull {
        let listed = self.crowd.listed.lock().unwrap();
        let others = listed.iter().filter(|record| record.id != self.id);
        let members = others.map(|record| Listed { record: record.clone(), forget_in_s: 0 });
        PushPull { from: self.record(), members: Bounded::first_of(members), founder: None, sent_ms: None }
    }

    /// Refutes a record that declares this fake suspect or dead.
    fn refute(&self, record: &MemberRecord) {
        let incarnation = self.incarnation.load(Ordering::Relaxed);
        if record.id == self.id && record.state != MemberState::Alive && record.incarnation.0 >= incarnation {
            self.incarnation.store(record.incarnation.0 + 1, Ordering::Relaxed);
            self.crowd.contradicted.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn answer(&self, request: Request) -> Reply {
        match request {
            Request::PushPull(theirs) => {
                theirs.members.as_slice().iter().for_each(|listed| self.refute(&listed.record));
                Reply::PushPull(self.list())
            }
            Request::Ping(ping) => {
                ping.believed.iter().for_each(|record| self.refute(record));
                Reply::Pong(TcpPong { record: self.record(), founder: None })
            }
            Request::LeaderAnnouncement(_) => Reply::LeaderNoted,
            Request::Files(order) => Reply::Files(match order.request {
                FileRequest::Copy { .. } => FileReply::Copied,
                FileRequest::Collect { digests, .. } => FileReply::Collected { gone: digests },
                FileRequest::Inventory { .. } => FileReply::Inventory {
                    generation: 1,
                    digests: Vec::new(),
                    more: false,
                    free_bytes: FREE_BYTES,
                    disk_hung: false,
                    damaged: 0,
                },
            }),
            _ => Reply::Refused(Refusal::internal("a fake member does not answer this request")),
        }
    }
}

impl FakeMember {
    /// Starts to listen.
    pub(crate) async fn start(crowd: &Arc<Crowd>, number: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        let id = NodeId(1_000_000 + number as u64);
        let shared = Shared { crowd: Arc::clone(crowd), id, number, address, incarnation: AtomicU64::new(0) };
        let shared = Arc::new(shared);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        tasks.spawn(receive(udp, Arc::clone(&shared)));
        Self { shared, tasks }
    }

    pub(crate) fn record(&self) -> MemberRecord {
        self.shared.record()
    }

    /// Sends its list of all live fakes to a member: twice, because the list of an unknown sender is not merged.
    pub(crate) async fn join(&self, at: SocketAddr) -> Result<(), String> {
        let connector = TcpConnector::of_member(self.shared.id, self.shared.crowd.credentials.clone());
        let link = connector.dial(at, Purpose::Calls).await.map_err(|error| error.to_string())?;
        let connection = Connection::new(link);
        for _ in 0..2 {
            match connection.call(Request::PushPull(self.shared.list()), CALL_TIMEOUT).await {
                Ok(Reply::PushPull(_)) => {}
                other => return Err(format!("{other:?}")),
            }
        }
        Ok(())
    }

    /// Keeps a connection for calls to each voter, as members do.
    pub(crate) async fn keep(&mut self, voters: &[SocketAddr]) {
        let connector = TcpConnector::of_member(self.shared.id, self.shared.crowd.credentials.clone());
        for &voter in voters {
            let link = connector.dial(voter, Purpose::Calls).await.unwrap();
            self.tasks.spawn(async move {
                let _open = link;
                std::future::pending::<()>().await;
            });
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::<()>::new();
    while let Ok((stream, _)) = listener.accept().await {
        shared.crowd.accepted.fetch_add(1, Ordering::Relaxed);
        while connections.try_join_next().is_some() {}
        let _: AbortHandle = connections.spawn(serve(stream, Arc::clone(&shared)));
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let Some(acceptor) = shared.crowd.credentials.acceptor() else { return };
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let (mut reader, mut writer) = split(stream);
    let Ok(hello) = read_frame::<Hello, _>(&mut reader).await else { return };
    let welcome = HelloReply::Welcome { node: Some(shared.id), version: SPOKEN.newest };
    if write_greeting(&mut writer, &welcome).await.is_err() || hello.purpose == Purpose::Blobs {
        return;
    }
    while let Ok(Call { id, request }) = read_frame(&mut reader).await {
        let answer = Answer { id, more: false, reply: shared.answer(request) };
        if write_frame(&mut writer, &answer).await.is_err() {
            return;
        }
    }
}

async fn receive(udp: UdpSocket, shared: Arc<Shared>) {
    let mut seal = Seal::new(shared.crowd.credentials.clone()).unwrap().unwrap();
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
        let Ok(place) = seal.open(&mut buffer[..length]) else { continue };
        let Ok(datagram) = rmp_serde::from_slice::<Datagram>(&buffer[place]) else { continue };
        datagram.rumours.as_slice().iter().for_each(|rumour| shared.refute(&rumour.record));
        let body = match datagram.body {
            DatagramBody::Ping { seq, target } if target == shared.id => DatagramBody::Ack { seq },
            // It probes no other member.
            DatagramBody::PingRequest { seq, .. } => DatagramBody::Nack { seq },
            _ => continue,
        };
        let rumours = Bounded::first_of([Rumour { record: shared.record(), witnesses: Bounded::default() }]);
        let bytes = rmp_serde::to_vec(&Datagram { from: shared.id, body, rumours }).unwrap();
        let sealed = seal.seal(&bytes).unwrap();
        // A lost answer is asked for again.
        let _ = udp.send_to(&sealed, from).await;
    }
}
