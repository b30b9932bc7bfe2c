//! Changes of voters and learners: one at a time, each carried through even if its caller goes away.

use std::collections::BTreeSet;
use std::future::Future;

use idunno_shared::ids::NodeId;
use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, EmptyNode};

use super::Consensus;
use super::config::Raft;
use super::errors::MembersError;

type WriteError = RaftError<u64, ClientWriteError<u64, EmptyNode>>;

impl Consensus {
    /// Has `node` receive the log, and waits until it has what was in it at this moment. If it does not catch up in
    /// time the outcome is [`MembersError::Unknown`], and it goes on as a learner.
    pub async fn add_learner(&self, node: NodeId) -> Result<(), MembersError> {
        self.alone(move |raft| async move {
            raft.add_learner(node.0, EmptyNode {}, false).await.map_err(|error| refused(&error))?;
            let target = raft.metrics().borrow().last_log_index;
            let caught_up = |metrics: &openraft::RaftMetrics<u64, EmptyNode>| match &metrics.replication {
                Some(replication) => {
                    replication.get(&node.0).is_some_and(|matched| matched.map(|id| id.index) >= target)
                }
                None => true,
            };
            let mut metrics = raft.metrics();
            let led = match metrics.wait_for(caught_up).await {
                Ok(seen) => seen.replication.is_some(),
                Err(_) => return Err(MembersError::Stopped("while a learner was added".to_owned())),
            };
            if led { Ok(()) } else { Err(MembersError::Unknown) }
        })
        .await
    }

    /// Stops sending the log to a learner. To whom it is unknown, that is done already.
    pub async fn remove_learner(&self, node: NodeId) -> Result<(), MembersError> {
        let change = ChangeMembers::RemoveNodes(BTreeSet::from([node.0]));
        self.alone(move |raft| async move { change_members(&raft, change).await }).await
    }

    /// Has exactly `voters` vote. New ones must be learners; those left out are sent the log no longer. Also finishes
    /// a change that was left half done.
    pub async fn set_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), MembersError> {
        if voters.is_empty() {
            return Err(MembersError::Invalid("there must be at least one".to_owned()));
        }
        self.alone(move |raft| async move {
            let voters: BTreeSet<u64> = voters.into_iter().map(|node| node.0).collect();
            let now = raft.metrics().borrow().membership_config.membership().get_joint_config().clone();
            if now == [voters.clone()] {
                return Ok(());
            }
            change_members(&raft, ChangeMembers::ReplaceAllVoters(voters)).await
        })
        .await
    }

    /// Runs one change after those before it, in a task of its own.
    async fn alone<F, W>(&self, work: W) -> Result<(), MembersError>
    where
        F: Future<Output = Result<(), MembersError>> + Send,
        W: FnOnce(Raft) -> F + Send + 'static,
    {
        let inner = std::sync::Arc::clone(&self.inner);
        let leadership = inner.leadership.borrow().clone();
        if !leadership.is_leader {
            return Err(MembersError::NotLeader { leader: leadership.leader });
        }
        let task = tokio::spawn(async move {
            let timeout = inner.change_timeout;
            tokio::time::timeout(timeout, async {
                let _alone = inner.changing.lock().await;
                work(inner.raft.clone()).await
            })
            .await
            .unwrap_or(Err(MembersError::Unknown))
        });
        task.await.unwrap_or_else(|error| Err(MembersError::Stopped(error.to_string())))
    }
}

async fn change_members(raft: &Raft, change: ChangeMembers<u64, EmptyNode>) -> Result<(), MembersError> {
    raft.change_membership(change, false).await.map(drop).map_err(|error| refused(&error))
}

fn refused(error: &WriteError) -> MembersError {
    match error {
        RaftError::Fatal(fatal) => MembersError::Stopped(fatal.to_string()),
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            MembersError::NotLeader { leader: forward.leader_id.map(NodeId) }
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            ChangeMembershipError::LearnerNotFound(missing) => {
                MembersError::NotLearner(NodeId(missing.node_id))
            }
            ChangeMembershipError::InProgress(_) | ChangeMembershipError::EmptyMembership(_) => {
                MembersError::Invalid(error.to_string())
            }
        },
    }
}
