//! Follows the coordinator, in a task of its own, so that neither a key press nor drawing ever waits for the network.
//!
//! States: connecting, live, waiting for the next attempt. While a live connection is silent the coordinator is asked every
//! [`QUIET_MS`] whether it still coordinates, because a half-open connection is silent too. The waits grow with full jitter
//! (Brooker, "Exponential backoff and jitter") up to [`WAIT_MAX_MS`]; the task never gives up. Bounds: one watch at a time;
//! events go through a bounded channel.

use std::sync::Arc;
use std::time::Duration;

use idunno_shared::client::cluster::{Cluster, ClusterError};
use idunno_shared::ids::OpId;
use idunno_shared::wire::control::{ClusterView, ControlReply, ControlRequest, MemberView};
use idunno_shared::wire::frame::Reply;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::{sleep, timeout};

use super::msg::NetEvent;
use crate::session::Session;

/// Silence after which the coordinator is asked whether it still coordinates, in milliseconds.
pub const QUIET_MS: u64 = 2000;
/// The longest wait between two attempts, in milliseconds.
pub const WAIT_MAX_MS: u64 = 5000;
const WAIT_MIN_MS: u64 = 50;
const WAIT_BASE_MS: u64 = 100;
const DEADLINE: Duration = Duration::from_secs(2);
const FIRST_VIEW: Duration = Duration::from_secs(3);

/// Why a watch ended.
#[derive(Debug, Error)]
enum WatchError {
    #[error("the coordinator ended the watch")]
    Ended,
    #[error("the coordinator went away")]
    Closed,
    #[error("the coordinator sent nothing")]
    NoView,
    #[error("another member coordinates now")]
    Deposed,
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// How a watch that was open ended.
enum WatchEnd {
    /// The console dropped the receiver of the events.
    Abandoned,
    Lost {
        error: WatchError,
        /// Whether the coordinator had sent a view.
        was_live: bool,
    },
}

/// Follows the cluster until the receiver of the events is dropped. `retry` cuts a wait short.
pub async fn follow(session: Session, events: Sender<NetEvent>, retry: Arc<Notify>) {
    let mut attempt = 0;
    loop {
        session.refresh();
        if events.send(NetEvent::Connecting).await.is_err() {
            return;
        }
        let cluster = session.cluster().with_deadline(DEADLINE);
        let (error, answered) = match cluster.watch().await {
            Ok(views) => match forward_views(&cluster, views, &events).await {
                WatchEnd::Abandoned => return,
                WatchEnd::Lost { error, was_live } => {
                    attempt = if was_live { 0 } else { attempt };
                    (error, if was_live { Answered::Yes } else { Answered::No })
                }
            },
            Err(error) => (error.into(), any_member(&cluster).await),
        };
        let wait_ms = wait_ms(attempt, OpId::random().0);
        attempt = attempt.saturating_add(1);
        let (reason, member_reachable) = (error.to_string(), answered != Answered::No);
        let members = if let Answered::With(members) = answered { Some(members) } else { None };
        let waiting = NetEvent::Waiting { wait_ms, attempt, reason, member_reachable, members };
        if events.send(waiting).await.is_err() {
            return;
        }
        tokio::select! {
            () = sleep(Duration::from_millis(wait_ms)) => {}
            () = retry.notified() => {}
        }
    }
}

/// The wait after this many failed attempts: a random time below a limit that doubles.
pub fn wait_ms(attempt: u32, random: u64) -> u64 {
    let limit = WAIT_BASE_MS.saturating_mul(1 << attempt.min(16)).min(WAIT_MAX_MS);
    WAIT_MIN_MS + random % (limit - WAIT_MIN_MS + 1)
}

/// Whether a member answers while no coordinator does.
#[derive(Debug, PartialEq)]
enum Answered {
    No,
    Yes,
    /// With its list of the members.
    With(Vec<MemberView>),
}

async fn any_member(cluster: &Cluster) -> Answered {
    match cluster.ask_any(ControlRequest::Members).await {
        Ok((_, ControlReply::Members(members))) => Answered::With(members),
        Ok(_) | Err(ClusterError::Refused(_)) => Answered::Yes,
        Err(_) => Answered::No,
    }
}

async fn forward_views(cluster: &Cluster, mut views: Receiver<Reply>, events: &Sender<NetEvent>) -> WatchEnd {
    let mut latest: Option<ClusterView> = None;
    loop {
        let event = match next_event(cluster, &mut views, &mut latest).await {
            Ok(event) => event,
            Err(error) => return WatchEnd::Lost { error, was_live: latest.is_some() },
        };
        if events.send(event).await.is_err() {
            return WatchEnd::Abandoned;
        }
    }
}

async fn next_event(
    cluster: &Cluster,
    views: &mut Receiver<Reply>,
    latest: &mut Option<ClusterView>,
) -> Result<NetEvent, WatchError> {
    let patience = if latest.is_some() { Duration::from_millis(QUIET_MS) } else { FIRST_VIEW };
    match timeout(patience, views.recv()).await {
        Ok(Some(reply)) => {
            let view = Cluster::view(reply).ok_or(WatchError::Ended)?;
            cluster.learn(&view.members);
            *latest = Some(view.clone());
            Ok(NetEvent::View(Box::new(view)))
        }
        Ok(None) => Err(WatchError::Closed),
        Err(_) => {
            let view = latest.as_ref().ok_or(WatchError::NoView)?;
            confirm(cluster, view).await?;
            Ok(NetEvent::Confirmed)
        }
    }
}

/// Asks whether the coordinator of `view` still coordinates.
async fn confirm(cluster: &Cluster, view: &ClusterView) -> Result<(), WatchError> {
    match cluster.control(ControlRequest::Coordinator).await? {
        ControlReply::Coordinator { coordinator, term }
            if coordinator.node == view.coordinator && term == view.term =>
        {
            Ok(())
        }
        _ => Err(WatchError::Deposed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_their_limit() {
        for attempt in 0..100 {
            let limit = (WAIT_BASE_MS << attempt.min(16)).min(WAIT_MAX_MS);
            for random in [0, 1, limit / 2, u64::MAX] {
                assert!((WAIT_MIN_MS..=limit).contains(&wait_ms(attempt, random)), "{attempt} {random}");
            }
        }
        assert_eq!(wait_ms(20, WAIT_MAX_MS - WAIT_MIN_MS), WAIT_MAX_MS);
    }
}
