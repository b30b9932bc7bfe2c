//! The clients of a run: they put, read and delete files, run jobs, and ask which member coordinates.

pub(crate) mod jobs;
pub(crate) mod registers;
pub(crate) mod watcher;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use idunno_shared::client::cluster::Cluster;
use idunno_shared::security::Credentials;

use crate::cluster::views;
use crate::history::History;

/// What every client needs.
#[derive(Clone)]
pub(crate) struct ClientContext {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) credentials: Credentials,
    pub(crate) history: History,
    /// For local files.
    pub(crate) scratch: PathBuf,
    pub(crate) seed: u64,
    /// Once set, clients finish their current operation and end.
    pub(crate) stop: Arc<AtomicBool>,
}

impl ClientContext {
    /// A client of the cluster.
    pub(crate) fn client(&self) -> Cluster {
        views::client(&self.credentials, self.addresses.clone())
    }

    fn is_running(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}
