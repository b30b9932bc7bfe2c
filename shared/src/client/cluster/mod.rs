//! Whom to ask: finds the coordinator through any member, follows it when it moves, and repeats what may be repeated.
//!
//! Reads, worker reports and changes under an operation id can all be asked twice; therefore every request here is
//! repeated until it is answered or its deadline passes. While an answer is late, other members are asked who
//! coordinates: a frozen coordinator holds nobody up for longer than its successor's election.

mod backup;
mod known;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use self::known::{Heard, Known};
use super::connection::{CallError, Connection};
use super::link::{Dial, DialError};
use crate::ids::{OpId, Term};
use crate::wire::control::{Change, Changed, ClusterView, ControlReply, ControlRequest, MemberView};
use crate::wire::frame::{Purpose, Reply, Request};
use crate::wire::introduction::IntroductionRequest;
use crate::wire::jobs::{JobReply, JobRequest};
use crate::wire::refusal::{Refusal, RefusalCode};

/// How long a request is repeated before it is given up: longer than any failover.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(30);
/// How long one member may take to answer, beyond what the request itself lets it wait: longer than the log may.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);
const REPORT_TIMEOUT: Duration = Duration::from_millis(1500);
/// How late an answer is before others are asked who coordinates, and between two such rounds.
const PATIENCE: Duration = Duration::from_millis(500);
/// Members asked in one such round.
const ASKED_MAX: usize = 8;
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
const FIRST_VIEW_TIMEOUT: Duration = Duration::from_secs(3);
const BACK_OFF_MIN: Duration = Duration::from_millis(25);
const BACK_OFF_MAX: Duration = Duration::from_millis(250);
/// The same for workers: what they pause after a coordinator's death, the whole cluster's work does.
const JOBS_BACK_OFF_MAX: Duration = Duration::from_millis(50);

/// Why a request to the cluster has no result.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// The cluster answered: no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nobody could be reached, or nobody coordinates.
    #[error("no answer{} (asked {asked}): {last}", within(*waited))]
    Unreachable {
        /// How long it was tried.
        waited: Duration,
        /// The addresses tried.
        asked: String,
        /// What happened last.
        last: String,
    },
    /// Whoever was reached is of another cluster, or does not know this side: asking again would not help.
    #[error("{0}")]
    Untrusted(String),
    /// A member answered with something else than was asked for.
    #[error("{address} answered out of turn: it may run another version")]
    Unexpected {
        /// Who.
        address: SocketAddr,
    },
}

/// How long somebody waited, where that was long enough to be felt.
fn within(waited: Duration) -> String {
    if waited.as_secs() == 0 { String::new() } else { format!(" within {} s", waited.as_secs()) }
}

impl ClusterError {
    /// The same, with the operation's id where members may have noted it.
    fn of_operation(mut self, op: OpId) -> Self {
        let told = match &mut self {
            Self::Refused(refusal) if refusal.code != RefusalCode::Forbidden => &mut refusal.message,
            Self::Unreachable { last, .. } => last,
            _ => return self,
        };
        *told = format!("{told} (operation {op}; see 'idunno logs --grep {op}')");
        self
    }
}

/// A cluster, as a client sees it. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
    deadline: Duration,
}

struct Shared {
    dialer: Arc<dyn Dial>,
    seeds: Vec<SocketAddr>,
    known: Mutex<Known>,
}

/// What became of asking one member.
enum Attempt {
    Answered(Reply),
    /// It does not coordinate, or cannot now: whom to ask instead, if it knows, and what it said.
    Moved(Option<SocketAddr>, String),
    Failed(Unanswered),
}

/// Why one member gave no answer.
struct Unanswered {
    reason: String,
    /// It will be the same the next time.
    is_about_identity: bool,
}

impl From<String> for Unanswered {
    fn from(reason: String) -> Self {
        Self { reason, is_about_identity: false }
    }
}

impl From<DialError> for Unanswered {
    fn from(error: DialError) -> Self {
        Self { reason: error.to_string(), is_about_identity: error.is_about_identity() }
    }
}

impl Cluster {
    /// A cluster that is found through `seeds`: members, or the introducer.
    pub fn new(dialer: Arc<dyn Dial>, seeds: Vec<SocketAddr>) -> Self {
        let shared = Shared { dialer, seeds, known: Mutex::new(Known::default()) };
        Self { shared: Arc::new(shared), deadline: DEADLINE_DEFAULT }
    }

    /// The same cluster, with another limit on how long a request is repeated.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { shared: Arc::clone(&self.shared), deadline }
    }

    /// Who opens connections.
    pub fn dialer(&self) -> &Arc<dyn Dial> {
        &self.shared.dialer
    }

    /// Asks the coordinator.
    pub async fn control(&self, request: ControlRequest) -> Result<ControlReply, ClusterError> {
        match self.request(Request::Control(request)).await? {
            (_, Reply::Control(reply)) => Ok(*reply),
            (address, _) => Err(ClusterError::Unexpected { address }),
        }
    }

    /// Has the coordinator make a change, once. An error names the operation, as the members' logs do.
    pub async fn change(&self, change: Change) -> Result<Changed, ClusterError> {
        let op = OpId::random();
        let asked = self.control(ControlRequest::Change { op, change }).await;
        match asked.map_err(|error| error.of_operation(op))? {
            ControlReply::Changed(changed) => Ok(changed),
            _ => Err(Refusal::internal("the coordinator answered a change with something else").into()),
        }
    }

    /// Reports to the coordinator, as a worker.
    pub async fn jobs(&self, request: JobRequest) -> Result<JobReply, ClusterError> {
        match self.request(Request::Jobs(request)).await? {
            (_, Reply::Jobs(reply)) => Ok(reply),
            (address, _) => Err(ClusterError::Unexpected { address }),
        }
    }

    /// Asks one member, once, and waits no longer than the deadline.
    pub async fn ask_member(
        &self,
        address: SocketAddr,
        request: ControlRequest,
    ) -> Result<ControlReply, ClusterError> {
        let started = Instant::now();
        let ask = self.ask(address, Request::Control(request));
        let late = || Err(format!("{address} does not answer").into());
        match timeout(self.deadline, ask).await.unwrap_or_else(|_| late()) {
            Ok(Reply::Control(reply)) => Ok(*reply),
            Ok(Reply::Refused(refusal)) => Err(refusal.into()),
            Ok(_) => Err(ClusterError::Unexpected { address }),
            Err(Unanswered { reason, is_about_identity: true }) => Err(ClusterError::Untrusted(reason)),
            Err(Unanswered { reason: last, .. }) => {
                Err(ClusterError::Unreachable { waited: started.elapsed(), asked: address.to_string(), last })
            }
        }
    }

    /// Asks the members known until one answers, be it by a refusal; with its address. The next one is asked as soon
    /// as one fails or its answer is late, so only what may be asked of several belongs here.
    pub async fn ask_any(&self, request: ControlRequest) -> Result<(SocketAddr, ControlReply), ClusterError> {
        let started = Instant::now();
        let mut last = String::from("no address is known");
        let answered = timeout(self.deadline, self.ask_side_by_side(&request, &mut last)).await;
        answered.ok().flatten().unwrap_or_else(|| {
            Err(ClusterError::Unreachable { waited: started.elapsed(), asked: self.asked(), last })
        })
    }

    /// `None` when all that are known were asked in vain; `last` is what happened last.
    async fn ask_side_by_side(
        &self,
        request: &ControlRequest,
        last: &mut String,
    ) -> Option<Result<(SocketAddr, ControlReply), ClusterError>> {
        let mut asked = BTreeSet::new();
        let mut answers = FuturesUnordered::new();
        loop {
            // Looked up anew each time: an introducer among them names others.
            let next = self.candidates().into_iter().find(|address| !asked.contains(address));
            if let Some(address) = next {
                asked.insert(address);
                let request = request.clone();
                answers.push(async move { (address, self.ask_member(address, request).await) });
            }
            let answer = match next {
                Some(_) => timeout(PATIENCE, answers.next()).await.unwrap_or(None),
                None => Some(answers.next().await?),
            };
            match answer {
                Some((address, Ok(reply))) => return Some(Ok((address, reply))),
                Some((
                    _,
                    Err(ClusterError::Unreachable { last: reason, .. } | ClusterError::Untrusted(reason)),
                )) => {
                    *last = reason;
                }
                Some((_, Err(error))) => return Some(Err(error)),
                None => {}
            }
        }
    }

    /// Everything a console shows, pushed by the coordinator until it is gone: then watch again. Dropping the receiver
    /// ends the watch.
    pub async fn watch(&self) -> Result<mpsc::Receiver<Reply>, ClusterError> {
        let started = Instant::now();
        loop {
            let address = self.coordinator().await?;
            let last = match timeout(FIRST_VIEW_TIMEOUT, self.watch_at(address)).await {
                Ok(Ok(views)) => return Ok(views),
                Ok(Err(reason)) => reason,
                Err(_) => format!("{address} pushed nothing within {} s", FIRST_VIEW_TIMEOUT.as_secs()),
            };
            self.known().coordinator = None;
            if started.elapsed() + BACK_OFF_MAX > self.deadline {
                return Err(self.unreachable(last));
            }
            sleep(BACK_OFF_MAX).await;
        }
    }

    /// Watches over a connection of its own, so that a slow reader holds up no calls, and returns when it pushes.
    async fn watch_at(&self, address: SocketAddr) -> Result<mpsc::Receiver<Reply>, String> {
        let link =
            self.shared.dialer.dial(address, Purpose::Calls).await.map_err(|error| error.to_string())?;
        let connection = Connection::new(link);
        let pushed = connection.watch(Request::Control(ControlRequest::Watch)).await;
        let mut pushed = pushed.map_err(|error| error.to_string())?;
        let mut next = match pushed.recv().await {
            Some(Reply::Refused(refusal)) => return Err(refusal.message),
            Some(first) => first,
            None => return Err(format!("{address} went away")),
        };
        let (sender, views) = mpsc::channel(1);
        tokio::spawn(async move {
            // Without it the connection would end here.
            let _open = connection;
            while sender.send(next).await.is_ok() {
                next = tokio::select! {
                    reply = pushed.recv() => match reply {
                        Some(reply) => reply,
                        None => return,
                    },
                    () = sender.closed() => return,
                };
            }
        });
        Ok(views)
    }

    /// The view in a watcher's reply, if it is one.
    pub fn view(reply: Reply) -> Option<ClusterView> {
        match reply {
            Reply::Control(reply) => match *reply {
                ControlReply::View(view) => Some(view),
                _ => None,
            },
            _ => None,
        }
    }

    /// The coordinator's address.
    pub async fn coordinator(&self) -> Result<SocketAddr, ClusterError> {
        match self.control(ControlRequest::Coordinator).await? {
            ControlReply::Coordinator { coordinator, .. } => Ok(coordinator.address),
            _ => Err(Refusal::internal("a member answered with something else than the coordinator").into()),
        }
    }

    /// Remembers members, so that the cluster is found even when all seeds are gone.
    pub fn learn(&self, members: &[MemberView]) {
        self.known().learn(members.iter().map(|member| member.address));
    }

    /// Takes it from one who learns it sooner than any member could be asked: who coordinates in `term`.
    pub fn follow(&self, term: Term, coordinator: SocketAddr) {
        let mut known = self.known();
        if known.is_news(term) {
            known.coordinator = Some(coordinator);
        }
    }

    /// Repeats `request` at whoever is said to coordinate, until it is answered or the deadline passes.
    async fn request(&self, request: Request) -> Result<(SocketAddr, Reply), ClusterError> {
        let mut heard = Heard::default();
        match timeout(self.deadline, self.repeat(&request, &mut heard)).await {
            Ok(Ok((_, Reply::Refused(refusal)))) => Err(refusal.into()),
            Ok(Ok((address, reply))) => {
                self.known().coordinator = Some(address);
                Ok((address, reply))
            }
            Ok(Err(reason)) => Err(ClusterError::Untrusted(reason)),
            Err(_) => Err(self.unreachable(heard.last())),
        }
    }

    /// The answer; or, when nobody that was asked is trusted or trusts this side, why.
    async fn repeat(&self, request: &Request, heard: &mut Heard) -> Result<(SocketAddr, Reply), String> {
        let mut back_off = BACK_OFF_MIN;
        let back_off_max = if matches!(request, Request::Jobs(_)) { JOBS_BACK_OFF_MAX } else { BACK_OFF_MAX };
        loop {
            let mut asked = BTreeSet::new();
            let mut untrusted = 0;
            let mut next: Vec<SocketAddr> = self.candidates();
            next.reverse();
            while let Some(address) = next.pop() {
                if !asked.insert(address) {
                    continue;
                }
                match self.attempt(address, request.clone()).await {
                    Attempt::Answered(reply) => return Ok((address, reply)),
                    Attempt::Moved(hint, reason) => {
                        if hint.is_none() || heard.told.is_none() {
                            heard.told = Some(reason);
                        }
                        next.extend(hint);
                    }
                    Attempt::Failed(Unanswered { reason, is_about_identity }) => {
                        untrusted += usize::from(is_about_identity);
                        heard.failed = Some(reason);
                    }
                }
            }
            if untrusted > 0 && untrusted == asked.len() {
                return Err(std::mem::take(heard).last());
            }
            self.known().coordinator = None;
            sleep(back_off).await;
            back_off = (back_off * 2).min(back_off_max);
        }
    }

    /// Asks one member, unless others name another coordinator while its answer is late.
    async fn attempt(&self, address: SocketAddr, request: Request) -> Attempt {
        let late = waits(&request) + PATIENCE;
        let reply = tokio::select! {
            reply = self.ask(address, request) => reply,
            successor = self.successor(address, late) => {
                return Attempt::Moved(Some(successor), format!("{address} does not answer"));
            }
        };
        match reply {
            Ok(Reply::Refused(Refusal {
                code: RefusalCode::NotCoordinator { coordinator, term },
                message,
            })) => {
                let named = coordinator.filter(|_| self.known().is_news(term));
                Attempt::Moved(named.map(|(_, address)| address), message)
            }
            // It may be cut off from a majority that has another coordinator, or will.
            Ok(Reply::Refused(Refusal { code: RefusalCode::NoQuorum, message })) => {
                Attempt::Moved(None, message)
            }
            // The same request, asked again, finds out.
            Ok(Reply::Refused(Refusal { code: RefusalCode::Unknown | RefusalCode::Busy, message })) => {
                Attempt::Failed(message.into())
            }
            Ok(reply) => Attempt::Answered(reply),
            Err(unanswered) => Attempt::Failed(unanswered),
        }
    }

    /// Asks one member once.
    async fn ask(&self, address: SocketAddr, request: Request) -> Result<Reply, Unanswered> {
        let connection = self.connection(address).await?;
        if connection.node().is_none() {
            self.learn_from_introducer(&connection).await;
            return Err(format!("{address} is an introducer, whose members do not answer").into());
        }
        let limit = match &request {
            Request::Jobs(JobRequest::Report(_)) => waits(&request) + REPORT_TIMEOUT,
            _ => CALL_TIMEOUT,
        };
        let answer = connection.call(request, limit).await;
        answer.map_err(|error| {
            if !matches!(error, CallError::Frame(_)) {
                self.known().connections.remove(&address);
            }
            format!("{address}: {error}").into()
        })
    }

    /// Waits until a member names another coordinator than the one whose answer is late.
    async fn successor(&self, late: SocketAddr, patience: Duration) -> SocketAddr {
        let mut pause = patience;
        loop {
            sleep(pause).await;
            pause = PATIENCE;
            let others = self.candidates().into_iter().filter(|&address| address != late).take(ASKED_MAX);
            let mut answers: FuturesUnordered<_> =
                others.map(|address| self.clone().named_by(address)).collect();
            while let Some(named) = answers.next().await {
                if let Some(successor) = named.filter(|&named| named != late) {
                    return successor;
                }
            }
        }
    }

    /// Whom a member takes for the coordinator, unless its news are old.
    async fn named_by(self, address: SocketAddr) -> Option<SocketAddr> {
        let ask = async {
            let connection = self.connection(address).await.ok()?;
            connection.call(Request::Control(ControlRequest::Coordinator), ASK_TIMEOUT).await.ok()
        };
        let (term, coordinator) = match timeout(ASK_TIMEOUT, ask).await.ok()?? {
            Reply::Control(reply) => match *reply {
                ControlReply::Coordinator { coordinator, term } => (term, coordinator.address),
                _ => return None,
            },
            Reply::Refused(Refusal { code: RefusalCode::NotCoordinator { coordinator, term }, .. }) => {
                (term, coordinator?.1)
            }
            _ => return None,
        };
        self.known().is_news(term).then_some(coordinator)
    }

    async fn connection(&self, address: SocketAddr) -> Result<Connection, DialError> {
        let open = self.known().connections.get(&address).filter(|c| !c.is_closed()).cloned();
        if let Some(connection) = open {
            return Ok(connection);
        }
        let connection = Connection::new(self.shared.dialer.dial(address, Purpose::Calls).await?);
        let mut known = self.known();
        known.connections.retain(|_, connection| !connection.is_closed());
        known.connections.insert(address, connection.clone());
        Ok(connection)
    }

    async fn learn_from_introducer(&self, introducer: &Connection) {
        let request = Request::Introduction(IntroductionRequest::Known);
        if let Ok(Reply::Introduction(reply)) = introducer.call(request, ASK_TIMEOUT).await {
            self.known().learn(reply.members.into_iter().map(|(_, address)| address));
        }
    }

    /// Whom to ask, best first.
    fn candidates(&self) -> Vec<SocketAddr> {
        self.known().candidates(&self.shared.seeds)
    }

    fn asked(&self) -> String {
        let addresses: Vec<String> = self.candidates().iter().take(8).map(ToString::to_string).collect();
        addresses.join(", ")
    }

    fn unreachable(&self, last: String) -> ClusterError {
        ClusterError::Unreachable { waited: self.deadline, asked: self.asked(), last }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.shared.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long the request itself lets the coordinator wait.
fn waits(request: &Request) -> Duration {
    match request {
        Request::Jobs(JobRequest::Report(report)) => Duration::from_millis(report.wait_ms.into()),
        _ => Duration::ZERO,
    }
}
