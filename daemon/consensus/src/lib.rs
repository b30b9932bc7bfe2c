//! The metadata log: Raft over the members' connections, one file on disk, the metadata in memory.
//!
//! Decides nothing itself: the ring says who may stand, Raft's vote says who leads, the coordinator says who votes.
//! Source: Raft (Ongaro and Ousterhout 2014), by openraft 0.9; section 6 of the design.
//! Invariants: a command whose outcome is known is durable on a majority and applied once per proposal, in the same
//! order everywhere; who has an outcome sees it in [`Consensus::state`]; nobody stands for election unless announced so by
//! [`Consensus::may_stand`].
//! Bounds: [`config`].
//! It does not find addresses (the [`Transport`] does), detect failures or choose voters.

mod config;
mod errors;
mod leadership;
mod members;
mod network;
mod proposer;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use idunno_core::metadata::{Applied, Command, State};
use idunno_shared::ids::NodeId;
use idunno_shared::wire::consensus::MAX_VOTERS;
use idunno_shared::wire::consensus::{ConsensusReply, ConsensusRequest, LeaderAnnouncement};
use idunno_shared::wire::refusal::Refusal;
use openraft::error::{CheckIsLeaderError, ClientWriteError, InitializeError, RaftError};
use openraft::raft::{AppendEntriesResponse, InstallSnapshotRequest};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::config::{Batch, COMMANDS_WAITING_MAX, Raft, SNAPSHOT_BYTES_MAX, TypeConfig};
pub use self::config::{COMMAND_BYTES_MAX, COMMANDS_PER_ENTRY_MAX, Settings};
pub use self::errors::{BarrierError, FoundError, MembersError, OpenError, ProposeError, RecoverError};
use self::leadership::Announced;
pub use self::leadership::Leadership;
use self::network::{AppendResult, Network, SnapshotPiece, SnapshotResult, VoteResult, decode, encode};
pub use self::network::{Transport, TransportError};
use self::proposer::Proposal;
use self::store::Install;
pub use self::store::{Origin, Survivor, encode_state};

/// The store's file within the data directory.
pub const STORE_FILE: &str = "metadata.redb";

/// This member's part of the metadata log. Clones are handles of the same; it stops some time after the last is
/// dropped, and at once by [`Consensus::shutdown`].
#[derive(Clone)]
pub struct Consensus {
    inner: Arc<Inner>,
}

struct Inner {
    node: NodeId,
    raft: Raft,
    proposals: mpsc::Sender<Proposal>,
    state: watch::Receiver<Arc<State>>,
    leadership: watch::Receiver<Leadership>,
    announced: watch::Sender<Option<Announced>>,
    /// When a message of a leader was taken last.
    heard: SyncMutex<Instant>,
    install: Install,
    /// Held during a change of voters.
    changing: Mutex<()>,
    change_timeout: Duration,
    /// The pause between attempts to reach a quorum.
    retry: Duration,
    stop: CancellationToken,
    closed: Mutex<Option<oneshot::Receiver<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
        // The library's core keeps itself alive until it is announced to stop.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let raft = self.raft.clone();
            runtime.spawn(async move { raft.shutdown().await });
        }
    }
}

impl Consensus {
    /// Opens the log of `node` in `data_dir`, and replays it. A new log waits to be founded, or to be sent one.
    pub async fn open<T: Transport>(
        data_dir: &Path,
        node: NodeId,
        settings: Settings,
        transport: T,
    ) -> Result<Self, OpenError> {
        let config = settings.raft().map_err(|error| OpenError::Settings(error.to_string()))?;
        let path = data_dir.join(STORE_FILE);
        let opened = tokio::task::spawn_blocking(move || store::open(&path, node)).await;
        let opened = opened.map_err(|error| OpenError::Start(error.to_string()))??;
        let network = Network {
            transport,
            backoff: Duration::from_millis(settings.heartbeat_ms),
            vote_timeout: Duration::from_millis(settings.election_min_ms),
        };
        let raft = Raft::new(node.0, Arc::new(config), network, opened.log, opened.machine)
            .await
            .map_err(|fatal| OpenError::Start(fatal.to_string()))?;

        let change_timeout = Duration::from_millis(settings.change_timeout_ms);
        let lease = Duration::from_millis(settings.election_max_ms);
        let (announced, tells) = watch::channel(None);
        let leadership = leadership::watch_leadership(&raft, lease, tells);
        let stop = CancellationToken::new();
        let (proposals, receiver) = mpsc::channel(COMMANDS_WAITING_MAX);
        tokio::spawn(proposer::run(raft.clone(), receiver, change_timeout, stop.clone()));
        Ok(Self {
            inner: Arc::new(Inner {
                node,
                raft,
                proposals,
                state: opened.state,
                leadership,
                announced,
                heard: SyncMutex::new(Instant::now()),
                install: opened.install,
                changing: Mutex::new(()),
                change_timeout,
                retry: Duration::from_millis(settings.heartbeat_ms),
                stop,
                closed: Mutex::new(Some(opened.closed)),
            }),
        })
    }

    /// Founds the cluster with this member as its only voter, unless its log has begun already.
    pub async fn found(&self) -> Result<(), FoundError> {
        // The founder is announced so whenever it is introduced again; the library calls a second try an error, in the journal.
        match self.inner.raft.is_initialized().await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => return Err(FoundError::Stopped(error.to_string())),
        }
        match self.inner.raft.initialize(BTreeSet::from([self.inner.node.0])).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(FoundError::Stopped(error.to_string())),
        }
    }

    /// Returns when the log's core has taken its next turn; never, if it is stuck.
    pub async fn turn(&self) {
        // One that has stopped is a fault, and announced as such.
        let _ = self.inner.raft.with_raft_state(|_| ()).await;
    }

    /// Has a command committed and applied, and returns what it did.
    pub async fn propose(&self, command: Command) -> Result<Result<Applied, Refusal>, ProposeError> {
        self.check_may_propose()?;
        let bytes = encode(&command).map_or(usize::MAX, |encoded| encoded.len());
        if bytes > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes, limit: COMMAND_BYTES_MAX });
        }
        let stopped = || ProposeError::Stopped("its handles are shut down".to_owned());
        let end = Instant::now() + self.inner.change_timeout;
        let place = match tokio::time::timeout_at(end, self.inner.proposals.reserve()).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Err(stopped()),
            // The queue has not moved for so long: no entry is being committed.
            Err(_) => return Err(ProposeError::NoQuorum),
        };
        let (reply, outcome) = oneshot::channel();
        place.send(Proposal { command, bytes, reply });
        match tokio::time::timeout_at(end, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(stopped()),
            Err(_) => Err(ProposeError::Unknown),
        }
    }

    /// What can be refused before anything is proposed.
    fn check_may_propose(&self) -> Result<(), ProposeError> {
        let leadership = self.inner.leadership.borrow();
        if let Some(fault) = &leadership.fault {
            return Err(ProposeError::Stopped(fault.clone()));
        }
        if !leadership.is_leader {
            return Err(ProposeError::NotLeader { leader: leadership.leader });
        }
        // One that was never acknowledged is new: its first entry is what gets it acknowledged.
        if !leadership.holds_lease() && leadership.quorum_ack_age_ms().is_some() {
            return Err(ProposeError::NoQuorum);
        }
        Ok(())
    }

    /// Confirms with a majority that this member leads, and waits until it has applied all that was acknowledged
    /// before: what [`Self::state`] shows then is as new as any.
    /// Returns term and index of the last entry that counts for that.
    pub async fn barrier(&self, timeout: Duration) -> Result<(u64, u64), BarrierError> {
        let confirm = async {
            loop {
                match self.inner.raft.ensure_linearizable().await {
                    Ok(upto) => {
                        return Ok(upto.map_or((0, 0), |id| (id.leader_id.term, id.index)));
                    }
                    Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward))) => {
                        return Err(BarrierError::NotLeader { leader: forward.leader_id.map(NodeId) });
                    }
                    // The library gives the others one heartbeat's time, which a busy machine may miss.
                    Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => {
                        tokio::time::sleep(self.inner.retry).await;
                    }
                    Err(RaftError::Fatal(fatal)) => return Err(BarrierError::Stopped(fatal.to_string())),
                }
            }
        };
        tokio::time::timeout(timeout, confirm).await.unwrap_or(Err(BarrierError::NoQuorum))
    }

    /// Has an entry of its own committed, and so all that was in this leader's log before. A barrier would not do: a
    /// leader that restarts leads on in its old term, and has entries of which nobody knows yet whether they count.
    pub async fn take_over(&self, timeout: Duration) -> Result<(), BarrierError> {
        let write = async {
            let outcome = match self.inner.raft.client_write_ff(Batch(Arc::new(Vec::new()))).await {
                Ok(outcome) => outcome.await,
                Err(fatal) => return Err(BarrierError::Stopped(fatal.to_string())),
            };
            match outcome {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(ClientWriteError::ForwardToLeader(forward))) => {
                    Err(BarrierError::NotLeader { leader: forward.leader_id.map(NodeId) })
                }
                Ok(Err(error)) => Err(BarrierError::Stopped(error.to_string())),
                Err(_) => Err(BarrierError::NotLeader { leader: None }),
            }
        };
        tokio::time::timeout(timeout, write).await.unwrap_or(Err(BarrierError::NoQuorum))
    }

    /// The metadata as applied here, whenever it changes.
    pub fn state(&self) -> watch::Receiver<Arc<State>> {
        self.inner.state.clone()
    }

    /// Who leads, whenever it changes.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// Notes that `leader` coordinates, as it said itself.
    pub fn hear(&self, leader: NodeId, said: LeaderAnnouncement) {
        let LeaderAnnouncement { term, voters } = said;
        if voters.len() > 2 * MAX_VOTERS {
            return;
        }
        self.inner.announced.send_if_modified(|announced| {
            let news = Some(Announced { term, leader, voters });
            let is_news =
                *announced != news && announced.as_ref().is_none_or(|announced| announced.term <= term);
            if is_news {
                *announced = news;
            }
            is_news
        });
    }

    /// When this member last heard by the log that there is a leader: it took a message of one, or leads itself and a
    /// quorum acknowledged it. Before the first time, when it was opened.
    pub fn leader_heard(&self) -> Instant {
        let heard = *self.heard();
        self.inner.leadership.borrow().acked().map_or(heard, |acked| acked.max(heard))
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.inner.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends when proposals are served no longer, which they are as long as the log is.
    pub async fn proposer_ended(&self) {
        self.inner.proposals.closed().await;
    }

    /// Whether this member may stand for election when no leader has been heard of for a lease and a timeout.
    pub fn may_stand(&self, allowed: bool) {
        self.inner.raft.runtime_config().elect(allowed);
    }

    /// Whether this member, if it leads, may keep its followers from electing another: it says no when it leaves, and
    /// then its lease runs out.
    pub fn may_lead(&self, allowed: bool) {
        self.inner.raft.runtime_config().heartbeat(allowed);
    }

    /// Answers a peer. What cannot be decoded gets an empty answer, which the peer takes for an unreachable member.
    pub async fn handle(&self, request: ConsensusRequest) -> ConsensusReply {
        let handle = self.clone();
        // In a task of its own: the caller may go away with its connection, and half an answer must not be left.
        let answer = tokio::spawn(async move { handle.answer(request).await });
        match answer.await {
            Ok(Ok(reply)) => ConsensusReply(reply),
            Ok(Err(error)) => {
                tracing::warn!(error, "a peer's message of the metadata log is not acceptable");
                ConsensusReply(Vec::new())
            }
            Err(_) => ConsensusReply(Vec::new()),
        }
    }

    async fn answer(&self, request: ConsensusRequest) -> Result<Vec<u8>, String> {
        let raft = &self.inner.raft;
        let reply = match request {
            ConsensusRequest::Append(payload) => {
                let request = decode(&payload).map_err(|error| error.to_string())?;
                let result: AppendResult =
                    in_time(self.inner.change_timeout, raft.append_entries(request)).await?;
                if matches!(&result, Ok(response) if !matches!(response, AppendEntriesResponse::HigherVote(_)))
                {
                    *self.heard() = Instant::now();
                }
                encode(&result)
            }
            ConsensusRequest::Vote(payload) => {
                let request = decode(&payload).map_err(|error| error.to_string())?;
                let result: VoteResult = in_time(self.inner.change_timeout, raft.vote(request)).await?;
                encode(&result)
            }
            ConsensusRequest::Snapshot(payload) => {
                let piece: SnapshotPiece = decode(&payload).map_err(|error| error.to_string())?;
                let request = InstallSnapshotRequest::<TypeConfig>::from(piece);
                if request.offset.saturating_add(request.data.len() as u64) > SNAPSHOT_BYTES_MAX {
                    return Err("the snapshot is too large".to_owned());
                }
                let _installing = request.done.then(|| self.inner.install.announce(request.meta.last_log_id));
                let result: SnapshotResult = raft.install_snapshot(request).await;
                if result.is_ok() {
                    *self.heard() = Instant::now();
                }
                encode(&result)
            }
        };
        reply.map_err(|error| error.to_string())
    }

    /// Stops, and returns when the file is closed. Proposals under way have unknown outcomes.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "the metadata log did not stop cleanly");
        }
        if let Some(closed) = self.inner.closed.lock().await.take() {
            // The last writes are under way, hence no timeout. An error means that the thread is gone.
            closed.await.ok();
        }
    }
}

/// Gives a message up whose sender has long done so: behind a disk that hangs they would pile up.
async fn in_time<T>(limit: Duration, answer: impl Future<Output = T>) -> Result<T, String> {
    let answer = tokio::time::timeout(limit, answer).await;
    answer.map_err(|_| format!("this member's log did not take it within {} ms", limit.as_millis()))
}
