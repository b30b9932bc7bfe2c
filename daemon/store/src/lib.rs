//! SDFS blobs on one disk, and the file server over them.
//!
//! **Decides** when a blob is durable, when it may be deleted, and when a disk is no longer trusted.
//!
//! **Source**: the design, section 7; replication chains as in HDFS.
//!
//! **Invariants**
//! - An acknowledged blob is flushed to disk and matches its digest.
//! - A blob is deleted only on the order of the current term's coordinator, and never while a put or an open upload uses it.
//! - After a failed flush, nothing is stored until the process restarts.
//!
//! **Bounds**: each module lists its own: memory for small blobs ([`blobs`]), requests in flight per connection ([`server`],
//! `replies`), concurrent copies ([`replica_commands`]), one blob at a time in the scrub ([`scrub`]).
//!
//! **Does not** know which other members hold a blob, or plan replication: the coordinator does.
//!
//! [`blobs`] stores blobs, [`server`] serves a blob connection (`replies` is its sending half, [`socket`] bounds how long it
//! may stall, [`access`] says what its caller may do), [`replica_commands`] carries out the coordinator's orders, and
//! [`scrub`] re-reads every blob periodically.

#![allow(missing_docs, reason = "internal to the daemon: a doc comment here says what the name does not")]

pub mod access;
pub mod blobs;
pub mod memory;
pub mod replica_commands;
mod replies;
pub mod scrub;
pub mod server;
pub mod socket;

#[cfg(test)]
mod tests;
