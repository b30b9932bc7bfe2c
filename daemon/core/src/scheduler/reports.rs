//! Reports, their replies, and the claim grace at the start of a term.
//!
//! A report that a later one of the same worker has overtaken is ignored and gets an empty reply. Any other is answered
//! at once if there is something to reply or it does not wait; otherwise as soon as there is, and at the latest when
//! its wait is over. Batches are granted only to workers with an unanswered report, so no grant is held back. Waiting
//! workers are served in rounds of one batch each, those with the fewest leases first.
//!
//! During the claim grace nothing is granted: workers claim what they still run (`leases.rs`).

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::jobs::WorkerReport;

use super::worker::{FORGET_AFTER, WORKERS_MAX, Worker};
use super::{LossReason, ReplyPlan, Scheduler, SchedulerEffect};

impl Scheduler {
    pub(super) fn on_report(&mut self, report: &WorkerReport) {
        let node = report.worker;
        let newest = self.workers.get(&node).map(|worker| (worker.generation, worker.number));
        let is_stale = newest.is_some_and(|newest| (report.generation, report.number) < newest);
        if is_stale || (newest.is_none() && self.workers.len() >= WORKERS_MAX) {
            if let Some(worker) = self.workers.get_mut(&node) {
                worker.reply_by = None;
            }
            self.effects.push_back(SchedulerEffect::Answer { worker: node, reply: ReplyPlan::default() });
            return;
        }
        if newest.is_some_and(|(generation, _)| report.generation > generation) {
            self.forget_worker(node);
        }
        let now = self.now;
        let worker = self.workers.get_or_insert_with(node, || Worker::new(report, now));
        worker.update(report, now);
        self.has_shared_backends |= !worker.shared.is_empty();
        let wait = Duration::from_millis(report.wait_ms.into());
        worker.reply_by = Some(now + wait.min(self.config.wait_max));
        for (job, lost) in worker.take_recovered(now, &self.config) {
            if let Some(job) = self.jobs.get_mut(&job) {
                job.service.charge_time(lost);
            }
        }
        self.reconcile_leases(node, report);
        self.on_training_reported(node);
        self.note_claimed(node);
        self.assign_trainings();
        self.send_training(node);
        self.stop_trainings(node);
        self.rebalance_if_changed(node);
        self.serve(node);
    }

    /// Returns its leases and trainings and drops its record.
    fn forget_worker(&mut self, node: NodeId) {
        self.return_leases(node, Some(LossReason::WorkerGone), |_| true);
        if self.workers.remove(&node).is_some() {
            self.trainings.lose_worker(node);
        }
    }

    pub(super) fn on_worker_dead(&mut self, node: NodeId) {
        let is_waiting = self.workers.get(&node).is_some_and(|worker| worker.reply_by.is_some());
        self.forget_worker(node);
        self.rebalance_if_changed(node);
        self.note_claimed(node);
        // Chunks that were kept for it may go to others.
        self.has_new_work = true;
        if is_waiting {
            self.effects.push_back(SchedulerEffect::Answer { worker: node, reply: ReplyPlan::default() });
        }
    }

    pub(super) fn on_expected_workers(&mut self, expected: BTreeSet<NodeId>) {
        let unreported = expected.into_iter().filter(|node| !self.workers.contains_key(node)).collect();
        self.unreported = Some(unreported);
        self.end_grace_if_all_claimed();
    }

    /// The worker has claimed its leases, or is dead.
    fn note_claimed(&mut self, node: NodeId) {
        if let Some(unreported) = &mut self.unreported {
            unreported.remove(&node);
            self.end_grace_if_all_claimed();
        }
    }

    fn end_grace_if_all_claimed(&mut self) {
        if self.is_in_claim_grace() && self.unreported.as_ref().is_some_and(BTreeSet::is_empty) {
            self.grace_ends = self.now;
            self.has_new_work = true;
        }
    }

    pub(super) fn is_in_claim_grace(&self) -> bool {
        self.now < self.grace_ends
    }

    /// Grants one worker what it wants and may hold, unless all waiting workers are about to be served.
    pub(super) fn serve(&mut self, node: NodeId) {
        if self.is_in_claim_grace() || self.has_new_work {
            return;
        }
        while self.workers.get(&node).is_some_and(|worker| worker.wants_batch(&self.config)) {
            if !self.grant_or_copy(node) {
                break;
            }
        }
    }

    fn grant_or_copy(&mut self, node: NodeId) -> bool {
        self.grant(node) || self.copy_straggler(node)
    }

    /// Grants all waiting workers what they want, in rounds. What no worker can get is found out once a round.
    pub(super) fn serve_all(&mut self) {
        if self.is_in_claim_grace() {
            return;
        }
        loop {
            self.statistics.compared += self.jobs.len() as u64;
            let has_work = self.jobs.values().any(|job| job.may_lease() && job.has_work());
            let has_stragglers = self.has_stragglers();
            if !has_work && !has_stragglers {
                return;
            }
            let mut is_served = false;
            for node in self.waiting_workers() {
                is_served |= (has_work && self.grant(node)) || (has_stragglers && self.copy_straggler(node));
            }
            if !is_served {
                return;
            }
        }
    }

    /// Workers that want a batch and may hold one more, those with the fewest leases first.
    fn waiting_workers(&self) -> Vec<NodeId> {
        let mut waiting: Vec<_> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.wants_batch(&self.config))
            .map(|(node, worker)| (worker.leases.len(), Reverse(worker.wanted), *node))
            .collect();
        waiting.sort_unstable();
        waiting.into_iter().map(|(_, _, node)| node).collect()
    }

    /// Answers the reports that have a reply or have waited long enough.
    pub(super) fn send_replies(&mut self) {
        let now = self.now;
        for node in self.workers.touched() {
            let Some(worker) = self.workers.get_mut(&node) else { continue };
            let is_due = worker.reply_by.is_some_and(|at| at <= now);
            if is_due || !worker.reply.is_empty() {
                worker.reply_by = None;
                worker.wanted = 0;
                let reply = std::mem::take(&mut worker.reply);
                self.effects.push_back(SchedulerEffect::Answer { worker: node, reply });
            }
        }
    }

    /// Returns expired leases, and handles workers that have stopped reporting.
    pub(super) fn expire(&mut self) {
        let now = self.now;
        for node in self.workers.due(now) {
            let returned = self.statistics.returned;
            self.return_leases(node, Some(LossReason::Expired), |held| held.expires_at <= now);
            self.statistics.expired += self.statistics.returned - returned;
            let Some(worker) = self.workers.get(&node) else { continue };
            let is_idle = worker.leases.is_empty() && worker.reply_by.is_none();
            let is_forgotten = is_idle && worker.last_report + FORGET_AFTER <= now;
            let is_silent = worker.silent_at(&self.config) <= now;
            if is_forgotten {
                self.workers.remove(&node);
            }
            if is_silent {
                self.trainings.lose_worker(node);
                self.rebalance_if_changed(node);
            }
        }
    }
}
