//! The network, as the rest of the daemon sees it.
//!
//! [`door`] alone opens and accepts connections and datagrams; [`peers`] keeps one connection of calls to each
//! member; [`server`] accepts, checks hellos and hands requests on.

pub mod door;
pub mod peers;
pub mod roles;
pub mod rooms;
pub mod server;
pub mod strangers;
#[cfg(test)]
mod tests;
