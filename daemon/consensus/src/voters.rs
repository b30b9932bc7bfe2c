//! Changes of voters and learners: one at a time, each completed even if its caller is dropped.

use std::collections::BTreeSet;
use std::future::Future;

use idunno_shared::ids::NodeId;
use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, EmptyNode};

use super::Consensus;
use super::errors::VoterChangeError;
use super::types::Raft;

type WriteError = RaftError<u64, ClientWriteError<u64, EmptyNode>>;

impl Consensus {
    /// Starts sending the log to `node`, and waits until it has caught up with this moment. If it does not in time, the
    /// outcome is [`VoterChangeError::Unknown`] and it remains a learner.
    pub async fn add_learner(&self, node: NodeId) -> Result<(), VoterChangeError> {
        self.serialized(move |raft| async move {
            raft.add_learner(node.0, EmptyNode {}, false).await.map_err(|error| change_error(&error))?;
            let target = raft.metrics().borrow().last_log_index;
            let caught_up = |metrics: &openraft::RaftMetrics<u64, EmptyNode>| match &metrics.replication {
                Some(replication) => {
                    replication.get(&node.0).is_some_and(|matched| matched.map(|id| id.index) >= target)
                }
                None => true,
            };
            let mut metrics = raft.metrics();
            let still_leads = match metrics.wait_for(caught_up).await {
                Ok(seen) => seen.replication.is_some(),
                Err(_) => {
                    return Err(VoterChangeError::Stopped("it stopped while a learner was added".to_owned()));
                }
            };
            if still_leads { Ok(()) } else { Err(VoterChangeError::Unknown) }
        })
        .await
    }

    /// Stops sending the log to a learner. Succeeds if there is no such learner.
    pub async fn remove_learner(&self, node: NodeId) -> Result<(), VoterChangeError> {
        let change = ChangeMembers::RemoveNodes(BTreeSet::from([node.0]));
        self.serialized(move |raft| async move { change_members(&raft, change).await }).await
    }

    /// Makes `voters` exactly the voters. New ones must be learners; former voters no longer receive the log. Also
    /// completes a joint change that was interrupted.
    pub async fn set_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), VoterChangeError> {
        if voters.is_empty() {
            return Err(VoterChangeError::Invalid("at least one voter is required".to_owned()));
        }
        self.serialized(move |raft| async move {
            let voters: BTreeSet<u64> = voters.into_iter().map(|node| node.0).collect();
            let current = raft.metrics().borrow().membership_config.membership().get_joint_config().clone();
            if current == [voters.clone()] {
                return Ok(());
            }
            change_members(&raft, ChangeMembers::ReplaceAllVoters(voters)).await
        })
        .await
    }

    /// Runs a change in its own task, after all changes requested before it.
    async fn serialized<F, C>(&self, change: C) -> Result<(), VoterChangeError>
    where
        F: Future<Output = Result<(), VoterChangeError>> + Send,
        C: FnOnce(Raft) -> F + Send + 'static,
    {
        let inner = std::sync::Arc::clone(&self.inner);
        let leadership = inner.leadership.borrow().clone();
        if !leadership.is_leader {
            return Err(VoterChangeError::NotLeader { leader: leadership.leader });
        }
        let task = tokio::spawn(async move {
            let timeout = inner.change_timeout;
            tokio::time::timeout(timeout, async {
                let _guard = inner.voter_change.lock().await;
                change(inner.raft.clone()).await
            })
            .await
            .unwrap_or(Err(VoterChangeError::Unknown))
        });
        task.await.unwrap_or_else(|error| Err(VoterChangeError::Stopped(error.to_string())))
    }
}

async fn change_members(raft: &Raft, change: ChangeMembers<u64, EmptyNode>) -> Result<(), VoterChangeError> {
    raft.change_membership(change, false).await.map(drop).map_err(|error| change_error(&error))
}

fn change_error(error: &WriteError) -> VoterChangeError {
    match error {
        RaftError::Fatal(fatal) => VoterChangeError::Stopped(fatal.to_string()),
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            VoterChangeError::NotLeader { leader: forward.leader_id.map(NodeId) }
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            ChangeMembershipError::LearnerNotFound(missing) => {
                VoterChangeError::NotLearner(NodeId(missing.node_id))
            }
            ChangeMembershipError::InProgress(_) | ChangeMembershipError::EmptyMembership(_) => {
                VoterChangeError::Invalid(error.to_string())
            }
        },
    }
}
