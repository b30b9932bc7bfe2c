//! Second leases of batches that hold up the end of a job.
//!
//! When a job has nothing more to lease, each batch still out decides when it ends. One that is late is also leased to
//! another worker that has nothing to do: the first commit wins, and the other worker learns from the answer to its
//! report that its lease is void. A batch is late if it has run longer than [`LATE`] times what batches of its size
//! usually take and [`LATE_MIN`] at least, or if, at the measured rates, its worker needs [`LATE`] times as long for the
//! rest as the other needs for the whole. What waits behind a late batch is late too.
//!
//! The first lease counts: the copy is charged to nobody, and what fails in it decides nothing. If the first lease is
//! lost, the copy takes its place; what fails in the first lease is taken out of the copy.
//!
//! Sources: speculative execution (Dean and Ghemawat 2004), by the longest time to end (Zaharia et al., LATE, 2008).
//! Invariants: one copy a lease, at another worker; its open queries are open in the lease that it copies.
//! Bounds: [`WORKERS_PER_COPY`] workers to a copy, one copy at least; O(leases) an idle worker's report.

use std::time::Duration;

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::jobs::Lease;

use super::Scheduler;
use super::job::Job;
use super::worker::{Held, Stage, Worker};
use crate::ranges::RangeSet;

/// So many times slower than the others is late.
const LATE: u32 = 2;
/// No batch is late earlier, whatever the others take.
const LATE_MIN: Duration = Duration::from_secs(2);
/// A copy that would save less than this is not made.
const GAIN_MIN: Duration = Duration::from_millis(500);
/// One worker in so many may run a copy.
const WORKERS_PER_COPY: usize = 10;

/// A batch that is out, and what is known of its end.
struct Outstanding<'a> {
    owner: NodeId,
    held: &'a Held,
    /// How long the batch that its worker runs has been running.
    elapsed: Duration,
    /// How long its worker still needs for it, if it was ever measured.
    left: Option<Duration>,
}

impl Scheduler {
    /// Leases a copy of the latest batch to a worker that has nothing else to do.
    pub(super) fn copy(&mut self, node: NodeId) -> bool {
        let Some(worker) = self.workers.get(&node).filter(|worker| worker.at_work().next().is_none()) else {
            return false;
        };
        let tail = self.jobs.iter().filter(|(_, job)| job.is_in_tail());
        let tail: Vec<JobId> =
            tail.filter(|(id, job)| self.is_capable(worker, **id, job)).map(|(id, _)| *id).collect();
        if tail.is_empty() || !self.may_copy() {
            return false;
        }
        let outstanding = self.workers.iter().filter(|(owner, _)| **owner != node);
        let latest = outstanding
            .flat_map(|(owner, owned)| self.outstanding(*owner, owned))
            .filter(|batch| tail.contains(&batch.held.lease.job) && self.is_worth_copying(worker, batch))
            .max_by_key(|batch| batch.left.unwrap_or(batch.elapsed));
        let Some((owner, lease)) = latest.map(|batch| (batch.owner, batch.held.lease)) else { return false };
        self.grant_copy(node, owner, lease);
        true
    }

    fn may_copy(&self) -> bool {
        let usable = self.workers.values().filter(|worker| worker.is_usable(self.now, &self.config)).count();
        let leases = self.workers.values().flat_map(|worker| &worker.leases);
        leases.filter(|held| held.is_copy).count() < (usable / WORKERS_PER_COPY).max(1)
    }

    /// What a worker has not run yet, in its order.
    fn outstanding<'a>(&'a self, owner: NodeId, owned: &'a Worker) -> Vec<Outstanding<'a>> {
        let (mut elapsed, mut ahead) = (Duration::ZERO, Some(Duration::ZERO));
        let batches = owned.at_work().map(|held| {
            let needed = self.expected(owned, held);
            ahead = match held.stage {
                Stage::Runs { since } => {
                    elapsed = self.now.since(since);
                    needed.map(|needed| needed.saturating_sub(elapsed))
                }
                Stage::Waits | Stage::Ran => ahead.zip(needed).map(|(ahead, needed)| ahead + needed),
            };
            Outstanding { owner, held, elapsed, left: ahead }
        });
        batches.collect()
    }

    /// How long the worker takes for the batch, by its own measure.
    fn expected(&self, worker: &Worker, held: &Held) -> Option<Duration> {
        let model = &self.jobs.get(&held.lease.job)?.model;
        worker.rates.get(model).map(|rate| rate.time(held.lease.range.count))
    }

    fn is_worth_copying(&self, worker: &Worker, batch: &Outstanding<'_>) -> bool {
        let held = batch.held;
        let is_whole = held.open.len() == u64::from(held.lease.range.count);
        let is_first = !held.is_copy && held.leased == held.lease.attempt;
        let model = self.jobs.get(&held.lease.job).map(|job| &job.model);
        let usual = model.and_then(|model| self.usual.time(model, held.lease.range.count));
        let Some(usual) = usual.filter(|_| is_whole && is_first) else { return false };
        let here = self.expected(worker, held).unwrap_or(usual);
        let limit = self.limit(held).unwrap_or(Duration::MAX);
        let is_overdue = batch.elapsed > limit && here <= limit;
        let is_slower = batch
            .left
            .is_some_and(|left| left >= here.saturating_mul(LATE) && left.saturating_sub(here) >= GAIN_MIN);
        is_overdue || is_slower
    }

    /// Whether the batch that the worker runs has been running for too long.
    pub(super) fn is_stuck(&self, worker: &Worker) -> bool {
        worker.leases.iter().any(|held| {
            let Stage::Runs { since } = held.stage else { return false };
            self.limit(held).is_some_and(|limit| self.now.since(since) > limit)
        })
    }

    /// How long a batch may run before it is late; `None` while none of its model was measured.
    fn limit(&self, held: &Held) -> Option<Duration> {
        let model = &self.jobs.get(&held.lease.job)?.model;
        let usual = self.usual.time(model, held.lease.range.count)?;
        Some(usual.saturating_mul(LATE).max(LATE_MIN))
    }

    fn grant_copy(&mut self, node: NodeId, owner: NodeId, lease: Lease) {
        let first = self.workers.get_mut(&owner);
        let first = first.and_then(|owner| owner.leases.iter_mut().find(|held| held.lease == lease));
        let Some(first) = first else { return };
        first.leased += 1;
        let copy = Held {
            lease: Lease { attempt: first.leased, term: self.term, ..lease },
            is_copy: true,
            stage: Stage::Waits,
            expires: self.now + self.config.lease,
            missing: None,
            ..first.clone()
        };
        let (Some(job), Some(worker)) = (self.jobs.get_mut(&lease.job), self.workers.get_mut(&node)) else {
            return;
        };
        job.copied.merge(&copy.open);
        worker.grant(copy);
        self.statistics.copied += 1;
    }

    /// The first lease of these queries is lost. Those that are copied stay leased, at the worker that has the copy:
    /// returns them.
    pub(super) fn promote(&mut self, id: JobId, queries: &RangeSet) -> RangeSet {
        let Some(job) = self.jobs.get_mut(&id) else { return RangeSet::new() };
        let promoted = job.copied.intersection(queries);
        if promoted.is_empty() {
            return promoted;
        }
        job.copied.subtract(&promoted);
        for held in self.workers.values_mut().flat_map(|worker| &mut worker.leases) {
            if held.is_copy && held.lease.job == id && !held.open.intersection(&promoted).is_empty() {
                held.is_copy = false;
                self.statistics.promoted += 1;
            }
        }
        promoted
    }

    /// These queries are leased to their first holder only, or to nobody.
    pub(super) fn drop_copies(&mut self, id: JobId, queries: &RangeSet) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if queries.is_empty() || job.copied.subtract(queries) == 0 {
            return;
        }
        for worker in self.workers.values_mut() {
            for held in worker.leases.iter_mut().filter(|held| held.is_copy && held.lease.job == id) {
                held.open.subtract(queries);
            }
            worker.leases.retain(|held| !held.open.is_empty());
        }
    }
}

impl Job {
    /// Whether its end hangs on what is leased.
    fn is_in_tail(&self) -> bool {
        self.may_lease() && !self.has_work() && !self.leased.is_empty()
    }
}
