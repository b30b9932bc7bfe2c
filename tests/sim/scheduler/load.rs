//! What the jobs are made of, and how their queries behave.

use std::collections::{BTreeMap, BTreeSet};

use idunno_core::ranges::RangeSet;
use idunno_shared::ids::Digest;
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{Fault, FaultKind, QueryRange};

pub(crate) fn model_name(model: u8) -> ModelName {
    format!("model-{model}").parse().expect("a good name")
}

pub(crate) fn version(model: u8) -> Digest {
    Digest::of(&[model])
}

/// A job's queries.
#[derive(Clone, Default)]
pub(crate) struct Load {
    pub(crate) model: u8,
    pub(crate) queries: u64,
    /// At a worker of speed 1.
    pub(crate) query_us: u64,
    /// For each call of the model server, besides.
    pub(crate) call_us: u64,
    /// The model server refuses calls with more queries, where it is not 0.
    pub(crate) most: u32,
    /// Called bad by every worker.
    pub(crate) bad: BTreeSet<u64>,
    /// Fail every batch that holds them.
    pub(crate) poison: BTreeSet<u64>,
    /// Fail the first so many batches that hold them.
    pub(crate) flaky: BTreeMap<u64, u32>,
    /// Cannot be read so many times.
    pub(crate) unreadable: BTreeMap<u64, u32>,
}

impl Load {
    pub(crate) fn plain(model: u8, queries: u64, query_us: u64) -> Self {
        Self { model, queries, query_us, ..Self::default() }
    }

    /// How long a batch takes, and the most queries of a call that the model server refused: what it refuses is
    /// halved, as workers do.
    pub(crate) fn cost(&self, queries: u32) -> (u64, u32) {
        if self.most == 0 || queries <= self.most {
            return (self.call_us + self.query_us * u64::from(queries), 0);
        }
        let halves = [queries / 2, queries - queries / 2].map(|half| self.cost(half).0);
        (halves.iter().sum(), queries)
    }

    /// Runs a batch: the answered queries and the faults.
    pub(crate) fn run(&mut self, batch: QueryRange) -> (RangeSet, Vec<Fault>) {
        let indices = batch.first..batch.end();
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

    /// What must end as a dead letter.
    pub(crate) fn hopeless(&self) -> BTreeSet<u64> {
        self.bad.union(&self.poison).copied().collect()
    }
}

pub(crate) fn fault(kind: FaultKind, queries: &RangeSet) -> Fault {
    Fault { ranges: queries.queries().collect(), kind, reason: format!("{kind:?}") }
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
