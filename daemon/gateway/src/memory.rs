//! Bytes of objects that the gateway may hold: every extent takes its room before it is read.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use idunno_shared::ids::Digest;
use lru::LruCache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit in which room is counted.
const UNIT: u64 = 1 << 10;
/// Extents that are remembered at most.
const REMEMBERED_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);

/// Room for extents. Cheap to clone.
#[derive(Clone)]
pub struct Memory {
    room: Arc<Semaphore>,
    total: u32,
}

impl Memory {
    /// Room for so many bytes, at least an extent's.
    pub fn new(bytes: u64) -> Self {
        let total = u32::try_from(bytes.max(64 << 20).div_ceil(UNIT)).unwrap_or(u32::MAX);
        Self { room: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Waits for room. `None` never comes: the semaphore is not closed.
    pub async fn take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.total);
        Arc::clone(&self.room).acquire_many_owned(units).await.ok()
    }
}

/// Extents of which parts were read last: readers of columns ask for many small ranges of one extent.
pub struct Extents {
    known: Mutex<Known>,
    bytes_max: usize,
}

struct Known {
    extents: LruCache<Digest, Bytes>,
    bytes: usize,
}

impl Extents {
    /// Remembers so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { known: Mutex::new(Known { extents: LruCache::new(REMEMBERED_MAX), bytes: 0 }), bytes_max }
    }

    /// An extent that is remembered.
    pub fn get(&self, digest: &Digest) -> Option<Bytes> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).extents.get(digest).cloned()
    }

    /// Remembers an extent, and forgets those that were used least recently.
    pub fn put(&self, digest: Digest, bytes: Bytes) {
        if bytes.len() > self.bytes_max {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.bytes += bytes.len();
        if let Some((_, old)) = known.extents.push(digest, bytes) {
            known.bytes -= old.len();
        }
        while known.bytes > self.bytes_max
            && let Some((_, old)) = known.extents.pop_lru()
        {
            known.bytes -= old.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_are_remembered_up_to_a_size() {
        let extents = Extents::new(10);
        let digest = |text: &str| Digest::of(text.as_bytes());
        for name in ["a", "b", "a"] {
            extents.put(digest(name), Bytes::from_static(b"12345"));
        }
        assert!(extents.get(&digest("a")).is_some() && extents.get(&digest("b")).is_some());
        extents.put(digest("c"), Bytes::from_static(b"12345"));
        assert!(extents.get(&digest("a")).is_none() && extents.get(&digest("c")).is_some());
        extents.put(digest("d"), Bytes::from_static(b"12345678901"));
        assert!(extents.get(&digest("d")).is_none());
        assert!(extents.known.lock().unwrap().bytes <= 10);
    }

    #[tokio::test]
    async fn room_is_given_back() {
        let memory = Memory::new(64 << 20);
        let first = memory.take(u64::MAX).await.unwrap();
        assert_eq!(memory.room.available_permits(), 0);
        drop(first);
        assert!(memory.take(1).await.is_some());
    }
}
