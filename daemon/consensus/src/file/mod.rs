//! One `redb` file: the log, the votes and the snapshot of the metadata.
//!
//! `tables` names its rows, `writer` is the one thread that writes them, `snapshot_rows` streams a snapshot through them.

pub(super) mod snapshot_rows;
pub(super) mod tables;
pub(super) mod writer;
