//! Connections to holders: one for each holder and lane, opened when first needed.
//!
//! Lanes keep small blobs from waiting behind large ones, as gets are answered in order.
//!
//! Bounds: one connection a holder and lane; those that ended are dropped when the next one is opened. A holder that
//! could not be dialled is not dialled again for [`DIAL_PAUSE`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::connection::BlobConnection;
use crate::client::link::Dial;
use crate::wire::frame::Purpose;

/// How long a holder that could not be dialled counts as down.
pub const DIAL_PAUSE: Duration = Duration::from_secs(2);

/// What a connection is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Puts.
    Puts,
    /// Gets of small blobs.
    Gets,
    /// Gets of large ones, one of several side by side.
    Large(u8),
}

type Slot = Arc<tokio::sync::Mutex<Option<BlobConnection>>>;

/// The open connections to holders.
pub struct BlobPool {
    dialer: Arc<dyn Dial>,
    slots: Mutex<BTreeMap<(SocketAddr, Lane), Slot>>,
    down: Mutex<BTreeMap<SocketAddr, (Instant, String)>>,
}

impl BlobPool {
    /// A pool without connections.
    pub fn new(dialer: Arc<dyn Dial>) -> Self {
        Self { dialer, slots: Mutex::default(), down: Mutex::default() }
    }

    /// The connection to `address` in `lane`, dialled if need be; or why there is none.
    pub async fn connection(&self, address: SocketAddr, lane: Lane) -> Result<BlobConnection, String> {
        let slot = Arc::clone(lock(&self.slots).entry((address, lane)).or_default());
        // Callers of the same slot wait here while the first of them dials.
        let mut open = slot.lock().await;
        if let Some(connection) = open.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        if let Some((since, reason)) = lock(&self.down).get(&address)
            && since.elapsed() < DIAL_PAUSE
        {
            return Err(reason.clone());
        }
        match self.dialer.dial(address, Purpose::Blobs).await {
            Ok(link) => {
                let connection = BlobConnection::new(link);
                *open = Some(connection.clone());
                drop(open);
                lock(&self.down).remove(&address);
                self.forget_closed();
                Ok(connection)
            }
            Err(error) => {
                lock(&self.down).insert(address, (Instant::now(), error.to_string()));
                Err(error.to_string())
            }
        }
    }

    fn forget_closed(&self) {
        lock(&self.slots).retain(|_, slot| match slot.try_lock() {
            Ok(open) => open.as_ref().is_some_and(|connection| !connection.is_closed()),
            Err(_) => true,
        });
        lock(&self.down).retain(|_, (since, _)| since.elapsed() < DIAL_PAUSE);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
