//! A model of the metadata log's part in jobs: the first decision about a query stands.

use std::collections::{BTreeMap, BTreeSet};

use idunno_core::ranges::RangeSet;
use idunno_core::scheduler::JobSpec;
use idunno_shared::ids::JobId;
use idunno_shared::wire::jobs::{BatchSize, QueryRange};

use super::load::{Load, model_name, version};

/// So many failures at different servers tell a hopeless query from one that was in bad company.
const FAILURES_TO_DIE: u32 = 3;

/// A job in the log.
pub(crate) struct LoggedJob {
    pub(crate) load: Load,
    pub(crate) batch_size: BatchSize,
    pub(crate) weight: u32,
    pub(crate) running: bool,
    pub(crate) answered: RangeSet,
    pub(crate) dead: BTreeSet<u64>,
    /// Rows that came again.
    pub(crate) duplicates: u64,
    /// How often the model server failed a call that had this query alone.
    failed_alone: BTreeMap<u64, u32>,
}

impl LoggedJob {
    /// Whether the query may end as a dead letter: it is hopeless, or had as bad luck as a hopeless one has.
    pub(crate) fn may_die(&self, query: u64) -> bool {
        let is_unlucky = self.failed_alone.get(&query).is_some_and(|failures| *failures >= FAILURES_TO_DIE);
        is_unlucky || self.load.hopeless().contains(&query)
    }

    /// A call of the model server failed as a whole.
    pub(crate) fn call_failed(&mut self, range: QueryRange) {
        if range.count == 1 {
            *self.failed_alone.entry(range.first).or_default() += 1;
        }
    }

    pub(crate) fn pending(&self) -> RangeSet {
        let mut pending = RangeSet::from(0..self.load.queries);
        pending.subtract(&self.answered);
        for index in &self.dead {
            pending.remove(*index..index + 1);
        }
        pending
    }

    pub(crate) fn is_done(&self) -> bool {
        self.answered.len() + self.dead.len() as u64 == self.load.queries
    }

    pub(crate) fn open(&self) -> u64 {
        self.load.queries - self.answered.len() - self.dead.len() as u64
    }
}

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) jobs: BTreeMap<JobId, LoggedJob>,
}

impl Log {
    /// Adds a job; a batch size of 0 stands for auto.
    pub(crate) fn add(&mut self, load: Load, batch_size: u32, weight: u32) -> JobId {
        let id = JobId(self.jobs.len() as u64 + 1);
        let (answered, dead) = (RangeSet::new(), BTreeSet::new());
        let batch_size = batch_size.into();
        let job = LoggedJob {
            load,
            batch_size,
            weight,
            running: true,
            answered,
            dead,
            duplicates: 0,
            failed_alone: BTreeMap::new(),
        };
        self.jobs.insert(id, job);
        id
    }

    pub(crate) fn spec(&self, id: JobId) -> JobSpec {
        let job = &self.jobs[&id];
        JobSpec {
            id,
            model: model_name(job.load.model),
            version: version(job.load.model),
            batch_size: job.batch_size,
            running: job.running,
            pending: job.pending(),
            weight: job.weight,
        }
    }

    /// Accepts rows where there is no decision yet; returns those that have an answer now.
    pub(crate) fn commit(&mut self, id: JobId, rows: &RangeSet) -> Vec<QueryRange> {
        let job = self.jobs.get_mut(&id).expect("a job in the log");
        let mut rows = rows.clone();
        for index in &job.dead {
            rows.remove(*index..index + 1);
        }
        let accepted = job.answered.merge(&rows);
        job.duplicates += rows.len() - accepted;
        rows.queries().collect()
    }

    pub(crate) fn mark_dead(&mut self, id: JobId, indices: impl Iterator<Item = u64>) {
        let job = self.jobs.get_mut(&id).expect("a job in the log");
        job.dead.extend(indices.filter(|index| !job.answered.contains(*index)));
    }
}
