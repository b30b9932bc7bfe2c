//! The worker of a member: pulls batches from the coordinator, has the model server answer them, and makes the answers
//! durable before it commits them.
//!
//! **Decides** which leases it holds and runs, when rows become a segment, which models are loaded or trained, how a batch
//! is cut into infer calls, and whose fault a failure is.
//!
//! **Source**: the design, sections 8 and 9.
//!
//! **Invariants**
//! - A lease is reported from its grant until its commit is answered, it is given back, or it is cancelled.
//! - Rows are dropped only when their lease is cancelled or the coordinator refuses them permanently.
//! - Orders of an older term are ignored.
//!
//! **Bounds**: one batch runs and one is prefetched, each with at most two chunks of inputs in memory
//! ([`WorkerConfig::chunk_bytes`]); uncommitted rows stop the pull at [`segments::BUFFERED_BYTES_MAX`].
//!
//! **Does not** assign work, decide whether a failed query is retried, or write to the metadata log: the coordinator does.
//!
//! Pure modules decide: [`lease_table`], [`segments`], [`models`], [`latency`] (deadlines), [`protocol`], [`rows`],
//! [`faults`], [`tokens`], [`records`]. The others do I/O: [`inputs`] and [`batch`] (one batch), [`labels`], [`extents`] and
//! [`row_groups`] (caches), [`reuse`] (answers of an earlier job),
//! [`packages`] (models' packages on the disk), [`requests`] and [`training`] (one commit, load or training),
//! [`coordinator_requests`] and [`result_merge`] (what the coordinator asks of any worker), [`supervisor`] (the server
//! process), [`model_server`] (calls to it). [`worker_task`] owns all state and receives everything else as events.

#![allow(missing_docs, reason = "internal to the daemon: a doc comment here says what the name does not")]

pub mod batch;
mod chunk;
pub mod coordinator_requests;
pub mod extents;
pub mod faults;
pub mod inputs;
pub mod json_text;
pub mod labels;
pub mod latency;
pub mod lease_table;
pub mod model_files;
pub mod model_server;
pub mod models;
mod objects;
pub mod open_inference;
pub mod packages;
pub mod protocol;
mod recent_bytes;
pub mod records;
pub mod requests;
pub mod result_merge;
mod reuse;
pub mod row_groups;
pub mod rows;
pub mod segments;
pub mod supervisor;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod tokens;
pub mod trained_output;
pub mod trained_package;
pub mod training;
pub mod training_data;
pub mod traits;
pub mod worker_task;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use idunno_shared::ids::{NodeId, Term};
use idunno_shared::names::MemberName;
use idunno_shared::wire::control::WorkerView;
use idunno_shared::wire::jobs::ServerState;
use idunno_shared::wire::resources::WorkerResources;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;

use self::model_files::ModelFiles;
use self::packages::Packages;
use self::supervisor::{Backend, ServerConfig, ServerStatuses, SupervisorTiming, Supervisors};
use self::traits::{CoordinatorClient, FileStore};
use self::worker_task::{WorkerChannels, WorkerTask};

const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// How long an idle worker keeps inputs and labels in memory: longer than the gaps within a job.
pub const CACHES_KEPT_IDLE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct WorkerConfig {
    pub node: NodeId,
    /// The member's name, for result rows.
    pub name: MemberName,
    /// The member's boot count.
    pub generation: u64,
    /// The member's own model server.
    pub server: ServerConfig,
    /// The model servers of others that answer for models which they alone have.
    pub backends: Vec<Backend>,
    /// The URLs of what datasets may refer to although it is private, and what is read with this process's credentials.
    pub reference_urls: Vec<String>,
    pub data_dir: PathBuf,
    /// Where the data of trainings are put. Packages have the same.
    pub model_files: ModelFiles,
    pub timing: SupervisorTiming,
    /// Bytes of inputs in one infer call. A larger batch is sent in several calls; a single larger input is sent alone.
    pub chunk_bytes: u64,
    /// How long a running batch may take to finish and commit after shutdown was requested.
    pub drain_timeout: Duration,
    /// How long a worker without leases keeps cached inputs.
    pub caches_kept_idle: Duration,
    /// How long a package that is not loaded stays on the disk after its last use.
    pub packages_kept_unused: Duration,
}

impl WorkerConfig {
    /// A configuration with default timing and limits.
    pub fn new(
        node: NodeId,
        name: MemberName,
        generation: u64,
        server: ServerConfig,
        data_dir: PathBuf,
    ) -> Self {
        Self {
            node,
            name,
            generation,
            server,
            backends: Vec::new(),
            reference_urls: Vec::new(),
            model_files: ModelFiles::in_data_dir(&data_dir),
            data_dir,
            timing: SupervisorTiming::default(),
            chunk_bytes: inputs::CHUNK_BYTES_DEFAULT,
            drain_timeout: DRAIN_TIMEOUT,
            caches_kept_idle: CACHES_KEPT_IDLE,
            packages_kept_unused: packages::KEPT_UNUSED,
        }
    }
}

/// The initial value of the view given to [`run`].
pub fn first_view(node: NodeId) -> WorkerView {
    WorkerView {
        node,
        server: ServerState::Starting,
        models: Vec::new(),
        resources: WorkerResources::default(),
    }
}

/// Works until `shutdown`, then drains: gives back what has not started, finishes and commits what runs, and stops the model
/// server that it started. `coordinator_term` changes when another member takes over as coordinator; `view` shows the
/// worker's state and `status_sender` the model servers'. `status_sender` begins with [`ServerStatuses::new`] of the
/// configuration.
pub async fn run(
    config: WorkerConfig,
    coordinator: Arc<dyn CoordinatorClient>,
    (store, packages): (Arc<dyn FileStore>, Packages),
    coordinator_term: watch::Receiver<Term>,
    view: watch::Sender<WorkerView>,
    status_sender: watch::Sender<ServerStatuses>,
    shutdown: CancellationToken,
) {
    let status = status_sender.subscribe();
    let stop = CancellationToken::new();
    // Stops the supervisors, and with them the model server, even if this future is dropped.
    let _stop_supervisors = stop.clone().drop_guard();
    let Supervisors { restart, tasks } = Supervisors::start(
        (&config.server, &config.backends),
        &config.data_dir,
        config.timing,
        &status_sender,
        &stop,
    );
    drop(status_sender);
    let channels = WorkerChannels { status, restart, coordinator_term, view };
    WorkerTask::new(config, coordinator, (store, packages), channels).run(shutdown).await;
    stop.cancel();
    for task in tasks {
        if let Err(error) = task.await {
            error!(%error, "a model server's supervisor panicked");
        }
    }
}
