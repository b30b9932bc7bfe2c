//! The messages that cross the network, one module a recipient.

mod batches;
pub mod blobs;
pub mod consensus;
pub mod control;
pub mod election;
pub mod frame;
pub mod introduction;
pub mod jobs;
mod leases;
pub mod logs;
pub mod membership;
pub mod refusal;
mod summary;
pub mod version;
pub mod views;
