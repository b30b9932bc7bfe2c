//! What the users of one store share.

use std::sync::{Arc, Mutex};

use redb::Database;

use super::log_index::LogIndex;
use super::snapshots::Snapshots;
use crate::file::snapshot_rows::SnapshotData;
use crate::file::writer::Writer;

/// State that the users of the store share. The file is closed when the last user is dropped.
pub(super) struct LogStoreInner {
    // Field order matters: the database must be dropped before the queue, whose end makes the writer close the file.
    pub(super) database: Arc<Database>,
    pub(super) index: Arc<Mutex<LogIndex>>,
    pub(super) snapshots: Snapshots,
    pub(super) writer: Writer,
}

impl LogStoreInner {
    /// A new snapshot without rows.
    pub(super) fn begin_snapshot(&self) -> SnapshotData {
        self.snapshots.begin(&self.database, &self.writer)
    }
}
