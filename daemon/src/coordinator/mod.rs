//! The coordinator: what the member that leads the metadata log does on top of it.
//!
//! [`Coordinator`] opens a [`LeaderTerm`] when this member has won a term and caught up, and closes it when the term is
//! over or the member leaves. A term holds all that lives for one term only: uploads in progress, leases, repairs.
//! What must outlive it is in the log. While the majority is out of reach a term decides nothing
//! ([`LeaderTerm::may_decide`]), but it stays open: a lease of the log that lapsed for a moment, as on a busy machine, must
//! not throw the workers' leases away.
//!
//! Each machine of a term is owned by a task of its own ([`driver`](crate::runtime::driver)); requests reach it through a
//! handle or see what it publishes.
//!
//! | part | decided by |
//! | --- | --- |
//! | [`uploads`]: uploads in progress | `core::uploads` |
//! | [`scheduling`]: leases, training, results | `core::scheduler` |
//! | [`repair`]: copies and garbage | `core::placement` |
//! | [`voters`]: the log's voters | `core::voters` |
//! | [`result_merge`]: finished jobs' results into files | `core::result_merge` |
//! | [`rates`]: queries answered lately | `core::rates` |
//! | [`leader_announcer`]: announces the coordinator and the revoked names to all members | itself |
//! | `revocations`: revoked names that the log lacks | itself |
//! | [`dataset_freeze`]: what a job starts with | itself, by reading its dataset |
//! | `packages`: what is added as a model | itself, by asking a worker |
//! | [`long_work`]: work that outlasts a request | itself |
//! | [`changes`], [`grants`]: changes asked for, orders to workers | the log's state |
//! | [`reads`], [`folders`], [`views`], `job_pages`, [`assignment_text`]: what people see | the log's state |
//! | `view_publisher`: one view for all who watch | itself |

pub mod assignment_text;
pub mod changes;
pub mod dataset_freeze;
pub mod file_order;
pub mod folders;
pub mod grants;
mod job_pages;
pub mod leader_announcer;
mod log_time;
pub mod long_work;
mod packages;
pub mod rates;
pub mod reads;
pub mod repair;
pub mod result_merge;
mod revocations;
pub mod scheduling;
pub mod uploads;
mod view_publisher;
pub mod views;
pub mod voters;
pub mod webhooks;

use std::sync::{Arc, Weak};
use std::time::Duration;

use idunno_core::metadata::{Action, Applied, AskedBy, Command, State};
use idunno_core::uploads::first_number;
use idunno_shared::client::connections::Connections;
use idunno_shared::client::files::Files;
use idunno_shared::ids::{NodeId, OpId, Term, UploadId};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::log_time::LogTime;
use self::long_work::LongWork;
use self::rates::{RatesHandle, RatesTask};
use self::repair::{RepairTask, RepairView};
use self::result_merge::ResultMergeTask;
use self::scheduling::{SchedulerHandle, SchedulerTask};
use self::uploads::{UploadsHandle, UploadsTask};
use self::view_publisher::ViewPublisher;
use self::voters::VoterTask;
use self::webhooks::WebhookSender;
use crate::membership::MembershipHandle;
use crate::net::revocations::Revocations;
use crate::runtime::clock::Clock;
use crate::runtime::task_monitor::TaskMonitor;
use idunno_consensus::{BarrierError, Consensus, ProposeError};

const BARRIER_TIMEOUT: Duration = Duration::from_secs(2);
const BARRIER_TIMEOUT_CUT_OFF: Duration = Duration::from_millis(500);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What a term works with. Cheap to clone.
#[derive(Clone)]
pub struct Deps {
    /// This member.
    pub me: NodeId,
    pub clock: Clock,
    /// The metadata log.
    pub consensus: Consensus,
    /// The failure detector.
    pub membership: MembershipHandle,
    /// Calls to other members.
    pub peers: Connections,
    /// The file store, for datasets that are one file.
    pub files: Files,
    /// Reports tasks that end early.
    pub monitor: TaskMonitor,
    /// The names whose identities are refused.
    pub revocations: Revocations,
    /// Tells others how jobs end.
    pub webhooks: WebhookSender,
}

/// One term's work.
pub struct LeaderTerm {
    deps: Deps,
    term: Term,
    time: Arc<LogTime>,
    uploads: UploadsHandle,
    rates: RatesHandle,
    scheduler: SchedulerHandle,
    repairs: watch::Receiver<RepairView>,
    views: ViewPublisher,
    /// Held while a dataset is read: one at a time, for an extent of it is in memory.
    reading: tokio::sync::Mutex<()>,
    long_work: LongWork,
    /// This term, for the tasks that work for it.
    this: Weak<Self>,
    closed: CancellationToken,
}

impl LeaderTerm {
    /// Starts all parts for `term`, after the log's entry at `taken_over_at`; the state must be caught up.
    fn open(deps: Deps, term: Term, taken_over_at: u64, closed: CancellationToken) -> Arc<Self> {
        let first = first_number(taken_over_at);
        let opened = Arc::new_cyclic(|leader_term: &Weak<Self>| {
            let time = Arc::new(LogTime::start(&deps));
            let uploads = UploadsTask::spawn(deps.clone(), term, first, &closed);
            let rates = RatesTask::spawn(&deps, Arc::clone(&time), &closed);
            let scheduler = SchedulerTask::spawn(leader_term.clone(), deps.clone(), term, &closed);
            let repairs =
                RepairTask::spawn(leader_term.clone(), deps.clone(), term, first, uploads.clone(), &closed);
            VoterTask::spawn(deps.clone(), &closed);
            let announcer = leader_announcer::run(deps.clone(), term, closed.clone());
            deps.monitor.spawn("leader announcer", closed.clone(), announcer);
            let views = ViewPublisher::default();
            let reading = tokio::sync::Mutex::default();
            let long_work = LongWork::new(closed.clone());
            let this = leader_term.clone();
            Self {
                deps,
                term,
                time,
                uploads,
                rates,
                scheduler,
                repairs,
                views,
                reading,
                long_work,
                this,
                closed,
            }
        });
        // Both need the term from their first turn on.
        ResultMergeTask::spawn(&opened);
        let (restored, ended) = (revocations::restore(Arc::clone(&opened)), opened.closed.clone());
        tokio::spawn(async move { ended.run_until_cancelled(restored).await });
        let (told, ended) = (webhooks::run(Arc::clone(&opened)), opened.closed.clone());
        tokio::spawn(async move { ended.run_until_cancelled(told).await });
        let (published, ended) = (Self::publish_views(&opened), opened.closed.clone());
        tokio::spawn(async move { ended.run_until_cancelled(published).await });
        opened
    }

    /// The coordinator's epoch.
    pub fn term(&self) -> Term {
        self.term
    }

    /// The state, as far as it is applied here.
    fn state(&self) -> Arc<State> {
        Arc::clone(&self.deps.consensus.state().borrow())
    }

    /// Whether a majority has acknowledged this coordinator lately. Without that it decides nothing, because another
    /// coordinator may have been elected.
    pub fn may_decide(&self) -> Result<(), Refusal> {
        if self.closed.is_cancelled() {
            return Err(self.not_coordinator());
        }
        may_decide(&self.deps)
    }

    /// Has the log apply an action.
    async fn propose(&self, op: Option<OpId>, action: Action) -> Result<Applied, Refusal> {
        self.propose_command(Command { at_ms: self.time.now_ms(), op, action, upload: None, by: None }).await
    }

    /// Has the log apply what somebody asked for, unless that identity is revoked by then.
    async fn propose_asked(&self, op: OpId, by: Option<AskedBy>, action: Action) -> Result<Applied, Refusal> {
        let at_ms = self.time.now_ms();
        self.propose_command(Command { at_ms, op: Some(op), action, upload: None, by }).await
    }

    /// Has the log apply an action whose blobs were stored under an upload, unless that is over by then.
    async fn propose_stored(&self, upload: UploadId, action: Action) -> Result<Applied, Refusal> {
        let at_ms = self.time.now_ms();
        self.propose_command(Command { at_ms, op: None, action, upload: Some(upload), by: None }).await
    }

    async fn propose_command(&self, command: Command) -> Result<Applied, Refusal> {
        if self.closed.is_cancelled() {
            return Err(self.not_coordinator());
        }
        match self.deps.consensus.propose(command).await {
            Ok(outcome) => outcome,
            Err(error) => Err(self.refusal_of(&error)),
        }
    }

    /// Has the log apply an action that may be applied twice: repeated until it is applied or refused, or the term is
    /// over.
    async fn propose_surely(&self, action: Action) -> Result<Applied, Refusal> {
        loop {
            match self.propose(None, action.clone()).await {
                Err(Refusal { code: RefusalCode::NoQuorum | RefusalCode::Unknown, message }) => {
                    warn!(%message, "a proposal may have failed, repeating it");
                    tokio::select! {
                        () = tokio::time::sleep(RETRY_PAUSE) => {}
                        () = self.closed.cancelled() => return Err(self.not_coordinator()),
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// Makes sure that this member still leads and has applied all that was ever acknowledged.
    async fn barrier(&self) -> Result<Arc<State>, Refusal> {
        self.confirmed().await.map(|(state, _)| state)
    }

    /// Like [`Self::barrier`]; also returns the term and index of an entry up to which the state is complete.
    pub async fn confirmed(&self) -> Result<(Arc<State>, (u64, u64)), Refusal> {
        // Where the majority was out of reach just now it most likely still is: fail soon.
        let limit = if self.may_decide().is_ok() { BARRIER_TIMEOUT } else { BARRIER_TIMEOUT_CUT_OFF };
        match self.deps.consensus.barrier(limit).await {
            Ok(upto) => Ok((self.state(), upto)),
            Err(BarrierError::NotLeader { .. }) => Err(self.not_coordinator()),
            Err(BarrierError::NoQuorum) => Err(no_quorum(&self.deps)),
            Err(error @ BarrierError::Stopped(_)) => Err(Refusal::internal(error.to_string())),
        }
    }

    fn not_coordinator(&self) -> Refusal {
        not_coordinator(&self.deps)
    }

    fn refusal_of(&self, error: &ProposeError) -> Refusal {
        let code = match error {
            ProposeError::NotLeader { .. } => return self.not_coordinator(),
            ProposeError::NoQuorum => return no_quorum(&self.deps),
            ProposeError::Unknown => RefusalCode::Unknown,
            ProposeError::TooLarge { .. } => RefusalCode::Invalid,
            ProposeError::Stopped(_) => RefusalCode::Internal,
        };
        Refusal::new(code, error.to_string())
    }
}

fn may_decide(deps: &Deps) -> Result<(), Refusal> {
    if deps.consensus.leadership().borrow().holds_lease() {
        return Ok(());
    }
    Err(no_quorum(deps))
}

/// The refusal of a coordinator that is cut off from the majority, and may have a successor.
fn no_quorum(deps: &Deps) -> Refusal {
    let name = deps.membership.current().name(deps.me);
    let message = format!(
        "{name} coordinates, but no majority of the voters answers it: nothing can be read or changed until one does"
    );
    Refusal::new(RefusalCode::NoQuorum, message)
}

/// The refusal of a member that does not coordinate, with the coordinator that it knows of.
pub fn not_coordinator(deps: &Deps) -> Refusal {
    let leadership = deps.consensus.leadership().borrow().clone();
    let view = deps.membership.current();
    let coordinator = leadership.leader.filter(|&leader| leader != deps.me && view.is_live(leader));
    let coordinator = coordinator.and_then(|leader| Some((leader, view.address(leader)?)));
    let name = view.name(deps.me);
    let message = match coordinator {
        Some((leader, _)) => format!("{name} does not coordinate, {} does", view.name(leader)),
        None => format!("{name} knows no coordinator: a majority of the voters must be up to elect one"),
    };
    Refusal::new(RefusalCode::NotCoordinator { coordinator, term: leadership.term }, message)
}

/// Opens and closes the terms of this member.
#[derive(Clone)]
pub struct Coordinator {
    leader_term: watch::Receiver<Option<Arc<LeaderTerm>>>,
}

impl Coordinator {
    /// Starts to watch the leadership.
    pub fn start(deps: Deps, stop: CancellationToken) -> Self {
        let (publish, leader_term) = watch::channel(None);
        let monitor = deps.monitor.clone();
        monitor.spawn("coordinator", stop.clone(), supervise(deps, publish, stop));
        Self { leader_term }
    }

    /// Waits for a term to be open.
    pub async fn opened(&self) -> Option<Arc<LeaderTerm>> {
        let mut leader_term = self.leader_term.clone();
        leader_term.wait_for(Option::is_some).await.ok().and_then(|leader_term| leader_term.clone())
    }

    /// The open term, if this member coordinates.
    pub fn leader_term(&self) -> Option<Arc<LeaderTerm>> {
        self.leader_term.borrow().clone()
    }
}

async fn supervise(deps: Deps, publish: watch::Sender<Option<Arc<LeaderTerm>>>, stop: CancellationToken) {
    let mut leadership = deps.consensus.leadership();
    let mut view = deps.membership.view();
    loop {
        let joined = view.borrow_and_update().joined;
        let term = {
            let leadership = leadership.borrow_and_update();
            (joined && leadership.is_leader).then_some(leadership.term)
        };
        let open = publish.borrow().as_ref().map(|leader_term: &Arc<LeaderTerm>| leader_term.term);
        if open != term {
            if let Some(leader_term) = publish.send_replace(None) {
                leader_term.closed.cancel();
                info!(term = %leader_term.term, "closed the coordinator's term");
            }
            if let Some(term) = term {
                info!(%term, "this member is elected");
                // Garbage collection must know of every entry that may ever count.
                match deps.consensus.take_over(BARRIER_TIMEOUT).await {
                    Ok(taken_over_at) => {
                        info!(%term, "this member coordinates");
                        let leader_term =
                            LeaderTerm::open(deps.clone(), term, taken_over_at, stop.child_token());
                        publish.send_replace(Some(leader_term));
                    }
                    Err(error) => {
                        info!(%term, %error, "cannot take over the term yet, retrying");
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                }
                continue;
            }
        }
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { return },
            changed = view.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}
