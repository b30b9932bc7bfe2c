//! The introducer: the fixed, well-known process through which a new member finds the cluster.
//!
//! Decides one thing: which member bootstraps the metadata log (the founder). That is the first member ever introduced, or,
//! if that member already belongs to a cluster, the founder of that cluster. The founder and the members introduced last are
//! kept in a file that is durable before the reply that depends on it. So the introducer can restart at any time, and
//! members that know each other do not need it. An introducer that lost its file learns its cluster from the next member
//! that asks. That may be one of a cluster that is lost: the founder of the cluster that was recovered or restored from it
//! names its predecessors, and the introducer then serves the new one.
//!
//! Dials unknown members back before introducing them: an unreachable member must not be named to others, and must not
//! become the founder.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use idunno_shared::client::link::{Dial, Link};
use idunno_shared::client::transport::TcpConnector;
use idunno_shared::ids::NodeId;
use idunno_shared::names::MemberName;
use idunno_shared::wire::frame::{Purpose, Reply, Request};
use idunno_shared::wire::membership::{IntroductionReply, IntroductionRequest};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use idunno_store::access::BlobAccess;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::Common;
use crate::net::revocations::Revocations;
use crate::net::server::{Caller, Response, Service, serve};
use crate::runtime::data_dir::{DataDir, DataDirError, INTRODUCER_FILE};
use crate::runtime::process::{self, StopSignals};
use crate::runtime::task_monitor;

/// Members remembered; the one introduced longest ago is forgotten first.
pub const MEMBERS_MAX: usize = 64;
const STATE_FILE: &str = INTRODUCER_FILE;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    founder: Option<NodeId>,
    /// The most recently introduced first.
    members: VecDeque<IntroducedMember>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct IntroducedMember {
    id: NodeId,
    name: MemberName,
    address: SocketAddr,
}

impl State {
    fn introduce(&mut self, newcomer: IntroducedMember, founder: Option<NodeId>) {
        self.founder.get_or_insert_with(|| founder.unwrap_or(newcomer.id));
        if self.members.contains(&newcomer) {
            return;
        }
        // One process listens at one address: an earlier member there is gone.
        self.members.retain(|member| member.id != newcomer.id && member.address != newcomer.address);
        self.members.push_front(newcomer);
        self.members.truncate(MEMBERS_MAX);
    }

    fn reply(&self) -> IntroductionReply {
        let members = self.members.iter().map(|member| (member.id, member.address)).collect();
        IntroductionReply { founder: self.founder, members }
    }
}

/// Runs an introducer until a stop signal.
pub async fn run(config: Common) -> anyhow::Result<()> {
    let (context, listener) = process::prepare(&config).await?;
    let dialer = Arc::new(TcpConnector::new(context.credentials.clone()));
    let service = Arc::new(Introducer::open(Arc::clone(&context.data_dir), dialer)?);
    let stop = CancellationToken::new();
    let (connections, _datagrams) = listener.split()?;
    // Nobody tells the introducer of revocations. It has nothing to show but the members' addresses.
    let (shown, revocations) = (Arc::clone(&service), Revocations::default());
    let serving = tokio::spawn(serve(connections, shown, config.limits, revocations, stop.clone()));
    let mut signals = StopSignals::listen()?;
    context.announce("introducer", "introducer", None)?;
    let state = &service.state;
    let progress = || async move { drop(state.lock().await) };
    tokio::select! {
        () = signals.next() => {}
        () = task_monitor::feed_while_progressing(process::watchdog_limit(), progress, process::feed_watchdog) => {}
    }
    stop.cancel();
    serving.await?;
    context.retire();
    Ok(())
}

/// The newcomer does not listen at the address that it advertises.
#[derive(Debug, Error)]
#[error(
    "{name} cannot be introduced, because it is not reachable at its advertised address: {reason}; check its listen address \
     and the firewalls in between"
)]
struct Unreachable {
    name: MemberName,
    reason: String,
}

#[derive(Debug, Error)]
enum SaveError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error("the write was aborted: {0}")]
    Aborted(#[from] tokio::task::JoinError),
}

/// What a newcomer says of its cluster.
#[derive(Clone, Copy)]
struct ClusterClaim<'a> {
    founder: Option<NodeId>,
    must_join: bool,
    supersedes: &'a [NodeId],
}

/// Serves introductions.
pub struct Introducer {
    data_dir: Arc<DataDir>,
    dialer: Arc<dyn Dial>,
    state: Mutex<State>,
}

impl Introducer {
    /// Reads the state that an earlier process left in the data directory.
    pub fn open(data_dir: Arc<DataDir>, dialer: Arc<dyn Dial>) -> Result<Self, DataDirError> {
        let state = data_dir.read_json(STATE_FILE)?.unwrap_or_default();
        Ok(Self { data_dir, dialer, state: Mutex::new(state) })
    }

    async fn answer(&self, request: IntroductionRequest) -> Reply {
        let IntroductionRequest::Introduce { id, name, address, founder, must_join, supersedes } = request
        else {
            return Reply::Introduction(self.state.lock().await.reply());
        };
        let newcomer = IntroducedMember { id, name, address };
        let is_known = self.state.lock().await.members.contains(&newcomer);
        if !is_known && let Err(reason) = self.dial_back(&newcomer).await {
            warn!(member = %id, %reason, "introduction refused");
            return Reply::Refused(Refusal::invalid(reason.to_string()));
        }
        let claim = ClusterClaim { founder, must_join, supersedes: supersedes.as_slice() };
        self.introduce(newcomer, claim).await
    }

    /// Checks that the newcomer itself listens at the address that it advertises.
    async fn dial_back(&self, newcomer: &IntroducedMember) -> Result<(), Unreachable> {
        let IntroducedMember { id, name, address } = newcomer;
        let dialled = self.dialer.dial(*address, Purpose::Calls).await;
        let reason = match dialled {
            Ok(link) if link.node == Some(*id) => return Ok(()),
            Ok(_) => format!("another process listens at {address}"),
            Err(error) => error.to_string(),
        };
        Err(Unreachable { name: name.clone(), reason })
    }

    async fn introduce(&self, newcomer: IntroducedMember, claim: ClusterClaim<'_>) -> Reply {
        let ClusterClaim { founder, must_join, supersedes } = claim;
        let mut state = self.state.lock().await;
        if must_join && founder.is_none() && state.founder.is_none() {
            return Reply::Refused(Refusal::invalid(format!(
                "{} has dropped its metadata log and must not found a cluster, because that would delete its blobs, and this \
                 introducer knows no cluster yet: start the member that was recovered or restored; this one keeps trying",
                newcomer.name
            )));
        }
        let (id, address) = (newcomer.id, newcomer.address);
        let mut next = state.clone();
        if let (Some(ours), Some(theirs)) = (state.founder, founder)
            && ours != theirs
            && supersedes.contains(&ours)
        {
            warn!(member = %id, lost = %ours, now = %theirs, "the cluster was recovered or restored: serving the new one");
            next = State { founder, members: VecDeque::new() };
        } else if let (Some(ours), Some(theirs)) = (state.founder, founder)
            && ours != theirs
        {
            return Reply::Refused(Refusal::invalid(format!(
                "{} belongs to the cluster founded by {theirs}, and this introducer serves the one founded by {ours}: give \
                 the member its own introducer. If this introducer lost its file and made a newcomer the founder, stop both, \
                 delete the introducer's {STATE_FILE} and the newcomer's data directory. If a cluster was recovered from a \
                 lost majority, delete {STATE_FILE} before its first member starts, and run 'idunnod recover --forget-log' \
                 on the members of the old one",
                newcomer.name
            )));
        }
        next.introduce(newcomer, founder);
        if next != *state {
            if let Err(error) = self.save(next.clone()).await {
                error!(%error, "cannot save an introduction");
                return Reply::Refused(Refusal::internal(format!(
                    "the introducer cannot save its state: {error}"
                )));
            }
            info!(member = %id, %address, founder = ?next.founder, "introduced");
            *state = next;
        }
        Reply::Introduction(state.reply())
    }

    async fn save(&self, state: State) -> Result<(), SaveError> {
        let data_dir = Arc::clone(&self.data_dir);
        tokio::task::spawn_blocking(move || data_dir.write_json(STATE_FILE, &state)).await??;
        Ok(())
    }
}

impl Service for Introducer {
    fn node(&self) -> Option<NodeId> {
        None
    }

    fn knows(&self, address: IpAddr) -> bool {
        // The state is locked only while an introduction is saved; meanwhile all addresses are strangers'.
        let state = self.state.try_lock();
        state.is_ok_and(|state| {
            state.members.iter().any(|member| member.address.ip().to_canonical() == address.to_canonical())
        })
    }

    async fn request(&self, request: Request, _from: &Caller) -> Response {
        let reply = match request {
            Request::Introduction(request) => self.answer(request).await,
            _ => Reply::Refused(Refusal::new(
                RefusalCode::Unsupported,
                "this is the introducer, which answers introductions only: ask a member",
            )),
        };
        reply.into()
    }

    async fn blobs(&self, _link: Link, _access: BlobAccess) {}
}

#[cfg(test)]
mod tests {
    use idunno_shared::client::link::{BoxFuture, DialError};
    use idunno_shared::wire::membership::Bounded;

    use super::*;

    /// A network in which the member with id N listens at port N, except those in `elsewhere`.
    #[derive(Default)]
    struct FakeNetwork {
        elsewhere: Vec<(u16, u64)>,
    }

    impl Dial for FakeNetwork {
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
        let network = Arc::new(FakeNetwork { elsewhere: elsewhere.to_vec() });
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
            supersedes: Bounded::default(),
        }
    }

    fn introduce_of(founder: u64, id: u64, port: u16) -> IntroductionRequest {
        let IntroductionRequest::Introduce { id, name, address, .. } = introduce(id, port) else {
            unreachable!()
        };
        let (founder, supersedes) = (Some(NodeId(founder)), Bounded::default());
        IntroductionRequest::Introduce { id, name, address, founder, must_join: false, supersedes }
    }

    /// A founder of a cluster that was recovered from that of `lost`.
    fn introduce_recovered(id: u64, lost: u64) -> IntroductionRequest {
        let IntroductionRequest::Introduce { id, name, address, .. } =
            introduce(id, u16::try_from(id).unwrap())
        else {
            unreachable!()
        };
        let supersedes = Bounded::first_of([NodeId(lost)]);
        IntroductionRequest::Introduce { id, name, address, founder: Some(id), must_join: false, supersedes }
    }

    async fn ask(introducer: &Introducer, request: IntroductionRequest) -> IntroductionReply {
        match introducer.answer(request).await {
            Reply::Introduction(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn the_first_member_stays_the_founder_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        {
            let introducer = open(dir.path(), &[]);
            assert_eq!(ask(&introducer, IntroductionRequest::ListMembers).await.founder, None);
            assert_eq!(ask(&introducer, introduce(7, 7)).await.founder, Some(NodeId(7)));
        }
        let introducer = open(dir.path(), &[]);
        let reply = ask(&introducer, introduce(8, 8)).await;
        assert_eq!(reply.founder, Some(NodeId(7)));
        assert_eq!(reply.members.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [8, 7]);
    }

    #[tokio::test]
    async fn an_introducer_without_its_file_learns_the_founder_and_keeps_clusters_apart() {
        let dir = tempfile::tempdir().unwrap();
        let introducer = open(dir.path(), &[]);
        assert_eq!(ask(&introducer, introduce_of(7, 8, 8)).await.founder, Some(NodeId(7)));
        assert_eq!(
            ask(&introducer, introduce(9, 9)).await.founder,
            Some(NodeId(7)),
            "a newcomer does not become the founder"
        );
        match introducer.answer(introduce_of(3, 4, 4)).await {
            Reply::Refused(refusal) => assert!(refusal.message.contains("0000000000000003"), "{refusal}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(ask(&introducer, IntroductionRequest::ListMembers).await.members.len(), 2);
    }

    #[tokio::test]
    async fn a_member_without_its_log_never_becomes_the_founder_and_joins_an_existing_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let introducer = open(dir.path(), &[]);
        let forgetful = || {
            let IntroductionRequest::Introduce { id, name, address, founder, .. } = introduce(5, 5) else {
                unreachable!()
            };
            let supersedes = Bounded::default();
            IntroductionRequest::Introduce { id, name, address, founder, must_join: true, supersedes }
        };
        match introducer.answer(forgetful()).await {
            Reply::Refused(refusal) => {
                assert!(refusal.message.contains("recovered or restored"), "{refusal}");
            }
            other => panic!("{other:?}"),
        }
        let known = ask(&introducer, IntroductionRequest::ListMembers).await;
        assert_eq!((known.founder, known.members.len()), (None, 0));
        ask(&introducer, introduce_of(7, 8, 8)).await;
        assert_eq!(ask(&introducer, forgetful()).await.founder, Some(NodeId(7)));
    }

    #[tokio::test]
    async fn a_recovered_cluster_takes_the_introducer_over_from_an_old_member_that_came_first() {
        let dir = tempfile::tempdir().unwrap();
        let introducer = open(dir.path(), &[]);
        assert_eq!(ask(&introducer, introduce_of(3, 4, 4)).await.founder, Some(NodeId(3)));
        let reply = ask(&introducer, introduce_recovered(8, 3)).await;
        assert_eq!(
            (reply.founder, reply.members.len()),
            (Some(NodeId(8)), 1),
            "the old members are forgotten"
        );
        assert_eq!(ask(&introducer, introduce(9, 9)).await.founder, Some(NodeId(8)));
        for old in [introduce_of(3, 4, 4), introduce_recovered(5, 77)] {
            match introducer.answer(old).await {
                Reply::Refused(refusal) => assert!(refusal.message.contains("--forget-log"), "{refusal}"),
                other => panic!("{other:?}"),
            }
        }
        drop(introducer);
        let introducer = open(dir.path(), &[]);
        assert_eq!(ask(&introducer, IntroductionRequest::ListMembers).await.founder, Some(NodeId(8)));
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
        assert_eq!(ask(&introducer, IntroductionRequest::ListMembers).await.members.len(), MEMBERS_MAX);
    }

    #[tokio::test]
    async fn an_unreachable_member_is_refused_with_the_reason() {
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
        let reply = ask(&introducer, IntroductionRequest::ListMembers).await;
        assert_eq!((reply.founder, reply.members.len()), (None, 0));
    }
}
