//! The file server: blobs on this member's disk, served to clients, to other holders and to the coordinator.
//!
//! [`blobs`] keeps blobs, [`server`] serves a connection for blobs (`replies` is its answering half, [`connection`] what
//! both halves share), [`replica_commands`] obeys the coordinator, [`scrub`] reads everything again and again.

pub mod blobs;
pub mod connection;
pub mod replica_commands;
mod replies;
pub mod scrub;
pub mod server;

#[cfg(test)]
mod tests;
