//! One member: puts the parts together, in the order in which they need each other, and takes them apart at the end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use idunno_shared::client::cluster::Cluster;
use idunno_shared::client::connections::Connections;
use idunno_shared::client::files::Files;
use idunno_shared::client::link::Link;
use idunno_shared::ids::{NodeId, Term};
use idunno_shared::wire::consensus::{ConsensusReply, ConsensusRequest};
use idunno_shared::wire::frame::{Reply, Request};
use idunno_shared::wire::membership::{Generation, Incarnation, MemberRecord, MemberState};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::config::{MemberConfig, ModelServer};
use crate::control::Control;
use crate::coordinator::{Coordinator, Deps};
use crate::discovery::Discovery;
use crate::discovery::cluster_id::ClusterId;
use crate::election::{ElectionHandle, ElectionTask, Timing};
use crate::local_store::LocalStore;
use crate::membership::{MembershipDeps, MembershipHandle, MembershipTask, MembershipView};
use crate::metrics::{self, Metrics};
use crate::net::server::{Caller, Response, Service, serve};
use crate::net::standing;
use crate::net::transport::MemberConnector;
use crate::recovery::check_finished;
use crate::runtime::clock::Clock;
use crate::runtime::process::{self, StopSignals};
use crate::runtime::task_monitor::{self, TaskMonitor};
use idunno_consensus::{Consensus, ConsensusConfig, Transport, TransportError};
use idunno_store::blobs::BlobStore;
use idunno_store::replica_commands::ReplicaCommands;
use idunno_store::scrub::Scrub;
use idunno_store::server::BlobServer;
use idunno_worker::coordinator_requests::CoordinatorRequests;
use idunno_worker::supervisor::{ServerConfig, ServerStatus};
use idunno_worker::{self as worker, WorkerConfig};

/// How long the good-bye to the other members may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a log with a fault may take to close its file.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the worker asks for the coordinator before it tells its own loop.
const WORKER_DEADLINE: Duration = Duration::from_secs(10);

/// Runs a member until it is asked to stop.
pub async fn run(config: MemberConfig) -> anyhow::Result<()> {
    let (context, listening) = process::prepare(&config.common).await?;
    let figures = match config.metrics_listen {
        Some(address) => Some(Metrics::bind(address).await?),
        None => None,
    };
    check_finished(&context.data_dir)?;
    let identity = context.data_dir.identity()?;
    let (me, address, clock) = (identity.id, context.address, Clock::start());
    let seed = getrandom::u64()?;
    let (connections, datagrams) = listening.split()?;
    let (stop, monitor) = (CancellationToken::new(), TaskMonitor::default());

    let door = MemberConnector::new(me, context.credentials.clone());
    let refusals = door.refusals();
    let peers = Connections::new(Arc::new(door));
    let record = MemberRecord {
        id: me,
        name: config.name.clone(),
        address,
        generation: Generation(identity.generation),
        incarnation: Incarnation(0),
        state: MemberState::Alive,
    };
    let store = BlobStore::open(context.data_dir.path(), config.reserve_bytes)?;
    let disk = store.clone();
    let scrub = Scrub::start(store.clone(), config.scrub_period, stop.clone());
    let cluster_id = ClusterId::open(Arc::clone(&context.data_dir))?;
    let deps =
        MembershipDeps { clock, datagrams, peers: peers.clone(), refusals, cluster_id: cluster_id.clone() };
    let membership = MembershipTask::spawn(record, seed, deps, &monitor, &stop);
    let transport = LogTransport { peers: peers.clone(), view: membership.view() };
    let settings = log_settings(config.heartbeat);
    let consensus = Consensus::open(context.data_dir.path(), me, settings, transport).await?;
    // The member itself knows best who coordinates.
    let cluster = Cluster::over(peers.clone(), vec![address]).with_deadline(WORKER_DEADLINE);
    let files = Files::new(cluster.clone()).near(me);
    let deps = Deps {
        me,
        clock,
        consensus: consensus.clone(),
        membership: membership.clone(),
        peers: peers.clone(),
        files: files.clone(),
        monitor: monitor.clone(),
    };
    let timing =
        Timing { heartbeat: config.heartbeat, lease: Duration::from_millis(settings.election_max_ms) };
    let election = ElectionTask::spawn(deps.clone(), seed, timing, &stop);
    let coordinator = Coordinator::start(deps.clone(), stop.clone());
    let standing = standing::maintain(peers.clone(), membership.view(), consensus.leadership());
    monitor.spawn("standing connections", stop.clone(), standing);
    monitor.spawn("the watch for terms", stop.clone(), follow_term(store.clone(), consensus.clone()));
    let proposing = consensus.clone();
    monitor.spawn("the proposer", stop.clone(), async move { proposing.proposer_ended().await });

    let (rejoin, rejoined) = mpsc::channel(1);
    let (status, server) = watch::channel(ServerStatus::default());
    let sources = metrics::Sources {
        deps: deps.clone(),
        coordinator: coordinator.clone(),
        store: store.clone(),
        server: server.clone(),
    };
    let service = Arc::new(Member {
        me,
        control: Control::new(deps, coordinator, config.common.clone(), cluster_id.clone(), rejoin),
        membership: membership.clone(),
        election,
        consensus: consensus.clone(),
        blobs: BlobServer::new(me, store.clone(), scrub, peers.clone()),
        replica_commands: ReplicaCommands::new(me, store, peers.clone(), identity.generation),
        requests: CoordinatorRequests { status: server, files: files.clone() },
        peers: peers.clone(),
    });
    if let Some(metrics) = figures {
        let stopped = stop.clone();
        // A member without figures is still a member: no vital task.
        tokio::spawn(async move { stopped.run_until_cancelled(metrics.serve(sources)).await });
    }
    let serving = CancellationToken::new();
    let served = serving.clone().drop_guard();
    let serve = serve(connections, service, config.common.limits, stop.clone());
    monitor.spawn("the service", stop.clone(), async move {
        let _served = served;
        serve.await;
    });
    let discovery = Discovery {
        me,
        name: config.name.clone(),
        address,
        introducer: config.introducer.clone(),
        data_dir: Arc::clone(&context.data_dir),
        peers,
        membership: membership.clone(),
        consensus: consensus.clone(),
        cluster_id,
    };
    monitor.spawn("the search for the cluster", stop.clone(), discovery.run(rejoined, stop.clone()));
    let mut signals = StopSignals::listen()?;
    context.announce("member", config.name.as_str(), Some(me))?;
    let watched = (membership.clone(), consensus.clone(), stop.clone());
    monitor.spawn("the watchdog's feeder", stop.clone(), async move {
        let (membership, consensus, stop) = &watched;
        let turn = || async move {
            membership.turn().await;
            consensus.check_responsive().await;
        };
        tokio::select! {
            () = task_monitor::feed_while_progressing(process::watchdog_limit(), turn, process::feed_watchdog) => {}
            () = stop.cancelled() => {}
        }
    });

    let drain = CancellationToken::new();
    let (tell, news) = watch::channel(Term(0));
    let guide = guide(cluster.clone(), membership.clone(), consensus.clone(), tell);
    monitor.spawn("the worker's guide", stop.clone(), guide);
    let near = LocalStore::new(disk, files);
    let mut working =
        tokio::spawn(work(&config, me, identity.generation, (cluster, near), news, status, drain.clone()));
    let fault = tokio::select! {
        () = signals.next() => None,
        fault = log_fault(&consensus) => Some(format!("the metadata log has stopped: {fault}")),
        fault = monitor.fault() => Some(fault),
        _ = &mut working => Some(String::from("the worker has ended early")),
    };
    let good_bye = async {
        let Some(fault) = &fault else {
            drain.cancel();
            let worked = (&mut working).await;
            leave(&membership).await;
            return worked;
        };
        // The others wait for this member as long as it is one, and as its worker's drain waits for them: it goes first.
        error!(%fault, "this member cannot go on");
        leave(&membership).await;
        working.abort();
        Ok(())
    };
    tokio::select! {
        worked = good_bye => worked?,
        () = signals.next() => warn!("asked to stop once more: what runs here is given up"),
    }
    stop.cancel();
    serving.cancelled().await;
    let Some(fault) = fault else {
        consensus.shutdown().await;
        context.retire();
        return Ok(());
    };
    // A disk that hangs never closes its file.
    if tokio::time::timeout(CLOSE_TIMEOUT, consensus.shutdown()).await.is_err() {
        warn!("the metadata log does not close");
    }
    context.retire();
    Err(anyhow!("{} cannot go on: {fault}", config.name))
}

async fn leave(membership: &MembershipHandle) {
    if tokio::time::timeout(LEAVE_TIMEOUT, membership.leave()).await.is_err() {
        debug!("the good-bye took too long");
    }
}

/// Tells the worker's client who coordinates, and the worker that it is another one, as soon as this member knows.
async fn guide(
    cluster: Cluster,
    membership: MembershipHandle,
    consensus: Consensus,
    news: watch::Sender<Term>,
) {
    let (mut view, mut leadership) = (membership.view(), consensus.leadership());
    loop {
        let (now, known) = (view.borrow_and_update().clone(), leadership.borrow_and_update().clone());
        if let Some(address) = known.leader.and_then(|leader| now.address(leader)) {
            news.send_if_modified(|term| {
                let is_news = *term < known.term;
                if is_news {
                    cluster.follow(known.term, address);
                    *term = known.term;
                }
                is_news
            });
        }
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            changed = leadership.changed() => if changed.is_err() { return },
        }
    }
}

/// Election time-outs grow with the heartbeat.
fn log_settings(heartbeat: Duration) -> ConsensusConfig {
    let heartbeat_ms = u64::try_from(heartbeat.as_millis()).unwrap_or(u64::MAX);
    ConsensusConfig {
        heartbeat_ms,
        election_min_ms: heartbeat_ms.saturating_mul(5) / 2,
        election_max_ms: heartbeat_ms.saturating_mul(4),
        ..ConsensusConfig::default()
    }
}

/// Runs the worker until it is told to drain, and has.
fn work(
    config: &MemberConfig,
    me: NodeId,
    generation: u64,
    (cluster, store): (Cluster, LocalStore),
    news: watch::Receiver<Term>,
    status: watch::Sender<ServerStatus>,
    drain: CancellationToken,
) -> impl Future<Output = ()> + Send + use<> {
    let server = match &config.model_server {
        ModelServer::None => ServerConfig::None,
        ModelServer::Url(url) => ServerConfig::Elsewhere { url: url.clone() },
        ModelServer::Python { python, threads } => {
            ServerConfig::Supervised { python: python.clone(), threads: u32::try_from(*threads).ok() }
        }
    };
    let data_dir = config.common.data_dir.clone();
    let worker = WorkerConfig::new(me, config.name.clone(), generation, server, data_dir);
    let (view, _watched) = watch::channel(worker::first_view(me));
    async move { worker::run(worker, Arc::new(cluster), Arc::new(store), news, view, status, drain).await }
}

/// The file server refuses replica_commands of terms below the log's.
async fn follow_term(store: BlobStore, consensus: Consensus) {
    let mut leadership = consensus.leadership();
    loop {
        store.observe_term(leadership.borrow_and_update().term);
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

/// Waits until the log has stopped by itself.
async fn log_fault(consensus: &Consensus) -> String {
    let mut leadership = consensus.leadership();
    loop {
        if let Some(fault) = leadership.borrow_and_update().fault.clone() {
            return fault;
        }
        if leadership.changed().await.is_err() {
            return String::from("it ended");
        }
    }
}

/// Takes what comes in, and hands it to the part that it is for.
struct Member {
    me: NodeId,
    control: Control,
    membership: MembershipHandle,
    election: ElectionHandle,
    consensus: Consensus,
    blobs: BlobServer,
    replica_commands: ReplicaCommands,
    requests: CoordinatorRequests,
    peers: Connections,
}

impl Service for Member {
    fn node(&self) -> Option<NodeId> {
        Some(self.me)
    }

    async fn request(&self, request: Request, from: &Caller) -> Response {
        let reply = match (request, from.node) {
            (Request::PushPull(theirs), Some(_)) => self.membership.push_pull(theirs).await,
            (Request::Ping(ping), Some(_)) => self.membership.ping(ping).await,
            (Request::Election(message), Some(from)) => {
                self.election.message(from, message).await;
                Reply::Election
            }
            (Request::Consensus(request), Some(_)) => Reply::Consensus(self.consensus.handle(request).await),
            (Request::Files(request), Some(_)) => match self.replica_commands.handle(request).await {
                Ok(reply) => Reply::Files(reply),
                Err(refusal) => Reply::Refused(refusal),
            },
            (request @ (Request::Control(_) | Request::Jobs(_)), _) => {
                return self.control.request(request, from).await;
            }
            (Request::Work(request), Some(_)) => match self.requests.serve(request).await {
                Ok(reply) => Reply::Work(reply),
                Err(refusal) => Reply::Refused(refusal),
            },
            (Request::LeaderAnnouncement(said), Some(from)) => {
                self.consensus.observe_coordinator(from, said);
                Reply::LeaderNoted
            }
            (Request::Introduction(_), _) => unsupported("this is a member, not the introducer"),
            (_, None) => unsupported("only members may ask this"),
        };
        reply.into()
    }

    async fn hung_up(&self, member: NodeId) {
        self.peers.hung_up(member).await;
    }

    async fn blobs(&self, link: Link, may_store: bool) {
        if let Err(error) = self.blobs.serve(link.reader, link.writer, may_store).await {
            info!(%error, from = ?link.node, "a connection for blobs ended");
        }
    }
}

fn unsupported(message: &str) -> Reply {
    Reply::Refused(Refusal::new(RefusalCode::Unsupported, message))
}

/// Carries the log's calls, by the failure detector's addresses.
#[derive(Clone)]
struct LogTransport {
    peers: Connections,
    view: watch::Receiver<Arc<MembershipView>>,
}

impl Transport for LogTransport {
    async fn call(
        &self,
        target: NodeId,
        request: ConsensusRequest,
        timeout: Duration,
    ) -> Result<ConsensusReply, TransportError> {
        let failed = |reason: String| TransportError { target, reason };
        let address = self.view.borrow().address(target);
        let address = address.ok_or_else(|| failed(String::from("its address is unknown")))?;
        match self.peers.call_member(target, address, Request::Consensus(request), timeout).await {
            Ok(Reply::Consensus(reply)) => Ok(reply),
            Ok(_) => Err(failed(String::from("it answered out of turn"))),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}
