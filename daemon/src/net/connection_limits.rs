//! Limits on accepted connections, their requests and the memory that these occupy: of all clients, of all members, and of
//! each client's identity, so that none keeps the others out. Members have no quota of their own here: what they do is
//! bounded elsewhere.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use idunno_store::memory::{MemoryBudget, MemoryPermit, MemoryPool};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::transport::Peer;

/// Bytes that one identity, and all clients together, may occupy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    pub identity: u32,
    pub clients: u32,
}

/// Requests, from their announced length until they are answered: an identity's largest request fits several times.
pub const REQUEST_MEMORY: MemoryLimits = MemoryLimits { identity: 32 << 20, clients: 128 << 20 };
/// Encoded answers that their clients have not read.
pub const ANSWER_MEMORY: MemoryLimits = MemoryLimits { identity: 64 << 20, clients: 256 << 20 };
/// Bytes of files on their way to or from clients.
pub const BLOB_MEMORY: MemoryLimits = MemoryLimits { identity: 64 << 20, clients: 256 << 20 };

/// The most there may be at once of each, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections that have not said hello yet; half of the limit is kept for addresses of known members. Beyond it, the oldest
    /// is closed.
    pub greetings: usize,
    /// Connections of clients: further ones are refused, as are those below.
    pub clients: usize,
    /// Connections of members. A voter has two or three from each member: calls, and blobs on demand.
    pub members: usize,
    /// Connections of one client's identity.
    pub identity_connections: usize,
    /// Requests in progress of one client's identity, over all its connections.
    pub identity_requests: usize,
    /// [`REQUEST_MEMORY`], unless a test changes it, like those below.
    pub request_memory: MemoryLimits,
    pub answer_memory: MemoryLimits,
    pub blob_memory: MemoryLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            greetings: 1_024,
            clients: 1_024,
            members: 4_096,
            identity_connections: 256,
            identity_requests: 512,
            request_memory: REQUEST_MEMORY,
            answer_memory: ANSWER_MEMORY,
            blob_memory: BLOB_MEMORY,
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
    request_memory: MemoryPool,
    answer_memory: MemoryPool,
    blob_memory: MemoryPool,
    /// The quotas of identities that have a connection, and of some that had one.
    identities: Mutex<BTreeMap<Arc<str>, Arc<IdentityQuota>>>,
}

/// The remaining capacity of one identity.
struct IdentityQuota {
    connections: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    request_memory: MemoryBudget,
    answer_memory: MemoryBudget,
    blob_memory: MemoryBudget,
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
        Self {
            limits,
            clients,
            members,
            request_memory: MemoryPool::new(limits.request_memory.clients),
            answer_memory: MemoryPool::new(limits.answer_memory.clients),
            blob_memory: MemoryPool::new(limits.blob_memory.clients),
            identities: Mutex::default(),
        }
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
            let budget = |limits: MemoryLimits, all: &MemoryPool| MemoryBudget {
                own: MemoryPool::new(limits.identity),
                all: all.clone(),
            };
            Arc::new(IdentityQuota {
                connections,
                requests,
                request_memory: budget(self.limits.request_memory, &self.request_memory),
                answer_memory: budget(self.limits.answer_memory, &self.answer_memory),
                blob_memory: budget(self.limits.blob_memory, &self.blob_memory),
            })
        });
        Arc::clone(quota)
    }
}

impl ConnectionPermit {
    /// Waits for the memory that a request of this length occupies.
    pub(super) async fn request_memory(&self, bytes: usize) -> Option<MemoryPermit> {
        match &self.identity {
            Some(IdentityPermit { quota, .. }) => quota.request_memory.take(bytes).await,
            None => None,
        }
    }

    /// The memory for answers; none for a member's, which is not limited here.
    pub(super) fn answer_memory(&self) -> Option<MemoryBudget> {
        self.identity.as_ref().map(|identity| identity.quota.answer_memory.clone())
    }

    /// The memory for bytes of files; none for a member's, which is not limited here.
    pub(super) fn blob_memory(&self) -> Option<MemoryBudget> {
        self.identity.as_ref().map(|identity| identity.quota.blob_memory.clone())
    }

    /// Admits a request.
    pub(super) fn admit_request(&self, peer: &Peer) -> Result<RequestPermit, LimitError> {
        let Some(IdentityPermit { quota, .. }) = &self.identity else { return Ok(None) };
        Arc::clone(&quota.requests).try_acquire_owned().map(Some).map_err(|_| {
            peer.note_refusal("it has as many requests in progress as one identity may have");
            LimitError::IdentityRequests { identity: Arc::clone(peer.identity()) }
        })
    }
}
