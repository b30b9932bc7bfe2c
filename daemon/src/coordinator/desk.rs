//! The desk: one task that owns the scheduler of the term, answers workers' reports and brings their results into the
//! log.
//!
//! Reports wait at the desk until the scheduler answers them (long polls); one a worker, a newer one replaces it.
//! Proposals run beside the task and come back to it as inputs, so that a slow log does not hold up reports.
//! What the scheduler knows of jobs is compared with the log when something concerns them, and every
//! [`RECONCILE_PERIOD`]: a change whose outcome nobody heard of must not leave a job waiting for ever.
//! Without a majority no report is answered with orders.
//! Bounds: [`INPUTS_MAX`] inputs queue up, then callers wait. Only live members' reports are kept. Proposals that the
//! scheduler asks for are repeated; those of workers are not, for the worker repeats them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use idunno_core::metadata::{Action, Applied, Letter, State};
use idunno_core::ranges::RangeSet;
use idunno_core::scheduler::{
    Assignment, Committed, Config, DeadQuery, Effect, Event, JobSpec, OrdersPlan, RanBatch, Scheduler,
};
use idunno_shared::ids::{JobId, NodeId, Term};
use idunno_shared::names::ModelName;
use idunno_shared::wire::blobs::COPIES;
use idunno_shared::wire::control::{JobState, SharingView};
use idunno_shared::wire::jobs::{
    BatchOutcome, Fault, JobReply, Lease, ModelArtefact, Orders, QueryRange, SegmentCommit, Training,
    WorkerReport,
};
use idunno_shared::wire::refusal::Refusal;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Means, Office, may_decide, not_coordinator, orders, sharing};
use crate::clock::wall_ms;
use crate::membership::MembershipView;

/// Inputs that may wait for the task.
pub const INPUTS_MAX: usize = 1_024;
/// How often jobs and models are compared with the log, whatever was heard.
pub const RECONCILE_PERIOD: Duration = Duration::from_secs(2);

/// Reassignments that are remembered for those who look later.
const SHARINGS_KEPT: usize = 32;

/// What the desk knows that the log does not.
#[derive(Clone, Debug, Default)]
pub struct DeskView {
    /// The newest report of each worker.
    pub reports: BTreeMap<NodeId, WorkerReport>,
    /// Who works for which job.
    pub assignments: Vec<Assignment>,
    /// Queries leased, by job.
    pub leased: BTreeMap<JobId, u64>,
    /// Queries of the batch leased last, by job.
    pub batches: BTreeMap<JobId, u32>,
    /// The newest reassignments of workers, oldest first.
    pub sharings: VecDeque<SharingView>,
}

type Answer = oneshot::Sender<Result<Orders, Refusal>>;
/// What a training made.
pub struct Trained {
    /// The model.
    pub artefact: ModelArtefact,
    /// What was asked for when it began.
    pub training: Training,
    /// What it measured.
    pub metrics: Vec<(String, String)>,
}

enum Input {
    Report(WorkerReport, Answer),
    Commit(SegmentCommit, oneshot::Sender<Result<JobReply, Refusal>>),
    Committed(SegmentCommit, Result<Applied, Refusal>, oneshot::Sender<Result<JobReply, Refusal>>),
    Failed(NodeId, Lease, Vec<Fault>),
    Trained(NodeId, ModelName, Result<Trained, String>, oneshot::Sender<Result<(), Refusal>>),
    Buried(JobId, Vec<QueryRange>, Result<(), Refusal>),
    Paused(JobId),
    Refresh,
    View(oneshot::Sender<DeskView>),
}

/// The task's handle.
pub struct Desk {
    means: Means,
    inputs: mpsc::Sender<Input>,
}

impl Desk {
    /// Starts the task.
    pub fn open(office: Weak<Office>, means: Means, term: Term, closed: CancellationToken) -> Self {
        let (inputs, queued) = mpsc::channel(INPUTS_MAX);
        let scheduler = Scheduler::new(Config::default(), term, means.clock.now());
        let clerk = Clerk {
            office,
            means: means.clone(),
            term,
            scheduler,
            inputs: inputs.clone(),
            waiting: BTreeMap::new(),
            reports: BTreeMap::new(),
            live: BTreeSet::new(),
            has_leased: false,
            told: BTreeMap::new(),
            sharings: VecDeque::new(),
        };
        means.vitals.spawn("the desk", closed.clone(), clerk.run(queued, closed));
        Self { means, inputs }
    }

    async fn ask<T>(&self, input: impl FnOnce(oneshot::Sender<T>) -> Input) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        // Where the desk is closed the term is over: the next coordinator is to be asked.
        let closed = || not_coordinator(&self.means);
        self.inputs.send(input(reply)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())
    }

    /// Waits for the answer to a worker's report.
    pub async fn report(&self, report: WorkerReport) -> Result<Orders, Refusal> {
        self.ask(|reply| Input::Report(report, reply)).await?
    }

    /// Brings a segment into the log.
    pub async fn commit(&self, commit: SegmentCommit) -> Result<JobReply, Refusal> {
        self.ask(|reply| Input::Commit(commit, reply)).await?
    }

    /// Notes what a worker could not answer.
    pub async fn failed(&self, worker: NodeId, lease: Lease, faults: Vec<Fault>) -> Result<(), Refusal> {
        let sent = self.inputs.send(Input::Failed(worker, lease, faults)).await;
        sent.map_err(|_| not_coordinator(&self.means))
    }

    /// Brings the outcome of a training into the log.
    pub async fn trained(
        &self,
        worker: NodeId,
        model: ModelName,
        result: Result<Trained, String>,
    ) -> Result<(), Refusal> {
        self.ask(|reply| Input::Trained(worker, model, result, reply)).await?
    }

    /// Jobs or models changed in the log.
    pub async fn refresh(&self) {
        // Without a desk there is nothing to refresh.
        let _ = self.inputs.send(Input::Refresh).await;
    }

    /// What the desk knows that the log does not.
    pub async fn view(&self) -> Result<DeskView, Refusal> {
        self.ask(Input::View).await
    }
}

struct Clerk {
    office: Weak<Office>,
    means: Means,
    term: Term,
    scheduler: Scheduler,
    inputs: mpsc::Sender<Input>,
    waiting: BTreeMap<NodeId, Answer>,
    reports: BTreeMap<NodeId, WorkerReport>,
    live: BTreeSet<NodeId>,
    has_leased: bool,
    /// What the scheduler was told last of each job, but for its pending queries.
    told: BTreeMap<JobId, JobSpec>,
    sharings: VecDeque<SharingView>,
}

impl Clerk {
    async fn run(mut self, mut queued: mpsc::Receiver<Input>, closed: CancellationToken) {
        let mut view = self.means.membership.view();
        self.live = self.means.membership.current().live().collect();
        self.tell(Event::ExpectedWorkers(self.live.clone()));
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
                () = self.means.clock.sleep_until(self.scheduler.next_deadline()) => self.tell(Event::Tick),
                () = closed.cancelled() => return,
            }
        }
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.means.consensus.state().borrow())
    }

    fn tell(&mut self, event: Event) {
        self.scheduler.handle(event, self.means.clock.now());
        while let Some(effect) = self.scheduler.poll_effect() {
            self.obey(effect);
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Report(report, reply) => self.report(report, reply),
            Input::Commit(commit, reply) => {
                let action = Action::CommitSegment {
                    worker: commit.worker,
                    job: commit.job,
                    segment: (
                        commit.segment.blob,
                        commit.segment.holders.iter().map(|holder| holder.node).collect(),
                    ),
                    batches: commit.batches.clone(),
                };
                self.propose(action, move |outcome| Input::Committed(commit, outcome, reply));
            }
            Input::Committed(commit, outcome, reply) => self.committed(&commit, outcome, reply),
            Input::Failed(worker, lease, faults) => {
                for fault in &faults {
                    info!(%worker, job = %lease.job, kind = ?fault.kind, ranges = ?fault.ranges, reason = %fault.reason, "failed");
                }
                self.tell(Event::Failed { worker, lease, faults });
            }
            Input::Trained(worker, model, Ok(trained), reply) => {
                self.trained(worker, model, trained, reply);
            }
            Input::Trained(worker, model, Err(reason), reply) => {
                warn!(%worker, %model, %reason, "training failed");
                self.tell(Event::TrainingFailed { worker, model, reason });
                // The worker may have gone meanwhile.
                let _ = reply.send(Ok(()));
            }
            Input::Buried(job, queries, outcome) => {
                self.tell(match outcome {
                    Ok(()) => Event::DeadLettersCommitted { job, queries },
                    Err(_) => Event::DeadLettersRefused { job, queries },
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

    fn report(&mut self, report: WorkerReport, reply: Answer) {
        let worker = report.worker;
        let view = self.means.membership.current();
        let refusal = if view.is_live(worker) {
            may_decide(&self.means).err()
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
        self.reports.insert(worker, report.clone());
        self.tell(Event::Report(report));
    }

    fn committed(
        &mut self,
        commit: &SegmentCommit,
        outcome: Result<Applied, Refusal>,
        reply: oneshot::Sender<Result<JobReply, Refusal>>,
    ) {
        let answer = outcome.map(|applied| {
            let answered = commit.batches.iter().flat_map(|batch| batch.answered.iter());
            let mut answered: RangeSet = answered.map(|range| range.first..range.end()).collect();
            let state = self.state();
            let job = state.job(commit.job);
            if let Some(job) = job {
                // Those died before, and are to be tried again since: this commit has not answered them.
                answered.subtract(&job.pending());
            }
            self.tell(Event::Committed(Committed {
                worker: commit.worker,
                job: commit.job,
                batches: commit.batches.iter().map(ran).collect(),
                ranges: answered.queries().collect(),
            }));
            if job.is_some_and(|job| job.state == JobState::Done) {
                self.refresh();
            }
            match applied {
                Applied::Committed { accepted, duplicates, .. } => {
                    JobReply::Committed { accepted, duplicates }
                }
                Applied::Changed(_) | Applied::Done => JobReply::Noted,
            }
        });
        // The worker may have gone meanwhile; the log has its rows.
        let _ = reply.send(answer);
    }

    fn trained(
        &self,
        worker: NodeId,
        model: ModelName,
        Trained { artefact, training, metrics }: Trained,
        reply: oneshot::Sender<Result<(), Refusal>>,
    ) {
        if self.state().model(&model).is_none_or(|model| model.training.is_none()) {
            // Trained already, by whoever was faster.
            let _ = reply.send(Ok(()));
            return;
        }
        info!(%worker, %model, version = %artefact.version, "trained");
        let extents = artefact.extents.iter();
        let extents =
            extents.map(|placed| (placed.blob, placed.holders.iter().map(|holder| holder.node).collect()));
        let action = Action::ModelTrained {
            model,
            version: artefact.version,
            size: artefact.extents.iter().map(|placed| placed.blob.size).sum(),
            extents: extents.collect(),
            training,
            metrics,
        };
        self.propose(action, move |outcome| {
            // The worker may have gone meanwhile; the log has the model.
            let _ = reply.send(outcome.map(drop));
            Input::Refresh
        });
    }

    /// Runs a worker's proposal beside the task; what `then` makes of its outcome comes back as an input.
    fn propose(&self, action: Action, then: impl FnOnce(Result<Applied, Refusal>) -> Input + Send + 'static) {
        self.beside(|office| async move { then(office.propose(None, action).await) });
    }

    /// The same for a proposal of the scheduler, which is repeated as long as its outcome is unknown.
    fn propose_surely(
        &self,
        action: Action,
        then: impl FnOnce(Result<(), Refusal>) -> Input + Send + 'static,
    ) {
        self.beside(|office| async move {
            let outcome = office.propose_surely(action).await.map(drop);
            if let Err(refusal) = &outcome {
                warn!(%refusal, "the log does not take a decision of the scheduler");
            }
            then(outcome)
        });
    }

    fn beside<F>(&self, work: impl FnOnce(Arc<Office>) -> F)
    where
        F: Future<Output = Input> + Send + 'static,
    {
        let Some(office) = self.office.upgrade() else { return };
        let (inputs, work) = (self.inputs.clone(), work(office));
        tokio::spawn(async move {
            // When the desk is closed, the next coordinator reads the log.
            let _ = inputs.send(work.await).await;
        });
    }

    fn obey(&mut self, effect: Effect) {
        match effect {
            Effect::Answer { worker, plan } => self.answer(worker, plan),
            Effect::DeadLetter { job, letters } => self.bury(job, letters),
            Effect::PauseJob { job, reason } => {
                warn!(%job, %reason, "paused");
                self.propose_surely(Action::PauseJob { job, reason }, move |_| Input::Paused(job));
            }
            Effect::Shared { reason, shares, reassigned } => {
                let view = self.means.membership.current();
                let text = sharing::told(|node| view.name(node), reason, &shares, &reassigned);
                info!("{text}");
                self.sharings.push_back(SharingView { at_ms: wall_ms(), text });
                if self.sharings.len() > SHARINGS_KEPT {
                    self.sharings.pop_front();
                }
            }
            Effect::TrainingFailed { model, reason } => {
                self.propose_surely(Action::ModelFailed { model, reason }, |_| Input::Refresh);
            }
        }
    }

    fn answer(&mut self, worker: NodeId, mut plan: OrdersPlan) {
        let Some(reply) = self.waiting.remove(&worker) else { return };
        if let Err(refusal) = may_decide(&self.means) {
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
        let weights = |lease: Lease| orders::weights(&state, lease);
        orders::fit(&mut plan.grants, weights, |lease, kept| self.scheduler.shorten(worker, lease, kept));
        let view = self.means.membership.current();
        let orders = orders::orders(&state, &view, self.term, &plan, self.reports.get(&worker));
        self.note_grants(worker, &orders);
        // A worker that has gone does not list the leases in its next report, so they return.
        let _ = reply.send(Ok(orders));
    }

    /// Moves a batch that was just granted to the inputs that its worker has most of, among the next that wait.
    fn nearest(&mut self, state: &State, worker: NodeId, lease: Lease) -> Lease {
        let local = |lease: &Lease| orders::local_bytes(state, worker, *lease);
        let others = self.scheduler.alternatives(lease);
        let best = others.into_iter().max_by_key(|other| (local(other), Reverse(other.range.first)));
        match best {
            Some(best) if local(&best) > local(&lease) && self.scheduler.exchange(worker, lease, best) => {
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
        for lease in orders.grants.iter().map(|grant| grant.lease).filter(|lease| lease.attempt > 1) {
            info!(%worker, job = %lease.job, range = ?lease.range, attempt = lease.attempt, "leased again");
        }
    }

    fn bury(&mut self, job: JobId, dead: Vec<DeadQuery>) {
        let mut queries = RangeSet::new();
        for letter in &dead {
            warn!(%job, query = letter.index, reason = %letter.reason, "failed for good");
            queries.insert(letter.index..letter.index + 1);
        }
        let letter = |dead: DeadQuery| Letter {
            index: dead.index,
            reason: dead.reason,
            worker: dead.worker,
            attempts: dead.attempts,
        };
        let letters = dead.into_iter().map(letter).collect();
        let queries = queries.queries().collect();
        self.propose_surely(Action::DeadLetters { job, letters }, move |outcome| {
            Input::Buried(job, queries, outcome)
        });
    }

    /// Tells the scheduler of jobs and models as the log has them now. Outcomes of older entries may still be on their
    /// way here: what they say of a query that is pending in the log does not count (`committed`), or is set right by
    /// the refresh behind them (`Buried`).
    fn refresh(&mut self) {
        let state = self.state();
        self.tell(Event::Policy(state.policy()));
        for job in state.jobs() {
            let Some(artefact) = &job.artefact else { continue };
            if job.state.is_over() {
                if self.told.remove(&job.id).is_some() {
                    self.tell(Event::JobEnded(job.id));
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
            self.tell(Event::Job(spec));
        }
        let deleted: Vec<JobId> = self.told.keys().copied().filter(|id| state.job(*id).is_none()).collect();
        for id in deleted {
            self.told.remove(&id);
            self.tell(Event::JobEnded(id));
        }
        for (model, record) in state.models() {
            self.tell(match &record.training {
                Some(training) => Event::ModelWanted { model: model.clone(), training: training.clone() },
                None if record.failure.is_some() => Event::ModelGone(model.clone()),
                None => Event::ModelTrained(model.clone()),
            });
        }
    }

    fn notice_deaths(&mut self, view: &MembershipView) {
        let live: BTreeSet<_> = view.live().collect();
        for &gone in self.live.clone().difference(&live) {
            self.reports.remove(&gone);
            self.tell(Event::WorkerDead(gone));
        }
        self.live = live;
    }

    fn view(&self) -> DeskView {
        let leased = self.told.keys().map(|&job| (job, self.scheduler.leased(job)));
        let batches = self.told.keys().map(|&job| (job, self.scheduler.batch_now(job)));
        DeskView {
            reports: self.reports.clone(),
            assignments: self.scheduler.assignments(),
            leased: leased.collect(),
            batches: batches.collect(),
            sharings: self.sharings.clone(),
        }
    }
}

fn ran(batch: &BatchOutcome) -> RanBatch {
    RanBatch { lease: batch.lease, inference_us: batch.inference_us, refused: batch.refused }
}
