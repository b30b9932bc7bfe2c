//! The scheduler's invariants as code.

use std::collections::BTreeMap;

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::jobs::LEASES_HELD_MAX;

use super::Scheduler;
use super::job::Job;
use super::worker::Held;
use crate::ranges::RangeSet;

impl Scheduler {
    /// Whether all invariants hold: what is wrong otherwise. To be called between events, effects drained or not.
    pub fn check(&self) -> Result<(), String> {
        let mut leased: BTreeMap<JobId, RangeSet> = BTreeMap::new();
        let mut copied: BTreeMap<JobId, RangeSet> = BTreeMap::new();
        for (node, worker) in &self.workers {
            if worker.leases.len() > LEASES_HELD_MAX {
                return Err(format!("worker {node} holds {} leases", worker.leases.len()));
            }
            let at_work = worker.at_work().count();
            if at_work > self.config.leases_per_worker {
                return Err(format!("worker {node} has {at_work} leases at work"));
            }
            if !worker.plan.is_empty() {
                return Err(format!("worker {node} has orders that were not sent"));
            }
            for held in &worker.leases {
                let range = held.lease.range.first..held.lease.range.end();
                if held.open.is_empty() || held.open.within(range) != held.open {
                    return Err(format!("worker {node}'s lease {:?} has open {:?}", held.lease, held.open));
                }
                let by_kind = if held.is_copy { &mut copied } else { &mut leased };
                let of_job = by_kind.entry(held.lease.job).or_default();
                if of_job.merge(&held.open) != held.open.len() {
                    return Err(format!("{:?} of worker {node} is leased twice", held.lease));
                }
                if held.is_copy {
                    self.check_copy(*node, held)?;
                }
            }
        }
        for (id, job) in &self.jobs {
            let (leased, copied) =
                (leased.remove(id).unwrap_or_default(), copied.remove(id).unwrap_or_default());
            check_job(job, &leased, &copied).map_err(|wrong| format!("{id}: {wrong}"))?;
        }
        leased.keys().next().map_or(Ok(()), |id| Err(format!("{id} is unknown and leased")))
    }

    /// What is open in a copy is open in one lease of another worker.
    fn check_copy(&self, node: NodeId, copy: &Held) -> Result<(), String> {
        let others = self.workers.iter().filter(|(other, _)| **other != node);
        let is_first = |held: &Held| {
            let is_same = !held.is_copy && held.lease.job == copy.lease.job;
            is_same && held.open.intersection(&copy.open) == copy.open
        };
        if others.flat_map(|(_, other)| &other.leases).any(is_first) {
            return Ok(());
        }
        Err(format!("worker {node}'s copy {:?} has open {:?}, which nobody had first", copy.lease, copy.open))
    }
}

fn check_job(job: &Job, leased: &RangeSet, copied: &RangeSet) -> Result<(), String> {
    if job.leased != *leased || job.copied != *copied {
        let said = (&job.leased, &job.copied);
        return Err(format!("leased and copied are {said:?}, workers hold {leased:?} and {copied:?}"));
    }
    let mut all = job.fresh.clone();
    let mut count = all.len();
    for (first, piece) in &job.pieces {
        if *first != piece.range.start || piece.range.is_empty() {
            return Err(format!("piece {:?} is filed under {first}", piece.range));
        }
        count += piece.range.end - piece.range.start;
        all.insert(piece.range.clone());
    }
    count += job.leased.len() + job.dying.len();
    all.merge(&job.leased);
    all.merge(&job.dying);
    // A query in two places makes the sum of the parts exceed their union.
    if all != job.open || count != job.open.len() {
        return Err(format!("open is {:?}, its parts are {all:?} with {count} queries", job.open));
    }
    Ok(())
}
