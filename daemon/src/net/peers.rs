//! One connection of calls to each peer, opened when first needed.
//!
//! Opening goes on when the caller who needed it gives up, for the next one needs it too. A connection on which a call
//! times out, and nothing else has come for [`SILENCE_MAX`], is given up: what lies between may be gone.
//! Bound: [`CONNECTIONS_MAX`]; beyond it, all that are idle or closed go. A peer that could not be reached, or that
//! ended its connection at once, is not dialled again for [`BACK_OFF`], so that a dead one costs nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use idunno_shared::client::connection::{CallError, Connection};
use idunno_shared::client::link::{Dial, DialError};
use idunno_shared::ids::NodeId;
use idunno_shared::wire::frame::{Purpose, Reply, Request};
use thiserror::Error;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Connections kept.
pub const CONNECTIONS_MAX: usize = 512;
/// How long a peer that could not be reached is left alone.
pub const BACK_OFF: Duration = Duration::from_millis(100);

/// How often a peer is dialled again when its connection has ended.
const REDIALS: u32 = 3;
/// A connection on which a call timed out is given up after so much silence.
pub const SILENCE_MAX: Duration = Duration::from_secs(2);

/// Why a peer gave no answer.
#[derive(Debug, Error)]
pub enum PeerError {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// A connection, but no answer.
    #[error("{address}: {source}")]
    Call {
        /// Whom.
        address: SocketAddr,
        /// Why.
        source: CallError,
    },
    /// Somebody else is there now: the member that was has been replaced.
    #[error("{address} is not member {wanted} any more")]
    Stranger {
        /// Where.
        address: SocketAddr,
        /// Who was meant.
        wanted: NodeId,
    },
    /// It failed a moment ago, and is left alone.
    #[error("{address} could not be reached a moment ago")]
    BackOff {
        /// Whom.
        address: SocketAddr,
    },
}

/// A peer's place. It is locked while its connection is being opened.
#[derive(Default)]
struct Slot {
    connection: Option<Connection>,
    not_before: Option<Instant>,
}

impl Slot {
    fn open(&self) -> Option<Connection> {
        self.connection.clone().filter(|connection| !connection.is_closed())
    }
}

/// The connections. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    dialer: Arc<dyn Dial>,
    slots: Arc<Mutex<BTreeMap<SocketAddr, Arc<AsyncMutex<Slot>>>>>,
}

impl Peers {
    /// Peers reached through `dialer`.
    pub fn new(dialer: Arc<dyn Dial>) -> Self {
        Self { dialer, slots: Arc::default() }
    }

    /// Who opens connections.
    pub fn dialer(&self) -> &Arc<dyn Dial> {
        &self.dialer
    }

    /// Keeps a connection open to a peer, if it can be had: its end is the first sign of the peer's.
    pub async fn meet(&self, address: SocketAddr) {
        // Whether it worked is known from the refusals, and from the next call.
        let _ = self.connection(address).await;
    }

    /// Asks a peer. The limit holds for opening the connection too.
    pub async fn call(
        &self,
        address: SocketAddr,
        request: Request,
        limit: Duration,
    ) -> Result<Reply, PeerError> {
        self.call_as(address, None, request, limit).await
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
        self.call_as(address, Some(member), request, limit).await
    }

    async fn call_as(
        &self,
        address: SocketAddr,
        wanted: Option<NodeId>,
        request: Request,
        limit: Duration,
    ) -> Result<Reply, PeerError> {
        let end = Instant::now() + limit;
        let late = || PeerError::Call { address, source: CallError::TimedOut(limit) };
        let connection = timeout_at(end, self.connection(address)).await.unwrap_or_else(|_| Err(late()))?;
        if let Some(wanted) = wanted.filter(|_| connection.node() != wanted) {
            return Err(PeerError::Stranger { address, wanted });
        }
        let answer = connection.call(request, end.saturating_duration_since(Instant::now())).await;
        if matches!(answer, Err(CallError::TimedOut(_))) && connection.silence() >= SILENCE_MAX {
            self.give_up(address, &connection);
            return Err(late());
        }
        answer.map_err(|source| PeerError::Call { address, source })
    }

    /// The connection to a peer, opened if need be.
    async fn connection(&self, address: SocketAddr) -> Result<Connection, PeerError> {
        let slot = self.slot(address);
        if let Ok(slot) = slot.try_lock()
            && let Some(connection) = slot.open()
        {
            return Ok(connection);
        }
        let peers = self.clone();
        let opening = tokio::spawn(async move { peers.open(address, &mut *slot.lock().await).await });
        // The task can only fail by a panic, which the log has.
        opening.await.unwrap_or(Err(PeerError::BackOff { address }))
    }

    async fn open(&self, address: SocketAddr, slot: &mut Slot) -> Result<Connection, PeerError> {
        if let Some(connection) = slot.open() {
            return Ok(connection);
        }
        if slot.not_before.is_some_and(|at| Instant::now() < at) {
            return Err(PeerError::BackOff { address });
        }
        match self.dialer.dial(address, Purpose::Calls).await {
            Ok(link) => {
                let connection = Connection::new(link);
                self.redial_at_end(address, &connection);
                *slot = Slot { connection: Some(connection.clone()), not_before: None };
                Ok(connection)
            }
            Err(error) => {
                *slot = Slot { connection: None, not_before: Some(Instant::now() + BACK_OFF) };
                Err(error.into())
            }
        }
    }

    /// Forgets a connection; it closes when its last call is over.
    fn give_up(&self, address: SocketAddr, silent: &Connection) {
        if let Ok(mut slot) = self.slot(address).try_lock()
            && slot.connection.as_ref().is_some_and(|connection| connection.is(silent))
        {
            slot.connection = None;
        }
    }

    /// When the connection ends the process may be gone: dialling again at once finds out.
    fn redial_at_end(&self, address: SocketAddr, connection: &Connection) {
        let (peers, closed, opened) = (self.clone(), connection.closed(), Instant::now());
        tokio::spawn(async move {
            closed.await;
            // A peer that welcomes and then hangs up must not keep this one busy.
            let mut next = opened + BACK_OFF;
            for _ in 0..REDIALS {
                sleep_until(next).await;
                // While a process dies its host may still take a connection, and drop it: that proves nothing.
                match peers.connection(address).await {
                    Ok(_) | Err(PeerError::Dial(DialError::Refused { .. })) => return,
                    Err(_) => next = Instant::now() + BACK_OFF,
                }
            }
        });
    }

    fn slot(&self, address: SocketAddr) -> Arc<AsyncMutex<Slot>> {
        let mut slots: MutexGuard<'_, _> = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= CONNECTIONS_MAX && !slots.contains_key(&address) {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(slots.entry(address).or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use idunno_shared::client::link::{BoxFuture, Link};

    use super::*;

    /// Its first connection ends at once, as when the peer is killed; then the host takes another one and drops it
    /// unanswered, and only then it refuses.
    #[derive(Default)]
    struct Dying(AtomicUsize);

    impl Dial for Dying {
        fn dial(&self, address: SocketAddr, _purpose: Purpose) -> BoxFuture<'_, Result<Link, DialError>> {
            let dialled = self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                match dialled {
                    0 => {
                        let (reader, writer) = tokio::io::split(tokio::io::duplex(64).0);
                        Ok(Link { reader: Box::new(reader), writer: Box::new(writer), node: None })
                    }
                    1 => Err(DialError::Rejected { address, reason: String::from("it is dying") }),
                    _ => Err(DialError::Refused { address }),
                }
            })
        }
    }

    #[tokio::test]
    async fn a_peer_whose_connection_ends_is_dialled_until_its_death_is_proven() {
        let dying = Arc::new(Dying::default());
        let peers = Peers::new(Arc::clone(&dying) as _);
        peers.meet(SocketAddr::from(([127, 0, 0, 1], 9))).await;
        let proven = async {
            while dying.0.load(Ordering::Relaxed) < 3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), proven).await.unwrap();
        tokio::time::sleep(3 * BACK_OFF).await;
        assert_eq!(dying.0.load(Ordering::Relaxed), 3, "and not again after that");
    }
}
