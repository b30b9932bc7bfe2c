//! The messages of the protocol, and the frames that carry them.
//!
//! [`frame`] describes connections and what a request may be; [`version`] states how messages may change. The other modules
//! hold the messages by the part of a member that takes them.

mod batches;
pub mod blobs;
pub mod bounded;
mod changes;
pub mod consensus;
pub mod control;
pub mod frame;
mod identities;
pub mod job_views;
pub mod jobs;
mod lease_runs;
pub mod logs;
pub mod membership;
mod packages;
pub mod records;
pub mod references;
pub mod refusal;
pub mod resources;
mod start_options;
pub mod version;
pub mod views;
pub mod webhooks;
