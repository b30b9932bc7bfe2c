//! The state machine: the metadata in memory, published after each change.

use std::io::Cursor;
use std::sync::Arc;

use openraft::storage::RaftStateMachine;
use openraft::{EmptyNode, EntryPayload, Snapshot, StoredMembership};
use tokio::sync::watch;

use super::snapshot::{SnapshotBuilder, StoredSnapshot, current};
use super::{LogStoreInner, StoreFault, blocking, decode_row};
use crate::config::{CommandBatch, Entry, LogId, Outcomes, SnapshotMeta, StorageError, TypeConfig};
use idunno_core::metadata::{self, Action, Command, State};
use tracing::debug;

/// openraft's access to the metadata.
pub(crate) struct StateMachine {
    shared: Arc<LogStoreInner>,
    state: State,
    applied: Option<LogId>,
    membership: StoredMembership<u64, EmptyNode>,
    publish: watch::Sender<Arc<State>>,
}

impl StateMachine {
    /// Restores the snapshot; openraft then applies the committed entries after it.
    pub(super) fn new(
        shared: Arc<LogStoreInner>,
        snapshot: Option<StoredSnapshot>,
    ) -> Result<(Self, watch::Receiver<Arc<State>>), StoreFault> {
        let (state, applied, membership) = match snapshot {
            Some(StoredSnapshot { meta, bytes, .. }) => {
                (decode_state(&bytes)?, meta.last_log_id, meta.last_membership)
            }
            None => (State::default(), None, StoredMembership::default()),
        };
        let (publish, receiver) = watch::channel(Arc::new(state.clone()));
        Ok((Self { shared, state, applied, membership, publish }, receiver))
    }

    fn publish(&self) {
        self.publish.send_replace(Arc::new(self.state.clone()));
    }
}

/// Applies an entry. Nothing else changes the metadata or the voters.
pub(super) fn apply(
    state: &mut State,
    membership: &mut StoredMembership<u64, EmptyNode>,
    Entry { log_id, payload }: Entry,
) -> Outcomes {
    match payload {
        EntryPayload::Blank => Outcomes::new(),
        EntryPayload::Normal(CommandBatch(commands)) => commands
            .iter()
            .inspect(|command| log_operation(command))
            .map(|command| state.apply(command))
            .collect(),
        EntryPayload::Membership(changed) => {
            *membership = StoredMembership::new(Some(log_id), changed);
            Outcomes::new()
        }
    }
}

/// Logs an applied operation. After a restart, the operations after the snapshot are logged again.
fn log_operation(command: &Command) {
    if let (Some(op), Action::Change(change)) = (command.op, &command.action) {
        debug!(%op, "applied: {change}");
    }
}

fn decode_state(bytes: &[u8]) -> Result<State, StoreFault> {
    decode_row::<metadata::Snapshot>(bytes).map(State::from)
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId>, StoredMembership<u64, EmptyNode>), StorageError> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcomes>, StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut outcomes = Vec::new();
        for entry in entries {
            self.applied = Some(entry.log_id);
            outcomes.push(apply(&mut self.state, &mut self.membership, entry));
        }
        // Before the outcomes are returned, so that whoever receives one also reads its effect.
        if outcomes.iter().any(|outcome| !outcome.is_empty()) {
            self.publish();
        }
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            shared: Arc::clone(&self.shared),
            state: self.state.clone(),
            applied: self.applied,
            membership: self.membership.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let bytes = Arc::new(snapshot.into_inner());
        let encoded = Arc::clone(&bytes);
        let state = match blocking(move || decode_state(&encoded)).await {
            Ok(state) => state,
            Err(fault) => {
                self.shared.snapshots.fail();
                return Err(fault.into());
            }
        };
        self.shared.snapshots.save(&self.shared.writer, meta, &bytes).await?;
        self.state = state;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        Ok(current(&self.shared).await?)
    }
}
