//! All connections of a process: one manager, one connection per peer and lane.
//!
//! [`table`] decides which are opened, kept and closed; one task owns it, dials, and watches for ends; [`Connections`] is
//! the handle. An open connection is found without the task.
//!
//! A client's manager opens connections on demand and closes idle ones. A member's is driven by membership too
//! ([`Connections::set_members`]): it keeps the connections that failure detection and consensus need, and drops those to
//! members that died, left or moved.
//!
//! Opening continues when the caller gives up, because the next caller needs the connection too. A connection on which a
//! call times out, and on which nothing else has arrived for [`SILENCE_MAX`], is dropped: the path to the peer may be gone.
//!
//! Bounds: [`table`]; [`INPUTS_MAX`] requests queue for the task, then callers wait. No caller waits longer than
//! [`DIAL_TIMEOUT`] for a connection, even if other dials come first.

mod error;
mod open;
mod slot;
mod table;
mod task;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

pub use self::error::PeerError;
use self::open::{OpenConnections, OpenLink};
pub use self::slot::{BlobLane, Lane};
use self::slot::{Slot, Target};
use self::table::{ConnectionTable, Limits};
pub use self::table::{LiveMember, Members};
use self::task::{ConnectionTask, Input};
use super::connection::{CallError, Connection};
use super::files::connection::BlobConnection;
use super::link::{DIAL_TIMEOUT, Dial, DialError};
use crate::ids::NodeId;
use crate::wire::blobs::Holder;
use crate::wire::frame::{Purpose, Reply, Request};

/// Connections that one process may have opened, of all lanes.
pub const CONNECTIONS_MAX: usize = Limits::DEFAULT.consensus + Limits::DEFAULT.calls + Limits::DEFAULT.blobs;
/// Requests that may queue for the task.
pub const INPUTS_MAX: usize = 256;
/// A connection on which a call timed out is dropped after this much silence.
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
    /// The task is started with the first request, which comes from within a runtime.
    inputs: OnceLock<mpsc::Sender<Input>>,
}

impl Connections {
    /// Connections opened through `dialer`.
    pub fn new(dialer: Arc<dyn Dial>) -> Self {
        Self::with_limits(dialer, Limits::default())
    }

    fn with_limits(dialer: Arc<dyn Dial>, limits: Limits) -> Self {
        let (open, inputs) = (Arc::new(OpenConnections::new()), OnceLock::new());
        Self { shared: Arc::new(Shared { dialer, limits, open, inputs }) }
    }

    /// Calls the peer at an address, whichever member it is. The limit includes opening the connection.
    pub async fn call(
        &self,
        address: SocketAddr,
        request: Request,
        limit: Duration,
    ) -> Result<Reply, PeerError> {
        self.call_slot(Slot::of_address(address, Lane::of(&request)), address, request, limit).await
    }

    /// Calls a member, and fails if another process listens at its address. A member that lost its data comes back at the
    /// old address with a new id: it must not answer for the old member, whose votes and acknowledgements it does not know.
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

    /// A connection for calls to the peer at an address, whichever member it is, opened if need be.
    pub async fn connection(&self, address: SocketAddr) -> Result<Connection, PeerError> {
        self.calls(Slot::of_address(address, Lane::Calls), address).await
    }

    /// A connection for calls that is not shared, and that only its owner closes: for a long answer, whose slow reader
    /// must not delay other calls.
    pub async fn dedicated(&self, address: SocketAddr) -> Result<Connection, DialError> {
        Ok(Connection::new(self.shared.dialer.dial(address, Purpose::Calls).await?))
    }

    /// A connection for blobs to a holder, opened if need be.
    pub async fn blobs(&self, holder: Holder, lane: BlobLane) -> Result<BlobConnection, PeerError> {
        let slot = Slot::of_member(holder.node, Lane::Blobs(lane));
        let address = holder.address;
        blobs_of(self.link(slot, address).await?, address)
    }

    /// A connection for blobs to the next holder of a chain, which is not shared until all clones are dropped.
    pub async fn chain(&self, next: Holder) -> Result<BlobConnection, PeerError> {
        let target = Target::Member(next.node);
        let ask = |answer| Input::AskChain { target, address: next.address, answer };
        blobs_of(self.ask(next.address, ask).await?, next.address)
    }

    /// Drops a connection on which a call has timed out, if nothing at all has arrived on it for [`SILENCE_MAX`].
    pub async fn give_up_if_silent(&self, connection: &Connection) -> bool {
        let is_silent = connection.silence() >= SILENCE_MAX;
        // Forgotten at once: a caller that repeats must not find it again.
        if is_silent && let Some(slot) = self.shared.open.forget(connection) {
            self.send(Input::GivenUp(slot)).await;
        }
        is_silent
    }

    /// Sets the live members and the connections to keep.
    pub async fn set_members(&self, members: Members) {
        self.send(Input::Members(members)).await;
    }

    /// Reports that a connection that a member had opened to this process ended: the member may be gone.
    pub async fn hung_up(&self, member: NodeId) {
        self.send(Input::HungUp(member)).await;
    }

    async fn calls(&self, slot: Slot, address: SocketAddr) -> Result<Connection, PeerError> {
        match self.link(slot, address).await? {
            OpenLink::Calls(connection) => Ok(connection),
            OpenLink::Blobs(_) => Err(PeerError::WrongLane { address }),
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
        let ask = async {
            self.send(input(answer)).await;
            asked.await.unwrap_or(Err(PeerError::Stopped { address }))
        };
        let late = || Err(PeerError::Dial(Arc::new(DialError::TimedOut { address })));
        timeout(DIAL_TIMEOUT, ask).await.unwrap_or_else(|_| late())
    }

    async fn send(&self, input: Input) {
        // The task ends only with its runtime; callers then get an error instead of an answer.
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
        OpenLink::Calls(_) => Err(PeerError::WrongLane { address }),
    }
}
