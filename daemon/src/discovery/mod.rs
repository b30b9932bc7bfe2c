//! How a member finds its cluster: through the introducer, or through members that it remembers.

pub mod cluster_id;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use idunno_shared::client::connections::{Connections, PeerError};
use idunno_shared::ids::NodeId;
use idunno_shared::names::MemberName;
use idunno_shared::wire::frame::{Reply, Request};
use idunno_shared::wire::membership::{Bounded, IntroductionReply, IntroductionRequest};
use idunno_shared::wire::refusal::Refusal;
use thiserror::Error;
use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::discovery::cluster_id::{ClusterId, ClusterMismatch};
use crate::membership::{MembershipHandle, MembershipView};
use crate::runtime::data_dir::DataDir;
use idunno_consensus::Consensus;

/// The addresses of members seen last.
pub const PEERS_FILE: &str = "peers.json";
/// Addresses remembered.
const PEERS_MAX: usize = 64;
const INTRODUCE_TIMEOUT: Duration = Duration::from_secs(3);
/// How often the introducer is asked again. For this long, one that lost its file may make a newcomer a founder.
const REINTRODUCE_PERIOD: Duration = Duration::from_secs(10);
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Addresses are written at most this often.
const REMEMBER_PERIOD: Duration = Duration::from_secs(1);

/// The introducer did not introduce this member.
#[derive(Debug, Error)]
enum IntroduceError {
    #[error("cannot resolve the introducer's name: {0}")]
    Resolve(io::Error),
    #[error("the introducer's name has no address")]
    NoAddress,
    #[error(
        "{introducer} made this member the founder, but it has dropped its log and must not found a cluster: stop it and \
         the introducer, delete introducer.json, and first start the member that was recovered or restored"
    )]
    MustNotFound { introducer: String },
    #[error("this member is not in its own list")]
    NotListed,
    #[error("{address} is not an introducer")]
    NotIntroducer { address: SocketAddr },
    #[error(transparent)]
    OtherCluster(#[from] ClusterMismatch),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Call(#[from] PeerError),
}

/// Finds the cluster and joins it.
pub struct Discovery {
    pub me: NodeId,
    pub name: MemberName,
    /// The introducer's `HOST:PORT`, as configured.
    pub introducer: String,
    pub data_dir: Arc<DataDir>,
    pub peers: Connections,
    pub membership: MembershipHandle,
    pub consensus: Consensus,
    pub cluster_id: ClusterId,
}

impl Discovery {
    /// Joins now and whenever `rejoin` asks for it; remembers members meanwhile.
    pub async fn run(self, mut rejoin: mpsc::Receiver<()>, stop: CancellationToken) {
        tokio::select! {
            () = async {
                loop {
                    tokio::select! {
                        () = self.join() => return,
                        asked = rejoin.recv() => if asked.is_none() { return },
                    }
                }
            } => {}
            () = self.remember_peers() => {}
            () = stop.cancelled() => {}
        }
    }

    /// Joins through remembered members at once, and through the introducer as soon as it answers.
    ///
    /// The introducer is asked again whenever this member is alone, because the members it named may be gone, and every
    /// [`REINTRODUCE_PERIOD`], so that an introducer that lost its file learns of the cluster and so that two halves that
    /// have forgotten each other meet again. Returns only when membership has ended.
    async fn join(&self) {
        let remembered = self.remembered();
        // Also without any: this is what readmits a member that left.
        self.membership.join(remembered.iter().copied().collect()).await;
        let mut view = self.membership.view();
        let (mut pause, mut is_introduced) = (RETRY_MIN, false);
        let mut logged: Option<String> = None;
        loop {
            match self.introduce().await {
                Ok(reply) => {
                    logged = None;
                    if !is_introduced {
                        info!(members = reply.members.len(), founder = ?reply.founder, "introduced");
                    }
                    let others = reply.members.iter().filter(|(id, _)| *id != self.me).map(|(_, at)| *at);
                    let seeds = remembered.iter().copied().chain(others).collect::<BTreeSet<_>>();
                    self.join_through(seeds).await;
                    self.membership.introduced(reply.members.iter().map(|(_, at)| *at).collect()).await;
                    is_introduced |= self.bootstrap_if_founder(&reply).await;
                }
                Err(error) if logged.as_deref() == Some(error.to_string().as_str()) => {
                    debug!(introducer = %self.introducer, %error, "not introduced");
                }
                Err(error) => {
                    warn!(introducer = %self.introducer, %error, "not introduced, retrying");
                    logged = Some(error.to_string());
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
            if is_introduced {
                let is_alone =
                    |view: &Arc<MembershipView>| view.joined && view.live().all(|id| id == self.me);
                if let Ok(Err(_)) = timeout(REINTRODUCE_PERIOD, view.wait_for(is_alone)).await {
                    return;
                }
            }
        }
    }

    /// Joins through these addresses, unless another member was found or this member left meanwhile.
    async fn join_through(&self, seeds: BTreeSet<SocketAddr>) {
        let view = self.membership.current();
        if view.joined && view.live().all(|id| id == self.me) {
            self.membership.join(seeds.into_iter().collect()).await;
        }
    }

    /// Bootstraps the metadata log if this member is the founder. Returns whether nothing is left to do.
    async fn bootstrap_if_founder(&self, reply: &IntroductionReply) -> bool {
        if reply.founder != Some(self.me) {
            return true;
        }
        let founded = self.consensus.bootstrap().await;
        if let Err(error) = &founded {
            warn!(%error, "cannot bootstrap the metadata log");
        }
        founded.is_ok()
    }

    async fn introduce(&self) -> Result<IntroductionReply, IntroduceError> {
        let mut addresses = lookup_host(&self.introducer).await.map_err(IntroduceError::Resolve)?;
        let address = addresses.next().ok_or(IntroduceError::NoAddress)?;
        let (name, founder) = (self.name.clone(), self.cluster_id.founder());
        let must_join = self.cluster_id.must_join();
        let supersedes = Bounded::first_of(self.cluster_id.supersedes().iter().copied());
        let id = self.me;
        // It may have changed since the start.
        let own = self.membership.current().address(id).ok_or(IntroduceError::NotListed)?;
        let request =
            IntroductionRequest::Introduce { id, name, address: own, founder, must_join, supersedes };
        match self.peers.call(address, Request::Introduction(request), INTRODUCE_TIMEOUT).await? {
            // An introducer of an older release does not check `must_join`.
            Reply::Introduction(reply) if must_join && reply.founder == Some(self.me) => {
                Err(IntroduceError::MustNotFound { introducer: self.introducer.clone() })
            }
            Reply::Introduction(reply) => {
                reply.founder.map_or(Ok(()), |founder| self.cluster_id.adopt(founder))?;
                Ok(reply)
            }
            Reply::Refused(refusal) => Err(refusal.into()),
            _ => Err(IntroduceError::NotIntroducer { address }),
        }
    }

    fn remembered(&self) -> BTreeSet<SocketAddr> {
        match self.data_dir.read_json::<BTreeSet<SocketAddr>>(PEERS_FILE) {
            Ok(peers) => peers.unwrap_or_default(),
            Err(error) => {
                warn!(%error, "cannot read the remembered members");
                BTreeSet::new()
            }
        }
    }

    async fn remember_peers(&self) {
        let mut view = self.membership.view();
        let mut written = self.remembered();
        loop {
            let now = Arc::clone(&view.borrow_and_update());
            let others = now.live().filter(|&id| id != self.me).filter_map(|id| now.address(id));
            let peers: BTreeSet<_> = others.take(PEERS_MAX).collect();
            // While no other member is up, the earlier addresses are the best known.
            if !peers.is_empty() && peers != written {
                let (data_dir, write) = (Arc::clone(&self.data_dir), peers.clone());
                let wrote =
                    tokio::task::spawn_blocking(move || data_dir.write_json(PEERS_FILE, &write)).await;
                match wrote {
                    Ok(Ok(())) => written = peers,
                    Ok(Err(error)) => warn!(%error, "cannot remember members"),
                    Err(error) => warn!(%error, "cannot remember members"),
                }
            }
            sleep(REMEMBER_PERIOD).await;
            if view.changed().await.is_err() {
                return;
            }
        }
    }
}
