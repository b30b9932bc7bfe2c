//! openraft's type parameters.

use std::sync::Arc;

use idunno_core::metadata::{Applied, Command};
use idunno_shared::wire::refusal::Refusal;
use openraft::EmptyNode;
use serde::{Deserialize, Serialize};

use crate::file::snapshot_rows::SnapshotData;

/// The payload of a log entry: the commands of one durable commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct CommandBatch(pub(super) Arc<Vec<Command>>);

/// The outcomes of an entry's commands, in order.
pub(super) type Outcomes = Vec<Result<Applied, Refusal>>;

openraft::declare_raft_types!(
    /// Nodes carry no address: the transport resolves their ids through the membership.
    pub(super) TypeConfig:
        D = CommandBatch,
        R = Outcomes,
        NodeId = u64,
        Node = EmptyNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = SnapshotData,
        Responder = openraft::impls::OneshotResponder<TypeConfig>,
        AsyncRuntime = crate::runtime::ElectionRuntime,
);

pub(super) type Entry = openraft::Entry<TypeConfig>;
pub(super) type StorageError = openraft::StorageError<u64>;
pub(super) type Raft = openraft::Raft<TypeConfig>;
