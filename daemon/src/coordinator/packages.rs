//! `model add` and `train-start` of a package: has a member look at it first. What is no model would otherwise take the place
//! of a version that works, and what has no `train` would be trained without success.
//!
//! The member fetches the package, which it would have to load anyway, and its model server imports the code; the weights
//! are not loaded. This may take as long as the package is large, so it is work of the term that repeated requests join.

use std::time::Duration;

use idunno_core::metadata::{Action, Applied, AskedBy};
use idunno_shared::ids::{NodeId, OpId, UploadId};
use idunno_shared::names::ModelName;
use idunno_shared::wire::blobs::PlacedBlob;
use idunno_shared::wire::control::{Change, NewPackage};
use idunno_shared::wire::jobs::{ModelArtefact, ServerState, Training, WorkReply, WorkRequest};
use idunno_shared::wire::refusal::Refusal;
use tokio::time::interval;
use tracing::info;

use super::LeaderTerm;
use super::grants::model_artefact;
use super::long_work::WorkSubject;
use super::result_merge::while_live;

/// How long a worker may take to fetch and check a package.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1800);
/// Workers that are asked to check a package.
const WORKERS_ASKED_MAX: usize = 3;
/// A quarter of the time after which an idle upload is given up.
const KEEP_ALIVE_PERIOD: Duration = Duration::from_secs(10);

impl LeaderTerm {
    /// Adds a model once a member has found its package to be one.
    pub(super) async fn add_model(
        &self,
        op: OpId,
        by: Option<AskedBy>,
        (upload, model, package): (UploadId, ModelName, NewPackage),
    ) -> Result<Applied, Refusal> {
        let state = self.barrier().await?;
        let version = state.check_new_model(&model, &package)?;
        let this = self.this.upgrade().ok_or_else(|| self.not_coordinator())?;
        let subject = WorkSubject::Model(model.clone(), version);
        let add = move |_| async move {
            tokio::select! {
                checked = this.check_package(&model, &package) => checked?,
                refusal = this.keep_alive(upload) => return Err(refusal),
            }
            let change = Change::AddModel { upload, model, package, unchecked: false };
            this.propose_asked(op, by, Action::Change(change)).await
        };
        self.long_work.join(op, subject, add).await
    }

    /// Starts trainings of which some are of packages, once a member has found that these can be trained.
    pub(super) async fn train_packages(
        &self,
        op: OpId,
        by: Option<AskedBy>,
        (models, training): (Vec<ModelName>, Training),
    ) -> Result<Applied, Refusal> {
        let this = self.this.upgrade().ok_or_else(|| self.not_coordinator())?;
        let subject = WorkSubject::Training(models.clone(), training.clone());
        let start = move |_| async move {
            for model in &models {
                this.check_training(model, training.dataset.is_some()).await?;
            }
            this.propose_asked(op, by, Action::Change(Change::TrainStart { models, training })).await
        };
        self.long_work.join(op, subject, start).await
    }

    /// Refuses a package that cannot be trained, or not with or without a dataset.
    async fn check_training(&self, model: &ModelName, has_dataset: bool) -> Result<(), Refusal> {
        let state = self.state();
        let Some(artefact) = state.package(model) else { return Ok(()) };
        let package = model_artefact(&state, &self.deps.membership.current(), model, artefact);
        let request = WorkRequest::CheckTraining { package, has_dataset };
        let unchecked = |last: String| {
            Refusal::conflict(format!(
                "model '{model}' is not trained: no model server could check its package ({last}): try again later"
            ))
        };
        self.verdict_of_workers(model, &request, unchecked).await?.map_err(Refusal::invalid)
    }

    /// Keeps an upload until it is over all the same.
    async fn keep_alive(&self, upload: UploadId) -> Refusal {
        let mut ticks = interval(KEEP_ALIVE_PERIOD);
        loop {
            ticks.tick().await;
            if let Err(refusal) = self.uploads.touch(upload).await {
                return refusal;
            }
        }
    }

    async fn check_package(&self, model: &ModelName, package: &NewPackage) -> Result<(), Refusal> {
        let view = self.deps.membership.current();
        let placed = |(blob, holders): &(_, Vec<NodeId>)| PlacedBlob {
            blob: *blob,
            holders: holders.iter().filter_map(|&node| view.holder(node)).collect(),
        };
        let Some((manifest, _)) = package.extents.first() else { return Ok(()) };
        let artefact = ModelArtefact {
            model: model.clone(),
            version: manifest.digest,
            extents: package.extents.iter().map(placed).collect(),
            is_package: true,
        };
        let unchecked = |last: String| {
            Refusal::conflict(format!(
                "model '{model}' was not added: no model server could check its package ({last}): try again, or add it \
                 unchecked with --no-check"
            ))
        };
        let request = WorkRequest::CheckPackage(artefact);
        let verdict = self.verdict_of_workers(model, &request, unchecked).await?;
        verdict.map_err(|why| Refusal::invalid(format!("model '{model}' was not added: {why}")))
    }

    /// The verdict of the first worker that has one. `unchecked` makes a refusal of why the last one that was asked has none.
    async fn verdict_of_workers(
        &self,
        model: &ModelName,
        request: &WorkRequest,
        unchecked: impl FnOnce(String) -> Refusal,
    ) -> Result<Result<(), String>, Refusal> {
        let mut last = String::from("none is ready");
        for worker in self.ready_workers().await?.into_iter().take(WORKERS_ASKED_MAX) {
            info!(%model, %worker, "having a package checked");
            let asked = self.ask_worker(worker, request.clone(), CHECK_TIMEOUT);
            match while_live(self.deps.membership.view(), worker, asked).await {
                Some(Ok(WorkReply::Checked(verdict))) => return Ok(verdict),
                Some(Ok(WorkReply::ResultsMerged(_))) => last = String::from("unexpected reply"),
                Some(Err(error)) => last = error.to_string(),
                None => last = format!("{} is gone", self.deps.membership.current().name(worker)),
            }
        }
        Err(unchecked(last))
    }

    async fn ready_workers(&self) -> Result<Vec<NodeId>, Refusal> {
        let reports = self.scheduler.view().await?.reports;
        let ready = reports.into_values().filter(|report| report.server == ServerState::Ready);
        Ok(ready.map(|report| report.worker).collect())
    }
}
