//! Simulated jobs: how their queries behave, and a model of their part of the metadata log, in which the first decision
//! on a query stands.

use std::collections::{BTreeMap, BTreeSet};

use idunno_core::ranges::RangeSet;
use idunno_core::scheduler::JobSpec;
use idunno_shared::ids::{Digest, JobId};
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{BatchSize, Fault, FaultKind, QueryRange};

/// Failures of a query alone in its batch after which it may be dead although it is not hopeless.
const FAILURES_TO_DIE: u32 = 3;

pub(crate) fn model_name(model: u8) -> ModelName {
    format!("model-{model}").parse().expect("a valid name")
}

pub(crate) fn version(model: u8) -> Digest {
    Digest::of(&[model])
}

/// A job's queries.
#[derive(Clone, Default)]
pub(crate) struct Load {
    pub(crate) model: u8,
    pub(crate) queries: u64,
    /// Inference time per query at normal speed.
    pub(crate) query_us: u64,
    /// Additional time per call.
    pub(crate) call_us: u64,
    /// The largest call in queries that the model server accepts; 0 for no limit.
    pub(crate) call_max: u32,
    /// Rejected as bad by every worker.
    pub(crate) bad: BTreeSet<u64>,
    /// Fail every batch that contains them.
    pub(crate) poison: BTreeSet<u64>,
    /// End the process of their model, with every batch that contains them.
    pub(crate) crashing: BTreeSet<u64>,
    /// The queries that fail their batches, with the number of batches that each still fails.
    pub(crate) flaky: BTreeMap<u64, u32>,
    /// The queries that cannot be read at first, with the number of failed reads.
    pub(crate) unreadable: BTreeMap<u64, u32>,
}

impl Load {
    pub(crate) fn plain(model: u8, queries: u64, query_us: u64) -> Self {
        Self { model, queries, query_us, ..Self::default() }
    }

    /// The time of a batch, and the queries of the largest call that the model server refused. Refused calls are halved,
    /// as workers do.
    pub(crate) fn cost(&self, queries: u32) -> (u64, u32) {
        if self.call_max == 0 || queries <= self.call_max {
            return (self.call_us + self.query_us * u64::from(queries), 0);
        }
        let halves = [queries / 2, queries - queries / 2].map(|half| self.cost(half).0);
        (halves.iter().sum(), queries)
    }

    /// Runs a batch: returns the answered queries and the faults.
    pub(crate) fn run(&mut self, batch: QueryRange) -> (RangeSet, Vec<Fault>) {
        let indices = batch.queries();
        if self.crashing.range(indices.clone()).next().is_some() {
            return (RangeSet::new(), vec![fault(FaultKind::Crash, &RangeSet::from(batch))]);
        }
        let flaked = take_one(&mut self.flaky, &indices);
        if !flaked.is_empty() || self.poison.range(indices.clone()).next().is_some() {
            return (RangeSet::new(), vec![fault(FaultKind::Inference, &RangeSet::from(batch))]);
        }
        let mut answered = RangeSet::from(batch);
        let mut faults = Vec::new();
        let bad: Vec<u64> = self.bad.range(indices.clone()).copied().collect();
        let unread = take_one(&mut self.unreadable, &indices);
        for (kind, failed) in [(FaultKind::Fetch, unread), (FaultKind::BadInput, bad)] {
            let failed: RangeSet =
                failed.into_iter().map(|i| i..i + 1).collect::<RangeSet>().intersection(&answered);
            answered.subtract(&failed);
            if !failed.is_empty() {
                faults.push(fault(kind, &failed));
            }
        }
        (answered, faults)
    }

    /// The queries that must end as dead letters.
    pub(crate) fn hopeless(&self) -> BTreeSet<u64> {
        [&self.bad, &self.poison, &self.crashing].into_iter().flatten().copied().collect()
    }
}

pub(crate) fn fault(kind: FaultKind, queries: &RangeSet) -> Fault {
    Fault { ranges: queries.queries().collect(), kind, reason: format!("{kind:?}"), identities: Vec::new() }
}

fn take_one(counts: &mut BTreeMap<u64, u32>, within: &std::ops::Range<u64>) -> Vec<u64> {
    let hit: Vec<u64> = counts.range(within.clone()).map(|(index, _)| *index).collect();
    for index in &hit {
        let left = counts.get_mut(index).expect("just seen");
        *left -= 1;
        if *left == 0 {
            counts.remove(index);
        }
    }
    hit
}

/// A job in the log.
pub(crate) struct LoggedJob {
    pub(crate) load: Load,
    pub(crate) batch_size: BatchSize,
    pub(crate) weight: u32,
    pub(crate) running: bool,
    pub(crate) answered: RangeSet,
    pub(crate) dead: BTreeSet<u64>,
    /// Rows committed for queries that had an answer.
    pub(crate) duplicates: u64,
    /// Failed calls of a model server with this query alone.
    failed_alone: BTreeMap<u64, u32>,
}

impl LoggedJob {
    /// Whether the query may end as a dead letter: it is hopeless, or failed as often as a hopeless one.
    pub(crate) fn may_die(&self, query: u64) -> bool {
        let is_unlucky = self.failed_alone.get(&query).is_some_and(|failures| *failures >= FAILURES_TO_DIE);
        is_unlucky || self.load.hopeless().contains(&query)
    }

    /// Records a call that failed as a whole.
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
    /// Adds a job; a batch size of 0 means automatic.
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
            needs: None,
        }
    }

    /// Accepts rows of undecided queries. Returns the queries of the rows that have an answer now.
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
