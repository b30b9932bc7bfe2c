//! The parts of a member and the order in which they start: storage, failure detector, metadata log, election, coordinator,
//! then what serves others.

use std::sync::Arc;
use std::time::Duration;

use idunno_consensus::{Consensus, ConsensusConfig};
use idunno_shared::client::cluster::Cluster;
use idunno_shared::client::connections::Connections;
use idunno_shared::client::files::Files;
use idunno_shared::wire::membership::{Generation, Incarnation, MemberRecord, MemberState};
use idunno_store::blobs::BlobStore;
use idunno_store::replica_commands::ReplicaCommands;
use idunno_store::scrub::Scrub;
use idunno_store::server::BlobServer;
use idunno_worker::coordinator_requests::CoordinatorRequests;
use idunno_worker::packages::Packages;
use idunno_worker::result_merge::Scratch;
use idunno_worker::supervisor::ServerStatuses;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::put_claims::PutClaims;
use super::service::{LogTransport, MemberService};
use super::worker;
use crate::audit::{Audit, AuditEvent};
use crate::config::MemberConfig;
use crate::control::Control;
use crate::coordinator::webhooks::WebhookSender;
use crate::coordinator::{Coordinator, Deps};
use crate::discovery::Discovery;
use crate::discovery::cluster_id::ClusterId;
use crate::election::{ElectionHandle, ElectionTask, Timing};
use crate::greetings::Greetings;
use crate::local_store::LocalStore;
use crate::membership::{MembershipDeps, MembershipTask};
use crate::metrics::{Metrics, Sources};
use crate::net::revocations::Revocations;
use crate::net::server::serve;
use crate::net::standing;
use crate::net::transport::{self, Datagrams, MemberConnector};
use crate::runtime::clock::Clock;
use crate::runtime::interfaces;
use crate::runtime::process::{self, ProcessContext, during_start};
use crate::runtime::task_monitor::{self, TaskMonitor};

/// How long the worker's client looks for the coordinator before the worker hears of a failure.
const WORKER_DEADLINE: Duration = Duration::from_secs(10);

/// Everything that a running member consists of, except its worker.
pub(super) struct Parts {
    pub(super) config: MemberConfig,
    pub(super) deps: Deps,
    pub(super) store: BlobStore,
    /// The cluster's files, as the member's own worker reads them.
    pub(super) local_store: Arc<LocalStore>,
    /// The packages of models on this member's disk.
    pub(super) packages: Packages,
    /// The client through which this member's own worker reaches the coordinator.
    pub(super) cluster: Cluster,
    pub(super) generation: u64,
    pub(super) stop: CancellationToken,
    pub(super) audit: Audit,
    scrub: Scrub,
    cluster_id: ClusterId,
    election: ElectionHandle,
    coordinator: Coordinator,
    greetings: Greetings,
    process_data: Arc<crate::runtime::data_dir::DataDir>,
}

impl Parts {
    /// Starts the parts. Nothing is served to others before [`Parts::serve`].
    pub(super) async fn start(
        config: &MemberConfig,
        process: &ProcessContext,
        datagrams: Datagrams,
    ) -> anyhow::Result<Self> {
        let identity = process.data_dir.identity()?;
        let (me, address, clock) = (identity.id, process.address, Clock::start());
        let seed = getrandom::u64()?;
        let (stop, monitor) = (CancellationToken::new(), TaskMonitor::default());
        let connector = MemberConnector::new(me, process.credentials.clone());
        let refusals = connector.refusals();
        let peers = Connections::new(Arc::new(connector));
        let audit = Audit::open(process.data_dir.path())?;
        let member = config.name.to_string();
        audit.record(AuditEvent::Started { version: env!("CARGO_PKG_VERSION"), member }).await;
        let store = during_start(open_store(process, config.reserve_bytes)).await?;
        let scrub = Scrub::start(store.clone(), config.scrub_period, stop.clone());
        let cluster_id = ClusterId::open(Arc::clone(&process.data_dir))?;
        let record = MemberRecord {
            id: me,
            name: config.name.clone(),
            address,
            generation: Generation(identity.generation),
            incarnation: Incarnation(0),
            state: MemberState::Alive,
        };
        let listen = config.common.listen;
        let membership_deps = MembershipDeps {
            clock,
            listen,
            datagrams,
            peers: peers.clone(),
            refusals,
            cluster_id: cluster_id.clone(),
        };
        let membership = MembershipTask::spawn(record, seed, membership_deps, &monitor, &stop);
        let transport = LogTransport { peers: peers.clone(), view: membership.view() };
        let log = log_config(config.heartbeat);
        let consensus = during_start(Consensus::open(process.data_dir.path(), me, log, transport)).await?;
        // This member itself is the first to know who coordinates.
        let own = interfaces::own_endpoint(listen, address.port());
        let cluster = Cluster::over(peers.clone(), vec![own]).with_deadline(WORKER_DEADLINE);
        let files = Files::new(cluster.clone()).near(me);
        let revocations = Revocations::open(&process.data_dir)?;
        let webhooks = WebhookSender::new(process.credentials.clone(), &config.webhook_hosts);
        let deps = Deps { me, clock, consensus, membership, peers, files, monitor, revocations, webhooks };
        let (greetings, tell) = Greetings::new(cluster.clone(), deps.consensus.state());
        let lease = Duration::from_millis(log.election_max_ms);
        let timing = Timing { heartbeat: config.heartbeat, lease };
        let election = ElectionTask::spawn(deps.clone(), seed, timing, &stop);
        let coordinator = Coordinator::start(deps.clone(), stop.clone());
        let local_store = Arc::new(LocalStore::new(store.clone(), deps.files.clone()));
        let disk = store.clone();
        let free_bytes = Arc::new(move || disk.usable_bytes());
        let packages = Packages::new(worker::model_files(config), Arc::clone(&local_store) as _, free_bytes);
        let parts = Self {
            config: config.clone(),
            deps,
            store,
            local_store,
            packages,
            cluster,
            generation: identity.generation,
            stop,
            audit,
            scrub,
            cluster_id,
            election,
            coordinator,
            greetings,
            process_data: Arc::clone(&process.data_dir),
        };
        parts.spawn("greetings", tell);
        parts.spawn_followers();
        Ok(parts)
    }

    /// Spawns a task whose early end stops the member.
    pub(super) fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.deps.monitor.spawn(name, self.stop.clone(), task);
    }

    fn spawn_followers(&self) {
        let Deps { peers, membership, consensus, revocations, .. } = &self.deps;
        let standing = standing::maintain(peers.clone(), membership.view(), consensus.leadership());
        self.spawn("standing connections", standing);
        self.spawn("term follower", follow_term(self.store.clone(), consensus.clone()));
        self.spawn("revocation follower", revocations.clone().follow(consensus.state()));
        self.spawn("revocation keeper", revocations.clone().keep(Arc::clone(&self.process_data)));
        let consensus = consensus.clone();
        self.spawn("proposer", async move { consensus.proposer_ended().await });
    }

    /// Serves metrics. A member without metrics is still a member, so the task is not monitored.
    pub(super) fn serve_metrics(&self, metrics: Metrics, server: watch::Receiver<ServerStatuses>) {
        let sources = Sources {
            deps: self.deps.clone(),
            coordinator: self.coordinator.clone(),
            store: self.store.clone(),
            server,
        };
        let stop = self.stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(metrics.serve(sources)).await });
    }

    /// Serves other members and clients. The returned token is cancelled once the last request has ended.
    pub(super) fn serve(
        &self,
        acceptor: transport::Acceptor,
        server: watch::Receiver<ServerStatuses>,
        rejoin: mpsc::Sender<()>,
    ) -> CancellationToken {
        let Deps { me, membership, consensus, peers, files, revocations, .. } = self.deps.clone();
        let (membership_view, term_view) = (membership.view(), consensus.leadership());
        let (common, cluster_id) = (self.config.common.clone(), self.cluster_id.clone());
        let disk = self.store.clone();
        let scratch = Scratch::new(&common.data_dir, Arc::new(move || disk.usable_bytes()));
        let service = Arc::new(MemberService {
            me,
            control: Control::new(
                self.deps.clone(),
                self.coordinator.clone(),
                common,
                cluster_id,
                rejoin,
                self.audit.clone(),
            ),
            membership,
            election: self.election.clone(),
            consensus,
            blobs: BlobServer::new(
                me,
                self.store.clone(),
                self.scrub.clone(),
                peers.clone(),
                Arc::new(PutClaims { members: membership_view, leadership: term_view }),
            ),
            replica_commands: ReplicaCommands::new(me, self.store.clone(), peers.clone(), self.generation),
            requests: CoordinatorRequests { status: server, files, packages: self.packages.clone(), scratch },
            peers,
            revocations: revocations.clone(),
            greetings: self.greetings.clone(),
        });
        let served = CancellationToken::new();
        let ended: DropGuard = served.clone().drop_guard();
        let serve = serve(acceptor, service, self.config.common.limits, revocations, self.stop.clone());
        self.spawn("service", async move {
            let _ended = ended;
            serve.await;
        });
        served
    }

    /// Finds the cluster and joins it, now and whenever it is asked to.
    pub(super) fn join_cluster(&self, rejoin_requests: mpsc::Receiver<()>) {
        let Deps { me, membership, consensus, peers, .. } = self.deps.clone();
        let discovery = Discovery {
            me,
            name: self.config.name.clone(),
            introducer: self.config.introducer.clone(),
            data_dir: Arc::clone(&self.process_data),
            peers,
            membership,
            consensus,
            cluster_id: self.cluster_id.clone(),
        };
        self.spawn("discovery", discovery.run(rejoin_requests, self.stop.clone()));
    }

    /// Feeds the service manager's watchdog for as long as the failure detector and the log make progress.
    pub(super) fn feed_watchdog(&self) {
        let Deps { membership, consensus, .. } = self.deps.clone();
        let stop = self.stop.clone();
        self.spawn("watchdog feeder", async move {
            let progress = || async {
                membership.turn().await;
                consensus.check_responsive().await;
            };
            let feed = task_monitor::feed_while_progressing(
                process::watchdog_limit(),
                progress,
                process::feed_watchdog,
            );
            stop.run_until_cancelled(feed).await;
        });
    }
}

/// The log's configuration: election time-outs grow with the heartbeat.
fn log_config(heartbeat: Duration) -> ConsensusConfig {
    let heartbeat_ms = u64::try_from(heartbeat.as_millis()).unwrap_or(u64::MAX);
    ConsensusConfig {
        heartbeat_ms,
        election_min_ms: heartbeat_ms.saturating_mul(3) / 2,
        election_max_ms: heartbeat_ms.saturating_mul(4),
        ..ConsensusConfig::default()
    }
}

/// Lists every blob, which takes minutes where there are millions, or for ever on a disk that hangs.
async fn open_store(process: &ProcessContext, reserve_bytes: u64) -> anyhow::Result<BlobStore> {
    let root = process.data_dir.path().to_owned();
    Ok(spawn_blocking(move || BlobStore::open(&root, reserve_bytes)).await??)
}

/// Tells the blob store the log's term: it refuses replica commands of older terms.
async fn follow_term(store: BlobStore, consensus: Consensus) {
    let mut leadership = consensus.leadership();
    loop {
        store.observe_term(leadership.borrow_and_update().term);
        if leadership.changed().await.is_err() {
            return;
        }
    }
}
