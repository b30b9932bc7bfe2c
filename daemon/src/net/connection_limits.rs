//! Room for connections and requests: of all refusal_log, of all clients, of all members, and of each client's identity, so
//! that none keeps the others out. Members have no identity here: what they do has bounds of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::transport::Peer;

/// How many there may be at once, each at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections that have not said hello yet: further ones wait.
    pub greetings: usize,
    /// Connections of clients: further ones are refused, as are those below.
    pub clients: usize,
    /// Connections of members.
    pub members: usize,
    /// Connections of one client's identity.
    pub identity_connections: usize,
    /// Requests at work of one client's identity, over all its connections.
    pub identity_requests: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            greetings: 1_024,
            clients: 1_024,
            members: 1_024,
            identity_connections: 256,
            identity_requests: 512,
        }
    }
}

/// The room that there is.
pub(super) struct ConnectionLimits {
    limits: Limits,
    clients: Arc<Semaphore>,
    members: Arc<Semaphore>,
    /// Of those that have a connection, and some that had.
    identities: Mutex<BTreeMap<Arc<str>, Arc<IdentityQuota>>>,
}

/// What one identity may take.
struct IdentityQuota {
    connections: Arc<Semaphore>,
    requests: Arc<Semaphore>,
}

/// A connection's permit, until it is dropped.
pub(super) struct ConnectionPermit {
    _room: OwnedSemaphorePermit,
    /// None for a member.
    share: Option<(Arc<IdentityQuota>, OwnedSemaphorePermit)>,
}

/// A request's permit, until it is dropped.
pub(super) type RequestPermit = Option<OwnedSemaphorePermit>;

impl ConnectionLimits {
    pub(super) fn new(limits: Limits) -> Self {
        let room = |places| Arc::new(Semaphore::new(places));
        let (clients, members) = (room(limits.clients), room(limits.members));
        Self { limits, clients, members, identities: Mutex::default() }
    }

    /// A permit for a connection, or why there is none.
    pub(super) fn enter(&self, is_member: bool, peer: &Peer) -> Result<ConnectionPermit, String> {
        let (room, whose) = if is_member { (&self.members, "members") } else { (&self.clients, "clients") };
        let full =
            |_| format!("too many connections of {whose} are open here: close some, or ask another member");
        let room = Arc::clone(room).try_acquire_owned().map_err(full)?;
        let share = if is_member { None } else { Some(self.share(peer)?) };
        Ok(ConnectionPermit { _room: room, share })
    }

    fn share(&self, peer: &Peer) -> Result<(Arc<IdentityQuota>, OwnedSemaphorePermit), String> {
        let share = {
            let mut identities = self.identities.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that are gone have nobody else who holds their share.
            if identities.len() >= self.limits.clients {
                identities.retain(|_, share| Arc::strong_count(share) > 1);
            }
            let new = || {
                let connections = Arc::new(Semaphore::new(self.limits.identity_connections));
                Arc::new(IdentityQuota {
                    connections,
                    requests: Arc::new(Semaphore::new(self.limits.identity_requests)),
                })
            };
            Arc::clone(identities.entry(Arc::clone(peer.identity())).or_insert_with(new))
        };
        let Ok(permit) = Arc::clone(&share.connections).try_acquire_owned() else {
            peer.note_refusal("it has as many connections as one identity may");
            let (limit, identity) = (self.limits.identity_connections, peer.identity());
            return Err(format!(
                "{identity} has {limit} connections open here, as many as one identity may: close some"
            ));
        };
        Ok((share, permit))
    }
}

impl ConnectionPermit {
    /// A permit for a request, or why there is none.
    pub(super) fn turn(&self, peer: &Peer) -> Result<RequestPermit, String> {
        let Some((share, _)) = &self.share else { return Ok(None) };
        Arc::clone(&share.requests).try_acquire_owned().map(Some).map_err(|_| {
            peer.note_refusal("it has as many requests at work as one identity may");
            format!(
                "{} has as many requests at work here as one identity may: let some end first",
                peer.identity()
            )
        })
    }
}
