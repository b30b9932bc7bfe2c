//! The file server: blobs on this member's disk, served to clients, to other holders and to the coordinator.
//!
//! [`store`] keeps blobs, [`server`] serves a connection for blobs (`replies` is its answering half, [`connection`] what
//! both halves share), [`orders`] obeys the coordinator, [`scrub`] reads everything again and again.

pub mod connection;
pub mod orders;
mod replies;
pub mod scrub;
pub mod server;
pub mod store;

#[cfg(test)]
mod tests;
