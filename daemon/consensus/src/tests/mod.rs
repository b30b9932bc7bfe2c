//! Several members in one process, over links that can be cut.

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
use idunno_shared::wire::consensus::{ConsensusReply, ConsensusRequest};
use idunno_shared::wire::control::{Change, Changed, NewFile};
use tempfile::TempDir;
use tokio::sync::watch;

use super::*;

/// No wait of these tests takes longer, on however busy a machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// A command that puts an empty file.
pub(super) fn put(name: &str) -> Command {
    let file = NewFile { name: name.parse().unwrap(), size: 0, digest: Digest::of(b""), extents: Vec::new() };
    let change = Change::CommitFiles { upload: UploadId::default(), files: vec![file] };
    Command { at_ms: 1, op: None, action: Action::Change(change) }
}

fn has(state: &State, name: &str) -> bool {
    state.file(&name.parse().unwrap()).is_some()
}

/// Waits until the watched value is as wanted.
async fn until<T: Clone>(mut watched: watch::Receiver<T>, what: &str, wanted: impl Fn(&T) -> bool) -> T {
    let waited = tokio::time::timeout(DEADLINE, watched.wait_for(|value| wanted(value))).await;
    let ended = waited.unwrap_or_else(|elapsed| panic!("waited too long until {what}: {elapsed}"));
    ended.unwrap_or_else(|closed| panic!("the log ended before {what}: {closed}")).clone()
}

/// The network, and who is on it.
#[derive(Clone, Default)]
struct Hub(Arc<Mutex<Wires>>);

#[derive(Default)]
struct Wires {
    members: BTreeMap<NodeId, Consensus>,
    cut: BTreeSet<NodeId>,
    snapshot_pieces: usize,
}

#[derive(Clone)]
struct Wire {
    hub: Hub,
    from: NodeId,
}

impl Wire {
    fn target(&self, target: NodeId) -> Option<Consensus> {
        let wires = self.hub.0.lock().unwrap();
        let connected = !wires.cut.contains(&self.from) && !wires.cut.contains(&target);
        wires.members.get(&target).filter(|_| connected).cloned()
    }
}

impl Transport for Wire {
    async fn call(
        &self,
        target: NodeId,
        request: ConsensusRequest,
        timeout: Duration,
    ) -> Result<ConsensusReply, TransportError> {
        let error = |reason: &str| TransportError { target, reason: reason.to_owned() };
        let member = self.target(target).ok_or_else(|| error("unreachable"))?;
        if matches!(request, ConsensusRequest::Snapshot(_)) {
            self.hub.0.lock().unwrap().snapshot_pieces += 1;
        }
        let reply = tokio::time::timeout(timeout, member.handle(request)).await;
        let reply = reply.map_err(|_elapsed| error("no answer in time"))?;
        self.target(target).map(|_| reply).ok_or_else(|| error("unreachable"))
    }
}

/// Members with their data directories.
struct Cluster {
    hub: Hub,
    settings: Settings,
    dirs: BTreeMap<NodeId, TempDir>,
}

impl Cluster {
    fn new(settings: Settings) -> Self {
        Self { hub: Hub::default(), settings, dirs: BTreeMap::new() }
    }

    /// One that `ids` vote in; the first leads.
    async fn of(ids: impl IntoIterator<Item = u64>, settings: Settings) -> Self {
        let mut cluster = Self::new(settings);
        let ids: Vec<_> = ids.into_iter().map(NodeId).collect();
        let first = cluster.start(ids[0]).await;
        first.found().await.unwrap();
        cluster.leads(ids[0]).await;
        for id in &ids[1..] {
            cluster.start(*id).await;
            first.add_learner(*id).await.unwrap();
        }
        first.set_voters(ids.iter().copied().collect()).await.unwrap();
        cluster
    }

    /// Starts a member, on what is in its directory.
    async fn start(&mut self, id: NodeId) -> Consensus {
        let dir = self.dirs.entry(id).or_insert_with(|| tempfile::tempdir().unwrap()).path().to_owned();
        self.start_in(id, &dir).await
    }

    async fn start_in(&self, id: NodeId, dir: &Path) -> Consensus {
        let wire = Wire { hub: self.hub.clone(), from: id };
        let member = Consensus::open(dir, id, self.settings, wire).await.unwrap();
        self.hub.0.lock().unwrap().members.insert(id, member.clone());
        member
    }

    fn member(&self, id: u64) -> Consensus {
        self.hub.0.lock().unwrap().members[&NodeId(id)].clone()
    }

    /// The member is gone at once, and later its file is closed.
    async fn stop(&self, id: u64) {
        let member = self.hub.0.lock().unwrap().members.remove(&NodeId(id)).unwrap();
        member.shutdown().await;
    }

    async fn stop_all(&self) {
        let ids: Vec<_> = self.hub.0.lock().unwrap().members.keys().copied().collect();
        for id in ids {
            self.stop(id.0).await;
        }
    }

    fn cut(&self, id: u64) {
        self.hub.0.lock().unwrap().cut.insert(NodeId(id));
    }

    fn mend(&self, id: u64) {
        self.hub.0.lock().unwrap().cut.remove(&NodeId(id));
    }

    /// Waits until the member leads, with a quorum.
    async fn leads(&self, id: NodeId) -> Leadership {
        until(self.member(id.0).leadership(), &format!("{id} leads"), |l| l.is_leader && l.has_quorum).await
    }

    /// Waits until the member has the file.
    async fn sees(&self, id: u64, name: &str) {
        until(self.member(id).state(), &format!("{id} sees {name}"), |state| has(state, name)).await;
    }
}

/// Proposes a put that must succeed.
async fn must_put(member: &Consensus, name: &str) {
    let applied = member.propose(put(name)).await.unwrap().unwrap();
    assert!(matches!(applied, Applied::Changed(Changed::Files(_))));
}
