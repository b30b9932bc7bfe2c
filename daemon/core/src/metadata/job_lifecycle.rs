//! How jobs end (done, cancelled, deleted), and how long their dead letters and inputs are kept.
//!
//! A dead query can be retried while its inputs are held. Once they are released it is dropped: it only remains as a
//! failure in the results.

use std::sync::Arc;

use idunno_shared::folders;
use idunno_shared::ids::JobId;
use idunno_shared::names::FileName;
use idunno_shared::wire::control::{Changed, ITEMS_PER_REQUEST_MAX, JobState};
use idunno_shared::wire::refusal::Refusal;

use super::files::Content;
use super::{Applied, JobRecord, MergedRows, State};
use crate::ranges::RangeSet;

/// The file that a finished job's results become a version of.
pub fn results_file(id: JobId) -> Result<FileName, Refusal> {
    format!("{}/{id}.jsonl", folders::RESULTS)
        .parse()
        .map_err(|error| Refusal::internal(format!("{id}: {error}")))
}

impl JobRecord {
    /// The dead queries to retry or drop: those named, or all if none is named. Refused if any of them cannot be retried.
    fn retriable(&self, queries: &[u64]) -> Result<RangeSet, Refusal> {
        let id = self.id;
        let open = self.dead.intersection(&self.held);
        if queries.is_empty() {
            if open.is_empty() {
                return Err(Refusal::conflict(format!("{id} has no dead letters to retry or drop")));
            }
            return Ok(open);
        }
        if queries.len() > ITEMS_PER_REQUEST_MAX {
            let message =
                format!("{} queries in one request; {ITEMS_PER_REQUEST_MAX} are allowed", queries.len());
            return Err(Refusal::invalid(message));
        }
        if let Some(query) = queries.iter().find(|query| !open.contains(**query)) {
            let message = format!(
                "query {query} of {id} is not a dead letter that can be retried: dead-letters list shows them"
            );
            return Err(Refusal::not_found(message));
        }
        Ok(queries.iter().map(|query| *query..query + 1).collect())
    }
}

impl State {
    pub(super) fn retry_dead_letters(&mut self, id: JobId, queries: &[u64]) -> Result<Changed, Refusal> {
        let mut job = (**self.job_or_refusal(id)?).clone();
        let retried = job.retriable(queries)?;
        for query in retried.numbers() {
            job.dead_letters.remove(&query);
        }
        job.dead.subtract(&retried);
        if job.state == JobState::Done {
            job.run(self.now_ms);
        }
        self.set_job(job);
        Ok(Changed::Retried { queries: retried.len() })
    }

    pub(super) fn drop_dead_letters(&mut self, id: JobId, queries: &[u64]) -> Result<Changed, Refusal> {
        let mut job = (**self.job_or_refusal(id)?).clone();
        let dropped = job.retriable(queries)?;
        let mut kept = job.held.clone();
        kept.subtract(&dropped);
        self.hold_only(&mut job, &kept);
        self.set_job(job);
        Ok(Changed::Dropped { queries: dropped.len() })
    }

    pub(super) fn cancel_job(&mut self, id: JobId) -> Result<Changed, Refusal> {
        let mut job = (**self.job_or_refusal(id)?).clone();
        if job.state.is_over() {
            let state = if job.state == JobState::Done { "done" } else { "cancelled" };
            return Err(Refusal::conflict(format!("{id} is already {state}")));
        }
        job.halt(JobState::Cancelled, self.now_ms);
        job.finished_ms = Some(self.now_ms);
        self.hold_only(&mut job, &RangeSet::new());
        self.set_job(job);
        self.pause_followers(id, "is cancelled");
        Ok(Changed::Done)
    }

    pub(super) fn delete_job(&mut self, id: JobId) -> Result<Changed, Refusal> {
        let mut job = (**self.job_or_refusal(id)?).clone();
        if job.state == JobState::Running {
            let message = format!("{id} is running: stop it with stop-job or cancel-job first");
            return Err(Refusal::conflict(message));
        }
        let file = results_file(id)?;
        self.hold_only(&mut job, &RangeSet::new());
        self.fold(job.segments);
        self.jobs.remove(&id);
        self.unsettled.remove(&id);
        self.untold.remove(&id);
        self.pause_followers(id, "is deleted");
        // Job numbers are not reused, so a file of this name is this job's. There may be none.
        if job.started_ms.is_some() && self.files.contains_key(file.as_str()) {
            self.delete(&file)?;
        }
        Ok(Changed::Done)
    }

    /// Stores a job after decisions on its queries. Once all are decided the job is done and holds only the inputs of its
    /// dead queries. Returns whether all are decided.
    pub(super) fn settle(&mut self, mut job: JobRecord) -> bool {
        let id = job.id;
        let done = job.done.len() + job.dead.len() == job.submitted;
        let is_new = done && job.state != JobState::Done;
        if is_new {
            job.halt(JobState::Done, self.now_ms);
            job.finished_ms = Some(self.now_ms);
            let kept = job.held.intersection(&job.dead);
            self.hold_only(&mut job, &kept);
        }
        self.set_job(job);
        if is_new {
            self.run_followers(id);
        }
        done
    }

    /// Releases all inputs but those of the queries `kept`; with the last of them also records, labels, artefact and names. How
    /// records were read stays: it says which of their columns are in the rows.
    fn hold_only(&mut self, job: &mut JobRecord, kept: &RangeSet) {
        let mut released = job.held.clone();
        released.subtract(kept);
        if let Some(manifest) = &job.manifest {
            for (_, query) in released.iter().flat_map(|range| manifest.slice(range.start, range.end)) {
                self.release(&query.extents);
            }
        }
        let is_last = !job.held.is_empty() && kept.is_empty();
        job.held = kept.clone();
        if kept.is_empty() {
            self.unpin(job);
        }
        if is_last {
            self.release(job.records.as_deref().map_or(&[], |records| &records.extents));
            self.release(job.labels.as_deref().unwrap_or_default());
            self.release(job.artefact.as_deref().map_or(&[], |artefact| &artefact.extents));
        }
        if job.held.is_empty() && job.dead.is_empty() {
            job.manifest = None;
            job.records = job.records.take().map(|records| Arc::new(records.without_places()));
        }
    }

    pub(super) fn file_results(
        &mut self,
        id: JobId,
        finished_ms: u64,
        content: Content<'_>,
        rows: Option<&MergedRows>,
    ) -> Result<Applied, Refusal> {
        let job = self.job_or_refusal(id)?;
        if job.state != JobState::Done || job.finished_ms != Some(finished_ms) {
            return Err(Refusal::conflict(format!("{id} has run again: these results are outdated")));
        }
        if job.filed {
            return Err(Refusal::conflict(format!("the results of {id} are already in a file")));
        }
        let mut job = JobRecord { filed: true, ..(**job).clone() };
        let file = results_file(id)?;
        self.check_content(&format!("the results of {id}"), content)?;
        let merged = rows.map(|rows| rows.segments(&job, content.extents)).transpose()?;
        self.add_version(&file, content, None);
        if let Some(merged) = merged {
            // A reference of its own for each: the file may be deleted before the job.
            merged.iter().for_each(|segment| self.reference(&[segment.blob]));
            self.fold(std::mem::replace(&mut job.segments, merged));
        }
        self.set_job(job);
        Ok(Applied::Done)
    }
}
