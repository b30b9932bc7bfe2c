//! Group commit: waiting commands share one log entry.
//!
//! A lone command is proposed at once. While [`ENTRIES_IN_FLIGHT_MAX`] entries are in flight, commands queue up, and the
//! next entry takes all of them, up to [`COMMANDS_PER_ENTRY_MAX`] commands and about [`ENTRY_BYTES_SOFT_MAX`].
//! Commands are proposed in the order in which they were queued.
//! Bounds: [`COMMANDS_WAITING_MAX`](super::config::COMMANDS_WAITING_MAX) waiting, each for at most the timeout.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use idunno_core::metadata::{Applied, Command};
use idunno_shared::ids::NodeId;
use idunno_shared::wire::refusal::Refusal;
use openraft::error::ClientWriteError;
use openraft::raft::ClientWriteResult;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::config::{COMMANDS_PER_ENTRY_MAX, ENTRIES_IN_FLIGHT_MAX, ENTRY_BYTES_SOFT_MAX};
use super::errors::ProposeError;
use super::types::{CommandBatch, Raft, TypeConfig};

pub(super) type OutcomeSender = oneshot::Sender<Result<Result<Applied, Refusal>, ProposeError>>;

pub(super) struct Proposal {
    pub(super) command: Command,
    pub(super) bytes: usize,
    pub(super) reply: OutcomeSender,
}

/// Proposes commands until the senders are gone or `stop` is cancelled.
pub(super) async fn run(
    raft: Raft,
    mut proposals: mpsc::Receiver<Proposal>,
    timeout: Duration,
    stop: CancellationToken,
) {
    let in_flight = Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT_MAX));
    let mut waiting = VecDeque::new();
    loop {
        if waiting.is_empty() {
            tokio::select! {
                received = proposals.recv() => match received {
                    Some(proposal) => waiting.push_back(proposal),
                    None => return,
                },
                () = stop.cancelled() => return,
            }
        }
        let permit = tokio::select! {
            permit = Arc::clone(&in_flight).acquire_owned() => permit,
            () = stop.cancelled() => return,
        };
        while waiting.len() < COMMANDS_PER_ENTRY_MAX {
            let Ok(proposal) = proposals.try_recv() else { break };
            waiting.push_back(proposal);
        }
        let (commands, replies): (Vec<_>, Vec<_>) = take_entry(&mut waiting).into_iter().unzip();
        if commands.is_empty() {
            continue;
        }
        match raft.client_write_ff(CommandBatch(Arc::new(commands))).await {
            Ok(outcome) => {
                tokio::spawn(async move {
                    let outcome = tokio::time::timeout(timeout, outcome).await;
                    send_outcomes(replies, outcome.ok().and_then(Result::ok));
                    drop(permit);
                });
            }
            Err(fatal) => {
                let error = ProposeError::Stopped(fatal.to_string());
                for reply in replies {
                    drop(reply.send(Err(error.clone())));
                }
            }
        }
    }
}

/// The commands of the next entry; those whose proposer no longer waits are dropped.
fn take_entry(waiting: &mut VecDeque<Proposal>) -> Vec<(Command, OutcomeSender)> {
    let mut entry = Vec::new();
    let mut bytes = 0;
    while let Some(next) = waiting.pop_front() {
        if next.reply.is_closed() {
            continue;
        }
        if !entry.is_empty() && bytes + next.bytes > ENTRY_BYTES_SOFT_MAX {
            waiting.push_front(next);
            break;
        }
        bytes += next.bytes;
        entry.push((next.command, next.reply));
    }
    entry
}

/// Sends each proposer its outcome; without one, the outcome is unknown.
fn send_outcomes(replies: Vec<OutcomeSender>, outcome: Option<ClientWriteResult<TypeConfig>>) {
    let outcomes = match outcome {
        Some(Ok(response)) => response.data.into_iter().map(Ok).collect(),
        Some(Err(error)) => vec![Err(propose_error(&error)); replies.len()],
        None => Vec::new(),
    };
    let outcomes = outcomes.into_iter().chain(std::iter::repeat(Err(ProposeError::Unknown)));
    for (reply, outcome) in replies.into_iter().zip(outcomes) {
        // The proposer may have stopped waiting.
        drop(reply.send(outcome));
    }
}

fn propose_error(error: &ClientWriteError<u64, openraft::EmptyNode>) -> ProposeError {
    match error {
        ClientWriteError::ForwardToLeader(forward) => {
            ProposeError::NotLeader { leader: forward.leader_id.map(NodeId) }
        }
        // Only changes of voters return this error.
        ClientWriteError::ChangeMembershipError(error) => ProposeError::Stopped(error.to_string()),
    }
}
