//! The network, as the rest of the daemon sees it.
//!
//! [`transport`] alone opens and accepts connections and datagrams; [`server`] accepts, checks hellos and hands requests on;
//! [`standing`] tells the connection manager ([`idunno_shared::client::connections`]) which members there are and which
//! connections to keep open.

pub mod connection_limits;
pub mod refusal_log;
pub mod revocations;
pub mod roles;
pub mod server;
pub mod standing;
#[cfg(test)]
mod tests;
pub mod transport;
pub(crate) mod unproven;
