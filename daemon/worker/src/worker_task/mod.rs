//! The task that owns a worker's state: hears of everything as an event, and starts what is to be done.
//!
//! One report is on its way at a time: at once while batches are wanted or something changed, when another member has
//! come to coordinate, and else every [`HEARTBEAT`]. The coordinator may hold the answer of a report that wants batches.
//!
//! Bounds: one task a lease, a model and a job; see [`super`].

mod events;
mod report;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use idunno_shared::ids::{Digest, JobId, Term};
use idunno_shared::names::ModelName;
use idunno_shared::wire::control::WorkerView;
use idunno_shared::wire::jobs::{FaultKind, JobReply, Lease, ServerState, TrainingProgress};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::report::Reporting;
use super::WorkerConfig;
use super::batch::{self, Bench, InputCaches, Prepared, Ran};
use super::lease_table::{LeaseTable, Phase};
use super::models::Models;
use super::pace::Pace;
use super::requests::Requests;
use super::segments::Segments;
use super::supervisor::ServerStatus;
use super::traits::{CoordinatorClient, FileStore};

/// The longest pause between two reports.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// After a fault of the worker itself no batch is wanted for so long, doubled each time up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);
const IDLE_WAKE: Duration = Duration::from_secs(3600);

/// What an errand brought.
#[derive(Debug)]
enum Event {
    Reported { number: u64, result: Result<JobReply, String> },
    Prepared(Box<Prepared>),
    Ran { model: ModelName, ran: Box<Ran> },
    FailuresNoted(Lease),
    Committed { job: JobId, leases: Vec<Lease>, result: Result<(), String> },
    Loaded { epoch: u64, model: ModelName, result: Result<Digest, String> },
    Trained { model: ModelName, interrupted: Option<String> },
}

/// The worker.
pub struct WorkerTask {
    config: WorkerConfig,
    requests: Requests,
    status: watch::Receiver<ServerStatus>,
    complain: mpsc::Sender<String>,
    news: watch::Receiver<Term>,
    view: watch::Sender<WorkerView>,
    caches: Arc<InputCaches>,

    leases: LeaseTable,
    models: Models,
    segments: Segments,
    paces: BTreeMap<ModelName, Pace>,
    trainings: BTreeMap<ModelName, (watch::Receiver<TrainingProgress>, CancellationToken)>,
    prepared: BTreeMap<Lease, Prepared>,
    /// Batches whose failures are being told: their rows come after.
    reporting_failures: BTreeMap<Lease, Ran>,
    committing: BTreeMap<JobId, (Vec<Lease>, AbortHandle)>,
    at_work: BTreeMap<Lease, AbortHandle>,

    tasks: JoinSet<Event>,
    /// What is assumed if an errand fails by a fault of its own, so that nothing waits for it forever.
    under_way: HashMap<Id, Event>,
    reporting: Reporting,
    paused_until: Option<Instant>,
    pause: Duration,
    /// When the batch that runs was started.
    running_since: Option<Instant>,
    drain_until: Option<Instant>,
}

impl WorkerTask {
    /// A worker that has not begun.
    pub fn new(
        config: WorkerConfig,
        coordinator: Arc<dyn CoordinatorClient>,
        store: Arc<dyn FileStore>,
        status: watch::Receiver<ServerStatus>,
        complain: mpsc::Sender<String>,
        news: watch::Receiver<Term>,
        view: watch::Sender<WorkerView>,
    ) -> Self {
        let requests = Requests { node: config.node, coordinator, store };
        Self {
            config,
            requests,
            status,
            complain,
            news,
            view,
            caches: Arc::default(),
            leases: LeaseTable::default(),
            models: Models::default(),
            segments: Segments::default(),
            paces: BTreeMap::new(),
            trainings: BTreeMap::new(),
            prepared: BTreeMap::new(),
            reporting_failures: BTreeMap::new(),
            committing: BTreeMap::new(),
            at_work: BTreeMap::new(),
            tasks: JoinSet::new(),
            under_way: HashMap::new(),
            reporting: Reporting::default(),
            paused_until: None,
            pause: PAUSE_MIN,
            running_since: None,
            drain_until: None,
        }
    }

    /// Works until `shutdown`, then drains.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let (mut watching, mut listening) = (true, true);
        while !self.drained() {
            self.advance();
            let wake = self.next_wake();
            tokio::select! {
                Some(joined) = self.tasks.join_next_with_id() => self.joined(joined),
                changed = self.status.changed(), if watching => {
                    watching = changed.is_ok();
                    self.server_changed();
                }
                changed = self.news.changed(), if listening => {
                    listening = changed.is_ok();
                    self.coordinator_changed();
                }
                () = shutdown.cancelled(), if self.drain_until.is_none() => self.begin_drain(),
                () = sleep_until(wake) => {}
            }
            debug_assert_eq!(self.leases.check(), Ok(()));
        }
        if !self.leases.is_empty() {
            warn!(leases = self.leases.len(), "the drain took too long, leases are given up");
        }
        self.say_goodbye().await;
    }

    /// Does all that can be done now.
    fn advance(&mut self) {
        let now = Instant::now();
        self.run_next();
        self.send_segments(now);
        self.send_report(now);
        let (server, models) = (self.server_state(), self.models.states());
        self.view.send_if_modified(|view| {
            let changed = view.server != server || view.models != models;
            (view.server, view.models) = (server, models);
            changed
        });
    }

    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let candidates =
            [self.report_due(now), self.segments.next_due(), self.starved_at(), self.drain_until];
        candidates.into_iter().flatten().min().unwrap_or_else(|| now + IDLE_WAKE)
    }

    fn server_state(&self) -> ServerState {
        self.status.borrow().state.clone()
    }

    fn server_changed(&mut self) {
        let (epoch, state) = {
            let status = self.status.borrow_and_update();
            (status.epoch, status.state.clone())
        };
        debug!(epoch, ?state, "the model server's state changed");
        self.models.restart(epoch);
        if state == ServerState::Ready {
            (self.paused_until, self.pause) = (None, PAUSE_MIN);
        } else {
            self.models.server_down();
            self.give_back_unstarted("the model server is down");
        }
    }

    /// The new coordinator leases nothing before it knows what runs where, and the old one answers no more.
    fn coordinator_changed(&mut self) {
        debug!(term = %*self.news.borrow(), "somebody else coordinates");
        if let Some(handle) = self.reporting.interrupt() {
            self.abort(&handle);
        }
        self.reporting.hurry();
    }

    /// What waits for a server that is away is better run elsewhere.
    fn give_back_unstarted(&mut self, reason: &str) {
        let unstarted = self.leases.unstarted();
        self.forget(&unstarted.iter().copied().collect());
        for lease in unstarted {
            self.ran(None, Ran::all_failed(lease, FaultKind::Worker, reason));
        }
    }

    /// Starts an errand. `if_lost` is what it counts as if it panics.
    fn spawn(&mut self, if_lost: Event, errand: impl Future<Output = Event> + Send + 'static) -> AbortHandle {
        let handle = self.tasks.spawn(errand);
        self.under_way.insert(handle.id(), if_lost);
        handle
    }

    /// Ends an errand; no event comes of it.
    fn abort(&mut self, handle: &AbortHandle) {
        handle.abort();
        self.under_way.remove(&handle.id());
    }

    fn joined(&mut self, joined: Result<(Id, Event), JoinError>) {
        let event = match joined {
            // An errand that finished while it was aborted is not listed any more: its event is void.
            Ok((id, event)) => self.under_way.remove(&id).map(|_| event),
            Err(error) => {
                let lost = self.under_way.remove(&error.id());
                if lost.is_some() {
                    error!(%error, "a worker's errand failed");
                }
                lost
            }
        };
        if let Some(event) = event {
            self.handle(event);
        }
    }

    /// Starts the batch that comes next, if the model server is free.
    fn run_next(&mut self) {
        let status = self.status.borrow().clone();
        let Some((server, extensions)) = status.server else { return };
        let Some(lease) = self.leases.start_next() else { return };
        let Some(prepared) = self.prepared.remove(&lease) else {
            error!(%lease, "a batch that waits has no inputs");
            self.leases.end([lease]);
            return;
        };
        self.running_since = Some(Instant::now());
        let model = prepared.grant.model.clone();
        let lost = Ran::all_failed(lease, FaultKind::Worker, "internal fault");
        let if_lost = Event::Ran { model: model.clone(), ran: Box::new(lost) };
        let bench = Bench {
            store: Arc::clone(&self.requests.store),
            server,
            extensions,
            worker: self.config.name.clone(),
            pace: self.paces.get(&model).cloned().unwrap_or_default(),
        };
        let handle = self.spawn(if_lost, async move {
            let ran = Box::new(batch::run(bench, prepared).await);
            Event::Ran { model, ran }
        });
        self.at_work.insert(lease, handle);
    }

    /// Sends the segments that are due: all, when nothing else is to be waited for.
    fn send_segments(&mut self, now: Instant) {
        let idle = self.leases.active() == 0 && self.leases.count(Phase::Reporting) == 0;
        let starved = self.starved_at().is_some_and(|at| at <= now);
        while let Some(segment) = self.segments.cut(idle || starved || self.drain_until.is_some(), now) {
            let job = segment.job;
            let leases: Vec<Lease> = segment.batches.iter().map(|batch| batch.lease).collect();
            let lost = Err("internal fault".to_owned());
            let if_lost = Event::Committed { job, leases: leases.clone(), result: lost };
            let (requests, committed) = (self.requests.clone(), leases.clone());
            let handle = self.spawn(if_lost, async move {
                let result = requests.commit(segment).await;
                Event::Committed { job, leases: committed, result }
            });
            self.committing.insert(job, (leases, handle));
        }
    }

    fn begin_drain(&mut self) {
        self.drain_until = Some(Instant::now() + self.config.drain_timeout);
        let returned = self.leases.return_unstarted();
        info!(returned = returned.len(), held = self.leases.len(), "the worker drains");
        self.forget(&returned.into_iter().collect());
        // What it would grant is not wanted any more, and its answer may take a while.
        if let Some(handle) = self.reporting.interrupt() {
            self.abort(&handle);
        }
    }

    fn drained(&self) -> bool {
        self.drain_until.is_some_and(|until| self.leases.is_empty() || Instant::now() >= until)
    }

    /// Drops what is kept of leases that are not to be gone on with.
    fn forget(&mut self, leases: &BTreeSet<Lease>) {
        for lease in leases {
            self.prepared.remove(lease);
            self.reporting_failures.remove(lease);
            if let Some(handle) = self.at_work.remove(lease) {
                self.abort(&handle);
            }
        }
        self.segments.cancel(leases);
        // A segment of which nothing is wanted any more.
        let jobs: BTreeSet<JobId> = leases.iter().map(|lease| lease.job).collect();
        for job in jobs {
            let over = self.committing.get(&job).filter(|(sent, _)| {
                sent.iter().any(|lease| leases.contains(lease)) && !self.leases.has_any(sent)
            });
            if let Some(handle) = over.map(|(_, handle)| handle.clone()) {
                self.abort(&handle);
                self.committing.remove(&job);
                self.segments.answered(job);
            }
        }
    }
}
