//! What the worker does when a spawned task has ended.

use idunno_shared::ids::Digest;
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{
    BATCH_QUERIES_MAX, FaultKind, Grant, JobReply, LEASES_PER_WORKER_MAX, Lease, ModelArtefact, RecordsGrant,
    ReportReply, ServerState, TrainingAssignment, TrainingProgress,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::super::batch::BatchResult;
use super::super::inputs::{self, PreparedBatch};
use super::super::lease_table::LeasePhase;
use super::super::models::MODELS_MAX;
use super::super::requests::{LoadError, LoadedModel, RequestError};
use super::super::training::{TrainingControl, TrainingOrder};
use super::super::training_data::TrainingFolder;
use super::report::{ReportError, ReportOutcome};
use super::servers::Server;
use super::{Event, RunningTraining, TASK_PANICKED, WorkerTask};

impl WorkerTask {
    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Reported { number, result } => self.reported(number, result),
            Event::Prepared(prepared) => self.batch_prepared(*prepared),
            Event::Ran { model, version, mut result } => {
                let runner_down = result.runner_down.take();
                self.batch_ended(Some(&model), *result);
                if let Some(reason) = runner_down {
                    self.runner_down(&model, &version, reason);
                }
            }
            Event::RunnerEnded { model, version, reason, ended } => {
                info!(%model, %version, ended, "a model that hangs was to be ended");
                if !ended {
                    self.restart_server(self.servers.index_of(&model), reason);
                }
            }
            Event::FailuresReported(lease) => self.failures_reported(&lease),
            Event::Committed { job, leases, result } => {
                self.commits.remove(&job);
                self.segments.answered(job);
                self.committed(leases, result);
            }
            Event::Loaded { epoch, model, result: Ok(LoadedModel { version, row_timeout, beside }) } => {
                info!(%model, %version, "loaded a model");
                self.latencies.entry(model.clone()).or_default().declare(row_timeout);
                if let Some(server) = self.servers.of_mut(&model) {
                    server.models.loaded(epoch, &model, version, beside);
                }
            }
            Event::Loaded { epoch, model, result: Err(error) } => {
                warn!(%model, %error, "cannot load a model");
                if let Some(server) = self.servers.of_mut(&model) {
                    server.models.load_failed(epoch, &model, error.to_string(), Instant::now());
                }
            }
            Event::Unloaded { epoch, model } => {
                if let Some(server) = self.servers.of_mut(&model) {
                    server.models.unloaded(epoch, &model);
                }
            }
            Event::Trained { model, interrupted } => {
                info!(%model, ?interrupted, "a training has ended");
                self.trainings.remove(&model);
                if let Some(server) = self.servers.of_mut(&model) {
                    server.models.trained(&model, interrupted, self.reporting.number, Instant::now());
                }
            }
        }
    }

    fn reported(&mut self, number: u64, result: Result<JobReply, ReportError>) {
        let orders = match result {
            Ok(JobReply::Report(orders)) if self.leases.observe(orders.term) => Ok(orders),
            Ok(JobReply::Report(orders)) => Err(ReportError::StaleTerm(orders.term)),
            Ok(_) => Err(ReportError::UnexpectedReply),
            Err(error) => Err(error),
        };
        let outcome = match orders.map(|orders| self.carry_out(number, orders)) {
            Ok(true) => ReportOutcome::Granted,
            Ok(false) => ReportOutcome::NothingGranted,
            Err(error) => {
                debug!(%error, "a report got no orders");
                ReportOutcome::Failed
            }
        };
        self.reporting.answered(outcome, Instant::now());
    }

    /// Carries out orders. Returns whether they granted a batch.
    fn carry_out(&mut self, report: u64, orders: ReportReply) -> bool {
        let running = self.leases.leases().into_iter().find(|lease| {
            self.leases.phase(lease) == Some(LeasePhase::Running) && orders.cancelled.contains(lease)
        });
        let hanging = running.and_then(|_| self.running_version.clone());
        let cancelled = self.leases.end(orders.cancelled);
        for lease in &cancelled {
            debug!(%lease, "a lease is cancelled");
        }
        self.forget(&cancelled);
        for model in &orders.stop_training {
            if let Some(training) = self.trainings.get(model) {
                info!(%model, "stopping a training that is no longer wanted");
                training.stop.cancel();
            }
        }
        if let Some(reason) = orders.restart {
            self.end_hanging(hanging, reason);
        }
        if self.drain_until.is_some() {
            return false;
        }
        for (model, version) in orders.unload.into_iter().take(MODELS_MAX) {
            self.unload(model, version);
        }
        for artefact in orders.load.into_iter().take(MODELS_MAX) {
            self.load(artefact);
        }
        for assignment in orders.train.into_iter().take(MODELS_MAX) {
            self.train(report, assignment);
        }
        let mut granted = false;
        for grant in orders.grants.into_iter().take(LEASES_PER_WORKER_MAX) {
            granted |= self.accept(grant);
        }
        granted
    }

    fn accept(&mut self, grant: Grant) -> bool {
        let lease = grant.lease;
        let matches = match &grant.records {
            Some(RecordsGrant { numbers, .. }) => {
                numbers.is_empty() || numbers.len() == lease.range.count as usize
            }
            None => lease.range.queries().eq(grant.inputs.iter().map(|input| input.index)),
        };
        if lease.range.count == 0 || lease.range.count > BATCH_QUERIES_MAX || !matches {
            warn!(
                %lease,
                inputs = grant.inputs.len(),
                "ignoring a grant whose inputs do not match its lease"
            );
            return false;
        }
        if !self.leases.accept(lease) {
            debug!(%lease, "ignoring a grant: there is no room for it");
            return false;
        }
        debug!(%lease, "starting a batch");
        let unstarted = self.leases.unstarted();
        self.lease_models.retain(|held, _| unstarted.contains(held));
        self.lease_models.insert(lease, grant.model.clone());
        if self.is_down(&grant) {
            debug!(%lease, "giving a batch back: its model does not run now");
            self.leases.end([lease]);
            return true;
        }
        if !self.servers.has(&grant.model, &grant.version) {
            let reason =
                format!("model {} version {} is not loaded on this worker", grant.model, grant.version);
            let result = BatchResult::all_failed(lease, FaultKind::Worker, &reason);
            self.batch_ended(Some(&grant.model), result);
            return true;
        }
        let failed = BatchResult::all_failed(lease, FaultKind::Worker, TASK_PANICKED);
        let if_panicked =
            Event::Ran { model: grant.model.clone(), version: grant.version, result: Box::new(failed) };
        let store = self.requests.store.clone();
        let caches = self.caches.clone();
        let chunk_bytes = self.config.chunk_bytes;
        let handle = self.spawn(if_panicked, async move {
            Event::Prepared(Box::new(inputs::prepare(&*store, &caches, grant, chunk_bytes).await))
        });
        self.lease_tasks.insert(lease, handle);
        true
    }

    fn batch_prepared(&mut self, prepared: PreparedBatch) {
        let lease = prepared.grant.lease;
        self.lease_tasks.remove(&lease);
        if self.leases.set(&lease, LeasePhase::Waiting) {
            self.prepared.insert(lease, prepared);
        }
    }

    /// A batch has run, or failed before it ran. `model` is set if the model server was asked for it.
    pub(super) fn batch_ended(&mut self, model: Option<&ModelName>, mut result: BatchResult) {
        let lease = result.outcome.lease;
        self.lease_tasks.remove(&lease);
        debug!(%lease, faults = result.faults.len(), "a batch has ended");
        let answered: u64 = result.outcome.answered.iter().map(|range| u64::from(range.count)).sum();
        let answered = answered.saturating_sub(result.outcome.tokens.reused);
        if let Some((model, mut latency)) = model.zip(result.latency.take()) {
            let known = self.latencies.entry(model.clone()).or_default();
            latency.declare(known.row_timeout());
            *known = latency;
        }
        if let Some((model, server)) = model
            .filter(|_| answered > 0)
            .and_then(|model| self.servers.of_mut(model).map(|server| (model, server)))
        {
            server.models.answered(model);
            if result.faults.is_empty() {
                server.works();
            }
        }
        if let Some(model) = model.filter(|_| result.worker_fault) {
            self.worker_failed(model, &result);
        }
        if !self.leases.set(&lease, LeasePhase::Reporting) {
            return;
        }
        if result.faults.is_empty() {
            return self.keep_rows(result);
        }
        let requests = self.requests.clone();
        let faults = std::mem::take(&mut result.faults);
        self.reporting_failures.insert(lease, result);
        let handle = self.spawn(Event::FailuresReported(lease), async move {
            requests.report_failed(lease, faults).await;
            Event::FailuresReported(lease)
        });
        self.lease_tasks.insert(lease, handle);
    }

    /// The server did not serve: pauses it, loads the model again, and restarts a server that hangs.
    fn worker_failed(&mut self, model: &ModelName, result: &BatchResult) {
        let reason = result.faults.first().map_or("", |fault| fault.reason.as_str());
        let Some(server) = self.servers.of_mut(model) else { return };
        let now = Instant::now();
        let until = server.pause(now);
        warn!(%model, %reason, pause = ?until.duration_since(now), "the model server failed a batch");
        server.models.lost(model, reason.to_owned(), until);
        if result.hung {
            self.restart_server(self.servers.index_of(model), reason.to_owned());
        }
    }

    /// The process of one version has ended. The model server starts it again, and answers the next load once it runs. What
    /// waits for it is given back without a fault; other models go on.
    fn runner_down(&mut self, model: &ModelName, version: &Digest, reason: String) {
        warn!(%model, %version, %reason, "the process of a model has ended");
        if let Some(server) = self.servers.of_mut(model) {
            server.models.version_lost(model, version, reason, Instant::now());
        }
    }

    /// Ends the process of the model whose batch hangs, or the whole server if it has none of its own.
    fn end_hanging(&mut self, hanging: Option<(ModelName, Digest)>, reason: String) {
        let index = hanging.as_ref().map_or(Some(0), |(model, _)| self.servers.index_of(model));
        let ready = hanging.as_ref().and_then(|(model, _)| self.ready_server(model));
        let ready = ready.filter(|ready| ready.extensions.idunno);
        let (Some((model, version)), Some(ready)) = (hanging, ready) else {
            return self.restart_server(index, reason);
        };
        self.runner_down(&model, &version, reason.clone());
        let (failed_model, failed_reason) = (model.clone(), reason.clone());
        let if_panicked =
            Event::RunnerEnded { model: failed_model, version, reason: failed_reason, ended: false };
        self.spawn(if_panicked, async move {
            let ended = ready.server.restart_version(&model, &version, &reason).await.unwrap_or(false);
            Event::RunnerEnded { model, version, reason, ended }
        });
    }

    fn restart_server(&mut self, index: Option<usize>, reason: String) {
        // They would run on the hanging server.
        self.give_back_unstarted(index, &reason);
        let server = index.and_then(|index| self.servers.at(index));
        if server.is_some_and(|server| server.restart.try_send(reason).is_err()) {
            debug!("a restart is already requested");
        }
    }

    fn failures_reported(&mut self, lease: &Lease) {
        self.lease_tasks.remove(lease);
        if let Some(result) = self.reporting_failures.remove(lease) {
            self.keep_rows(result);
        }
    }

    fn keep_rows(&mut self, result: BatchResult) {
        let lease = result.outcome.lease;
        if result.outcome.answered.is_empty() {
            // Nothing to commit: the lease ends with the report of its failures.
            self.leases.end([lease]);
        } else if self.leases.set(&lease, LeasePhase::Uncommitted) {
            self.segments.add(result.outcome, result.rows, Instant::now());
        }
    }

    fn committed(&mut self, leases: Vec<Lease>, result: Result<(), RequestError>) {
        if let Err(error) = result {
            // Leases are given back by no longer being reported.
            warn!(%error, leases = leases.len(), "cannot commit a segment, giving its batches back");
        }
        self.leases.end(leases);
    }

    fn load(&mut self, artefact: ModelArtefact) {
        let model = artefact.model.clone();
        let Some(status) = self.servers.status_of(&model) else { return };
        let epoch = status.epoch;
        let are_several = self.servers.are_several();
        let Some(Server { models, .. }) = self.servers.of_mut(&model) else { return };
        models.restart(epoch);
        let Some(ready) = status.server else {
            // The state of the worker does not say so if another server is ready.
            if let ServerState::Down(reason) = status.state
                && are_several
                && models.start_load(&model, &artefact.version, Instant::now())
            {
                models.load_failed(epoch, &model, reason, Instant::now());
            }
            return;
        };
        if !models.start_load(&model, &artefact.version, Instant::now()) {
            return;
        }
        info!(%model, version = %artefact.version, "loading a model");
        let if_panicked = Event::Loaded { epoch, model: model.clone(), result: Err(LoadError::Internal) };
        let requests = self.requests.clone();
        self.spawn(if_panicked, async move {
            let result = requests.load(ready, artefact).await;
            Event::Loaded { epoch, model, result }
        });
    }

    fn unload(&mut self, model: ModelName, version: Digest) {
        let Some(status) = self.servers.status_of(&model) else { return };
        let epoch = status.epoch;
        let Some(Server { models, .. }) = self.servers.of_mut(&model) else { return };
        models.restart(epoch);
        if !models.start_unload(&model, &version) {
            return;
        }
        info!(%model, %version, "unloading a model");
        let if_panicked = Event::Unloaded { epoch, model: model.clone() };
        let requests = self.requests.clone();
        self.spawn(if_panicked, async move {
            requests.unload(status.server, &model, version).await;
            Event::Unloaded { epoch, model }
        });
    }

    fn train(&mut self, report: u64, assignment: TrainingAssignment) {
        let TrainingAssignment { model, training, package } = assignment;
        let Some(ready) = self.ready_server(&model) else { return };
        let Some(Server { models, .. }) = self.servers.of_mut(&model) else { return };
        if !models.start_training(&model, report, Instant::now()) {
            return;
        }
        info!(%model, %training, "training a model");
        let interrupted = Some(TASK_PANICKED.to_owned());
        let if_panicked = Event::Trained { model: model.clone(), interrupted };
        let (progress, receiver) = watch::channel(TrainingProgress::default());
        let stop = CancellationToken::new();
        let version = package.as_ref().map(|package| package.version);
        let running = RunningTraining { progress: receiver, stop: stop.clone(), package: version };
        self.trainings.insert(model.clone(), running);
        let requests = self.requests.clone();
        let control = TrainingControl { progress, stop };
        let folder = TrainingFolder::new(&self.config.model_files, &model);
        let order = TrainingOrder { model: model.clone(), training, package, folder };
        self.spawn(if_panicked, async move {
            let trained = requests.train(ready, order, control).await;
            let interrupted = trained.err();
            Event::Trained { model, interrupted: interrupted.map(|error| error.to_string()) }
        });
    }
}
