//! The failure detector's task: it owns the membership machine, and feeds it datagrams, requests and time.
//!
//! Other tasks see the list through a watch, and talk to the task through [`MembershipHandle`]. Bounds: inputs queue up
//! to [`INPUTS_MAX`], then callers wait.

mod address;
mod task;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use idunno_core::membership::SwimEvent;
use idunno_shared::ids::NodeId;
use idunno_shared::wire::blobs::Holder;
use idunno_shared::wire::frame::Reply;
use idunno_shared::wire::membership::{MemberRecord, PushPull, TcpPing};
use idunno_shared::wire::refusal::Refusal;
use tokio::sync::{mpsc, oneshot, watch};

use crate::runtime::driver::ask;

pub use self::task::MembershipDeps;
pub(crate) use self::task::MembershipTask;

/// Inputs that may wait for the task.
pub const INPUTS_MAX: usize = 256;

/// A member, as this one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedMember {
    /// Its record, as this member believes it.
    pub record: MemberRecord,
    /// Whether only TCP reaches it.
    pub udp_blocked: bool,
    /// How many seconds its wall clock is ahead of the members' median; 0 if it is in order.
    pub clock_ahead_s: i64,
    /// Since when it is in its state, in milliseconds since the epoch.
    pub since_ms: u64,
}

/// The membership list at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipView {
    /// This member.
    pub me: NodeId,
    /// All members known, this one included.
    pub members: BTreeMap<NodeId, ListedMember>,
    /// Whether this member is in the cluster.
    pub joined: bool,
}

impl MembershipView {
    /// Whether a member is up, as far as is known. A suspect counts as up.
    pub fn is_live(&self, id: NodeId) -> bool {
        self.members.get(&id).is_some_and(|peer| peer.record.state.is_live())
    }

    /// The members that are up.
    pub fn live(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().filter(|(_, peer)| peer.record.state.is_live()).map(|(&id, _)| id)
    }

    /// Where a member listens, whether it is up or not.
    pub fn address(&self, id: NodeId) -> Option<SocketAddr> {
        self.members.get(&id).map(|peer| peer.record.address)
    }

    /// A member's name, or its id while the name is unknown.
    pub fn name(&self, id: NodeId) -> String {
        self.members.get(&id).map_or_else(|| id.to_string(), |peer| peer.record.name.to_string())
    }

    /// This member's wall time as the median of all clocks has it.
    pub fn corrected_ms(&self, wall_ms: u64) -> u64 {
        wall_ms.saturating_add_signed(self.clock_ahead_s(self.me).saturating_mul(-1_000))
    }

    /// How far a member's clock is ahead of the median, if that is worth telling; 0 otherwise.
    pub fn clock_ahead_s(&self, id: NodeId) -> i64 {
        self.members.get(&id).map_or(0, |peer| peer.clock_ahead_s)
    }

    /// A member as a holder, if it is up.
    pub fn holder(&self, node: NodeId) -> Option<Holder> {
        let peer = self.members.get(&node).filter(|peer| peer.record.state.is_live())?;
        Some(Holder { node, address: peer.record.address })
    }
}

pub(crate) enum Input {
    PushPull(PushPull, oneshot::Sender<Reply>),
    Ping(TcpPing, oneshot::Sender<Reply>),
    ConnectionRefused(SocketAddr),
    /// Lists cannot be exchanged, because one side does not trust the other; why.
    Distrusted(SocketAddr, String),
    Event(SwimEvent),
    Leave(oneshot::Sender<()>),
    Turn(oneshot::Sender<()>),
}

/// The failure detector's handle. Cheap to clone.
#[derive(Clone)]
pub struct MembershipHandle {
    inputs: mpsc::Sender<Input>,
    view: watch::Receiver<Arc<MembershipView>>,
}

impl MembershipHandle {
    /// The list, now and as it changes.
    pub fn view(&self) -> watch::Receiver<Arc<MembershipView>> {
        self.view.clone()
    }

    /// The list now.
    pub fn current(&self) -> Arc<MembershipView> {
        Arc::clone(&self.view.borrow())
    }

    /// Answers another member's list with ours, or refuses a newcomer that does not answer at the address it advertises.
    pub async fn push_pull(&self, theirs: PushPull) -> Reply {
        self.ask(|reply| Input::PushPull(theirs, reply)).await
    }

    /// Answers another member's ping.
    pub async fn ping(&self, ping: TcpPing) -> Reply {
        self.ask(|reply| Input::Ping(ping, reply)).await
    }

    async fn ask(&self, input: impl FnOnce(oneshot::Sender<Reply>) -> Input) -> Reply {
        let stopping = || Reply::Refused(Refusal::internal("this member is stopping"));
        ask(&self.inputs, input).await.unwrap_or_else(stopping)
    }

    /// Joins the cluster through these addresses.
    pub async fn join(&self, seeds: Vec<SocketAddr>) {
        // The task ends only with the process.
        let _ = self.inputs.send(Input::Event(SwimEvent::Join { seeds })).await;
    }

    /// Takes the addresses that the introducer named: lists are exchanged with those that are not known to be live.
    pub async fn introduced(&self, addresses: Vec<SocketAddr>) {
        // The task ends only with the process.
        let _ = self.inputs.send(Input::Event(SwimEvent::Introduced { addresses })).await;
    }

    /// Returns when the task has taken its next turn. Never returns if the task is stuck.
    pub async fn turn(&self) {
        // A task that has ended is a fault, and reported as such.
        let _ = ask(&self.inputs, Input::Turn).await;
    }

    /// Announces that this member leaves, and returns when that is done.
    pub async fn leave(&self) {
        // The task ends only with the process.
        let _ = ask(&self.inputs, Input::Leave).await;
    }
}
