//! The metadata and the replication of blobs, against models that are too simple to be wrong.

mod commands;
mod model;
mod replication;
