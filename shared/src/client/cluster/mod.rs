//! A cluster as a client sees it: finds the coordinator through any member, follows it when it changes, and repeats requests
//! (`repeat.rs`).
//!
//! Reads, worker reports and changes under an operation id can all be sent twice; therefore every request here is
//! repeated until it is answered or its deadline passes. While an answer is late, other members are asked for the
//! coordinator: a frozen coordinator delays a client no longer than the election of its successor takes.

mod backup;
mod error;
mod repeat;
mod route_cache;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

pub use self::error::ClusterError;
use self::repeat::Unanswered;
use self::route_cache::{FailureReasons, RouteCache};
use super::connection::{CallError, Connection};
use super::connections::Connections;
use super::link::{Dial, DialError};
use crate::ids::{OpId, Term};
use crate::wire::control::{Change, Changed, ClusterView, ControlReply, ControlRequest, MemberView};
use crate::wire::frame::{Reply, Request};
use crate::wire::jobs::{JobReply, JobRequest};
use crate::wire::membership::IntroductionRequest;
use crate::wire::refusal::{Refusal, RefusalCode};

/// How long a request is repeated before it is given up: longer than any failover.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(30);
/// How late an answer is before other members are asked, and the pause between two such rounds.
const PATIENCE: Duration = Duration::from_millis(500);
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
const FIRST_VIEW_TIMEOUT: Duration = Duration::from_secs(3);
const BACK_OFF_MAX: Duration = Duration::from_millis(250);

/// A cluster, as a client sees it. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
    deadline: Duration,
    /// Whether the deadline starts anew while the coordinator reports progress.
    extends: bool,
    progress: Option<Arc<OnProgress>>,
}

/// Receives how many bytes of how many have been read for a request that takes long.
pub type OnProgress = dyn Fn(u64, u64) + Send + Sync;

struct Shared {
    connections: Connections,
    seeds: Vec<SocketAddr>,
    routes: Mutex<RouteCache>,
}

impl Cluster {
    /// A cluster that is found through `seeds`: members, or the introducer.
    pub fn new(dialer: Arc<dyn Dial>, seeds: Vec<SocketAddr>) -> Self {
        Self::over(Connections::new(dialer), seeds)
    }

    /// The same, over connections that are used elsewhere too.
    pub fn over(connections: Connections, seeds: Vec<SocketAddr>) -> Self {
        let shared = Shared { connections, seeds, routes: Mutex::new(RouteCache::default()) };
        Self { shared: Arc::new(shared), deadline: DEADLINE_DEFAULT, extends: true, progress: None }
    }

    /// The same cluster, with another limit on how long a request is repeated. It also ends the wait for requests that are
    /// in progress; without it they are waited for.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline, extends: false, ..self.clone() }
    }

    /// The same cluster, with a receiver of the progress of requests that take long.
    #[must_use]
    pub fn with_progress(&self, progress: Arc<OnProgress>) -> Self {
        Self { progress: Some(progress), ..self.clone() }
    }

    /// Its connections.
    pub fn connections(&self) -> &Connections {
        &self.shared.connections
    }

    /// Asks the coordinator.
    pub async fn control(&self, request: ControlRequest) -> Result<ControlReply, ClusterError> {
        match self.request(Request::Control(request)).await? {
            (_, Reply::Control(reply)) => Ok(*reply),
            (address, _) => Err(ClusterError::Unexpected { address }),
        }
    }

    /// Has the coordinator make a change, exactly once. An error names the operation, as the members' logs do.
    pub async fn change(&self, change: Change) -> Result<Changed, ClusterError> {
        let op = OpId::random();
        let asked = self.control(ControlRequest::Change { op, change }).await;
        match asked.map_err(|error| error.of_operation(op))? {
            ControlReply::Changed(changed) => Ok(changed),
            _ => Err(Refusal::internal("unexpected reply of the coordinator to a change").into()),
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
            Err(Unanswered { reason, is_about_identity: true, .. }) => Err(ClusterError::Untrusted(reason)),
            Err(Unanswered { reason: last, .. }) => {
                Err(ClusterError::Unreachable { waited: started.elapsed(), asked: address.to_string(), last })
            }
        }
    }

    /// Asks the known members until one answers, even by a refusal, and returns its address too. The next one is asked as
    /// soon as one fails or its answer is late, so the request must be one that several members may receive.
    pub async fn ask_any(&self, request: ControlRequest) -> Result<(SocketAddr, ControlReply), ClusterError> {
        let started = Instant::now();
        let mut last = String::from("no address is known");
        let answered = timeout(self.deadline, self.ask_side_by_side(&request, &mut last)).await;
        answered.ok().flatten().unwrap_or_else(|| {
            Err(ClusterError::Unreachable { waited: started.elapsed(), asked: self.asked(), last })
        })
    }

    /// `None` when all known members were asked without an answer; `last` is the last failure.
    async fn ask_side_by_side(
        &self,
        request: &ControlRequest,
        last: &mut String,
    ) -> Option<Result<(SocketAddr, ControlReply), ClusterError>> {
        let mut asked = BTreeSet::new();
        let mut answers = FuturesUnordered::new();
        loop {
            // Looked up again each time: an introducer among them names others.
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

    /// Everything a console shows, pushed by the coordinator. When the receiver ends, the coordinator is gone: watch again.
    /// Dropping the receiver ends the watch.
    pub async fn watch(&self) -> Result<mpsc::Receiver<Reply>, ClusterError> {
        let started = Instant::now();
        loop {
            let address = self.coordinator().await?;
            let last = match timeout(FIRST_VIEW_TIMEOUT, self.watch_at(address)).await {
                Ok(Ok(views)) => return Ok(views),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("{address} pushed nothing within {} s", FIRST_VIEW_TIMEOUT.as_secs()),
            };
            self.routes().coordinator = None;
            if started.elapsed() + BACK_OFF_MAX > self.deadline {
                return Err(self.unreachable(last));
            }
            sleep(BACK_OFF_MAX).await;
        }
    }

    /// Watches over a connection of its own, so that a slow reader holds up no calls, and returns when it pushes.
    async fn watch_at(&self, address: SocketAddr) -> Result<mpsc::Receiver<Reply>, WatchError> {
        let connection = self.connections().dedicated(address).await?;
        let mut pushed = connection.watch(Request::Control(ControlRequest::Watch)).await?;
        let mut next = match pushed.recv().await {
            Some(Reply::Refused(refusal)) => return Err(refusal.into()),
            Some(first) => first,
            None => return Err(WatchError::Closed { address }),
        };
        let (sender, views) = mpsc::channel(1);
        tokio::spawn(async move {
            // Keeps the connection open.
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
            _ => {
                Err(Refusal::internal("unexpected reply of a member to a request for the coordinator").into())
            }
        }
    }

    /// Remembers members, so that the cluster is found even when all seeds are gone.
    pub fn learn(&self, members: &[MemberView]) {
        self.routes().learn(members.iter().map(|member| member.address));
    }

    /// Sets the coordinator of `term`, for callers that learn of it sooner than any member could be asked.
    pub fn follow(&self, term: Term, coordinator: SocketAddr) {
        let mut routes = self.routes();
        if routes.is_news(term) {
            routes.coordinator = Some(coordinator);
        }
    }

    /// Repeats `request` at the member that coordinates, as far as is known, until it is answered or the deadline passes.
    async fn request(&self, request: Request) -> Result<(SocketAddr, Reply), ClusterError> {
        let mut reasons = FailureReasons::default();
        let mut until = Instant::now() + self.deadline;
        loop {
            match timeout_at(until, self.repeat(&request, &mut reasons)).await {
                Ok(Ok((address, Reply::Refused(refusal)))) => {
                    let RefusalCode::InProgress { done_bytes, total_bytes } = refusal.code else {
                        return Err(refusal.into());
                    };
                    self.routes().coordinator = Some(address);
                    if let Some(progress) = &self.progress {
                        progress(done_bytes, total_bytes);
                    }
                    if self.extends {
                        until = Instant::now() + self.deadline;
                    }
                    reasons.coordinator = Some(refusal.message);
                    sleep(BACK_OFF_MAX).await;
                }
                Ok(Ok((address, reply))) => {
                    self.routes().coordinator = Some(address);
                    return Ok((address, reply));
                }
                Ok(Err(reason)) => return Err(ClusterError::Untrusted(reason)),
                Err(_) => return Err(self.unreachable(reasons.last())),
            }
        }
    }

    async fn learn_from_introducer(&self, introducer: &Connection) {
        let request = Request::Introduction(IntroductionRequest::ListMembers);
        if let Ok(Reply::Introduction(reply)) = introducer.call(request, ASK_TIMEOUT).await {
            self.routes().learn(reply.members.into_iter().map(|(_, address)| address));
        }
    }

    /// Members to ask, best first.
    fn candidates(&self) -> Vec<SocketAddr> {
        self.routes().candidates(&self.shared.seeds)
    }

    fn asked(&self) -> String {
        let addresses: Vec<String> = self.candidates().iter().take(8).map(ToString::to_string).collect();
        addresses.join(", ")
    }

    fn unreachable(&self, last: String) -> ClusterError {
        ClusterError::Unreachable { waited: self.deadline, asked: self.asked(), last }
    }

    fn routes(&self) -> std::sync::MutexGuard<'_, RouteCache> {
        self.shared.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A coordinator's pushes could not be received.
#[derive(Debug, Error)]
enum WatchError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{address} closed the connection")]
    Closed {
        /// The coordinator's address.
        address: SocketAddr,
    },
}
