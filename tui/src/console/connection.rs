//! Keeps the coordinator in sight: a task of its own, so that no key press and no drawing ever waits for it.
//!
//! States: connecting, live, waiting to try again. While live and silent the coordinator is asked every
//! [`QUIET_MS`] whether it still coordinates, for a half-open connection is silent too. The waits grow with full jitter
//! (Brooker, "Exponential backoff and jitter") up to [`WAIT_MAX_MS`]; it never gives up. Bounds: one watch at a time,
//! events go through a bounded channel.

use std::sync::Arc;
use std::time::Duration;

use idunno_shared::client::cluster::{Cluster, ClusterError};
use idunno_shared::ids::OpId;
use idunno_shared::wire::control::{ClusterView, ControlReply, ControlRequest};
use idunno_shared::wire::frame::Reply;
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::{sleep, timeout};

use super::msg::NetEvent;
use crate::session::Session;

/// Silence after which the coordinator is asked whether it is still there, in milliseconds.
pub const QUIET_MS: u64 = 2000;
/// The longest wait between two tries, in milliseconds.
pub const WAIT_MAX_MS: u64 = 5000;
const WAIT_MIN_MS: u64 = 50;
const WAIT_BASE_MS: u64 = 100;
const DEADLINE: Duration = Duration::from_secs(2);
const FIRST_VIEW: Duration = Duration::from_secs(3);

/// Why a watch ended.
enum End {
    /// Nobody listens any more.
    Unwanted,
    /// The coordinator went away.
    Lost {
        /// Why.
        reason: String,
        /// Whether it had pushed at least one view.
        worked: bool,
        /// Whether a member answers: then another is being elected.
        answered: bool,
    },
}

/// The coordinator went away.
fn lost(reason: impl Into<String>, worked: bool) -> End {
    End::Lost { reason: reason.into(), worked, answered: worked }
}

/// Follows the cluster until nobody listens. `retry` cuts a wait short.
pub async fn follow(session: Session, events: Sender<NetEvent>, retry: Arc<Notify>) {
    let mut attempt = 0;
    loop {
        session.refresh();
        if events.send(NetEvent::Connecting).await.is_err() {
            return;
        }
        let cluster = session.cluster().with_deadline(DEADLINE);
        let end = match cluster.watch().await {
            Ok(views) => stream(&cluster, views, &events).await,
            Err(error) => {
                let answered = cluster.ask_any(ControlRequest::Coordinator).await.err();
                let answered = answered.is_none_or(|error| matches!(error, ClusterError::Refused(_)));
                End::Lost { reason: error.to_string(), worked: false, answered }
            }
        };
        let (reason, answered) = match end {
            End::Unwanted => return,
            End::Lost { reason, worked, answered } => {
                attempt = if worked { 0 } else { attempt };
                (reason, answered)
            }
        };
        let wait_ms = wait_ms(attempt, OpId::random().0);
        attempt = attempt.saturating_add(1);
        if events.send(NetEvent::Waiting { wait_ms, attempt, reason, answered }).await.is_err() {
            return;
        }
        tokio::select! {
            () = sleep(Duration::from_millis(wait_ms)) => {}
            () = retry.notified() => {}
        }
    }
}

/// How long to wait after so many vain tries: anything up to a limit that doubles.
pub fn wait_ms(attempt: u32, random: u64) -> u64 {
    let limit = WAIT_BASE_MS.saturating_mul(1 << attempt.min(16)).min(WAIT_MAX_MS);
    WAIT_MIN_MS + random % (limit - WAIT_MIN_MS + 1)
}

async fn stream(cluster: &Cluster, mut views: Receiver<Reply>, events: &Sender<NetEvent>) -> End {
    let mut shown: Option<ClusterView> = None;
    loop {
        let quiet = if shown.is_some() { Duration::from_millis(QUIET_MS) } else { FIRST_VIEW };
        let event = match timeout(quiet, views.recv()).await {
            Ok(Some(reply)) => {
                let Some(view) = Cluster::view(reply) else {
                    return lost("the coordinator ended the watch", shown.is_some());
                };
                cluster.learn(&view.members);
                shown = Some(view.clone());
                NetEvent::View(Box::new(view))
            }
            Ok(None) => return lost("the coordinator went away", shown.is_some()),
            Err(_) => match &shown {
                None => return lost("the coordinator sent nothing", false),
                Some(view) => match confirm(cluster, view).await {
                    Ok(()) => NetEvent::Confirmed,
                    Err(reason) => return lost(reason, true),
                },
            },
        };
        if events.send(event).await.is_err() {
            return End::Unwanted;
        }
    }
}

/// Whether the coordinator of `view` still coordinates.
async fn confirm(cluster: &Cluster, view: &ClusterView) -> Result<(), String> {
    match cluster.control(ControlRequest::Coordinator).await {
        Ok(ControlReply::Coordinator { coordinator, term })
            if coordinator.node == view.coordinator && term == view.term =>
        {
            Ok(())
        }
        Ok(_) => Err(String::from("another member coordinates now")),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_limit_and_no_further() {
        for attempt in 0..100 {
            let limit = (WAIT_BASE_MS << attempt.min(16)).min(WAIT_MAX_MS);
            for random in [0, 1, limit / 2, u64::MAX] {
                assert!((WAIT_MIN_MS..=limit).contains(&wait_ms(attempt, random)), "{attempt} {random}");
            }
        }
        assert_eq!(wait_ms(20, WAIT_MAX_MS - WAIT_MIN_MS), WAIT_MAX_MS);
    }
}
