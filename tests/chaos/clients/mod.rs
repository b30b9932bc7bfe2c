//! What people and programs do meanwhile: put, read and delete files, run jobs, ask who coordinates.

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

/// What every client is given.
#[derive(Clone)]
pub(crate) struct Means {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) credentials: Credentials,
    pub(crate) history: History,
    /// For local files.
    pub(crate) scratch: PathBuf,
    pub(crate) seed: u64,
    /// When it is set, clients finish what they are at.
    pub(crate) stop: Arc<AtomicBool>,
}

impl Means {
    /// A client of the cluster.
    pub(crate) fn client(&self) -> Cluster {
        views::client(&self.credentials, self.addresses.clone())
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}
