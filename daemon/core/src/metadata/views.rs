//! What clients and members read of the metadata. The shell adds addresses, liveness and leases.
//!
//! Lists end at the requested limit, at most [`ITEMS_PER_REQUEST_MAX`], and say whether more follows.

use std::collections::BTreeSet;

use idunno_shared::folders;
use idunno_shared::ids::{JobId, NodeId, OpId};
use idunno_shared::names::FileName;
use idunno_shared::wire::blobs::BlobRef;
use idunno_shared::wire::control::{
    DeadLetter, ETAG, FileSummary, ITEMS_PER_REQUEST_MAX, JobDetails, JobState, JobView, ModelView,
};
use idunno_shared::wire::refusal::Refusal;

use super::{Applied, FileRecord, JobRecord, Segment, State, VersionRecord};

/// Seconds over which the shown rate is measured; the time to the end is estimated from it.
const RATE_SHOWN_S: u64 = 10;

fn capped(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX).min(ITEMS_PER_REQUEST_MAX)
}

/// Most files that a page of [`State::stored`] looks at.
pub const STORED_VISITED_MAX: usize = 16_384;

/// A page of the files that a member holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredPage {
    /// In name order.
    pub files: Vec<FileSummary>,
    /// The name after which the next page begins; `None` after the last file.
    pub next: Option<FileName>,
    /// Files looked at.
    pub visited: usize,
}

/// At most `limit` items, and whether more follow.
fn page<T>(items: impl Iterator<Item = T>, limit: u32) -> (Vec<T>, bool) {
    let limit = capped(limit);
    let mut items = items;
    let page: Vec<T> = items.by_ref().take(limit).collect();
    (page, items.next().is_some())
}

impl JobRecord {
    /// The job as shown at `now_ms`. `leased` comes from the scheduler; the shell adds the current batch size.
    pub fn view(&self, leased: u64, now_ms: u64) -> JobView {
        let (done, dead) = (self.done.len(), self.dead.len());
        let running_s = self.running_ms(now_ms) as f64 / 1000.0;
        let rate_10s_qps = self.statistics.rate_qps(RATE_SHOWN_S, now_ms);
        let left = self.submitted.saturating_sub(done + dead) as f64;
        let running = self.state == JobState::Running && rate_10s_qps > 0.0;
        JobView {
            id: self.id,
            model: self.model.clone(),
            version: self.artefact.as_ref().map(|artefact| artefact.version),
            dataset: self.dataset.clone(),
            batch_size: self.batch_size,
            state: self.state.clone(),
            submitted: self.submitted,
            done,
            dead,
            leased,
            rate_10s_qps,
            rate_qps: if running_s > 0.0 { done as f64 / running_s } else { 0.0 },
            running_s,
            processing_ms: self.statistics.processing_ms(),
            eta_s: running.then(|| left / rate_10s_qps),
            labelled: self.statistics.labelled,
            correct: self.statistics.correct,
            duplicates_dropped: self.statistics.duplicates,
            local_share: self.statistics.local_share(),
            batch_now: 0,
            details: self.details(),
            tokens: self.statistics.tokens,
        }
    }

    fn details(&self) -> JobDetails {
        let results = super::results_file(self.id).ok().filter(|_| self.filed);
        JobDetails {
            name: self.name.clone(),
            weight: self.weight,
            parameters: (*self.parameters).clone(),
            created_ms: self.created_ms,
            started_ms: self.started_ms,
            finished_ms: self.finished_ms,
            results,
            dropped: self.dead.len() - self.dead.intersection(&self.held).len(),
            owner: self.owner.clone(),
            records: self.records.as_ref().map(|records| Box::new(records.format.clone())),
            webhook: self.terms.webhook.as_ref().map(|webhook| Box::new(webhook.into())),
            reuse: self.terms.start.reuse,
        }
    }
}

impl State {
    /// The outcome of an operation, if it was applied recently.
    pub fn outcome(&self, op: OpId) -> Option<&Applied> {
        self.operations.outcome(op)
    }

    /// `ls`: the files that start with `prefix` and follow `after`, and whether more follow. What gateways keep is listed by
    /// its own prefix only.
    pub fn list(&self, prefix: &str, after: Option<&FileName>, limit: u32) -> (Vec<FileSummary>, bool) {
        let is_listed =
            |name: &FileName| prefix.starts_with(folders::S3) || !name.as_str().starts_with(folders::S3);
        let files = self.files(prefix, after).filter(|(name, _)| is_listed(name));
        let summaries = files.filter_map(|(name, file)| self.summary(name, file));
        page(summaries, limit)
    }

    /// `store`: files after `after` whose newest version has an extent at `member`. Looks at [`STORED_VISITED_MAX`] files
    /// at most: an index of each member's files would take as much memory as the files, for a rare question.
    pub fn stored(&self, member: NodeId, after: Option<&FileName>, limit: u32) -> StoredPage {
        let limit = capped(limit).max(1);
        let mut page = StoredPage::default();
        for (name, file) in self.files("", after) {
            if page.files.len() == limit || page.visited == STORED_VISITED_MAX {
                return page;
            }
            page.visited += 1;
            page.next = Some(FileName::clone(name));
            let newest = file.version(None);
            if newest.is_some_and(|newest| self.holds_any(member, &newest.extents)) {
                page.files.extend(self.summary(name, file));
            }
        }
        StoredPage { next: None, ..page }
    }

    fn holds_any(&self, member: NodeId, extents: &[BlobRef]) -> bool {
        extents.iter().any(|blob| self.holders(&blob.digest).contains(&member))
    }

    /// A file as lists show it.
    pub fn summary(&self, name: &FileName, file: &FileRecord) -> Option<FileSummary> {
        let newest = file.version(None)?;
        Some(FileSummary {
            name: name.clone(),
            version: newest.number,
            versions: u32::try_from(file.versions.len()).unwrap_or(u32::MAX),
            size: newest.size(),
            digest: newest.digest(),
            created_ms: newest.created_ms,
            holders: self.holders_of_all(&newest.extents),
            etag: newest.attributes().and_then(|attributes| attributes.get(ETAG)).cloned(),
        })
    }

    /// The members that hold all of these extents, in id order.
    pub fn holders_of_all(&self, extents: &[BlobRef]) -> Vec<NodeId> {
        let mut extents = extents.iter();
        let Some(first) = extents.next() else { return Vec::new() };
        let mut common: BTreeSet<NodeId> = self.holders(&first.digest).iter().copied().collect();
        for blob in extents {
            let holders = self.holders(&blob.digest);
            common.retain(|node| holders.contains(node));
        }
        common.into_iter().collect()
    }

    /// A version of a file, the newest if none is named.
    pub fn locate(&self, name: &FileName, version: Option<u64>) -> Option<&VersionRecord> {
        self.file(name)?.version(version)
    }

    /// `get-versions`: the newest `limit` versions, newest first.
    pub fn versions(&self, name: &FileName, limit: u32) -> Result<Vec<&VersionRecord>, Refusal> {
        let file = self.file(name);
        let file =
            file.ok_or_else(|| Refusal::not_found(format!("there is no file '{name}': ls lists the files")))?;
        Ok(file.versions().take(capped(limit)).collect())
    }

    /// `get-job-results`: a job's segments in order of commit, without the first `skip`, and whether more follow.
    pub fn segments(&self, job: JobId, skip: u64, limit: u32) -> Result<(Vec<&Segment>, bool), Refusal> {
        let job = self.job_or_refusal(job)?;
        let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(job.segments.len());
        let (limit, rest) = (capped(limit), job.segments.len() - skip);
        // By index: an iterator would visit all that is skipped.
        let page = (skip..skip + limit.min(rest)).filter_map(|index| job.segments.get(index));
        Ok((page.map(|segment| &**segment).collect(), rest > limit))
    }

    /// The dead letters of a job from query `from` on, and whether more follow.
    pub fn dead_letters(
        &self,
        job: JobId,
        from: u64,
        limit: u32,
    ) -> Result<(Vec<DeadLetter>, bool), Refusal> {
        let job = self.job_or_refusal(job)?;
        let dead_letters = job.dead_letters.range(from..).filter_map(|(index, dead_letter)| {
            Some(DeadLetter {
                index: *index,
                name: self.input_name(job, *index)?,
                reason: dead_letter.reason.clone(),
                worker: dead_letter.worker,
                attempts: dead_letter.attempts,
                dropped: !job.held.contains(*index),
                identity: dead_letter.identity.clone(),
            })
        });
        Ok(page(dead_letters, limit))
    }

    /// The known and the predefined models. The shell adds their state at each worker.
    pub fn model_views(&self) -> Vec<ModelView> {
        let predefined = super::PREDEFINED_MODELS.iter().filter_map(|name| name.parse().ok());
        let names: BTreeSet<_> = predefined.chain(self.models.keys().cloned()).collect();
        let view = |name| {
            let model = self.model(&name).cloned().unwrap_or_default();
            ModelView {
                version: model.artefact.as_ref().map(|artefact| artefact.version),
                package: model.artefact.as_ref().and_then(|artefact| artefact.package.clone()),
                metrics: model.artefact.map(|artefact| artefact.metrics.clone()).unwrap_or_default(),
                progress: Vec::new(),
                training: model.training.is_some(),
                failure: model.failure,
                workers: Vec::new(),
                model: name,
            }
        };
        names.into_iter().map(view).collect()
    }
}
