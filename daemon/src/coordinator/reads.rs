//! Requests that the coordinator answers from the metadata and the term's state.

use std::sync::Arc;

use idunno_core::access::Asker;
use idunno_core::metadata::{State, VersionRecord};
use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::names::FileName;
use idunno_shared::wire::blobs::Holder;
use idunno_shared::wire::control::{
    AssignmentView, ControlReply, ControlRequest, FileSummary, FileVersion, FolderEntry,
    ITEMS_PER_REQUEST_MAX, JobView, LEASES_SHOWN_MAX, ModelView, SegmentView,
};
use idunno_shared::wire::refusal::Refusal;

use super::file_order::{self, SortedPage, Wanted};
use super::grants::placed;
use super::scheduling::SchedulerView;
use super::{LeaderTerm, folders, job_pages, views};
use crate::membership::MembershipView;

impl LeaderTerm {
    /// Serves a control request for the coordinator. Requests answered by a stream, those that need a turn, and those about
    /// one member are served elsewhere.
    pub async fn control(&self, request: ControlRequest, asker: Asker<'_>) -> Result<ControlReply, Refusal> {
        match request {
            ControlRequest::Coordinator => self.coordinator(),
            ControlRequest::Plan { upload, blobs, exclude } => {
                self.plan(asker, upload, &blobs, &exclude).await
            }
            ControlRequest::EndUpload(upload) => {
                self.uploads.end_as(asker.confined_to(), upload).await;
                Ok(ControlReply::Done)
            }
            ControlRequest::Change { op, change } => self.change(asker, op, change).await,
            ControlRequest::List { prefix, after, limit } => {
                let (files, more) = self.barrier().await?.list(&prefix, after.as_ref(), limit);
                Ok(ControlReply::Files { files: self.reachable(files), more })
            }
            ControlRequest::Stored { member, after, limit } => {
                let view = self.deps.membership.current();
                if !view.members.contains_key(&member) {
                    return Err(Refusal::not_found(format!(
                        "no member {member}: list_mem lists the members"
                    )));
                }
                let page = self.barrier().await?.stored(member, after.as_ref(), limit);
                Ok(ControlReply::Stored { files: self.reachable(page.files), next: page.next })
            }
            ControlRequest::Locate { names, version } => self.locate(&names, version).await,
            ControlRequest::Versions { name, limit } => {
                let (state, view) = (self.barrier().await?, self.deps.membership.current());
                let versions = state.versions(&name, limit)?;
                let versions =
                    versions.into_iter().map(|version| file_version(&state, &view, &name, version));
                Ok(ControlReply::Versions(versions.collect()))
            }
            ControlRequest::Jobs(job) => self.job_views(job).await.map(ControlReply::Jobs),
            ControlRequest::JobPage { after, limit } => {
                let (state, scheduler) = (self.barrier().await?, self.scheduler.view().await?);
                let (jobs, more) = job_pages::page(&state, &scheduler, self.time.now_ms(), after, limit);
                Ok(ControlReply::JobPage { jobs, more })
            }
            ControlRequest::Assignments(job) => {
                self.assignment_views(job).await.map(ControlReply::Assignments)
            }
            ControlRequest::Leases { job, worker } => self.lease_views(job, worker).await,
            ControlRequest::Models => self.model_views().await.map(ControlReply::Models),
            ControlRequest::Results { job, skip, limit } => self.results(job, skip, limit).await,
            ControlRequest::DeadLetters { job, from, limit } => {
                let (dead_letters, more) = self.barrier().await?.dead_letters(job, from, limit)?;
                Ok(ControlReply::DeadLetters { dead_letters, more })
            }
            ControlRequest::Folder { prefix, after, limit } => {
                let state = self.barrier().await?;
                let (mut entries, more) = folders::level(&state, &prefix, after.as_ref(), limit);
                for entry in &mut entries {
                    if let FolderEntry::File(file) = entry {
                        self.keep_reachable(&mut file.holders);
                    }
                }
                Ok(ControlReply::Folder { entries, more })
            }
            ControlRequest::Identities { after, limit, ending } => {
                let (state, after) = (self.barrier().await?, after.as_ref());
                let (identities, more) = match ending {
                    None => state.identities(after, limit),
                    Some(period) => state.identities_ending(period, after, limit),
                };
                Ok(ControlReply::Identities { identities, more })
            }
            ControlRequest::NoteIdentity(issued) => self.note_identity(issued).await,
            ControlRequest::Members
            | ControlRequest::Identity
            | ControlRequest::Join
            | ControlRequest::Leave
            | ControlRequest::Log { .. }
            | ControlRequest::SearchLog(_)
            | ControlRequest::Backup
            | ControlRequest::SortedFiles { .. }
            | ControlRequest::Watch => {
                Err(Refusal::internal("a request that is served elsewhere reached the coordinator"))
            }
        }
    }

    /// A page of a sorted list of files, made on a thread of its own, which keeps the turn: it goes on if nobody waits any
    /// more.
    pub async fn sorted_files(
        &self,
        wanted: Wanted,
        turn: impl Send + 'static,
    ) -> Result<ControlReply, Refusal> {
        let (state, view) = (self.barrier().await?, self.deps.membership.current());
        let sorting = move || {
            let page = file_order::page(&state, &wanted, |holder| view.is_live(holder));
            drop(turn);
            page
        };
        let sorted = tokio::task::spawn_blocking(sorting).await;
        let SortedPage { first, total, entries } =
            sorted.map_err(|error| Refusal::internal(format!("cannot sort the files: {error}")))?;
        Ok(ControlReply::SortedFiles { first, total, entries })
    }

    fn reachable(&self, mut files: Vec<FileSummary>) -> Vec<FileSummary> {
        files.iter_mut().for_each(|file| self.keep_reachable(&mut file.holders));
        files
    }

    /// Keeps the holders that are up: others have no copy to give, and those of a lost cluster, whose members have new ids
    /// since its recovery, never will.
    fn keep_reachable(&self, holders: &mut Vec<NodeId>) {
        let view = self.deps.membership.current();
        holders.retain(|&holder| view.is_live(holder));
    }

    fn coordinator(&self) -> Result<ControlReply, Refusal> {
        self.may_decide()?;
        let address = self.deps.membership.current().address(self.deps.me);
        let address = address.ok_or_else(|| self.not_coordinator())?;
        let coordinator = Holder { node: self.deps.me, address };
        Ok(ControlReply::Coordinator { coordinator, term: self.term })
    }

    async fn locate(&self, names: &[FileName], version: Option<u64>) -> Result<ControlReply, Refusal> {
        if names.len() > ITEMS_PER_REQUEST_MAX {
            return Err(Refusal::invalid(format!(
                "the request has {} names; at most {ITEMS_PER_REQUEST_MAX} are allowed",
                names.len()
            )));
        }
        let (state, view) = (self.barrier().await?, self.deps.membership.current());
        let located = names.iter().map(|name| {
            let version = state.locate(name, version)?;
            Some(file_version(&state, &view, name, version))
        });
        Ok(ControlReply::Located(located.collect()))
    }

    async fn results(&self, job: JobId, skip: u64, limit: u32) -> Result<ControlReply, Refusal> {
        let (state, view) = (self.barrier().await?, self.deps.membership.current());
        let scheduler = self.scheduler.view().await?;
        let (segments, more) = state.segments(job, skip, limit)?;
        let segments = segments.into_iter().map(|segment| SegmentView {
            segment: placed(&state, &view, segment.blob),
            ranges: segment.ranges.clone(),
        });
        let job = job_pages::job(state.job_or_refusal(job)?, &scheduler, self.time.now_ms());
        Ok(ControlReply::Results { segments: segments.collect(), more, job })
    }

    async fn job_views(&self, job: Option<JobId>) -> Result<Vec<JobView>, Refusal> {
        let (state, scheduler) = (self.barrier().await?, self.scheduler.view().await?);
        if let Some(job) = job {
            return Ok(vec![job_pages::job(state.job_or_refusal(job)?, &scheduler, self.time.now_ms())]);
        }
        match job_pages::page(&state, &scheduler, self.time.now_ms(), None, u32::MAX) {
            (jobs, false) => Ok(jobs),
            (_, true) => {
                Err(Refusal::invalid("there are too many jobs for one answer: ask for pages of them"))
            }
        }
    }

    async fn assignment_views(&self, job: Option<JobId>) -> Result<Vec<AssignmentView>, Refusal> {
        let (state, scheduler) = (self.barrier().await?, self.scheduler.view().await?);
        if let Some(job) = job {
            state.job_or_refusal(job)?;
        }
        let mut rows = views::assignments(&self.deps.membership.current(), &scheduler);
        if let Some(job) = job {
            rows.retain(|row| {
                let mut shares = row.shares.iter().chain(&row.target_shares);
                row.current.contains(&job) || shares.any(|&(other, _)| other == job)
            });
        }
        Ok(rows)
    }

    async fn lease_views(&self, job: Option<JobId>, worker: Option<NodeId>) -> Result<ControlReply, Refusal> {
        let (state, scheduler) = (self.barrier().await?, self.scheduler.view().await?);
        if let Some(job) = job {
            state.job_or_refusal(job)?;
        }
        let rows = views::filtered(views::leases(&self.deps.membership.current(), &scheduler), job, worker);
        let (leases, more) = views::bounded(rows, LEASES_SHOWN_MAX);
        Ok(ControlReply::Leases { leases, more })
    }

    async fn model_views(&self) -> Result<Vec<ModelView>, Refusal> {
        let (state, scheduler) = (self.barrier().await?, self.scheduler.view().await?);
        Ok(views::models(&state, &scheduler))
    }

    pub(super) async fn scheduler_view(&self) -> Result<SchedulerView, Refusal> {
        self.scheduler.view().await
    }
}

fn file_version(
    state: &Arc<State>,
    view: &MembershipView,
    name: &FileName,
    version: &VersionRecord,
) -> FileVersion {
    FileVersion {
        name: name.clone(),
        version: version.number,
        size: version.size(),
        digest: version.digest(),
        created_ms: version.created_ms,
        extents: version.extents.iter().map(|&blob| placed(state, view, blob)).collect(),
        attributes: version.attributes().cloned().unwrap_or_default(),
    }
}
