//! The introducer: the fixed, well-known process through which a new member finds the cluster.
//!
//! It decides one thing: who founds the metadata log, namely the first member that it ever met, unless that one belongs
//! to a cluster already: then its founder. That, and whom it met lately, is a file, durable before the answer that tells
//! it; so the introducer can restart at any time, and members that know each other do without it. One that lost its file
//! learns of its cluster from the first member that asks again.
//!
//! Whom it does not know it dials back first: a member that nobody can reach must not be named to others, let alone found
//! the log.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use idunno_shared::client::link::{Dial, Link};
use idunno_shared::client::transport::TcpConnector;
use idunno_shared::ids::NodeId;
use idunno_shared::names::MemberName;
use idunno_shared::wire::frame::{Purpose, Reply, Request};
use idunno_shared::wire::introduction::{IntroductionReply, IntroductionRequest};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::Common;
use crate::net::server::{Caller, Response, Service, serve};
use crate::runtime::data_dir::DataDir;
use crate::runtime::process::{self, StopSignals};
use crate::runtime::task_monitor;

/// Members remembered; the one that was introduced longest ago goes first.
pub const MEMBERS_MAX: usize = 64;
const STATE_FILE: &str = "introducer.json";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    founder: Option<NodeId>,
    /// The most recently introduced first.
    members: VecDeque<Known>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    id: NodeId,
    name: MemberName,
    address: SocketAddr,
}

impl State {
    fn introduce(&mut self, newcomer: Known, founder: Option<NodeId>) {
        self.founder.get_or_insert_with(|| founder.unwrap_or(newcomer.id));
        if self.members.contains(&newcomer) {
            return;
        }
        // Whoever was at this address before is not there any more.
        self.members.retain(|member| member.id != newcomer.id && member.address != newcomer.address);
        self.members.push_front(newcomer);
        self.members.truncate(MEMBERS_MAX);
    }

    fn reply(&self) -> IntroductionReply {
        let members = self.members.iter().map(|member| (member.id, member.address)).collect();
        IntroductionReply { founder: self.founder, members }
    }
}

/// Runs an introducer until it is asked to stop.
pub async fn run(config: Common) -> anyhow::Result<()> {
    let (context, listening) = process::prepare(&config).await?;
    let dialer = Arc::new(TcpConnector::new(context.credentials.clone()));
    let service = Arc::new(Introducer::open(Arc::clone(&context.data_dir), dialer)?);
    let stop = CancellationToken::new();
    let (connections, _datagrams) = listening.split()?;
    let serving = tokio::spawn(serve(connections, Arc::clone(&service), config.limits, stop.clone()));
    let mut signals = StopSignals::listen()?;
    context.announce("introducer", "introducer", None)?;
    let state = &service.state;
    let turn = || async move { drop(state.lock().await) };
    tokio::select! {
        () = signals.next() => {}
        () = task_monitor::watch(process::watchdog_limit(), turn, process::feed_watchdog) => {}
    }
    stop.cancel();
    serving.await?;
    context.retire();
    Ok(())
}

/// The introducer's service.
pub struct Introducer {
    data_dir: Arc<DataDir>,
    dialer: Arc<dyn Dial>,
    state: Mutex<State>,
}

impl Introducer {
    /// Reads what an earlier run left in the data directory.
    pub fn open(
        data_dir: Arc<DataDir>,
        dialer: Arc<dyn Dial>,
    ) -> Result<Self, crate::runtime::data_dir::DataDirError> {
        let state = data_dir.read_json(STATE_FILE)?.unwrap_or_default();
        Ok(Self { data_dir, dialer, state: Mutex::new(state) })
    }

    async fn answer(&self, request: IntroductionRequest) -> Reply {
        let IntroductionRequest::Introduce { id, name, address, founder, must_join } = request else {
            return Reply::Introduction(self.state.lock().await.reply());
        };
        let newcomer = Known { id, name, address };
        let is_known = self.state.lock().await.members.contains(&newcomer);
        if !is_known && let Err(reason) = self.dial_back(&newcomer).await {
            warn!(member = %id, %reason, "not introduced");
            return Reply::Refused(Refusal::invalid(reason));
        }
        self.introduce(newcomer, founder, must_join).await
    }

    /// Whether the newcomer itself listens at the address that it advertises; else why it is not introduced.
    async fn dial_back(&self, newcomer: &Known) -> Result<(), String> {
        let Known { id, name, address } = newcomer;
        let dialled = self.dialer.dial(*address, Purpose::Calls).await;
        let reason = match dialled {
            Ok(link) if link.node == Some(*id) => return Ok(()),
            Ok(_) => format!("another process listens at {address}"),
            Err(error) => error.to_string(),
        };
        Err(format!(
            "{name} is not introduced, for it cannot be reached where it says it listens: {reason}; \
             check its listen address and the firewalls between"
        ))
    }

    async fn introduce(&self, newcomer: Known, founder: Option<NodeId>, must_join: bool) -> Reply {
        let mut state = self.state.lock().await;
        if must_join && founder.is_none() && state.founder.is_none() {
            return Reply::Refused(Refusal::invalid(format!(
                "{} has forgotten its log and must not found a cluster, which would delete its blobs; and this introducer \
                 knows of no cluster yet: start the member that was recovered or restored; this one keeps trying",
                newcomer.name
            )));
        }
        let (id, address) = (newcomer.id, newcomer.address);
        if let (Some(ours), Some(theirs)) = (state.founder, founder)
            && ours != theirs
        {
            return Reply::Refused(Refusal::invalid(format!(
                "{} belongs to the cluster that {theirs} founded, and this introducer to that of {ours}: give the member \
                 its own introducer; if this one lost its file and took a newcomer for a founder, stop both, and delete \
                 the introducer's {STATE_FILE} and the newcomer's data directory; if a cluster was recovered from a lost \
                 majority, delete {STATE_FILE} before its first member starts, and run 'idunnod recover --forget-log' for \
                 members of the old one",
                newcomer.name
            )));
        }
        let mut next = state.clone();
        next.introduce(newcomer, founder);
        if next != *state {
            if let Err(error) = self.save(next.clone()).await {
                error!(%error, "cannot keep an introduction");
                return Reply::Refused(Refusal::internal(format!("the introducer: {error}")));
            }
            info!(member = %id, %address, founder = ?next.founder, "introduced");
            *state = next;
        }
        Reply::Introduction(state.reply())
    }

    async fn save(&self, state: State) -> Result<(), String> {
        let data_dir = Arc::clone(&self.data_dir);
        let write = move || data_dir.write_json(STATE_FILE, &state).map_err(|error| error.to_string());
        tokio::task::spawn_blocking(write).await.map_err(|error| error.to_string())?
    }
}

impl Service for Introducer {
    fn node(&self) -> Option<NodeId> {
        None
    }

    async fn request(&self, request: Request, _from: &Caller) -> Response {
        let reply = match request {
            Request::Introduction(request) => self.answer(request).await,
            _ => Reply::Refused(Refusal::new(
                RefusalCode::Unsupported,
                "this is the introducer, which only knows members: ask one of them",
            )),
        };
        reply.into()
    }

    async fn blobs(&self, _link: Link, _may_store: bool) {}
}

#[cfg(test)]
mod tests {
    use idunno_shared::client::link::{BoxFuture, DialError};

    use super::*;

    /// A network in which the member with id N listens at port N, and others where `elsewhere` says.
    #[derive(Default)]
    struct Ports {
        elsewhere: Vec<(u16, u64)>,
    }

    impl Dial for Ports {
        fn dial(&self, address: SocketAddr, _purpose: Purpose) -> BoxFuture<'_, Result<Link, DialError>> {
            let moved = self.elsewhere.iter().find(|(port, _)| *port == address.port());
            let id = moved.map_or_else(|| u64::from(address.port()), |(_, id)| *id);
            Box::pin(async move {
                let (reader, writer) = (Box::new(tokio::io::empty()), Box::new(tokio::io::sink()));
                if id == 0 {
                    Err(DialError::Refused { address })
                } else {
                    Ok(Link { reader, writer, node: Some(NodeId(id)) })
                }
            })
        }
    }

    fn open(dir: &std::path::Path, elsewhere: &[(u16, u64)]) -> Introducer {
        let network = Arc::new(Ports { elsewhere: elsewhere.to_vec() });
        Introducer::open(Arc::new(DataDir::open(dir).unwrap()), network).unwrap()
    }

    fn introduce(id: u64, port: u16) -> IntroductionRequest {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        IntroductionRequest::Introduce {
            id: NodeId(id),
            name: "m".parse().unwrap(),
            address,
            founder: None,
            must_join: false,
        }
    }

    fn introduce_of(founder: u64, id: u64, port: u16) -> IntroductionRequest {
        let IntroductionRequest::Introduce { id, name, address, .. } = introduce(id, port) else {
            unreachable!()
        };
        IntroductionRequest::Introduce { id, name, address, founder: Some(NodeId(founder)), must_join: false }
    }

    async fn ask(introducer: &Introducer, request: IntroductionRequest) -> IntroductionReply {
        match introducer.answer(request).await {
            Reply::Introduction(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn the_first_member_founds_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        {
            let introducer = open(dir.path(), &[]);
            assert_eq!(ask(&introducer, IntroductionRequest::Known).await.founder, None);
            assert_eq!(ask(&introducer, introduce(7, 7)).await.founder, Some(NodeId(7)));
        }
        let introducer = open(dir.path(), &[]);
        let reply = ask(&introducer, introduce(8, 8)).await;
        assert_eq!(reply.founder, Some(NodeId(7)));
        assert_eq!(reply.members.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [8, 7]);
    }

    #[tokio::test]
    async fn one_that_lost_its_file_learns_who_founded_and_keeps_clusters_apart() {
        let dir = tempfile::tempdir().unwrap();
        let introducer = open(dir.path(), &[]);
        assert_eq!(ask(&introducer, introduce_of(7, 8, 8)).await.founder, Some(NodeId(7)));
        assert_eq!(
            ask(&introducer, introduce(9, 9)).await.founder,
            Some(NodeId(7)),
            "a newcomer founds nothing"
        );
        match introducer.answer(introduce_of(3, 4, 4)).await {
            Reply::Refused(refusal) => assert!(refusal.message.contains("0000000000000003"), "{refusal}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(ask(&introducer, IntroductionRequest::Known).await.members.len(), 2);
    }

    #[tokio::test]
    async fn one_that_forgot_its_log_founds_nothing_and_joins_once_there_is_a_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let introducer = open(dir.path(), &[]);
        let forgetful = || {
            let IntroductionRequest::Introduce { id, name, address, founder, .. } = introduce(5, 5) else {
                unreachable!()
            };
            IntroductionRequest::Introduce { id, name, address, founder, must_join: true }
        };
        match introducer.answer(forgetful()).await {
            Reply::Refused(refusal) => {
                assert!(refusal.message.contains("recovered or restored"), "{refusal}");
            }
            other => panic!("{other:?}"),
        }
        let known = ask(&introducer, IntroductionRequest::Known).await;
        assert_eq!((known.founder, known.members.len()), (None, 0));
        ask(&introducer, introduce_of(7, 8, 8)).await;
        assert_eq!(ask(&introducer, forgetful()).await.founder, Some(NodeId(7)));
    }

    #[tokio::test]
    async fn an_address_has_one_member_and_the_list_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        {
            let before = open(dir.path(), &[]);
            ask(&before, introduce(1, 1)).await;
        }
        let introducer = open(dir.path(), &[(1, 2)]);
        let reply = ask(&introducer, introduce(2, 1)).await;
        assert_eq!(reply.members, [(NodeId(2), SocketAddr::from(([127, 0, 0, 1], 1)))]);
        for id in 3..200 {
            ask(&introducer, introduce(id, u16::try_from(id).unwrap())).await;
        }
        assert_eq!(ask(&introducer, IntroductionRequest::Known).await.members.len(), MEMBERS_MAX);
    }

    #[tokio::test]
    async fn whoever_cannot_be_reached_is_refused_with_the_reason_and_founds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let introducer = open(dir.path(), &[(5, 0), (6, 7)]);
        for (newcomer, words) in [
            (introduce(5, 5), ["127.0.0.1:5", "nothing listens"]),
            (introduce(6, 6), ["127.0.0.1:6", "another"]),
        ] {
            match introducer.answer(newcomer).await {
                Reply::Refused(refusal) => {
                    assert!(words.iter().all(|word| refusal.message.contains(word)), "{refusal}");
                }
                other => panic!("{other:?}"),
            }
        }
        let reply = ask(&introducer, IntroductionRequest::Known).await;
        assert_eq!((reply.founder, reply.members.len()), (None, 0));
    }
}
