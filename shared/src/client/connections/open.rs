//! The open connections, as the task publishes them: looking one up does not involve the task.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::super::connection::Connection;
use super::super::files::connection::BlobConnection;
use super::slot::Slot;

/// A connection of either kind.
#[derive(Clone)]
pub(super) enum OpenLink {
    Calls(Connection),
    Blobs(BlobConnection),
}

/// One open connection.
pub(super) struct Opened {
    pub(super) address: SocketAddr,
    pub(super) link: OpenLink,
    used_ms: AtomicU64,
}

impl Opened {
    pub(super) fn is_closed(&self) -> bool {
        match &self.link {
            OpenLink::Calls(connection) => connection.is_closed(),
            OpenLink::Blobs(connection) => connection.is_closed(),
        }
    }

    /// Whether anything but the manager holds it.
    pub(super) fn is_in_use(&self) -> bool {
        match &self.link {
            OpenLink::Calls(connection) => connection.is_shared(),
            OpenLink::Blobs(connection) => connection.is_shared(),
        }
    }

    /// When it was looked up last, since the epoch.
    pub(super) fn used_at(&self) -> Duration {
        Duration::from_millis(self.used_ms.load(Ordering::Relaxed))
    }
}

/// All of them, under every key by which they may be asked for.
pub(super) struct OpenConnections {
    epoch: Instant,
    slots: RwLock<BTreeMap<Slot, Arc<Opened>>>,
}

impl OpenConnections {
    pub(super) fn new() -> Self {
        Self { epoch: Instant::now(), slots: RwLock::default() }
    }

    /// Time since the epoch.
    pub(super) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    pub(super) fn instant(&self, at: Duration) -> Instant {
        self.epoch + at
    }

    /// A connection that is open; the lookup counts as its use.
    pub(super) fn find(&self, slot: &Slot) -> Option<OpenLink> {
        let found = self.get(slot).filter(|opened| !opened.is_closed())?;
        found.used_ms.store(self.now_ms(), Ordering::Relaxed);
        Some(found.link.clone())
    }

    /// The connection that is published under a key, open or ended.
    pub(super) fn get(&self, slot: &Slot) -> Option<Arc<Opened>> {
        self.read().get(slot).cloned()
    }

    /// Publishes a connection, under its address too, where only that may be known of the peer.
    pub(super) fn insert(&self, slot: Slot, address: SocketAddr, link: OpenLink) {
        let opened = Arc::new(Opened { address, link, used_ms: AtomicU64::new(self.now_ms()) });
        let mut slots = self.write();
        slots.insert(Slot::of_address(address, slot.lane), Arc::clone(&opened));
        slots.insert(slot, opened);
    }

    /// Forgets a connection under all its keys; it closes when its last user is done.
    pub(super) fn remove(&self, slot: &Slot) {
        let mut slots = self.write();
        if let Some(removed) = slots.remove(slot) {
            let alias = Slot::of_address(removed.address, slot.lane);
            if slots.get(&alias).is_some_and(|opened| Arc::ptr_eq(opened, &removed)) {
                slots.remove(&alias);
            }
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX)
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Slot, Arc<Opened>>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<Slot, Arc<Opened>>> {
        self.slots.write().unwrap_or_else(PoisonError::into_inner)
    }
}
