//! Several members in one process, over a network with partitions.

mod cluster;
mod faults;
mod members;
mod messages;
mod recovery;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use idunno_core::metadata::{Action, Applied, Command, State};
use idunno_shared::ids::{Digest, NodeId, Term, UploadId};
use idunno_shared::wire::consensus::{ConsensusReply, ConsensusRequest, LeaderAnnouncement};
use idunno_shared::wire::control::{Change, Changed, NewFile};
use tempfile::TempDir;
use tokio::sync::watch;

use super::*;

/// Generous: no wait takes longer, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// A command that puts an empty file.
pub(super) fn put(name: &str) -> Command {
    let file = NewFile { name: name.parse().unwrap(), size: 0, digest: Digest::of(b""), extents: Vec::new() };
    let change = Change::CommitFiles { upload: UploadId::default(), files: vec![file] };
    Command { at_ms: 1, op: None, action: Action::Change(change), upload: None, by: None }
}

fn has(state: &State, name: &str) -> bool {
    state.file(&name.parse().unwrap()).is_some()
}

async fn until<T: Clone>(mut watched: watch::Receiver<T>, what: &str, wanted: impl Fn(&T) -> bool) -> T {
    let waited = tokio::time::timeout(DEADLINE, watched.wait_for(|value| wanted(value))).await;
    let ended = waited.unwrap_or_else(|elapsed| panic!("timed out waiting until {what}: {elapsed}"));
    ended.unwrap_or_else(|closed| panic!("the log ended before {what}: {closed}")).clone()
}

/// The network between the members.
#[derive(Clone, Default)]
struct TestNetwork(Arc<Mutex<NetworkState>>);

#[derive(Default)]
struct NetworkState {
    members: BTreeMap<NodeId, Consensus>,
    disconnected: BTreeSet<NodeId>,
    snapshot_chunks: usize,
}

#[derive(Clone)]
struct TestTransport {
    network: TestNetwork,
    from: NodeId,
}

impl TestTransport {
    fn target(&self, target: NodeId) -> Option<Consensus> {
        let network = self.network.0.lock().unwrap();
        let connected = !network.disconnected.contains(&self.from) && !network.disconnected.contains(&target);
        network.members.get(&target).filter(|_| connected).cloned()
    }
}

impl Transport for TestTransport {
    async fn call(
        &self,
        target: NodeId,
        request: ConsensusRequest,
        timeout: Duration,
    ) -> Result<ConsensusReply, TransportError> {
        let error = |reason: &str| TransportError { target, reason: reason.to_owned() };
        let member = self.target(target).ok_or_else(|| error("unreachable"))?;
        if matches!(request, ConsensusRequest::Snapshot(_)) {
            self.network.0.lock().unwrap().snapshot_chunks += 1;
        }
        let reply = tokio::time::timeout(timeout, member.handle(request)).await;
        let reply = reply.map_err(|_elapsed| error("no reply in time"))?;
        self.target(target).map(|_| reply).ok_or_else(|| error("unreachable"))
    }
}

struct Cluster {
    network: TestNetwork,
    config: ConsensusConfig,
    dirs: BTreeMap<NodeId, TempDir>,
}

impl Cluster {
    fn new(config: ConsensusConfig) -> Self {
        Self { network: TestNetwork::default(), config, dirs: BTreeMap::new() }
    }

    /// A cluster whose voters are `ids`; the first leads.
    async fn of(ids: impl IntoIterator<Item = u64>, config: ConsensusConfig) -> Self {
        let mut cluster = Self::new(config);
        let ids: Vec<_> = ids.into_iter().map(NodeId).collect();
        let first = cluster.start(ids[0]).await;
        first.bootstrap().await.unwrap();
        cluster.leads(ids[0]).await;
        for id in &ids[1..] {
            cluster.start(*id).await;
            first.add_learner(*id).await.unwrap();
        }
        first.set_voters(ids.iter().copied().collect()).await.unwrap();
        cluster
    }

    /// Starts a member on the existing content of its directory.
    async fn start(&mut self, id: NodeId) -> Consensus {
        let dir = self.dirs.entry(id).or_insert_with(|| tempfile::tempdir().unwrap()).path().to_owned();
        self.start_in(id, &dir).await
    }

    async fn start_in(&self, id: NodeId, dir: &Path) -> Consensus {
        let transport = TestTransport { network: self.network.clone(), from: id };
        let member = Consensus::open(dir, id, self.config, transport).await.unwrap();
        self.network.0.lock().unwrap().members.insert(id, member.clone());
        member
    }

    fn member(&self, id: u64) -> Consensus {
        self.network.0.lock().unwrap().members[&NodeId(id)].clone()
    }

    /// Disconnects the member at once, then waits until its file is closed.
    async fn stop(&self, id: u64) {
        let member = self.network.0.lock().unwrap().members.remove(&NodeId(id)).unwrap();
        member.shutdown().await;
    }

    async fn stop_all(&self) {
        let ids: Vec<_> = self.network.0.lock().unwrap().members.keys().copied().collect();
        for id in ids {
            self.stop(id.0).await;
        }
    }

    fn disconnect(&self, id: u64) {
        self.network.0.lock().unwrap().disconnected.insert(NodeId(id));
    }

    fn reconnect(&self, id: u64) {
        self.network.0.lock().unwrap().disconnected.remove(&NodeId(id));
    }

    /// Waits until the member leads with a quorum.
    async fn leads(&self, id: NodeId) -> Leadership {
        until(self.member(id.0).leadership(), &format!("{id} leads"), |l| l.is_leader && l.has_quorum).await
    }

    async fn sees(&self, id: u64, name: &str) {
        until(self.member(id).state(), &format!("{id} sees {name}"), |state| has(state, name)).await;
    }
}

async fn must_put(member: &Consensus, name: &str) {
    let applied = member.propose(put(name)).await.unwrap().unwrap();
    assert!(matches!(applied, Applied::Changed(Changed::Files(_))));
}
