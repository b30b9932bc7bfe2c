//! All connections of a process: one manager, a connection a peer and lane.
//!
//! [`table`] decides which are opened, kept and closed; one task owns it, dials, and watches for ends; [`Connections`] is
//! the handle. A connection that is open is found without a turn of the task.
//!
//! A client's manager opens what is asked for and closes what lies idle. A member's is driven by membership too
//! ([`Connections::set_members`]): it keeps the connections that failure detection and consensus need, and drops those to
//! members that died, left or moved.
//!
//! Opening goes on when the caller who asked gives up, for the next one needs it too. A connection on which a call times
//! out, and nothing else has come for [`SILENCE_MAX`], is given up: the path to the peer may be gone.
//!
//! Bounds: [`table`]; [`INPUTS_MAX`] asks queue for the task, then callers wait.

mod error;
mod open;
mod slot;
pub mod table;
mod task;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

pub use self::error::PeerError;
use self::open::{OpenConnections, OpenLink};
pub use self::slot::{BlobLane, Lane, Slot, Target};
use self::table::ConnectionTable;
pub use self::table::{Limits, LiveMember, Members};
use self::task::{ConnectionTask, Input};
use super::connection::{CallError, Connection};
use super::files::connection::BlobConnection;
use super::link::{Dial, DialError};
use crate::ids::NodeId;
use crate::wire::blobs::Holder;
use crate::wire::frame::{Purpose, Reply, Request};

/// Asks that may queue for the task.
pub const INPUTS_MAX: usize = 256;
/// A connection on which a call timed out is given up after so much silence.
pub const SILENCE_MAX: Duration = Duration::from_secs(2);

/// The manager's handle. Cheap to clone; when the last clone is gone the connections close as their users end.
#[derive(Clone)]
pub struct Connections {
    shared: Arc<Shared>,
}

struct Shared {
    dialer: Arc<dyn Dial>,
    limits: Limits,
    open: Arc<OpenConnections>,
    /// Started with the first ask, which comes from within a runtime.
    inputs: OnceLock<mpsc::Sender<Input>>,
}

impl Connections {
    /// Connections opened through `dialer`.
    pub fn new(dialer: Arc<dyn Dial>) -> Self {
        Self::with_limits(dialer, Limits::default())
    }

    /// The same with limits of its own.
    pub fn with_limits(dialer: Arc<dyn Dial>, limits: Limits) -> Self {
        let (open, inputs) = (Arc::new(OpenConnections::new()), OnceLock::new());
        Self { shared: Arc::new(Shared { dialer, limits, open, inputs }) }
    }

    /// Asks a peer, whoever listens there. The limit holds for opening the connection too.
    pub async fn call(
        &self,
        address: SocketAddr,
        request: Request,
        limit: Duration,
    ) -> Result<Reply, PeerError> {
        self.call_slot(Slot::of_address(address, Lane::of(&request)), address, request, limit).await
    }

    /// Asks a peer that must be this very member. A member whose data was lost comes back at the old address with a
    /// new id: it must not answer for the one that was, whose votes and acknowledgements it does not know.
    pub async fn call_member(
        &self,
        member: NodeId,
        address: SocketAddr,
        request: Request,
        limit: Duration,
    ) -> Result<Reply, PeerError> {
        self.call_slot(Slot::of_member(member, Lane::of(&request)), address, request, limit).await
    }

    async fn call_slot(
        &self,
        slot: Slot,
        address: SocketAddr,
        request: Request,
        limit: Duration,
    ) -> Result<Reply, PeerError> {
        let end = Instant::now() + limit;
        let late = || PeerError::of_call(address, CallError::TimedOut(limit));
        let connection = timeout_at(end, self.calls(slot, address)).await.unwrap_or_else(|_| Err(late()))?;
        let answer = connection.call(request, end.saturating_duration_since(Instant::now())).await;
        if matches!(answer, Err(CallError::TimedOut(_))) && self.give_up_if_silent(&connection).await {
            return Err(late());
        }
        answer.map_err(|source| PeerError::of_call(address, source))
    }

    /// A connection for calls to whoever listens there, opened if need be.
    pub async fn connection(&self, address: SocketAddr) -> Result<Connection, PeerError> {
        self.calls(Slot::of_address(address, Lane::Calls), address).await
    }

    /// A connection for calls that nobody else uses and nothing closes but its owner: for a long answer, whose slow
    /// reader must not hold up other calls.
    pub async fn dedicated(&self, address: SocketAddr) -> Result<Connection, DialError> {
        Ok(Connection::new(self.shared.dialer.dial(address, Purpose::Calls).await?))
    }

    /// A connection for blobs to a holder, opened if need be.
    pub async fn blobs(&self, holder: Holder, lane: BlobLane) -> Result<BlobConnection, PeerError> {
        let slot = Slot::of_member(holder.node, Lane::Blobs(lane));
        let address = holder.address;
        blobs_of(self.link(slot, address).await?, address)
    }

    /// A connection for blobs to the next holder of a chain, which serves nobody else until all clones are dropped.
    pub async fn chain(&self, next: Holder) -> Result<BlobConnection, PeerError> {
        let target = Target::Member(next.node);
        let ask = |answer| Input::AskChain { target, address: next.address, answer };
        blobs_of(self.ask(next.address, ask).await?, next.address)
    }

    /// Gives a connection up on which a call has timed out, if the peer has been silent on it altogether.
    pub async fn give_up_if_silent(&self, connection: &Connection) -> bool {
        let is_silent = connection.silence() >= SILENCE_MAX;
        if is_silent {
            self.tell(Input::GiveUp(connection.clone())).await;
        }
        is_silent
    }

    /// Membership has news.
    pub async fn set_members(&self, members: Members) {
        self.tell(Input::Members(members)).await;
    }

    /// A connection that a member had opened to this process ended: it may be gone.
    pub async fn hung_up(&self, member: NodeId) {
        self.tell(Input::HungUp(member)).await;
    }

    async fn calls(&self, slot: Slot, address: SocketAddr) -> Result<Connection, PeerError> {
        match self.link(slot, address).await? {
            OpenLink::Calls(connection) => Ok(connection),
            OpenLink::Blobs(_) => Err(PeerError::Stopped { address }),
        }
    }

    async fn link(&self, slot: Slot, address: SocketAddr) -> Result<OpenLink, PeerError> {
        match self.shared.open.find(&slot) {
            Some(link) => Ok(link),
            None => self.ask(address, |answer| Input::Ask { slot, address, answer }).await,
        }
    }

    async fn ask(
        &self,
        address: SocketAddr,
        input: impl FnOnce(task::Answer) -> Input,
    ) -> Result<OpenLink, PeerError> {
        let (answer, asked) = oneshot::channel();
        self.tell(input(answer)).await;
        asked.await.unwrap_or(Err(PeerError::Stopped { address }))
    }

    async fn tell(&self, input: Input) {
        // The task ends only with its runtime; those who ask learn of it.
        let _ = self.inputs().send(input).await;
    }

    fn inputs(&self) -> &mpsc::Sender<Input> {
        self.shared.inputs.get_or_init(|| {
            let (inputs, queued) = mpsc::channel(INPUTS_MAX);
            let Shared { dialer, limits, open, .. } = &*self.shared;
            // Jitter needs no secret: without randomness from the system all pauses are the same.
            let table = ConnectionTable::new(*limits, getrandom::u64().unwrap_or_default(), open.now());
            tokio::spawn(ConnectionTask::new(table, Arc::clone(dialer), Arc::clone(open)).run(queued));
            inputs
        })
    }
}

fn blobs_of(link: OpenLink, address: SocketAddr) -> Result<BlobConnection, PeerError> {
    match link {
        OpenLink::Blobs(connection) => Ok(connection),
        OpenLink::Calls(_) => Err(PeerError::Stopped { address }),
    }
}
