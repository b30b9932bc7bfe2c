//! Changes requested by clients and workers: checked against the uploads, put into the log, passed on to the scheduler.

use std::sync::Arc;

use idunno_core::access::{Asker, need_of_change};
use idunno_core::metadata::{Action, Applied, AskedBy};
use idunno_core::placement;
use idunno_shared::access::{Grant, Issued, Role};
use idunno_shared::ids::{NodeId, OpId, UploadId};
use idunno_shared::names::ModelName;
use idunno_shared::wire::blobs::{BlobRef, COPIES, EXTENT_BYTES_MAX};
use idunno_shared::wire::control::{Chain, Change, Changed, ControlReply, ITEMS_PER_REQUEST_MAX};
use idunno_shared::wire::jobs::{JobReply, JobRequest, METRIC_BYTES_MAX, METRICS_MAX};
use idunno_shared::wire::refusal::Refusal;
use tracing::debug;

use super::LeaderTerm;
use super::scheduling::Trained;
use crate::net::roles;

impl LeaderTerm {
    /// Plans which members are to hold new blobs.
    pub(super) async fn plan(
        &self,
        asker: Asker<'_>,
        upload: Option<UploadId>,
        blobs: &[BlobRef],
        exclude: &[NodeId],
    ) -> Result<ControlReply, Refusal> {
        self.may_decide()?;
        if blobs.len().max(exclude.len()) > ITEMS_PER_REQUEST_MAX {
            return Err(Refusal::invalid(format!(
                "the plan has {} blobs; at most {ITEMS_PER_REQUEST_MAX} are allowed",
                blobs.len()
            )));
        }
        if let Some(blob) = blobs.iter().find(|blob| blob.size > EXTENT_BYTES_MAX) {
            return Err(Refusal::invalid(format!(
                "a blob has {} bytes; at most {EXTENT_BYTES_MAX} are allowed",
                blob.size
            )));
        }
        let is_new = upload.is_none();
        let upload = self.uploads.use_as(asker.confined_to(), upload).await?;
        if is_new {
            debug!(%upload, "opened an upload");
        }
        let view = self.deps.membership.current();
        let mut candidates = self.repairs.borrow().candidates.clone();
        // Repair's list may be slightly outdated: leave out members that died since.
        candidates.retain(|candidate| view.holder(candidate.node).is_some());
        let chain = |blob: &BlobRef| {
            let mut roomy = candidates.clone();
            roomy.retain(|candidate| candidate.free_bytes > blob.size);
            let chosen = placement::choose(&blob.digest, &roomy, exclude, COPIES);
            Chain(chosen.into_iter().filter_map(|node| view.holder(node)).collect())
        };
        let chains = blobs.iter().map(chain).collect();
        let copies = u32::try_from(candidates.len().min(COPIES)).unwrap_or(0);
        Ok(ControlReply::Planned { upload, chains, copies })
    }

    /// Makes a change, once.
    pub(super) async fn change(
        &self,
        asker: Asker<'_>,
        op: OpId,
        change: Change,
    ) -> Result<ControlReply, Refusal> {
        let concerns_jobs = !matches!(
            change,
            Change::CommitFiles { .. }
                | Change::CommitFile { .. }
                | Change::Delete { .. }
                | Change::DeleteFiles { .. }
                | Change::CopyFiles { .. }
        );
        let op = asker.grant.map_or(op, |grant| op.asked_by(grant.name.as_str()));
        // A change that was made already is only answered again, even if its upload or its job has ended since.
        let made = self.state().outcome(op).cloned();
        let applied = match made {
            Some(applied) => applied,
            None => self.make(asker, op, change).await?,
        };
        if concerns_jobs {
            self.scheduler.refresh().await;
        }
        match applied {
            Applied::Changed(changed) => Ok(ControlReply::Changed(changed)),
            Applied::Committed { .. } | Applied::Done => Ok(ControlReply::Changed(Changed::Done)),
        }
    }

    /// Makes a change that was not made yet, as far as the log is applied here.
    async fn make(&self, asker: Asker<'_>, op: OpId, change: Change) -> Result<Applied, Refusal> {
        roles::check(asker, need_of_change(&change), Some(&self.state()))?;
        if let Change::CommitFiles { upload, .. }
        | Change::CommitFile { upload, .. }
        | Change::AddModel { upload, .. } = &change
        {
            self.uploads.use_as(asker.confined_to(), Some(*upload)).await?;
        }
        if let Change::TrainStart { models, .. } = &change {
            self.check_trainable(models).await?;
        }
        if let Change::SetWebhook { url: Some(url), .. } = &change {
            self.check_webhook(url)?;
        }
        let by = asker.grant.map(|grant| self.asked_by(grant, asker.role, &change));
        match change {
            Change::StartJob { job, options } => self.start_job(op, by, job, options).await,
            Change::AddModel { upload, model, package, unchecked: false } => {
                self.add_model(op, by, (upload, model, package)).await
            }
            Change::TrainStart { models, training } if self.any_package(&models) => {
                self.train_packages(op, by, (models, training)).await
            }
            change => self.propose_asked(op, by, Action::Change(change)).await,
        }
    }

    fn any_package(&self, models: &[ModelName]) -> bool {
        let state = self.state();
        models.iter().any(|model| state.package(model).is_some())
    }

    /// Who asked, and what this coordinator knows of the holders of what is committed: the log does not know who is up.
    fn asked_by(&self, grant: &Grant, role: Role, change: &Change) -> AskedBy {
        let gone = if role < Role::Operator {
            let view = self.deps.membership.current();
            self.state().gone_holders(change, |node| view.is_live(node))
        } else {
            Vec::new()
        };
        AskedBy { name: grant.name.clone(), role, gone }
    }

    /// Notes an identity with which somebody has connected.
    pub(super) async fn note_identity(&self, issued: Issued) -> Result<ControlReply, Refusal> {
        if !self.state().has_seen(&issued) {
            self.propose(None, Action::NoteIdentity(issued)).await?;
        }
        Ok(ControlReply::Done)
    }

    /// Refuses models that no worker offers: once in the log they would stay there and fail forever.
    async fn check_trainable(&self, models: &[ModelName]) -> Result<(), Refusal> {
        let reports = self.scheduler.view().await?.reports;
        if reports.values().any(|report| report.offers.is_none()) {
            // That worker cannot list its models; training one that it does not have fails there.
            return Ok(());
        }
        let offered =
            reports.values().filter_map(|report| report.offers.as_ref()).flatten().cloned().collect();
        let state = self.state();
        models.iter().try_for_each(|model| state.check_model(model, &offered))
    }

    /// Answers a worker's request.
    pub async fn jobs(self: Arc<Self>, request: JobRequest) -> Result<JobReply, Refusal> {
        match request {
            JobRequest::Report(report) => self.scheduler.report(report).await.map(JobReply::Report),
            JobRequest::Commit(commit) => {
                self.uploads.touch(commit.upload).await?;
                let reply = self.scheduler.commit(commit.clone()).await?;
                self.uploads.end(commit.upload).await;
                if let JobReply::Committed { accepted, .. } = reply {
                    self.rates.answered(commit.job, commit.worker, accepted).await;
                }
                Ok(reply)
            }
            JobRequest::Failed { worker, lease, faults } => {
                self.scheduler.failed(worker, lease, faults).await.map(|()| JobReply::Noted)
            }
            JobRequest::Trained { worker, model, training, result, metrics, report, package } => {
                if let Ok((upload, _)) = &result {
                    self.uploads.touch(*upload).await?;
                }
                let upload = result.as_ref().ok().map(|(upload, _)| *upload);
                let metrics = checked(metrics);
                let result = result.map(|(upload, artefact)| Trained {
                    upload,
                    artefact,
                    training,
                    metrics,
                    report,
                    package,
                });
                self.scheduler.trained(worker, model, result).await?;
                if let Some(upload) = upload {
                    self.uploads.end(upload).await;
                }
                Ok(JobReply::Noted)
            }
        }
    }
}

/// A training's metrics, cut to the bounds of what is kept.
fn checked(mut metrics: Vec<(String, String)>) -> Vec<(String, String)> {
    metrics.retain(|(name, value)| name.len().max(value.len()) <= METRIC_BYTES_MAX);
    metrics.truncate(METRICS_MAX);
    metrics
}
