//! The typed client: how programs talk to a cluster.
//!
//! Layers, each on the one below: [`link`] (a connection with its hello done), [`frames`] (messages on it),
//! [`connection`] (many calls at once), [`connections`] (all that a process has open), [`cluster`] (finds the coordinator),
//! [`files`] (bytes in and out). Beside them, [`results`]: what a row of a job's results looks like.

pub mod cluster;
pub mod connection;
pub mod connections;
pub mod files;
pub mod frames;
pub mod link;
pub mod results;
mod revocable;
pub mod transport;
