//! Limits on accepted connections and their requests: of all clients, of all members, and of each client's identity, so that
//! none keeps the others out. Members have no quota of their own here: what they do is bounded elsewhere.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::transport::Peer;

/// The most there may be at once of each, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections that have not said hello yet: further ones wait.
    pub greetings: usize,
    /// Connections of clients: further ones are refused, as are those below.
    pub clients: usize,
    /// Connections of members. A voter has two or three from each member: calls, and blobs on demand.
    pub members: usize,
    /// Connections of one client's identity.
    pub identity_connections: usize,
    /// Requests in progress of one client's identity, over all its connections.
    pub identity_requests: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            greetings: 1_024,
            clients: 1_024,
            members: 4_096,
            identity_connections: 256,
            identity_requests: 512,
        }
    }
}

/// A limit is reached.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum LimitError {
    /// Of connections of all members together.
    #[error("too many connections of members are open here: close some, or ask another member")]
    Members,
    /// Of connections of all clients together.
    #[error("too many connections of clients are open here: close some, or ask another member")]
    Clients,
    /// Of one identity's connections.
    #[error("{identity} has {limit} connections open here, as many as one identity may have: close some")]
    IdentityConnections { identity: Arc<str>, limit: usize },
    /// Of one identity's requests.
    #[error("{identity} has as many requests in progress here as one identity may have: wait until some end")]
    IdentityRequests { identity: Arc<str> },
}

/// The remaining capacity under the limits.
pub(super) struct ConnectionLimits {
    limits: Limits,
    clients: Arc<Semaphore>,
    members: Arc<Semaphore>,
    /// The quotas of identities that have a connection, and of some that had one.
    identities: Mutex<BTreeMap<Arc<str>, Arc<IdentityQuota>>>,
}

/// The remaining capacity of one identity.
struct IdentityQuota {
    connections: Arc<Semaphore>,
    requests: Arc<Semaphore>,
}

/// A connection's permit, until it is dropped.
pub(super) struct ConnectionPermit {
    _of_all: OwnedSemaphorePermit,
    /// None for a member.
    identity: Option<IdentityPermit>,
}

/// A connection's part of its identity's quota.
struct IdentityPermit {
    quota: Arc<IdentityQuota>,
    _connection: OwnedSemaphorePermit,
}

/// A request's permit, until it is dropped; none for a member's.
pub(super) type RequestPermit = Option<OwnedSemaphorePermit>;

impl ConnectionLimits {
    pub(super) fn new(limits: Limits) -> Self {
        let clients = Arc::new(Semaphore::new(limits.clients));
        let members = Arc::new(Semaphore::new(limits.members));
        Self { limits, clients, members, identities: Mutex::default() }
    }

    /// Admits a connection.
    pub(super) fn enter(&self, is_member: bool, peer: &Peer) -> Result<ConnectionPermit, LimitError> {
        if is_member {
            let of_all = Arc::clone(&self.members).try_acquire_owned().map_err(|_| LimitError::Members)?;
            return Ok(ConnectionPermit { _of_all: of_all, identity: None });
        }
        let of_all = Arc::clone(&self.clients).try_acquire_owned().map_err(|_| LimitError::Clients)?;
        Ok(ConnectionPermit { _of_all: of_all, identity: Some(self.enter_identity(peer)?) })
    }

    fn enter_identity(&self, peer: &Peer) -> Result<IdentityPermit, LimitError> {
        let quota = self.quota(peer.identity());
        let Ok(connection) = Arc::clone(&quota.connections).try_acquire_owned() else {
            peer.note_refusal("it has as many connections as one identity may have");
            let (identity, limit) = (Arc::clone(peer.identity()), self.limits.identity_connections);
            return Err(LimitError::IdentityConnections { identity, limit });
        };
        Ok(IdentityPermit { quota, _connection: connection })
    }

    fn quota(&self, identity: &Arc<str>) -> Arc<IdentityQuota> {
        let mut identities = self.identities.lock().unwrap_or_else(PoisonError::into_inner);
        // The quota of an identity without connections is referenced here only.
        if identities.len() >= self.limits.clients {
            identities.retain(|_, quota| Arc::strong_count(quota) > 1);
        }
        let quota = identities.entry(Arc::clone(identity)).or_insert_with(|| {
            let connections = Arc::new(Semaphore::new(self.limits.identity_connections));
            let requests = Arc::new(Semaphore::new(self.limits.identity_requests));
            Arc::new(IdentityQuota { connections, requests })
        });
        Arc::clone(quota)
    }
}

impl ConnectionPermit {
    /// Admits a request.
    pub(super) fn admit_request(&self, peer: &Peer) -> Result<RequestPermit, LimitError> {
        let Some(IdentityPermit { quota, .. }) = &self.identity else { return Ok(None) };
        Arc::clone(&quota.requests).try_acquire_owned().map(Some).map_err(|_| {
            peer.note_refusal("it has as many requests in progress as one identity may have");
            LimitError::IdentityRequests { identity: Arc::clone(peer.identity()) }
        })
    }
}
