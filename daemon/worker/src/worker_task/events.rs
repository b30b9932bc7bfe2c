//! What the worker does when an errand is back.

use std::time::Duration;

use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{
    BATCH_QUERIES_MAX, FaultKind, Grant, JobReply, LEASES_PER_WORKER_MAX, Lease, ModelArtefact, ReportReply,
    Training, TrainingProgress,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::super::batch::{self, Prepared, Ran};
use super::super::lease_table::Phase;
use super::super::models::MODELS_MAX;
use super::super::requests::Overseer;
use super::super::training_data::Folder;
use super::{Event, PAUSE_MAX, PAUSE_MIN, WorkerTask};

impl WorkerTask {
    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Reported { number, result } => self.reported(number, result),
            Event::Prepared(prepared) => self.prepared(*prepared),
            Event::Ran { model, ran } => self.ran(Some(&model), *ran),
            Event::FailuresNoted(lease) => self.failures_noted(&lease),
            Event::Committed { job, leases, result } => {
                self.committing.remove(&job);
                self.segments.answered(job);
                self.committed(leases, result);
            }
            Event::Loaded { epoch, model, result } => {
                match &result {
                    Ok(version) => info!(%model, %version, "a model is loaded"),
                    Err(reason) => warn!(%model, %reason, "a model cannot be loaded"),
                }
                self.models.loaded(epoch, &model, result, Instant::now());
            }
            Event::Trained { model, interrupted } => {
                info!(%model, ?interrupted, "a training is over");
                self.trainings.remove(&model);
                self.models.trained(&model, interrupted, self.reporting.number, Instant::now());
            }
        }
    }

    fn reported(&mut self, number: u64, result: Result<JobReply, String>) {
        let orders = match result {
            Ok(JobReply::Report(orders)) if self.leases.observe(orders.term) => Ok(orders),
            Ok(JobReply::Report(orders)) => Err(format!("orders of the older term {}", orders.term)),
            Ok(_) => Err("the coordinator answered a report with something else than orders".to_owned()),
            Err(reason) => Err(reason),
        };
        let brought = match orders {
            Ok(orders) => Ok(self.obey(number, orders)),
            Err(reason) => {
                debug!(%reason, "a report has brought no orders");
                Err(())
            }
        };
        self.reporting.answered(brought, Instant::now());
    }

    /// Carries orders out. Says whether they brought a batch.
    fn obey(&mut self, report: u64, orders: ReportReply) -> bool {
        let cancelled = self.leases.end(orders.cancelled);
        for lease in &cancelled {
            debug!(%lease, "a lease is cancelled");
        }
        self.forget(&cancelled);
        for model in &orders.stop_training {
            if let Some((_, stop)) = self.trainings.get(model) {
                info!(%model, "a training is stopped: nobody wants it any more");
                stop.cancel();
            }
        }
        if let Some(reason) = orders.restart {
            self.restart_server(reason);
        }
        if self.drain_until.is_some() {
            return false;
        }
        for artefact in orders.load.into_iter().take(MODELS_MAX) {
            self.load(artefact);
        }
        for (model, training) in orders.train.into_iter().take(MODELS_MAX) {
            self.train(report, model, training);
        }
        let mut brought = false;
        for grant in orders.grants.into_iter().take(LEASES_PER_WORKER_MAX) {
            brought |= self.accept(grant);
        }
        brought
    }

    fn accept(&mut self, grant: Grant) -> bool {
        let lease = grant.lease;
        let queries = lease.range.first..lease.range.end();
        let matches = grant.records.is_some() || queries.eq(grant.inputs.iter().map(|input| input.index));
        if lease.range.count == 0 || lease.range.count > BATCH_QUERIES_MAX || !matches {
            warn!(
                %lease,
                inputs = grant.inputs.len(),
                "a grant's inputs are not those of its lease, it is not run"
            );
            return false;
        }
        if !self.leases.accept(lease) {
            debug!(%lease, "there is no room for a granted batch");
            return false;
        }
        debug!(%lease, "a batch is begun");
        if self.models.version(&grant.model) != Some(grant.version) {
            let reason = format!("model {} version {} is not loaded here", grant.model, grant.version);
            let ran = Ran::all_failed(lease, FaultKind::Worker, &reason);
            self.ran(Some(&grant.model), ran);
            return true;
        }
        let if_lost = Ran::all_failed(lease, FaultKind::Worker, "internal fault");
        let if_lost = Event::Ran { model: grant.model.clone(), ran: Box::new(if_lost) };
        let (store, caches) = (self.requests.store.clone(), self.caches.clone());
        let chunk_bytes = self.config.chunk_bytes;
        let handle = self.spawn(if_lost, async move {
            Event::Prepared(Box::new(batch::prepare(&*store, &caches, grant, chunk_bytes).await))
        });
        self.at_work.insert(lease, handle);
        true
    }

    fn prepared(&mut self, prepared: Prepared) {
        let lease = prepared.grant.lease;
        self.at_work.remove(&lease);
        if self.leases.set(&lease, Phase::Waiting) {
            self.prepared.insert(lease, prepared);
        }
    }

    /// A batch has run, or failed before. `model` is what the model server was asked for, if it was.
    pub(super) fn ran(&mut self, model: Option<&ModelName>, mut ran: Ran) {
        let lease = ran.outcome.lease;
        self.at_work.remove(&lease);
        debug!(%lease, faults = ran.faults.len(), "a batch has run");
        let answered: u64 = ran.outcome.answered.iter().map(|range| u64::from(range.count)).sum();
        if let Some(model) = model.filter(|_| answered > 0 && ran.faults.is_empty()) {
            let inference = Duration::from_micros(ran.outcome.inference_us);
            self.paces.entry(model.clone()).or_default().record(inference, answered);
            self.pause = PAUSE_MIN;
        }
        if let Some(model) = model.filter(|_| ran.worker_fault) {
            self.worker_failed(model, &ran);
        }
        if !self.leases.set(&lease, Phase::Reporting) {
            return;
        }
        if ran.faults.is_empty() {
            return self.keep_rows(ran);
        }
        let (requests, faults) = (self.requests.clone(), std::mem::take(&mut ran.faults));
        self.reporting_failures.insert(lease, ran);
        let handle = self.spawn(Event::FailuresNoted(lease), async move {
            requests.report_failed(lease, faults).await;
            Event::FailuresNoted(lease)
        });
        self.at_work.insert(lease, handle);
    }

    /// The server did not serve: wait a moment, have the model loaded again, and a server that hangs restarted.
    fn worker_failed(&mut self, model: &ModelName, ran: &Ran) {
        let reason = ran.faults.first().map_or("", |fault| fault.reason.as_str());
        warn!(%model, %reason, pause = ?self.pause, "the model server does not serve");
        self.paused_until = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.models.lost(model);
        if ran.hung {
            self.restart_server(reason.to_owned());
        }
    }

    fn restart_server(&mut self, reason: String) {
        // It would run on the server that hangs.
        self.give_back_unstarted(&reason);
        if self.complain.try_send(reason).is_err() {
            debug!("the supervisor has been told already");
        }
    }

    fn failures_noted(&mut self, lease: &Lease) {
        self.at_work.remove(lease);
        if let Some(ran) = self.reporting_failures.remove(lease) {
            self.keep_rows(ran);
        }
    }

    fn keep_rows(&mut self, ran: Ran) {
        let lease = ran.outcome.lease;
        if ran.outcome.answered.is_empty() {
            // Nothing to commit: that its failures are known ends the lease.
            self.leases.end([lease]);
        } else if self.leases.set(&lease, Phase::Uncommitted) {
            self.segments.add(ran.outcome, ran.rows, Instant::now());
        }
    }

    fn committed(&mut self, leases: Vec<Lease>, result: Result<(), String>) {
        if let Err(reason) = result {
            // Refused for good: the leases go back by no longer being reported.
            warn!(%reason, leases = leases.len(), "the coordinator refuses a segment, its batches are given back");
        }
        self.leases.end(leases);
    }

    fn load(&mut self, artefact: ModelArtefact) {
        let status = self.status.borrow().clone();
        let Some((server, extensions)) = status.server else { return };
        let (epoch, model) = (status.epoch, artefact.model.clone());
        self.models.restart(epoch);
        if !self.models.start_load(&model, &artefact.version, Instant::now()) {
            return;
        }
        info!(%model, version = %artefact.version, "loading a model");
        let lost = Err("internal fault".to_owned());
        let if_lost = Event::Loaded { epoch, model: model.clone(), result: lost };
        let requests = self.requests.clone();
        self.spawn(if_lost, async move {
            let result = requests.load(server, extensions, artefact).await;
            Event::Loaded { epoch, model, result }
        });
    }

    fn train(&mut self, report: u64, model: ModelName, training: Training) {
        let Some(server) = self.status.borrow().server.clone() else { return };
        if !self.models.start_training(&model, report, Instant::now()) {
            return;
        }
        info!(%model, %training, "training a model");
        let interrupted = Some("internal fault".to_owned());
        let if_lost = Event::Trained { model: model.clone(), interrupted };
        let (progress, seen) = watch::channel(TrainingProgress::default());
        let stop = CancellationToken::new();
        self.trainings.insert(model.clone(), (seen, stop.clone()));
        let (requests, overseer) = (self.requests.clone(), Overseer { progress, stop });
        let folder = Folder::new(&self.config.data_dir, &model);
        self.spawn(if_lost, async move {
            let trained = requests.train(server, model.clone(), training, folder, overseer).await;
            let interrupted = trained.err();
            Event::Trained { model, interrupted: interrupted.map(|error| error.to_string()) }
        });
    }
}
