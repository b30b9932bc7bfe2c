//! What the caller of a blob connection may do, and may occupy.

use super::memory::{MemoryBudget, MemoryPermit};

/// What the caller of a blob connection may do besides reading.
#[derive(Clone, Debug)]
pub struct BlobAccess {
    /// Its puts are accepted.
    pub may_store: bool,
    /// Each blob that it reports as damaged is read from the disk at once. Of others, so many as
    /// [`Scrub`](super::scrub::Scrub) allows.
    pub is_member: bool,
    /// The memory that its bytes may occupy here; none for a member, which is bounded by what the store and the connection
    /// allow.
    pub memory: Option<MemoryBudget>,
}

impl BlobAccess {
    /// Waits for memory; none for a member.
    pub(super) async fn take(&self, bytes: usize) -> Option<MemoryPermit> {
        match &self.memory {
            Some(memory) => memory.take(bytes).await,
            None => None,
        }
    }
}
