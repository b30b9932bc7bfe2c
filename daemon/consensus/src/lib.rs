//! The metadata log: Raft over the members' connections, one file on disk, the metadata in memory.
//!
//! **Decides** nothing itself. The ring election says who may stand, Raft's vote says who leads, and the coordinator says
//! who votes.
//!
//! **Source**: Raft (Ongaro and Ousterhout 2014), as implemented by openraft 0.9; section 6 of the design.
//!
//! **Invariants**
//! - A command whose outcome is known is durable on a majority, and applied once per proposal, in the same order on every
//!   member.
//! - Whoever has received an outcome sees its effect in [`Consensus::state`].
//! - No member stands for election unless [`Consensus::may_stand`] allows it.
//!
//! **Bounds**: `config` lists them all: commands per entry, bytes per entry and message, queue lengths.
//!
//! **Does not** resolve addresses (the [`Transport`] does), detect failures, or choose voters.
//!
//! `file` is the file on disk, `store` is openraft's access to it, `network` carries Raft's messages to each `peer`,
//! `proposer` batches commands into entries, `voters` changes the membership of the log, `leadership` publishes who leads,
//! `snapshots` has snapshots made, sends and receives them.

#![allow(missing_docs, reason = "internal to the daemon: a doc comment here says what the name does not")]

mod codec;
mod config;
mod errors;
mod file;
mod leadership;
mod network;
mod peer;
mod proposer;
mod runtime;
mod snapshots;
mod store;
#[cfg(test)]
mod tests;
mod types;
mod voters;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use idunno_core::metadata::{Applied, Command, State};
use idunno_shared::ids::NodeId;
use idunno_shared::wire::consensus::LeaderAnnouncement;
use idunno_shared::wire::consensus::VOTERS_MAX;
use idunno_shared::wire::refusal::Refusal;
use openraft::error::{CheckIsLeaderError, ClientWriteError, InitializeError, RaftError};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::codec::encode;
use self::config::COMMANDS_WAITING_MAX;
pub use self::config::{COMMAND_BYTES_MAX, COMMANDS_PER_ENTRY_MAX, ConsensusConfig};
pub use self::errors::{
    BarrierError, BootstrapError, InitialStateError, OpenError, ProposeError, RecoverError, VoterChangeError,
};
use self::leadership::AnnouncedLeader;
pub use self::leadership::Leadership;
use self::network::RaftPeers;
pub use self::peer::{Transport, TransportError};
use self::proposer::Proposal;
use self::snapshots::IncomingSnapshot;
use self::store::open::open_apart;
pub use self::store::recovery::{InitialState, SurvivorLog, encode_state};
use self::store::snapshots::InstallTracker;
use self::types::{CommandBatch, Raft};

/// The name of the store's file in the data directory.
pub const STORE_FILE: &str = "metadata.redb";

/// This member's replica of the metadata log. Clones share one replica, which stops soon after the last clone is dropped,
/// and at once on [`Consensus::shutdown`].
#[derive(Clone)]
pub struct Consensus {
    inner: Arc<ConsensusInner>,
}

struct ConsensusInner {
    node: NodeId,
    raft: Raft,
    proposals: mpsc::Sender<Proposal>,
    state: watch::Receiver<Arc<State>>,
    leadership: watch::Receiver<Leadership>,
    announcement: watch::Sender<Option<AnnouncedLeader>>,
    /// When a leader's message was last accepted.
    leader_contact: SyncMutex<Instant>,
    installs: InstallTracker,
    incoming: Mutex<Option<IncomingSnapshot>>,
    /// Whether this leader lets others be elected in its place.
    gives_way: AtomicBool,
    /// Held while voters or learners change.
    voter_change: Mutex<()>,
    change_timeout: Duration,
    /// Pause between attempts to reach a quorum.
    retry_pause: Duration,
    stop: CancellationToken,
    closed: Mutex<Option<oneshot::Receiver<()>>>,
}

impl Drop for ConsensusInner {
    fn drop(&mut self) {
        self.stop.cancel();
        // openraft's core task keeps itself alive until it is told to shut down.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let raft = self.raft.clone();
            runtime.spawn(async move { raft.shutdown().await });
        }
    }
}

impl Consensus {
    /// Opens the log of `node` in `data_dir` and replays it. A new log stays empty until this member bootstraps a cluster
    /// or a leader sends it entries.
    pub async fn open<T: Transport>(
        data_dir: &Path,
        node: NodeId,
        config: ConsensusConfig,
        transport: T,
    ) -> Result<Self, OpenError> {
        let raft_config = config.raft_config().map_err(|error| OpenError::Config(error.to_string()))?;
        let path = data_dir.join(STORE_FILE);
        let opened = open_apart(path, node).await?;
        let peers = RaftPeers {
            transport,
            backoff: Duration::from_millis(config.heartbeat_ms),
            vote_timeout: Duration::from_millis(config.heartbeat_ms * 5 / 2),
        };
        let raft = Raft::new(node.0, Arc::new(raft_config), peers, opened.log, opened.machine)
            .await
            .map_err(|fatal| OpenError::Start(fatal.to_string()))?;

        let change_timeout = Duration::from_millis(config.change_timeout_ms);
        let lease = Duration::from_millis(config.election_max_ms);
        let (announcement, announcements) = watch::channel(None);
        let leadership = leadership::watch_leadership(&raft, lease, announcements);
        let stop = CancellationToken::new();
        let (proposals, receiver) = mpsc::channel(COMMANDS_WAITING_MAX);
        tokio::spawn(proposer::run(raft.clone(), receiver, change_timeout, stop.clone()));
        tokio::spawn(snapshots::make_when_due(raft.clone(), opened.growth, config.snapshot_log_bytes_min));
        Ok(Self {
            inner: Arc::new(ConsensusInner {
                node,
                raft,
                proposals,
                state: opened.state,
                leadership,
                announcement,
                leader_contact: SyncMutex::new(Instant::now()),
                installs: opened.installs,
                incoming: Mutex::new(None),
                gives_way: AtomicBool::new(false),
                voter_change: Mutex::new(()),
                change_timeout,
                retry_pause: Duration::from_millis(config.heartbeat_ms),
                stop,
                closed: Mutex::new(Some(opened.closed)),
            }),
        })
    }

    /// Creates a new cluster with this member as its only voter, unless its log has entries already.
    pub async fn bootstrap(&self) -> Result<(), BootstrapError> {
        // The first member is asked to bootstrap each time it is introduced; openraft logs a second attempt as an error.
        match self.inner.raft.is_initialized().await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => return Err(BootstrapError::Stopped(error.to_string())),
        }
        match self.inner.raft.initialize(BTreeSet::from([self.inner.node.0])).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(BootstrapError::Stopped(error.to_string())),
        }
    }

    /// Returns once openraft's core task has processed a request: never, if that task hangs. For watchdogs.
    pub async fn check_responsive(&self) {
        // A core that has stopped is reported as the fault in `leadership`.
        let _ = self.inner.raft.with_raft_state(|_| ()).await;
    }

    /// Commits and applies a command, and returns what it did.
    pub async fn propose(&self, command: Command) -> Result<Result<Applied, Refusal>, ProposeError> {
        self.check_may_propose()?;
        let bytes = encode(&command).map_or(usize::MAX, |encoded| encoded.len());
        if bytes > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes, limit: COMMAND_BYTES_MAX });
        }
        let deadline = Instant::now() + self.inner.change_timeout;
        let permit = match tokio::time::timeout_at(deadline, self.inner.proposals.reserve()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(ProposeError::shut_down()),
            // The queue stayed full until the deadline: no entry is being committed.
            Err(_) => return Err(ProposeError::NoQuorum),
        };
        let (reply, outcome) = oneshot::channel();
        permit.send(Proposal { command, bytes, reply });
        match tokio::time::timeout_at(deadline, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(ProposeError::shut_down()),
            Err(_) => Err(ProposeError::Unknown),
        }
    }

    /// Refuses what cannot be committed before it is proposed.
    fn check_may_propose(&self) -> Result<(), ProposeError> {
        let leadership = self.inner.leadership.borrow();
        if let Some(fault) = &leadership.fault {
            return Err(ProposeError::Stopped(fault.clone()));
        }
        if self.gives_way() {
            return Err(ProposeError::NotLeader { leader: None });
        }
        if !leadership.is_leader {
            return Err(ProposeError::NotLeader { leader: leadership.leader });
        }
        // A leader that was never acknowledged is new: its first entry is what gets it acknowledged.
        if !leadership.holds_lease() && leadership.quorum_ack_age_ms().is_some() {
            return Err(ProposeError::NoQuorum);
        }
        Ok(())
    }

    /// Confirms with a majority that this member leads, and waits until it has applied everything acknowledged before the
    /// call: [`Self::state`] is then linearizable. Returns the term and index of the last entry that had to be applied.
    pub async fn barrier(&self, timeout: Duration) -> Result<(u64, u64), BarrierError> {
        tokio::time::timeout(timeout, self.confirm_leadership()).await.unwrap_or(Err(BarrierError::NoQuorum))
    }

    async fn confirm_leadership(&self) -> Result<(u64, u64), BarrierError> {
        loop {
            if self.gives_way() {
                return Err(BarrierError::NotLeader { leader: None });
            }
            match self.inner.raft.ensure_linearizable().await {
                Ok(upto) => return Ok(upto.map_or((0, 0), |id| (id.leader_id.term, id.index))),
                Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward))) => {
                    return Err(BarrierError::NotLeader { leader: forward.leader_id.map(NodeId) });
                }
                // openraft waits for one heartbeat interval, which a busy machine may miss.
                Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => {
                    tokio::time::sleep(self.inner.retry_pause).await;
                }
                Err(RaftError::Fatal(fatal)) => return Err(BarrierError::Stopped(fatal.to_string())),
            }
        }
    }

    /// Commits an empty entry of this leader's own, and with it everything in its log before. A barrier is not enough: a
    /// leader that restarts keeps its old term, and may hold entries that are not yet known to be committed. Returns the
    /// entry's index, which is higher each time, also in one term.
    pub async fn take_over(&self, timeout: Duration) -> Result<u64, BarrierError> {
        tokio::time::timeout(timeout, self.commit_empty_entry()).await.unwrap_or(Err(BarrierError::NoQuorum))
    }

    async fn commit_empty_entry(&self) -> Result<u64, BarrierError> {
        if self.gives_way() {
            return Err(BarrierError::NotLeader { leader: None });
        }
        let outcome = match self.inner.raft.client_write_ff(CommandBatch(Arc::new(Vec::new()))).await {
            Ok(outcome) => outcome.await,
            Err(fatal) => return Err(BarrierError::Stopped(fatal.to_string())),
        };
        match outcome {
            Ok(Ok(written)) => Ok(written.log_id.index),
            Ok(Err(ClientWriteError::ForwardToLeader(forward))) => {
                Err(BarrierError::NotLeader { leader: forward.leader_id.map(NodeId) })
            }
            Ok(Err(error)) => Err(BarrierError::Stopped(error.to_string())),
            Err(_) => Err(BarrierError::NotLeader { leader: None }),
        }
    }

    /// The metadata as applied on this member.
    pub fn state(&self) -> watch::Receiver<Arc<State>> {
        self.inner.state.clone()
    }

    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// Records a coordinator's announcement of its term. Announcements of older terms are ignored.
    pub fn observe_coordinator(&self, leader: NodeId, announcement: LeaderAnnouncement) {
        let LeaderAnnouncement { term, voters, .. } = announcement;
        if voters.len() > 2 * VOTERS_MAX {
            return;
        }
        self.inner.announcement.send_if_modified(|current| {
            let announced = Some(AnnouncedLeader { term, leader, voters });
            let is_news =
                *current != announced && current.as_ref().is_none_or(|current| current.term <= term);
            if is_news {
                *current = announced;
            }
            is_news
        });
    }

    /// When this member last had proof through the log that a leader exists: it accepted a leader's message, or leads
    /// itself and a quorum acknowledged it. Initially, when the log was opened.
    pub fn last_leader_contact(&self) -> Instant {
        let contact = *self.leader_contact();
        self.inner.leadership.borrow().acked().map_or(contact, |acked| acked.max(contact))
    }

    fn leader_contact(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.inner.leader_contact.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the proposer has ended, which it does only with the log.
    pub async fn proposer_ended(&self) {
        self.inner.proposals.closed().await;
    }

    /// Sets whether this member may stand for election once it has heard no leader for a lease and an election timeout.
    pub fn may_stand(&self, allowed: bool) {
        self.inner.raft.runtime_config().elect(allowed);
    }

    /// Sets whether this member sends heartbeats while it leads. A leader that leaves stops them, so that its lease runs
    /// out and its followers elect another.
    pub fn may_lead(&self, allowed: bool) {
        self.inner.raft.runtime_config().heartbeat(allowed);
    }

    /// Sets whether this member gives way while it leads: it sends no heartbeat, and refuses what would make it send
    /// anything else to its followers. So they elect another.
    pub fn give_way(&self, gives_way: bool) {
        self.inner.gives_way.store(gives_way, Ordering::Relaxed);
    }

    fn gives_way(&self) -> bool {
        self.inner.gives_way.load(Ordering::Relaxed)
    }

    /// Stops the log, and returns when its file is closed. Proposals in flight have unknown outcomes.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "the metadata log did not stop cleanly");
        }
        // It keeps the file open.
        self.inner.incoming.lock().await.take();
        if let Some(closed) = self.inner.closed.lock().await.take() {
            // No timeout: the last writes are in flight. An error means that the writer thread is gone.
            closed.await.ok();
        }
    }
}
