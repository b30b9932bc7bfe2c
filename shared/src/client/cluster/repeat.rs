//! Repeats a request until the current coordinator has answered it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{sleep, timeout};

use super::route_cache::FailureReasons;
use super::{ASK_TIMEOUT, BACK_OFF_MAX, Cluster, PATIENCE};
use crate::client::connection::CallError;
use crate::client::connections::PeerError;
use crate::wire::control::{ControlReply, ControlRequest};
use crate::wire::frame::{Reply, Request};
use crate::wire::jobs::JobRequest;
use crate::wire::refusal::{Refusal, RefusalCode};

/// How long one member may take to answer, beyond what the request itself lets it wait: longer than the log may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);
const REPORT_TIMEOUT: Duration = Duration::from_millis(1500);
/// Members asked in one round while an answer is late.
const ASKED_MAX: usize = 8;
const BACK_OFF_MIN: Duration = Duration::from_millis(25);
/// The longest pause of workers: while they pause after a coordinator's death, the whole cluster's work pauses.
const JOBS_BACK_OFF_MAX: Duration = Duration::from_millis(50);

/// The outcome of asking one member.
enum Attempt {
    Answered(Reply),
    /// The coordinator has the request repeated, for this reason.
    Busy(String),
    /// The member does not coordinate, or cannot now: the member to ask instead, if it knows one, and its reason.
    Moved(Option<SocketAddr>, String),
    Failed(Unanswered),
}

/// Why one member gave no answer.
pub(super) struct Unanswered {
    pub(super) reason: String,
    /// Repeating is pointless: one side does not trust the other.
    pub(super) is_about_identity: bool,
    /// No other member would answer, either.
    is_final: bool,
}

impl From<String> for Unanswered {
    fn from(reason: String) -> Self {
        Self { reason, is_about_identity: false, is_final: false }
    }
}

impl From<PeerError> for Unanswered {
    fn from(error: PeerError) -> Self {
        let (is_about_identity, is_final) = (error.is_about_identity(), error.is_revoked());
        Self { reason: error.to_string(), is_about_identity, is_final }
    }
}

impl Cluster {
    /// Returns the answer. Fails, with the reason, if none of the members asked is trusted or trusts this side.
    pub(super) async fn repeat(
        &self,
        request: &Request,
        reasons: &mut FailureReasons,
    ) -> Result<(SocketAddr, Reply), String> {
        let mut back_off = BACK_OFF_MIN;
        let back_off_max = if matches!(request, Request::Jobs(_)) { JOBS_BACK_OFF_MAX } else { BACK_OFF_MAX };
        loop {
            let mut asked = BTreeSet::new();
            let mut untrusted = 0;
            let mut busy = None;
            let mut next: Vec<SocketAddr> = self.candidates();
            next.reverse();
            while let Some(address) = next.pop() {
                if !asked.insert(address) {
                    continue;
                }
                match self.attempt(address, request.clone()).await {
                    Attempt::Answered(reply) => return Ok((address, reply)),
                    Attempt::Busy(reason) => busy = Some(reason),
                    Attempt::Moved(hint, reason) => {
                        if hint.is_none() || reasons.refused.is_none() {
                            reasons.refused = Some(reason);
                        }
                        next.extend(hint);
                    }
                    Attempt::Failed(Unanswered { reason, is_final: true, .. }) => return Err(reason),
                    Attempt::Failed(Unanswered { reason, is_about_identity, .. }) => {
                        untrusted += usize::from(is_about_identity);
                        reasons.failed = Some(reason);
                    }
                }
            }
            if untrusted > 0 && untrusted == asked.len() {
                return Err(std::mem::take(reasons).last());
            }
            reasons.coordinator = busy;
            self.routes().coordinator = None;
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
                let named = coordinator.filter(|_| self.routes().is_news(term));
                Attempt::Moved(named.map(|(_, address)| address), message)
            }
            // It may be cut off from a majority that has another coordinator, or will have one.
            Ok(Reply::Refused(Refusal { code: RefusalCode::NoQuorum, message })) => {
                Attempt::Moved(None, message)
            }
            // Repeating the same request shows the outcome.
            Ok(Reply::Refused(Refusal { code: RefusalCode::Unknown | RefusalCode::Busy, message })) => {
                Attempt::Busy(message)
            }
            Ok(reply) => Attempt::Answered(reply),
            Err(unanswered) => Attempt::Failed(unanswered),
        }
    }

    /// Asks one member once.
    pub(super) async fn ask(&self, address: SocketAddr, request: Request) -> Result<Reply, Unanswered> {
        let connection = self.connections().connection(address).await?;
        if connection.node().is_none() {
            self.learn_from_introducer(&connection).await;
            return Err(
                format!("{address} is an introducer, and none of the members that it names answers").into()
            );
        }
        let limit = match &request {
            Request::Jobs(JobRequest::Report(_)) => waits(&request) + REPORT_TIMEOUT,
            _ => CALL_TIMEOUT,
        };
        let answer = connection.call(request, limit).await;
        if let Err(CallError::TimedOut(_)) = &answer {
            self.connections().give_up_if_silent(&connection).await;
        }
        answer.map_err(|error| format!("{address}: {error}").into())
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

    /// The coordinator that a member names, unless its term is outdated.
    async fn named_by(self, address: SocketAddr) -> Option<SocketAddr> {
        let ask = async {
            let connection = self.connections().connection(address).await.ok()?;
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
        self.routes().is_news(term).then_some(coordinator)
    }
}

/// How long the request itself lets the coordinator wait.
fn waits(request: &Request) -> Duration {
    match request {
        Request::Jobs(JobRequest::Report(report)) => Duration::from_millis(report.wait_ms.into()),
        _ => Duration::ZERO,
    }
}
