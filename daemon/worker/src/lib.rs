//! The worker of a member: pulls batches from the coordinator, has its model server answer them, and makes the answers
//! durable before it says so.
//!
//! Source: the design, sections 8 and 9. The pure parts decide: [`lease_table`] (which batches are held, what runs next),
//! [`segments`] (when rows are stored), [`models`] (what is loaded or trained), [`pace`] (deadlines), [`protocol`],
//! [`rows`], [`labels`], [`faults`]. The thin parts act: [`batch`] (one batch), [`extents`] (files of records), [`requests`] (one
//! load, training or commit), [`coordinator_requests`] and [`result_merge`] (what the coordinator asks beside), [`supervisor`] (the server process), [`model_server`] (calls to it), [`worker_task`] (the one task that owns all
//! state and hears of everything else as an event).
//!
//! Invariants: a lease is reported from its grant until its commit is answered, it is given back or cancelled; rows
//! are dropped only when their lease is cancelled or the coordinator refuses them for good; orders of an older term
//! are void.
//! Bounds: one batch runs and one is prefetched, of each at most two chunks of inputs are in memory
//! ([`WorkerConfig::chunk_bytes`]); rows without a commit stop the pull at [`segments::BUFFERED_BYTES_MAX`].

pub mod batch;
pub mod coordinator_requests;
pub mod extents;
pub mod faults;
pub mod labels;
pub mod lease_table;
pub mod model_server;
pub mod models;
pub mod pace;
pub mod protocol;
pub mod records;
pub mod requests;
pub mod result_merge;
pub mod rows;
pub mod segments;
pub mod supervisor;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod training_data;
pub mod traits;
pub mod worker_task;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use idunno_shared::ids::{NodeId, Term};
use idunno_shared::names::MemberName;
use idunno_shared::wire::control::WorkerView;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::error;

use self::supervisor::{ServerConfig, ServerStatus, Supervisor, Timing};
use self::traits::{CoordinatorClient, FileStore};
use self::worker_task::WorkerTask;

/// Who the worker is, and what it works with.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The member.
    pub node: NodeId,
    /// The member's name, for result rows.
    pub name: MemberName,
    /// The member's boot count.
    pub generation: u64,
    /// Its model server.
    pub server: ServerConfig,
    /// The member's data directory.
    pub data_dir: PathBuf,
    /// How often the model server is looked after.
    pub timing: Timing,
    /// Inputs that go in one infer call, in bytes; a batch with more goes in several. A single larger input goes alone.
    pub chunk_bytes: u64,
    /// How long a batch that runs may go on after the shutdown was asked for, its commit included.
    pub drain_timeout: Duration,
}

impl WorkerConfig {
    /// With the usual intervals.
    pub fn new(
        node: NodeId,
        name: MemberName,
        generation: u64,
        server: ServerConfig,
        data_dir: PathBuf,
    ) -> Self {
        let (timing, drain_timeout) = (Timing::default(), Duration::from_secs(20));
        let chunk_bytes = batch::CHUNK_BYTES_DEFAULT;
        Self { node, name, generation, server, data_dir, timing, chunk_bytes, drain_timeout }
    }
}

/// The view before anything is known, for the channel given to [`run`].
pub fn first_view(node: NodeId) -> WorkerView {
    WorkerView { node, server: idunno_shared::wire::jobs::ServerState::Starting, models: Vec::new() }
}

/// Works until `shutdown`, then drains: returns what has not started, finishes and commits what runs, ends the model
/// server it started. `news` is the term in which somebody coordinates, `view` always shows the worker's state,
/// `status_sender` the model server's.
pub async fn run(
    config: WorkerConfig,
    coordinator: Arc<dyn CoordinatorClient>,
    store: Arc<dyn FileStore>,
    news: watch::Receiver<Term>,
    view: watch::Sender<WorkerView>,
    status_sender: watch::Sender<ServerStatus>,
    shutdown: CancellationToken,
) {
    let status = status_sender.subscribe();
    let (complain, complaints) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let supervisor = Supervisor {
        config: config.server.clone(),
        data_dir: config.data_dir.clone(),
        timing: config.timing,
        status: status_sender,
        complaints,
        stop: stop.clone(),
    };
    // Ends the supervisor, and with it the model server, also when this future is dropped.
    let _stop_with_me = stop.clone().drop_guard();
    let supervisor = tokio::spawn(supervisor.run());
    WorkerTask::new(config, coordinator, store, status, complain, news, view).run(shutdown).await;
    stop.cancel();
    if let Err(error) = supervisor.await {
        error!(%error, "the model server's supervisor failed");
    }
}
