//! The scheduler's shell: passes reports and the log's jobs to it, and its plans to workers and the log.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Weak};

use idunno_core::metadata::{Action, State};
use idunno_core::ranges::RangeSet;
use idunno_core::scheduler::{
    JobSpec, ReplyPlan, Scheduler, SchedulerConfig, SchedulerEffect, SchedulerEvent,
};
use idunno_shared::ids::{JobId, NodeId, Term};
use idunno_shared::wire::blobs::COPIES;
use idunno_shared::wire::control::{JobState, RebalanceView};
use idunno_shared::wire::jobs::{Lease, ReportReply, WorkerReport};
use idunno_shared::wire::refusal::Refusal;
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::super::grants::{self, InputCache};
use super::super::{Deps, LeaderTerm, assignment_text, may_decide};
use super::{Answer, INPUTS_MAX, Input, RECONCILE_PERIOD, SchedulerHandle, SchedulerView};
use crate::membership::MembershipView;
use crate::runtime::clock::wall_ms;
use crate::runtime::driver::{Driver, Shell, Turn};

/// Reassignments kept for consoles that connect later.
const REBALANCES_KEPT: usize = 32;

/// Translates reports and log entries for the scheduler, and its plans for workers and the log.
pub(in super::super) struct SchedulerTask {
    pub(super) leader_term: Weak<LeaderTerm>,
    deps: Deps,
    term: Term,
    pub(super) inputs: mpsc::Sender<Input>,
    reconcile: Interval,
    view: watch::Receiver<Arc<MembershipView>>,
    waiting: BTreeMap<NodeId, Answer<ReportReply>>,
    reports: BTreeMap<NodeId, Arc<WorkerReport>>,
    live: BTreeSet<NodeId>,
    has_leased: bool,
    inputs_found: InputCache,
    /// Each job as last announced to the scheduler, without its pending queries.
    announced: BTreeMap<JobId, JobSpec>,
    rebalances: VecDeque<RebalanceView>,
}

impl SchedulerTask {
    /// Starts the task of a term.
    pub(in super::super) fn spawn(
        leader_term: Weak<LeaderTerm>,
        deps: Deps,
        term: Term,
        closed: &CancellationToken,
    ) -> SchedulerHandle {
        let (clock, monitor) = (deps.clock, deps.monitor.clone());
        let machine = Scheduler::new(SchedulerConfig::default(), term, clock.now());
        let (inputs, queued) = mpsc::channel(INPUTS_MAX);
        let handle = SchedulerHandle { deps: deps.clone(), inputs: inputs.clone() };
        let mut reconcile = interval(RECONCILE_PERIOD);
        reconcile.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shell = Self {
            leader_term,
            view: deps.membership.view(),
            deps,
            term,
            inputs,
            reconcile,
            waiting: BTreeMap::new(),
            reports: BTreeMap::new(),
            live: BTreeSet::new(),
            has_leased: false,
            inputs_found: InputCache::default(),
            announced: BTreeMap::new(),
            rebalances: VecDeque::new(),
        };
        Driver { machine, shell, clock, inputs: queued }.spawn("scheduler", &monitor, closed);
        handle
    }
}

impl Shell for SchedulerTask {
    type Machine = Scheduler;
    type Input = Input;

    fn begin(&mut self, turn: &mut Turn<Self>) {
        self.live = self.deps.membership.current().live().collect();
        turn.event(SchedulerEvent::ExpectedWorkers(self.live.clone()));
        // All jobs come before the first report.
        turn.input(Input::Refresh);
    }

    async fn next_input(&mut self) -> Option<Input> {
        tokio::select! {
            _ = self.reconcile.tick() => Some(Input::Refresh),
            changed = self.view.changed() => changed.ok().map(|()| Input::Members),
        }
    }

    fn on_deadline(&mut self, turn: &mut Turn<Self>) {
        turn.event(SchedulerEvent::Tick);
    }

    async fn translate(&mut self, input: Input, turn: &mut Turn<Self>) {
        match input {
            Input::Report(report, reply) => self.report(report, reply, turn),
            Input::Commit(commit, reply) => self.commit(commit, reply),
            Input::Committed(commit, outcome, reply) => self.committed(&commit, outcome, reply, turn),
            Input::Failed(worker, lease, faults) => {
                for fault in &faults {
                    info!(%worker, job = %lease.job, kind = ?fault.kind, ranges = ?fault.ranges, reason = %fault.reason, "a worker could not answer queries");
                }
                turn.event(SchedulerEvent::Failed { worker, lease, faults });
            }
            Input::Trained(worker, model, Ok(trained), reply) => {
                self.trained(worker, model, trained, reply);
            }
            Input::Trained(worker, model, Err(reason), reply) => {
                warn!(%worker, %model, %reason, "training failed");
                turn.event(SchedulerEvent::TrainingFailed { worker, model, reason });
                // The worker may have gone meanwhile.
                let _ = reply.send(Ok(()));
            }
            Input::MarkedDead(job, queries, outcome) => {
                turn.event(match outcome {
                    Ok(()) => SchedulerEvent::DeadLettersCommitted { job, queries },
                    Err(_) => SchedulerEvent::DeadLettersRefused { job, queries },
                });
                turn.input(Input::Refresh);
            }
            Input::Paused(job) => {
                // The scheduler leases nothing of a paused job until the job is announced to it again.
                if let Some(announced) = self.announced.get_mut(&job) {
                    announced.running = false;
                }
                turn.input(Input::Refresh);
            }
            Input::Refresh => self.refresh(turn),
            Input::Members => self.notice_deaths(turn),
            Input::View(reply) => {
                // The caller may have given up.
                let _ = reply.send(self.view(&turn.machine));
            }
        }
    }

    async fn carry_out(&mut self, effect: SchedulerEffect, turn: &mut Turn<Self>) {
        match effect {
            SchedulerEffect::Answer { worker, reply: plan } => self.answer(worker, plan, &mut turn.machine),
            SchedulerEffect::DeadLetter { job, dead_letters } => self.mark_dead(job, dead_letters),
            SchedulerEffect::PauseJob { job, reason } => {
                warn!(%job, %reason, "pausing a job");
                self.propose_surely(Action::PauseJob { job, reason }, move |_| Input::Paused(job));
            }
            SchedulerEffect::Rebalanced { reason, shares, reassigned } => {
                let view = self.deps.membership.current();
                let text = assignment_text::describe(|node| view.name(node), reason, &shares, &reassigned);
                info!("{text}");
                self.rebalances.push_back(RebalanceView {
                    at_ms: self.deps.membership.current().corrected_ms(wall_ms()),
                    text,
                });
                if self.rebalances.len() > REBALANCES_KEPT {
                    self.rebalances.pop_front();
                }
            }
            SchedulerEffect::LeaseLost { worker, lease, reason } => {
                info!(%worker, %lease, ?reason, "a worker lost a lease");
            }
            SchedulerEffect::TrainingFailed { model, reason } => {
                self.propose_surely(Action::ModelFailed { model, reason }, |_| Input::Refresh);
            }
        }
    }
}

impl SchedulerTask {
    pub(super) fn state(&self) -> Arc<State> {
        Arc::clone(&self.deps.consensus.state().borrow())
    }

    fn report(&mut self, report: WorkerReport, reply: Answer<ReportReply>, turn: &mut Turn<Self>) {
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
            // A newer report has overtaken this one, whose sender no longer waits.
            let _ = reply.send(Ok(ReportReply { term: self.term, ..ReportReply::default() }));
            return;
        }
        if let Some(older) = self.waiting.insert(worker, reply) {
            // The sender of the older report has given up, or is about to read this.
            let _ = older.send(Ok(ReportReply { term: self.term, ..ReportReply::default() }));
        }
        let report = Arc::new(report);
        self.reports.insert(worker, Arc::clone(&report));
        turn.event(SchedulerEvent::Report(report));
    }

    fn answer(&mut self, worker: NodeId, mut plan: ReplyPlan, scheduler: &mut Scheduler) {
        let Some(reply) = self.waiting.remove(&worker) else { return };
        if let Err(refusal) = may_decide(&self.deps) {
            // The grants return to the queue, because the worker's next reports do not list them.
            let _ = reply.send(Err(refusal));
            return;
        }
        if let Some(reason) = &plan.restart {
            warn!(%worker, %reason, "ordering a worker to restart its model server");
        }
        let state = self.state();
        if self.live.len() > COPIES {
            let inputs = &mut self.inputs_found;
            plan.grants
                .iter_mut()
                .for_each(|lease| *lease = nearest(scheduler, &state, inputs, worker, *lease));
        }
        let inputs = &mut self.inputs_found;
        let weights = |lease: Lease| grants::weights(&state, inputs, lease);
        grants::fit(&mut plan.grants, weights, |lease, kept| scheduler.shorten(worker, lease, kept));
        let view = self.deps.membership.current();
        let orders = grants::orders(
            &state,
            &view,
            &mut self.inputs_found,
            self.term,
            &plan,
            self.reports.get(&worker).map(Arc::as_ref),
        );
        self.note_grants(worker, &orders);
        // If the worker has gone, its next report does not list the leases, so they return to the queue.
        let _ = reply.send(Ok(orders));
    }

    /// These lines show for how long a failover or a worker's death interrupted its work.
    fn note_grants(&mut self, worker: NodeId, orders: &ReportReply) {
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

    /// Announces jobs and models to the scheduler as the log has them now. Outcomes of older entries may still be on their
    /// way here. What they say about a query that is pending in the log is ignored (`committed`), or corrected by the
    /// refresh that follows them (`MarkedDead`).
    fn refresh(&mut self, turn: &mut Turn<Self>) {
        let state = self.state();
        turn.event(SchedulerEvent::Policy(state.policy()));
        self.announced.retain(|&id, _| {
            let is_over = state.job(id).is_none_or(|job| job.state.is_over());
            if is_over {
                turn.event(SchedulerEvent::JobEnded(id));
            }
            !is_over
        });
        for job in state.unsettled_jobs().filter(|job| !job.state.is_over()) {
            let Some(artefact) = &job.artefact else { continue };
            let announced = JobSpec {
                id: job.id,
                model: job.model.clone(),
                version: artefact.version,
                batch_size: job.batch_size,
                running: job.state == JobState::Running,
                pending: RangeSet::new(),
                weight: job.weight,
                needs: job.needs(),
            };
            let open = turn.machine.pending(job.id) + turn.machine.leased(job.id);
            if self.announced.get(&job.id) == Some(&announced) && job.pending_len() == open {
                continue;
            }
            // Only now: it takes as long as the job has answered ranges.
            let spec = JobSpec { pending: job.pending(), ..announced.clone() };
            self.announced.insert(job.id, announced);
            turn.event(SchedulerEvent::Job(spec));
        }
        for (model, record) in state.models() {
            turn.event(match &record.training {
                Some(training) => {
                    SchedulerEvent::ModelWanted { model: model.clone(), training: training.clone() }
                }
                None if record.failure.is_some() => SchedulerEvent::ModelGone(model.clone()),
                None => SchedulerEvent::ModelTrained(model.clone()),
            });
        }
    }

    fn notice_deaths(&mut self, turn: &mut Turn<Self>) {
        let live: BTreeSet<_> = self.view.borrow_and_update().live().collect();
        for &gone in self.live.clone().difference(&live) {
            self.reports.remove(&gone);
            turn.event(SchedulerEvent::WorkerDead(gone));
        }
        self.live = live;
    }

    fn view(&self, scheduler: &Scheduler) -> SchedulerView {
        let leased = self.announced.keys().map(|&job| (job, scheduler.leased(job)));
        let batches = self.announced.keys().map(|&job| (job, scheduler.current_batch_size(job)));
        SchedulerView {
            reports: self.reports.clone(),
            assignments: scheduler.assignments(),
            leased: leased.collect(),
            batches: batches.collect(),
            rebalances: self.rebalances.clone(),
        }
    }
}

/// Moves a batch that was just granted to those of the next waiting inputs of which its worker holds the most bytes.
fn nearest(
    scheduler: &mut Scheduler,
    state: &State,
    inputs: &mut InputCache,
    worker: NodeId,
    lease: Lease,
) -> Lease {
    let mut local = |lease: Lease| grants::local_bytes(state, inputs, worker, lease);
    let others = scheduler.alternatives(lease).into_iter();
    let best = others
        .map(|other| (local(other), other))
        .max_by_key(|(bytes, other)| (*bytes, Reverse(other.range.first)));
    match best {
        Some((bytes, best)) if bytes > local(lease) && scheduler.move_batch(worker, lease, best) => best,
        _ => lease,
    }
}
