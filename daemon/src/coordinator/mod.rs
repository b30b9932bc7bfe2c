//! The coordinator: what the member that leads the metadata log does on top of it.
//!
//! [`Coordination`] opens an [`Office`] when this member has won a term and caught up, and closes it when the term is
//! over or the member leaves. An office holds all that lives for one term only: uploads in progress, leases, repairs.
//! What must outlive it is in the log. While the majority is out of reach an office decides nothing
//! ([`Office::may_decide`]), but it stays open: a lease of the log that lapsed for a moment, as on a busy machine, must
//! not throw the workers' leases away.
//!
//! | part | decides by |
//! | --- | --- |
//! | [`uploads`] | itself, pure |
//! | [`desk`]: leases, training, results | `core::scheduler` |
//! | [`repair`]: copies and garbage | `core::placement` |
//! | [`voters`]: who votes | `core::voters` |
//! | [`herald`]: who coordinates, to all members | itself |
//! | [`archive`]: finished jobs' results into files | `core::archive` |
//! | [`starting`]: what a job starts with | itself, by reading its data set |
//! | [`rates`]: what was answered lately | itself, pure |
//! | [`reads`], [`folders`], [`views`]: what people see | the log's state |

pub mod archive;
pub mod changes;
pub mod desk;
pub mod folders;
pub mod herald;
pub mod orders;
pub mod rates;
pub mod reads;
pub mod repair;
pub mod sharing;
pub mod starting;
pub mod uploads;
pub mod views;
pub mod voters;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use idunno_core::metadata::{Action, Applied, Command, State};
use idunno_shared::client::files::Files;
use idunno_shared::ids::{NodeId, OpId, Term};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::desk::Desk;
use self::rates::Rates;
use self::uploads::Uploads;
use crate::clock::{Clock, wall_ms};
use crate::consensus::{BarrierError, Consensus, ProposeError};
use crate::membership::Membership;
use crate::net::peers::Peers;
use crate::vitals::Vitals;

const BARRIER_TIMEOUT: Duration = Duration::from_secs(2);
const BARRIER_TIMEOUT_CUT_OFF: Duration = Duration::from_millis(500);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What an office works with. Cheap to clone.
#[derive(Clone)]
pub struct Means {
    /// This member.
    pub me: NodeId,
    /// Time.
    pub clock: Clock,
    /// The metadata log.
    pub consensus: Consensus,
    /// The failure detector.
    pub membership: Membership,
    /// Calls to other members.
    pub peers: Peers,
    /// The file store, for data sets that are one file.
    pub files: Files,
    /// Tasks whose early end is this member's.
    pub vitals: Vitals,
}

/// One term's work.
pub struct Office {
    means: Means,
    term: Term,
    uploads: Mutex<Uploads>,
    rates: Mutex<Rates>,
    desk: Desk,
    repairs: watch::Receiver<repair::Progress>,
    /// Held while a data set is read: one at a time, for an extent of it is in memory.
    reading: tokio::sync::Mutex<()>,
    closed: CancellationToken,
}

impl Office {
    /// Starts all parts for `term`; the state must be caught up.
    fn open(means: Means, term: Term, closed: CancellationToken) -> Arc<Self> {
        Arc::new_cyclic(|office| {
            let desk = Desk::open(office.clone(), means.clone(), term, closed.clone());
            let repairs = repair::start(office.clone(), means.clone(), term, closed.clone());
            let vitals = &means.vitals;
            vitals.spawn("who votes", closed.clone(), voters::run(means.clone(), closed.clone()));
            vitals.spawn("the herald", closed.clone(), herald::run(means.clone(), term, closed.clone()));
            vitals.spawn(
                "the archive",
                closed.clone(),
                archive::run(office.clone(), means.clone(), closed.clone()),
            );
            let mut repairing = repairs.clone();
            vitals.spawn(
                "the repair",
                closed.clone(),
                async move { while repairing.changed().await.is_ok() {} },
            );
            let uploads = Mutex::new(Uploads::new(term, wall_ms()));
            let rates = Mutex::new(Rates::new(wall_ms()));
            let reading = tokio::sync::Mutex::default();
            Self { means, term, uploads, rates, desk, repairs, reading, closed }
        })
    }

    /// The coordinator's epoch.
    pub fn term(&self) -> Term {
        self.term
    }

    /// The state, as far as it is applied here.
    fn state(&self) -> Arc<State> {
        Arc::clone(&self.means.consensus.state().borrow())
    }

    fn uploads(&self) -> MutexGuard<'_, Uploads> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rates(&self) -> MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a majority has acknowledged this coordinator lately. Without that it decides nothing: another may.
    pub fn may_decide(&self) -> Result<(), Refusal> {
        if self.closed.is_cancelled() {
            return Err(self.not_coordinator());
        }
        may_decide(&self.means)
    }

    /// Has the log apply an action.
    async fn propose(&self, op: Option<OpId>, action: Action) -> Result<Applied, Refusal> {
        if self.closed.is_cancelled() {
            return Err(self.not_coordinator());
        }
        let command = Command { at_ms: wall_ms(), op, action };
        match self.means.consensus.propose(command).await {
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
                    warn!(%message, "proposing again");
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

    /// The same, and term and index of an entry up to which the state holds everything.
    pub async fn confirmed(&self) -> Result<(Arc<State>, (u64, u64)), Refusal> {
        // Where the majority was out of reach just now it most likely still is: say so soon.
        let limit = if self.may_decide().is_ok() { BARRIER_TIMEOUT } else { BARRIER_TIMEOUT_CUT_OFF };
        match self.means.consensus.barrier(limit).await {
            Ok(upto) => Ok((self.state(), upto)),
            Err(BarrierError::NotLeader { .. }) => Err(self.not_coordinator()),
            Err(BarrierError::NoQuorum) => Err(no_quorum(&self.means)),
            Err(error @ BarrierError::Stopped(_)) => Err(Refusal::internal(error.to_string())),
        }
    }

    fn not_coordinator(&self) -> Refusal {
        not_coordinator(&self.means)
    }

    fn refusal_of(&self, error: &ProposeError) -> Refusal {
        let code = match error {
            ProposeError::NotLeader { .. } => return self.not_coordinator(),
            ProposeError::NoQuorum => return no_quorum(&self.means),
            ProposeError::Unknown => RefusalCode::Unknown,
            ProposeError::TooLarge { .. } => RefusalCode::Invalid,
            ProposeError::Stopped(_) => RefusalCode::Internal,
        };
        Refusal::new(code, error.to_string())
    }
}

fn may_decide(means: &Means) -> Result<(), Refusal> {
    if means.consensus.leadership().borrow().holds_lease() {
        return Ok(());
    }
    Err(no_quorum(means))
}

/// The refusal of a coordinator that is cut off from the majority, and might have been succeeded.
fn no_quorum(means: &Means) -> Refusal {
    let name = means.membership.current().name(means.me);
    let message = format!(
        "{name} coordinates, but no majority of the voters answers it: nothing can be read or changed until one does"
    );
    Refusal::new(RefusalCode::NoQuorum, message)
}

/// The refusal of a member that does not coordinate, with what it knows of who does.
pub fn not_coordinator(means: &Means) -> Refusal {
    let leadership = means.consensus.leadership().borrow().clone();
    let view = means.membership.current();
    let coordinator = leadership.leader.filter(|&leader| leader != means.me && view.is_live(leader));
    let coordinator = coordinator.and_then(|leader| Some((leader, view.address(leader)?)));
    let name = view.name(means.me);
    let message = match coordinator {
        Some((leader, _)) => format!("{name} does not coordinate, {} does", view.name(leader)),
        None => format!("{name} knows no coordinator: a majority of the voters must be up to elect one"),
    };
    Refusal::new(RefusalCode::NotCoordinator { coordinator, term: leadership.term }, message)
}

/// Opens and closes the office of this member.
#[derive(Clone)]
pub struct Coordination {
    office: watch::Receiver<Option<Arc<Office>>>,
}

impl Coordination {
    /// Starts to watch the leadership.
    pub fn start(means: Means, stop: CancellationToken) -> Self {
        let (publish, office) = watch::channel(None);
        let vitals = means.vitals.clone();
        vitals.spawn("the coordination", stop.clone(), supervise(means, publish, stop));
        Self { office }
    }

    /// Waits for an office to be open.
    pub async fn opened(&self) -> Option<Arc<Office>> {
        let mut office = self.office.clone();
        office.wait_for(Option::is_some).await.ok().and_then(|office| office.clone())
    }

    /// The open office, if this member coordinates.
    pub fn office(&self) -> Option<Arc<Office>> {
        self.office.borrow().clone()
    }
}

async fn supervise(means: Means, publish: watch::Sender<Option<Arc<Office>>>, stop: CancellationToken) {
    let mut leadership = means.consensus.leadership();
    let mut view = means.membership.view();
    loop {
        let term = (leadership.borrow_and_update().clone(), view.borrow_and_update().joined);
        let term = match term {
            (leadership, true) if leadership.is_leader => Some(leadership.term),
            _ => None,
        };
        let open = publish.borrow().as_ref().map(|office: &Arc<Office>| office.term);
        if open != term {
            if let Some(office) = publish.send_replace(None) {
                office.closed.cancel();
                info!(term = %office.term, "the office is closed");
            }
            if let Some(term) = term {
                // What decides what is garbage must know of every entry that may ever count.
                match means.consensus.take_over(BARRIER_TIMEOUT).await {
                    Ok(()) => {
                        info!(%term, "this member coordinates");
                        publish.send_replace(Some(Office::open(means.clone(), term, stop.child_token())));
                    }
                    Err(error) => {
                        info!(%term, %error, "not coordinating yet");
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
