//! Who leads the metadata log, as this member sees it.
//!
//! Derived from the library's metrics, which are copied at once: holding them would stop its core. A member that is not
//! sent the log, or an old one, is announced who coordinates by the coordinator itself; the higher term counts.

use std::collections::BTreeSet;
use std::time::Duration;

use idunno_shared::ids::{NodeId, Term};
use openraft::{EmptyNode, RaftMetrics, ServerState};
use tokio::sync::watch;
use tokio::time::Instant;

use super::config::{APPEND_ENTRIES_MAX, LogId, Raft};

/// Who leads, and who votes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The highest term this member knows.
    pub term: Term,
    /// The leader of that term, dead or alive: this member learns of its death by the membership, and of its silence by
    /// [`Consensus::leader_heard`](super::Consensus::leader_heard).
    pub leader: Option<NodeId>,
    /// Whether this member believes to lead.
    pub is_leader: bool,
    /// Whether a quorum acknowledged this leader within the lease, when this was published: to be woken by. What may be
    /// decided now says [`Self::holds_lease`].
    pub has_quorum: bool,
    /// Who votes; during a change, the old and the new voters.
    pub voters: BTreeSet<NodeId>,
    /// Who receives the log without a vote.
    pub learners: BTreeSet<NodeId>,
    /// Of those, as their leader sees them: who has all of its log but what one message brings.
    pub caught_up: BTreeSet<NodeId>,
    /// Whether a change of voters is half done: ask for the voters wanted once more.
    pub joint: bool,
    /// Term and index of the last entry in this member's log: (0, 0) before the first.
    pub last_log: (Term, u64),
    /// Why the log has stopped, if it has: the process must end.
    pub fault: Option<String>,
    /// When a quorum acknowledged this leader last.
    quorum_acked: Option<Instant>,
    lease: Duration,
}

impl Leadership {
    /// For how long no quorum has acknowledged this leader, in milliseconds, as of now; `None` if it does not lead or
    /// was never acknowledged.
    pub fn quorum_ack_age_ms(&self) -> Option<u64> {
        let age = self.quorum_acked.filter(|_| self.is_leader)?.elapsed();
        Some(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
    }

    /// When a quorum acknowledged this leader last, if it leads.
    pub(super) fn acked(&self) -> Option<Instant> {
        self.quorum_acked.filter(|_| self.is_leader)
    }

    /// Whether this leader may decide something now: a quorum has acknowledged it within the lease.
    pub fn holds_lease(&self) -> bool {
        self.lease_end().is_some_and(|end| Instant::now() < end)
    }

    /// When the lease ends or ended.
    fn lease_end(&self) -> Option<Instant> {
        self.acked().map(|acked| acked + self.lease)
    }

    fn of(metrics: &RaftMetrics<u64, EmptyNode>, last_log: Option<LogId>, lease: Duration) -> Self {
        let now = Instant::now();
        let membership = metrics.membership_config.membership();
        let acked =
            metrics.millis_since_quorum_ack.and_then(|age| now.checked_sub(Duration::from_millis(age)));
        let is_leader = metrics.state == ServerState::Leader;
        let has_all =
            |matched: &LogId| matched.index + APPEND_ENTRIES_MAX >= metrics.last_log_index.unwrap_or(0);
        let followers = metrics.replication.iter().flatten();
        let caught_up = followers.filter(|(_, matched)| matched.as_ref().is_some_and(has_all));
        let learners: BTreeSet<NodeId> = membership.learner_ids().map(NodeId).collect();
        Self {
            term: Term(metrics.current_term),
            leader: metrics.current_leader.map(NodeId),
            is_leader,
            has_quorum: is_leader && acked.is_some_and(|acked| now < acked + lease),
            voters: membership.voter_ids().map(NodeId).collect(),
            caught_up: caught_up.map(|(id, _)| NodeId(*id)).filter(|id| learners.contains(id)).collect(),
            learners,
            joint: membership.get_joint_config().len() > 1,
            last_log: last_log.map_or((Term(0), 0), |id| (Term(id.leader_id.term), id.index)),
            fault: metrics.running_state.as_ref().err().map(ToString::to_string),
            quorum_acked: acked,
            lease,
        }
    }

    /// The same, after a coordinator has announced its term.
    fn after(self, announced: Option<Announced>) -> Self {
        match announced {
            Some(announced)
                if announced.term > self.term || (announced.term == self.term && self.leader.is_none()) =>
            {
                Self {
                    term: announced.term,
                    leader: Some(announced.leader),
                    voters: announced.voters,
                    is_leader: false,
                    has_quorum: false,
                    quorum_acked: None,
                    ..self
                }
            }
            _ => self,
        }
    }
}

/// What a coordinator said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    pub(super) term: Term,
    pub(super) leader: NodeId,
    pub(super) voters: BTreeSet<NodeId>,
}

/// Publishes the leadership until the log ends. Receivers are woken when anything changes but the time of the last
/// acknowledgement, which is kept up to date all the same.
pub(super) fn watch_leadership(
    raft: &Raft,
    lease: Duration,
    mut announced: watch::Receiver<Option<Announced>>,
) -> watch::Receiver<Leadership> {
    let mut metrics = raft.metrics();
    let data = raft.data_metrics();
    let look = move |metrics: &mut watch::Receiver<RaftMetrics<u64, EmptyNode>>,
                     announced: Option<Announced>| {
        let seen = metrics.borrow_and_update().clone();
        let last_log = data.borrow().last_log;
        Leadership::of(&seen, last_log, lease).after(announced)
    };
    let (sender, receiver) = watch::channel(look(&mut metrics, None));
    tokio::spawn(async move {
        loop {
            let lease_end = sender.borrow().lease_end().filter(|_| sender.borrow().has_quorum);
            tokio::select! {
                changed = metrics.changed() => match changed {
                    Ok(()) => publish(&sender, look(&mut metrics, announced.borrow().clone())),
                    Err(_) => break,
                },
                Ok(()) = announced.changed() => {
                    let announced = announced.borrow_and_update().clone();
                    publish(&sender, look(&mut metrics, announced));
                }
                // The core may hang in a slow write, and then tells nothing.
                () = until(lease_end) => sender.send_modify(|leadership| leadership.has_quorum = false),
            }
        }
        sender.send_modify(|leadership| {
            leadership.is_leader = false;
            leadership.has_quorum = false;
            leadership.fault.get_or_insert_with(|| "stopped".to_owned());
        });
    });
    receiver
}

/// Wakes the receivers, unless only the time of the last acknowledgement has changed.
fn publish(sender: &watch::Sender<Leadership>, next: Leadership) {
    sender.send_if_modified(|current| {
        let changed = Leadership { quorum_acked: current.quorum_acked, ..next.clone() } != *current;
        *current = next;
        changed
    });
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
