//! How a member finds its cluster: through the introducer, or through peers that it remembers.

pub mod cluster_id;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use idunno_shared::client::connections::Connections;
use idunno_shared::ids::NodeId;
use idunno_shared::names::MemberName;
use idunno_shared::wire::frame::{Reply, Request};
use idunno_shared::wire::introduction::{IntroductionReply, IntroductionRequest};
use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::discovery::cluster_id::ClusterId;
use crate::membership::{Membership, MembershipView};
use crate::runtime::data_dir::DataDir;
use idunno_consensus::Consensus;

/// Where the members met last are remembered.
pub const PEERS_FILE: &str = "peers.json";
/// Peers remembered.
const PEERS_MAX: usize = 64;
const INTRODUCE_TIMEOUT: Duration = Duration::from_secs(3);
/// So long may an introducer that lost its file take a newcomer for a founder.
const REINTRODUCE_PERIOD: Duration = Duration::from_secs(10);
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Peers are written at most this often.
const REMEMBER_PERIOD: Duration = Duration::from_secs(1);

/// Who seeks.
pub struct Discovery {
    /// Itself.
    pub me: NodeId,
    /// Its name.
    pub name: MemberName,
    /// Where it listens.
    pub address: SocketAddr,
    /// The introducer, as configured.
    pub introducer: String,
    /// Where peers are remembered.
    pub data_dir: Arc<DataDir>,
    /// Calls.
    pub peers: Connections,
    /// The failure detector, which joins.
    pub membership: Membership,
    /// The metadata log, which the first member founds.
    pub consensus: Consensus,
    /// The cluster that it belongs to, which the introducer names.
    pub cluster_id: ClusterId,
}

impl Discovery {
    /// Joins now and whenever `rejoin` says so, and remembers peers meanwhile.
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

    /// Joins through remembered peers at once, and through the introducer as soon as it answers. It is asked again
    /// whenever this member is alone, for whom it named then may be gone, and now and then, so that an introducer that
    /// lost its file learns of the cluster again, and so that halves of it that have forgotten each other meet again.
    /// Does not end.
    async fn join(&self) {
        let remembered = self.remembered();
        // Even without any: this is what takes a member back in that had left.
        self.membership.join(remembered.iter().copied().collect()).await;
        let mut view = self.membership.view();
        let (mut pause, mut is_introduced, mut told) = (RETRY_MIN, false, None);
        loop {
            match self.introduce().await {
                Ok(reply) => {
                    told = None;
                    if !is_introduced {
                        info!(members = reply.members.len(), founder = ?reply.founder, "introduced");
                    }
                    let others = reply.members.iter().filter(|(id, _)| *id != self.me).map(|(_, at)| *at);
                    let seeds = remembered.iter().copied().chain(others).collect::<BTreeSet<_>>();
                    self.seek(seeds).await;
                    self.membership.introduced(reply.members.iter().map(|(_, at)| *at).collect()).await;
                    is_introduced |= self.found(&reply).await;
                }
                Err(reason) if told.as_ref() == Some(&reason) => {
                    debug!(introducer = %self.introducer, %reason, "not introduced");
                }
                Err(reason) => {
                    warn!(introducer = %self.introducer, %reason, "not introduced, trying on");
                    told = Some(reason);
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

    /// Joins through these, unless somebody was found or this member left meanwhile.
    async fn seek(&self, seeds: BTreeSet<SocketAddr>) {
        let view = self.membership.current();
        if view.joined && view.live().all(|id| id == self.me) {
            self.membership.join(seeds.into_iter().collect()).await;
        }
    }

    /// Founds the metadata log, if this member is to. Says whether all is done.
    async fn found(&self, reply: &IntroductionReply) -> bool {
        if reply.founder != Some(self.me) {
            return true;
        }
        let founded = self.consensus.found().await;
        if let Err(error) = &founded {
            warn!(%error, "this member cannot found the metadata log");
        }
        founded.is_ok()
    }

    async fn introduce(&self) -> Result<IntroductionReply, String> {
        let mut addresses = lookup_host(&self.introducer).await.map_err(|error| error.to_string())?;
        let address = addresses.next().ok_or("the introducer's name has no address")?;
        let (name, founder) = (self.name.clone(), self.cluster_id.founder());
        let must_join = self.cluster_id.must_join();
        let request =
            IntroductionRequest::Introduce { id: self.me, name, address: self.address, founder, must_join };
        match self.peers.call(address, Request::Introduction(request), INTRODUCE_TIMEOUT).await {
            // An introducer of an older release does not know better.
            Ok(Reply::Introduction(reply)) if must_join && reply.founder == Some(self.me) => Err(format!(
                "{} takes this member for a founder, which has forgotten its log and must not found a cluster: stop it and \
                 the introducer, delete introducer.json, and start the member first that was recovered or restored",
                self.introducer
            )),
            Ok(Reply::Introduction(reply)) => {
                match reply.founder.map(|founder| self.cluster_id.belong(founder)) {
                    Some(Err(error)) => Err(error.to_string()),
                    Some(Ok(())) | None => Ok(reply),
                }
            }
            Ok(Reply::Refused(refusal)) => Err(refusal.message),
            Ok(_) => Err(format!("{address} is not an introducer")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn remembered(&self) -> BTreeSet<SocketAddr> {
        match self.data_dir.read_json::<BTreeSet<SocketAddr>>(PEERS_FILE) {
            Ok(peers) => peers.unwrap_or_default(),
            Err(error) => {
                warn!(%error, "no peers are remembered");
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
            // Without anybody in sight the old ones are the best there is.
            if !peers.is_empty() && peers != written {
                let (data_dir, write) = (Arc::clone(&self.data_dir), peers.clone());
                let wrote =
                    tokio::task::spawn_blocking(move || data_dir.write_json(PEERS_FILE, &write)).await;
                match wrote {
                    Ok(Ok(())) => written = peers,
                    Ok(Err(error)) => warn!(%error, "peers are not remembered"),
                    Err(error) => warn!(%error, "peers are not remembered"),
                }
            }
            sleep(REMEMBER_PERIOD).await;
            if view.changed().await.is_err() {
                return;
            }
        }
    }
}
