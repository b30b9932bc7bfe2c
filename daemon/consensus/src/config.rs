//! What the log is made of, and its settings.

use std::io::Cursor;
use std::sync::Arc;

use idunno_shared::wire::refusal::Refusal;
use openraft::{Config, ConfigError, EmptyNode, SnapshotPolicy};
use serde::{Deserialize, Serialize};

use idunno_core::metadata::{Applied, Command};

/// Most commands in one log entry.
pub const COMMANDS_PER_ENTRY_MAX: usize = 512;
/// Largest command, in encoded bytes. Twice this fits into one frame.
pub const COMMAND_BYTES_MAX: usize = 6 << 20;
/// A log entry takes no further command from this many encoded bytes on: it must be sent and made durable well
/// within one heartbeat.
pub(super) const ENTRY_BYTES_SOFT_MAX: usize = 256 << 10;
/// One replication message takes no further entry from this many encoded bytes on.
pub(super) const APPEND_BYTES_SOFT_MAX: usize = 1 << 20;
/// Most log entries in one replication message.
pub(super) const APPEND_ENTRIES_MAX: u64 = 64;
/// Most log entries proposed and not yet applied.
pub(super) const ENTRIES_IN_FLIGHT_MAX: usize = 4;
/// Most commands that wait for an entry; callers beyond that wait for room.
pub(super) const COMMANDS_WAITING_MAX: usize = 4096;
/// Bytes of a snapshot per message, and per row of the store.
pub(super) const SNAPSHOT_PIECE_BYTES: usize = 1 << 20;
/// Largest snapshot that is taken from a peer, in bytes.
pub(super) const SNAPSHOT_BYTES_MAX: u64 = 2 << 30;

/// A log entry: commands that one durable commit carries.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Batch(pub(super) Arc<Vec<Command>>);

/// What the commands of an entry did, in their order.
pub(super) type Outcomes = Vec<Result<Applied, Refusal>>;

openraft::declare_raft_types!(
    /// The types of the metadata log. Nodes bear no address: the transport resolves their ids by the membership.
    pub(super) TypeConfig:
        D = Batch,
        R = Outcomes,
        NodeId = u64,
        Node = EmptyNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Cursor<Vec<u8>>,
        Responder = openraft::impls::OneshotResponder<TypeConfig>,
        AsyncRuntime = openraft::TokioRuntime,
);

pub(super) type Entry = openraft::Entry<TypeConfig>;
pub(super) type LogId = openraft::LogId<u64>;
pub(super) type StorageError = openraft::StorageError<u64>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<u64, EmptyNode>;
pub(super) type Raft = openraft::Raft<TypeConfig>;

/// Times and sizes of the metadata log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How often a leader tells the others that it is there, in milliseconds; also the longest that a replication
    /// message may take, hence at least ten times a durable append.
    pub heartbeat_ms: u64,
    /// Shortest election timeout, in milliseconds: above twice `heartbeat_ms`.
    pub election_min_ms: u64,
    /// Longest election timeout, in milliseconds: above `election_min_ms`. It is also the lease: a leader that no
    /// quorum has acknowledged for longer stops deciding, and voters elect nobody before it is over. Only one voter
    /// stands at a time, so the timeout beyond the lease need not differ much from one to another.
    pub election_max_ms: u64,
    /// How long a proposal, or a change of voters, may take before its outcome counts as unknown, in milliseconds.
    pub change_timeout_ms: u64,
    /// How long one piece of a snapshot may take, installing the whole included, in milliseconds.
    pub snapshot_timeout_ms: u64,
    /// A snapshot is built every so many log entries.
    pub snapshot_every_entries: u64,
    /// So many entries behind a snapshot are kept, for followers that lag a little.
    pub entries_kept: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat_ms: 100,
            election_min_ms: 250,
            election_max_ms: 400,
            change_timeout_ms: 5_000,
            snapshot_timeout_ms: 10_000,
            snapshot_every_entries: 2_000,
            entries_kept: 500,
        }
    }
}

impl Settings {
    /// The library's configuration. Nobody stands for election until announced to.
    pub(super) fn raft(&self) -> Result<Config, Box<ConfigError>> {
        Config {
            cluster_name: "idunno".to_owned(),
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min: self.election_min_ms,
            election_timeout_max: self.election_max_ms,
            install_snapshot_timeout: self.snapshot_timeout_ms,
            max_payload_entries: APPEND_ENTRIES_MAX,
            // The library asks for more than the snapshot policy, else a snapshot may not help who lags.
            replication_lag_threshold: self.snapshot_every_entries.saturating_mul(2),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_every_entries),
            snapshot_max_chunk_size: SNAPSHOT_PIECE_BYTES as u64,
            max_in_snapshot_log_to_keep: self.entries_kept,
            purge_batch_size: 1,
            enable_elect: false,
            ..Config::default()
        }
        .validate()
        .map_err(Box::new)
    }
}
