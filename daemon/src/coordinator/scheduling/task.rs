//! The task that owns the scheduler: reports, answers, and what the log says of jobs.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Weak};

use idunno_core::metadata::{Action, State};
use idunno_core::ranges::RangeSet;
use idunno_core::scheduler::{
    JobSpec, ReportReply, Scheduler, SchedulerConfig, SchedulerEffect, SchedulerEvent,
};
use idunno_shared::ids::{JobId, NodeId, Term};
use idunno_shared::wire::blobs::COPIES;
use idunno_shared::wire::control::{JobState, SharingView};
use idunno_shared::wire::jobs::{Lease, Orders, WorkerReport};
use idunno_shared::wire::refusal::Refusal;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::super::{Deps, LeaderTerm, assignment_text, grants, may_decide};
use super::{Answer, Input, RECONCILE_PERIOD, SchedulerView};
use crate::membership::MembershipView;
use crate::runtime::clock::wall_ms;

/// Reassignments that are remembered for those who look later.
const SHARINGS_KEPT: usize = 32;

pub(super) struct SchedulerTask {
    pub(super) leader_term: Weak<LeaderTerm>,
    deps: Deps,
    term: Term,
    scheduler: Scheduler,
    pub(super) inputs: mpsc::Sender<Input>,
    waiting: BTreeMap<NodeId, Answer<Orders>>,
    reports: BTreeMap<NodeId, Arc<WorkerReport>>,
    live: BTreeSet<NodeId>,
    has_leased: bool,
    /// What the scheduler was told last of each job, but for its pending queries.
    told: BTreeMap<JobId, JobSpec>,
    sharings: VecDeque<SharingView>,
}

impl SchedulerTask {
    /// One of a term, before it has heard of anything.
    pub(super) fn new(
        leader_term: Weak<LeaderTerm>,
        deps: Deps,
        term: Term,
        inputs: mpsc::Sender<Input>,
    ) -> Self {
        let scheduler = Scheduler::new(SchedulerConfig::default(), term, deps.clock.now());
        Self {
            leader_term,
            deps,
            term,
            scheduler,
            inputs,
            waiting: BTreeMap::new(),
            reports: BTreeMap::new(),
            live: BTreeSet::new(),
            has_leased: false,
            told: BTreeMap::new(),
            sharings: VecDeque::new(),
        }
    }

    pub(super) async fn run(mut self, mut queued: mpsc::Receiver<Input>, closed: CancellationToken) {
        let mut view = self.deps.membership.view();
        self.live = self.deps.membership.current().live().collect();
        self.tell(SchedulerEvent::ExpectedWorkers(self.live.clone()));
        // All jobs come before the first report.
        self.refresh();
        let mut reconcile = interval(RECONCILE_PERIOD);
        reconcile.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = reconcile.tick() => self.refresh(),
                Some(input) = queued.recv() => self.take(input),
                changed = view.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = Arc::clone(&view.borrow_and_update());
                    self.notice_deaths(&now);
                }
                () = self.deps.clock.sleep_until(self.scheduler.next_deadline()) => self.tell(SchedulerEvent::Tick),
                () = closed.cancelled() => return,
            }
        }
    }

    pub(super) fn state(&self) -> Arc<State> {
        Arc::clone(&self.deps.consensus.state().borrow())
    }

    pub(super) fn tell(&mut self, event: SchedulerEvent) {
        self.scheduler.handle(event, self.deps.clock.now());
        while let Some(effect) = self.scheduler.poll_effect() {
            self.obey(effect);
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Report(report, reply) => self.report(report, reply),
            Input::Commit(commit, reply) => self.commit(commit, reply),
            Input::Committed(commit, outcome, reply) => self.committed(&commit, outcome, reply),
            Input::Failed(worker, lease, faults) => {
                for fault in &faults {
                    info!(%worker, job = %lease.job, kind = ?fault.kind, ranges = ?fault.ranges, reason = %fault.reason, "failed");
                }
                self.tell(SchedulerEvent::Failed { worker, lease, faults });
            }
            Input::Trained(worker, model, Ok(trained), reply) => {
                self.trained(worker, model, trained, reply);
            }
            Input::Trained(worker, model, Err(reason), reply) => {
                warn!(%worker, %model, %reason, "training failed");
                self.tell(SchedulerEvent::TrainingFailed { worker, model, reason });
                // The worker may have gone meanwhile.
                let _ = reply.send(Ok(()));
            }
            Input::MarkedDead(job, queries, outcome) => {
                self.tell(match outcome {
                    Ok(()) => SchedulerEvent::DeadLettersCommitted { job, queries },
                    Err(_) => SchedulerEvent::DeadLettersRefused { job, queries },
                });
                self.refresh();
            }
            Input::Paused(job) => {
                // It leases nothing of the job until it is told of it again.
                if let Some(told) = self.told.get_mut(&job) {
                    told.running = false;
                }
                self.refresh();
            }
            Input::Refresh => self.refresh(),
            Input::View(reply) => {
                // The asker may have given up.
                let _ = reply.send(self.view());
            }
        }
    }

    fn report(&mut self, report: WorkerReport, reply: Answer<Orders>) {
        let worker = report.worker;
        let view = self.deps.membership.current();
        let refusal = if view.is_live(worker) {
            may_decide(&self.deps).err()
        } else {
            let message =
                format!("{} is not in the cluster, as far as its coordinator knows", view.name(worker));
            Some(Refusal::conflict(message))
        };
        if let Some(refusal) = refusal {
            // The worker may have gone meanwhile.
            let _ = reply.send(Err(refusal));
            return;
        }
        self.live.insert(worker);
        let newest = self.reports.get(&worker).map(|newest| (newest.generation, newest.number));
        if newest.is_some_and(|newest| (report.generation, report.number) < newest) {
            // It was overtaken: its asker has given up.
            let _ = reply.send(Ok(Orders { term: self.term, ..Orders::default() }));
            return;
        }
        if let Some(older) = self.waiting.insert(worker, reply) {
            // Its asker has given up, or is about to read this.
            let _ = older.send(Ok(Orders { term: self.term, ..Orders::default() }));
        }
        let report = Arc::new(report);
        self.reports.insert(worker, Arc::clone(&report));
        self.tell(SchedulerEvent::Report(report));
    }

    fn obey(&mut self, effect: SchedulerEffect) {
        match effect {
            SchedulerEffect::Answer { worker, reply } => self.answer(worker, reply),
            SchedulerEffect::DeadLetter { job, dead_letters } => self.mark_dead(job, dead_letters),
            SchedulerEffect::PauseJob { job, reason } => {
                warn!(%job, %reason, "paused");
                self.propose_surely(Action::PauseJob { job, reason }, move |_| Input::Paused(job));
            }
            SchedulerEffect::Rebalanced { reason, shares, reassigned } => {
                let view = self.deps.membership.current();
                let text = assignment_text::told(|node| view.name(node), reason, &shares, &reassigned);
                info!("{text}");
                self.sharings.push_back(SharingView { at_ms: wall_ms(), text });
                if self.sharings.len() > SHARINGS_KEPT {
                    self.sharings.pop_front();
                }
            }
            SchedulerEffect::TrainingFailed { model, reason } => {
                self.propose_surely(Action::ModelFailed { model, reason }, |_| Input::Refresh);
            }
        }
    }

    fn answer(&mut self, worker: NodeId, mut plan: ReportReply) {
        let Some(reply) = self.waiting.remove(&worker) else { return };
        if let Err(refusal) = may_decide(&self.deps) {
            // The grants return, for the worker's next reports do not list them.
            let _ = reply.send(Err(refusal));
            return;
        }
        if let Some(reason) = &plan.restart {
            warn!(%worker, %reason, "a model server is to be restarted");
        }
        let state = self.state();
        if self.live.len() > COPIES {
            plan.grants.iter_mut().for_each(|lease| *lease = self.nearest(&state, worker, *lease));
        }
        let weights = |lease: Lease| grants::weights(&state, lease);
        grants::fit(&mut plan.grants, weights, |lease, kept| self.scheduler.shorten(worker, lease, kept));
        let view = self.deps.membership.current();
        let orders =
            grants::orders(&state, &view, self.term, &plan, self.reports.get(&worker).map(Arc::as_ref));
        self.note_grants(worker, &orders);
        // A worker that has gone does not list the leases in its next report, so they return.
        let _ = reply.send(Ok(orders));
    }

    /// Moves a batch that was just granted to the inputs that its worker has most of, among the next that wait.
    fn nearest(&mut self, state: &State, worker: NodeId, lease: Lease) -> Lease {
        let local = |lease: &Lease| grants::local_bytes(state, worker, *lease);
        let others = self.scheduler.alternatives(lease);
        let best = others.into_iter().max_by_key(|other| (local(other), Reverse(other.range.first)));
        match best {
            Some(best) if local(&best) > local(&lease) && self.scheduler.move_batch(worker, lease, best) => {
                best
            }
            _ => lease,
        }
    }

    /// How long a failover, or a worker's death, held its work up is told by these lines.
    fn note_grants(&mut self, worker: NodeId, orders: &Orders) {
        if !self.has_leased && !orders.grants.is_empty() {
            info!(term = %self.term, %worker, "the first lease of the term");
            self.has_leased = true;
        }
        for lease in orders.grants.iter().map(|grant| grant.lease) {
            if lease.attempt > 1 {
                info!(%worker, %lease, "leased again");
            } else {
                debug!(%worker, %lease, "leased");
            }
        }
    }

    /// Tells the scheduler of jobs and models as the log has them now. Outcomes of older entries may still be on their
    /// way here: what they say of a query that is pending in the log does not count (`committed`), or is set right by
    /// the refresh behind them (`MarkedDead`).
    pub(super) fn refresh(&mut self) {
        let state = self.state();
        self.tell(SchedulerEvent::Policy(state.policy()));
        for job in state.jobs() {
            let Some(artefact) = &job.artefact else { continue };
            if job.state.is_over() {
                if self.told.remove(&job.id).is_some() {
                    self.tell(SchedulerEvent::JobEnded(job.id));
                }
                continue;
            }
            let spec = JobSpec {
                id: job.id,
                model: job.model.clone(),
                version: artefact.version,
                batch_size: job.batch_size,
                running: job.state == JobState::Running,
                pending: job.pending(),
                weight: job.weight,
            };
            let said = JobSpec { pending: RangeSet::new(), ..spec.clone() };
            let open = self.scheduler.pending(job.id) + self.scheduler.leased(job.id);
            if self.told.get(&job.id) == Some(&said) && spec.pending.len() == open {
                continue;
            }
            self.told.insert(job.id, said);
            self.tell(SchedulerEvent::Job(spec));
        }
        let deleted: Vec<JobId> = self.told.keys().copied().filter(|id| state.job(*id).is_none()).collect();
        for id in deleted {
            self.told.remove(&id);
            self.tell(SchedulerEvent::JobEnded(id));
        }
        for (model, record) in state.models() {
            self.tell(match &record.training {
                Some(training) => {
                    SchedulerEvent::ModelWanted { model: model.clone(), training: training.clone() }
                }
                None if record.failure.is_some() => SchedulerEvent::ModelGone(model.clone()),
                None => SchedulerEvent::ModelTrained(model.clone()),
            });
        }
    }

    fn notice_deaths(&mut self, view: &MembershipView) {
        let live: BTreeSet<_> = view.live().collect();
        for &gone in self.live.clone().difference(&live) {
            self.reports.remove(&gone);
            self.tell(SchedulerEvent::WorkerDead(gone));
        }
        self.live = live;
    }

    fn view(&self) -> SchedulerView {
        let leased = self.told.keys().map(|&job| (job, self.scheduler.leased(job)));
        let batches = self.told.keys().map(|&job| (job, self.scheduler.current_batch_size(job)));
        SchedulerView {
            reports: self.reports.clone(),
            assignments: self.scheduler.assignments(),
            leased: leased.collect(),
            batches: batches.collect(),
            sharings: self.sharings.clone(),
        }
    }
}
