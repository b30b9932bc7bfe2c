//! The life of a lease: granted or claimed, renewed by each report that lists it, ended by a commit or by failures,
//! and otherwise returned.
//!
//! A lease returns at its expiry, at its worker's death, at the worker's next generation, and when the worker does
//! not know it: two reports that lack it, [`absence_grace`](super::SchedulerConfig::absence_grace) apart, for the first may
//! have been sent before the grant arrived. (A report does not say which answer it follows. If the network is
//! slower than that, the range is run twice and the first commit wins.) A draining worker starts nothing, so there
//! one such report is enough.
//!
//! A reported lease that the worker does not hold here is adopted if it is of an older term, its queries all wait
//! for a lease, and there is room; the first claimant wins. Else it is cancelled.
//!
//! Source: leases (Gray and Cheriton 1989); terms as fencing. Invariant: no query is in two leases of
//! one term, but for the copies of `speculation.rs`.

use std::time::Duration;

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::jobs::{
    BATCH_QUERIES_MAX, BatchSize, LEASES_HELD_MAX, Lease, QueryRange, WorkerReport,
};

use super::fairness::cap_deficits;
use super::job::{Piece, span};
use super::worker::{Held, Stage};
use super::{Committed, Scheduler};
use crate::ranges::RangeSet;

/// Batches of a model of which none has been measured yet are no larger.
const PROBE_QUERIES: u32 = 16;

/// Finds the places of things in a list, in constant time for those that are asked for in the list's order: a worker
/// lists its leases in the order in which they were granted.
struct Finder<'a, T> {
    list: &'a [T],
    next: usize,
}

impl<'a, T> Finder<'a, T> {
    fn over(list: &'a [T]) -> Self {
        Self { list, next: 0 }
    }

    fn find(&mut self, is_it: impl Fn(&T) -> bool) -> Option<usize> {
        let (before, behind) = self.list.split_at(self.next);
        let place = behind.iter().position(&is_it).map(|steps| self.next + steps);
        let place = place.or_else(|| before.iter().position(&is_it))?;
        self.next = place + 1;
        Some(place)
    }
}

impl Scheduler {
    /// Compares what a worker says it holds with what it was given.
    pub(super) fn compare_leases(&mut self, node: NodeId, report: &WorkerReport) {
        let (now, config) = (self.now, &self.config);
        let reported = &report.leases[..report.leases.len().min(LEASES_HELD_MAX)];
        let Some(worker) = self.workers.get_mut(&node) else { return };
        let (mut lost, mut listed) = (Vec::new(), Finder::over(reported));
        for held in &mut worker.leases {
            if let Some(place) = listed.find(|lease| *lease == held.lease) {
                held.expires = now + config.lease;
                held.missing = None;
                held.stage = Stage::reported(report, place, now);
            } else {
                let since = *held.missing.get_or_insert(now);
                if report.draining || now >= since + config.absence_grace {
                    lost.push(held.lease);
                }
            }
        }
        self.statistics.absent += lost.len() as u64;
        self.return_where(node, |held| lost.contains(&held.lease));
        self.revoke_hung(node);
        for (place, lease) in self.unknown(node, reported) {
            self.claim(node, lease, Stage::reported(report, place, now));
        }
    }

    /// The leases that a worker lists and does not hold, and their places in its list.
    fn unknown(&self, node: NodeId, reported: &[Lease]) -> Vec<(usize, Lease)> {
        let held = self.workers.get(&node).map_or(&[][..], |worker| &worker.leases);
        let mut held = Finder::over(held);
        let is_unknown = |(_, lease): &(usize, Lease)| held.find(|held| held.lease == *lease).is_none();
        reported.iter().copied().enumerate().filter(is_unknown).collect()
    }

    /// Adopts or cancels a reported lease that is not known.
    fn claim(&mut self, node: NodeId, lease: Lease, stage: Stage) {
        let Some(worker) = self.workers.get_mut(&node) else { return };
        if worker.leases.iter().any(|held| held.lease == lease) {
            return; // Listed twice.
        }
        // An older term's grant may come late, after the worker was given its fill in this one.
        let has_room = worker.has_room(stage, &self.config);
        let range = span(lease.range);
        // A coordinator that restarts quickly resumes its old term: what it granted then may be claimed now.
        let is_earlier = lease.term < self.term || (lease.term == self.term && self.now < self.claims_until);
        let job = self.jobs.get_mut(&lease.job).filter(|_| is_earlier && has_room);
        let claimed = job.filter(|_| !range.is_empty()).and_then(|job| {
            let piece = job.claim(range)?;
            job.service.charge(u64::from(lease.range.count));
            Some(piece)
        });
        let Some(piece) = claimed else {
            self.statistics.cancelled += 1;
            worker.plan.cancelled.push(lease);
            return;
        };
        self.statistics.adopted += 1;
        worker.leases.push(Held {
            lease,
            open: piece.range.into(),
            history: piece.history,
            leased: lease.attempt,
            is_copy: false,
            stage,
            expires: self.now + self.config.lease,
            missing: None,
        });
    }

    /// Leases what a job has next to a worker.
    pub(super) fn grant(&mut self, node: NodeId) -> bool {
        let Some(worker) = self.workers.get(&node) else { return false };
        let Some((id, pick)) = self.choose_job(node, worker) else { return false };
        cap_deficits(&mut self.jobs, id, self.now);
        let (Some(job), Some(worker)) = (self.jobs.get_mut(&id), self.workers.get_mut(&node)) else {
            return false;
        };
        job.batch_now = match job.batch_size {
            BatchSize::Auto => worker.size(&job.model),
            BatchSize::Fixed(queries) if self.usual.knows(&job.model) => queries.get().min(BATCH_QUERIES_MAX),
            BatchSize::Fixed(queries) => queries.get().min(PROBE_QUERIES),
        };
        let Some(piece) = job.cut(pick, job.batch_now) else { return false };
        job.service.charge(piece.range.end - piece.range.start);
        let count = u32::try_from(piece.range.end - piece.range.start).unwrap_or(u32::MAX);
        let range = QueryRange { first: piece.range.start, count };
        let attempt = piece.leased.saturating_add(1);
        let lease = Lease { job: id, range, attempt, term: self.term };
        worker.grant(Held {
            lease,
            open: RangeSet::from(piece.range),
            history: piece.history,
            leased: attempt,
            is_copy: false,
            stage: Stage::Waits,
            expires: self.now + self.config.lease,
            missing: None,
        });
        self.statistics.granted += 1;
        true
    }

    /// Rows are in the log: their queries are no longer open, whoever held them, and the named leases end.
    pub(super) fn on_committed(&mut self, committed: &Committed) {
        let (now, node) = (self.now, committed.worker);
        let Some(job) = self.jobs.get_mut(&committed.job) else { return };
        let mut leased = RangeSet::new();
        for range in &committed.ranges {
            let range = span(*range);
            let unleased: u64 =
                job.take_out(range.clone()).iter().map(|piece| piece.range.end - piece.range.start).sum();
            job.service.charge(unleased);
            job.service.answered(job.open.remove(range.clone()), now);
            job.dying.remove(range.clone());
            leased.merge(&job.leased.within(range));
        }
        if !committed.ranges.is_empty() {
            job.breaker.succeeded();
        }
        let model = job.model.clone();
        if let Some(worker) = self.workers.get_mut(&node) {
            let inference_us =
                committed.batches.iter().fold(0, |sum: u64, ran| sum.saturating_add(ran.inference_us));
            worker.succeeded(committed.job, inference_us, now);
            for ran in &committed.batches {
                let queries = ran.lease.range.count;
                worker.ran(&model, ran, now);
                job.service.ran(queries, ran.inference_us, now);
                self.usual.add(&model, queries, Duration::from_micros(ran.inference_us));
            }
            let is_won =
                |held: &&Held| held.is_copy && committed.batches.iter().any(|ran| ran.lease == held.lease);
            self.statistics.copies_won += worker.leases.iter().filter(is_won).count() as u64;
        }
        self.release(committed.job, node, leased);
        self.return_where(node, |held| committed.batches.iter().any(|ran| ran.lease == held.lease));
    }

    /// Takes queries that are no longer open out of the leases they are in; those of `likely` are looked at first.
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
                let gone = held.open.intersection(&queries);
                held.open.subtract(&gone);
                queries.subtract(&gone);
            }
            self.drop_empty_leases(node);
        }
    }

    /// Ends the worker's leases of which no query is open.
    pub(super) fn drop_empty_leases(&mut self, node: NodeId) {
        if let Some(worker) = self.workers.get_mut(&node) {
            worker.leases.retain(|held| !held.open.is_empty());
        }
    }

    /// Ends these leases of a worker; their open queries wait for another lease.
    pub(super) fn return_where(&mut self, node: NodeId, is_lost: impl Fn(&Held) -> bool) {
        let Some(worker) = self.workers.get_mut(&node) else { return };
        let lost: Vec<Held> = worker.leases.extract_if(.., |held| is_lost(held)).collect();
        for held in lost {
            let Some(job) = self.jobs.get_mut(&held.lease.job) else { continue };
            if held.is_copy {
                job.copied.subtract(&held.open);
                continue;
            }
            let mut open = held.open;
            open.subtract(&self.promote(held.lease.job, &open));
            let Some(job) = self.jobs.get_mut(&held.lease.job) else { continue };
            job.leased.subtract(&open);
            job.service.refund(open.len());
            for range in open.iter() {
                let (leased, history) = (held.leased, held.history.clone());
                job.wait(Piece { range, leased, history, due: self.now });
            }
            self.statistics.returned += 1;
            self.work_appeared = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_in_any_order_and_looked_for_in_theirs() {
        let list: Vec<u32> = (0..100).collect();
        let looks = std::cell::Cell::new(0);
        let is = |wanted: u32| {
            let looks = &looks;
            move |found: &u32| {
                looks.set(looks.get() + 1);
                *found == wanted
            }
        };
        let mut finder = Finder::over(&list);
        for wanted in &list {
            assert_eq!(finder.find(is(*wanted)), usize::try_from(*wanted).ok());
        }
        assert_eq!(looks.get(), 100, "one look each");
        for wanted in [7, 3, 99, 0] {
            assert_eq!(finder.find(is(wanted)), usize::try_from(wanted).ok());
        }
        assert_eq!(finder.find(is(100)), None);
        assert_eq!(finder.find(is(1)), Some(1), "what is not there changes nothing");
    }
}
