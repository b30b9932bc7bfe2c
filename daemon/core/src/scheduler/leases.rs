//! The life of a lease: granted or adopted, renewed by each report that lists it, ended by a commit or by failures, and
//! otherwise returned.
//!
//! A lease returns when it expires, when its worker dies or restarts, and when the worker does not know it: two reports
//! [`absence_grace`](super::SchedulerConfig::absence_grace) apart lack it, because the first may have been sent before
//! the grant arrived. (Reports do not say which reply they follow. On a slower network the batch runs twice and the
//! first commit wins.) A draining worker starts nothing, so one such report suffices.
//!
//! A reported lease that the worker does not hold here is adopted if an earlier term granted it, all its queries wait
//! for a lease, and the worker has room; the first claimant wins. Otherwise it is cancelled.
//!
//! The shell may change a lease between its grant and its delivery: shorten it to fit into a reply, or move it to
//! queries whose inputs the worker has on disk. Fairness chose the job and the number of queries; which fresh queries
//! they are is free. A batch moves over at most [`SKIPPED_MAX`] others, which stay in front, so that a job never has
//! more than a few gaps. Batches of automatic size do not move: a large one would end at the gap that a small one left.
//! With 4 copies of each file, moving matters in clusters of more than 4 members and for batches of few files
//! (measured in `tests/sim/scheduler/locality.rs`).
//!
//! Sources: leases (Gray and Cheriton 1989); terms as fencing; delay scheduling (Zaharia et al. 2010) without the
//! delay, because inputs are read ahead while another batch runs.
//! Invariant: no query is in two leases of one term, except for copies (`stragglers.rs`).

use std::time::Duration;

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::jobs::{
    BATCH_QUERIES_MAX, BatchSize, LEASES_HELD_MAX, Lease, QueryRange, WorkerReport,
};

use super::chunks::Chunk;
use super::fairness::cap_deficits;
use super::worker::{HeldLease, Stage};
use super::{Committed, LossReason, Scheduler, SchedulerEffect};
use crate::ranges::RangeSet;

/// Largest batch of a model of which no batch has been measured.
const PROBE_QUERIES: u32 = 16;
/// Batches over which one may be moved.
const SKIPPED_MAX: usize = 3;
/// Ranges of fresh queries that are searched for places to move a batch to.
const FRESH_RANGES_MAX: usize = 16;

/// Searches a slice from where the previous search ended. Takes constant time per search if items are searched for in
/// slice order, as in reports: workers list their leases in the order of the grants.
struct CyclicSearch<'a, T> {
    items: &'a [T],
    next: usize,
}

impl<'a, T> CyclicSearch<'a, T> {
    fn new(items: &'a [T]) -> Self {
        Self { items, next: 0 }
    }

    /// The index of an item that matches.
    fn find(&mut self, matches: impl Fn(&T) -> bool) -> Option<usize> {
        let (before, after) = self.items.split_at(self.next);
        let index = after.iter().position(&matches).map(|steps| self.next + steps);
        let index = index.or_else(|| before.iter().position(&matches))?;
        self.next = index + 1;
        Some(index)
    }
}

impl Scheduler {
    /// Renews, returns, adopts and cancels leases by what a worker reports.
    pub(super) fn reconcile_leases(&mut self, node: NodeId, report: &WorkerReport) {
        let (now, config) = (self.now, &self.config);
        let reported = &report.leases[..report.leases.len().min(LEASES_HELD_MAX)];
        let Some(worker) = self.workers.get_mut(&node) else { return };
        let mut lost = Vec::new();
        let mut listed = CyclicSearch::new(reported);
        for held in &mut worker.leases {
            if let Some(index) = listed.find(|lease| *lease == held.lease) {
                held.expires_at = now + config.lease;
                held.absent_since = None;
                held.stage = Stage::reported(report, index, now);
            } else {
                let since = *held.absent_since.get_or_insert(now);
                if report.draining || now >= since + config.absence_grace {
                    lost.push(held.lease);
                }
            }
        }
        self.statistics.absent += lost.len() as u64;
        self.return_leases(node, Some(LossReason::Unlisted), |held| lost.contains(&held.lease));
        self.revoke_hung(node);
        for (index, lease) in self.unknown_leases(node, reported) {
            self.adopt_or_cancel(node, lease, Stage::reported(report, index, now));
        }
    }

    /// The reported leases that the worker does not hold, with their indices in the report.
    fn unknown_leases(&self, node: NodeId, reported: &[Lease]) -> Vec<(usize, Lease)> {
        let held = self.workers.get(&node).map_or(&[][..], |worker| &worker.leases);
        let mut held = CyclicSearch::new(held);
        let is_unknown = |(_, lease): &(usize, Lease)| held.find(|held| held.lease == *lease).is_none();
        reported.iter().copied().enumerate().filter(is_unknown).collect()
    }

    fn adopt_or_cancel(&mut self, node: NodeId, lease: Lease, stage: Stage) {
        let Some(worker) = self.workers.get_mut(&node) else { return };
        if worker.leases.iter().any(|held| held.lease == lease) {
            return; // The report lists it twice.
        }
        // A grant of an earlier term may arrive after this term has filled the worker.
        let has_room = worker.has_room(stage, &self.config);
        let range = lease.range.queries();
        // A coordinator that restarts quickly resumes its term, and its grants may be claimed like those of an earlier one.
        let is_earlier = lease.term < self.term || (lease.term == self.term && self.now < self.grace_ends);
        let job = self.jobs.get_mut(&lease.job).filter(|_| is_earlier && has_room);
        let claimed = job.filter(|_| !range.is_empty()).and_then(|job| {
            let chunk = job.claim(range)?;
            job.service.charge(u64::from(lease.range.count));
            Some(chunk)
        });
        let Some(chunk) = claimed else {
            self.statistics.cancelled += 1;
            worker.reply.cancelled.push(lease);
            return;
        };
        self.statistics.adopted += 1;
        worker.leases.push(HeldLease {
            lease,
            open: chunk.range.into(),
            history: chunk.history,
            lease_count: lease.attempt,
            is_copy: false,
            stage,
            expires_at: self.now + self.config.lease,
            absent_since: None,
        });
    }

    /// Leases the next batch to a worker. False if there is none for it.
    pub(super) fn grant(&mut self, node: NodeId) -> bool {
        let Some(worker) = self.workers.get(&node) else { return false };
        self.statistics.compared += self.jobs.len() as u64;
        let Some((id, candidate)) = self.choose_job(node, worker) else { return false };
        cap_deficits(&mut self.jobs, id, self.now);
        let (Some(job), Some(worker)) = (self.jobs.get_mut(&id), self.workers.get_mut(&node)) else {
            return false;
        };
        job.current_batch_size = match job.batch_size {
            BatchSize::Auto => worker.batch_size(&job.model),
            BatchSize::Fixed(queries) if self.batch_times.is_measured(&job.model) => {
                queries.get().min(BATCH_QUERIES_MAX)
            }
            BatchSize::Fixed(queries) => queries.get().min(PROBE_QUERIES),
        };
        let Some(chunk) = job.cut(candidate, job.current_batch_size) else { return false };
        job.service.charge(chunk.len());
        let count = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        let range = QueryRange { first: chunk.range.start, count };
        let attempt = chunk.lease_count.saturating_add(1);
        let is_quarantined = chunk.history.is_quarantined();
        worker.grant(HeldLease {
            lease: Lease { job: id, range, attempt, term: self.term },
            open: RangeSet::from(chunk.range),
            history: chunk.history,
            lease_count: attempt,
            is_copy: false,
            stage: Stage::Queued,
            expires_at: self.now + self.config.lease,
            absent_since: None,
        });
        self.statistics.granted += 1;
        self.statistics.quarantined += u64::from(is_quarantined);
        true
    }

    /// Reduces a lease that was just granted to its first `kept` queries; the others wait for another lease. Returns
    /// the reduced lease, or `None` if nothing of it is left.
    pub fn shorten(&mut self, node: NodeId, lease: Lease, kept: u32) -> Option<Lease> {
        let job = self.jobs.get_mut(&lease.job)?;
        let worker = self.workers.get_mut(&node)?;
        let held = worker.leases.iter_mut().find(|held| held.lease == lease)?;
        held.lease.range.count = lease.range.count.min(kept);
        let reduced = held.lease;
        let rest = held.open.within(reduced.range.end()..lease.range.end());
        held.open.subtract(&rest);
        if held.is_copy {
            job.copied.subtract(&rest);
        } else {
            job.leased.subtract(&rest);
            job.service.refund(rest.len());
            let lease_count = lease.attempt.saturating_sub(1);
            let due = self.now + Duration::from_millis(1);
            for range in rest.iter() {
                job.requeue(Chunk { range, lease_count, history: held.history.clone(), due });
            }
        }
        self.drop_empty_leases(node);
        self.settle();
        (reduced.range.count > 0).then_some(reduced)
    }

    /// The batches to which a first lease that was just granted may be moved.
    pub fn alternatives(&self, lease: Lease) -> Vec<Lease> {
        let job = self.jobs.get(&lease.job);
        let Some(job) = job.filter(|job| lease.attempt == 1 && job.batch_size != BatchSize::Auto) else {
            return Vec::new();
        };
        let count = u64::from(lease.range.count).max(1);
        let fresh = job.fresh.iter().take(FRESH_RANGES_MAX);
        let firsts = fresh.flat_map(|range| {
            let whole = (range.end - range.start) / count;
            (0..whole).map(move |number| range.start + number * count)
        });
        let moved = |first| Lease { range: QueryRange { first, ..lease.range }, ..lease };
        firsts.take(SKIPPED_MAX).map(moved).collect()
    }

    /// Moves a batch that was just granted to one of its [`alternatives`](Self::alternatives). False if the lease has
    /// changed since or the alternative is taken.
    pub fn move_batch(&mut self, node: NodeId, lease: Lease, alternative: Lease) -> bool {
        let (Some(job), Some(worker)) = (self.jobs.get_mut(&lease.job), self.workers.get_mut(&node)) else {
            return false;
        };
        let (from, to) = (lease.range.queries(), alternative.range.queries());
        let held = worker.leases.iter_mut().find(|held| held.lease == lease && !held.is_copy);
        let is_free = lease.attempt == 1 && job.fresh.contains_all(to.clone());
        let Some(held) = held.filter(|held| is_free && held.open == RangeSet::from(from.clone())) else {
            return false;
        };
        job.fresh.remove(to.clone());
        job.leased.remove(from.clone());
        job.fresh.insert(from);
        job.leased.insert(to.clone());
        held.lease = alternative;
        held.open = to.into();
        true
    }

    /// Rows are in the log: their queries close at every holder, and the leases of the batches end.
    pub(super) fn on_committed(&mut self, committed: &Committed) {
        let (now, node) = (self.now, committed.worker);
        let Some(job) = self.jobs.get_mut(&committed.job) else { return };
        let mut leased = RangeSet::new();
        for range in &committed.ranges {
            let range = range.queries();
            let unleased: u64 = job.take_waiting(range.clone()).iter().map(Chunk::len).sum();
            job.service.charge(unleased);
            job.service.record_answers(job.open.remove(range.clone()), now);
            job.uncommitted_dead.remove(range.clone());
            leased.merge(&job.leased.within(range));
        }
        if !committed.ranges.is_empty() {
            job.breaker.record_success();
        }
        let model = job.model.clone();
        if let Some(worker) = self.workers.get_mut(&node) {
            let batches = &committed.batches;
            let inference_us =
                batches.iter().fold(0, |sum: u64, batch| sum.saturating_add(batch.inference_us));
            worker.record_success(committed.job, inference_us, now);
            for batch in batches {
                worker.record_batch(&model, batch, now);
                job.service.record_batch(batch, now);
                self.batch_times.add(&model, batch.inferred, Duration::from_micros(batch.inference_us));
            }
            let is_won =
                |held: &&HeldLease| held.is_copy && batches.iter().any(|batch| batch.lease == held.lease);
            self.statistics.copies_won += worker.leases.iter().filter(is_won).count() as u64;
        }
        self.release(committed.job, node, leased);
        self.return_leases(node, None, |held| {
            committed.batches.iter().any(|batch| batch.lease == held.lease)
        });
    }

    /// Takes queries that are no longer open out of all leases. Most are expected to be those of `likely`, which is
    /// searched first.
    pub(super) fn release(&mut self, id: JobId, likely: NodeId, mut queries: RangeSet) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.leased.subtract(&queries);
            let copied = job.copied.intersection(&queries);
            self.drop_copies(id, &copied);
        }
        let others: Vec<NodeId> = self.workers.keys().copied().filter(|node| *node != likely).collect();
        for node in [likely].into_iter().chain(others) {
            if queries.is_empty() {
                break;
            }
            let Some(worker) = self.workers.get_mut(&node) else { continue };
            for held in worker.leases.iter_mut().filter(|held| held.lease.job == id) {
                let closed = held.open.intersection(&queries);
                held.open.subtract(&closed);
                queries.subtract(&closed);
            }
            self.drop_empty_leases(node);
        }
    }

    /// Ends the worker's leases that have no open query.
    pub(super) fn drop_empty_leases(&mut self, node: NodeId) {
        if let Some(worker) = self.workers.get_mut(&node) {
            worker.leases.retain(|held| !held.open.is_empty());
        }
    }

    /// Ends leases of a worker; their open queries wait for another lease, unless a copy takes over. `loss` is said of each,
    /// where the worker itself does not say why.
    pub(super) fn return_leases(
        &mut self,
        node: NodeId,
        loss: Option<LossReason>,
        is_lost: impl Fn(&HeldLease) -> bool,
    ) {
        let Some(worker) = self.workers.get_mut(&node) else { return };
        let lost: Vec<HeldLease> = worker.leases.extract_if(.., |held| is_lost(held)).collect();
        for held in lost {
            let lease_lost = |reason| SchedulerEffect::LeaseLost { worker: node, lease: held.lease, reason };
            self.effects.extend(loss.map(lease_lost));
            let Some(job) = self.jobs.get_mut(&held.lease.job) else { continue };
            if held.is_copy {
                job.copied.subtract(&held.open);
                continue;
            }
            let mut open = held.open;
            open.subtract(&self.promote_copies(held.lease.job, &open));
            let Some(job) = self.jobs.get_mut(&held.lease.job) else { continue };
            job.leased.subtract(&open);
            job.service.refund(open.len());
            for range in open.iter() {
                let (lease_count, history) = (held.lease_count, held.history.clone());
                job.requeue(Chunk { range, lease_count, history, due: self.now });
            }
            self.statistics.returned += 1;
            self.has_new_work = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_in_slice_order_looks_at_each_item_once() {
        let items: Vec<u32> = (0..100).collect();
        let looks = std::cell::Cell::new(0);
        let is = |wanted: u32| {
            let looks = &looks;
            move |found: &u32| {
                looks.set(looks.get() + 1);
                *found == wanted
            }
        };
        let mut search = CyclicSearch::new(&items);
        for wanted in &items {
            assert_eq!(search.find(is(*wanted)), usize::try_from(*wanted).ok());
        }
        assert_eq!(looks.get(), 100, "one look each");
        for wanted in [7, 3, 99, 0] {
            assert_eq!(search.find(is(wanted)), usize::try_from(wanted).ok());
        }
        assert_eq!(search.find(is(100)), None);
        assert_eq!(search.find(is(1)), Some(1), "a failed search changes nothing");
    }
}
