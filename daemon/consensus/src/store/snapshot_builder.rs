//! openraft's access to a snapshot that is to be made.

use std::sync::Arc;

use idunno_core::metadata::State;
use openraft::{EmptyNode, RaftSnapshotBuilder, Snapshot, StoredMembership};

use super::shared::LogStoreInner;
use super::snapshots::StoredSnapshot;
use crate::file::tables::{LogId, SnapshotMeta, StoreFault};
use crate::types::{StorageError, TypeConfig};

/// Builds a snapshot of the state as of its creation.
pub(crate) struct SnapshotBuilder {
    pub(super) shared: Arc<LogStoreInner>,
    pub(super) state: State,
    pub(super) applied: Option<LogId>,
    pub(super) membership: StoredMembership<u64, EmptyNode>,
    pub(super) appended: u64,
}

impl SnapshotBuilder {
    async fn build(&self) -> Result<StoredSnapshot, StoreFault> {
        let LogStoreInner { snapshots, writer, .. } = &*self.shared;
        let mut data = self.shared.begin_snapshot();
        data.push_state(self.state.clone()).await?;
        let snapshot_id = self.applied.map_or_else(|| "empty".to_owned(), |id| id.to_string());
        let meta =
            SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone(), snapshot_id };
        let built = StoredSnapshot { meta, data };
        snapshots.complete(writer, built.clone(), self.appended).await?;
        Ok(built)
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let built = self.build().await.inspect_err(|_| self.shared.snapshots.fail())?;
        Ok(Snapshot { meta: built.meta, snapshot: Box::new(built.data) })
    }
}
