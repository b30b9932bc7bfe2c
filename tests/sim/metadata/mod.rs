//! The metadata and the replication of blobs, compared with naive models.

mod commands;
mod model;
mod replication;
