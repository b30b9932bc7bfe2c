//! The limits of the log, and its timing.

use openraft::{Config, ConfigError, SnapshotPolicy};

pub const COMMANDS_PER_ENTRY_MAX: usize = 512;
/// Largest encoded command. Two of them fit into one frame.
pub const COMMAND_BYTES_MAX: usize = 6 << 20;
/// An entry of this many encoded bytes takes no further command: it must be sent and made durable well within one
/// heartbeat.
pub(super) const ENTRY_BYTES_SOFT_MAX: usize = 256 << 10;
/// A replication message of this many encoded bytes takes no further entry.
pub(super) const APPEND_BYTES_SOFT_MAX: usize = 1 << 20;
pub(super) const APPEND_ENTRIES_MAX: u64 = 64;
/// Entries proposed but not yet applied.
pub(super) const ENTRIES_IN_FLIGHT_MAX: usize = 4;
/// Commands queued for an entry; further callers wait.
pub(super) const COMMANDS_WAITING_MAX: usize = 4096;
/// Bytes of a snapshot per message and per row of the store. A little less than 1 MiB: the file's pages are powers of two,
/// and hold a few bytes beside the row. The size of a snapshot has no limit but the disk.
pub(super) const SNAPSHOT_ROW_BYTES: usize = (1 << 20) - 1024;
/// A message with a snapshot's row is repeated this often before the snapshot is sent again from its beginning.
pub(super) const SNAPSHOT_ROW_ATTEMPTS_MAX: u32 = 5;
/// The slowest installation of a received snapshot that its sender waits for.
pub(super) const INSTALL_BYTES_PER_S_MIN: u64 = 4 << 20;

/// Timing and snapshot policy of the metadata log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsensusConfig {
    /// Interval between a leader's heartbeats; also the timeout of a replication message, so at least ten times the
    /// duration of a durable append.
    pub heartbeat_ms: u64,
    /// Shortest election timeout, beyond the lease: one and a half times `heartbeat_ms`. The leases of voters may differ by
    /// a heartbeat, and openraft looks at its timers that often: a candidate stands again after 3 heartbeats.
    pub election_min_ms: u64,
    /// Longest election timeout: more than `election_min_ms`. It is also the lease: a leader that no quorum has
    /// acknowledged for longer stops deciding, and voters elect nobody before it has run out. Only one voter stands at
    /// a time, so timeouts have little spread: `runtime` draws them from the first quarter of the range.
    pub election_max_ms: u64,
    /// After this long, the outcome of a proposal or a change of voters counts as unknown.
    pub change_timeout_ms: u64,
    /// Timeout of one message with a part of a snapshot.
    pub snapshot_timeout_ms: u64,
    /// A snapshot is made after this many bytes of log, or after as many as the last snapshot has if that are more.
    pub snapshot_log_bytes_min: u64,
    /// Log entries kept behind a snapshot, for followers that lag slightly.
    pub entries_kept: u64,
}

impl Default for ConsensusConfig {
    fn default() -> Self {
        Self {
            heartbeat_ms: 100,
            election_min_ms: 150,
            election_max_ms: 400,
            change_timeout_ms: 5_000,
            snapshot_timeout_ms: 10_000,
            snapshot_log_bytes_min: 16 << 20,
            entries_kept: 500,
        }
    }
}

impl ConsensusConfig {
    /// openraft's configuration. No member stands for election until it is allowed to.
    pub(super) fn raft_config(&self) -> Result<Config, Box<ConfigError>> {
        Config {
            cluster_name: "idunno".to_owned(),
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min: self.election_min_ms,
            election_timeout_max: self.election_max_ms,
            install_snapshot_timeout: self.snapshot_timeout_ms,
            max_payload_entries: APPEND_ENTRIES_MAX,
            // openraft counts entries; `snapshots` counts bytes.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: self.entries_kept,
            purge_batch_size: 1,
            enable_elect: false,
            ..Config::default()
        }
        .validate()
        .map_err(Box::new)
    }
}
