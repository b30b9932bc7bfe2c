//! Batches moved to where their inputs are.
//!
//! Fairness picks the job and how many of its queries; which of them is free, as long as nobody had them before. Who
//! knows what lies where, the shell, may move a batch that was just granted over at most [`SKIPPED_MAX`] others. What
//! is skipped stays in front, so that a job never has more than a few gaps. Sizes that set themselves differ by worker,
//! and a large batch would end at the gap that a small one left: such jobs' batches are not moved.
//!
//! Source: delay scheduling (Zaharia et al. 2010), without the delay: no worker waits for its own inputs, which are read
//! ahead while another batch runs.
//!
//! What it is worth: with 4 copies of each file, every member of a cluster of 4 has everything. Of N members each has 4
//! in N inputs of any batch; of batches of many small files one has hardly more than another, of batches of one large
//! file one of four is nearly always at hand (`tests/sim/scheduler/locality.rs`).

use idunno_shared::ids::NodeId;
use idunno_shared::wire::jobs::{BatchSize, Lease, QueryRange};

use super::Scheduler;
use super::job::span;
use crate::ranges::RangeSet;

/// Batches that one may be moved over.
const SKIPPED_MAX: usize = 3;
/// Gaps between waiting queries that are looked past.
const GAPS_MAX: usize = 16;

impl Scheduler {
    /// What a batch that was just granted for the first time may be exchanged for.
    pub fn alternatives(&self, lease: Lease) -> Vec<Lease> {
        let job =
            self.jobs.get(&lease.job).filter(|job| lease.attempt == 1 && job.batch_size != BatchSize::Auto);
        let Some(job) = job else { return Vec::new() };
        let count = u64::from(lease.range.count).max(1);
        let gaps = job.fresh.iter().take(GAPS_MAX);
        let firsts = gaps.flat_map(|range| {
            let whole = (range.end - range.start) / count;
            (0..whole).map(move |number| range.start + number * count)
        });
        let moved = |first| Lease { range: QueryRange { first, ..lease.range }, ..lease };
        firsts.take(SKIPPED_MAX).map(moved).collect()
    }

    /// Exchanges a batch that was just granted for one of its alternatives; whether it did.
    pub fn exchange(&mut self, node: NodeId, lease: Lease, other: Lease) -> bool {
        let (Some(job), Some(worker)) = (self.jobs.get_mut(&lease.job), self.workers.get_mut(&node)) else {
            return false;
        };
        let (from, to) = (span(lease.range), span(other.range));
        let held = worker.leases.iter_mut().find(|held| held.lease == lease && !held.is_copy);
        let is_free = lease.attempt == 1 && job.fresh.contains_all(to.clone());
        let Some(held) = held.filter(|held| is_free && held.open == RangeSet::from(from.clone())) else {
            return false;
        };
        job.fresh.remove(to.clone());
        job.leased.remove(from.clone());
        job.fresh.insert(from);
        job.leased.insert(to.clone());
        (held.lease, held.open) = (other, to.into());
        true
    }
}
