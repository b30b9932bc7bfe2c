//! The log, the votes and the snapshot of the metadata on disk: one `redb` file.
//!
//! Source: Raft (Ongaro and Ousterhout, section 5: what is persistent), and the storage contract of openraft 0.9.
//! Invariants: a vote, an entry, a truncation or a snapshot that was reported durable survives a crash; the log has no
//! gap; no entry is purged before a durable snapshot holds it.
//! Bounds: [`crate::file::writer`] for the writes, [`log_index::CACHE_BYTES_MAX`] for entries in memory; on disk one snapshot, those that are
//! being written or received, and older ones while they are being sent.
//! The state machine is in memory: at start it is the snapshot and the committed entries after it.

pub(super) mod log;
mod log_index;
pub(super) mod open;
pub(super) mod recovery;
mod shared;
mod snapshot_builder;
pub(super) mod snapshots;
pub(super) mod state_machine;
#[cfg(test)]
mod tests;
