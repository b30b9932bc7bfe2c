//! Batches that take too long: slow ones at the end of a job are leased a second time, hung ones are revoked.
//!
//! **Copies.** Once a job has no queries left to lease, each uncompleted batch delays its end. A late batch is also
//! leased to an idle worker: the first commit wins, and the reply to the other worker's report cancels its lease. A
//! batch is late if it has run longer than [`LATE`] times the 95th percentile of batches of its size and at least
//! [`LATE_MIN`], or if, at the measured rates, its worker needs [`LATE`] times as long for the rest as the other worker
//! for the whole. A batch queued behind a late one is late too.
//!
//! The first lease counts: the copy is charged to no job, and its failures decide nothing. If the first lease is lost,
//! the copy replaces it; queries that fail in the first lease are removed from the copy.
//!
//! **Hangs.** A batch hangs if it has run longer than [`HUNG`] times the 95th percentile of batches of its size and at
//! least [`HUNG_MIN`]; without a measurement of the model nothing hangs. The reply to the report that shows it cancels
//! the lease and has the worker restart its model server. The first hang is blamed on the server, so the batch goes to
//! another worker without a fault; the next one counts as a failed inference.
//!
//! Sources: speculative execution (Dean and Ghemawat 2004), by the longest time to end (Zaharia et al., LATE, 2008).
//! Invariants: a lease has at most one copy, at another worker; the copy's open queries are open in the first lease.
//! Bounds: one copy per [`WORKERS_PER_COPY`] usable workers, and at least one; O(leases) per report of an idle worker.
//! Not here: a worker's own deadline for calls to its model server.

use std::time::Duration;

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::jobs::{Fault, FaultKind, Lease};

use super::Scheduler;
use super::job::Job;
use super::worker::{HeldLease, Stage, Worker};
use crate::ranges::RangeSet;

/// How many times slower than others a batch is late.
const LATE: u32 = 2;
/// A batch is not late before this time, however fast the others are.
const LATE_MIN: Duration = Duration::from_secs(2);
/// A copy must be expected to save at least this much.
const GAIN_MIN: Duration = Duration::from_millis(500);
const WORKERS_PER_COPY: usize = 10;
/// How many times slower than others a batch hangs.
const HUNG: u32 = 10;
/// A batch does not hang before this time, however fast the model is.
const HUNG_MIN: Duration = Duration::from_secs(30);

/// An uncompleted batch, with estimates of its progress.
struct Outstanding<'a> {
    owner: NodeId,
    held: &'a HeldLease,
    /// How long its worker has been running its current batch.
    elapsed: Duration,
    /// How long its worker needs to complete it; `None` until the worker has run the model.
    left: Option<Duration>,
}

impl Scheduler {
    /// Whether a batch may be worth a copy at some worker.
    pub(super) fn has_stragglers(&mut self) -> bool {
        self.statistics.compared += self.jobs.len() as u64;
        if !self.jobs.values().any(Job::is_ending) {
            return false;
        }
        self.statistics.compared += self.workers.len() as u64;
        let is_slow = |batch: Outstanding<'_>| {
            let is_overdue = self.late_after(batch.held).is_some_and(|limit| batch.elapsed > limit);
            is_overdue || batch.left.is_some_and(|left| left >= GAIN_MIN)
        };
        let is_ending =
            |batch: &Outstanding<'_>| self.jobs.get(&batch.held.lease.job).is_some_and(Job::is_ending);
        let mut outstanding = self.workers.iter().flat_map(|(owner, owned)| self.outstanding(*owner, owned));
        self.may_copy() && outstanding.any(|batch| is_ending(&batch) && is_slow(batch))
    }

    /// Leases a copy of the batch that ends last to a worker without other work. False if no batch is worth it.
    pub(super) fn copy_straggler(&mut self, node: NodeId) -> bool {
        let Some(worker) = self.workers.get(&node).filter(|worker| worker.uncompleted().next().is_none())
        else {
            return false;
        };
        self.statistics.compared += self.jobs.len() as u64;
        let ending = self.jobs.iter().filter(|(_, job)| job.is_ending());
        let may_run =
            |id: JobId, job: &Job| self.is_capable(worker, id, job) && !self.is_backend_full(worker, job);
        let ending: Vec<JobId> = ending.filter(|(id, job)| may_run(**id, job)).map(|(id, _)| *id).collect();
        if ending.is_empty() || !self.may_copy() {
            return false;
        }
        self.statistics.compared += self.workers.len() as u64;
        let outstanding = self.workers.iter().filter(|(owner, _)| **owner != node);
        let last = outstanding
            .flat_map(|(owner, owned)| self.outstanding(*owner, owned))
            .filter(|batch| ending.contains(&batch.held.lease.job) && self.is_worth_copying(worker, batch))
            .max_by_key(|batch| batch.left.unwrap_or(batch.elapsed));
        let Some((owner, lease)) = last.map(|batch| (batch.owner, batch.held.lease)) else { return false };
        self.grant_copy(node, owner, lease);
        true
    }

    fn may_copy(&self) -> bool {
        let usable = self.workers.values().filter(|worker| worker.is_usable(self.now, &self.config)).count();
        let leases = self.workers.values().flat_map(|worker| &worker.leases);
        leases.filter(|held| held.is_copy).count() < (usable / WORKERS_PER_COPY).max(1)
    }

    /// The uncompleted batches of a worker, in the order in which it runs them.
    fn outstanding<'a>(&'a self, owner: NodeId, owned: &'a Worker) -> Vec<Outstanding<'a>> {
        let (mut elapsed, mut ahead) = (Duration::ZERO, Some(Duration::ZERO));
        let batches = owned.uncompleted().map(|held| {
            let needed = self.own_time(owned, held);
            ahead = match held.stage {
                Stage::Running { since } => {
                    elapsed = self.now.since(since);
                    needed.map(|needed| needed.saturating_sub(elapsed))
                }
                Stage::Queued | Stage::Completed => ahead.zip(needed).map(|(ahead, needed)| ahead + needed),
            };
            Outstanding { owner, held, elapsed, left: ahead }
        });
        batches.collect()
    }

    /// How long the worker takes for the batch at its own measured rate.
    fn own_time(&self, worker: &Worker, held: &HeldLease) -> Option<Duration> {
        let model = &self.jobs.get(&held.lease.job)?.model;
        worker.rates.get(model).map(|rate| rate.time(held.lease.range.count))
    }

    /// The 95th percentile of the time of batches like this one, over all workers.
    fn typical_time(&self, held: &HeldLease) -> Option<Duration> {
        let model = &self.jobs.get(&held.lease.job)?.model;
        self.batch_times.p95(model, held.lease.range.count)
    }

    fn is_worth_copying(&self, worker: &Worker, batch: &Outstanding<'_>) -> bool {
        let held = batch.held;
        let is_whole = held.open.len() == u64::from(held.lease.range.count);
        let is_first = !held.is_copy && held.lease_count == held.lease.attempt;
        let typical = self.typical_time(held);
        // What may end a worker's model is not given to a second one at once.
        let is_copyable = is_whole && is_first && !held.history.is_quarantined();
        let Some(typical) = typical.filter(|_| is_copyable) else { return false };
        let here = self.own_time(worker, held).unwrap_or(typical);
        let limit = self.late_after(held).unwrap_or(Duration::MAX);
        let is_overdue = batch.elapsed > limit && here <= limit;
        let is_slower = batch
            .left
            .is_some_and(|left| left >= here.saturating_mul(LATE) && left.saturating_sub(here) >= GAIN_MIN);
        is_overdue || is_slower
    }

    /// Whether the worker's current batch is late.
    pub(super) fn is_late(&self, worker: &Worker) -> bool {
        worker.leases.iter().any(|held| {
            let Stage::Running { since } = held.stage else { return false };
            self.late_after(held).is_some_and(|limit| self.now.since(since) > limit)
        })
    }

    /// How long a batch may run before it is late; `None` until a batch of its model was measured.
    fn late_after(&self, held: &HeldLease) -> Option<Duration> {
        Some(self.typical_time(held)?.saturating_mul(LATE).max(LATE_MIN))
    }

    fn grant_copy(&mut self, node: NodeId, owner: NodeId, lease: Lease) {
        let first = self.workers.get_mut(&owner);
        let first = first.and_then(|owner| owner.leases.iter_mut().find(|held| held.lease == lease));
        let Some(first) = first else { return };
        first.lease_count += 1;
        let copy = HeldLease {
            lease: Lease { attempt: first.lease_count, term: self.term, ..lease },
            is_copy: true,
            stage: Stage::Queued,
            expires_at: self.now + self.config.lease,
            absent_since: None,
            ..first.clone()
        };
        let (Some(job), Some(worker)) = (self.jobs.get_mut(&lease.job), self.workers.get_mut(&node)) else {
            return;
        };
        job.copied.merge(&copy.open);
        worker.grant(copy);
        self.statistics.copied += 1;
    }

    /// The first lease of these queries is lost: their copies become first leases. Returns the queries of the copies.
    pub(super) fn promote_copies(&mut self, id: JobId, queries: &RangeSet) -> RangeSet {
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

    /// Takes these queries out of all copies.
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

    /// Revokes a hung batch of the worker, if it has one, and has its model server restarted.
    pub(super) fn revoke_hung(&mut self, node: NodeId) {
        let Some(worker) = self.workers.get(&node) else { return };
        let hung = worker.leases.iter().find_map(|held| Some((held.lease, self.hung_for(held)?)));
        let Some((lease, elapsed)) = hung else { return };
        let reason = format!(
            "{} queries have been running for {} s: the model server hangs",
            lease.range.count,
            elapsed.as_secs()
        );
        let Some(worker) = self.workers.get_mut(&node) else { return };
        worker.reply.restart = Some(reason.clone());
        let held = worker.leases.iter_mut().find(|held| held.lease == lease);
        let has_hung_before = held.is_some_and(|held| held.history.record_hang());
        let kind = if has_hung_before { FaultKind::Inference } else { FaultKind::Worker };
        self.statistics.hung += 1;
        self.on_failed(
            node,
            lease,
            &[Fault { ranges: vec![lease.range], kind, reason, identities: Vec::new() }],
        );
    }

    /// How long the batch has been running, if it hangs.
    fn hung_for(&self, held: &HeldLease) -> Option<Duration> {
        let Stage::Running { since } = held.stage else { return None };
        let limit = self.typical_time(held)?.saturating_mul(HUNG).max(HUNG_MIN);
        let elapsed = self.now.since(since);
        (elapsed > limit).then_some(elapsed)
    }
}

impl Job {
    /// Whether all that is left of it is leased.
    fn is_ending(&self) -> bool {
        self.may_lease() && !self.has_work() && !self.leased.is_empty()
    }
}
