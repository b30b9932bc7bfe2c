//! The file server: blobs on this member's disk, served to clients, to other holders and to the coordinator.
//!
//! [`store`] keeps blobs, [`server`] serves a connection for blobs, [`orders`] obeys the coordinator.

pub mod orders;
pub mod server;
pub mod store;

#[cfg(test)]
mod tests;
