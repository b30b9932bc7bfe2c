//! Memory that clients may occupy: of one identity, and of all clients together. What a peer announces is taken from both
//! before it is read or made, and returned when it is gone.
//!
//! Invariant: who waits for memory holds none of the same budget, so that nobody waits for ever. A request for more than a
//! whole pool takes the whole pool.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A number of bytes that many share. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryPool {
    free: Arc<Semaphore>,
    bytes: u32,
}

/// What one identity may take, from its own pool and from that of all clients.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    pub own: MemoryPool,
    pub all: MemoryPool,
}

/// Memory taken, until it is dropped.
#[derive(Debug)]
pub struct MemoryPermit {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl MemoryPool {
    pub fn new(bytes: u32) -> Self {
        Self { free: Arc::new(Semaphore::new(bytes as usize)), bytes }
    }

    /// Bytes that are not taken.
    pub fn free_bytes(&self) -> usize {
        self.free.available_permits()
    }

    fn part(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes)
    }
}

impl MemoryBudget {
    /// Waits until the memory is free.
    pub async fn take(&self, bytes: usize) -> Option<MemoryPermit> {
        let own = Arc::clone(&self.own.free).acquire_many_owned(self.own.part(bytes)).await.ok()?;
        let all = Arc::clone(&self.all.free).acquire_many_owned(self.all.part(bytes)).await.ok()?;
        Some(MemoryPermit { _own: own, _all: all })
    }

    /// Takes the memory if it is free.
    pub fn try_take(&self, bytes: usize) -> Option<MemoryPermit> {
        let own = Arc::clone(&self.own.free).try_acquire_many_owned(self.own.part(bytes)).ok()?;
        let all = Arc::clone(&self.all.free).try_acquire_many_owned(self.all.part(bytes)).ok()?;
        Some(MemoryPermit { _own: own, _all: all })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_identity_is_bounded_by_its_own_pool_and_all_by_the_common_one() {
        let all = MemoryPool::new(100);
        let budget = || MemoryBudget { own: MemoryPool::new(60), all: all.clone() };
        let (anna, bert) = (budget(), budget());
        let first = anna.take(40).await.unwrap();
        assert!(anna.try_take(30).is_none(), "beyond its own");
        assert_eq!(anna.own.free_bytes(), 20, "a refusal takes nothing");
        let second = bert.try_take(60).unwrap();
        assert_eq!(all.free_bytes(), 0);
        assert!(anna.try_take(1).is_none(), "beyond that of all");
        let (waited, ()) = tokio::join!(anna.take(20), async { drop(second) });
        drop((waited.unwrap(), first));
        // More than there is: all of it.
        let whole = anna.take(usize::MAX).await.unwrap();
        assert_eq!((anna.own.free_bytes(), all.free_bytes()), (0, 0));
        drop(whole);
        assert_eq!((anna.own.free_bytes(), all.free_bytes()), (60, 100));
    }
}
