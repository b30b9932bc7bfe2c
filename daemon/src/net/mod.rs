//! The network, as the rest of the daemon sees it.
//!
//! [`door`] alone opens and accepts connections and datagrams; [`peers`] keeps one connection of calls to each
//! member; [`server`] accepts, checks hellos and hands requests on.

pub mod connection_limits;
pub mod peers;
pub mod refusal_log;
pub mod roles;
pub mod server;
#[cfg(test)]
mod tests;
pub mod transport;
