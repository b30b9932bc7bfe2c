//! Reports and their answers.
//!
//! A report that was overtaken by a later one of its worker says nothing any more: it is answered empty. Any other
//! is answered at once if there is something to say or it does not wait; else when there is, and at the
//! latest when its wait is over. Batches are granted only into an unanswered report, so that no grant lies around.
//! Many waiting workers are served in rounds of one batch each, the emptiest first.
//!
//! After term start nothing is granted during the claim grace: workers claim what they run (`lease.rs`).

use std::collections::BTreeSet;
use std::time::Duration;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::jobs::WorkerReport;

use super::worker::{FORGET_AFTER, WORKERS_MAX, Worker};
use super::{OrdersPlan, Scheduler, SchedulerEffect};

impl Scheduler {
    pub(super) fn on_report(&mut self, report: &WorkerReport) {
        let node = report.worker;
        let known = self.workers.get(&node).map(|worker| worker.generation);
        let newest = self.workers.get(&node).map(|worker| (worker.generation, worker.number));
        let is_stale = newest.is_some_and(|newest| (report.generation, report.number) < newest);
        if is_stale || (known.is_none() && self.workers.len() >= WORKERS_MAX) {
            if let Some(worker) = self.workers.get_mut(&node) {
                worker.parked = None;
            }
            self.effects.push_back(SchedulerEffect::Answer { worker: node, plan: OrdersPlan::default() });
            return;
        }
        if known.is_some_and(|generation| report.generation > generation) {
            self.forget_worker(node);
        }
        let now = self.now;
        let worker = self.workers.entry(node).or_insert_with(|| Worker::new(report, now));
        worker.update(report, now);
        worker.parked = Some(now + Duration::from_millis(report.wait_ms.into()).min(self.config.wait_max));
        self.compare_leases(node, report);
        self.training_reported(node);
        self.claimed(node);
        self.assign_trainings();
        self.order_training(node);
        self.stop_trainings(node);
        self.share_with(node);
        self.serve(node);
    }

    /// Its leases return, its trainings go to another; it is as if it had never reported.
    pub(super) fn forget_worker(&mut self, node: NodeId) {
        self.return_where(node, |_| true);
        if self.workers.remove(&node).is_some() {
            self.training_lost(node);
        }
    }

    pub(super) fn on_worker_dead(&mut self, node: NodeId) {
        let known = self.workers.get(&node).map(|worker| worker.parked.is_some());
        let is_waiting = known == Some(true);
        self.forget_worker(node);
        self.share_with(node);
        self.claimed(node);
        // Its judgement may be wanted no longer: what waited for it may go to others.
        self.work_appeared = true;
        if is_waiting {
            self.effects.push_back(SchedulerEffect::Answer { worker: node, plan: OrdersPlan::default() });
        }
    }

    pub(super) fn on_expected(&mut self, expected: BTreeSet<NodeId>) {
        let unreported = expected.into_iter().filter(|node| !self.workers.contains_key(node)).collect();
        self.unreported = Some(unreported);
        self.end_grace_if_all_claimed();
    }

    /// The worker has claimed what it runs, or never will.
    fn claimed(&mut self, node: NodeId) {
        if let Some(unreported) = &mut self.unreported {
            unreported.remove(&node);
            self.end_grace_if_all_claimed();
        }
    }

    fn end_grace_if_all_claimed(&mut self) {
        if self.is_claiming() && self.unreported.as_ref().is_some_and(BTreeSet::is_empty) {
            self.claims_until = self.now;
            self.work_appeared = true;
        }
    }

    /// Whether the claim grace lasts.
    pub(super) fn is_claiming(&self) -> bool {
        self.now < self.claims_until
    }

    /// Grants one worker what it wants and may hold.
    pub(super) fn serve(&mut self, node: NodeId) {
        if self.is_claiming() || self.work_appeared {
            return;
        }
        while self.workers.get(&node).is_some_and(|worker| worker.wants_batch(&self.config)) {
            if !self.give(node) {
                break;
            }
        }
    }

    fn give(&mut self, node: NodeId) -> bool {
        self.grant(node) || self.copy(node)
    }

    /// Grants all waiting workers, in rounds.
    pub(super) fn serve_all(&mut self) {
        if self.is_claiming() {
            return;
        }
        loop {
            let mut is_served = false;
            for node in self.hungry() {
                is_served |= self.give(node);
            }
            if !is_served {
                return;
            }
        }
    }

    /// Answers the reports that have an answer or have waited long enough.
    pub(super) fn answer(&mut self) {
        let now = self.now;
        for (node, worker) in &mut self.workers {
            let is_due = worker.parked.is_some_and(|until| until <= now);
            if is_due || !worker.plan.is_empty() {
                worker.parked = None;
                worker.wanted = 0;
                let plan = std::mem::take(&mut worker.plan);
                self.effects.push_back(SchedulerEffect::Answer { worker: *node, plan });
            }
        }
    }

    /// Returns what expired, and forgets workers that have been silent for long.
    pub(super) fn expire(&mut self) {
        let now = self.now;
        let nodes: Vec<NodeId> = self.workers.keys().copied().collect();
        for node in nodes {
            let returned = self.statistics.returned;
            self.return_where(node, |held| held.expires <= now);
            self.statistics.expired += self.statistics.returned - returned;
            let Some(worker) = self.workers.get(&node) else { continue };
            let is_idle = worker.leases.is_empty() && worker.parked.is_none();
            let is_forgotten = is_idle && worker.heard + FORGET_AFTER <= now;
            let is_silent = worker.silent_at(&self.config) <= now;
            if is_forgotten {
                self.workers.remove(&node);
            }
            if is_silent {
                self.training_lost(node);
                self.share_with(node);
            }
        }
    }
}
