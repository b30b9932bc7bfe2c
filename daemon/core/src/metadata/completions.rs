//! How queries of a job complete: answered by a segment, or dead. The first decision on a query stands.
//!
//! Bounds: [`BATCHES_PER_COMMIT_MAX`] batches per commit, [`DEAD_LETTERS_PER_COMMAND_MAX`] dead letters per command.

use std::collections::BTreeMap;
use std::sync::Arc;

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::blobs::BlobRef;
use idunno_shared::wire::control::JobState;
use idunno_shared::wire::jobs::{BATCH_QUERIES_MAX, BatchOutcome, QueryRange, TokenCount};
use idunno_shared::wire::refusal::Refusal;

use super::{Applied, DeadLetterRecord, JobRecord, Segment, State, truncate_reason};
use crate::ranges::RangeSet;

/// Most batches in one segment.
pub const BATCHES_PER_COMMIT_MAX: usize = 4096;
/// Most dead letters in one command.
pub const DEAD_LETTERS_PER_COMMAND_MAX: usize = BATCH_QUERIES_MAX as usize;

const NS_PER_US: u64 = 1000;

/// The number after the last of a range; `None` if the range is empty or overflows.
fn end(range: QueryRange) -> Option<u64> {
    range.first.checked_add(u64::from(range.count)).filter(|end| *end > range.first)
}

/// The queries that one batch answers. Refused unless they are the lease's.
fn answered(job: &JobRecord, batch: &BatchOutcome) -> Result<RangeSet, Refusal> {
    let BatchOutcome { lease, answered, .. } = batch;
    let batch_name =
        format!("the batch of {} queries from {} of {}", lease.range.count, lease.range.first, job.id);
    let invalid = |why: &str| Err(Refusal::invalid(format!("{batch_name}: {why}")));
    if lease.job != job.id {
        return Err(Refusal::invalid(format!("a segment of {} contains a batch of {}", job.id, lease.job)));
    }
    let Some(lease_end) =
        end(lease.range).filter(|end| *end <= job.submitted && lease.range.count <= BATCH_QUERIES_MAX)
    else {
        return invalid("the job has no such queries");
    };
    let mut queries = RangeSet::new();
    for range in answered {
        let inside = end(*range).filter(|end| range.first >= lease.range.first && *end <= lease_end);
        let Some(range_end) = inside else { return invalid("it answers queries outside the batch") };
        if queries.insert(range.first..range_end) < u64::from(range.count) {
            return invalid("it answers a query twice");
        }
    }
    if u64::from(batch.labelled) > queries.len() || batch.correct > batch.labelled {
        return invalid("it counts more labels than answers");
    }
    if u64::from(batch.local) > queries.len() {
        return invalid("it counts more local inputs than answers");
    }
    if batch.tokens.reused > queries.len() {
        return invalid("it counts more answers taken over than answers");
    }
    Ok(queries)
}

/// The queries that each batch answers. Refused if two batches answer the same query.
fn answered_by_batch(job: &JobRecord, batches: &[BatchOutcome]) -> Result<Vec<RangeSet>, Refusal> {
    if batches.is_empty() || batches.len() > BATCHES_PER_COMMIT_MAX {
        let message =
            format!("the segment has {} batches; 1 to {BATCHES_PER_COMMIT_MAX} are allowed", batches.len());
        return Err(Refusal::invalid(message));
    }
    let mut all = RangeSet::new();
    let mut by_batch = Vec::with_capacity(batches.len());
    for batch in batches {
        let queries = answered(job, batch)?;
        if all.merge(&queries) < queries.len() {
            // Readers could not tell which of the two rows counts.
            let message = format!(
                "a segment of {} answers a query twice, the second time in the batch from query {}",
                job.id, batch.lease.range.first
            );
            return Err(Refusal::invalid(message));
        }
        by_batch.push(queries);
    }
    Ok(by_batch)
}

impl JobRecord {
    /// Records the answers of a batch to undecided queries. Returns these queries.
    fn record_answers(&mut self, batch: &BatchOutcome, queries: &RangeSet, now_ms: u64) -> RangeSet {
        let mut new = queries.clone();
        new.subtract(&self.done);
        new.subtract(&self.dead);
        self.done.merge(&new);
        // Labels, local inputs and tokens are counted per batch: a partly accepted batch counts in proportion.
        let share = |count: u64| {
            let part = (u128::from(count) * u128::from(new.len())).checked_div(u128::from(queries.len()));
            part.and_then(|part| u64::try_from(part).ok()).unwrap_or(0)
        };
        self.statistics.labelled += share(batch.labelled.into());
        self.statistics.correct += share(batch.correct.into());
        self.statistics.local += share(batch.local.into());
        let TokenCount { prompt, completion, reused } = batch.tokens;
        let tokens =
            TokenCount { prompt: share(prompt), completion: share(completion), reused: share(reused) };
        self.statistics.tokens = self.statistics.tokens.plus(tokens);
        self.statistics.duplicates += queries.len() - new.len();
        let inference_ns = batch.inference_us.saturating_mul(NS_PER_US);
        let ns_per_query = inference_ns.checked_div(batch.inferred().into()).unwrap_or(0);
        self.statistics.add(new.len() - tokens.reused, ns_per_query);
        self.statistics.add_to_rate(new.len(), now_ms);
        new
    }
}

impl JobRecord {
    fn pause_if_too_many_failed(&mut self, now_ms: u64) {
        let failed = self.dead.len();
        let limit = self.terms.start.failed_max.filter(|max| max.is_exceeded(failed, self.submitted));
        let Some(limit) = limit.filter(|_| self.state == JobState::Running) else { return };
        let reason = format!(
            "{failed} queries have failed, more than {limit}: see 'dead-letters list {id}'; 'start-job {id}' goes on \
             without a limit",
            id = self.id
        );
        self.halt(JobState::Paused(truncate_reason(&reason)), now_ms);
    }
}

impl State {
    fn started_job(&self, id: JobId) -> Result<JobRecord, Refusal> {
        let job = self.job_or_refusal(id)?;
        if job.state == JobState::Added {
            return Err(Refusal::conflict(format!(
                "{id} has not been started, so no worker can have run it"
            )));
        }
        if job.state == JobState::Cancelled {
            return Err(Refusal::conflict(format!("{id} is cancelled and accepts no more results")));
        }
        Ok((**job).clone())
    }

    pub(super) fn commit_segment(
        &mut self,
        worker: NodeId,
        id: JobId,
        segment: &(BlobRef, Vec<NodeId>),
        batches: &[BatchOutcome],
    ) -> Result<Applied, Refusal> {
        let mut job = self.started_job(id)?;
        let by_batch = answered_by_batch(&job, batches)?;
        self.check_extents(&format!("a segment of {id}"), std::slice::from_ref(segment))?;
        let (blob, holders) = segment;
        let mut accepted = RangeSet::new();
        let mut rows = 0;
        for (batch, queries) in batches.iter().zip(&by_batch) {
            rows += queries.len();
            accepted.merge(&job.record_answers(batch, queries, self.now_ms));
        }
        let ranges: Vec<_> = accepted.queries().collect();
        // A segment without new rows is recorded without a reference, so that it is collected.
        self.record(*blob, holders, u64::from(!accepted.is_empty()));
        if !accepted.is_empty() {
            job.segments.push_back(Arc::new(Segment { blob: *blob, worker, ranges: ranges.clone() }));
        }
        let job_done = self.settle(job);
        let duplicates = rows - accepted.len();
        Ok(Applied::Committed { accepted: accepted.len(), duplicates, job_done, accepted_ranges: ranges })
    }

    pub(super) fn mark_dead(
        &mut self,
        id: JobId,
        dead_letters: &[DeadLetterRecord],
    ) -> Result<Applied, Refusal> {
        let mut job = self.started_job(id)?;
        if dead_letters.len() > DEAD_LETTERS_PER_COMMAND_MAX {
            let message = format!(
                "{} dead letters in one command; {DEAD_LETTERS_PER_COMMAND_MAX} are allowed",
                dead_letters.len()
            );
            return Err(Refusal::invalid(message));
        }
        if let Some(dead_letter) = dead_letters.iter().find(|dead_letter| dead_letter.index >= job.submitted)
        {
            let message =
                format!("{id} has {} queries; there is no query {}", job.submitted, dead_letter.index);
            return Err(Refusal::invalid(message));
        }
        let mut new: RangeSet =
            dead_letters.iter().map(|dead_letter| dead_letter.index..dead_letter.index + 1).collect();
        new.subtract(&job.done);
        new.subtract(&job.dead);
        // Dead letters outlive the pin of the folder, so they keep their names.
        let queries = new.iter().flat_map(|range| self.folder_queries(&job, range));
        let names: BTreeMap<u64, _> = queries.map(|(number, query)| (number, query.name)).collect();
        for dead_letter in dead_letters {
            let index = dead_letter.index;
            // Of two letters about one query the first counts.
            if new.remove(index..index + 1) > 0 {
                job.dead.insert(index..index + 1);
                let record = DeadLetterRecord {
                    reason: truncate_reason(&dead_letter.reason),
                    name: names.get(&index).cloned(),
                    identity: dead_letter.identity.clone().bounded(),
                    ..*dead_letter
                };
                job.dead_letters.insert(index, Arc::new(record));
            }
        }
        job.pause_if_too_many_failed(self.now_ms);
        self.settle(job);
        Ok(Applied::Done)
    }
}
