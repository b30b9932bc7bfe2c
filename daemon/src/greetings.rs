//! Tells the coordinator of identities with which somebody connects here for the first time, so that they are listed.
//!
//! An identity is made offline; only members see that it exists. Bounds: [`QUEUED_MAX`] wait, more are told when they
//! connect again; [`TOLD_KEPT`] are remembered, so that a member without the log tells each of them once.

use std::collections::BTreeSet;
use std::sync::Arc;

use idunno_core::metadata::State;
use idunno_shared::access::{Grant, Issued, Role};
use idunno_shared::client::cluster::Cluster;
use idunno_shared::ids::Digest;
use idunno_shared::wire::control::ControlRequest;
use tokio::sync::{mpsc, watch};
use tracing::debug;

/// Identities that wait for the coordinator.
pub const QUEUED_MAX: usize = 64;
/// Identities that were told and are remembered.
pub const TOLD_KEPT: usize = 1_024;

/// Where the identities of new connections are noted. Cheap to clone.
#[derive(Clone)]
pub struct Greetings {
    queue: mpsc::Sender<Issued>,
    state: watch::Receiver<Arc<State>>,
}

impl Greetings {
    /// Also returns the task that tells the coordinator.
    pub fn new(
        cluster: Cluster,
        state: watch::Receiver<Arc<State>>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, queued) = mpsc::channel(QUEUED_MAX);
        (Self { queue, state }, tell(cluster, queued))
    }

    /// Notes that somebody has connected with this identity.
    pub fn note(&self, issued: &Issued) {
        // What is made from the secret at each start is no identity that anybody was given.
        let Grant { name, role, .. } = &issued.grant;
        let is_given = !name.is_of_secret() && *role < Role::Member;
        if is_given && !self.state.borrow().has_seen(issued) {
            // Beyond the queue's bound it is told when it connects again.
            let _ = self.queue.try_send(issued.clone());
        }
    }
}

async fn tell(cluster: Cluster, mut queued: mpsc::Receiver<Issued>) {
    let mut told: BTreeSet<Digest> = BTreeSet::new();
    while let Some(issued) = queued.recv().await {
        let certificate = issued.certificate;
        if told.contains(&certificate) {
            continue;
        }
        match cluster.control(ControlRequest::NoteIdentity(issued)).await {
            Ok(_) => {
                if told.len() >= TOLD_KEPT {
                    told.clear();
                }
                told.insert(certificate);
            }
            Err(error) => debug!(%error, "cannot tell the coordinator of an identity"),
        }
    }
}
