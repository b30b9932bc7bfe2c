//! The open connections, as the task publishes them: looking one up does not involve the task.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::super::connection::Connection;
use super::super::files::connection::BlobConnection;
use super::slot::{Lane, Slot, Target};

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

/// All of them.
pub(super) struct OpenConnections {
    epoch: Instant,
    index: RwLock<Index>,
}

#[derive(Default)]
struct Index {
    slots: BTreeMap<Slot, Arc<Opened>>,
    /// The same connections by where they lead, the newest last: often only the address of a peer is known. Blobs are
    /// asked for by member only.
    calls_by_address: BTreeMap<(SocketAddr, Lane), Vec<Arc<Opened>>>,
}

impl OpenConnections {
    pub(super) fn new() -> Self {
        Self { epoch: Instant::now(), index: RwLock::default() }
    }

    /// Time since the epoch.
    pub(super) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    pub(super) fn instant(&self, at: Duration) -> Instant {
        self.epoch + at
    }

    /// A connection that is open; the lookup counts as its use. An address finds the newest connection that leads to it.
    pub(super) fn find(&self, slot: &Slot) -> Option<OpenLink> {
        let index = self.read();
        let is_open = |opened: &&Arc<Opened>| !opened.is_closed();
        let found = match slot.target {
            Target::Member(_) => index.slots.get(slot).filter(is_open),
            Target::Address(address) => {
                index.calls_by_address.get(&(address, slot.lane))?.iter().rev().find(is_open)
            }
        }?;
        found.used_ms.store(self.now_ms(), Ordering::Relaxed);
        Some(found.link.clone())
    }

    /// The connection of a slot, open or ended.
    pub(super) fn get(&self, slot: &Slot) -> Option<Arc<Opened>> {
        self.read().slots.get(slot).cloned()
    }

    /// Publishes a connection.
    pub(super) fn insert(&self, slot: Slot, address: SocketAddr, link: OpenLink) {
        let opened = Arc::new(Opened { address, link, used_ms: AtomicU64::new(self.now_ms()) });
        let mut index = self.write();
        if matches!(opened.link, OpenLink::Calls(_)) {
            index.calls_by_address.entry((address, slot.lane)).or_default().push(Arc::clone(&opened));
        }
        index.slots.insert(slot, opened);
    }

    /// Forgets a connection; it closes when its last user is done.
    pub(super) fn remove(&self, slot: &Slot) {
        self.write().remove(slot);
    }

    /// The same for a connection of which only the user knows; returns its slot.
    pub(super) fn forget(&self, connection: &Connection) -> Option<Slot> {
        let is_it = |opened: &Opened| matches!(&opened.link, OpenLink::Calls(open) if open.is(connection));
        let mut index = self.write();
        let slot = index.slots.iter().find(|(_, opened)| is_it(opened)).map(|(&slot, _)| slot)?;
        index.remove(&slot);
        Some(slot)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX)
    }

    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn remove(&mut self, slot: &Slot) {
        let Some(removed) = self.slots.remove(slot) else { return };
        let key = (removed.address, slot.lane);
        if let Some(there) = self.calls_by_address.get_mut(&key) {
            there.retain(|opened| !Arc::ptr_eq(opened, &removed));
            if there.is_empty() {
                self.calls_by_address.remove(&key);
            }
        }
    }
}
