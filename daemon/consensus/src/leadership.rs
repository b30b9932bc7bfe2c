//! Who leads the metadata log, as this member sees it.
//!
//! Derived from openraft's metrics, which are copied at once: holding the borrow would block its core task. A member that
//! does not receive the log, or receives an old one, learns the leader from the coordinator's announcement; the higher
//! term wins.

use std::collections::BTreeSet;
use std::time::Duration;

use idunno_shared::ids::{NodeId, Term};
use openraft::{EmptyNode, RaftMetrics, ServerState};
use tokio::sync::watch;
use tokio::time::Instant;

use super::config::APPEND_ENTRIES_MAX;
use super::file::tables::LogId;
use super::types::Raft;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The highest term this member knows.
    pub term: Term,
    /// The leader of that term, dead or alive. Its death is reported by the membership, its silence by
    /// [`Consensus::last_leader_contact`](super::Consensus::last_leader_contact).
    pub leader: Option<NodeId>,
    /// Whether this member believes that it leads.
    pub is_leader: bool,
    /// Whether a quorum had acknowledged this leader within the lease when this was published. It is there to wake
    /// receivers; [`Self::holds_lease`] says whether the leader may decide now.
    pub has_quorum: bool,
    /// During a joint change, the old and the new voters.
    pub voters: BTreeSet<NodeId>,
    pub learners: BTreeSet<NodeId>,
    /// Learners that lag their leader by at most one message. Known to the leader only.
    pub caught_up: BTreeSet<NodeId>,
    /// A change of voters was interrupted half-way: request it again.
    pub joint: bool,
    /// Term and index of the last entry in this member's log; (0, 0) if it is empty.
    pub last_log: (Term, u64),
    /// Why the log has stopped. The process must end.
    pub fault: Option<String>,
    /// When a quorum last acknowledged this leader.
    quorum_acked: Option<Instant>,
    lease: Duration,
}

impl Leadership {
    /// Milliseconds since a quorum last acknowledged this leader; `None` if it does not lead or was never acknowledged.
    pub fn quorum_ack_age_ms(&self) -> Option<u64> {
        let age = self.quorum_acked.filter(|_| self.is_leader)?.elapsed();
        Some(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn acked(&self) -> Option<Instant> {
        self.quorum_acked.filter(|_| self.is_leader)
    }

    /// Whether this leader may decide now: a quorum has acknowledged it within the lease.
    pub fn holds_lease(&self) -> bool {
        self.lease_end().is_some_and(|end| Instant::now() < end)
    }

    fn lease_end(&self) -> Option<Instant> {
        self.acked().map(|acked| acked + self.lease)
    }

    fn from_metrics(metrics: &RaftMetrics<u64, EmptyNode>, last_log: Option<LogId>, lease: Duration) -> Self {
        let now = Instant::now();
        let membership = metrics.membership_config.membership();
        let acked =
            metrics.millis_since_quorum_ack.and_then(|age| now.checked_sub(Duration::from_millis(age)));
        let is_leader = metrics.state == ServerState::Leader;
        let has_caught_up =
            |matched: &LogId| matched.index + APPEND_ENTRIES_MAX >= metrics.last_log_index.unwrap_or(0);
        let followers = metrics.replication.iter().flatten();
        let caught_up = followers.filter(|(_, matched)| matched.as_ref().is_some_and(has_caught_up));
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

    /// Applies a coordinator's announcement.
    fn with_announcement(self, announced: Option<AnnouncedLeader>) -> Self {
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

/// A coordinator's announcement of its term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AnnouncedLeader {
    pub(super) term: Term,
    pub(super) leader: NodeId,
    pub(super) voters: BTreeSet<NodeId>,
}

/// Publishes the leadership until the log ends. The time of the last acknowledgement is kept up to date, but a change of
/// it alone does not wake receivers.
pub(super) fn watch_leadership(
    raft: &Raft,
    lease: Duration,
    mut announced: watch::Receiver<Option<AnnouncedLeader>>,
) -> watch::Receiver<Leadership> {
    let mut metrics = raft.metrics();
    let data = raft.data_metrics();
    let observe = move |metrics: &mut watch::Receiver<RaftMetrics<u64, EmptyNode>>,
                        announced: Option<AnnouncedLeader>| {
        let seen = metrics.borrow_and_update().clone();
        let last_log = data.borrow().last_log;
        Leadership::from_metrics(&seen, last_log, lease).with_announcement(announced)
    };
    let (sender, receiver) = watch::channel(observe(&mut metrics, None));
    tokio::spawn(async move {
        loop {
            let lease_end = {
                let leadership = sender.borrow();
                leadership.lease_end().filter(|_| leadership.has_quorum)
            };
            tokio::select! {
                changed = metrics.changed() => match changed {
                    Ok(()) => publish(&sender, observe(&mut metrics, announced.borrow().clone())),
                    Err(_) => break,
                },
                Ok(()) = announced.changed() => {
                    let announced = announced.borrow_and_update().clone();
                    publish(&sender, observe(&mut metrics, announced));
                }
                // openraft's core task may hang in a slow write, and then publishes nothing.
                () = sleep_until_or_forever(lease_end) => sender.send_modify(|leadership| leadership.has_quorum = false),
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

async fn sleep_until_or_forever(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
