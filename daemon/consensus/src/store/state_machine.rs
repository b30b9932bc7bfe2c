//! The state machine: the metadata in memory, published after each change.

use std::sync::Arc;

use openraft::storage::RaftStateMachine;
use openraft::{EmptyNode, EntryPayload, Snapshot, StoredMembership};
use tokio::sync::watch;

use super::shared::LogStoreInner;
use super::snapshot_builder::SnapshotBuilder;
use super::snapshots::StoredSnapshot;
use crate::file::snapshot_rows::SnapshotData;
use crate::file::tables::{LogId, SnapshotMeta};
use crate::types::{CommandBatch, Entry, Outcomes, StorageError, TypeConfig};
use idunno_core::metadata::{Action, Command, State};
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
    /// Starts with the state of the newest snapshot; openraft then applies the committed entries after it.
    pub(super) fn new(shared: Arc<LogStoreInner>, state: State) -> (Self, watch::Receiver<Arc<State>>) {
        let meta = shared.snapshots.newest().map(|snapshot| snapshot.meta).unwrap_or_default();
        let (publish, receiver) = watch::channel(Arc::new(state.clone()));
        let (applied, membership) = (meta.last_log_id, meta.last_membership);
        (Self { shared, state, applied, membership, publish }, receiver)
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
            appended: self.shared.snapshots.appended(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotData>, StorageError> {
        Ok(Box::new(self.shared.begin_snapshot()))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<SnapshotData>,
    ) -> Result<(), StorageError> {
        #[cfg(test)]
        let snapshot = Box::new(super::tests::copied_into(&self.shared, *snapshot).await?);
        let LogStoreInner { snapshots, writer, .. } = &*self.shared;
        let appended = snapshots.appended();
        let state = snapshot.state().await.inspect_err(|_| snapshots.fail())?;
        let received = StoredSnapshot { meta: meta.clone(), data: *snapshot };
        snapshots.complete(writer, received, appended).await.inspect_err(|_| snapshots.fail())?;
        self.state = state;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let newest = self.shared.snapshots.newest();
        Ok(newest.map(|StoredSnapshot { meta, data }| Snapshot { meta, snapshot: Box::new(data) }))
    }
}
