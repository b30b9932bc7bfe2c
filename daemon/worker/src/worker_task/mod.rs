//! The task that owns a worker's state. It receives everything as an event, and spawns tasks for what takes time.
//!
//! One report is in flight at a time. The next one is due at once while batches are wanted, when something changed, and when
//! another member has become coordinator; otherwise every [`HEARTBEAT`]. The coordinator may delay its answer to a report
//! that wants batches.
//!
//! Bounds: one spawned task per lease, model and job; see [`super`].

mod events;
mod report;
mod servers;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use idunno_references::{ObjectClient, Trust};
use idunno_shared::ids::{Digest, JobId, Term};
use idunno_shared::names::ModelName;
use idunno_shared::wire::control::WorkerView;
use idunno_shared::wire::jobs::{FaultKind, Grant, JobReply, Lease, ServerState, TrainingProgress};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::report::{ReportError, Reporting};
use self::servers::Servers;
use super::WorkerConfig;
use super::batch::{self, BatchContext, BatchResult};
use super::inputs::{InputCaches, PreparedBatch};
use super::latency::InferLatency;
use super::lease_table::{LeasePhase, LeaseTable};
use super::packages::Packages;
use super::requests::{LoadError, LoadedModel, RequestError, Requests};
use super::segments::Segments;
use super::supervisor::{ReadyServer, ServerStatuses};
use super::traits::{CoordinatorClient, FileStore};

/// The longest pause between two reports.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// Pause of the pull after a fault of the worker itself, doubled each time up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);
const IDLE_WAKE: Duration = Duration::from_secs(3600);

/// The outcome of a spawned task.
#[derive(Debug)]
enum Event {
    Reported {
        number: u64,
        result: Result<JobReply, ReportError>,
    },
    Prepared(Box<PreparedBatch>),
    Ran {
        model: ModelName,
        version: Digest,
        result: Box<BatchResult>,
    },
    FailuresReported(Lease),
    Committed {
        job: JobId,
        leases: Vec<Lease>,
        result: Result<(), RequestError>,
    },
    Loaded {
        epoch: u64,
        model: ModelName,
        result: Result<LoadedModel, LoadError>,
    },
    Unloaded {
        epoch: u64,
        model: ModelName,
    },
    Trained {
        model: ModelName,
        interrupted: Option<String>,
    },
    /// The process of a version that hung was ended, or not, because it has none of its own.
    RunnerEnded {
        model: ModelName,
        version: Digest,
        reason: String,
        ended: bool,
    },
}

/// The fault that stands for a panicked task.
const TASK_PANICKED: &str = "internal error: the worker's task panicked";

/// The worker's connections to the rest of the member.
#[derive(Debug)]
pub struct WorkerChannels {
    pub status: watch::Receiver<ServerStatuses>,
    /// Each asks the supervisor of one server to restart it, with the reason.
    pub restart: Vec<mpsc::Sender<String>>,
    /// Changes when another member becomes coordinator.
    pub coordinator_term: watch::Receiver<Term>,
    pub view: watch::Sender<WorkerView>,
}

struct RunningTraining {
    progress: watch::Receiver<TrainingProgress>,
    stop: CancellationToken,
    /// The package that is trained, which must stay on the disk.
    package: Option<Digest>,
}

struct CommitInFlight {
    leases: Vec<Lease>,
    task: AbortHandle,
}

pub struct WorkerTask {
    config: WorkerConfig,
    requests: Requests,
    servers: Servers,
    coordinator_term: watch::Receiver<Term>,
    view: watch::Sender<WorkerView>,
    caches: Arc<InputCaches>,
    /// When the caches are freed, unless another lease is granted before.
    free_caches_at: Option<Instant>,
    /// When packages that are no longer used are deleted next.
    sweep_packages_at: Instant,

    leases: LeaseTable,
    /// The model of each lease that has not started to run.
    lease_models: BTreeMap<Lease, ModelName>,
    segments: Segments,
    latencies: BTreeMap<ModelName, InferLatency>,
    trainings: BTreeMap<ModelName, RunningTraining>,
    prepared: BTreeMap<Lease, PreparedBatch>,
    /// Batches whose failures are being reported; their rows are committed after that.
    reporting_failures: BTreeMap<Lease, BatchResult>,
    commits: BTreeMap<JobId, CommitInFlight>,
    /// The task of each lease that has one.
    lease_tasks: BTreeMap<Lease, AbortHandle>,

    tasks: JoinSet<Event>,
    /// The event that stands for each task if it panics, so that nothing waits for it forever.
    if_panicked: HashMap<Id, Event>,
    reporting: Reporting,
    /// When the running batch was started.
    running_since: Option<Instant>,
    /// How long its model may take for one row.
    running_row_timeout: Duration,
    /// Its model and the version of it.
    running_version: Option<(ModelName, Digest)>,
    drain_until: Option<Instant>,
}

impl WorkerTask {
    pub fn new(
        config: WorkerConfig,
        coordinator: Arc<dyn CoordinatorClient>,
        (store, packages): (Arc<dyn FileStore>, Packages),
        channels: WorkerChannels,
    ) -> Self {
        let WorkerChannels { status, restart, coordinator_term, view } = channels;
        let requests = Requests { node: config.node, coordinator, store, packages };
        let objects = ObjectClient::new(&Trust::Listed(config.reference_urls.clone()));
        Self {
            config,
            requests,
            servers: Servers::new(status, restart),
            coordinator_term,
            view,
            caches: Arc::new(InputCaches::new(objects)),
            free_caches_at: None,
            sweep_packages_at: Instant::now(),
            leases: LeaseTable::default(),
            lease_models: BTreeMap::new(),
            segments: Segments::default(),
            latencies: BTreeMap::new(),
            trainings: BTreeMap::new(),
            prepared: BTreeMap::new(),
            reporting_failures: BTreeMap::new(),
            commits: BTreeMap::new(),
            lease_tasks: BTreeMap::new(),
            tasks: JoinSet::new(),
            if_panicked: HashMap::new(),
            reporting: Reporting::default(),
            running_since: None,
            running_row_timeout: Duration::ZERO,
            running_version: None,
            drain_until: None,
        }
    }

    /// Works until `shutdown`, then drains.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut status_open = true;
        let mut term_open = true;
        while !self.is_drained() {
            self.advance();
            let wake = self.next_wake();
            tokio::select! {
                Some(joined) = self.tasks.join_next_with_id() => self.task_ended(joined),
                changed = self.servers.changed(), if status_open => {
                    status_open = changed.is_ok();
                    self.server_changed();
                }
                changed = self.coordinator_term.changed(), if term_open => {
                    term_open = changed.is_ok();
                    self.coordinator_changed();
                }
                () = shutdown.cancelled(), if self.drain_until.is_none() => self.begin_drain(),
                () = sleep_until(wake) => {}
            }
            debug_assert_eq!(self.leases.check(), Ok(()));
        }
        if !self.leases.is_empty() {
            warn!(leases = self.leases.len(), "the drain timed out, abandoning leases");
        }
        self.send_last_report().await;
    }

    /// Starts everything that can be done now.
    fn advance(&mut self) {
        let now = Instant::now();
        self.run_next();
        self.send_segments(now);
        self.send_report(now);
        self.free_idle_caches(now);
        self.sweep_packages(now);
        let server = self.server_state();
        let models = self.servers.model_states();
        self.view.send_if_modified(|view| {
            let changed = view.server != server || view.models != models;
            view.server = server;
            view.models = models;
            changed
        });
    }

    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let candidates = [
            self.report_due(now),
            self.segments.next_due(),
            self.starved_at(),
            self.drain_until,
            self.free_caches_at,
            Some(self.sweep_packages_at),
        ];
        candidates.into_iter().flatten().min().unwrap_or_else(|| now + IDLE_WAKE)
    }

    fn free_idle_caches(&mut self, now: Instant) {
        if !self.leases.is_empty() {
            self.free_caches_at = Some(now + self.config.caches_kept_idle);
        } else if self.free_caches_at.is_some_and(|at| at <= now) {
            self.free_caches_at = None;
            let caches = Arc::clone(&self.caches);
            tokio::spawn(async move { caches.clear().await });
        }
    }

    fn sweep_packages(&mut self, now: Instant) {
        if self.sweep_packages_at > now {
            return;
        }
        let kept = self.config.packages_kept_unused;
        self.sweep_packages_at = now + kept / 10;
        let packages = self.requests.packages.clone();
        let mut in_use = self.servers.versions_in_use();
        in_use.extend(self.trainings.values().filter_map(|training| training.package));
        tokio::spawn(async move { packages.evict_unused(&in_use, kept).await });
    }

    fn server_state(&self) -> ServerState {
        self.servers.state()
    }

    fn server_changed(&mut self) {
        for index in self.servers.update() {
            debug!(index, "a model server is down");
            self.give_back_unstarted(Some(index), "the model server is down");
        }
    }

    /// The new coordinator grants no lease before it knows what runs where, and the old one no longer answers.
    fn coordinator_changed(&mut self) {
        debug!(term = %*self.coordinator_term.borrow(), "another member has become coordinator");
        if let Some(handle) = self.reporting.interrupt() {
            self.abort(&handle);
        }
        self.reporting.send_now();
    }

    /// Gives back the batches that would wait for an unusable server, or for any.
    fn give_back_unstarted(&mut self, server: Option<usize>, reason: &str) {
        let mut unstarted = self.leases.unstarted();
        if server.is_some() {
            unstarted.retain(|lease| {
                let model = self.lease_models.get(lease);
                model.is_none_or(|model| self.servers.index_of(model) == server)
            });
        }
        self.forget(&unstarted.iter().copied().collect());
        for lease in unstarted {
            self.batch_ended(None, BatchResult::all_failed(lease, FaultKind::Worker, reason));
        }
    }

    /// Spawns a task. `if_panicked` is handled instead if it panics.
    fn spawn(
        &mut self,
        if_panicked: Event,
        task: impl Future<Output = Event> + Send + 'static,
    ) -> AbortHandle {
        let handle = self.tasks.spawn(task);
        self.if_panicked.insert(handle.id(), if_panicked);
        handle
    }

    /// Aborts a task: its event is discarded.
    fn abort(&mut self, handle: &AbortHandle) {
        handle.abort();
        self.if_panicked.remove(&handle.id());
    }

    fn task_ended(&mut self, joined: Result<(Id, Event), JoinError>) {
        let event = match joined {
            // A task that ended while it was being aborted is no longer listed: its event is discarded.
            Ok((id, event)) => self.if_panicked.remove(&id).map(|_| event),
            Err(error) => {
                let event = self.if_panicked.remove(&error.id());
                if event.is_some() {
                    error!(%error, "a worker's task panicked");
                }
                event
            }
        };
        if let Some(event) = event {
            self.handle(event);
        }
    }

    /// Starts the next batch, if none runs.
    fn run_next(&mut self) {
        let (lease, prepared, ReadyServer { server, extensions }) = loop {
            let Some(lease) = self.leases.start_next() else { return };
            let prepared = self.prepared.remove(&lease);
            let server = prepared.as_ref().and_then(|prepared| self.ready_server(&prepared.grant.model));
            match (prepared, server) {
                (None, _) => error!(%lease, "a waiting batch has no inputs"),
                (Some(prepared), Some(server)) if !self.is_down(&prepared.grant) => {
                    break (lease, prepared, server);
                }
                _ => debug!(%lease, "giving a batch back: its model does not run now"),
            }
            self.leases.end([lease]);
        };
        self.running_since = Some(Instant::now());
        let (model, version) = (prepared.grant.model.clone(), prepared.grant.version);
        self.running_version = Some((model.clone(), version));
        let failed = BatchResult::all_failed(lease, FaultKind::Worker, TASK_PANICKED);
        let if_panicked = Event::Ran { model: model.clone(), version, result: Box::new(failed) };
        let latency = self.latencies.get(&model).cloned().unwrap_or_default();
        self.running_row_timeout = latency.row_timeout();
        let context = BatchContext {
            store: Arc::clone(&self.requests.store),
            server,
            extensions,
            worker: self.config.name.clone(),
            latency,
        };
        let handle = self.spawn(if_panicked, async move {
            let result = Box::new(batch::run(context, prepared).await);
            Event::Ran { model, version, result }
        });
        self.lease_tasks.insert(lease, handle);
    }

    /// The server that answers for a model, unless it is down.
    fn ready_server(&self, model: &ModelName) -> Option<ReadyServer> {
        self.servers.status_of(model).and_then(|status| status.server)
    }

    /// Whether the process of a grant's model has ended and does not run again yet: nobody is at fault.
    fn is_down(&self, grant: &Grant) -> bool {
        let server = self.servers.of(&grant.model);
        server.is_some_and(|server| {
            !server.models.has(&grant.model, &grant.version)
                && server.models.is_expected(&grant.model, &grant.version)
        })
    }

    /// Commits the segments that are due; all of them when no further rows are expected soon.
    fn send_segments(&mut self, now: Instant) {
        let idle = self.leases.active() == 0 && self.leases.count(LeasePhase::Reporting) == 0;
        let starved = self.starved_at().is_some_and(|at| at <= now);
        while let Some(segment) = self.segments.take_due(idle || starved || self.drain_until.is_some(), now) {
            let job = segment.job;
            let leases: Vec<Lease> = segment.batches.iter().map(|batch| batch.lease).collect();
            let result = Err(RequestError::Internal);
            let if_panicked = Event::Committed { job, leases: leases.clone(), result };
            let requests = self.requests.clone();
            let committed = leases.clone();
            let task = self.spawn(if_panicked, async move {
                let result = requests.commit(segment).await;
                Event::Committed { job, leases: committed, result }
            });
            self.commits.insert(job, CommitInFlight { leases, task });
        }
    }

    fn begin_drain(&mut self) {
        self.drain_until = Some(Instant::now() + self.config.drain_timeout);
        let returned = self.leases.return_unstarted();
        info!(returned = returned.len(), held = self.leases.len(), "draining the worker");
        self.forget(&returned.into_iter().collect());
        // Its grants are no longer wanted, and its answer may be delayed.
        if let Some(handle) = self.reporting.interrupt() {
            self.abort(&handle);
        }
    }

    fn is_drained(&self) -> bool {
        self.drain_until.is_some_and(|until| self.leases.is_empty() || Instant::now() >= until)
    }

    /// Drops everything kept for leases that are no longer wanted.
    fn forget(&mut self, leases: &BTreeSet<Lease>) {
        for lease in leases {
            self.prepared.remove(lease);
            self.reporting_failures.remove(lease);
            if let Some(handle) = self.lease_tasks.remove(lease) {
                self.abort(&handle);
            }
        }
        self.segments.cancel(leases);
        // A segment is abandoned once none of its leases is held.
        let jobs: BTreeSet<JobId> = leases.iter().map(|lease| lease.job).collect();
        for job in jobs {
            let unwanted = self.commits.get(&job).filter(|commit| {
                commit.leases.iter().any(|lease| leases.contains(lease))
                    && !self.leases.has_any(&commit.leases)
            });
            if let Some(task) = unwanted.map(|commit| commit.task.clone()) {
                self.abort(&task);
                self.commits.remove(&job);
                self.segments.answered(job);
            }
        }
    }
}
